//! Streams: messages with a length before them (RFC 1035 §4.2.2), many in
//! flight, replies in the order in which they are ready (RFC 7766 §7).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, SinkExt, StreamExt};
use portolan_dns::{Transfer, Transport};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::codec::{Decoder, FramedRead, FramedWrite, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::door::{Asker, Door, Now};
use super::heirs::Heirs;
use super::service::Step;

/// What connections are allowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How many are served at a time; more wait in the listener's backlog until one
    /// ends, which an idle one soon does.
    pub(super) most: usize,
    /// How long one may be silent, or refuse to take a reply.
    pub(super) idle: Duration,
    /// How long a client may take to close its side after the server has.
    pub(super) parting: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            most: 512,
            idle: Duration::from_secs(8),
            parting: Duration::from_secs(1),
        }
    }
}

/// How long a connection may be silent once the server leaves.
const LAST: Duration = Duration::from_millis(250);
/// How long its first query may take then, or the rest of one that has begun.
const FIRST: Duration = Duration::from_secs(4);
/// How long a connection is read from once the server leaves, however much is asked.
const LEAVING: Duration = Duration::from_secs(2);
/// Queries of one connection that may wait for other resolvers; the next one is
/// read when one of them is done.
const MOST_LATE: usize = 32;
/// Replies that are ready and not yet written.
const MOST_READY: usize = 32;
/// The pause after a failed accept, for instance for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// What accepts connections.
#[derive(Clone)]
pub(super) struct Acceptor {
    pub(super) door: Arc<Door>,
    pub(super) slots: Arc<Semaphore>,
    pub(super) heirs: Arc<Heirs>,
    pub(super) tasks: TaskTracker,
    /// No more connections, and those that there are end soon.
    pub(super) stop: CancellationToken,
    /// Connections end now.
    pub(super) abort: CancellationToken,
}

impl Acceptor {
    pub(super) async fn serve(self, listener: TcpListener) {
        let accept = async {
            loop {
                let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
                    return;
                };
                match listener.accept().await {
                    Ok((stream, peer)) => self.begin(stream, peer, slot),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a DNS connection");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        };
        self.stop.run_until_cancelled(accept).await;
        // Those that are waiting are somebody else's, or ours for the last time.
        while !self.heirs.is_answering()
            && let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned()
            && let Some(Ok((stream, peer))) = listener.accept().now_or_never()
        {
            self.begin(stream, peer, slot);
        }
    }

    fn begin(&self, stream: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
        let (stop, abort) = (self.stop.clone(), self.abort.clone());
        let connection = connection(Arc::clone(&self.door), stream, (peer, stop), slot);
        self.tasks
            .spawn(async move { abort.run_until_cancelled(connection).await });
    }
}

async fn connection(
    door: Arc<Door>,
    stream: TcpStream,
    (peer, stop): (SocketAddr, CancellationToken),
    slot: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let (read, write) = stream.into_split();
    let (ready, replies) = mpsc::channel(MOST_READY);
    let Limits { idle, parting, .. } = door.streams;
    let leaves = stop.clone();
    // Ends when either side does: the reader by closing the channel, the writer
    // by an error, which makes the reader's next reply fail.
    let (read, ()) = tokio::join!(
        read_queries(&door, (peer, stop), read, ready),
        write_replies(write, idle, replies)
    );
    if leaves.is_cancelled() && timeout(parting, until_closed(read)).await.is_err() {
        tracing::debug!(%peer, "a DNS client did not close its connection");
    }
    drop(slot);
}

/// Waits for the client to close its side, whatever it still asks: a connection that is
/// closed with something unread is broken, and replies on their way are lost with it.
async fn until_closed(mut read: impl AsyncRead + Unpin) {
    let mut late = [0; 4096];
    while read.read(&mut late).await.is_ok_and(|length| length > 0) {}
}

fn framing() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .length_field_type::<u16>()
        .new_codec()
}

/// Answers what is asked; gives back what it has read from.
async fn read_queries<R: AsyncRead + Unpin>(
    door: &Arc<Door>,
    (peer, stop): (SocketAddr, CancellationToken),
    read: R,
    ready: mpsc::Sender<Bytes>,
) -> R {
    let mut queries = Queries::new(read, door.streams.idle, stop);
    answer_queries(door, peer, &mut queries, ready).await;
    queries.messages.into_inner()
}

async fn answer_queries(
    door: &Arc<Door>,
    peer: SocketAddr,
    queries: &mut Queries<impl AsyncRead + Unpin>,
    ready: mpsc::Sender<Bytes>,
) {
    let late = Arc::new(Semaphore::new(MOST_LATE));
    let mut out = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    while let Some(query) = queries.next().await {
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

/// The queries of one connection.
struct Queries<R> {
    messages: FramedRead<R, LengthDelimitedCodec>,
    idle: Duration,
    stop: CancellationToken,
    /// When the order to leave was seen.
    left: Option<Instant>,
    /// There was a query already.
    asked: bool,
}

impl<R: AsyncRead + Unpin> Queries<R> {
    fn new(read: R, idle: Duration, stop: CancellationToken) -> Self {
        Self {
            messages: FramedRead::new(read, framing()),
            idle,
            stop,
            left: None,
            asked: false,
        }
    }

    /// The next one; none at the end. Once the server leaves it comes soon or never,
    /// but for the first one, for which the connection was opened.
    async fn next(&mut self) -> Option<BytesMut> {
        let mut next = None;
        if !self.stop.is_cancelled() {
            tokio::select! {
                biased;
                came = timeout(self.idle, self.messages.next()) => next = Some(came),
                () = self.stop.cancelled() => {}
            }
        }
        let came = match next {
            Some(came) => came,
            None => {
                let left = *self.left.get_or_insert_with(Instant::now);
                // A client that asks on and on would be read from for ever.
                if self.asked && left.elapsed() >= LEAVING {
                    return self.read_already();
                }
                let begun = !self.messages.read_buffer().is_empty();
                let end = if begun || !self.asked {
                    left + FIRST
                } else {
                    (left + LEAVING).min(Instant::now() + LAST)
                };
                timeout_at(end, self.messages.next()).await
            }
        };
        self.asked = true;
        came.ok()??.ok()
    }

    /// The next one of those that were read together with others.
    fn read_already(&mut self) -> Option<BytesMut> {
        let mut read = std::mem::take(self.messages.read_buffer_mut());
        let next = self.messages.decoder_mut().decode(&mut read);
        *self.messages.read_buffer_mut() = read;
        next.ok().flatten()
    }
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

async fn write_replies(
    write: impl AsyncWrite + Unpin,
    idle: Duration,
    mut replies: mpsc::Receiver<Bytes>,
) {
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
        if !matches!(timeout(idle, write).await, Ok(Ok(()))) {
            return;
        }
    }
    // The last reply has been given: nothing follows it.
    if let Err(error) = messages.get_mut().shutdown().await {
        tracing::debug!(%error, "a DNS connection closed before its end");
    }
}
