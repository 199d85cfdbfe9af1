//! Datagrams: threads of their own that receive, answer and send by the batch.
//!
//! A thread per processor, each with a socket of its own at every address
//! (SO_REUSEPORT), so that threads share nothing but the snapshot of the zones. What
//! has to wait becomes a task of the runtime, which sends the reply by itself.

use std::io;
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use portolan_dns::Transport;
use portolan_kernel::datagrams::{Batch, wait};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::door::{Asker, Door, Now};
use super::heirs::{Heirs, detach};
use super::service::{MOST_TASKS, Step};

/// The longest query that is read; what is longer is no query.
const MOST_QUERY: usize = 4096;
/// Datagrams that are received and answered by one system call each.
const BATCH: usize = 64;
/// The pause after an error of the socket, so that a lasting one does not spin, and
/// before a late reply is sent again to a socket that was full.
const PAUSE: Duration = Duration::from_millis(10);

/// For how long a thread that ends empties its sockets at most.
const EMPTYING: Duration = Duration::from_secs(1);

/// When threads end, and when late replies are given up.
pub(super) struct Ends<'a> {
    pub(super) tasks: &'a TaskTracker,
    pub(super) stop: &'a CancellationToken,
    pub(super) abort: &'a CancellationToken,
}

/// Starts the threads; they end when `stop` is cancelled, and `tasks` waits for them.
/// `sockets` holds `each` of them for each thread.
pub(super) fn start(
    door: &Arc<Door>,
    heirs: &Arc<Heirs>,
    (sockets, each): (Vec<UdpSocket>, usize),
    ends: &Ends<'_>,
) -> io::Result<()> {
    let Ends { tasks, stop, abort } = ends;
    let (running, stopped) = UnixStream::pair()?;
    let mut threads = Vec::new();
    let mut sockets = sockets.into_iter().map(Arc::new);
    loop {
        let own: Vec<Arc<UdpSocket>> = sockets.by_ref().take(each).collect();
        if own.is_empty() {
            break;
        }
        for socket in &own {
            socket.set_nonblocking(true)?;
        }
        let worker = Worker {
            door: Arc::clone(door),
            sockets: own,
            stopped: stopped.try_clone()?,
            runtime: Handle::current(),
            tasks: TaskTracker::clone(tasks),
            stop: CancellationToken::clone(stop),
            abort: CancellationToken::clone(abort),
            heirs: Arc::clone(heirs),
        };
        let name = format!("dns-udp-{}", threads.len());
        threads.push(
            thread::Builder::new()
                .name(name)
                .spawn(move || worker.run())?,
        );
    }
    let stop = CancellationToken::clone(stop);
    tasks.spawn(async move {
        stop.cancelled().await;
        drop(running);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a thread that answers DNS queries panicked");
                }
            }
        });
        if let Err(error) = joined.await {
            tracing::debug!(%error, "the threads that answer DNS queries were not awaited");
        }
    });
    Ok(())
}

/// One thread.
struct Worker {
    door: Arc<Door>,
    sockets: Vec<Arc<UdpSocket>>,
    /// Closed at its other end when the thread is to end.
    stopped: UnixStream,
    runtime: Handle,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Ends what waits for its reply.
    abort: CancellationToken,
    heirs: Arc<Heirs>,
}

impl Worker {
    fn run(self) {
        let mut batch = Batch::new(BATCH, MOST_QUERY);
        let mut out = Vec::with_capacity(MOST_QUERY);
        loop {
            match wait(&self.sockets, &self.stopped) {
                Ok(true) => {}
                Ok(false) => return self.leave(&mut batch, &mut out),
                Err(error) => failed(&error),
            }
            // As long as there is something, nobody has to wait for it.
            while self.drain_all(&mut batch, &mut out) {
                if self.stop.is_cancelled() {
                    return self.leave(&mut batch, &mut out);
                }
            }
        }
    }

    /// Answers what has arrived. Where another process has the same sockets and answers,
    /// that is its work.
    fn leave(&self, batch: &mut Batch, out: &mut Vec<u8>) {
        if self.heirs.is_answering() {
            return;
        }
        for (index, socket) in self.sockets.iter().enumerate() {
            if self.heirs.are_own(index) {
                detach(socket);
            }
        }
        let end = Instant::now() + EMPTYING;
        // The second time for what was on its way when the sockets were detached.
        for _ in 0..2 {
            while self.drain_all(batch, out) && Instant::now() < end {}
            thread::sleep(PAUSE);
        }
        self.drain_all(batch, out);
    }

    /// Answers one batch of each socket; says whether there was any.
    fn drain_all(&self, batch: &mut Batch, out: &mut Vec<u8>) -> bool {
        let mut busy = false;
        for socket in &self.sockets {
            busy |= self.drain(socket, batch, out);
        }
        busy
    }

    /// Answers one batch of a socket; says whether there was any.
    fn drain(&self, socket: &Arc<UdpSocket>, batch: &mut Batch, out: &mut Vec<u8>) -> bool {
        let count = match batch.receive(socket) {
            Ok(count) => count,
            Err(error) => {
                failed(&error);
                return false;
            }
        };
        if count == 0 {
            return false;
        }
        let now = Now::read();
        for index in 0..count {
            let Some((query, peer)) = batch.message(index) else {
                continue;
            };
            let asker = Asker {
                peer,
                transport: Transport::Udp,
                now,
            };
            let mut step = self.door.at_once(query, asker, out);
            // Tasks begin later than queries come in a flood, so they are counted here.
            if step == Step::Wait && self.tasks.len() >= MOST_TASKS {
                step = self.door.too_many(query, asker, out);
            }
            match step {
                Step::Send => batch.reply(index, out),
                Step::Ignore => {}
                Step::Wait => self.wait(socket, query, asker),
            }
        }
        let lost = batch.send(socket);
        if lost > 0 {
            tracing::debug!(lost, "DNS replies could not be sent");
        }
        true
    }

    fn wait(&self, socket: &Arc<UdpSocket>, query: &[u8], asker: Asker) {
        let late = reply_late(
            Arc::clone(&self.door),
            Arc::clone(socket),
            query.to_vec(),
            asker,
        );
        let abort = self.abort.clone();
        let work = async move { abort.run_until_cancelled(late).await };
        self.tasks.spawn_on(work, &self.runtime);
    }
}

fn failed(error: &io::Error) {
    tracing::warn!(%error, "cannot receive DNS queries");
    thread::sleep(PAUSE);
}

async fn reply_late(door: Arc<Door>, socket: Arc<UdpSocket>, query: Vec<u8>, asker: Asker) {
    let Some(reply) = door.eventually(&query, asker).await else {
        return;
    };
    let peer = asker.peer;
    // If it fails the asker asks again, as after any lost datagram.
    for _ in 0..3 {
        match socket.send_to(&reply, peer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                tracing::debug!(%error, %peer, "cannot send a DNS reply");
                return;
            }
            Ok(_) => return,
        }
    }
}
