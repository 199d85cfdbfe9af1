//! Ways against the running kernel.

use super::*;
use crate::link::VethEnd;
use crate::netns::NetNs;
use crate::route::{Rule, RuleTraffic};
use crate::testing::privileged;

fn mark(value: u32) -> Mark {
    Mark {
        value,
        mask: 0xff_0000,
    }
}

fn end(name: &str) -> VethEnd<'_> {
    VethEnd { name, mac: None }
}

/// A link with addresses of both families, and its far end.
async fn wire() -> (Links, Links, LinkIndex) {
    let links = Links::open(&NetNs::create().unwrap()).unwrap();
    let peer = Links::open(&NetNs::create().unwrap()).unwrap();
    let made = links.add_veth(end("eth0"), end("eth0"), &peer, None).await;
    let link = made.unwrap();
    for address in ["192.0.2.1/24", "2001:db8::1/64"] {
        links
            .add_address(link, address.parse().unwrap())
            .await
            .unwrap();
    }
    (links, peer, link)
}

#[tokio::test]
async fn ways_are_made_found_again_and_removed_and_others_stay() {
    if !privileged() {
        return;
    }
    let (links, _peer, link) = wire().await;
    let others = Rule {
        ipv6: false,
        traffic: RuleTraffic::FromTcpPort(53),
        table: 100,
        priority: 500,
    };
    links.add_rule(&others).await.unwrap();
    let way = |ipv6, number, address: &str| Way {
        ipv6,
        number,
        mark: Some(mark(u32::from(number) << 16)),
        next: Some(NextHop {
            address: address.parse().unwrap(),
            link,
        }),
    };
    let ways = [
        way(false, 1, "192.0.2.2"),
        way(false, 2, "192.0.2.3"),
        way(true, 1, "2001:db8::2"),
    ];
    assert_eq!(links.ways().await.unwrap(), []);
    for way in &ways {
        links.add_way(way).await.unwrap();
        links.add_way(way).await.unwrap();
    }
    assert_eq!(links.ways().await.unwrap(), ways);
    let moved = way(false, 1, "192.0.2.9");
    links.add_way(&moved).await.unwrap();
    assert_eq!(links.ways().await.unwrap()[0], moved);

    // A link that goes down loses its routes; the rules stay.
    links.set_up(link, false).await.unwrap();
    let found = links.ways().await.unwrap();
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|way| way.next.is_none()), "{found:?}");
    links.set_up(link, true).await.unwrap();
    links.add_way(&moved).await.unwrap();
    assert_eq!(links.ways().await.unwrap()[0], moved);
    // A route without its rule is found too.
    let bare = Way {
        mark: None,
        ..way(false, 7, "192.0.2.7")
    };
    links.add_way(&bare).await.unwrap();
    assert_eq!(links.ways().await.unwrap()[2], bare);

    for way in links.ways().await.unwrap() {
        links.del_way(&way).await.unwrap();
        links.del_way(&way).await.unwrap();
    }
    assert_eq!(links.ways().await.unwrap(), []);
    let mut ask = RuleMessage::default();
    ask.header.family = AddressFamily::Inet;
    let rules = RouteNetlinkMessage::GetRule(ask);
    let rules = links.request(rules, NLM_F_DUMP).await.unwrap();
    let priorities = rules.iter().filter(|rule| {
        let RouteNetlinkMessage::NewRule(rule) = rule else {
            return false;
        };
        rule.attributes.contains(&RuleAttribute::Priority(500))
    });
    assert_eq!(priorities.count(), 1, "others' rules");
}

#[tokio::test]
async fn the_next_hop_is_a_gateway_or_the_address_itself() {
    if !privileged() {
        return;
    }
    let (links, _peer, link) = wire().await;
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let behind = crate::route::Route::new(
        "10.1.0.0/16".parse().unwrap(),
        crate::route::RouteKind::Via(ip("192.0.2.7")),
    );
    links.add_route(&behind).await.unwrap();
    let hop = |address: &str| {
        Some(NextHop {
            address: ip(address),
            link,
        })
    };
    let rows = [
        ("10.1.2.3", hop("192.0.2.7")),
        ("192.0.2.9", hop("192.0.2.9")),
        ("2001:db8::9", hop("2001:db8::9")),
        // Nowhere, and here.
        ("10.9.9.9", None),
        ("2001:db8:9::9", None),
        ("192.0.2.1", None),
    ];
    for (to, next) in rows {
        assert_eq!(links.next_hop(ip(to)).await.unwrap(), next, "{to}");
    }
}
