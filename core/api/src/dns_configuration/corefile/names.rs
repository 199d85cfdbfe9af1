//! The directives about names: hosts and rewrite.

use std::net::IpAddr;
use std::time::Duration;

use super::super::reader::check_domain;
use super::super::{HostEntry, Rewrite, RewriteAnswer, RewriteKind};
use super::Import;
use super::syntax::Directive;

impl Import {
    pub(super) fn hosts(&mut self, directive: &Directive) {
        let arguments = directive.arguments();
        let file = arguments.first().copied().unwrap_or("/etc/hosts");
        if !self.is_root() || arguments.len() > 1 {
            self.leave(directive, "written names hold for all domains");
        }
        if file.starts_with('/') {
            let file = file.to_owned();
            if !self.out.hosts.files.contains(&file) {
                self.out.hosts.files.push(file);
            }
        } else {
            self.leave(directive, "the path of a file must be absolute");
        }
        let mut falls_through = false;
        for line in &directive.block {
            let arguments = line.arguments();
            match (line.name(), arguments.as_slice()) {
                ("ttl", [seconds]) => match seconds.parse() {
                    Ok(seconds) => self.out.hosts.ttl = Duration::from_secs(seconds),
                    Err(_) => self.leave(line, "not a number of seconds"),
                },
                ("no_reverse", []) => self.out.hosts.reverse = false,
                // Files are read again when they change.
                ("reload", _) => {}
                ("fallthrough", []) => falls_through = true,
                ("fallthrough", _) => {
                    falls_through = true;
                    self.leave(
                        line,
                        "what is not written down always goes on, in all domains",
                    );
                }
                (address, names) => match address.parse::<IpAddr>() {
                    Ok(address)
                        if !names.is_empty()
                            && names.iter().all(|name| check_domain(name).is_ok()) =>
                    {
                        let names = names.iter().map(|name| (*name).to_owned()).collect();
                        self.out.hosts.entries.push(HostEntry { address, names });
                    }
                    Ok(_) | Err(_) => self.leave(line, "not an address and its names"),
                },
            }
        }
        if !falls_through {
            self.leave(
                directive,
                "names that are not written down go on, as with fallthrough",
            );
        }
    }

    pub(super) fn rewrite(&mut self, directive: &Directive) {
        if !self.is_root() {
            self.leave(
                directive,
                "rules hold for all domains: write it so that it only matches names of this one",
            );
            return;
        }
        let arguments = directive.arguments();
        let (proceed, words) = match arguments.split_first() {
            Some((&"continue", rest)) => (true, rest),
            Some((&"stop", rest)) => (false, rest),
            Some(_) | None => (false, arguments.as_slice()),
        };
        let mut words: Vec<&str> = words.to_vec();
        for line in &directive.block {
            words.extend(line.words.iter().map(String::as_str));
        }
        match rule(&words) {
            Ok(mut rule) => {
                rule.proceed = proceed;
                self.out.rewrite.push(rule);
            }
            Err(why) => self.leave(directive, why),
        }
    }
}

/// `name [exact|…] FROM TO [answer auto|answer name FROM TO|answer value FROM TO]…`
fn rule(words: &[&str]) -> Result<Rewrite, &'static str> {
    let Some((&"name", words)) = words.split_first() else {
        return Err("only names are rewritten");
    };
    let (kind, words) = match words.split_first() {
        Some((&"exact", rest)) => (RewriteKind::Exact, rest),
        Some((&"prefix", rest)) => (RewriteKind::Prefix, rest),
        Some((&"suffix", rest)) => (RewriteKind::Suffix, rest),
        Some((&"substring", rest)) => (RewriteKind::Substring, rest),
        Some((&"regex", rest)) => (RewriteKind::Regex, rest),
        Some(_) | None => (RewriteKind::Exact, words),
    };
    let [from, to, rest @ ..] = words else {
        return Err("it does not say from what to what");
    };
    let mut this = Rewrite {
        kind,
        from: (*from).to_owned(),
        to: (*to).to_owned(),
        proceed: false,
        answers: Vec::new(),
    };
    let mut rest = rest;
    loop {
        rest = match rest {
            [] => break,
            ["answer", "auto", tail @ ..] => tail,
            ["answer", what @ ("name" | "value"), from, to, tail @ ..] => {
                this.answers.push(RewriteAnswer {
                    value: *what == "value",
                    from: (*from).to_owned(),
                    to: (*to).to_owned(),
                });
                tail
            }
            _ => return Err("an option of rewrite that is not known"),
        };
    }
    let expressions = this.answers.iter().map(|answer| &answer.from);
    let own = (kind == RewriteKind::Regex).then_some(&this.from);
    if expressions
        .chain(own)
        .any(|text| regex::Regex::new(text).is_err())
    {
        return Err("an expression that cannot be read here (no look-around, no back-references)");
    }
    Ok(this)
}
