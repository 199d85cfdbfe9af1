//! Laws, over random histories.

use std::collections::BTreeSet;

use portolan_model::workloads::ObjectKey;
use proptest::prelude::*;
use serde_json::json;

use super::Announcing;
use super::testbed::{Bed, key, local, object, service};

/// Something that happens in a cluster.
#[derive(Clone, Debug)]
enum Happens {
    Service(u8, u8, bool),
    Delete(u8),
    Endpoints(u8, Vec<&'static str>),
    Node(u8, bool),
    Agent(u8, bool),
    L2(u8, bool, bool),
    Bgp(u8, u8),
    Drop(u8),
}

fn happens() -> impl Strategy<Value = Happens> {
    let nodes = proptest::sample::subsequence(vec!["n1", "n2", "n3"], 0..=3);
    prop_oneof![
        6 => (0u8..5, 0u8..4, any::<bool>()).prop_map(|(n, ip, local)| Happens::Service(n, ip, local)),
        2 => (0u8..5).prop_map(Happens::Delete),
        4 => (0u8..5, nodes).prop_map(|(n, on)| Happens::Endpoints(n, on)),
        2 => (1u8..4, any::<bool>()).prop_map(|(n, ready)| Happens::Node(n, ready)),
        2 => (1u8..4, any::<bool>()).prop_map(|(n, there)| Happens::Agent(n, there)),
        1 => (0u8..2, any::<bool>(), any::<bool>()).prop_map(|(n, home, rack)| Happens::L2(n, home, rack)),
        1 => (0u8..2, 24u8..33).prop_map(|(n, length)| Happens::Bgp(n, length)),
        1 => (0u8..2).prop_map(Happens::Drop),
    ]
}

/// What happens, and the Services to look at; all for a change of the ground.
fn apply(bed: &mut Bed, event: &Happens) -> Option<ObjectKey> {
    match event {
        Happens::Service(n, ip, is_local) => {
            let (name, address) = (format!("s{n}"), format!("192.0.2.{}", 130 + ip));
            let make = if *is_local { local } else { service };
            bed.service(make(&name, &[&address]));
            return Some(key(&name));
        }
        Happens::Delete(n) => {
            let key = key(&format!("s{n}"));
            bed.services.remove(&key);
            return Some(key);
        }
        Happens::Endpoints(n, on) => {
            let name = format!("s{n}");
            bed.ready_on(&name, on);
            return Some(key(&name));
        }
        Happens::Node(n, ready) => {
            bed.node(&format!("n{n}"), *ready, json!({"rack": format!("r{n}")}));
        }
        Happens::Agent(n, there) => {
            let links = json!([{"name": "eth0", "addresses": [format!("192.0.2.{n}/24")]}]);
            match there {
                true => bed.speaker(&format!("n{n}"), &links),
                false => drop(bed.speakers.remove(&format!("n{n}"))),
            }
        }
        Happens::L2(n, home, rack) => {
            let pool = if *home { "home" } else { "other" };
            let labels = if *rack {
                json!({"rack": "r1"})
            } else {
                json!({})
            };
            bed.l2(object(
                &format!("a{n}"),
                json!({"pools": [pool], "nodeSelector": {"matchLabels": labels}}),
            ));
        }
        Happens::Bgp(n, length) => {
            bed.bgp(object(
                &format!("a{n}"),
                json!({"aggregationLength": length}),
            ));
        }
        Happens::Drop(n) => {
            let key = ObjectKey::new("", format!("a{n}"));
            bed.l2.remove(&key);
            bed.bgp.remove(&key);
        }
    }
    None
}

fn start() -> Bed {
    let mut bed = Bed::new();
    bed.peer(object(
        "tor",
        json!({"localASN": 1, "peerASN": 2, "peerAddress": "192.0.2.254"}),
    ));
    bed
}

proptest! {
    /// What is planned step by step is what is planned from scratch, and nothing
    /// changes that was not said to be touched.
    #[test]
    fn l8_l10_steps_come_to_the_same_as_the_whole(events in prop::collection::vec(happens(), 1..40)) {
        let mut bed = start();
        let mut on = Announcing::new("n1");
        on.set_ground(bed.ground());
        for event in &events {
            let before = on.clone();
            let mut touched = super::Touched::default();
            let keys: BTreeSet<ObjectKey> = match apply(&mut bed, event) {
                Some(key) => [key].into(),
                None if on.set_ground(bed.ground()) => bed.services.keys().cloned().collect(),
                None => BTreeSet::new(),
            };
            for key in keys {
                touched.extend(bed.converge(&mut on, &key));
            }
            prop_assert_eq!(&on, &bed.on("n1"));
            let addresses: BTreeSet<_> = before.addresses().chain(on.addresses()).collect();
            for address in addresses {
                let same = before.candidates(address) == on.candidates(address);
                prop_assert!(same || touched.addresses.contains(&address));
            }
            let routes: BTreeSet<_> = before.routes().chain(on.routes()).cloned().collect();
            for route in routes {
                let same = before.route(&route) == on.route(&route);
                prop_assert!(same || touched.routes.contains(&route));
            }
        }
    }

    /// All nodes find the same candidates: else two would answer.
    #[test]
    fn l8_every_node_finds_the_same_candidates(events in prop::collection::vec(happens(), 1..40)) {
        let mut bed = start();
        for event in &events {
            apply(&mut bed, event);
        }
        let (one, other) = (bed.on("n1"), bed.on("n2"));
        for n in 0..4 {
            let address = std::net::IpAddr::from([192, 0, 2, 130 + n]);
            prop_assert_eq!(one.candidates(address), other.candidates(address));
        }
    }
}
