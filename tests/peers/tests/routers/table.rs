//! What stands in a router's table, and where connections go by it.

use portolan_client::{BGP_PEERS, NODES, Target};
use portolan_peers::bird::Bird;
use portolan_peers::frr::Frr;
use portolan_peers::inside;
use serde_json::json;

use super::load::spread;
use super::site::{FOUR, NODES_COUNT, SIX, Site};

/// A BIRD that takes what nodes tell, over both families, and has its kernel spread
/// connections over all paths; with this for each of the sessions.
pub(crate) fn router(site: &Site, session: &str, more: &str) -> Bird {
    let mut text = format!(
        "protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; merge paths on; }}
        protocol kernel {{ ipv6 {{ import none; export where source = RTS_BGP; }}; merge paths on; }}
        {more}\n"
    );
    for n in 1..=NODES_COUNT {
        text += &format!(
            "protocol bgp n{n} {{
                local 192.0.2.4 as 64513; neighbor 192.0.2.{n} as 64512; passive;
                error wait time 1, 2; connect delay time 1;
                ipv4 {{ import all; export none; }}; ipv6 {{ import all; export none; }};
                {session}
            }}\n"
        );
    }
    Bird::start(site.place(NODES_COUNT + 1).expect("the router"), &text).expect("BIRD")
}

/// What BIRD knows of a prefix.
pub(crate) fn route(bird: &Bird, prefix: &str) -> String {
    let said = bird.ask(&format!("show route for {prefix} all"));
    said.unwrap_or_default()
}

/// How many nodes a prefix is learnt from.
pub(crate) fn paths(bird: &Bird, prefix: &str) -> usize {
    route(bird, prefix).matches("BGP.origin").count()
}

/// Waits until both addresses are learnt from so many nodes, and are in the kernel.
pub(crate) fn until_learnt(site: &Site, bird: &Bird, nodes: usize) {
    site.until("paths of both families", || {
        let all = [FOUR, SIX].map(|address| paths(bird, address));
        (all == [nodes; 2]).then_some(())
    });
}

/// Waits until every node answers connections, of both families.
pub(crate) fn until_spread(site: &Site, nodes: usize) {
    let router = site.place(NODES_COUNT + 1).expect("the router");
    site.until("connections to all nodes", || {
        let both = [FOUR, SIX].map(|address| spread(router, address, 40));
        both.iter()
            .all(|by| by.as_ref().is_ok_and(|by| by.len() == nodes))
            .then_some(())
    });
}

/// Peers with both families.
pub(crate) const BOTH: [&str; 2] = ["IPv4", "IPv6"];

#[test]
fn l10_a_router_spreads_connections_over_three_nodes() {
    if !inside("table::l10_a_router_spreads_connections_over_three_nodes") {
        return;
    }
    let mut site = Site::new().unwrap();
    let bird = router(&site, "", "");
    site.peer("tor", &json!({"families": BOTH})).unwrap();
    let spec = json!({"communities": ["64512:7", "large:64512:1:2"]});
    site.announcement("all", &spec).unwrap();
    site.start_all().unwrap();
    until_learnt(&site, &bird, 3);
    let said = route(&bird, FOUR);
    for part in ["(64512,7)", "(64512, 1, 2)", "BGP.as_path: 64512", "/32"] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
    until_spread(&site, 3);
    for address in [FOUR, SIX] {
        let router = site.place(NODES_COUNT + 1).unwrap();
        let by = spread(router, address, 300).unwrap();
        println!("300 connections to {address}, by node: {by:?}");
        assert_eq!(by.len(), 3, "{by:?}");
        assert!(by.values().all(|count| *count >= 30), "{by:?}");
    }
    site.until("a status that says so", || {
        let peer = site.get(Target::one(&BGP_PEERS, None, "tor")).ok()?;
        let status = &peer["status"];
        let up = status["sessionsUp"] == 3 && status["sessionsWanted"] == 3;
        let told = status["sessions"].as_array()?;
        let told = told.iter().all(|one| one["prefixes"] == 2);
        (up && told).then_some(())
    });
    let said = site.command(1, &["lb", "bgp"]).unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    println!("{said}");
    assert_eq!(said.matches("Established").count(), 3, "{said}");
}

