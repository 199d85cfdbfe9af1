//! An SPDY connection: streams that the client opens.
//!
//! One future reads frames and hands data to the streams, one writes what the
//! streams send; both end with the connection. A stream whose data nobody reads
//! stops the reading for all once its queue is full, as the clients' own library
//! does: it knows no windows (see `portolan_spdy::Windows`), so the socket is
//! the only thing that slows it down.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use portolan_spdy::{
    Decoder, Encoder, Frame, GoAwayStatus, Headers, ResetStatus, StreamId, Windows,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{INPUT_PIECES, OUTPUT_PIECES, PIECE_BYTES};

/// Streams of one connection at a time: 500 forwarded connections.
const MAX_STREAMS: usize = 1000;
/// Streams that wait to be looked at.
const NEW_STREAMS: usize = 16;
/// How long a client that broke the protocol may take to read that it did.
const GO_AWAY_TIMEOUT: Duration = Duration::from_secs(1);
/// What the streams of one connection may have waiting to be read, together.
const MAX_QUEUED_BYTES: usize = 16 << 20;
/// Frames that are written together.
const BATCH_BYTES: usize = 64 * 1024;

/// A stream that the client has opened; it has been accepted.
pub(super) struct Stream {
    headers: Headers,
    pub(super) input: Input,
    pub(super) output: Output,
    /// The client has reset it, or left.
    pub(super) reset: CancellationToken,
}

impl Stream {
    /// A header, by its name in lower case.
    pub(super) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(own, _)| own == name);
        found.map_or("", |(_, value)| value)
    }

    /// The client has nothing to say on this stream: what it sends is thrown away.
    pub(super) fn ignore_input(&mut self) {
        self.input.pieces.close();
    }

    pub(super) fn id(&self) -> StreamId {
        self.output.id
    }
}

/// What the client sends on a stream.
pub(super) struct Input {
    id: StreamId,
    pieces: mpsc::Receiver<Queued>,
    shared: Arc<Shared>,
}

/// A piece that waits to be read, with its part of [`MAX_QUEUED_BYTES`].
struct Queued {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Input {
    /// The next piece, `None` after the client's last.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        let Queued { bytes, .. } = self.pieces.recv().await?;
        let updates = self.shared.lock().windows.consume(self.id, bytes.len());
        for update in updates {
            self.shared.frames.send(update).await.ok()?;
        }
        Some(bytes)
    }
}

/// What is sent to the client on a stream.
#[derive(Clone)]
pub(super) struct Output {
    id: StreamId,
    shared: Arc<Shared>,
}

/// The stream or the connection is gone.
#[derive(Debug)]
pub(super) struct Gone;

impl Output {
    /// Send bytes; waits while the client is slow.
    pub(super) async fn write(&self, mut bytes: Bytes) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let room = self.shared.room.notified();
            let wanted = bytes.len().min(PIECE_BYTES);
            let granted = self
                .shared
                .lock()
                .windows
                .take(self.id, wanted)
                .ok_or(Gone)?;
            if granted == 0 {
                room.await;
                continue;
            }
            let piece = bytes.split_to(granted);
            self.send(false, piece).await?;
        }
        Ok(())
    }

    /// Say that nothing more comes.
    pub(super) async fn finish(&self) {
        if !self.shared.lock().streams.contains_key(&self.id) {
            return;
        }
        if self.send(true, Bytes::new()).await.is_ok() {
            self.shared.finished(self.id, Side::Ours);
        }
    }

    /// End both directions.
    pub(super) async fn reset(&self) {
        if self.shared.remove(self.id) {
            let frame = Frame::Reset {
                stream: self.id,
                status: ResetStatus::CANCEL,
            };
            if self.shared.frames.send(frame).await.is_err() {
                tracing::debug!("a client left before its stream was reset");
            }
        }
    }

    async fn send(&self, fin: bool, bytes: Bytes) -> Result<(), Gone> {
        let stream = self.id;
        let frame = Frame::Data { stream, fin, bytes };
        self.shared.frames.send(frame).await.map_err(|_closed| Gone)
    }
}

