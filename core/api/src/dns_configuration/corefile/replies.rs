//! The directives about replies of others: forward and cache.

use std::time::Duration;

use super::super::read::upstream;
use super::super::{Cache, Forward, Policy, Prefetch, ServeStale, Tls, Upstream, duration};
use super::Import;
use super::syntax::Directive;

/// CoreDNS' own defaults, where they differ from ours.
const CAPACITY: usize = 9984;
const MIN_TTL: Duration = Duration::from_secs(5);

/// Seconds, or a duration.
fn time(text: &str) -> Option<Duration> {
    let seconds = text.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| duration::parse(text))
}

/// The domain that a server block and a directive in it mean together.
fn domain(text: &str) -> String {
    match text.trim_end_matches('.') {
        "" => ".".to_owned(),
        name => name.to_ascii_lowercase(),
    }
}

impl Import {
    pub(super) fn forward(&mut self, directive: &Directive) {
        let arguments = directive.arguments();
        let Some((from, to)) = arguments.split_first() else {
            self.leave(directive, "it says neither what to forward nor where to");
            return;
        };
        let from = domain(from);
        let mut this = Forward {
            // Within a block of a zone everything is what lies in that zone.
            domain: if from == "." { self.zone.clone() } else { from },
            ..Forward::default()
        };
        for text in to {
            match server(text) {
                Some((server, name)) => {
                    this.tls.server_name = name.or(this.tls.server_name.take());
                    this.servers.push(server);
                }
                None => self.leave(directive, format!("{text} is not an address or a file")),
            }
        }
        for line in &directive.block {
            self.forward_option(line, &mut this);
        }
        if self
            .out
            .forward
            .iter()
            .any(|other| other.domain == this.domain)
        {
            self.leave(directive, format!("{} is forwarded already", this.domain));
        } else if this.servers.is_empty() {
            self.leave(directive, "no server is left");
        } else {
            self.out.forward.push(this);
        }
    }

    fn forward_option(&mut self, line: &Directive, this: &mut Forward) {
        let arguments = line.arguments();
        match (line.name(), arguments.as_slice()) {
            ("except", names) => this.except.extend(names.iter().map(|name| domain(name))),
            ("force_tcp", []) => this.force_tcp = true,
            // We ask over UDP first whatever the client used.
            ("prefer_udp", []) => {}
            ("policy", ["random"]) => this.policy = Policy::Random,
            ("policy", ["round_robin"]) => this.policy = Policy::RoundRobin,
            ("policy", ["sequential"]) => this.policy = Policy::Sequential,
            ("tls_servername", [name]) => this.tls.server_name = Some((*name).to_owned()),
            ("tls", []) => {}
            ("tls", [ca]) => {
                this.tls = Tls {
                    certificate_authorities: Some((*ca).to_owned()),
                    ..this.tls.clone()
                };
            }
            ("tls", [_, _, ..]) => self.leave(line, "client certificates are not used"),
            ("max_fails", [number]) => match number.parse() {
                Ok(number) => this.max_failures = number,
                Err(_) => self.leave(line, "not a number"),
            },
            ("expire", [text]) => match duration::parse(text) {
                Some(time) => this.idle_timeout = time,
                None => self.leave(line, "not a duration"),
            },
            ("health_check", [text, rest @ ..]) => {
                match duration::parse(text) {
                    Some(time) => this.health_check_interval = time,
                    None => self.leave(line, "not a duration"),
                }
                if !rest.is_empty() {
                    self.leave(line, "servers are always asked for the root's name servers");
                }
            }
            ("max_concurrent", [number]) => match number.parse() {
                Ok(number) if number > 0 => self.out.max_concurrent = number,
                Ok(_) | Err(_) => self.leave(line, "not a number above 0"),
            },
            _ => self.leave(line, "an option of forward that is not known"),
        }
    }

    /// Whether a zone is the cluster's own, as far as that was read.
    fn is_of_cluster(&self, zone: &str) -> bool {
        let own = self.out.kubernetes.domain.as_deref();
        own.is_some_and(|own| domain(zone) == own)
    }

