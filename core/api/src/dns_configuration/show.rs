//! The file that says what a configuration says, with what is usual left out.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::read::{ANSWERS, KINDS, PODS, POLICIES};
use super::{
    API_VERSION, Autopath, Cache, DnsConfiguration, Forward, Hosts, KIND, Kubernetes, Places,
    Rewrite, ServeStale, Upstream, duration,
};

/// An object of the fields that say something.
fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let said = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(said.collect::<Map<_, _>>())
}

/// A value that differs from what is usual.
fn unusual<T: PartialEq>(value: &T, usual: &T, show: impl FnOnce(&T) -> Value) -> Option<Value> {
    (value != usual).then(|| show(value))
}

fn time(value: &Duration) -> Value {
    duration::show(*value).into()
}

fn word<T: PartialEq>(table: &[(&str, T)], value: &T) -> Value {
    let found = table.iter().find(|(_, listed)| listed == value);
    found.map_or(Value::Null, |(name, _)| json!(name))
}

impl DnsConfiguration {
    /// The document that [`super::read`] reads as this.
    pub fn to_value(&self) -> Value {
        let usual = Self::default();
        object([
            ("apiVersion", Some(json!(API_VERSION))),
            ("kind", Some(json!(KIND))),
            (
                "kubernetes",
                unusual(&self.kubernetes, &usual.kubernetes, kubernetes),
            ),
            ("autopath", self.autopath.as_ref().map(autopath)),
            (
                "forward",
                unusual(&self.forward, &usual.forward, |all| {
                    all.iter().map(forward).collect()
                }),
            ),
            (
                "maxConcurrent",
                unusual(&self.max_concurrent, &usual.max_concurrent, |n| json!(n)),
            ),
            ("cache", unusual(&self.cache, &usual.cache, cache)),
            (
                "rotate",
                unusual(&self.rotate, &usual.rotate, |on| json!(on)),
            ),
            ("hosts", unusual(&self.hosts, &usual.hosts, hosts)),
            (
                "rewrite",
                unusual(&self.rewrite, &usual.rewrite, |all| {
                    all.iter().map(rewrite).collect()
                }),
            ),
            (
                "log",
                self.log_one_in.map(|number| json!({"oneIn": number})),
            ),
            ("health", health(&self.places, &usual.places)),
            (
                "ready",
                unusual(&self.places.ready, &usual.places.ready, place),
            ),
            (
                "metrics",
                unusual(&self.places.metrics, &usual.places.metrics, place),
            ),
        ])
    }
}

fn kubernetes(this: &Kubernetes) -> Value {
    object([
        ("domain", this.domain.as_ref().map(|domain| json!(domain))),
        ("pods", this.pods.map(|pods| word(&PODS, &pods))),
        ("ttl", this.ttl.as_ref().map(time)),
        ("zonal", this.zonal.map(|zonal| json!(zonal))),
    ])
}

fn autopath(this: &Autopath) -> Value {
    let usual = Autopath::default();
    object([(
        "resolvConf",
        unusual(&this.resolv_conf, &usual.resolv_conf, |path| json!(path)),
    )])
}

fn forward(this: &Forward) -> Value {
    let usual = Forward::default();
    let tls = (this.tls != usual.tls).then(|| {
        let authorities = this.tls.certificate_authorities.as_ref();
        object([
            (
                "serverName",
                this.tls.server_name.as_ref().map(|name| json!(name)),
            ),
            (
                "certificateAuthorities",
                authorities.map(|path| json!(path)),
            ),
        ])
    });
    object([
        ("domain", Some(json!(this.domain))),
        (
            "except",
            unusual(&this.except, &usual.except, |all| json!(all)),
        ),
        ("servers", Some(this.servers.iter().map(upstream).collect())),
        (
            "policy",
            unusual(&this.policy, &usual.policy, |policy| {
                word(&POLICIES, policy)
            }),
        ),
        ("tls", tls),
        ("transport", this.force_tcp.then(|| json!("TCP"))),
        (
            "randomizeCase",
            this.randomize_case.then_some(Value::Bool(true)),
        ),
        (
            "maxFailures",
            unusual(&this.max_failures, &usual.max_failures, |n| json!(n)),
        ),
        (
            "healthCheckInterval",
            unusual(
                &this.health_check_interval,
                &usual.health_check_interval,
                time,
            ),
        ),
        (
            "raceAfter",
            unusual(&this.race_after, &usual.race_after, time),
        ),
        ("timeout", unusual(&this.timeout, &usual.timeout, time)),
        (
            "idleTimeout",
            unusual(&this.idle_timeout, &usual.idle_timeout, time),
        ),
    ])
}

