//! What connections are allowed, and how they end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use portolan_dns::{Rtype, query, rcode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::door::Door;
use super::super::guard::DnsGuard;
use super::super::service::Service;
use super::super::stats::DnsStats;
use super::super::tcp::Limits;
use super::super::{DnsMetrics, DnsServer, DnsSockets};
use super::{name, until, within, zones};

/// Longer than a test takes.
const LONG: Duration = Duration::from_secs(600);
/// How long is waited for what must not come.
const SILENCE: Duration = Duration::from_millis(300);

/// A server with these limits, and what stops it.
fn start(streams: Limits) -> (DnsServer, CancellationToken) {
    let zones = Arc::new(ArcSwap::from_pointee(zones()));
    let ready = watch::channel(true).1;
    let service = Service::new(zones, ready, None, Arc::new(DnsMetrics::default()));
    let mut door = Door::new(service, DnsGuard::default(), Arc::new(DnsStats::default()));
    door.streams = streams;
    let bound = (0..9).find_map(|_| DnsSockets::bind(&[([127, 0, 0, 1], 0).into()]).ok());
    let stop = CancellationToken::new();
    let server = DnsServer::serve(bound.unwrap(), door, &stop).unwrap();
    (server, stop)
}

fn message(id: u16, owner: &str) -> Vec<u8> {
    let owner = format!("{owner}.default.svc.cluster.local");
    let asked = query(id, &name(&owner), Rtype::A);
    let length = u16::try_from(asked.len()).unwrap();
    [&length.to_be_bytes(), &*asked].concat()
}

/// The ID of the next reply; none at the end of the connection.
async fn reply(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<u16> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return None,
        Err(error) => panic!("the connection broke: {error}"),
    };
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(rcode(&reply), Some(0));
    portolan_dns::id(&reply)
}

#[tokio::test]
async fn d18_a_silent_connection_is_closed() {
    let (server, _stop) = start(Limits {
        idle: Duration::from_millis(100),
        ..Limits::default()
    });
    let at = server.addresses()[0];
    let whole = message(7, "web");
    for begun in [0, 1, whole.len() - 1] {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(&whole[..begun]).await.unwrap();
        assert_eq!(within(reply(&mut stream)).await, None, "{begun}");
    }
    // One that was answered is closed too.
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(&whole).await.unwrap();
    assert_eq!(within(reply(&mut stream)).await, Some(7));
    assert_eq!(within(reply(&mut stream)).await, None);
    // And one that takes no reply: nobody writes to it for ever.
    let mut stream = TcpStream::connect(at).await.unwrap();
    let many = message(7, "many").repeat(100);
    within(async { while stream.write_all(&many).await.is_ok() {} }).await;
}

#[tokio::test]
async fn d18_more_connections_than_there_may_be_wait_for_one_to_end() {
    const MOST: usize = 4;
    let (server, _stop) = start(Limits {
        most: MOST,
        idle: LONG,
        ..Limits::default()
    });
    let at = server.addresses()[0];
    let mut open = Vec::new();
    for _ in 0..MOST {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(&message(7, "web")).await.unwrap();
        assert_eq!(within(reply(&mut stream)).await, Some(7));
        open.push(stream);
    }
    let mut late = TcpStream::connect(at).await.unwrap();
    late.write_all(&message(8, "web")).await.unwrap();
    assert!(timeout(SILENCE, reply(&mut late)).await.is_err());
    // The others are answered meanwhile.
    let last = open.last_mut().unwrap();
    last.write_all(&message(9, "web")).await.unwrap();
    assert_eq!(within(reply(last)).await, Some(9));
    drop(open.pop());
    assert_eq!(within(reply(&mut late)).await, Some(8));
}

/// A client that asks on and on is answered in order up to an end, which is one: nothing
/// is broken off, and no reply between others is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_end_is_closed_in_order_when_the_server_leaves() {
    let (server, stop) = start(Limits {
        parting: LONG,
        ..Limits::default()
    });
    let stream = TcpStream::connect(server.addresses()[0]).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let over = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn({
        let over = Arc::clone(&over);
        async move {
            let mut asked = 0_u16;
            while !over.load(Ordering::Relaxed) {
                write.write_all(&message(asked, "web")).await.unwrap();
                asked = asked.wrapping_add(1);
            }
        }
    });
    let answered = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let reading = tokio::spawn({
        let answered = Arc::clone(&answered);
        async move {
            let mut expected = 0_u16;
            while let Some(id) = reply(&mut read).await {
                assert_eq!(id, expected, "each in its turn");
                expected = expected.wrapping_add(1);
                answered.fetch_add(1, Ordering::Relaxed);
            }
            over.store(true, Ordering::Relaxed);
        }
    });
    until("replies", || answered.load(Ordering::Relaxed) > 100).await;
    stop.cancel();
    within(reading).await.unwrap();
    within(asking).await.unwrap();
    within(server.stopped()).await;
}
