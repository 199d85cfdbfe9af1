//! The first process of a container, for those who attach to it: everybody
//! sees what it prints, and may write to it where the pod says `stdin`.
//!
//! ```text
//!  container ──► pump ──┬──► log
//!      ▲                └──► each who is attached (bounded; too slow: let go)
//!      └──── input ◄──────── whoever writes
//! ```

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, watch},
};

use crate::container::Terminal;

/// Pieces that may wait for one who is attached.
const PIECES: usize = 64;
/// The size of a piece.
const PIECE: usize = 16 * 1024;
/// How much an interactive container may print before the first one attaches to
/// it, for that one to see.
const EARLY: usize = 64 * 1024;
/// How long one who does not read holds the container up before it is let go.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Stdout,
    Stderr,
}

/// One who is attached.
struct Listener {
    stdout: Option<mpsc::Sender<Bytes>>,
    stderr: Option<mpsc::Sender<Bytes>>,
}

/// The streams of one running container.
pub(super) struct Attached {
    listeners: Mutex<Vec<Listener>>,
    /// What was printed before anybody attached to a container with `stdinOnce`:
    /// it is made for one who attaches, and a short command is over before
    /// `kubectl run -it` has come. Locked after `listeners`.
    early: Mutex<Option<Vec<(Source, Bytes)>>>,
    input: Mutex<Option<mpsc::Sender<Bytes>>>,
    /// `stdinOnce`: the input ends with the first who leaves.
    once: bool,
    terminal: Mutex<Option<Terminal>>,
    /// Streams that are still read.
    open: AtomicUsize,
    exit: watch::Sender<Option<i32>>,
}

impl Attached {
    pub(super) fn new(once: bool) -> Arc<Self> {
        Arc::new(Self {
            listeners: Mutex::default(),
            early: Mutex::new(once.then(Vec::new)),
            input: Mutex::default(),
            once,
            terminal: Mutex::default(),
            open: AtomicUsize::new(0),
            exit: watch::Sender::new(None),
        })
    }

    /// Lets whoever attaches write to `input`.
    pub(super) fn takes_input(&self, mut input: impl AsyncWrite + Send + Unpin + 'static) {
        let (tell, mut told) = mpsc::channel::<Bytes>(PIECES);
        *lock(&self.input) = Some(tell);
        tokio::spawn(async move {
            while let Some(piece) = told.recv().await {
                if input.write_all(&piece).await.is_err() {
                    return;
                }
            }
        });
    }

    pub(super) fn has_terminal(&self, terminal: Terminal) {
        *lock(&self.terminal) = Some(terminal);
    }

