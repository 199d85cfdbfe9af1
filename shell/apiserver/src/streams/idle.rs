//! A connection that remembers when something last moved on it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// When something last moved.
#[derive(Debug, Clone)]
pub(super) struct Clock(Arc<Mutex<Instant>>);

impl Clock {
    fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Wait until nothing has moved for so long.
    pub(super) async fn idle(&self, timeout: Duration) {
        loop {
            let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let end = last + timeout;
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

/// A connection with its clock.
#[derive(Debug)]
pub(super) struct Watched<T> {
    io: T,
    clock: Clock,
}

impl<T> Watched<T> {
    pub(super) fn new(io: T) -> (Self, Clock) {
        let clock = Clock(Arc::new(Mutex::new(Instant::now())));
        let watched = Self {
            io,
            clock: clock.clone(),
        };
        (watched, clock)
    }

    fn note<V>(&self, polled: Poll<V>) -> Poll<V> {
        if polled.is_ready() {
            self.clock.touch();
        }
        polled
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.note(polled)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bytes);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn movement_in_either_direction_puts_the_end_off() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let (mut ours, clock) = Watched::new(ours);
        let timeout = Duration::from_millis(300);
        let moving = async {
            tokio::time::sleep(timeout / 2).await;
            ours.write_all(b"x").await.unwrap();
            tokio::time::sleep(timeout / 2).await;
            theirs.write_all(b"y").await.unwrap();
            assert_eq!(ours.read_u8().await.unwrap(), b'y');
            Instant::now()
        };
        let ended = async {
            clock.idle(timeout).await;
            Instant::now()
        };
        let (moved, ended) = tokio::join!(moving, ended);
        assert!(ended >= moved + timeout);
    }
}
