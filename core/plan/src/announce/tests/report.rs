//! What is told of the objects that announcing reads.

use jiff::Timestamp;
use portolan_model::workloads::ObjectKey;
use serde_json::{Value, json};

use super::super::testbed::{Bed, key_of, local, metal, object, service};
use super::super::{Ground, Report, Reports, Subject, reports};

fn all(bed: &Bed) -> Reports {
    bed.with(|facts| reports(facts, &Ground::of(facts)))
}

/// What cannot be honoured of an object: `PoolNotFound spec.pools: …`.
fn told(bed: &Bed, subject: Subject, object: &Value) -> Vec<String> {
    let all = all(bed);
    let report = all.get(&(subject, key_of(object)));
    let faults = report.into_iter().flat_map(|report| &report.faults);
    faults
        .map(|fault| format!("{} {}", fault.reason, fault.message))
        .collect()
}

#[test]
fn l8_an_announcement_says_what_it_covers() {
    let mut bed = Bed::new();
    bed.service(service("web", &["192.0.2.130", "2001:db8::101"]));
    bed.service(service("dns", &["192.0.2.130"]));
    bed.service(local("idle", &["192.0.2.131"]));
    bed.service(service("far", &["198.51.100.130"]));
    bed.l2(object("lan", json!({"pools": ["home"]})));
    bed.bgp(object(
        "lan",
        json!({"pools": ["home"], "aggregationLength": 24}),
    ));
    let peer = json!({"localASN": 1, "peerASN": 2, "peerAddress": "192.0.2.254"});
    bed.peer(object("tor", peer));
    let about = |subject| (subject, ObjectKey::new("", "lan"));
    // An address that nobody can answer for is not announced.
    let on = bed.on("n1");
    assert_eq!(on.covers(&about(Subject::L2Announcement)), 2);
    // One prefix has both IPv4 addresses in it, and the peer is told of no other family.
    assert_eq!(on.covers(&about(Subject::BgpAnnouncement)), 1);
    // Whoever counts comes to the same.
    bed.ready_on("idle", &["n3"]);
    let on = bed.on("n2");
    assert_eq!(on.covers(&about(Subject::L2Announcement)), 3);
    assert_eq!(on.covers(&about(Subject::BgpAnnouncement)), 1);
    bed.services.clear();
    assert_eq!(bed.on("n1").covers(&about(Subject::L2Announcement)), 0);
}

#[test]
fn l8_what_cannot_be_honoured_of_an_announcement_names_the_field() {
    let mut bed = Bed::new();
    let lan = object("lan", json!({"pools": ["home"], "interfaces": ["eth0"]}));
    bed.l2(lan.clone());
    let faults = |bed: &Bed| told(bed, Subject::L2Announcement, &lan);
    assert_eq!(faults(&bed), [""; 0]);
    bed.l2(object(
        "lan",
        json!({
            "pools": ["home", "hom"], "poolSelector": {"matchLabels": {"lan": "yes"}},
            "interfaces": ["eth0", "eth7"],
        }),
    ));
    assert_eq!(
        faults(&bed),
        [
            "PoolNotFound spec.pools: there is no pool \"hom\"",
            "NoPoolSelected spec.poolSelector: no pool has such labels",
            "InterfaceNotFound spec.interfaces: none of its nodes has \"eth7\" up, with a hardware address, and in no bridge or bond",
        ]
    );
    // Only n3 has it.
    let on = |rack: &str| json!({"interfaces": ["eth1"], "nodeSelector": {"matchLabels": {"rack": rack}}});
    bed.l2(object("lan", on("r3")));
    assert_eq!(faults(&bed), [""; 0]);
    bed.l2(object("lan", on("r1")));
    assert!(faults(&bed)[0].starts_with("InterfaceNotFound"));
    bed.l2(object("lan", on("r9")));
    assert_eq!(
        faults(&bed),
        ["NoNodeSelected spec.nodeSelector: no node has such labels"]
    );
    // Nobody knows the links of nodes without an agent.
    bed.l2(object("lan", on("r1")));
    bed.speakers.clear();
    assert_eq!(faults(&bed), [""; 0]);
}

