//! From what the file says to what the server works with.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use portolan_api::dns_configuration::{
    Cache, DnsConfiguration, Forward, HostEntry, Hosts, Policy, Rewrite, RewriteKind, Upstream,
};
use portolan_dns::upstream::{
    HealthLimits, Limits, Match, Policy as Order, Prefetch, Rewrites, Rule, RuleError, Stale,
};
use portolan_dns::{Data, Name, NameError, Record, Zone, Zones};

use super::super::forward::{
    ForwardSettings, RouteSettings, ServerSettings, TlsSettings, nameservers, search_domains,
};
use super::super::front::Front;
use super::LoadError;

/// The longest wait between two looks for a server that is down.
const MOST_WAIT: Duration = Duration::from_secs(5);
/// How long nobody tries to renew an expired reply after that has failed (RFC 8767
/// §5).
const REST: Duration = Duration::from_secs(30);

/// Why a file that can be read cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// A name that cannot be one.
    #[error("{field}: {name:?}")]
    Name {
        /// The field.
        field: String,
        /// The name.
        name: String,
        /// Why.
        source: NameError,
    },
    /// A rule that cannot be used.
    #[error("{field}")]
    Rule {
        /// The field.
        field: String,
        /// Why.
        source: RuleError,
    },
}

/// What files said when they were read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen(BTreeMap<PathBuf, String>);

impl Seen {
    pub(super) fn remember(&mut self, path: &Path, text: &str) {
        self.0.insert(path.to_owned(), text.to_owned());
    }
}

/// What the server works with.
pub(super) struct InUse {
    pub(super) forward: ForwardSettings,
    pub(super) front: Front,
    /// What pods have in their search lists after the cluster's own domains, if search
    /// lists are completed.
    pub(super) search: Option<Vec<Name>>,
}

/// Reads a file that the configuration names.
type Reader<'a> = dyn FnMut(&Path) -> Result<String, LoadError> + 'a;

pub(super) fn convert(
    configuration: &DnsConfiguration,
    read: &mut Reader<'_>,
) -> Result<InUse, LoadError> {
    let mut routes = Vec::new();
    for (index, forward) in configuration.forward.iter().enumerate() {
        routes.push(route(forward, &format!("forward[{index}]"), read)?);
    }
    let stale = configuration
        .cache
        .as_ref()
        .and_then(|cache| cache.serve_stale.as_ref());
    let forward = ForwardSettings {
        routes,
        cache: limits(configuration.cache.as_ref()),
        stale_after: stale.map_or(Duration::ZERO, |stale| stale.answer_after),
        most_in_flight: configuration.max_concurrent,
    };
    let hosts = hosts(&configuration.hosts, read)?;
    let written = hosts.iter().flat_map(Zone::entries);
    let written = written.map(|(_, records)| records.len()).sum();
    let front = Front {
        rewrites: rewrites(&configuration.rewrite)?,
        hosts,
        rotate: configuration.rotate,
        written,
        read_at: (written > 0).then(SystemTime::now),
    };
    let search = match &configuration.autopath {
        Some(autopath) => Some(search_domains(&read(Path::new(&autopath.resolv_conf))?)),
        None => None,
    };
    Ok(InUse {
        forward,
        front,
        search,
    })
}

fn name(field: &str, text: &str) -> Result<Name, ConvertError> {
    Name::parse(text).map_err(|source| ConvertError::Name {
        field: field.to_owned(),
        name: text.to_owned(),
        source,
    })
}