/// Who is told, from where and of what: by the selectors of announcements and peers.
#[test]
fn l10_what_is_told_is_chosen_by_node_peer_and_service() {
    if !inside("table::l10_what_is_told_is_chosen_by_node_peer_and_service") {
        return;
    }
    let mut site = Site::new().unwrap();
    let inner = "protocol bgp inner {
        local 192.0.2.4 port 1179 as 64512; neighbor 192.0.2.1 as 64512; passive;
        ipv4 { import all; export none; };
    }";
    let bird = router(&site, "", inner);
    let rack = |name: &str| json!({"matchLabels": {"rack": name}});
    site.peer("tor", &json!({"nodeSelector": rack("b")}))
        .unwrap();
    let spec = json!({"peerASN": 64512, "peerPort": 1179, "nodeSelector": rack("a")});
    site.peer("inner", &spec).unwrap();
    chosen(&site);
    site.start_all().unwrap();
    let of = |protocol: &str| {
        let said = bird.ask(&format!("show route protocol {protocol} all"));
        said.unwrap_or_default()
    };
    site.until("routes of both kinds", || {
        let all = ["n2", "n3", "inner"].map(of);
        all.iter()
            .all(|said| said.contains("BGP.origin"))
            .then_some(())
    });
    let inner = of("inner");
    for part in ["198.51.100.0/24", "BGP.local_pref: 200", "(64512,1)"] {
        assert!(inner.contains(part), "{part} in:\n{inner}");
    }
    assert!(!inner.contains("/32"), "{inner}");
    for said in ["n2", "n3"].map(of) {
        assert!(
            said.contains("198.51.100.10/32") && !said.contains("/24"),
            "{said}"
        );
        assert!(!said.contains("BGP.community"), "{said}");
    }
    let all = of("n2") + &of("inner");
    assert!(
        !all.contains("(64512,2)") && !all.contains("(64512,3)"),
        "{all}"
    );
    // Without the labels that the peer asks for there is no session.
    let said = bird.ask("show protocols inner").unwrap();
    assert!(said.contains("Established"), "{said}");
    let labels = json!({"metadata": {"labels": {"rack": "b"}}});
    site.patch(Target::one(&NODES, None, "n1"), &labels)
        .unwrap();
    site.until("the session to go", || {
        let said = bird.ask("show protocols inner").ok()?;
        (!said.contains("Established") && !of("inner").contains("BGP.origin")).then_some(())
    });
}

/// Announcements to one peer or the other, of some Services, from some nodes.
fn chosen(site: &Site) {
    let of = |app: &str| json!({"matchLabels": {"app": app}});
    for (name, spec) in [
        ("outside", json!({"peers": ["tor"]})),
        (
            "inside",
            json!({
                "peers": ["inner"], "localPref": 200, "aggregationLength": 24,
                "serviceSelector": of("web"), "communities": ["64512:1"],
            }),
        ),
        // About Services and from nodes that there are none of.
        (
            "no-service",
            json!({"serviceSelector": of("other"), "communities": ["64512:2"]}),
        ),
        (
            "no-node",
            json!({
                "nodeSelector": {"matchLabels": {"rack": "c"}}, "communities": ["64512:3"],
            }),
        ),
    ] {
        site.announcement(name, &spec).expect("an announcement");
    }
}

/// A node without an IPv4 address tells of IPv4 by way of IPv6 (RFC 8950), and packets
/// go that way.
#[test]
fn l10_ipv4_goes_by_way_of_ipv6() {
    if !inside("table::l10_ipv4_goes_by_way_of_ipv6") {
        return;
    }
    let mut site = Site::new().unwrap();
    let text = "
        protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; }
        protocol bgp n1 {
            local 2001:db8::4 as 64513; neighbor 2001:db8::1 as 64512; passive;
            ipv4 { extended next hop; import all; export none; };
            ipv6 { import all; export none; };
        }";
    let bird = Bird::start(site.place(NODES_COUNT + 1).unwrap(), text).unwrap();
    site.addresses(1, &["2001:db8::1".to_owned()]).unwrap();
    let spec = json!({"peerAddress": "2001:db8::4", "families": BOTH});
    site.peer("tor", &spec).unwrap();
    site.announcement("all", &json!({})).unwrap();
    site.start(1).unwrap();
    site.until("a path", || (paths(&bird, FOUR) == 1).then_some(()));
    let said = route(&bird, FOUR);
    assert!(said.contains("BGP.next_hop: 2001:db8::1"), "{said}");
    let router = site.place(NODES_COUNT + 1).unwrap();
    let by = site.until("connections by way of IPv6", || {
        spread(router, FOUR, 10).ok()
    });
    assert_eq!(by, [(1, 10)].into());
}

/// FRR learns both families, and what its operator does is understood and told.
#[test]
fn l10_frr_learns_resets_and_limits() {
    if !inside("table::l10_frr_learns_resets_and_limits") {
        return;
    }
    let mut site = Site::new().unwrap();
    let text = "router bgp 64513
 bgp router-id 192.0.2.4
 no bgp ebgp-requires-policy
 neighbor 192.0.2.1 remote-as 64512
 neighbor 192.0.2.1 ebgp-multihop 2
 neighbor 192.0.2.1 passive
 address-family ipv6 unicast
  neighbor 192.0.2.1 activate
 exit-address-family
";
    let frr = Frr::start(site.place(NODES_COUNT + 1).unwrap(), text).unwrap();
    site.peer("tor", &json!({"families": BOTH})).unwrap();
    let spec = json!({"communities": ["64512:7", "large:64512:1:2"]});
    site.announcement("all", &spec).unwrap();
    site.start(1).unwrap();
    let known = |family: &str, prefix: &str| {
        let said = frr.ask(&format!("show bgp {family} unicast {prefix} json"));
        said.ok().filter(|text| text.contains("\"nexthops\""))
    };
    let four = site.until("a route", || known("ipv4", "198.51.100.10/32"));
    for part in ["\"64512:7\"", "\"64512:1:2\"", "\"192.0.2.1\""] {
        assert!(four.contains(part), "{part} in:\n{four}");
    }
    let six = site.until("a route", || known("ipv6", "2001:db8:1::10/128"));
    assert!(six.contains("\"2001:db8::1\""), "{six}");
    frr.ask("clear bgp 192.0.2.1").unwrap();
    site.until("an event", || {
        let events = site.events("SessionReset");
        let said = "Administrative Reset (6/4)";
        events.iter().any(|text| text.contains(said)).then_some(())
    });
    site.until("a route", || known("ipv4", "198.51.100.10/32"));
}
