//! What the random clusters are made of. A law over them says nothing of a feature
//! that they never have, so every feature of the plane is named here, and each must
//! have been met.

use std::collections::{BTreeMap, BTreeSet};

use portolan_model::{
    Affinity, Algorithm, Change, Cluster, Family, Protocol, Publication, Service, TrafficPolicy,
};
use portolan_plan::{
    Decision, Detector, Forward, Lane, Masquerade, NodePortAddresses, NodeView, Owner, PodNames,
    Policy, Reason, Selection, Verdict,
};
use portolan_testkit::rig::Rig;
use portolan_testkit::strategy::{facts, view};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngSeed, TestRunner};

const CLUSTERS: usize = 400;
/// In how many of them each feature is, at least.
const OFTEN: usize = 3;

/// Every feature.
const ALL: &[&str] = &[
    // Services
    "type ClusterIP",
    "type NodePort",
    "type LoadBalancer",
    "type ExternalName",
    "headless",
    "IPv4 alone",
    "IPv6 alone",
    "dual-stack",
    "TCP",
    "UDP",
    "SCTP",
    "one port number on two protocols",
    "internalTrafficPolicy Cluster",
    "internalTrafficPolicy Local",
    "externalTrafficPolicy Cluster",
    "externalTrafficPolicy Local",
    "affinity ClientIP",
    "affinity None",
    "another proxy's Service",
    "externalIPs",
    "load balancer address",
    "load balancer without an address of ours (ipMode Proxy)",
    "loadBalancerSourceRanges",
    "healthCheckNodePort",
    "annotation lb-algorithm",
    "annotation weights",
    // Slices
    "headless slice",
    "slice with a weight",
    "port without a number",
    "an endpoint in two slices",
    // The node
    "detector: cluster ranges",
    "detector: node ranges",
    "detector: bridge",
    "detector: link prefix",
    "no detector",
    "masquerade-all",
    "node ports: primary",
    "node ports: any local",
    "node ports: ranges",
    "node ports: primary and ranges",
    "external addresses switched off",
    "names answered here",
    "pod names: disabled",
    "pod names: insecure",
    "pod names: verified",
    "names of zones",
    "a pod at an address",
    "two pods at one address",
    "default random",
    "default round-robin",
    "default maglev",
    // Decisions
    "lane ClusterIP",
    "lane NodePort",
    "lane NodePort from outside",
    "lane external",
    "lane external from outside",
    "selects ready",
    "selects same node",
    "selects same zone",
    "selects terminating",
    "selects local ready",
    "selects local terminating",
    "masquerades nobody",
    "masquerades all but pods",
    "masquerades the node",
    "masquerades everybody",
    "masquerades where answers do not come back",
    "keeps clients elsewhere",
    "random",
    "random by weight",
    "round-robin",
    "round-robin by weight",
    "maglev",
    "maglev by weight",
    "weight 0",
    "affinity on random",
    "affinity on round-robin",
    "affinity on maglev",
    "rejected",
    "dropped",
    "left here",
    "an endpoint meets itself",
    "an endpoint that is no pod",
    "sources limited",
    "a free cluster address is another proxy's",
    // Reasons
    "not ready",
    "terminating",
    "not on this node",
    "hinted elsewhere",
    "endpoint is a Service address",
    "no endpoints",
    "no local endpoints (internal)",
    "no local endpoints (external)",
];

type Found = BTreeSet<&'static str>;

fn of_service(service: &Service, found: &mut Found) {
    found.insert(match service.publication {
        Publication::ClusterIp => "type ClusterIP",
        Publication::NodePort => "type NodePort",
        Publication::LoadBalancer => "type LoadBalancer",
        Publication::ExternalName(_) => "type ExternalName",
        Publication::Headless => "headless",
    });
    let families: Vec<Family> = service
        .cluster_ips
        .iter()
        .copied()
        .map(Family::of)
        .collect();
    match families.as_slice() {
        [] => {}
        [Family::V4] => drop(found.insert("IPv4 alone")),
        [Family::V6] => drop(found.insert("IPv6 alone")),
        [_, _, ..] => drop(found.insert("dual-stack")),
    }
    for port in &service.ports {
        found.insert(match port.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        });
        let mut others = service.ports.iter();
        if others.any(|other| other.port == port.port && other.protocol != port.protocol) {
            found.insert("one port number on two protocols");
        }
    }
    found.insert(match service.internal_policy {
        TrafficPolicy::Cluster => "internalTrafficPolicy Cluster",
        TrafficPolicy::Local => "internalTrafficPolicy Local",
    });
    found.insert(match service.external_policy {
        TrafficPolicy::Cluster => "externalTrafficPolicy Cluster",
        TrafficPolicy::Local => "externalTrafficPolicy Local",
    });
    found.insert(match service.affinity {
        Affinity::None => "affinity None",
        Affinity::ClientIp { .. } => "affinity ClientIP",
    });
    if service.other_proxy.is_some() {
        found.insert("another proxy's Service");
    }
    outer_and_spread(service, found);
}

