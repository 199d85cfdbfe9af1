//! Cases with nodes, pods and packets, inside of a lab.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use portolan_kernel::netns::NetNs;
use portolan_lab::{
    broker::Broker,
    fabric::{API_PORT, Fabric, NodeNet},
    kubelet::PodNet,
    pod_net::PodNets,
    publish::{Published, Publisher, Transport},
};

use crate::run::DEADLINE;

/// Connects from `from` to `to` in `there`; the client's and server's view of
/// the client's address.
fn echo(from: &NetNs, there: &NetNs, to: IpAddr) -> (IpAddr, IpAddr) {
    echo_at(from, there, SocketAddr::new(to, 0))
}

fn echo_at(from: &NetNs, there: &NetNs, to: SocketAddr) -> (IpAddr, IpAddr) {
    let listener = there.run(|| TcpListener::bind(to).unwrap()).unwrap();
    let at = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        peer.ip()
    });
    let connected = from
        .run(|| TcpStream::connect_timeout(&at, DEADLINE))
        .unwrap();
    let mut client = connected.unwrap_or_else(|error| panic!("connect to {at}: {error}"));
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(b"hello").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    (client.local_addr().unwrap().ip(), server.join().unwrap())
}

async fn pod(nets: &PodNets, uid: &str) -> PodNet {
    nets.attach(uid).await.unwrap()
}

/// Two nodes with pods, a third without.
struct World {
    fabric: Fabric,
    a: PodNet,
    b: PodNet,
    c: PodNet,
}

async fn world() -> World {
    let start = Instant::now();
    let fabric = Fabric::create(3).await.unwrap();
    println!("three nodes in {:?}", start.elapsed());
    let [one, two, _] = fabric.nodes() else {
        panic!("three nodes")
    };
    let (on_one, on_two) = (PodNets::new(one.clone()), PodNets::new(two.clone()));
    let start = Instant::now();
    let (a, b) = (pod(&on_one, "a").await, pod(&on_one, "b").await);
    println!("two pods in {:?}", start.elapsed());
    let c = pod(&on_two, "c").await;
    assert_eq!(a.ips[0].to_string(), "10.244.1.2");
    assert_eq!(c.ips[1].to_string(), "fd00:10:244:2::2");
    let again = pod(&on_one, "a").await;
    assert_eq!(again.ips, a.ips, "attaching again changes nothing");
    World { fabric, a, b, c }
}

pub(crate) async fn talk() {
    let World { fabric, a, b, c } = world().await;
    let [one, two, three] = fabric.nodes() else {
        panic!("three nodes")
    };
    // Who, from where, to whom, and its namespace.
    for family in [0, 1] {
        let (pod, node) = ((&a.netns, a.ips[family]), (&one.netns, one.ips[family]));
        let pairs = [
            ("same node", pod, b.ips[family], &b.netns),
            ("other node", pod, c.ips[family], &c.netns),
            ("itself", pod, a.ips[family], &a.netns),
            ("its node", pod, one.ips[family], &one.netns),
            ("another node", pod, three.ips[family], &three.netns),
            ("node to its pod", node, a.ips[family], &a.netns),
            ("node to other pod", node, c.ips[family], &c.netns),
            ("node to node", node, two.ips[family], &two.netns),
        ];
        for (what, (from, from_ip), to, there) in pairs {
            assert_eq!(echo(from, there, to), (from_ip, from_ip), "{what}");
        }
        around_the_outside(&fabric, &a, family);
    }
    // A pod's only neighbour is its node. /proc/net is the main thread's.
    let arp = || fs::read_to_string("/proc/thread-self/net/arp").unwrap();
    let arp = a.netns.run(arp).unwrap();
    assert_eq!(arp.lines().count(), 2, "heading and gateway: {arp}");
    assert!(
        arp.contains("169.254.1.1") && arp.contains("ee:ee:ee:ee:ee:ee"),
        "{arp}"
    );
}