fn upstream(this: &Upstream) -> Value {
    match this {
        Upstream::File(path) => json!(path),
        Upstream::Server { address, tls } => {
            let usual = if *tls { 853 } else { 53 };
            let scheme = if *tls { "tls://" } else { "" };
            let shown = match address.port() == usual {
                true if !tls => address.ip().to_string(),
                true if address.is_ipv6() => format!("[{}]", address.ip()),
                true => address.ip().to_string(),
                false => address.to_string(),
            };
            json!(format!("{scheme}{shown}"))
        }
    }
}

fn cache(this: &Option<Cache>) -> Value {
    let Some(this) = this else {
        return json!({"enabled": false});
    };
    let usual = Cache::default();
    let span =
        |span: &(Duration, Duration)| json!({"minTTL": time(&span.0), "maxTTL": time(&span.1)});
    let prefetch = this.prefetch.as_ref().map(|prefetch| {
        json!({"queries": prefetch.queries, "pause": time(&prefetch.pause), "percent": prefetch.percent})
    });
    object([
        (
            "maxEntries",
            unusual(&this.max_entries, &usual.max_entries, |n| json!(n)),
        ),
        (
            "maxBytes",
            unusual(&this.max_bytes, &usual.max_bytes, |n| json!(n)),
        ),
        ("positive", unusual(&this.positive, &usual.positive, span)),
        ("negative", unusual(&this.negative, &usual.negative, span)),
        (
            "failureTTL",
            unusual(&this.failure_ttl, &usual.failure_ttl, time),
        ),
        ("prefetch", prefetch),
        (
            "serveStale",
            unusual(&this.serve_stale, &usual.serve_stale, serve_stale),
        ),
    ])
}

fn serve_stale(this: &Option<ServeStale>) -> Value {
    let Some(this) = this else {
        return json!({"enabled": false});
    };
    json!({"maxAge": time(&this.max_age), "answerAfter": time(&this.answer_after), "ttl": time(&this.ttl)})
}

fn hosts(this: &Hosts) -> Value {
    let usual = Hosts::default();
    object([
        (
            "entries",
            unusual(&this.entries, &usual.entries, |all| {
                all.iter()
                    .map(
                        |entry| json!({"address": entry.address.to_string(), "names": entry.names}),
                    )
                    .collect()
            }),
        ),
        (
            "files",
            unusual(&this.files, &usual.files, |all| json!(all)),
        ),
        ("ttl", unusual(&this.ttl, &usual.ttl, time)),
        (
            "reverse",
            unusual(&this.reverse, &usual.reverse, |flag| json!(flag)),
        ),
    ])
}

fn rewrite(this: &Rewrite) -> Value {
    let answers = this.answers.iter().map(|answer| {
        json!({"type": word(&ANSWERS, &answer.value), "from": answer.from, "to": answer.to})
    });
    object([
        ("type", Some(word(&KINDS, &this.kind))),
        ("from", Some(json!(this.from))),
        ("to", Some(json!(this.to))),
        ("continue", this.proceed.then_some(Value::Bool(true))),
        (
            "answers",
            (!this.answers.is_empty()).then(|| answers.collect()),
        ),
    ])
}

fn health(this: &Places, usual: &Places) -> Option<Value> {
    let address = unusual(&this.health, &usual.health, |at| json!(shown(at)));
    let lameduck = unusual(&this.lameduck, &usual.lameduck, time);
    let says = address.is_some() || lameduck.is_some();
    says.then(|| object([("address", address), ("lameduck", lameduck)]))
}

fn place(at: &Option<SocketAddr>) -> Value {
    json!({"address": shown(at)})
}

fn shown(at: &Option<SocketAddr>) -> String {
    at.map_or_else(String::new, |at| at.to_string())
}
