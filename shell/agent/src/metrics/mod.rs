//! What a node's agent counts and times: kube-proxy's names and help texts, so that
//! its dashboards and alerts carry over, and a few of our own.
//!
//! Every update costs what changed and takes no lock that a scrape holds for long.

mod local;
pub(crate) mod process;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portolan_model::Family as IpFamily;
use portolan_plan::policy::Turn;
use portolan_plan::{NodePlan, Policy, Touched};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets, linear_buckets};
use prometheus_client::registry::Registry;

use crate::announce::AnnounceTold;
use crate::dns::{DnsStats, DnsTold, Told};
use crate::drops::Denied;
use local::Unserved;
use process::Process;

/// One label and its value.
type Label = [(&'static str, &'static str); 1];
type Times = Family<Label, Histogram, fn() -> Histogram>;
type Moments = Family<Label, Gauge<f64, AtomicU64>>;
type Counts = Family<Label, Counter>;
type Sizes = Family<[(&'static str, &'static str); 2], Gauge>;

/// The most changes of endpoints whose way into the kernel is timed at once.
const MOST_TRIGGERS: usize = 4096;

/// Why the whole image was compared with the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The agent started.
    Start,
    /// The kernel refused something.
    Failed,
    /// Somebody else changed the ruleset.
    Foreign,
}

impl Cause {
    /// The word in metrics and logs.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Failed => "failed",
            Self::Foreign => "foreign",
        }
    }
}

/// The metrics of one node's agent.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    /// What is told of queries for names.
    pub(crate) dns: Arc<DnsStats>,
    /// What policies deny.
    pub(crate) denied: Denied,
    sync: Times,
    full: Times,
    partial: Times,
    programming: Times,
    synced: Moments,
    queued: Moments,
    endpoint_changes: Counter,
    service_changes: Counter,
    endpoints_pending: Gauge,
    services_pending: Gauge,
    unserved: Arc<Mutex<Unserved>>,
    no_local_endpoints: Sizes,
    failures: Counts,
    cleanup_failures: Counts,
    flows_judged: Times,
    flows_ended: Counts,
    healthz: Counts,
    livez: Counts,
    commits: Counts,
    repairs: Counts,
    operations: Counts,
    foreign: Counter,
    cut: Counts,
    restored: Counts,
    forbidden: Gauge,
}

fn sync_times() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// 0.25 s, 0.5 s, whole seconds to a minute, then coarser up to five minutes.
fn programming_times() -> Histogram {
    let fine = linear_buckets(0.25, 0.25, 2).chain(linear_buckets(1.0, 1.0, 59));
    let coarse = linear_buckets(60.0, 5.0, 12).chain(linear_buckets(120.0, 30.0, 7));
    Histogram::new(fine.chain(coarse))
}

fn label(family: IpFamily) -> Label {
    let family = match family {
        IpFamily::V4 => "IPv4",
        IpFamily::V6 => "IPv6",
    };
    [("ip_family", family)]
}

