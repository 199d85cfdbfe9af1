//! From text to configuration.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use regex::Regex;
use serde_json::Value;

use super::reader::{At, Faults, check_domain};
use super::{
    API_VERSION, Autopath, Cache, DnsConfiguration, Forward, HostEntry, Hosts, KIND, Kubernetes,
    Places, Pods, Policy, Prefetch, Rewrite, RewriteAnswer, RewriteKind, ServeStale, Tls, Upstream,
};
use crate::Cause;
use crate::yaml::{self, YamlError};

/// The most servers of one route, as for CoreDNS.
const MOST_SERVERS: usize = 15;
const DNS_PORT: u16 = 53;
const TLS_PORT: u16 = 853;

pub(super) const PODS: [(&str, Pods); 3] = [
    ("Disabled", Pods::Disabled),
    ("Insecure", Pods::Insecure),
    ("Verified", Pods::Verified),
];
pub(super) const POLICIES: [(&str, Policy); 3] = [
    ("Random", Policy::Random),
    ("RoundRobin", Policy::RoundRobin),
    ("Sequential", Policy::Sequential),
];
pub(super) const TRANSPORTS: [(&str, bool); 2] = [("UDP", false), ("TCP", true)];
pub(super) const KINDS: [(&str, RewriteKind); 5] = [
    ("Exact", RewriteKind::Exact),
    ("Prefix", RewriteKind::Prefix),
    ("Suffix", RewriteKind::Suffix),
    ("Substring", RewriteKind::Substring),
    ("Regex", RewriteKind::Regex),
];
pub(super) const ANSWERS: [(&str, bool); 2] = [("Name", false), ("Value", true)];

/// Why a file is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    /// It is no YAML.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// It is not one document.
    #[error("there must be one document, and there are {0}")]
    Documents(usize),
    /// It is of another kind or version.
    #[error(
        "no kind \"{kind}\" in version \"{version}\" is known here, only {KIND} in {API_VERSION}"
    )]
    Kind {
        /// The kind that it names.
        kind: String,
        /// The version that it names.
        version: String,
    },
    /// It has fields that nobody knows.
    #[error("strict decoding error: {}", unknown(.0))]
    Unknown(Vec<String>),
    /// Its fields have faults.
    #[error("{}", list(.0))]
    Invalid(Vec<Cause>),
}

fn unknown(fields: &[String]) -> String {
    let told: Vec<String> = fields
        .iter()
        .map(|field| format!("unknown field {field:?}"))
        .collect();
    told.join(", ")
}

