//! MetalLB's objects mean what they mean to MetalLB.

use portolan_model::workloads::{BfdProfile, Community, Object, ObjectKey, Peer};
use serde_json::json;

use super::super::testbed::{Bed, metal, object, service};
use super::super::{Facts, Ground, Unsaid};

const ADDRESS: &str = "192.0.2.60";

fn bed() -> Bed {
    let mut bed = Bed::new();
    bed.pool(metal("first", json!({"addresses": ["192.0.2.0/25"]})));
    bed.service(service("web", &[ADDRESS]));
    bed
}

#[test]
fn l8_a_pool_of_metallb_is_announced_only_where_that_is_said() {
    let mut bed = bed();
    assert_eq!(bed.answers(ADDRESS), "");
    let pool = ObjectKey::new("metallb-system", "first");
    assert_eq!(
        bed.account("web").unsaid,
        Some(Unsaid::NoAdvertisement(pool))
    );
    bed.l2(metal("other", json!({"ipAddressPools": ["second"]})));
    assert_eq!(bed.answers(ADDRESS), "");
    bed.l2(metal(
        "first",
        json!({
            "ipAddressPools": ["first"], "interfaces": ["eth0"],
            "nodeSelectors": [{"matchLabels": {"rack": "r1"}}, {"matchLabels": {"rack": "r2"}}],
        }),
    ));
    assert_eq!(bed.answers(ADDRESS), "n1 on eth0, n2 on eth0");
    // Ours may be about pools of both kinds; MetalLB's are about its own.
    bed.l2.clear();
    bed.l2(object("ours", json!({"pools": ["first"]})));
    assert_eq!(
        bed.answers(ADDRESS),
        "n1 on eth0, n2 on eth0, n3 on eth0+eth1"
    );
    bed.l2.clear();
    bed.l2(metal("all", json!({})));
    bed.service(service("own", &["192.0.2.130"]));
    assert_eq!(bed.account("own").l2[0].by, None);
}

#[test]
fn l10_metallbs_peers_advertisements_and_communities_are_read() {
    let mut bed = bed();
    bed.peer(metal(
        "tor",
        json!({"myASN": 64512, "peerASN": 64512, "peerAddress": "192.0.2.254"}),
    ));
    bed.peer(object(
        "tor",
        json!({"localASN": 64512, "peerASN": 64512, "peerAddress": "192.0.2.253"}),
    ));
    bed.bgp(metal(
        "all",
        json!({
            "ipAddressPools": ["first"], "localPref": 0, "aggregationLength": 26,
            "communities": ["vpn", "64512:7", "unknown"], "peers": ["tor"],
        }),
    ));
    let names = metal(
        "names",
        json!({"communities": [{"name": "vpn", "value": "64512:9"}]}),
    );
    bed.communities
        .insert(ObjectKey::new("metallb-system", "names"), names);
    assert_eq!(bed.tells("n1"), ["metallb-system/tor 192.0.2.0/26"]);
    let on = bed.on("n1");
    let route = on.route(on.routes().next().unwrap()).unwrap();
    assert_eq!(route.local_pref, None);
    let wanted = ["64512:7", "64512:9"].map(Community::parse);
    assert_eq!(route.communities, wanted.into());
    assert_eq!(
        bed.ground()
            .faults(&ObjectKey::new("metallb-system", "all")),
        ["community \"unknown\" is none, and no Community names it"]
    );
}

#[test]
fn l10_a_peers_bfd_is_of_the_profile_beside_it() {
    let peer = Peer::read(&metal(
        "tor",
        json!({
            "myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.254", "bfdProfile": "fast",
        }),
    ));
    let beside = BfdProfile::read(&metal("fast", json!({"receiveInterval": 50})));
    let elsewhere = BfdProfile::read(&json!({
        "metadata": {"name": "fast", "namespace": "default"}, "spec": {"receiveInterval": 70},
    }));
    let times = |profiles: Vec<&BfdProfile>| {
        let ground = Ground::of(&Facts {
            peers: vec![&peer],
            profiles,
            ..Facts::default()
        });
        let bfd = ground.peers().next().and_then(|(peer, _)| peer.bfd);
        bfd.map(|bfd| bfd.receive.as_millis())
    };
    assert_eq!(times(vec![&elsewhere, &beside]), Some(50));
    assert_eq!(times(vec![&elsewhere]), None);
}
