//! From pods to names by the way of the controller of EndpointSlices: what users write
//! (hostname, subdomain, publishNotReadyAddresses, named target ports) against the
//! slices that the specification makes of it.

use portolan_api::lean;
use portolan_model::workloads::{Object as _, Pod, Service as Owner};
use portolan_model::{
    Conditions, Endpoint, Fact, Family, Protocol, ServiceKey, Slice, SliceKey, SlicePort,
};
use portolan_plan::slices::{Backing, slices};
use portolan_plan::workloads::Action;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::reference::Reference;
use super::worlds::{self, pod_ip};
use super::{check, config, questions, zones_of};

/// A pod as a user and its kubelet write it.
#[derive(Debug, Clone)]
struct Written {
    addresses: Vec<u8>,
    hostname: &'static str,
    subdomain: &'static str,
    ready: bool,
    deleting: bool,
    phase: &'static str,
    /// It has a container port of the name that the Service's target port has.
    has_port: bool,
    selected: bool,
}

fn written() -> impl Strategy<Value = Written> {
    let names = (
        select(&["", "db-0", "db-1"][..]),
        select(&["", "db", "db", "web"][..]),
    );
    let flags = (
        proptest::bool::weighted(0.7),
        proptest::bool::weighted(0.2),
        proptest::bool::weighted(0.8),
        proptest::bool::weighted(0.9),
    );
    let phase = select(&["Running", "Running", "Running", "Succeeded", "Failed"][..]);
    (vec(0_u8..6, 0..2), names, phase, flags).prop_map(
        |(addresses, (hostname, subdomain), phase, (ready, deleting, has_port, selected))| {
            Written {
                addresses,
                hostname,
                subdomain,
                ready,
                deleting,
                phase,
                has_port,
                selected,
            }
        },
    )
}

impl Written {
    fn object(&self, number: usize) -> Value {
        let ips = self.addresses.iter();
        let ips = ips.flat_map(|ip| Family::BOTH.map(|family| json!({"ip": pod_ip(family, *ip)})));
        let name = if self.has_port { "sql" } else { "other" };
        let mut object = json!({
            "metadata": {
                "name": format!("p{number}"), "namespace": "default", "uid": format!("u{number}"),
                "labels": {"app": if self.selected { "db" } else { "else" }},
            },
            "spec": {
                "hostname": self.hostname, "subdomain": self.subdomain,
                "containers": [{"ports": [
                    {"name": name, "containerPort": 5432, "protocol": "TCP"},
                ]}],
            },
            "status": {
                "phase": self.phase,
                "podIPs": ips.collect::<Vec<_>>(),
                "conditions": [{
                    "type": "Ready", "status": if self.ready { "True" } else { "False" },
                }],
            },
        });
        if self.deleting {
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        object
    }

    /// The endpoints that the specification makes of it (§2.4), one slice each.
    fn slices(&self, number: usize, publish_not_ready: bool) -> Vec<Fact> {
        if !self.selected || self.phase != "Running" {
            return Vec::new();
        }
        let ready = publish_not_ready || (self.ready && !self.deleting);
        let has_name = self.subdomain == "db" && !self.hostname.is_empty();
        let tcp = |name: &str, port| SlicePort {
            name: name.into(),
            protocol: Protocol::Tcp,
            port: Some(port),
        };
        let mut ports = vec![tcp("metrics", 9100)];
        if self.has_port {
            ports.push(tcp("sql", 5432));
        }
        let slice = |family| {
            let address = pod_ip(family, *self.addresses.first()?);
            let name = format!("{number}-{family}");
            Some(Fact::Slice(
                Slice {
                    key: SliceKey::new("default", &name),
                    service: ServiceKey::new("default", "db"),
                    family,
                    headless: true,
                    weight: 1,
                    ports: ports.clone(),
                    zones: Box::default(),
                    endpoints: vec![Endpoint {
                        address,
                        conditions: Conditions {
                            ready,
                            ..Conditions::READY
                        },
                        zone: 0,
                        node: None,
                        hostname: has_name.then(|| self.hostname.into()),
                        pod: None,
                        hints: None,
                    }],
                }
                .into(),
            ))
        };
        Family::BOTH.into_iter().filter_map(slice).collect()
    }
}

fn service(publish_not_ready: bool) -> Value {
    json!({
        "metadata": {"name": "db", "namespace": "default", "uid": "s"},
        "spec": {
            "clusterIP": "None", "clusterIPs": ["None"], "ipFamilies": ["IPv4", "IPv6"],
            "publishNotReadyAddresses": publish_not_ready,
            "selector": {"app": "db"},
            "ports": [
                {"name": "sql", "port": 5432, "targetPort": "sql", "protocol": "TCP"},
                {"name": "metrics", "port": 9100, "targetPort": 9100, "protocol": "TCP"},
            ],
        },
    })
}

/// The slices that the controller writes, as facts.
fn controlled(service: &Value, pods: &[Value]) -> Vec<Fact> {
    let owner = Owner::read(service);
    let pods: Vec<Pod> = pods.iter().map(Pod::read).collect();
    let backing = Backing {
        service: &owner,
        pods: &pods.iter().collect::<Vec<_>>(),
        node: &|_| None,
        trigger: None,
        cpus: None,
    };
    let step = slices(&backing, &[]);
    let facts = step.writes.into_iter().enumerate().map(|(number, write)| {
        let Action::Create(mut body) = write.action else {
            panic!("nothing was there before: {:?}", write.action);
        };
        body["metadata"]["name"] = format!("made-{number}").into();
        let object: lean::EndpointSlice = lean::view(&body).unwrap();
        let (slice, problems) = portolan_model::intake::slice(&object);
        assert!(problems.is_empty(), "{problems:?}");
        Fact::Slice(slice.unwrap().into())
    });
    facts.collect()
}

proptest! {
    #![proptest_config(config(32))]

    #[test]
    fn d8_d9_d10_d11_pods_have_the_names_that_users_gave_them(
        view in worlds::view(),
        pods in vec(written(), 0..8),
        publish_not_ready in any::<bool>(),
    ) {
        let object = service(publish_not_ready);
        let view_of: lean::Service = lean::view(&object).unwrap();
        let (fact, problems) = portolan_model::intake::service(&view_of);
        prop_assert!(problems.is_empty(), "{problems:?}");
        let owner = Fact::Service(fact.into());
        let objects: Vec<Value> = (0..).zip(&pods).map(|(n, pod)| pod.object(n)).collect();
        let mut real = controlled(&object, &objects);
        real.push(owner.clone());
        let mut simple: Vec<Fact> = (0..)
            .zip(&pods)
            .flat_map(|(number, pod)| pod.slices(number, publish_not_ready))
            .collect();
        simple.push(owner);
        let reference = Reference::new(&simple, &view);
        let zones = zones_of(&real, &view);
        for (name, rtype) in questions(&reference) {
            check(&zones, &reference, &name, rtype);
        }
    }
}
