//! Streams: messages with a length before them (RFC 1035 §4.2.2), many in
//! flight, replies in the order in which they are ready (RFC 7766 §7).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use portolan_dns::{Transfer, Transport};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::door::{Asker, Door, Now};
use super::service::Step;

/// Connections that are served at a time; more wait in the listener's backlog
/// until one ends, which an idle one soon does.
const MOST_CONNECTIONS: usize = 512;
/// How long a connection may be silent, or refuse to take a reply.
const IDLE: Duration = Duration::from_secs(8);
/// Queries of one connection that may wait for other resolvers; the next one is
/// read when one of them is done.
const MOST_LATE: usize = 32;
/// Replies that are ready and not yet written.
const MOST_READY: usize = 32;
/// The pause after a failed accept, for instance for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// The connection slots that all listeners of a server share.
pub(super) fn slots() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MOST_CONNECTIONS))
}

pub(super) async fn serve(
    door: Arc<Door>,
    listener: TcpListener,
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let accept = async {
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let connection = connection(Arc::clone(&door), stream, peer, slot);
                    let stop = stop.clone();
                    tasks.spawn(async move { stop.run_until_cancelled(connection).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a DNS connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accept).await;
}

async fn connection(
    door: Arc<Door>,
    stream: TcpStream,
    peer: SocketAddr,
    slot: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let (read, write) = stream.into_split();
    let (ready, replies) = mpsc::channel(MOST_READY);
    // Ends when either side does: the reader by closing the channel, the writer
    // by an error, which makes the reader's next reply fail.
    tokio::join!(
        read_queries(&door, peer, read, ready),
        write_replies(write, replies)
    );
    drop(slot);
}

fn framing() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .length_field_type::<u16>()
        .new_codec()
}

async fn read_queries(
    door: &Arc<Door>,
    peer: SocketAddr,
    read: impl AsyncRead + Unpin,
    ready: mpsc::Sender<Bytes>,
) {
    let mut messages = FramedRead::new(read, framing());
    let late = Arc::new(Semaphore::new(MOST_LATE));
    let mut out = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    while let Ok(Some(Ok(query))) = timeout(IDLE, messages.next()).await {
        let asker = Asker {
            peer,
            transport: Transport::Tcp,
            now: Now::read(),
        };
        if let Some(transfer) = door.transfer(&query, asker) {
            if send_zone(door, transfer, (&query, asker), &ready).await {
                continue;
            }
            return;
        }
        match door.at_once(&query, asker, &mut out) {
            Step::Send => {
                if ready.send(Bytes::copy_from_slice(&out)).await.is_err() {
                    return;
                }
            }
            // Whoever sends what is no query over a stream will not mend.
            Step::Ignore => break,
            Step::Wait => {
                let Ok(slot) = Arc::clone(&late).acquire_owned().await else {
                    return;
                };
                while tasks.try_join_next().is_some() {}
                let late = reply_late(Arc::clone(door), (query, asker), ready.clone(), slot);
                tasks.spawn(late);
            }
        }
    }
    // A client may close its half after the last query (RFC 7766 §6.2.4) and
    // still wait for the replies.
    tasks.join_all().await;
}

/// Sends a whole zone, message by message; the client's pace is ours. Says whether the
/// connection goes on.
async fn send_zone(
    door: &Door,
    mut transfer: Transfer,
    (query, asker): (&[u8], Asker),
    ready: &mpsc::Sender<Bytes>,
) -> bool {
    let mut out = Vec::new();
    loop {
        let more = transfer.next(query, Transport::Tcp, &mut out);
        door.transferred(query, asker, &mut out);
        if ready.send(Bytes::copy_from_slice(&out)).await.is_err() {
            return false;
        }
        if !more {
            return true;
        }
    }
}

async fn reply_late(
    door: Arc<Door>,
    (query, asker): (BytesMut, Asker),
    ready: mpsc::Sender<Bytes>,
    slot: OwnedSemaphorePermit,
) {
    if let Some(reply) = door.eventually(&query, asker).await
        && ready.send(Bytes::from(reply)).await.is_err()
    {
        tracing::debug!("a DNS connection closed before its reply");
    }
    drop(slot);
}

async fn write_replies(write: impl AsyncWrite + Unpin, mut replies: mpsc::Receiver<Bytes>) {
    let mut messages = FramedWrite::new(write, framing());
    while let Some(reply) = replies.recv().await {
        let write = async {
            messages.feed(reply).await?;
            // Everything that is ready leaves in one segment.
            while let Ok(reply) = replies.try_recv() {
                messages.feed(reply).await?;
            }
            SinkExt::<Bytes>::flush(&mut messages).await
        };
        if !matches!(timeout(IDLE, write).await, Ok(Ok(()))) {
            return;
        }
    }
}