#[test]
fn l10_what_cannot_be_honoured_of_routes_and_peers_names_the_field() {
    let mut bed = Bed::new();
    let all = object("all", json!({}));
    bed.bgp(all.clone());
    let faults = |bed: &Bed| told(bed, Subject::BgpAnnouncement, &all);
    let nobody = "PeerNotFound spec.peers: there is no BGPPeer at all";
    assert_eq!(faults(&bed), [nobody]);
    let tor = object(
        "tor",
        json!({"localASN": 1, "peerASN": 2, "peerAddress": "tor"}),
    );
    bed.peer(tor.clone());
    assert_eq!(faults(&bed), [""; 0]);
    bed.bgp(object(
        "all",
        json!({"peers": ["tor", "tom"], "communities": ["vpn"]}),
    ));
    assert_eq!(
        faults(&bed),
        [
            "PeerNotFound spec.peers: there is no BGPPeer \"tom\"",
            "CommunityUnknown spec.communities: community \"vpn\" is none, and no Community names it",
        ]
    );
    assert_eq!(
        told(&bed, Subject::BgpPeer, &tor),
        ["InvalidPeer spec.peerAddress: \"tor\" is no IP address"]
    );
}

#[test]
fn l10_of_metallbs_objects_the_same_is_told() {
    let mut bed = Bed::new();
    let l2 = metal("l2", json!({"ipAddressPools": ["home"]}));
    bed.l2(l2.clone());
    let bgp = metal(
        "bgp",
        json!({"nodeSelectors": [{"matchLabels": {"rack": "r9"}}], "peers": ["core"]}),
    );
    bed.bgp(bgp.clone());
    let peer = metal(
        "core",
        json!({
            "myASN": 1, "peerASN": 2, "peerAddress": "192.0.2.254", "vrf": "red",
            "keepaliveTime": "1s", "bfdProfile": "fast",
        }),
    );
    bed.peer(peer.clone());
    // Our pools are not beside MetalLB's objects.
    assert_eq!(
        told(&bed, Subject::L2Advertisement, &l2),
        ["PoolNotFound spec.ipAddressPools: there is no pool \"home\""]
    );
    assert_eq!(
        told(&bed, Subject::BgpAdvertisement, &bgp),
        ["NoNodeSelected spec.nodeSelectors: no node has such labels"]
    );
    assert_eq!(
        told(&bed, Subject::MetalBgpPeer, &peer),
        [
            "InvalidPeer spec.vrf is not supported",
            "NotHonoured spec.keepaliveTime is not used: keepalives are sent at a third of the hold time",
            "ProfileNotFound spec.bfdProfile: there is no BFDProfile \"fast\"",
        ]
    );
    let fast = metal("fast", json!({"echoMode": true, "receiveInterval": 100}));
    bed.profiles.insert(key_of(&fast), fast.clone());
    assert_eq!(
        told(&bed, Subject::BfdProfile, &fast),
        ["NotHonoured spec.echoMode is not supported"]
    );
    assert_eq!(told(&bed, Subject::MetalBgpPeer, &peer).len(), 2);
    let names = metal(
        "names",
        json!({"communities": [
            {"name": "vpn", "value": "64512:9"}, {"name": "old", "value": "64512"},
        ]}),
    );
    bed.communities.insert(key_of(&names), names.clone());
    assert_eq!(
        told(&bed, Subject::Community, &names),
        ["NotHonoured spec.communities: \"old\" stands for \"64512\", which is no community"]
    );
}

#[test]
fn l8_a_status_is_written_once_and_keeps_the_time_of_a_change() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let mut bed = Bed::new();
    bed.l2(object("lan", json!({})));
    let about = (Subject::L2Announcement, ObjectKey::new("", "lan"));
    let mut report: Report = all(&bed)[&about].clone();
    report.covers = 2;
    let status = report.status(at("2026-01-02T03:04:05Z")).unwrap();
    assert_eq!(
        status,
        json!({
            "announced": 2,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Valid", "message": "",
                "lastTransitionTime": "2026-01-02T03:04:05Z", "observedGeneration": 0,
            }],
        })
    );
    report.known = status;
    let later = at("2026-01-02T04:00:00Z");
    assert_eq!(report.status(later), None);
    report.covers = 3;
    let status = report.status(later).unwrap();
    assert_eq!(status["announced"], 3);
    let condition = &status["conditions"][0];
    assert_eq!(condition["lastTransitionTime"], "2026-01-02T03:04:05Z");
    bed.l2(object("lan", json!({"pools": ["hom"]})));
    report.faults.clone_from(&all(&bed)[&about].faults);
    let status = report.status(later).unwrap();
    let condition = &status["conditions"][0];
    assert_eq!(condition["status"], "False");
    assert_eq!(condition["reason"], "PoolNotFound");
    assert_eq!(condition["message"], "spec.pools: there is no pool \"hom\"");
    assert_eq!(condition["lastTransitionTime"], "2026-01-02T04:00:00Z");
    // What others have is told by events, if there is anything.
    bed.l2(metal("lan", json!({})));
    assert!(all(&bed).keys().all(|about| about.1.namespace.is_empty()));
}