struct Shared {
    frames: mpsc::Sender<Frame>,
    state: Mutex<State>,
    /// More may be sent than before.
    room: Notify,
    /// Bytes that may be queued for the streams.
    queue: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    windows: Windows,
    streams: BTreeMap<StreamId, Slot>,
}

struct Slot {
    /// None after the client's last data.
    input: Option<mpsc::Sender<Queued>>,
    we_finished: bool,
    reset: CancellationToken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Ours,
    Theirs,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One side sends no more; a stream is gone when both do not.
    fn finished(&self, id: StreamId, side: Side) {
        let mut state = self.lock();
        let Some(slot) = state.streams.get_mut(&id) else {
            return;
        };
        match side {
            Side::Ours => slot.we_finished = true,
            Side::Theirs => slot.input = None,
        }
        if slot.we_finished && slot.input.is_none() {
            state.streams.remove(&id);
            state.windows.close(id);
        }
    }

    /// True if it was there.
    fn remove(&self, id: StreamId) -> bool {
        let mut state = self.lock();
        state.windows.close(id);
        let slot = state.streams.remove(&id);
        drop(state);
        // A writer may be waiting for room that never comes.
        self.room.notify_waiters();
        slot.map(|slot| slot.reset.cancel()).is_some()
    }
}

/// The connection's two directions; run it as long as the session lasts.
pub(super) struct Driver<T> {
    io: T,
    shared: Arc<Shared>,
    frames: mpsc::Receiver<Frame>,
    arrivals: mpsc::Sender<Stream>,
}

/// The streams that the client opens, in its order.
pub(super) type Arrivals = mpsc::Receiver<Stream>;

/// Take a connection.
pub(super) fn connection<T>(io: T) -> (Driver<T>, Arrivals)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (frames_in, frames) = mpsc::channel(OUTPUT_PIECES);
    let (arrivals, arrived) = mpsc::channel(NEW_STREAMS);
    let shared = Arc::new(Shared {
        frames: frames_in,
        state: Mutex::default(),
        room: Notify::new(),
        queue: Arc::new(Semaphore::new(MAX_QUEUED_BYTES)),
    });
    let driver = Driver {
        io,
        shared,
        frames,
        arrivals,
    };
    (driver, arrived)
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    /// Carry frames until the client leaves or breaks the protocol.
    pub(super) async fn run(self) {
        let Self {
            io,
            shared,
            frames,
            arrivals,
        } = self;
        let (reader, writer) = tokio::io::split(io);
        let mut reading = Reading {
            shared: Arc::clone(&shared),
            arrivals,
            last: 0,
        };
        let mut writing = std::pin::pin!(write(writer, frames));
        tokio::select! {
            ended = reading.run(reader) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a session ended");
                    // Let the client know why, if it still reads.
                    drop(tokio::time::timeout(GO_AWAY_TIMEOUT, writing).await);
                }
            }
            ended = &mut writing => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a client left");
                }
            }
        }
        let streams: Vec<StreamId> = shared.lock().streams.keys().copied().collect();
        for stream in streams {
            shared.remove(stream);
        }
    }
}

/// Until the connection ends; a GOAWAY is the last frame of it.
async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut frames: mpsc::Receiver<Frame>,
) -> io::Result<()> {
    let mut encoder = Encoder::default();
    let mut buffer = Vec::new();
    while let Some(first) = frames.recv().await {
        let mut next = Some(first);
        let mut last = false;
        while let Some(frame) = next {
            encoder
                .encode(&frame, &mut buffer)
                .map_err(io::Error::other)?;
            last = matches!(frame, Frame::GoAway { .. });
            let full = last || buffer.len() >= BATCH_BYTES;
            next = if full { None } else { frames.try_recv().ok() };
        }
        writer.write_all(&buffer).await?;
        writer.flush().await?;
        buffer.clear();
        if last {
            break;
        }
    }
    Ok(())
}

struct Reading {
    shared: Arc<Shared>,
    arrivals: mpsc::Sender<Stream>,
    /// The last stream that the client has opened.
    last: StreamId,
}

