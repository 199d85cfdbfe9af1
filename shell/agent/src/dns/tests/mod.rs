//! The server over real sockets on the loopback, asked by `dig`
//! (bind9-dnsutils) and by hand-made messages.

mod completing;
mod configured;
mod faults;
mod forwarding;
mod guarding;
mod keeping;
mod leaving;
mod limits;
mod programs;
mod resolver;
mod secret;
mod serving;
mod storms;
mod streams;
mod telling;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use portolan_dns::{Data, Name, Record, Zone, Zones};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::door::Door;
use super::guard::DnsGuard;
use super::metrics::DnsCounts;
use super::service::Service;
use super::stats::DnsStats;
use super::{DnsMetrics, DnsServer, DnsSockets, SharedFront, Upstream};

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn v4(text: &str) -> Record {
    Data::A(text.parse().unwrap()).into()
}

fn zones() -> Zones {
    let mut zone = Zone::new(name("cluster.local"), 5, 1);
    let many: Vec<Record> = (0..=255)
        .map(|last| Data::A(Ipv4Addr::new(10, 244, 9, last)).into())
        .collect();
    let sets = [
        ("ns.dns", vec![v4("10.96.0.10")]),
        ("svc", vec![]),
        ("default.svc", vec![]),
        ("web.default.svc", vec![v4("10.96.7.1")]),
        (
            "both.default.svc",
            vec![
                v4("10.96.7.2"),
                Data::Aaaa("fd00::7".parse().unwrap()).into(),
            ],
        ),
        (
            "out.default.svc",
            vec![Data::Cname(name("www.example.com")).into()],
        ),
        ("db.default.svc", vec![v4("10.244.1.1"), v4("10.244.1.2")]),
        ("many.default.svc", many),
    ];
    for (owner, records) in sets {
        zone.set(&name(&format!("{owner}.cluster.local")), &records)
            .unwrap();
    }
    Zones::new([zone])
}

/// A server on free ports of the loopback; it ends with the test.
struct Lab {
    server: DnsServer,
    address: SocketAddr,
    zones: Arc<ArcSwap<Zones>>,
    ready: watch::Sender<bool>,
    front: SharedFront,
    stop: CancellationToken,
    stats: Arc<DnsStats>,
}

impl Lab {
    fn start(upstream: Option<Arc<dyn Upstream>>) -> Self {
        Self::start_with(upstream, true, |_| {})
    }

    fn start_with(
        upstream: Option<Arc<dyn Upstream>>,
        is_ready: bool,
        change: impl FnOnce(&mut Service),
    ) -> Self {
        let loopback = (Ipv4Addr::LOCALHOST, 0).into();
        Self::start_at(&[loopback], upstream, is_ready, change)
    }

    fn start_at(
        addresses: &[SocketAddr],
        upstream: Option<Arc<dyn Upstream>>,
        is_ready: bool,
        change: impl FnOnce(&mut Service),
    ) -> Self {
        let guard = DnsGuard::default();
        Self::start_guarded(addresses, upstream, is_ready, (change, guard))
    }

    fn start_guarded(
        addresses: &[SocketAddr],
        upstream: Option<Arc<dyn Upstream>>,
        is_ready: bool,
        (change, guard): (impl FnOnce(&mut Service), DnsGuard),
    ) -> Self {
        // The port that is free for UDP may be taken for TCP.
        let sockets = (0..9)
            .find_map(|_| DnsSockets::bind(addresses).ok())
            .unwrap();
        let address = sockets.udp[0].local_addr().unwrap();
        let zones = Arc::new(ArcSwap::from_pointee(zones()));
        let (ready, seen) = watch::channel(is_ready);
        let stop = CancellationToken::new();
        let mut service = Service::new(
            Arc::clone(&zones),
            seen,
            upstream,
            Arc::new(DnsMetrics::default()),
        );
        change(&mut service);
        let front = Arc::clone(&service.front);
        let stats = Arc::new(DnsStats::default());
        let door = Door::new(service, guard, Arc::clone(&stats));
        let server = DnsServer::serve(sockets, door, &stop).unwrap();
        Self {
            server,
            address,
            zones,
            ready,
            front,
            stop,
            stats,
        }
    }

    fn counts(&self) -> DnsCounts {
        self.server.metrics().counts()
    }

    /// Runs `dig` with the given words and returns what it prints.
    async fn dig(&self, words: &str) -> String {
        let mut command = tokio::process::Command::new("dig");
        command
            .arg(format!("@{}", self.address.ip()))
            .args(["-p", &self.address.port().to_string()])
            .args(["+tries=1", "+timeout=10", "+nocookie", "+noadflag"])
            .args(words.split_whitespace());
        let output = within(command.output())
            .await
            .expect("dig, of the package bind9-dnsutils");
        String::from_utf8(output.stdout).unwrap()
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("took too long")
}

/// Waits until something holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A plain client socket of the loopback, connected to the server.
async fn client(server: SocketAddr) -> tokio::net::UdpSocket {
    let own = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
    };
    let socket = tokio::net::UdpSocket::bind(own).await.unwrap();
    socket.connect(server).await.unwrap();
    socket
}

async fn receive(socket: &tokio::net::UdpSocket) -> Vec<u8> {
    let mut reply = Vec::with_capacity(65_535);
    within(socket.recv_buf(&mut reply)).await.unwrap();
    reply
}