/// The outside reaches nodes, answers pods as the API server, and no more.
fn around_the_outside(fabric: &Fabric, a: &PodNet, family: usize) {
    let one = &fabric.nodes()[0];
    let outside: IpAddr = ["172.18.0.1", "fd00:172:18::1"][family].parse().unwrap();
    let (seen, _) = echo(fabric.outside(), &one.netns, one.ips[family]);
    assert_eq!(seen, outside, "outside to node");
    echo(&one.netns, fabric.outside(), outside);
    let api = SocketAddr::new(outside, API_PORT);
    let (_, seen) = echo_at(&a.netns, fabric.outside(), api);
    assert_eq!(seen, a.ips[family], "the API server answers pods");
    let to = SocketAddr::new(a.ips[family], 80);
    let connect = || TcpStream::connect_timeout(&to, DEADLINE);
    let error = fabric.outside().run(connect).unwrap().unwrap_err();
    assert_eq!(
        error.kind(),
        std::io::ErrorKind::NetworkUnreachable,
        "outside has no way to pods"
    );
}

pub(crate) async fn detach() {
    let fabric = Fabric::create(1).await.unwrap();
    let nets = PodNets::new(fabric.nodes()[0].clone());
    let node = &fabric.nodes()[0];
    let first = pod(&nets, "a").await;
    let device = PodNets::device_of("a");
    assert!(node.links.find(&device).await.unwrap().is_some());
    nets.detach("a").await.unwrap();
    nets.detach("a").await.unwrap();
    assert!(node.links.find(&device).await.unwrap().is_none());
    let routes = node.links.route_destinations().await.unwrap();
    assert!(
        !routes.contains(&first.ips[0].into()),
        "the route went with the link"
    );
    let again = pod(&nets, "a").await;
    assert_ne!(
        again.ips, first.ips,
        "a freed address is used as late as possible"
    );
    assert_ne!(again.netns, first.netns);
    echo(&again.netns, &node.netns, node.ips[0]);
    // Nobody answers for an address without a pod, and the error comes at once.
    let start = Instant::now();
    let to = SocketAddr::new(first.ips[0], 80);
    let error = node
        .netns
        .run(|| TcpStream::connect_timeout(&to, DEADLINE))
        .unwrap()
        .unwrap_err();
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{error} after {:?}",
        start.elapsed()
    );
}

/// Loads a ruleset as a user would; these tests judge routes, not our planes.
fn nft(ns: &NetNs, rules: &str) {
    ns.run(|| {
        let mut nft = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        nft.stdin
            .take()
            .unwrap()
            .write_all(rules.as_bytes())
            .unwrap();
        assert!(nft.wait().unwrap().success());
    })
    .unwrap();
}

pub(crate) async fn services() {
    let fabric = Fabric::create(2).await.unwrap();
    let [one, two] = fabric.nodes() else {
        panic!("two nodes")
    };
    let (on_one, on_two) = (PodNets::new(one.clone()), PodNets::new(two.clone()));
    let (client, server) = (pod(&on_one, "client").await, pod(&on_two, "server").await);
    let table = |node: &NodeNet| {
        let (four, six) = (server.ips[0], server.ips[1]);
        let chain = |hook: &str| {
            format!(
                "chain {hook} {{ type nat hook {hook} priority -100; \
                 ip daddr 10.96.0.99 dnat ip to {four}; \
                 ip6 daddr fd00:10:96::99 dnat ip6 to {six}; }}\n"
            )
        };
        nft(
            &node.netns,
            &format!(
                "table inet t {{\n{}{}}}\n",
                chain("prerouting"),
                chain("output")
            ),
        );
    };
    table(one);
    let services: [IpAddr; 2] = [
        Ipv4Addr::new(10, 96, 0, 99).into(),
        "fd00:10:96::99".parse().unwrap(),
    ];
    for (family, service) in services.into_iter().enumerate() {
        let bind = SocketAddr::new(server.ips[family], 80);
        let listener = server
            .netns
            .run(|| TcpListener::bind(bind).unwrap())
            .unwrap();
        for (from, own) in [
            (&client.netns, client.ips[family]),
            (&one.netns, one.ips[family]),
        ] {
            let to = SocketAddr::new(service, 80);
            let stream = from
                .run(|| TcpStream::connect_timeout(&to, DEADLINE))
                .unwrap();
            stream.unwrap_or_else(|error| panic!("{own} to {to}: {error}"));
            assert_eq!(listener.accept().unwrap().1.ip(), own);
        }
    }
    // What nothing translates ends with an error, not with a time-out.
    for service in ["10.96.0.98", "fd00:10:96::98", "203.0.113.1", "2001:db8::1"] {
        let to = SocketAddr::new(service.parse().unwrap(), 80);
        for from in [&client.netns, &one.netns] {
            let start = Instant::now();
            let got = from
                .run(|| TcpStream::connect_timeout(&to, DEADLINE))
                .unwrap();
            let error = got.unwrap_err();
            assert!(start.elapsed() < Duration::from_secs(5), "{to}: {error}");
        }
    }
}

