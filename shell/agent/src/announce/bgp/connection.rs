//! One connection: a task that reads, and one that writes.

use std::time::Duration;

use portolan_announce::bgp::Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A peer that takes nothing for so long is given up (RFC 9687 section 3: eight
/// minutes, or twice the hold time). Its hold timer may go on, since it still sends.
const SEND_HOLD: Duration = Duration::from_secs(480);
/// As much as is read at once.
const CHUNK: usize = 16 * 1024;

/// What happens to connections.
pub(super) enum Event {
    /// An attempt came to something, or not.
    Dialled(std::io::Result<TcpStream>),
    /// Bytes came in.
    Read(Connection, Vec<u8>),
    /// It is closed, or broke.
    Closed(Connection),
}

/// Somebody who writes to a connection. Without it, the connection is closed once all
/// is written.
pub(super) struct Writer {
    bytes: mpsc::UnboundedSender<Vec<u8>>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Reads and writes on a stream from now on.
    pub(super) fn start(
        id: Connection,
        stream: TcpStream,
        hold: Duration,
        events: &mpsc::Sender<Event>,
    ) -> Self {
        let (bytes, queue) = mpsc::unbounded_channel();
        let (reader, writer) = stream.into_split();
        let limit = SEND_HOLD.max(hold * 2);
        let over = events.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = read(id, reader, &over) => {}
                () = write(writer, queue, limit) => {}
            }
            // Nobody listens any more where the session's task has ended.
            drop(over.send(Event::Closed(id)).await);
        });
        Self { bytes, task }
    }

    /// Sends bytes, after those before. A connection that broke is told of as closed.
    pub(super) fn send(&self, bytes: Vec<u8>) {
        drop(self.bytes.send(bytes));
    }

    /// Closes the connection once all is written. The task ends then.
    pub(super) fn close(self) -> JoinHandle<()> {
        self.task
    }
}

/// Reads until the peer closes.
async fn read(id: Connection, mut reader: OwnedReadHalf, events: &mpsc::Sender<Event>) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(length) = reader.read(&mut buffer).await {
        let bytes = buffer.get(..length).unwrap_or_default();
        if bytes.is_empty() || events.send(Event::Read(id, bytes.to_vec())).await.is_err() {
            return;
        }
    }
}

/// Writes until nobody has anything to say any more, or the peer takes nothing.
async fn write(
    mut writer: OwnedWriteHalf,
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
    limit: Duration,
) {
    while let Some(bytes) = queue.recv().await {
        match tokio::time::timeout(limit, writer.write_all(&bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "a BGP connection broke");
                return;
            }
            Err(_late) => {
                tracing::warn!("a BGP peer takes nothing: its connection is closed");
                return;
            }
        }
    }
}
