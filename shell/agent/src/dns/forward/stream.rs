//! A connection to a server, over which many questions are under way at once
//! (RFC 7766 §6.2.1, RFC 7858 §3.3).
//!
//! One task owns the connection. It ends when the server closes it, when nobody
//! has asked for a while, or when what comes cannot be read; whoever still waits
//! then gets an error and may ask over another one.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use portolan_dns::upstream::{Ask, Key};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::dial::Random;

/// Questions that may be under way on one connection.
pub(super) const MOST_PIPELINED: usize = 128;
/// How long a server may take to accept a question.
const WRITE: Duration = Duration::from_secs(2);

/// A question, and who waits for the reply.
struct Request {
    key: Key,
    edns: bool,
    answer: oneshot::Sender<BytesMut>,
}

/// A handle to a connection. Clones share it.
#[derive(Clone)]
pub(super) struct Stream {
    requests: mpsc::Sender<Request>,
    under_way: Arc<AtomicUsize>,
}

impl Stream {
    /// Takes over a connection.
    pub(super) fn start<S>(stream: S, idle: Duration, random: Arc<Random>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (requests, receiver) = mpsc::channel(MOST_PIPELINED);
        let framing = LengthDelimitedCodec::builder()
            .length_field_type::<u16>()
            .new_codec();
        let connection = Connection {
            frames: Framed::new(stream, framing),
            waiting: HashMap::new(),
            random,
        };
        tokio::spawn(connection.run(receiver, idle));
        Self {
            requests,
            under_way: Arc::default(),
        }
    }

    /// Whether it can take another question.
    pub(super) fn has_room(&self) -> bool {
        !self.requests.is_closed() && self.under_way.load(Ordering::Relaxed) < MOST_PIPELINED
    }

    pub(super) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// Asks, and waits for the reply for as long as the connection lasts.
    pub(super) async fn ask(&self, key: Key, edns: bool) -> io::Result<BytesMut> {
        let _place = Place::take(&self.under_way);
        let (answer, reply) = oneshot::channel();
        let request = Request { key, edns, answer };
        let closed = || io::Error::from(io::ErrorKind::ConnectionAborted);
        let sent = self.requests.send(request).await;
        sent.map_err(|_closed| closed())?;
        reply.await.map_err(|_closed| closed())
    }
}

/// One of the places on a connection, given back when the question is over.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Connection<S> {
    frames: Framed<S, LengthDelimitedCodec>,
    waiting: HashMap<u16, (Ask, oneshot::Sender<BytesMut>)>,
    random: Arc<Random>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>, idle: Duration) {
        let mut used = Instant::now();
        loop {
            tokio::select! {
                request = requests.recv() => {
                    let Some(request) = request else { break };
                    used = Instant::now();
                    if !self.send(request).await {
                        break;
                    }
                }
                frame = self.frames.next() => {
                    let Some(Ok(reply)) = frame else { break };
                    used = Instant::now();
                    self.hand_out(reply);
                }
                () = tokio::time::sleep_until(used + idle) => {
                    self.waiting.retain(|_, (_, answer)| !answer.is_closed());
                    if self.waiting.is_empty() {
                        break;
                    }
                    used = Instant::now();
                }
            }
        }
    }

    async fn send(&mut self, request: Request) -> bool {
        if self.waiting.len() > MOST_PIPELINED {
            self.waiting.retain(|_, (_, answer)| !answer.is_closed());
        }
        let mut id = self.random.id();
        while self.waiting.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        // The connection is the secret here, so the case of letters is none.
        let ask = Ask::new(&request.key, id, None, request.edns);
        let message = Bytes::copy_from_slice(ask.message());
        self.waiting.insert(id, (ask, request.answer));
        matches!(timeout(WRITE, self.frames.send(message)).await, Ok(Ok(())))
    }

    /// Gives a reply to whoever asked. One that nobody waits for is late, or
    /// answers something else, and is passed over.
    fn hand_out(&mut self, reply: BytesMut) {
        let Some(id) = portolan_dns::id(&reply) else {
            return;
        };
        let fits = self
            .waiting
            .get(&id)
            .is_some_and(|(ask, _)| ask.is_answered_by(&reply) || ask.is_refused_by(&reply));
        if fits && let Some((_, answer)) = self.waiting.remove(&id) {
            // Whoever asked may have gone.
            drop(answer.send(reply));
        }
    }
}
