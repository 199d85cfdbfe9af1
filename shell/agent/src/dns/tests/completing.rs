//! Search lists that the server completes for its clients (CoreDNS' autopath).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use portolan_dns::Zone;
use portolan_plan::{NodePlan, NodeView};

use super::super::complete::{ClientPods, Completion};
use super::super::forward::search_domains;
use super::super::{Front, Upstream};
use super::resolver::{LONG, Manner, forwarder, resolver, route, without_cache};
use super::{Lab, name, v4, zones};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Pods at this address of these namespaces.
fn pods(namespaces: &[&str], view: NodeView) -> Arc<ClientPods> {
    let mut plan = NodePlan::empty(view);
    for namespace in namespaces {
        plan.pods.insert(((*namespace).into(), LOCALHOST));
    }
    let pods = Arc::<ClientPods>::default();
    pods.follow(&plan, None);
    pods
}

fn lab(pods: Arc<ClientPods>, upstream: Option<Arc<dyn Upstream>>) -> Lab {
    let search = [name("corp.example")];
    let lab = Lab::start_with(upstream, true, |service| {
        service.completion = Completion::new(pods, "cluster.local", &search);
    });
    let mut all = zones();
    let zone = all.zone_mut(&name("cluster.local")).unwrap();
    for (owner, address) in [
        ("api.shop.svc", "10.96.7.7"),
        ("top", "10.96.7.8"),
        ("middle.svc", "10.96.7.9"),
    ] {
        let owner = name(&format!("{owner}.cluster.local"));
        zone.set(&owner, &[v4(address)]).unwrap();
    }
    lab.zones.store(Arc::new(all));
    lab
}