/// An HTTP status of a probe.
fn code(code: u16) -> Label {
    [("code", if code == 200 { "200" } else { "503" })]
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

impl Metrics {
    /// All of them, at zero.
    pub(crate) fn new() -> Self {
        let times = |make: fn() -> Histogram| Times::new_with_constructor(make);
        let mut metrics = Self {
            registry: Arc::new(Registry::default()),
            dns: Arc::default(),
            denied: Denied::default(),
            sync: times(sync_times),
            full: times(sync_times),
            partial: times(sync_times),
            programming: times(programming_times),
            synced: Moments::default(),
            queued: Moments::default(),
            endpoint_changes: Counter::default(),
            service_changes: Counter::default(),
            endpoints_pending: Gauge::default(),
            services_pending: Gauge::default(),
            unserved: Arc::default(),
            no_local_endpoints: Sizes::default(),
            failures: Counts::default(),
            cleanup_failures: Counts::default(),
            flows_judged: times(sync_times),
            flows_ended: Counts::default(),
            healthz: Counts::default(),
            livez: Counts::default(),
            commits: Counts::default(),
            repairs: Counts::default(),
            operations: Counts::default(),
            foreign: Counter::default(),
            cut: Counts::default(),
            restored: Counts::default(),
            forbidden: Gauge::default(),
        };
        for family in IpFamily::BOTH.map(label) {
            // A counter is there before it counts, so that its rate is right.
            drop(metrics.failures.get_or_create(&family));
            drop(metrics.cleanup_failures.get_or_create(&family));
            drop(metrics.flows_ended.get_or_create(&family));
            drop(metrics.cut.get_or_create(&family));
            drop(metrics.restored.get_or_create(&family));
            drop(metrics.sync.get_or_create(&family));
            drop(metrics.programming.get_or_create(&family));
        }
        metrics.registry = Arc::new(metrics.registered());
        metrics
    }

    /// The same, which tell of forwarding and announcing too.
    pub(crate) fn telling(
        mut self,
        told: Option<DnsTold>,
        announced: Option<AnnounceTold>,
    ) -> Self {
        let mut all = self.registered();
        if let Some(told) = told {
            all.register_collector(Box::new(told));
        }
        if let Some(announced) = announced {
            all.register_collector(Box::new(announced));
        }
        self.registry = Arc::new(all);
        self
    }

    fn registered(&self) -> Registry {
        let mut all = Registry::default();
        let proxy = all.sub_registry_with_prefix("kubeproxy");
        self.register_times(proxy);
        self.register_counts(proxy);
        self.register_own(all.sub_registry_with_prefix("portolan"));
        all.register_collector(Box::new(Process));
        all.register_collector(Box::new(Told(Arc::clone(&self.dns))));
        all
    }

    /// When things happen, and how long they take.
    fn register_times(&self, proxy: &mut Registry) {
        proxy.register(
            "sync_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds",
            self.sync.clone(),
        );
        proxy.register(
            "sync_full_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds for full resyncs",
            self.full.clone(),
        );
        proxy.register(
            "sync_partial_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds for partial resyncs",
            self.partial.clone(),
        );
        proxy.register(
            "network_programming_duration_seconds",
            "In Cluster Network Programming Latency in seconds",
            self.programming.clone(),
        );
        proxy.register(
            "sync_proxy_rules_last_timestamp_seconds",
            "The last time proxy rules were successfully synced",
            self.synced.clone(),
        );
        proxy.register(
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "The last time a sync of proxy rules was queued",
            self.queued.clone(),
        );
        proxy.register(
            "conntrack_reconciler_sync_duration_seconds",
            "ReconcileConntrackFlowsLatency latency in seconds",
            self.flows_judged.clone(),
        );
    }

    /// How many there are of what.
    fn register_counts(&self, proxy: &mut Registry) {
        proxy.register(
            "sync_proxy_rules_endpoint_changes",
            "Cumulative proxy rules Endpoint changes",
            self.endpoint_changes.clone(),
        );
        proxy.register(
            "sync_proxy_rules_service_changes",
            "Cumulative proxy rules Service changes",
            self.service_changes.clone(),
        );
        proxy.register(
            "sync_proxy_rules_nftables_sync_failures",
            "Cumulative proxy nftables sync failures",
            self.failures.clone(),
        );
        proxy.register(
            "sync_proxy_rules_nftables_cleanup_failures",
            "Cumulative proxy nftables cleanup failures",
            self.cleanup_failures.clone(),
        );
        proxy.register(
            "sync_proxy_rules_endpoint_changes_pending",
            "Pending proxy rules Endpoint changes",
            self.endpoints_pending.clone(),
        );
        proxy.register(
            "sync_proxy_rules_service_changes_pending",
            "Pending proxy rules Service changes",
            self.services_pending.clone(),
        );
        // A gauge, whatever its name says; kube-proxy's is one too.
        proxy.register(
            "sync_proxy_rules_no_local_endpoints_total",
            "Number of services with a Local traffic policy and no endpoints",
            self.no_local_endpoints.clone(),
        );
        proxy.register(
            "conntrack_reconciler_deleted_entries",
            "Cumulative conntrack flows deleted by conntrack reconciler",
            self.flows_ended.clone(),
        );
        proxy.register(
            "proxy_healthz",
            "Cumulative proxy healthz HTTP status",
            self.healthz.clone(),
        );
        proxy.register(
            "proxy_livez",
            "Cumulative proxy livez HTTP status",
            self.livez.clone(),
        );
    }

    /// Those that kube-proxy does not have.
    fn register_own(&self, own: &mut Registry) {
        self.denied.register(own);
        own.register(
            "nftables_commits",
            "Commits to nftables, by what led to them: a change, or a comparison of the whole",
            self.commits.clone(),
        );
        own.register(
            "nftables_repairs",
            "Comparisons of the whole ruleset with the kernel, by their cause",
            self.repairs.clone(),
        );
        own.register(
            "nftables_repaired_operations",
            "Operations that comparisons of the whole had to commit, by their cause",
            self.operations.clone(),
        );
        own.register(
            "nftables_foreign_changes",
            "Changes of the node's nftables by somebody else, as far as they were seen",
            self.foreign.clone(),
        );
        own.register(
            "policy_connections_cut",
            "Connections that were cut because policies no longer allow them",
            self.cut.clone(),
        );
        own.register(
            "policy_connections_restored",
            "Connections that had been cut and go on because policies allow them again",
            self.restored.clone(),
        );
        own.register(
            "policy_kinds_forbidden",
            "Kinds of objects that policies need and that the agent may not read: what they say is not enforced",
            self.forbidden.clone(),
        );
    }

    /// Everything, in the text format of Prometheus.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(error) => {
                tracing::warn!(%error, "metrics cannot be written");
                String::new()
            }
        }
    }

    /// Changes of Services and EndpointSlices came in at this time.
    pub(crate) fn came(&self, services: usize, slices: usize, at: SystemTime) {
        self.service_changes.inc_by(services as u64);
        self.endpoint_changes.inc_by(slices as u64);
        self.services_pending.inc_by(services as i64);
        self.endpoints_pending.inc_by(slices as i64);
        if services > 0 || slices > 0 {
            for family in IpFamily::BOTH {
                self.queued.get_or_create(&label(family)).set(seconds(at));
            }
        }
    }

    /// A change is in the kernel, or the whole image was found or made so.
    pub(crate) fn synced(&self, took: Duration, whole: Option<Cause>, at: SystemTime) {
        let (times, why) = match whole {
            Some(_) => (&self.full, "repair"),
            None => (&self.partial, "change"),
        };
        for family in IpFamily::BOTH.map(label) {
            self.sync.get_or_create(&family).observe(took.as_secs_f64());
            times.get_or_create(&family).observe(took.as_secs_f64());
            self.synced.get_or_create(&family).set(seconds(at));
        }
        self.commits.get_or_create(&[("by", why)]).inc();
        self.services_pending.set(0);
        self.endpoints_pending.set(0);
    }

    /// A plan was made from scratch.
    pub(crate) fn planned_anew(&self, plan: &NodePlan) {
        let mut unserved = self.unserved.lock().unwrap_or_else(PoisonError::into_inner);
        *unserved = Unserved::of(plan);
        self.tell_unserved(&unserved);
    }

    /// A round of planning changed this.
    pub(crate) fn planned(&self, plan: &NodePlan, touched: &Touched) {
        let mut unserved = self.unserved.lock().unwrap_or_else(PoisonError::into_inner);
        unserved.follow(plan, touched);
        self.tell_unserved(&unserved);
    }

    fn tell_unserved(&self, unserved: &Unserved) {
        for (policy, word) in [
            (Policy::Internal, "internal"),
            (Policy::External, "external"),
        ] {
            for family in IpFamily::BOTH {
                let [family_label] = label(family);
                let of = [family_label, ("traffic_policy", word)];
                let ports = unserved.ports(policy, family);
                self.no_local_endpoints
                    .get_or_create(&of)
                    .set(i64::try_from(ports).unwrap_or(i64::MAX));
            }
        }
    }

    /// All flows of an order were judged, or as many as could be.
    pub(crate) fn flows_judged(&self, took: Duration) {
        for family in IpFamily::BOTH.map(label) {
            let times = self.flows_judged.get_or_create(&family);
            times.observe(took.as_secs_f64());
        }
    }

    /// So many flows were stale and ended.
    pub(crate) fn flows_ended(&self, family: IpFamily, count: usize) {
        let ended = self.flows_ended.get_or_create(&label(family));
        ended.inc_by(count as u64);
    }

    /// So many kinds may not be read.
    pub(crate) fn forbidden(&self, count: usize) {
        self.forbidden.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Policies cut so many connections, or let them go on.
    pub(crate) fn connections_turned(&self, family: IpFamily, turn: Turn, count: usize) {
        let counts = match turn {
            Turn::Cut => &self.cut,
            Turn::Restore => &self.restored,
        };
        counts.get_or_create(&label(family)).inc_by(count as u64);
    }

    /// What is no longer used could not be taken out of the kernel.
    pub(crate) fn cleanup_failed(&self) {
        for family in IpFamily::BOTH.map(label) {
            self.cleanup_failures.get_or_create(&family).inc();
        }
    }

    /// The whole image was compared, and so many operations were needed.
    pub(crate) fn repaired(&self, cause: Cause, operations: usize) {
        let cause = [("cause", cause.word())];
        self.repairs.get_or_create(&cause).inc();
        self.operations
            .get_or_create(&cause)
            .inc_by(operations as u64);
    }

    /// The kernel refused, or did not answer.
    pub(crate) fn failed(&self) {
        for family in IpFamily::BOTH {
            self.failures.get_or_create(&label(family)).inc();
        }
    }

    /// Somebody else changed the ruleset.
    pub(crate) fn foreign(&self) {
        self.foreign.inc();
    }

    /// These changes of endpoints are in the kernel.
    pub(crate) fn programmed(&self, triggers: &mut Triggers, at: SystemTime) {
        for (family, since) in triggers.0.drain(..) {
            if let Ok(took) = at.duration_since(since) {
                let times = self.programming.get_or_create(&label(family));
                times.observe(took.as_secs_f64());
            }
        }
    }

    /// A probe was answered.
    pub(crate) fn probed(&self, livez: bool, status: u16) {
        let probes = if livez { &self.livez } else { &self.healthz };
        probes.get_or_create(&code(status)).inc();
    }
}

