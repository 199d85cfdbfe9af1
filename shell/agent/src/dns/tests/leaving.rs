//! One server after the other at the same address, while clients ask all the time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use portolan_dns::{Rtype, query, rcode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::door::Door;
use super::super::guard::DnsGuard;
use super::super::heirs::HandOver;
use super::super::service::Service;
use super::super::stats::DnsStats;
use super::super::{DnsMetrics, DnsServer, DnsSockets};
use super::{client, name, receive, until, within, zones};

/// How often the server changes.
const CHANGES: usize = 15;
/// Queries that a client of datagrams has under way.
const BURST: u16 = 16;

fn start(sockets: DnsSockets, ready: watch::Receiver<bool>) -> DnsServer {
    let zones = Arc::new(ArcSwap::from_pointee(zones()));
    let service = Service::new(zones, ready, None, Arc::new(DnsMetrics::default()));
    let stats = Arc::new(DnsStats::default());
    let door = Door::new(service, DnsGuard::default(), stats);
    DnsServer::serve(sockets, door, &CancellationToken::new()).unwrap()
}

fn ready() -> watch::Receiver<bool> {
    watch::channel(true).1
}

/// Sockets at a free port.
fn fresh() -> DnsSockets {
    let bound = (0..9).find_map(|_| DnsSockets::bind(&[([127, 0, 0, 1], 0).into()]).ok());
    bound.unwrap()
}

/// Clients that ask until they are told to stop, and count replies.
struct Load {
    stop: Arc<AtomicBool>,
    replies: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Load {
    fn start(server: SocketAddr, streams: bool) -> Self {
        let mut this = Self {
            stop: Arc::default(),
            replies: Arc::default(),
            tasks: JoinSet::new(),
        };
        for _ in 0..4 {
            let (stop, replies) = (Arc::clone(&this.stop), Arc::clone(&this.replies));
            this.tasks.spawn(async move {
                let socket = client(server).await;
                while !stop.load(Ordering::Relaxed) {
                    datagrams(&socket).await;
                    replies.fetch_add(usize::from(BURST), Ordering::Relaxed);
                }
            });
        }
        for _ in 0..if streams { 2 } else { 0 } {
            let (stop, replies) = (Arc::clone(&this.stop), Arc::clone(&this.replies));
            this.tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    stream(server).await;
                    replies.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        this
    }

    /// Waits until so many more replies have come.
    async fn go_on(&self, more: usize) {
        let goal = self.replies.load(Ordering::Relaxed) + more;
        until("replies", || self.replies.load(Ordering::Relaxed) >= goal).await;
    }

    /// Every client has had every reply.
    async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = within(self.tasks.join_next()).await {
            ended.unwrap();
        }
    }
}

fn asked(id: u16) -> Vec<u8> {
    query(id, &name("web.default.svc.cluster.local"), Rtype::A)
}

/// Asks a few times without waiting; each is answered, none is asked twice.
async fn datagrams(socket: &tokio::net::UdpSocket) {
    for id in 0..BURST {
        socket.send(&asked(id)).await.unwrap();
    }
    let mut open: Vec<u16> = (0..BURST).collect();
    while !open.is_empty() {
        let reply = receive(socket).await;
        let id = u16::from_be_bytes([reply[0], reply[1]]);
        assert_eq!(rcode(&reply), Some(0));
        let place = open.iter().position(|known| *known == id);
        open.swap_remove(place.expect("one reply each"));
    }
}

/// A connection of its own, with a pause within the message.
async fn stream(server: SocketAddr) {
    let mut stream = within(TcpStream::connect(server)).await.unwrap();
    let message = asked(7);
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    within(stream.write_all(&length)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    within(stream.write_all(&message)).await.unwrap();
    let length = within(stream.read_u16()).await.unwrap();
    let mut reply = vec![0; usize::from(length)];
    within(stream.read_exact(&mut reply)).await.unwrap();
    assert_eq!(rcode(&reply), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_query_is_lost_from_one_server_to_the_next() {
    let mut server = start(fresh(), ready());
    let at = server.addresses()[0];
    let load = Load::start(at, true);
    let patient = HandOver {
        grace: Duration::from_secs(60),
        ..HandOver::default()
    };
    for _ in 0..CHANGES {
        load.go_on(200).await;
        // It leaves first, and goes on until there is an heir.
        let leaving = tokio::spawn({
            let patient = patient.clone();
            async move { server.leave(&patient).await }
        });
        load.go_on(200).await;
        assert!(!leaving.is_finished(), "nobody else answers");
        server = start(DnsSockets::bind(&[at]).unwrap(), ready());
        within(leaving).await.unwrap();
    }
    load.go_on(200).await;
    load.end().await;
    within(server.leave(&HandOver::default())).await;
    // Nothing of it is left.
    assert!(TcpStream::connect(at).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_datagram_is_lost_between_servers_that_only_share_the_address() {
    let sockets = fresh().apart();
    // Nobody else gets the port meanwhile.
    let _held = sockets.tcp[0].try_clone().unwrap();
    let mut server = start(sockets, ready());
    let at = server.addresses()[0];
    let load = Load::start(at, false);
    for _ in 0..CHANGES {
        load.go_on(200).await;
        let next = start(DnsSockets::bind_apart(at), ready());
        load.go_on(200).await;
        within(server.leave(&HandOver::default())).await;
        server = next;
    }
    load.go_on(200).await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d20_an_heir_that_knows_no_names_leaves_queries_to_who_does() {
    let old = start(fresh(), ready());
    let at = old.addresses()[0];
    let (known, seen) = watch::channel(false);
    let heir = start(DnsSockets::bind(&[at]).unwrap(), seen);
    let load = Load::start(at, true);
    load.go_on(500).await;
    let hurry = CancellationToken::new();
    let patient = HandOver {
        grace: Duration::from_secs(60),
        hurry: hurry.clone(),
    };
    let leaving = tokio::spawn(async move { old.leave(&patient).await });
    load.go_on(500).await;
    assert!(!leaving.is_finished() && heir.metrics().counts().held == 0);
    known.send(true).unwrap();
    within(leaving).await.unwrap();
    load.go_on(500).await;
    load.end().await;
    drop(hurry);

    // Who is left alone answers at once, as far as that is possible.
    let old = heir;
    let (_unknown, seen) = watch::channel(false);
    let alone = start(DnsSockets::bind(&[at]).unwrap(), seen);
    within(old.leave(&HandOver::default())).await;
    let socket = client(at).await;
    socket.send(&asked(1)).await.unwrap();
    until("the query is held", || alone.metrics().counts().held == 1).await;
}