/// The records of an answer that `dig` prints, without the spaces between.
fn records(text: &str) -> Vec<String> {
    text.lines()
        .skip_while(|line| !line.starts_with(";; ANSWER SECTION"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

#[tokio::test]
async fn d19_a_search_list_is_completed_in_one_answer() {
    let lab = lab(pods(&["default"], NodeView::default()), None);
    for (asked, found, address) in [
        ("Api.Shop.default.svc", "api.shop.svc", "10.96.7.7"),
        ("middle.default.svc", "middle.svc", "10.96.7.9"),
        ("top.default.svc", "top", "10.96.7.8"),
    ] {
        for transport in ["+notcp", "+tcp +noedns"] {
            let words = format!("{transport} {asked}.cluster.local A");
            let text = lab.dig(&words).await;
            assert!(text.contains("status: NOERROR"), "{text}");
            assert!(text.contains(&format!(";{asked}.cluster.local.")), "{text}");
            assert_eq!(
                records(&text),
                [
                    format!("{asked}.cluster.local. 5 IN CNAME {found}.cluster.local."),
                    format!("{found}.cluster.local. 5 IN A {address}"),
                ],
                "{text}"
            );
        }
    }
    // What exists needs no other name, whatever its types.
    let text = lab.dig("web.default.svc.cluster.local A").await;
    assert_eq!(
        records(&text),
        ["web.default.svc.cluster.local. 5 IN A 10.96.7.1"]
    );
    let text = lab.dig("web.default.svc.cluster.local AAAA").await;
    assert!(text.contains("status: NOERROR") && records(&text).is_empty());
    // A name that is found has no such records: no alias.
    let text = lab.dig("api.shop.default.svc.cluster.local AAAA").await;
    assert!(text.contains("status: NOERROR"), "{text}");
    assert!(text.contains("ANSWER: 0, AUTHORITY: 1"), "{text}");
    // Nothing anywhere: the first answer.
    let text = lab.dig("nope.default.svc.cluster.local A").await;
    assert!(text.contains("status: NXDOMAIN"), "{text}");
    assert!(text.contains("\tSOA\t"), "{text}");
    assert_eq!(lab.counts().completed, 7);
}

/// Search lists may be long: more than six domains, and more than 256 characters. Each
/// name that is not there is NXDOMAIN, whether the client or the server goes through.
#[tokio::test]
async fn d21_long_search_lists_are_walked_to_their_ends() {
    let search: Vec<_> = (0..32)
        .map(|number| name(&format!("a-rather-long-domain-{number}.corp.example")))
        .collect();
    let pods = pods(&["default"], NodeView::default());
    let lab = Lab::start_with(None, true, |service| {
        service.completion = Completion::new(pods, "cluster.local", &search);
    });
    let own = ["default.svc", "svc"].map(|label| format!("{label}.cluster.local."));
    let domains = search.iter().map(ToString::to_string);
    for domain in own.into_iter().chain(domains) {
        let text = lab.dig(&format!("db.shop.{domain} A")).await;
        assert!(text.contains("status: NXDOMAIN,"), "{text}");
    }
    let mut all = zones();
    let zone = all.zone_mut(&name("cluster.local")).unwrap();
    zone.set(&name("db.shop.cluster.local"), &[v4("10.96.7.7")])
        .unwrap();
    lab.zones.store(Arc::new(all));
    let text = lab.dig("db.shop.default.svc.cluster.local A").await;
    assert!(text.contains("10.96.7.7"), "{text}");

    // The server goes to the very last one, which a client's resolver may not have room for.
    let last = name("host.shop.a-rather-long-domain-31.corp.example");
    let mut outside = Zone::new(name("corp.example"), 5, 1);
    outside.set(&last, &[v4("192.0.2.31")]).unwrap();
    let mut all = zones();
    all.insert(outside);
    lab.zones.store(Arc::new(all));
    let text = lab.dig("host.shop.default.svc.cluster.local A").await;
    let expected = [
        format!("host.shop.default.svc.cluster.local. 5 IN CNAME {last}"),
        format!("{last} 5 IN A 192.0.2.31"),
    ];
    assert_eq!(records(&text), expected, "{text}");
}

#[tokio::test]
async fn d19_only_the_first_name_of_a_clients_own_list_is_completed() {
    let own = pods(&["default"], NodeView::default());
    let several = pods(&["default", "shop"], NodeView::default());
    let host = NodeView {
        node_addresses: vec![LOCALHOST],
        ..NodeView::default()
    };
    let node = pods(&["default"], host);
    let nobody = pods(&[], NodeView::default());
    for (pods, asked) in [
        (&own, "api.shop.other.svc.cluster.local"),
        (&own, "api.shop.svc.svc.cluster.local"),
        (&own, "api.shop.cluster.local"),
        (&several, "api.shop.default.svc.cluster.local"),
        (&node, "api.shop.default.svc.cluster.local"),
        (&nobody, "api.shop.default.svc.cluster.local"),
    ] {
        let lab = lab(Arc::clone(pods), None);
        let text = lab.dig(&format!("{asked} A")).await;
        assert!(text.contains("status: NXDOMAIN"), "{asked}: {text}");
    }
}

#[tokio::test]
async fn d19_a_search_list_ends_outside_of_the_cluster() {
    let server = resolver(Manner::Good, 7);
    let upstream = forwarder(without_cache(route(&[server.address], LONG)));
    let lab = lab(pods(&["default"], NodeView::default()), Some(upstream));
    // This resolver has every name: the machine's own domain comes first.
    let text = lab.dig("www.example.default.svc.cluster.local A").await;
    let found = records(&text);
    let alias = "www.example.default.svc.cluster.local.";
    assert!(found[0].starts_with(alias), "{text}");
    assert!(
        found[0].ends_with(" IN CNAME www.example.corp.example."),
        "{text}"
    );
    assert!(found[1].starts_with("www.example.corp.example."), "{text}");
    assert!(found[1].ends_with(" IN A 192.0.2.7"), "{text}");
    assert_eq!(server.asked(), 1);
    // A name inside is found without anybody else.
    let text = lab.dig("api.shop.default.svc.cluster.local A").await;
    assert!(text.contains("10.96.7.7"), "{text}");
    assert_eq!(server.asked(), 1);
    // An alias out of the cluster brings its addresses.
    let mut all = (**lab.zones.load()).clone();
    let zone = all.zone_mut(&name("cluster.local")).unwrap();
    let target = portolan_dns::Data::Cname(name("www.example.com"));
    zone.set(&name("out.shop.svc.cluster.local"), &[target.into()])
        .unwrap();
    lab.zones.store(Arc::new(all));
    let text = lab.dig("out.shop.default.svc.cluster.local A").await;
    let owners: Vec<String> = records(&text)
        .iter()
        .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(
        owners,
        [
            "out.shop.default.svc.cluster.local.",
            "out.shop.svc.cluster.local.",
            "www.example.com.",
        ],
        "{text}"
    );
}

/// If others cannot be asked, the client goes on by itself, and is not told of a failure.
#[tokio::test]
async fn d19_a_failure_leaves_the_first_answer() {
    let nobody: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let upstream = forwarder(without_cache(route(&[nobody], LONG)));
    let lab = lab(pods(&["default"], NodeView::default()), Some(upstream));
    let text = lab.dig("www.example.default.svc.cluster.local A").await;
    assert!(text.contains("status: NXDOMAIN"), "{text}");
}

/// Rewriting comes first, as in CoreDNS.
#[tokio::test]
async fn d19_d22_a_rewritten_name_is_completed_too() {
    use portolan_dns::upstream::{Match, Rewrites, Rule};
    let lab = lab(pods(&["default"], NodeView::default()), None);
    let rule = Rule::new(
        Match::Exact,
        "old.example",
        "api.shop.default.svc.cluster.local",
    );
    let front = Front {
        rewrites: Rewrites::new(vec![rule.unwrap()]),
        ..Front::default()
    };
    lab.front.store(Arc::new(front));
    let text = lab.dig("old.example A").await;
    assert!(text.contains("10.96.7.7"), "{text}");
    assert!(text.contains(";old.example."), "{text}");
}

#[test]
fn d19_the_search_list_of_a_machine_is_read() {
    for (text, expected) in [
        ("", vec![]),
        ("nameserver 192.0.2.1\n", vec![]),
        (
            "search a.example b.example.\n",
            vec!["a.example", "b.example"],
        ),
        ("search a.example\ndomain b.example\n", vec!["b.example"]),
        (
            "domain b.example\nsearch\ta.example c..d\n",
            vec!["a.example"],
        ),
        ("#search a.example\n", vec![]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(name).collect();
        assert_eq!(search_domains(text), expected, "{text:?}");
    }
}
