//! The text of `nft list ruleset`, as nft 1.0.6 prints it.

mod elements;
mod rule;

use crate::{Base, Chain, Family, Hook, Ruleset, Set, SetData, Table};

impl Ruleset {
    /// The ruleset exactly as `nft list ruleset` of nft 1.0.6 prints it.
    ///
    /// nft prints tables, sets and chains in the order in which they were made;
    /// here it is the order of their names, in which [`diff`](crate::diff()) makes
    /// them. Elements of concatenated interval sets have the order of their keys.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (id, table) in &self.tables {
            out.push_str(&format!("table {} {} {{\n", id.family.name(), id.name));
            write_table(&mut out, id.family, table);
            out.push_str("}\n");
        }
        out
    }
}

/// nft's own escape: it has none, a quote cannot be in a comment.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "'"))
}

fn write_table(out: &mut String, family: Family, table: &Table) {
    if let Some(comment) = &table.comment {
        out.push_str(&format!("\tcomment {}\n", quoted(comment)));
    }
    let mut first = true;
    for (name, set) in &table.sets {
        if !std::mem::take(&mut first) {
            out.push('\n');
        }
        write_set(out, family, name, set);
    }
    for (name, chain) in &table.chains {
        if !std::mem::take(&mut first) {
            out.push('\n');
        }
        write_chain(out, family, name, chain);
    }
}

fn write_set(out: &mut String, family: Family, name: &str, set: &Set) {
    let word = if set.data == SetData::None {
        "set"
    } else {
        "map"
    };
    out.push_str(&format!(
        "\t{word} {name} {{\n\t\ttypeof {}",
        rule::fields(family, &set.key)
    ));
    match &set.data {
        SetData::None => {}
        SetData::Verdict => out.push_str(" : verdict"),
        SetData::Fields(fields) => {
            out.push_str(" : ");
            out.push_str(&rule::fields(family, fields));
        }
    }
    out.push('\n');
    if let Some(size) = set.size {
        out.push_str(&format!("\t\tsize {size}\n"));
    }
    let words = [
        (set.flags.dynamic, "dynamic"),
        (set.flags.interval, "interval"),
        (set.flags.timeout, "timeout"),
    ];
    let words: Vec<&str> = words
        .iter()
        .filter(|(on, _)| *on)
        .map(|(_, word)| *word)
        .collect();
    if !words.is_empty() {
        out.push_str(&format!("\t\tflags {}\n", words.join(",")));
    }
    if let Some(timeout) = set.timeout_ms {
        out.push_str(&format!("\t\ttimeout {}\n", duration(timeout)));
    }
    if let Some(comment) = &set.comment {
        out.push_str(&format!("\t\tcomment {}\n", quoted(comment)));
    }
    if !set.elements.is_empty() {
        elements::write(out, family, set);
    }
    out.push_str("\t}\n");
}

fn write_chain(out: &mut String, family: Family, name: &str, chain: &Chain) {
    out.push_str(&format!("\tchain {name} {{\n"));
    if let Some(comment) = &chain.comment {
        out.push_str(&format!("\t\tcomment {}\n", quoted(comment)));
    }
    if let Some(base) = &chain.base {
        out.push_str(&format!(
            "\t\ttype {} hook {} priority {}; policy accept;\n",
            base.kind.name(),
            base.hook.name(),
            priority(base)
        ));
    }
    for rule in &chain.rules {
        out.push_str(&format!("\t\t{}\n", rule.text(family)));
    }
    out.push_str("\t}\n");
}

/// A priority by nft's names: up to ten from a name it is counted from it.
fn priority(base: &Base) -> String {
    let names = [
        ("raw", -300, None),
        ("mangle", -150, None),
        ("dstnat", -100, Some(Hook::Prerouting)),
        ("filter", 0, None),
        ("security", 50, None),
        ("srcnat", 100, Some(Hook::Postrouting)),
    ];
    for (name, number, hook) in names {
        let distance = base.priority.saturating_sub(number);
        if hook.is_some_and(|hook| hook != base.hook) || distance.unsigned_abs() > 10 {
            continue;
        }
        return match distance.signum() {
            0 => name.to_owned(),
            1 => format!("{name} + {distance}"),
            _ => format!("{name} - {}", distance.unsigned_abs()),
        };
    }
    base.priority.to_string()
}

/// A time as nft prints it: `1d2h3m4s5ms`.
fn duration(ms: u64) -> String {
    let units = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    let mut rest = ms;
    let mut out = String::new();
    for (unit, length) in units {
        let count = rest / length;
        rest %= length;
        if count > 0 {
            out.push_str(&format!("{count}{unit}"));
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}