fn list(causes: &[Cause]) -> String {
    let told: Vec<String> = causes.iter().map(ToString::to_string).collect();
    match told.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// Reads a file.
///
/// # Errors
/// Anything that is not understood: all faulty fields at once.
pub fn read(text: &str) -> Result<DnsConfiguration, ConfigurationError> {
    let documents = yaml::parse(text)?;
    let [document] = documents.as_slice() else {
        return Err(ConfigurationError::Documents(documents.len()));
    };
    let said = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or("");
    let (version, kind) = (said("apiVersion"), said("kind"));
    if (version, kind) != (API_VERSION, KIND) {
        return Err(ConfigurationError::Kind {
            kind: kind.to_owned(),
            version: version.to_owned(),
        });
    }
    let faults = Faults::default();
    let root = At {
        path: String::new(),
        value: document,
        faults: &faults,
    };
    let found = configuration(&root);
    let unknown = faults.unknown.into_inner();
    if !unknown.is_empty() {
        return Err(ConfigurationError::Unknown(unknown));
    }
    let causes = faults.causes.into_inner();
    if !causes.is_empty() {
        return Err(ConfigurationError::Invalid(causes));
    }
    Ok(found)
}

/// Puts what is there in place of what is usual.
fn set<T>(place: &mut T, found: Option<T>) {
    if let Some(found) = found {
        *place = found;
    }
}

fn configuration(at: &At<'_>) -> DnsConfiguration {
    let mut this = DnsConfiguration::default();
    at.object(&[
        "apiVersion",
        "kind",
        "metadata",
        "kubernetes",
        "autopath",
        "forward",
        "maxConcurrent",
        "cache",
        "rotate",
        "hosts",
        "rewrite",
        "log",
        "health",
        "ready",
        "metrics",
    ]);
    set(
        &mut this.kubernetes,
        at.get("kubernetes").map(|at| kubernetes(&at)),
    );
    this.autopath = at.get("autopath").map(|at| autopath(&at));
    set(&mut this.forward, at.get("forward").map(|at| forwards(&at)));
    let concurrent = at
        .get("maxConcurrent")
        .and_then(|at| at.number(1, 1_000_000));
    set(&mut this.max_concurrent, concurrent.map(|n| n as usize));
    if let Some(at) = at.get("cache") {
        this.cache = cache(&at);
    }
    set(&mut this.rotate, at.get("rotate").and_then(|at| at.flag()));
    set(&mut this.hosts, at.get("hosts").map(|at| hosts(&at)));
    if let Some(at) = at.get("rewrite") {
        this.rewrite = at.items().iter().filter_map(rewrite).collect();
    }
    this.log_one_in = at.get("log").and_then(|at| log(&at));
    places(at, &mut this.places);
    this
}

fn autopath(at: &At<'_>) -> Autopath {
    let mut this = Autopath::default();
    at.object(&["resolvConf"]);
    if let Some(at) = at.get("resolvConf") {
        set(&mut this.resolv_conf, at.path());
    }
    this
}

fn kubernetes(at: &At<'_>) -> Kubernetes {
    at.object(&["domain", "pods", "ttl", "zonal"]);
    let domain = at.get("domain").and_then(|at| at.domain(false));
    let ttl = at.get("ttl").and_then(|at| {
        let ttl = at.seconds()?;
        if ttl.as_secs() > 3600 {
            at.invalid("must be at most 1h");
        }
        Some(ttl)
    });
    Kubernetes {
        domain: domain.map(|name| name.trim_end_matches('.').to_ascii_lowercase()),
        pods: at.get("pods").and_then(|at| at.choice(&PODS)),
        ttl,
        zonal: at.get("zonal").and_then(|at| at.flag()),
    }
}

fn forwards(at: &At<'_>) -> Vec<Forward> {
    let mut found: Vec<Forward> = Vec::new();
    for at in at.items() {
        let this = forward(&at);
        if let Some(domain) = at.get("domain")
            && found
                .iter()
                .any(|other| same_domain(&other.domain, &this.domain))
        {
            domain.fault(Cause::duplicate(&*domain.path, domain.value));
        }
        found.push(this);
    }
    found
}

fn same_domain(one: &str, other: &str) -> bool {
    let bare = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
    bare(one) == bare(other)
}

fn forward(at: &At<'_>) -> Forward {
    let mut this = Forward::default();
    at.object(&[
        "domain",
        "except",
        "servers",
        "policy",
        "tls",
        "transport",
        "randomizeCase",
        "maxFailures",
        "healthCheckInterval",
        "raceAfter",
        "timeout",
        "idleTimeout",
    ]);
    set(
        &mut this.domain,
        at.get("domain").and_then(|at| at.domain(true)),
    );
    if let Some(at) = at.get("except") {
        this.except = at
            .items()
            .iter()
            .filter_map(|at| at.domain(false))
            .collect();
    }
    match at.get("servers") {
        Some(at) => this.servers = servers(&at),
        None => at.fault(Cause::required(format!("{}.servers", at.path), "")),
    }
    set(
        &mut this.policy,
        at.get("policy").and_then(|at| at.choice(&POLICIES)),
    );
    set(&mut this.tls, at.get("tls").map(|at| tls(&at)));
    set(
        &mut this.force_tcp,
        at.get("transport").and_then(|at| at.choice(&TRANSPORTS)),
    );
    set(
        &mut this.randomize_case,
        at.get("randomizeCase").and_then(|at| at.flag()),
    );
    let failures = at.get("maxFailures").and_then(|at| at.number(0, 1000));
    set(&mut this.max_failures, failures.map(|n| n as u32));
    let pause = |name: &str| at.get(name).and_then(|at| at.pause());
    set(
        &mut this.health_check_interval,
        pause("healthCheckInterval"),
    );
    set(&mut this.race_after, pause("raceAfter"));
    set(&mut this.timeout, pause("timeout"));
    set(&mut this.idle_timeout, pause("idleTimeout"));
    this
}

fn servers(at: &At<'_>) -> Vec<Upstream> {
    let items = at.items();
    if items.is_empty() && at.value.is_array() {
        at.fault(Cause::required(&*at.path, "at least one server"));
    }
    if items.len() > MOST_SERVERS {
        at.fault(Cause::too_many(&*at.path, items.len(), MOST_SERVERS));
    }
    items
        .iter()
        .filter_map(|at| {
            let found = upstream(at.text()?);
            if found.is_none() {
                at.invalid("must be ADDRESS, ADDRESS:PORT, tls://ADDRESS[:PORT], or the path of a resolv.conf");
            }
            found
        })
        .collect()
}

/// A server or a file, as both this file and the Corefile write it.
pub(super) fn upstream(text: &str) -> Option<Upstream> {
    if text.starts_with('/') {
        return Some(Upstream::File(text.to_owned()));
    }
    let (text, tls) = match text.split_once("://") {
        Some(("dns", rest)) => (rest, false),
        Some(("tls", rest)) => (rest, true),
        Some(_) => return None,
        None => (text, false),
    };
    let port = if tls { TLS_PORT } else { DNS_PORT };
    let bare: &str = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare
        .parse::<IpAddr>()
        .map(|ip| SocketAddr::new(ip, port))
        .or_else(|_| text.parse::<SocketAddr>())
        .ok()
        .filter(|address| address.port() != 0 && !address.ip().is_unspecified())?;
    Some(Upstream::Server { address, tls })
}

fn tls(at: &At<'_>) -> Tls {
    at.object(&["serverName", "certificateAuthorities"]);
    let path = at.get("certificateAuthorities").and_then(|at| at.path());
    Tls {
        server_name: at.get("serverName").and_then(|at| at.domain(false)),
        certificate_authorities: path,
    }
}

/// Nothing is kept if the field is `enabled: false`.
fn cache(at: &At<'_>) -> Option<Cache> {
    let mut this = Cache::default();
    at.object(&[
        "enabled",
        "maxEntries",
        "maxBytes",
        "positive",
        "negative",
        "failureTTL",
        "prefetch",
        "serveStale",
    ]);
    let number = |name: &str, least| {
        let found = at.get(name).and_then(|at| at.number(least, 1 << 40));
        found.map(|n| n as usize)
    };
    set(&mut this.max_entries, number("maxEntries", 1));
    set(&mut this.max_bytes, number("maxBytes", 65_536));
    for (name, place) in [
        ("positive", &mut this.positive),
        ("negative", &mut this.negative),
    ] {
        let Some(at) = at.get(name) else { continue };
        at.object(&["minTTL", "maxTTL"]);
        set(&mut place.0, at.get("minTTL").and_then(|at| at.seconds()));
        set(&mut place.1, at.get("maxTTL").and_then(|at| at.seconds()));
        if place.0 > place.1 {
            at.invalid("minTTL must not be above maxTTL");
        }
    }
    set(
        &mut this.failure_ttl,
        at.get("failureTTL").and_then(|at| at.seconds()),
    );
    this.prefetch = at.get("prefetch").map(|at| prefetch(&at));
    if let Some(at) = at.get("serveStale") {
        this.serve_stale = serve_stale(&at);
    }
    let enabled = at.get("enabled").and_then(|at| at.flag());
    enabled.unwrap_or(true).then_some(this)
}

fn prefetch(at: &At<'_>) -> Prefetch {
    let mut this = Prefetch::default();
    at.object(&["queries", "pause", "percent"]);
    let queries = at.get("queries").and_then(|at| at.number(1, 1_000_000));
    set(&mut this.queries, queries.map(|n| n as u32));
    set(&mut this.pause, at.get("pause").and_then(|at| at.pause()));
    let percent = at.get("percent").and_then(|at| at.number(1, 90));
    set(&mut this.percent, percent.map(|n| n as u8));
    this
}

fn serve_stale(at: &At<'_>) -> Option<ServeStale> {
    let mut this = ServeStale::default();
    at.object(&["enabled", "maxAge", "answerAfter", "ttl"]);
    set(
        &mut this.max_age,
        at.get("maxAge").and_then(|at| at.pause()),
    );
    set(
        &mut this.answer_after,
        at.get("answerAfter").and_then(|at| at.duration()),
    );
    set(&mut this.ttl, at.get("ttl").and_then(|at| at.seconds()));
    let enabled = at.get("enabled").and_then(|at| at.flag());
    enabled.unwrap_or(true).then_some(this)
}

fn hosts(at: &At<'_>) -> Hosts {
    let mut this = Hosts::default();
    at.object(&["entries", "files", "ttl", "reverse"]);
    if let Some(at) = at.get("entries") {
        this.entries = at.items().iter().filter_map(host).collect();
    }
    if let Some(at) = at.get("files") {
        this.files = at.items().iter().filter_map(At::path).collect();
    }
    set(&mut this.ttl, at.get("ttl").and_then(|at| at.seconds()));
    set(
        &mut this.reverse,
        at.get("reverse").and_then(|at| at.flag()),
    );
    this
}

fn host(at: &At<'_>) -> Option<HostEntry> {
    at.object(&["address", "names"]);
    let address = at.get("address");
    let names = at.get("names");
    if address.is_none() {
        at.fault(Cause::required(format!("{}.address", at.path), ""));
    }
    if names.is_none() {
        at.fault(Cause::required(format!("{}.names", at.path), ""));
    }
    let address = address.and_then(|at| {
        let found = at.text()?.parse().ok();
        if found.is_none() {
            at.invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        }
        found
    })?;
    let names = names?
        .items()
        .iter()
        .filter_map(|at| at.domain(false))
        .collect();
    Some(HostEntry { address, names })
}

fn rewrite(at: &At<'_>) -> Option<Rewrite> {
    at.object(&["type", "from", "to", "continue", "answers"]);
    let kind = at
        .get("type")
        .map_or(Some(RewriteKind::Exact), |at| at.choice(&KINDS))?;
    let (from, to) = pair(at)?;
    let this = Rewrite {
        kind,
        from,
        to,
        proceed: at.get("continue").and_then(|at| at.flag()).unwrap_or(false),
        answers: at
            .get("answers")
            .map(|at| at.items().iter().filter_map(answer).collect())
            .unwrap_or_default(),
    };
    let (from, to) = (at.get("from")?, at.get("to")?);
    match kind {
        RewriteKind::Exact => {
            for (at, text) in [(&from, &this.from), (&to, &this.to)] {
                if let Err(detail) = check_domain(text) {
                    at.invalid(&detail);
                }
            }
        }
        RewriteKind::Regex => expression(&from, &this.from),
        RewriteKind::Prefix | RewriteKind::Suffix | RewriteKind::Substring => {}
    }
    Some(this)
}

/// The fields `from`, which may not be empty, and `to`.
fn pair(at: &At<'_>) -> Option<(String, String)> {
    let mut texts = Vec::new();
    for name in ["from", "to"] {
        match at.get(name) {
            Some(at) => {
                let text = at.text()?;
                if name == "from" && text.is_empty() {
                    at.fault(Cause::required(&*at.path, "must not be empty"));
                }
                texts.push(text.to_owned());
            }
            None => at.fault(Cause::required(format!("{}.{name}", at.path), "")),
        }
    }
    let to = texts.pop()?;
    Some((texts.pop()?, to))
}

fn answer(at: &At<'_>) -> Option<RewriteAnswer> {
    at.object(&["type", "from", "to"]);
    let value = at
        .get("type")
        .map_or(Some(false), |at| at.choice(&ANSWERS))?;
    let (from, to) = pair(at)?;
    expression(&at.get("from")?, &from);
    Some(RewriteAnswer { value, from, to })
}

fn expression(at: &At<'_>, text: &str) {
    if let Err(error) = Regex::new(text) {
        let lines: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
        let last = lines.last().cloned().unwrap_or_default();
        at.invalid(last.trim_start_matches("error: "));
    }
}

/// One of so many queries.
fn log(at: &At<'_>) -> Option<NonZeroU32> {
    at.object(&["oneIn"]);
    let one_in = at.get("oneIn");
    if one_in.is_none() {
        at.fault(Cause::required(format!("{}.oneIn", at.path), ""));
    }
    let number = one_in?.number(1, u64::from(u32::MAX))?;
    u32::try_from(number).ok().and_then(NonZeroU32::new)
}

fn places(at: &At<'_>, places: &mut Places) {
    if let Some(at) = at.get("health") {
        at.object(&["address", "lameduck"]);
        set(
            &mut places.health,
            at.get("address").and_then(|at| at.place()),
        );
        set(
            &mut places.lameduck,
            at.get("lameduck").and_then(|at| at.duration()),
        );
    }
    for (name, place) in [
        ("ready", &mut places.ready),
        ("metrics", &mut places.metrics),
    ] {
        let Some(at) = at.get(name) else { continue };
        at.object(&["address"]);
        set(place, at.get("address").and_then(|at| at.place()));
    }
}
