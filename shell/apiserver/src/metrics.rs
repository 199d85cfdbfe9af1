//! The server's numbers in the Prometheus text format, under the names that
//! Kubernetes' server gives them.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::context::Context;
use crate::request::{Asked, Target, Verb};

/// Upper bounds of the buckets of request durations in seconds: Kubernetes'.
const BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];

/// What a request is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Label {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    scope: &'static str,
    verb: &'static str,
}

impl Label {
    pub(crate) fn of(target: &Target) -> Self {
        match target {
            Target::Resource(asked) => Self::of_resource(asked),
            Target::Health
            | Target::Version
            | Target::Metrics
            | Target::Paths
            | Target::Discovery(_)
            | Target::OpenApi(_)
            | Target::Unknown => Self {
                group: "",
                version: "",
                resource: "",
                subresource: "",
                scope: "",
                verb: "GET",
            },
        }
    }

    fn of_resource(asked: &Asked) -> Self {
        let kind = &asked.resource.kind;
        Self {
            group: kind.group,
            version: kind.version,
            resource: kind.plural,
            subresource: kind
                .subresource(&asked.subresource)
                .map_or("", |subresource| subresource.name),
            scope: match (asked.name.as_str(), asked.namespace.as_str()) {
                ("", "") => "cluster",
                ("", _) => "namespace",
                _ => "resource",
            },
            verb: verb(asked),
        }
    }
}

/// Kubernetes counts by method, but tells lists and watches apart, and calls
/// sessions CONNECT.
fn verb(asked: &Asked) -> &'static str {
    match (asked.subresource.as_str(), asked.verb) {
        ("exec" | "attach" | "portforward" | "proxy", _) => "CONNECT",
        (_, Verb::Get) => "GET",
        (_, Verb::List) => "LIST",
        (_, Verb::Watch) => "WATCH",
        (_, Verb::Create) => "POST",
        (_, Verb::Update) => "PUT",
        (_, Verb::Patch) => "PATCH",
        (_, Verb::Delete) => "DELETE",
        (_, Verb::DeleteCollection) => "DELETECOLLECTION",
        (_, Verb::Unknown) => "OTHER",
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "component=\"apiserver\",group=\"{}\",resource=\"{}\",scope=\"{}\",subresource=\"{}\",verb=\"{}\",version=\"{}\"",
            self.group, self.resource, self.scope, self.subresource, self.verb, self.version
        )
    }
}

#[derive(Debug, Clone, Default)]
struct Series {
    codes: BTreeMap<u16, u64>,
    buckets: [u64; BUCKETS.len()],
    seconds: f64,
    /// Watches and sessions that are open.
    lasting: u64,
}

type All = BTreeMap<Label, Series>;

/// Counters of requests.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    series: Arc<Mutex<All>>,
}

fn lock(series: &Mutex<All>) -> MutexGuard<'_, All> {
    series.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metrics {
    /// A request that began at `begin` has been answered.
    pub(crate) fn count(&self, label: Label, code: u16, begin: Instant) {
        let seconds = begin.elapsed().as_secs_f64();
        let mut all = lock(&self.series);
        let series = all.entry(label).or_default();
        *series.codes.entry(code).or_default() += 1;
        series.seconds += seconds;
        let bucket = BUCKETS.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = series.buckets.get_mut(bucket) {
            *bucket += 1;
        }
    }

    /// Count a request as open until what this returns is dropped.
    pub(crate) fn lasting(&self, label: Label) -> Lasting {
        lock(&self.series).entry(label).or_default().lasting += 1;
        Lasting {
            series: Arc::clone(&self.series),
            label,
        }
    }
}

/// A watch or session that is open.
#[derive(Debug)]
pub(crate) struct Lasting {
    series: Arc<Mutex<All>>,
    label: Label,
}

impl Drop for Lasting {
    fn drop(&mut self) {
        if let Some(series) = lock(&self.series).get_mut(&self.label) {
            series.lasting -= 1;
        }
    }
}

