//! What the random clusters and questions are made of: a law says nothing of what never
//! occurs, so each feature is named here and must have been met.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portolan_model::{Fact, Publication, Service, Slice};
use portolan_plan::{NodeView, PodNames};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

use super::reference::{Expected, Reference, slice_of};
use super::{config, questions, worlds};

const CLUSTERS: usize = 200;
/// In how many of them each feature is, at least.
const OFTEN: usize = 3;

const ALL: &[&str] = &[
    // Services
    "a Service of two families",
    "a Service of IPv6 alone",
    "a Service without endpoints",
    "an address outside the ranges",
    "a Service whose name begins with a digit",
    "a Service in a namespace that is not known",
    "a named port",
    "a port without a name",
    "several ports",
    "type NodePort",
    "type LoadBalancer",
    "headless",
    "headless without ready endpoints",
    // Endpoints
    "not ready",
    "ready while terminating",
    "a hostname",
    "a hostname of several endpoints",
    "an endpoint outside the ranges",
    "an address that ends in a dash",
    "a port without a number",
    "endpoints of both families",
    // The rest of the cluster
    "pods disabled",
    "pods insecure",
    "pods verified",
    "another domain",
    "TTL 0",
    "no address of its own",
    // Answers
    "elsewhere",
    "NXDOMAIN",
    "NXDOMAIN of an address",
    "NODATA",
    "an alias inside",
    "a chain of aliases",
    "an alias to a headless Service",
    "an alias to a pod",
    "an alias outside",
    "an alias to nothing",
    "an address with several names",
    "several SRV records",
    "a weight below 100",
    "A",
    "AAAA",
    "SRV",
    "PTR",
    "CNAME",
    "TXT",
    "SOA",
    "NS",
    "HINFO",
    "SOA of a reverse zone",
    "a zone's own endpoints",
    "a zone without endpoints",
    "all endpoints in place of a zone's",
    "an alias to a zone's endpoints",
    "an endpoint at a Service's address",
    "NXDOMAIN of an address of a narrow range",
];

type Seen = BTreeSet<&'static str>;

fn note(seen: &mut Seen, holds: bool, feature: &'static str) {
    if holds {
        seen.insert(feature);
    }
}

fn of_service(service: &Service, facts: &[Fact], view: &NodeView, seen: &mut Seen) {
    let ips = &service.cluster_ips;
    let slices = facts.iter().filter_map(slice_of);
    let slices = slices.filter(|slice| slice.service == service.key);
    let slices: Vec<_> = slices.collect();
    let endpoints = || slices.iter().flat_map(|slice| &slice.endpoints);
    let ready = endpoints().filter(|one| one.conditions.ready).count();
    let headless = service.publication == Publication::Headless;
    let known = facts.iter().any(|fact| {
        matches!(fact, Fact::Namespace(namespace) if namespace.name == service.key.namespace)
    });
    let within = |ip: &IpAddr| view.service_cidrs.iter().any(|range| range.contains(ip));
    let digit = service
        .key
        .name
        .starts_with(|first: char| first.is_ascii_digit());
    note(seen, ips.len() == 2, "a Service of two families");
    note(
        seen,
        ips.len() == 1 && ips[0].is_ipv6(),
        "a Service of IPv6 alone",
    );
    note(
        seen,
        !ips.is_empty() && endpoints().next().is_none(),
        "a Service without endpoints",
    );
    note(
        seen,
        !ips.iter().all(within),
        "an address outside the ranges",
    );
    note(seen, digit, "a Service whose name begins with a digit");
    note(seen, !known, "a Service in a namespace that is not known");
    for port in &service.ports {
        note(seen, !port.name.is_empty(), "a named port");
        note(seen, port.name.is_empty(), "a port without a name");
    }
    note(seen, service.ports.len() > 1, "several ports");
    let node_port = service.publication == Publication::NodePort;
    let balancer = service.publication == Publication::LoadBalancer;
    note(seen, node_port, "type NodePort");
    note(seen, balancer, "type LoadBalancer");
    note(seen, headless && ready > 0, "headless");
    note(
        seen,
        headless && ready == 0,
        "headless without ready endpoints",
    );
    if headless {
        let families: BTreeSet<_> = slices
            .iter()
            .filter(|slice| slice.endpoints.iter().any(|one| one.conditions.ready))
            .map(|slice| slice.family)
            .collect();
        note(seen, families.len() == 2, "endpoints of both families");
        slices.iter().for_each(|slice| of_slice(slice, seen));
    }
}

fn of_slice(slice: &Slice, seen: &mut Seen) {
    let mut names = BTreeMap::new();
    for endpoint in &slice.endpoints {
        let conditions = endpoint.conditions;
        note(seen, !conditions.ready, "not ready");
        note(
            seen,
            conditions.ready && conditions.terminating,
            "ready while terminating",
        );
        if !conditions.ready {
            continue;
        }
        let text = endpoint.address.to_string();
        let outside = text.starts_with("172.") || text.starts_with("2001:");
        let service = text.starts_with("10.96.") || text.starts_with("fd00:10:96:");
        note(seen, service, "an endpoint at a Service's address");
        note(seen, outside, "an endpoint outside the ranges");
        match &endpoint.hostname {
            Some(hostname) => *names.entry(hostname).or_insert(0) += 1,
            None => note(seen, text.ends_with(':'), "an address that ends in a dash"),
        }
    }
    note(seen, !names.is_empty(), "a hostname");
    note(
        seen,
        names.values().any(|count| *count > 1),
        "a hostname of several endpoints",
    );
    let numberless = slice.ports.iter().any(|port| port.port.is_none());
    note(seen, numberless, "a port without a number");
}