    pub(super) fn cache(&mut self, directive: &Directive) {
        let mut this = Cache {
            max_entries: 2 * CAPACITY,
            positive: (MIN_TTL, Duration::from_secs(3600)),
            negative: (MIN_TTL, Duration::from_secs(1800)),
            serve_stale: None,
            ..Cache::default()
        };
        let mut arguments = directive.arguments();
        if let Some(most) = arguments.first().and_then(|text| text.parse().ok()) {
            arguments.remove(0);
            let most = Duration::from_secs(most);
            this.positive.1 = most;
            this.negative.1 = most.min(this.negative.1);
        }
        if !arguments.iter().all(|zone| domain(zone) == self.zone) {
            self.leave(directive, "the cache is for all names outside the cluster");
        }
        let mut capacities = [CAPACITY; 2];
        for line in &directive.block {
            self.cache_option(line, &mut this, &mut capacities);
        }
        this.max_entries = capacities.iter().sum();
        for span in [&mut this.positive, &mut this.negative] {
            span.0 = span.0.min(span.1);
        }
        if !self.has_cache {
            self.has_cache = true;
            self.out.cache = Some(this);
        } else if self.is_root() {
            self.out.cache = Some(this);
            self.leave(
                directive,
                "there is one cache for all domains: this one's settings hold",
            );
        } else if self.out.cache.as_ref() != Some(&this) {
            self.leave(
                directive,
                "there is one cache for all domains: another one's settings hold",
            );
        }
    }

    fn cache_option(&mut self, line: &Directive, this: &mut Cache, capacities: &mut [usize; 2]) {
        let arguments = line.arguments();
        match (line.name(), arguments.as_slice()) {
            (name @ ("success" | "denial"), [capacity, ttls @ ..]) if ttls.len() < 3 => {
                let [success, denial] = capacities;
                let (span, place) = match name {
                    "success" => (&mut this.positive, success),
                    _ => (&mut this.negative, denial),
                };
                let times: Vec<Option<Duration>> = ttls.iter().map(|text| time(text)).collect();
                match capacity.parse() {
                    Ok(number) if times.iter().all(Option::is_some) => *place = number,
                    Ok(_) | Err(_) => self.leave(line, "not numbers"),
                }
                let mut times = times.into_iter().flatten();
                span.1 = times.next().unwrap_or(span.1);
                span.0 = times.next().unwrap_or(span.0);
            }
            ("servfail", [text]) => match duration::parse(text) {
                Some(time) => this.failure_ttl = time,
                None => self.leave(line, "not a duration"),
            },
            ("prefetch", [queries, rest @ ..]) => {
                let mut prefetch = Prefetch::default();
                let mut fine = queries.parse().map(|n| prefetch.queries = n).is_ok();
                for text in rest {
                    match text.strip_suffix('%') {
                        Some(percent) => {
                            fine &= percent.parse().map(|n| prefetch.percent = n).is_ok()
                        }
                        None => fine &= time(text).map(|time| prefetch.pause = time).is_some(),
                    }
                }
                if fine {
                    this.prefetch = Some(prefetch);
                } else {
                    self.leave(line, "not a number, a duration and a percentage");
                }
            }
            // Names of the cluster are never kept, so there is nothing to switch off.
            ("disable", [_, zones @ ..])
                if !zones.is_empty() && zones.iter().all(|zone| self.is_of_cluster(zone)) => {}
            ("serve_stale", options) => {
                let mut stale = ServeStale {
                    answer_after: Duration::ZERO,
                    ttl: Duration::ZERO,
                    ..ServeStale::default()
                };
                for text in options {
                    match (*text, duration::parse(text)) {
                        ("immediate", _) => {}
                        ("verify", _) => stale.answer_after = ServeStale::default().answer_after,
                        (_, Some(time)) => stale.max_age = time,
                        (_, None) => self.leave(line, format!("{text} is not a duration")),
                    }
                }
                this.serve_stale = Some(stale);
            }
            _ => self.leave(line, "an option of cache that is not known"),
        }
    }
}

/// A server and the name that its certificate must have, `tls://9.9.9.9%dns.quad9.net`.
fn server(text: &str) -> Option<(Upstream, Option<String>)> {
    let (text, name) = match text.split_once('%') {
        Some((text, name)) if text.starts_with("tls://") => (text, Some(name.to_owned())),
        _ => (text, None),
    };
    Some((upstream(text)?, name))
}
