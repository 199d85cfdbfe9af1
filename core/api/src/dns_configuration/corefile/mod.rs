//! A Corefile's meaning, as far as this configuration can say it. What it cannot is
//! listed with its line, so that whoever moves knows what to look after.

mod names;
mod replies;
mod syntax;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;

use super::{Autopath, DnsConfiguration, Pods, duration};
use syntax::{Directive, Server, servers};

/// What became of a Corefile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The configuration.
    pub configuration: DnsConfiguration,
    /// What it does not say.
    pub not_converted: Vec<NotConverted>,
}

/// Something of a Corefile that has no place here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotConverted {
    /// Its line, 1-based.
    pub line: usize,
    /// What stands there.
    pub what: String,
    /// Why it was left out.
    pub why: String,
}

impl fmt::Display for NotConverted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {}: {}: {}", self.line, self.what, self.why)
    }
}

/// Work in progress.
struct Import {
    out: DnsConfiguration,
    left: Vec<NotConverted>,
    /// The zone of the server block that is being read; `.` is the root.
    zone: String,
    has_cache: bool,
}

/// Reads a Corefile.
///
/// # Errors
/// If it is none: the line, and why.
pub fn import(text: &str) -> Result<Imported, NotConverted> {
    let servers = servers(text).map_err(|error| NotConverted {
        line: error.line,
        what: "syntax".to_owned(),
        why: error.why.to_owned(),
    })?;
    let mut this = Import {
        out: DnsConfiguration::default(),
        left: Vec::new(),
        zone: String::new(),
        has_cache: false,
    };
    this.out.forward.clear();
    this.out.cache = None;
    // What is not asked for is off.
    this.out.places.health = None;
    this.out.places.ready = None;
    this.out.places.metrics = None;
    for server in &servers {
        this.server(server);
    }
    Ok(Imported {
        configuration: this.out,
        not_converted: this.left,
    })
}

impl Import {
    fn leave(&mut self, directive: &Directive, why: impl Into<String>) {
        self.left.push(NotConverted {
            line: directive.line,
            what: directive.text(),
            why: why.into(),
        });
    }

    fn server(&mut self, server: &Server) {
        for key in &server.keys {
            let Some(zone) = self.zone_of(server, key) else {
                continue;
            };
            self.zone = zone;
            for directive in &server.directives {
                self.directive(directive);
            }
        }
    }

    /// The zone of a key such as `.:53` or `corp.example`.
    fn zone_of(&mut self, server: &Server, key: &str) -> Option<String> {
        let mut leave = |why: &str| {
            self.left.push(NotConverted {
                line: server.line,
                what: key.to_owned(),
                why: why.to_owned(),
            });
        };
        let zone = match key.split_once("://") {
            Some(("dns", rest)) => rest,
            Some(_) => {
                leave("only plain DNS is served");
                return None;
            }
            None => key,
        };
        if zone.contains('/') {
            leave("write the reverse domain of the range in forward[].domain");
            return None;
        }
        let (zone, port) = zone.rsplit_once(':').unwrap_or((zone, "53"));
        if port != "53" {
            leave("ports are given by --listen");
        }
        Some(match zone.trim_end_matches('.') {
            "" => ".".to_owned(),
            zone => zone.to_ascii_lowercase(),
        })
    }

    fn is_root(&self) -> bool {
        self.zone == "."
    }

    fn directive(&mut self, directive: &Directive) {
        if directive
            .words
            .iter()
            .any(|word| word.contains("{$") || word.contains("{%"))
        {
            self.leave(directive, "environment variables are not read");
            return;
        }
        match directive.name() {
            "kubernetes" => self.kubernetes(directive),
            "autopath" => self.autopath(directive),
            "forward" => self.forward(directive),
            "cache" => self.cache(directive),
            "hosts" => self.hosts(directive),
            "rewrite" => self.rewrite(directive),
            "health" => self.health(directive),
            "ready" => {
                if let Some(at) = self.place(directive, "0.0.0.0:8181") {
                    self.out.places.ready = Some(at);
                }
                self.leave_block(directive);
            }
            "prometheus" => {
                if let Some(at) = self.place(directive, "127.0.0.1:9153") {
                    self.out.places.metrics = Some(at);
                }
                self.leave_block(directive);
            }
            // Always so: errors are logged, loops found, the file read again when it
            // changes.
            "errors" | "loop" | "reload" => self.leave_block(directive),
            "loadbalance" => match directive.arguments().as_slice() {
                [] | ["round_robin"] => {
                    self.out.rotate = true;
                    self.leave_block(directive);
                }
                _ => self.leave(directive, "addresses come in turn, or as they are"),
            },
            "log" => {
                self.out.log_one_in = Some(NonZeroU32::MIN);
                self.leave_block(directive);
                if !matches!(directive.arguments().as_slice(), [] | ["."]) {
                    self.leave(
                        directive,
                        "all queries are logged, in CoreDNS' usual format",
                    );
                }
            }
            "import" => self.leave(
                directive,
                "other files are not read: convert them one by one",
            ),
            _ => self.leave(directive, "there is nothing like it"),
        }
    }