impl Reading {
    async fn run(&mut self, mut reader: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::with_capacity(PIECE_BYTES);
        loop {
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => self.take(frame).await?,
                    Ok(None) => break,
                    Err(error) => {
                        self.send(Frame::GoAway {
                            last: self.last,
                            status: GoAwayStatus::PROTOCOL_ERROR,
                        })
                        .await?;
                        return Err(io::Error::other(error));
                    }
                }
            }
            buffer.clear();
            if reader.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            decoder.push(&buffer);
        }
    }

    async fn take(&mut self, frame: Frame) -> io::Result<()> {
        if self.shared.lock().windows.received(&frame) {
            self.shared.room.notify_waiters();
        }
        match frame {
            Frame::SynStream {
                stream,
                fin,
                headers,
                ..
            } => self.open(stream, fin, headers).await?,
            Frame::Data { stream, fin, bytes } => {
                let input = {
                    let state = self.shared.lock();
                    let slot = state.streams.get(&stream);
                    slot.and_then(|slot| slot.input.clone())
                };
                if let Some(input) = input
                    && !bytes.is_empty()
                {
                    self.queue(&input, bytes).await;
                }
                if fin {
                    self.shared.finished(stream, Side::Theirs);
                }
            }
            Frame::Reset { stream, .. } => {
                self.shared.remove(stream);
            }
            // The client's pings have odd numbers; we send none.
            Frame::Ping(id) if id % 2 == 1 => self.send(Frame::Ping(id)).await?,
            Frame::Headers { stream, fin, .. } => {
                if fin {
                    self.shared.finished(stream, Side::Theirs);
                }
            }
            Frame::Ping(_)
            | Frame::SynReply { .. }
            | Frame::Settings(_)
            | Frame::GoAway { .. }
            | Frame::WindowUpdate { .. } => {}
        }
        Ok(())
    }

    /// Hand data to a stream. If nobody reads it any more, it is thrown away.
    async fn queue(&self, input: &mpsc::Sender<Queued>, bytes: Bytes) {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let queue = Arc::clone(&self.shared.queue);
        let room = tokio::select! {
            room = queue.acquire_many_owned(length) => room,
            () = input.closed() => return,
        };
        if let Ok(room) = room {
            let queued = Queued { bytes, _room: room };
            if input.send(queued).await.is_err() {
                tracing::trace!("data for nobody");
            }
        }
    }

    async fn open(&mut self, id: StreamId, fin: bool, headers: Headers) -> io::Result<()> {
        let full = self.shared.lock().streams.len() >= MAX_STREAMS;
        let status = if id.is_multiple_of(2) || id <= self.last {
            Some(ResetStatus::PROTOCOL_ERROR)
        } else if full {
            Some(ResetStatus::REFUSED_STREAM)
        } else {
            None
        };
        if let Some(status) = status {
            return self.send(Frame::Reset { stream: id, status }).await;
        }
        self.last = id;
        let (sender, pieces) = mpsc::channel(INPUT_PIECES);
        let reset = CancellationToken::new();
        let slot = Slot {
            input: (!fin).then_some(sender),
            we_finished: false,
            reset: reset.clone(),
        };
        {
            let mut state = self.shared.lock();
            state.streams.insert(id, slot);
            state.windows.open(id);
        }
        self.send(Frame::SynReply {
            stream: id,
            fin: false,
            headers: Headers::new(),
        })
        .await?;
        let stream = Stream {
            headers,
            input: Input {
                id,
                pieces,
                shared: Arc::clone(&self.shared),
            },
            output: Output {
                id,
                shared: Arc::clone(&self.shared),
            },
            reset,
        };
        if let Err(refused) = self.arrivals.send(stream).await {
            // No more streams are wanted.
            refused.0.output.reset().await;
        }
        Ok(())
    }

    async fn send(&self, frame: Frame) -> io::Result<()> {
        let sent = self.shared.frames.send(frame).await;
        sent.map_err(|_closed| io::ErrorKind::BrokenPipe.into())
    }
}
