//! Links, addresses and routes against the running kernel.

use ipnet::IpNet;

use super::*;
use crate::{
    route::{Route, RouteKind},
    testing::privileged,
};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

const MAC: Mac = [2, 0, 0, 0, 0, 1];

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn end(name: &str, mac: Option<Mac>) -> VethEnd<'_> {
    VethEnd { name, mac }
}

#[tokio::test]
async fn links_are_made_changed_listed_and_removed() {
    if !privileged() {
        return;
    }
    let links = Links::open(&NetNs::create().unwrap()).unwrap();
    let peer = Links::open(&NetNs::create().unwrap()).unwrap();
    let bridge = links.add_bridge("br0").await.unwrap();
    let (here, there) = (end("v0", Some(MAC)), end("eth0", None));
    let made = links.add_veth(here, there, &peer, Some(1400)).await;
    let veth = made.unwrap();
    links.set_master(veth, Some(bridge)).await.unwrap();

    let found = links.find("v0").await.unwrap().unwrap();
    assert_eq!((found.mac, found.mtu, found.up), (Some(MAC), 1400, true));
    assert_eq!(found.master, Some(bridge));
    let other = peer.find("eth0").await.unwrap().unwrap();
    assert!(other.up && other.mtu == 1400, "{other:?}");
    let list = links.list().await.unwrap();
    let names: Vec<&str> = list.iter().map(|link| link.name.as_str()).collect();
    assert_eq!(names, ["lo", "br0", "v0"]);

    links.set_master(veth, None).await.unwrap();
    links.set_mtu(veth, 1300).await.unwrap();
    links.set_up(veth, false).await.unwrap();
    let found = links.find("v0").await.unwrap().unwrap();
    assert_eq!((found.mtu, found.up, found.master), (1300, false, None));

    let again = links.add_veth(here, there, &peer, None).await.unwrap_err();
    assert_eq!(again.to_string(), "cannot add veth v0 with peer eth0");
    links.delete("v0").await.unwrap();
    links.delete("v0").await.unwrap();
    assert_eq!(peer.find("eth0").await.unwrap(), None, "both ends go");
    let error = links.index("v0").await.unwrap_err();
    assert_eq!(error.to_string(), "there is no link v0");
}

#[tokio::test]
async fn addresses_and_routes_are_made_listed_and_removed() {
    if !privileged() {
        return;
    }
    let links = Links::open(&NetNs::create().unwrap()).unwrap();
    let bridge = links.add_bridge("br0").await.unwrap();
    let addresses = [net("172.18.0.1/24"), net("fd00:172:18::1/64")];
    for address in addresses.iter().chain(&addresses) {
        links.add_address(bridge, *address).await.unwrap();
    }
    let found = links.addresses(bridge).await.unwrap();
    assert!(addresses.iter().all(|a| found.contains(a)), "{found:?}");

    let via = RouteKind::Via("172.18.0.2".parse().unwrap());
    let via = Route::new(net("10.244.1.0/24"), via);
    links.add_route(&via).await.unwrap();
    links.replace_route(&via).await.unwrap();
    let again = links.add_route(&via).await.unwrap_err().to_string();
    assert!(
        again.starts_with("cannot add route to 10.244.1.0/24"),
        "{again}"
    );
    let hole = Route::new(net("fd00:9::/64"), RouteKind::Blackhole);
    links.add_route(&hole).await.unwrap();
    let elsewhere = Route::new(net("10.7.0.0/16"), RouteKind::Unreachable).in_table(7);
    links.add_route(&elsewhere).await.unwrap();
    let found = links.route_destinations().await.unwrap();
    assert!(
        found.contains(&via.to) && found.contains(&hole.to),
        "{found:?}"
    );
    assert!(
        !found.contains(&elsewhere.to),
        "not in the main table: {found:?}"
    );

    for _ in 0..2 {
        links.del_route(&via).await.unwrap();
        links.del_route(&hole).await.unwrap();
        links.del_address(bridge, addresses[0]).await.unwrap();
    }
    let found = links.route_destinations().await.unwrap();
    assert!(
        !found.contains(&via.to) && !found.contains(&hole.to),
        "{found:?}"
    );
    let found = links.addresses(bridge).await.unwrap();
    assert!(
        !found.contains(&addresses[0]) && found.contains(&addresses[1]),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_local_route_answers_for_a_whole_range_in_both_families() {
    if !privileged() {
        return;
    }
    let ns = NetNs::create().unwrap();
    let links = Links::open(&ns).unwrap();
    let lo = links.index("lo").await.unwrap();
    for range in ["10.9.0.0/16", "fd00:9::/64"] {
        links
            .add_route(&Route::new(net(range), RouteKind::Local(lo)))
            .await
            .unwrap();
    }
    // IPv6 binds only to addresses that a link has, so listen on any.
    for (listen, at) in [
        ("10.9.8.7:80", "10.9.8.7:80"),
        ("[::]:80", "[fd00:9::8]:80"),
    ] {
        ns.run(|| {
            let listener = TcpListener::bind(listen).unwrap();
            let mut client = TcpStream::connect(at).unwrap();
            client.write_all(b"hello").unwrap();
            let (mut server, _) = listener.accept().unwrap();
            let mut got = [0; 5];
            server.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"hello");
        })
        .unwrap();
    }
}