    fn leave_block(&mut self, directive: &Directive) {
        for line in &directive.block {
            self.leave(
                line,
                format!("an option of {} that is not known", directive.name()),
            );
        }
    }

    fn kubernetes(&mut self, directive: &Directive) {
        let own = [self.zone.clone()];
        let arguments = directive.arguments();
        let zones: Vec<&str> = match arguments.is_empty() {
            true => own.iter().map(String::as_str).collect(),
            false => arguments,
        };
        let mut forward = zones
            .iter()
            .map(|zone| zone.trim_end_matches('.'))
            .filter(|zone| !zone.is_empty() && !zone.ends_with(".arpa") && *zone != "arpa");
        match (forward.next(), self.out.kubernetes.domain.is_some()) {
            (Some(domain), false) => {
                self.out.kubernetes.domain = Some(domain.to_ascii_lowercase());
                if forward.next().is_some() {
                    self.leave(
                        directive,
                        format!("only {domain} is served: a cluster has one domain"),
                    );
                }
            }
            (Some(_), true) => self.leave(directive, "a cluster has one domain"),
            (None, _) => self.leave(directive, "it names no domain of the cluster"),
        }
        for line in &directive.block {
            self.kubernetes_option(line);
        }
    }

    /// The namespace of a client is known here by its pod, so only that of the
    /// kubernetes directive means something.
    fn autopath(&mut self, directive: &Directive) {
        match directive.arguments().as_slice() {
            [.., "@kubernetes"] => self.out.autopath = Some(Autopath::default()),
            _ => self.leave(directive, "only autopath @kubernetes is there"),
        }
        self.leave_block(directive);
    }

    fn kubernetes_option(&mut self, line: &Directive) {
        const REVERSE: [&str; 3] = ["in-addr.arpa", "ip6.arpa", "arpa"];
        let arguments = line.arguments();
        match (line.name(), arguments.as_slice()) {
            ("pods", ["disabled"]) => self.out.kubernetes.pods = Some(Pods::Disabled),
            ("pods", ["insecure"]) => self.out.kubernetes.pods = Some(Pods::Insecure),
            ("pods", ["verified"]) => self.out.kubernetes.pods = Some(Pods::Verified),
            ("zonal", []) => self.out.kubernetes.zonal = Some(true),
            ("ttl", [seconds]) => match seconds.parse() {
                Ok(seconds) if seconds <= 3600 => {
                    self.out.kubernetes.ttl = Some(std::time::Duration::from_secs(seconds));
                }
                Ok(_) | Err(_) => self.leave(line, "a TTL is a number of seconds up to 3600"),
            },
            ("fallthrough", zones)
                if !zones.is_empty()
                    && zones.iter().all(|zone| {
                        REVERSE
                            .iter()
                            .any(|reverse| zone.trim_end_matches('.').ends_with(reverse))
                    }) => {}
            ("fallthrough", _) => {
                self.leave(line, "unknown names of the cluster's own domain do not exist; reverse names do fall through");
            }
            ("endpoint" | "tls" | "kubeconfig", _) => {
                self.leave(
                    line,
                    "the API server is named by --zone-from-kubeconfig, or found in the cluster",
                );
            }
            _ => self.leave(line, "an option of kubernetes that is not known"),
        }
    }

    fn health(&mut self, directive: &Directive) {
        if let Some(at) = self.place(directive, "0.0.0.0:8080") {
            self.out.places.health = Some(at);
        }
        for line in &directive.block {
            let time = match (line.name(), line.arguments().as_slice()) {
                ("lameduck", [time]) => duration::parse(time),
                _ => None,
            };
            match time {
                Some(time) => self.out.places.lameduck = time,
                None => self.leave(line, "an option of health that is not known"),
            }
        }
    }

    /// Where a directive says that it listens.
    fn place(&mut self, directive: &Directive, usual: &str) -> Option<SocketAddr> {
        let arguments = directive.arguments();
        let text = arguments.first().copied().unwrap_or(usual);
        let full = match text.split_once(':') {
            Some(("", port)) => format!("0.0.0.0:{port}"),
            Some(("localhost", port)) => format!("127.0.0.1:{port}"),
            _ => text.to_owned(),
        };
        let at = full.parse().ok();
        if at.is_none() {
            self.leave(directive, "not an address and a port");
        }
        at
    }
}