fn outer_and_spread(service: &Service, found: &mut Found) {
    let balanced = service.publication == Publication::LoadBalancer;
    let outer = service.outer.as_deref().cloned().unwrap_or_default();
    let rows = [
        (!outer.external_ips.is_empty(), "externalIPs"),
        (
            balanced && !outer.load_balancer_ips.is_empty(),
            "load balancer address",
        ),
        (
            balanced && outer.load_balancer_ips.is_empty(),
            "load balancer without an address of ours (ipMode Proxy)",
        ),
        (!outer.source_ranges.is_empty(), "loadBalancerSourceRanges"),
        (outer.health_check_port.is_some(), "healthCheckNodePort"),
    ];
    found.extend(
        rows.into_iter()
            .filter(|(has, _)| *has)
            .map(|(_, name)| name),
    );
    if let Some(spread) = &service.spread {
        if spread.algorithm.is_some() {
            found.insert("annotation lb-algorithm");
        }
        if !spread.weights.is_empty() {
            found.insert("annotation weights");
        }
    }
}

fn of_slices(rig: &Rig, found: &mut Found) {
    let mut places = BTreeSet::new();
    for slice in rig.cluster.slices() {
        if slice.headless {
            found.insert("headless slice");
        }
        if slice.weight != 1 {
            found.insert("slice with a weight");
        }
        if slice.ports.iter().any(|port| port.port.is_none()) {
            found.insert("port without a number");
        }
        let addresses = slice.endpoints.iter().map(|endpoint| endpoint.address);
        for address in addresses.collect::<BTreeSet<_>>() {
            if !places.insert((slice.service.clone(), address)) {
                found.insert("an endpoint in two slices");
            }
        }
    }
}

fn of_view(view: &NodeView, found: &mut Found) {
    for family in Family::BOTH {
        found.insert(match view.node_ports.of(family) {
            NodePortAddresses::Primary => "node ports: primary",
            NodePortAddresses::AnyLocal => "node ports: any local",
            NodePortAddresses::Within { primary: false, .. } => "node ports: ranges",
            NodePortAddresses::Within { primary: true, .. } => "node ports: primary and ranges",
        });
    }
    found.insert(match view.algorithm {
        Algorithm::Random => "default random",
        Algorithm::RoundRobin => "default round-robin",
        Algorithm::Maglev => "default maglev",
    });
    let detects = Family::BOTH.iter().any(|family| view.has_detector(*family));
    found.insert(match view.detector {
        _ if !detects => "no detector",
        Detector::ClusterCidr => "detector: cluster ranges",
        Detector::NodeCidr => "detector: node ranges",
        Detector::Bridge(_) => "detector: bridge",
        Detector::Prefix(_) => "detector: link prefix",
    });
    found.insert(match view.pod_names {
        PodNames::Disabled => "pod names: disabled",
        PodNames::Insecure => "pod names: insecure",
        PodNames::Verified => "pod names: verified",
    });
    let rows = [
        (view.masquerade_all, "masquerade-all"),
        (!view.external_ips, "external addresses switched off"),
        (!view.dns_addresses.is_empty(), "names answered here"),
        (view.zonal_names, "names of zones"),
        (
            view.replies
                .as_ref()
                .is_some_and(|replies| !replies.kept.is_empty()),
            "keeps clients elsewhere",
        ),
    ];
    found.extend(
        rows.into_iter()
            .filter(|(has, _)| *has)
            .map(|(_, name)| name),
    );
}

fn of_forward(forward: &Forward, found: &mut Found) {
    found.insert(match forward.selection {
        Selection::Ready => "selects ready",
        Selection::SameNode => "selects same node",
        Selection::SameZone => "selects same zone",
        Selection::ServingTerminating => "selects terminating",
        Selection::LocalReady => "selects local ready",
        Selection::LocalServingTerminating => "selects local terminating",
    });
    found.insert(match forward.masquerade {
        Masquerade::Never => "masquerades nobody",
        Masquerade::UnlessPod => "masquerades all but pods",
        Masquerade::IfNode => "masquerades the node",
        Masquerade::Always => "masquerades everybody",
        Masquerade::UnlessReturned => "masquerades where answers do not come back",
    });
    let weights = (0..forward.targets.len()).map(|place| forward.weight(place));
    let weights: Vec<u16> = weights.collect();
    let weighted = weights.iter().any(|weight| *weight != 1);
    let names = match forward.algorithm() {
        Algorithm::Random => ["random", "random by weight", "affinity on random"],
        Algorithm::RoundRobin => [
            "round-robin",
            "round-robin by weight",
            "affinity on round-robin",
        ],
        Algorithm::Maglev => ["maglev", "maglev by weight", "affinity on maglev"],
    };
    found.insert(names[usize::from(weighted)]);
    if weights.contains(&0) {
        found.insert("weight 0");
    }
    if forward.affinity.is_some() {
        found.insert(names[2]);
    }
}