fn route(
    forward: &Forward,
    field: &str,
    read: &mut Reader<'_>,
) -> Result<RouteSettings, LoadError> {
    let mut servers = Vec::new();
    for upstream in &forward.servers {
        match upstream {
            Upstream::File(path) => {
                let found = nameservers(&read(Path::new(path))?);
                servers.extend(found.into_iter().map(ServerSettings::plain));
            }
            Upstream::Server { address, tls } => servers.push(ServerSettings {
                address: *address,
                tls: tls.then(|| TlsSettings {
                    name: forward.tls.server_name.clone(),
                    authorities: forward.tls.certificate_authorities.clone().map(Into::into),
                }),
            }),
        }
    }
    let excepts = forward.except.iter();
    let except = excepts
        .map(|domain| name(&format!("{field}.except"), domain))
        .collect::<Result<_, _>>()?;
    let domain = name(&format!("{field}.domain"), &forward.domain)?;
    Ok(RouteSettings {
        domain,
        except,
        servers,
        policy: match forward.policy {
            Policy::Random => Order::Random,
            Policy::RoundRobin => Order::RoundRobin,
            Policy::Sequential => Order::Sequential,
        },
        race_after: forward.race_after,
        attempt: forward.timeout,
        health: HealthLimits {
            most_failures: forward.max_failures,
            first_wait: forward.health_check_interval,
            most_wait: forward.health_check_interval.max(MOST_WAIT),
        },
        force_tcp: forward.force_tcp,
        random_case: forward.randomize_case,
        idle: forward.idle_timeout,
    })
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

fn limits(cache: Option<&Cache>) -> Limits {
    let Some(cache) = cache else {
        return Limits {
            entries: 0,
            ..Limits::default()
        };
    };
    Limits {
        entries: cache.max_entries,
        bytes: cache.max_bytes,
        least_ttl: seconds(cache.positive.0),
        most_ttl: seconds(cache.positive.1),
        least_negative_ttl: seconds(cache.negative.0),
        most_negative_ttl: seconds(cache.negative.1),
        failure_ttl: seconds(cache.failure_ttl),
        prefetch: cache.prefetch.as_ref().map(|prefetch| Prefetch {
            queries: prefetch.queries,
            pause: prefetch.pause,
            percent: prefetch.percent,
        }),
        stale: cache.serve_stale.as_ref().map(|stale| Stale {
            most: stale.max_age,
            ttl: seconds(stale.ttl),
            rest: REST,
        }),
    }
}

fn rewrites(rules: &[Rewrite]) -> Result<Rewrites, ConvertError> {
    let rules = rules.iter().enumerate().map(|(index, rule)| {
        rewrite(rule).map_err(|source| ConvertError::Rule {
            field: format!("rewrite[{index}]"),
            source,
        })
    });
    Ok(Rewrites::new(rules.collect::<Result<_, _>>()?))
}

fn rewrite(rule: &Rewrite) -> Result<Rule, RuleError> {
    let kind = match rule.kind {
        RewriteKind::Exact => Match::Exact,
        RewriteKind::Prefix => Match::Prefix,
        RewriteKind::Suffix => Match::Suffix,
        RewriteKind::Substring => Match::Substring,
        RewriteKind::Regex => Match::Regex,
    };
    let mut this = Rule::new(kind, &rule.from, &rule.to)?;
    if rule.proceed {
        this = this.proceeding();
    }
    for answer in &rule.answers {
        this = match answer.value {
            true => this.with_answer_value(&answer.from, &answer.to)?,
            false => this.with_answer_name(&answer.from, &answer.to)?,
        };
    }
    Ok(this)
}

/// One zone around everything, which leaves to others what is not written down.
fn hosts(hosts: &Hosts, read: &mut Reader<'_>) -> Result<Zones, LoadError> {
    let mut entries = hosts.entries.clone();
    for path in &hosts.files {
        entries.extend(lines(&read(Path::new(path))?));
    }
    let mut records: BTreeMap<Name, Vec<Record>> = BTreeMap::new();
    for entry in &entries {
        let names: Vec<Name> = entry
            .names
            .iter()
            .map(|text| name("hosts", text))
            .collect::<Result<_, _>>()?;
        for name in &names {
            let known = records.entry(name.clone()).or_default();
            let record = Record::from(entry.address);
            if !known.contains(&record) {
                known.push(record);
            }
        }
        if hosts.reverse
            && let Some(first) = names.first()
        {
            let known = records.entry(Name::reverse(entry.address)).or_default();
            known.push(Data::Ptr(first.clone()).into());
        }
    }
    if records.is_empty() {
        return Ok(Zones::default());
    }
    let mut zone = Zone::new(Name::root(), seconds(hosts.ttl), 1).falling_through();
    for (owner, records) in &records {
        if zone.set(owner, records).is_err() {
            tracing::warn!(%owner, "a written name was left out");
        }
    }
    Ok(Zones::new([zone]))
}

/// The lines of a file written as hosts(5); those that cannot be read are passed
/// over, as by the C library.
fn lines(text: &str) -> impl Iterator<Item = HostEntry> {
    text.lines().filter_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        let names: Vec<String> = words
            .filter(|word| Name::parse(word).is_ok())
            .map(str::to_owned)
            .collect();
        Some(HostEntry { address, names })
    })
}