/// The page of /metrics.
pub(crate) fn page(context: &Context) -> String {
    let all = lock(&context.metrics.series).clone();
    let mut page = Page::default();
    page.begin("apiserver_request_total", "counter");
    for (label, series) in &all {
        for (code, count) in &series.codes {
            page.line("", format_args!("code=\"{code}\",{label}"), count);
        }
    }
    page.begin("apiserver_request_duration_seconds", "histogram");
    for (label, series) in &all {
        let total: u64 = series.codes.values().sum();
        let mut below = 0;
        for (bound, count) in BUCKETS.iter().zip(series.buckets) {
            below += count;
            page.line("_bucket", format_args!("{label},le=\"{bound}\""), below);
        }
        page.line("_bucket", format_args!("{label},le=\"+Inf\""), total);
        page.line("_sum", format_args!("{label}"), series.seconds);
        page.line("_count", format_args!("{label}"), total);
    }
    page.begin("apiserver_longrunning_requests", "gauge");
    for (label, series) in all.iter().filter(|(_, series)| series.lasting > 0) {
        page.line("", format_args!("{label}"), series.lasting);
    }
    objects(context, &mut page);
    let figures = context.allocator.figures();
    page.begin("kube_apiserver_clusterip_allocator_allocated_ips", "gauge");
    for (net, used) in &figures.ranges {
        page.line("", format_args!("cidr=\"{net}\""), used);
    }
    page.begin("kube_apiserver_nodeport_allocator_allocated_ports", "gauge");
    page.line("", format_args!(""), figures.ports);
    page.text
}

fn objects(context: &Context, page: &mut Page) {
    let served = context.registry.served();
    let cache = context.store.cache();
    page.begin("apiserver_resource_objects", "gauge");
    for resource in &served.resources {
        let (group, name) = (resource.kind.group, resource.kind.plural);
        let count = cache.count(resource.index);
        page.line(
            "",
            format_args!("group=\"{group}\",resource=\"{name}\""),
            count,
        );
    }
    // The older name of the same.
    page.begin("apiserver_storage_objects", "gauge");
    for resource in &served.resources {
        let name = resource.kind.resource();
        let count = cache.count(resource.index);
        page.line("", format_args!("resource=\"{name}\""), count);
    }
    page.begin("apiserver_storage_revision", "counter");
    page.line("", format_args!(""), cache.revision());
}

#[derive(Default)]
struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    fn begin(&mut self, name: &'static str, kind: &str) {
        self.name = name;
        self.write(format_args!("# TYPE {name} {kind}\n"));
    }

    fn line(&mut self, suffix: &str, labels: fmt::Arguments<'_>, value: impl fmt::Display) {
        let name = self.name;
        let labels = labels.to_string();
        match labels.as_str() {
            "" => self.write(format_args!("{name}{suffix} {value}\n")),
            labels => self.write(format_args!("{name}{suffix}{{{labels}}} {value}\n")),
        }
    }

    fn write(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        if self.text.write_fmt(text).is_err() {
            self.text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn durations_fall_into_kubernetes_buckets() {
        let metrics = Metrics::default();
        let label = Label::of(&Target::Health);
        let now = Instant::now();
        for ago in [0, 30, 30, 70_000] {
            let begin = now.checked_sub(Duration::from_millis(ago)).unwrap();
            metrics.count(label, 200, begin);
        }
        let open = metrics.lasting(label);
        let series = lock(&metrics.series).get(&label).unwrap().clone();
        assert_eq!(series.codes, BTreeMap::from([(200, 4)]));
        assert_eq!(series.buckets[..4], [1, 0, 2, 0]);
        assert_eq!(
            series.buckets.iter().sum::<u64>(),
            3,
            "one is above all bounds"
        );
        assert_eq!(series.lasting, 1);
        drop(open);
        assert_eq!(lock(&metrics.series).get(&label).unwrap().lasting, 0);
    }
}