fn of_reason(reason: &Reason, found: &mut Found) {
    found.insert(match reason {
        Reason::NotReady => "not ready",
        Reason::Terminating => "terminating",
        Reason::NotOnThisNode => "not on this node",
        Reason::HintedElsewhere => "hinted elsewhere",
        Reason::EndpointIsServiceAddress => "endpoint is a Service address",
        Reason::NoEndpoints => "no endpoints",
        Reason::NoLocalEndpoints(Policy::Internal) => "no local endpoints (internal)",
        Reason::NoLocalEndpoints(Policy::External) => "no local endpoints (external)",
        Reason::AnsweredHere => "left here",
        // Of packets, not of decisions: `random_packets_reach_every_verdict`.
        Reason::NoSuchPort
        | Reason::Unallocated
        | Reason::OtherProxy(_)
        | Reason::SourceNotAllowed => return,
    });
}

fn of_decision(lane: Lane, verdict: &Verdict, found: &mut Found) {
    found.insert(match lane {
        Lane::Address => "lane ClusterIP",
        Lane::NodePort => "lane NodePort",
        Lane::NodePortOutside => "lane NodePort from outside",
        Lane::External => "lane external",
        Lane::ExternalOutside => "lane external from outside",
    });
    match verdict {
        Verdict::Forward(forward) => of_forward(forward, found),
        Verdict::Reject(reason) => {
            found.insert("rejected");
            of_reason(reason, found);
        }
        Verdict::Drop(reason) => {
            found.insert("dropped");
            of_reason(reason, found);
        }
        Verdict::Here(reason) => of_reason(reason, found),
    }
}

/// The features of one cluster and its plan.
fn features(rig: &Rig) -> Found {
    let mut found = Found::new();
    for service in rig.cluster.services() {
        of_service(service, &mut found);
    }
    of_slices(rig, &mut found);
    of_view(&rig.plan.view, &mut found);
    for (frontend, decision) in &rig.plan.frontends {
        let decision: &Decision = decision;
        for (lane, verdict) in frontend.lanes(decision) {
            of_decision(lane, verdict, &mut found);
        }
        for (_, reason) in &decision.excluded {
            of_reason(reason, &mut found);
        }
        if decision.sources.is_some() {
            found.insert("sources limited");
        }
    }
    of_pods(&rig.cluster, &mut found);
    if !rig.plan.hairpins.is_empty() {
        found.insert("an endpoint meets itself");
    }
    if !rig.plan.outlying.is_empty() {
        found.insert("an endpoint that is no pod");
    }
    let mut owners = rig.plan.owners.values();
    if owners.any(|owner| matches!(owner, Owner::OtherProxy(..))) {
        found.insert("a free cluster address is another proxy's");
    }
    found
}

fn of_pods(cluster: &Cluster, found: &mut Found) {
    let (pods, places) = (cluster.pods().count(), cluster.pod_places().count());
    if pods > 0 {
        found.insert("a pod at an address");
    }
    if pods > places {
        found.insert("two pods at one address");
    }
}

#[test]
fn random_clusters_have_every_feature() {
    let mut runner = TestRunner::new(ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x706f_7274),
        ..ProptestConfig::default()
    });
    let strategy = (view(), facts(40));
    let mut counts: BTreeMap<&str, usize> = ALL.iter().map(|name| (*name, 0)).collect();
    assert_eq!(counts.len(), ALL.len(), "a feature is named twice");
    for _ in 0..CLUSTERS {
        let (view, facts) = strategy.new_tree(&mut runner).unwrap().current();
        let mut rig = Rig::new(view);
        rig.apply(facts.into_iter().map(Change::Upsert)).unwrap();
        for name in features(&rig) {
            let count = counts.get_mut(name);
            *count.unwrap_or_else(|| panic!("{name:?} is not in the list")) += 1;
        }
    }
    let rare: Vec<_> = counts.iter().filter(|(_, count)| **count < OFTEN).collect();
    assert!(rare.is_empty(), "hardly ever generated: {rare:?}");
}