fn of_view(view: &NodeView, seen: &mut Seen) {
    seen.insert(match view.pod_names {
        PodNames::Disabled => "pods disabled",
        PodNames::Insecure => "pods insecure",
        PodNames::Verified => "pods verified",
    });
    let usual = &*view.cluster_domain == "cluster.local";
    note(seen, !usual, "another domain");
    note(seen, view.dns_ttl == 0, "TTL 0");
    note(seen, view.dns_addresses.is_empty(), "no address of its own");
}

fn of_answer(expected: &Expected, name: &str, reference: &Reference, seen: &mut Seen) {
    of_zone(expected, name, reference, seen);
    let is_alias = reference
        .lines
        .iter()
        .any(|line| line.owner == name && line.rtype == "CNAME");
    match expected {
        Expected::Elsewhere => drop(seen.insert("elsewhere")),
        Expected::NoName { .. } => {
            seen.insert("NXDOMAIN");
            note(seen, name.ends_with(".arpa"), "NXDOMAIN of an address");
            note(
                seen,
                reference.single.contains(name),
                "NXDOMAIN of an address of a narrow range",
            );
        }
        Expected::NoData { .. } => {
            seen.insert("NODATA");
            note(seen, is_alias, "an alias to nothing");
        }
        Expected::Records { lines, outside } => of_records(lines, *outside, seen),
    }
}

/// What is particular to names of zones.
fn of_zone(expected: &Expected, name: &str, reference: &Reference, seen: &mut Seen) {
    let Expected::Records { lines, .. } = expected else {
        let pinned = name.split_once(".pin._zone.");
        let empty = pinned.is_some_and(|(_, service)| reference.parts.contains_key(service));
        let is_nothing = matches!(expected, Expected::NoData { .. });
        note(seen, empty && is_nothing, "a zone without endpoints");
        return;
    };
    let zonal = |text: &str| text.contains("._zone.");
    let of_zone = lines
        .iter()
        .any(|line| zonal(line) && !line.contains("CNAME"));
    note(seen, of_zone && zonal(name), "a zone's own endpoints");
    note(
        seen,
        of_zone && !zonal(name),
        "an alias to a zone's endpoints",
    );
    let preferred = name.split_once(".prefer._zone.");
    let elsewhere = preferred.is_some_and(|(zone, service)| {
        let parts = reference.parts.get(service);
        parts.is_some_and(|parts| !parts.contains_key(zone))
    });
    let found = elsewhere && !lines.iter().any(|line| line.contains("HINFO"));
    note(seen, found, "all endpoints in place of a zone's");
}

fn of_records(lines: &BTreeSet<String>, outside: bool, seen: &mut Seen) {
    let words: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
    let count = |rtype: &str| words.iter().filter(|words| words[2] == rtype).count();
    let (aliases, others) = (count("CNAME"), lines.len() - count("CNAME"));
    note(seen, aliases > 0 && others > 0, "an alias inside");
    note(seen, aliases > 1, "a chain of aliases");
    note(
        seen,
        aliases > 0 && words.iter().any(|words| words[0].starts_with("db-0.db.")),
        "an alias to a headless Service",
    );
    let pod = |words: &Vec<&str>| words[2] == "A" && words[0].contains(".pod.");
    note(
        seen,
        aliases > 0 && words.iter().any(pod),
        "an alias to a pod",
    );
    note(seen, outside, "an alias outside");
    note(seen, count("PTR") > 1, "an address with several names");
    note(seen, count("SRV") > 1, "several SRV records");
    for words in &words {
        let weight = words.get(4).filter(|_| words[2] == "SRV");
        note(
            seen,
            weight.is_some_and(|weight| *weight != "100"),
            "a weight below 100",
        );
        let rtypes = [
            "A", "AAAA", "SRV", "PTR", "CNAME", "TXT", "SOA", "NS", "HINFO",
        ];
        seen.extend(rtypes.iter().find(|rtype| **rtype == words[2]));
        let reverse = words[2] == "SOA" && words[0].ends_with(".arpa");
        note(seen, reverse, "SOA of a reverse zone");
    }
}

#[test]
fn every_feature_of_names_occurs() {
    let mut often: BTreeMap<&str, usize> = BTreeMap::new();
    let mut runner = TestRunner::new(config(1));
    let strategy = (worlds::view(), worlds::history());
    for _ in 0..CLUSTERS {
        let (view, history) = strategy.new_tree(&mut runner).unwrap().current();
        let mut facts = Vec::new();
        for change in &history {
            worlds::replay(&mut facts, change);
        }
        let mut seen = Seen::new();
        of_view(&view, &mut seen);
        for fact in &facts {
            if let Fact::Service(service) = fact {
                of_service(service, &facts, &view, &mut seen);
            }
        }
        let reference = Reference::new(&facts, &view);
        for (name, rtype) in questions(&reference) {
            let expected = reference.answer(&name, rtype);
            of_answer(&expected, &name, &reference, &mut seen);
        }
        for feature in seen {
            *often.entry(feature).or_default() += 1;
        }
    }
    let rare = ALL
        .iter()
        .map(|feature| (*feature, often.get(feature).copied().unwrap_or(0)))
        .filter(|(_, times)| *times < OFTEN);
    let rare: Vec<_> = rare.collect();
    assert!(rare.is_empty(), "hardly ever met: {rare:?}");
    let unnamed: Vec<_> = often.keys().filter(|met| !ALL.contains(met)).collect();
    assert!(unnamed.is_empty(), "not in the list: {unnamed:?}");
}