pub(crate) async fn sixteen() {
    let fabric = Fabric::create(16).await.unwrap();
    let [first, .., last] = fabric.nodes() else {
        panic!("sixteen nodes")
    };
    let (a, b) = (PodNets::new(first.clone()), PodNets::new(last.clone()));
    let (a, b) = (pod(&a, "a").await, pod(&b, "b").await);
    echo(&a.netns, &b.netns, b.ips[0]);
    echo(&a.netns, &b.netns, b.ips[1]);
    assert!(Fabric::create(0).await.is_err() && Fabric::create(17).await.is_err());
}

/// An echo server in node 2 that says who asked, published from all nodes.
pub(crate) async fn publish_echo(broker: &Broker, arguments: &[String]) {
    let port: u16 = arguments[0].parse().unwrap();
    let fabric = Fabric::create(2).await.unwrap();
    let [one, two] = fabric.nodes() else {
        panic!("two nodes")
    };
    let at = SocketAddr::new(two.ips[0], port);
    let (tcp, udp) = two
        .netns
        .run(|| (TcpListener::bind(at).unwrap(), UdpSocket::bind(at).unwrap()))
        .unwrap();
    thread::spawn(move || {
        loop {
            let (mut stream, peer) = tcp.accept().unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            write!(stream, "{} says {text}", peer.ip()).unwrap();
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 64];
        loop {
            let (length, peer) = udp.recv_from(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]);
            udp.send_to(format!("{} says {text}", peer.ip()).as_bytes(), peer)
                .unwrap();
        }
    });
    let host = Ipv4Addr::LOCALHOST.into();
    let ports: BTreeSet<Published> = [Transport::Tcp, Transport::Udp]
        .map(|transport| Published { transport, port })
        .into();
    // TCP falls back from node 1, where nobody listens; UDP cannot know.
    let nodes = [one.ips[0], two.ips[0]];
    let tcp = Publisher::new(broker.clone(), host, &nodes);
    let udp = Publisher::new(broker.clone(), host, &nodes[1..]);
    let (only_tcp, only_udp): (BTreeSet<_>, BTreeSet<_>) = ports
        .iter()
        .partition(|port| port.transport == Transport::Tcp);
    assert!(tcp.set(&only_tcp).await.is_empty() && udp.set(&only_udp).await.is_empty());
    let again = Publisher::new(broker.clone(), host, &nodes)
        .set(&only_tcp)
        .await;
    assert_eq!(
        again[0].to_string(),
        format!("cannot publish {port}/TCP on 127.0.0.1")
    );
    println!("ready");
    broker.stop().cancelled().await;
    assert!(tcp.set(&BTreeSet::new()).await.is_empty());
    assert!(udp.set(&BTreeSet::new()).await.is_empty());
    assert!(tcp.published().await.is_empty());
    println!("unpublished");
}
