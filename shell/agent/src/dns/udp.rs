//! Datagrams: received and answered in one loop, without a task per query.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portolan_dns::Transport;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::service::{Service, Step};

/// The longest query that is read; what is longer is no query.
const MOST_QUERY: usize = 4096;
/// Queries answered before other tasks of the thread get a turn.
const BATCH: usize = 64;
/// The pause after an error of the socket, so that a lasting one does not spin.
const PAUSE: Duration = Duration::from_millis(10);

pub(super) async fn serve(
    service: Arc<Service>,
    socket: Arc<UdpSocket>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let mut out = Vec::with_capacity(MOST_QUERY);
    loop {
        let readable = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            readable = socket.readable() => readable,
        };
        let drained = match readable {
            Ok(()) => drain(&service, &socket, (&tasks, &stop), &mut out).await,
            Err(error) => Err(error),
        };
        match drained {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => {
                tracing::warn!(%error, "cannot receive DNS queries");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Answers what has arrived, up to a batch.
async fn drain(
    service: &Arc<Service>,
    socket: &Arc<UdpSocket>,
    (tasks, stop): (&TaskTracker, &CancellationToken),
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let mut buffer = [0; MOST_QUERY];
    for _ in 0..BATCH {
        let (length, peer) = match socket.try_recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let query = buffer.get(..length).unwrap_or_default();
        match service.at_once(query, Transport::Udp, out) {
            Step::Send => send(socket, out, peer).await,
            Step::Ignore => {}
            Step::Wait => {
                let late = reply_late(
                    Arc::clone(service),
                    Arc::clone(socket),
                    query.to_vec(),
                    peer,
                );
                let stop = stop.clone();
                tasks.spawn(async move { stop.run_until_cancelled(late).await });
            }
        }
    }
    Ok(())
}

async fn reply_late(
    service: Arc<Service>,
    socket: Arc<UdpSocket>,
    query: Vec<u8>,
    peer: SocketAddr,
) {
    if let Some(reply) = service.eventually(&query, Transport::Udp).await {
        send(&socket, &reply, peer).await;
    }
}

/// Sends a reply; if that fails the asker asks again, as after any lost
/// datagram.
async fn send(socket: &UdpSocket, reply: &[u8], peer: SocketAddr) {
    let sent = match socket.try_send_to(reply, peer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            socket.send_to(reply, peer).await
        }
        sent => sent,
    };
    if let Err(error) = sent {
        tracing::debug!(%error, %peer, "cannot send a DNS reply");
    }
}