    /// Copies what the container prints to the log and to all who are
    /// attached, until it ends.
    pub(super) fn pump(
        self: &Arc<Self>,
        mut from: impl AsyncRead + Send + Unpin + 'static,
        mut log: impl AsyncWrite + Send + Unpin + 'static,
        source: Source,
    ) {
        self.open.fetch_add(1, Ordering::AcqRel);
        let attached = Arc::clone(self);
        tokio::spawn(async move {
            let mut buffer = vec![0; PIECE];
            loop {
                let read = match from.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(read) => read,
                };
                let piece = buffer.get(..read).unwrap_or_default();
                if let Err(cause) = log.write_all(piece).await {
                    tracing::debug!(%cause, "the log is closed");
                }
                attached.tell(source, piece).await;
            }
            attached.open.fetch_sub(1, Ordering::AcqRel);
            attached.close_if_over();
        });
    }

    async fn tell(&self, source: Source, piece: &[u8]) {
        let senders: Vec<mpsc::Sender<Bytes>> = {
            let listeners = lock(&self.listeners);
            self.keep(source, piece);
            listeners
                .iter()
                .filter_map(|listener| listener.of(source).clone())
                .collect()
        };
        if senders.is_empty() {
            return;
        }
        let piece = Bytes::copy_from_slice(piece);
        for sender in senders {
            let sent = sender.send_timeout(piece.clone(), PATIENCE).await;
            if sent.is_err() {
                self.forget(source, &sender);
            }
        }
    }

    /// Keeps a piece for the first who attaches; too much, and it is let go.
    fn keep(&self, source: Source, piece: &[u8]) {
        let mut early = lock(&self.early);
        if let Some(pieces) = early.as_mut() {
            pieces.push((source, Bytes::copy_from_slice(piece)));
            let size: usize = pieces.iter().map(|(_, piece)| piece.len()).sum();
            if size > EARLY || pieces.len() > PIECES {
                *early = None;
            }
        }
    }

    fn forget(&self, source: Source, gone: &mpsc::Sender<Bytes>) {
        for listener in lock(&self.listeners).iter_mut() {
            let own = listener.of_mut(source);
            if own.as_ref().is_some_and(|own| own.same_channel(gone)) {
                *own = None;
            }
        }
        lock(&self.listeners).retain(Listener::listens);
    }

    /// Those who are attached see the end once all is read and the container
    /// is over.
    fn close_if_over(&self) {
        if self.open.load(Ordering::Acquire) == 0 && self.exit.borrow().is_some() {
            lock(&self.listeners).clear();
        }
    }

    /// The container is over.
    pub(super) fn exited(&self, code: i32) {
        lock(&self.input).take();
        self.exit.send_replace(Some(code));
        self.close_if_over();
    }

    /// What is printed from now on, on both streams; the first to attach to an
    /// interactive container sees what it printed before, too.
    pub(super) fn listen(&self) -> (mpsc::Receiver<Bytes>, mpsc::Receiver<Bytes>) {
        let (stdout, out) = mpsc::channel(PIECES);
        let (stderr, err) = mpsc::channel(PIECES);
        let mut listeners = lock(&self.listeners);
        for (source, piece) in lock(&self.early).take().into_iter().flatten() {
            let to = match source {
                Source::Stdout => &stdout,
                Source::Stderr => &stderr,
            };
            // There is room: no more pieces are kept than wait.
            if to.try_send(piece).is_err() {
                break;
            }
        }
        listeners.push(Listener {
            stdout: Some(stdout),
            stderr: Some(stderr),
        });
        drop(listeners);
        // Perhaps it was over before this one came.
        self.close_if_over();
        (out, err)
    }

    /// The way to write to it, if there is one.
    pub(super) fn input(&self) -> Option<mpsc::Sender<Bytes>> {
        lock(&self.input).clone()
    }

    /// One who wrote has left.
    pub(super) fn input_left(&self) {
        if self.once {
            lock(&self.input).take();
        }
    }

    pub(super) fn resize(&self, width: u16, height: u16) -> io::Result<()> {
        match lock(&self.terminal).as_ref() {
            Some(terminal) => terminal.resize(width, height),
            None => Ok(()),
        }
    }

    /// The exit code, once there is one.
    pub(super) fn exit(&self) -> watch::Receiver<Option<i32>> {
        self.exit.subscribe()
    }
}

impl Listener {
    fn of(&self, source: Source) -> &Option<mpsc::Sender<Bytes>> {
        match source {
            Source::Stdout => &self.stdout,
            Source::Stderr => &self.stderr,
        }
    }

    fn of_mut(&mut self, source: Source) -> &mut Option<mpsc::Sender<Bytes>> {
        match source {
            Source::Stdout => &mut self.stdout,
            Source::Stderr => &mut self.stderr,
        }
    }

    fn listens(&self) -> bool {
        self.stdout.is_some() || self.stderr.is_some()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_who_attaches_sees_what_an_interactive_container_printed_before() {
        let attached = Attached::new(true);
        attached.tell(Source::Stdout, b"early ").await;
        attached.tell(Source::Stderr, b"oops").await;
        let (mut out, mut err) = attached.listen();
        let (mut second, _) = attached.listen();
        attached.tell(Source::Stdout, b"late").await;
        attached.exited(0);
        let mut text = Vec::new();
        while let Some(piece) = out.recv().await {
            text.extend_from_slice(&piece);
        }
        assert_eq!(text, b"early late");
        assert_eq!(err.recv().await.as_deref(), Some(&b"oops"[..]));
        assert_eq!(second.recv().await.as_deref(), Some(&b"late"[..]));
    }

    #[tokio::test]
    async fn other_containers_show_what_they_print_from_then_on() {
        let attached = Attached::new(false);
        attached.tell(Source::Stdout, b"early").await;
        let (mut out, _) = attached.listen();
        attached.tell(Source::Stdout, b"late").await;
        assert_eq!(out.recv().await.as_deref(), Some(&b"late"[..]));
    }

    #[tokio::test]
    async fn too_much_is_not_kept() {
        let attached = Attached::new(true);
        for _ in 0..=EARLY / PIECE {
            attached.tell(Source::Stdout, &[b'x'; PIECE]).await;
        }
        let (mut out, _) = attached.listen();
        attached.tell(Source::Stdout, b"late").await;
        assert_eq!(out.recv().await.as_deref(), Some(&b"late"[..]));
    }
}