/// When changes of endpoints were asked for that are not in the kernel yet.
#[derive(Debug, Default)]
pub(crate) struct Triggers(Vec<(IpFamily, SystemTime)>);

impl Triggers {
    /// One more; a backlog keeps the oldest.
    pub(crate) fn add(&mut self, family: IpFamily, at: SystemTime) {
        if self.0.len() < MOST_TRIGGERS {
            self.0.push((family, at));
        }
    }
}

#[cfg(test)]
mod tests {
    use portolan_plan::NodeView;

    use super::*;

    #[test]
    fn the_text_has_kube_proxys_names_and_what_happened() {
        let metrics = Metrics::new();
        let at = UNIX_EPOCH + Duration::from_secs(1000);
        metrics.came(2, 3, at);
        metrics.synced(Duration::from_micros(1500), None, at);
        metrics.synced(Duration::from_millis(30), Some(Cause::Start), at);
        metrics.repaired(Cause::Start, 7);
        metrics.came(1, 2, at);
        metrics.failed();
        metrics.cleanup_failed();
        metrics.flows_judged(Duration::from_millis(3));
        metrics.flows_ended(IpFamily::V6, 4);
        metrics.connections_turned(IpFamily::V4, Turn::Cut, 2);
        metrics.planned_anew(&NodePlan::empty(NodeView::default()));
        metrics.probed(false, 503);
        let mut triggers = Triggers::default();
        triggers.add(IpFamily::V4, at - Duration::from_millis(400));
        metrics.programmed(&mut triggers, at);
        let text = metrics.text();
        for line in [
            "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 2",
            "kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"} 1",
            "kubeproxy_sync_partial_proxy_rules_duration_seconds_bucket{le=\"0.002\",ip_family=\"IPv4\"} 1",
            "kubeproxy_network_programming_duration_seconds_bucket{le=\"0.25\",ip_family=\"IPv4\"} 0",
            "kubeproxy_network_programming_duration_seconds_bucket{le=\"0.5\",ip_family=\"IPv4\"} 1",
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"} 1000.0",
            "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family=\"IPv4\"} 1000.0",
            "kubeproxy_sync_proxy_rules_service_changes_total 3",
            "kubeproxy_sync_proxy_rules_endpoint_changes_total 5",
            "kubeproxy_sync_proxy_rules_service_changes_pending 1",
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending 2",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"internal\"} 0",
            "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total{ip_family=\"IPv4\"} 1",
            "kubeproxy_conntrack_reconciler_sync_duration_seconds_count{ip_family=\"IPv6\"} 1",
            "kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv6\"} 4",
            "kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv4\"} 0",
            "kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"} 1",
            "kubeproxy_proxy_healthz_total{code=\"503\"} 1",
            "portolan_nftables_commits_total{by=\"change\"} 1",
            "portolan_nftables_repairs_total{cause=\"start\"} 1",
            "portolan_nftables_repaired_operations_total{cause=\"start\"} 7",
            "portolan_nftables_foreign_changes_total 0",
            "portolan_policy_connections_cut_total{ip_family=\"IPv4\"} 2",
            "portolan_policy_connections_restored_total{ip_family=\"IPv4\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        for name in [
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "process_virtual_memory_bytes ",
            "process_open_fds ",
            "process_max_fds ",
            "process_start_time_seconds ",
        ] {
            let line = text.lines().find(|line| line.starts_with(name));
            let value: f64 = line
                .and_then(|line| line.split(' ').nth(1)?.parse().ok())
                .unwrap_or(0.0);
            assert!(
                value > 0.0 || name.starts_with("process_cpu"),
                "{name}{value}"
            );
        }
    }
}
