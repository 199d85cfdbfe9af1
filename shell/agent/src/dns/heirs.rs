//! From one process to the next without a lost query: the new one asks the old one
//! for its sockets, and both answer until the old one ends.
//!
//! ```text
//! old                                    new
//! listens as portolan/dns/<address>  ◄── asks, before it binds
//! gives UDP, TCP and this listener   ──► holds the same sockets, with their queues
//!                                    ◄── "I answer"
//! SIGTERM: waits for that, finishes      …until this one is asked in turn
//! ```
//!
//! What has arrived stays in the queues, whoever ends, since the sockets do not close.
//! Where processes cannot reach each other (SELinux keeps containers apart), the new
//! one binds sockets beside the old ones (SO_REUSEPORT), and the old one takes its own
//! out of the kernel's choice before it empties and closes them.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use portolan_kernel::datagrams::wait;
use portolan_kernel::passing;
use socket2::{SockRef, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What an heir says when it answers.
const ANSWERS: u8 = b'A';
/// The pause after an error, so that a lasting one does not spin.
const PAUSE: Duration = Duration::from_millis(50);
/// How long names are answered after SIGTERM while no other process does.
const GRACE: Duration = Duration::from_secs(3);

/// How a server leaves.
#[derive(Debug, Clone, Default)]
pub struct HandOver {
    /// How long it waits for another process that answers.
    pub grace: Duration,
    /// Makes it wait no longer.
    pub hurry: CancellationToken,
}

impl HandOver {
    /// As it is usual for a process: some seconds, unless somebody hurries.
    pub fn usual() -> Self {
        Self {
            grace: GRACE,
            ..Self::default()
        }
    }
}

/// What another process has passed on of one address.
pub(super) struct Taken {
    pub(super) udp: Vec<UdpSocket>,
    pub(super) tcp: TcpListener,
    pub(super) offer: UnixListener,
    /// Where it is told that we answer.
    pub(super) line: UnixStream,
}

/// The name under which the sockets of an address are passed on.
fn name(address: SocketAddr) -> String {
    format!("portolan/dns/{address}")
}

/// Asks for the sockets of an address, in the network namespace of the calling thread;
/// none if nobody has any to pass on.
pub(super) fn take(address: SocketAddr) -> Option<Taken> {
    match passing::ask(&name(address)) {
        Ok(Some(passed)) => {
            let taken = sort(address, passed);
            if taken.is_some() {
                tracing::info!(%address, "the sockets of another process are shared");
            } else {
                tracing::warn!(%address, "another process passes on what is not understood");
            }
            taken
        }
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(%address, %error, "another process does not pass its sockets on");
            None
        }
    }
}

/// The sockets, if they are what they should be.
fn sort(address: SocketAddr, passed: passing::Passed) -> Option<Taken> {
    let mut descriptors = passed.descriptors;
    let offer = UnixListener::from(descriptors.pop()?);
    let tcp = descriptors.pop()?;
    let is = |socket: &OwnedFd, kind| {
        let socket = SockRef::from(socket);
        let bound = socket.local_addr().ok();
        let bound = bound.and_then(|bound| bound.as_socket());
        bound == Some(address) && socket.r#type().is_ok_and(|found| found == kind)
    };
    let sound = is(&tcp, Type::STREAM)
        && !descriptors.is_empty()
        && descriptors.iter().all(|udp| is(udp, Type::DGRAM));
    sound.then(|| Taken {
        udp: descriptors.into_iter().map(UdpSocket::from).collect(),
        tcp: tcp.into(),
        offer,
        line: passed.line,
    })
}

/// Where others may ask for the sockets of an address; none if that cannot be had.
pub(super) fn offer(address: SocketAddr) -> Option<UnixListener> {
    match passing::offer(&name(address)) {
        Ok(offer) => offer,
        Err(error) => {
            tracing::debug!(%address, %error, "sockets cannot be passed on");
            None
        }
    }
}

/// What a server has to give of one address.
pub(super) struct Estate {
    offer: UnixListener,
    /// Sockets for datagrams, the one for streams, and `offer`.
    descriptors: Vec<OwnedFd>,
    /// The number of the address among those of the server.
    index: usize,
}

impl Estate {
    pub(super) fn new(
        index: usize,
        offer: UnixListener,
        udp: &[&UdpSocket],
        tcp: &TcpListener,
    ) -> io::Result<Self> {
        offer.set_nonblocking(true)?;
        let sockets = udp.iter().map(|socket| socket.as_fd());
        let all = sockets.chain([tcp.as_fd(), offer.as_fd()]);
        let descriptors = all.map(|one| one.try_clone_to_owned());
        Ok(Self {
            descriptors: descriptors.collect::<io::Result<_>>()?,
            offer,
            index,
        })
    }
}

/// Who has the sockets of a server beside it.
pub(super) struct Heirs {
    /// Processes that said that they answer, and have not ended.
    answering: watch::Sender<usize>,
    /// By address: another process has, or had, the same sockets.
    shared: Vec<AtomicBool>,
}

impl Heirs {
    /// For each address: whether its sockets came from another process.
    pub(super) fn new(taken: impl IntoIterator<Item = bool>) -> Self {
        Self {
            answering: watch::Sender::new(0),
            shared: taken.into_iter().map(AtomicBool::new).collect(),
        }
    }

    /// Whether another process answers by the same sockets.
    pub(super) fn is_answering(&self) -> bool {
        *self.answering.borrow() > 0
    }

    /// Whether the sockets of an address are this process's alone.
    pub(super) fn are_own(&self, index: usize) -> bool {
        let shared = self.shared.get(index);
        shared.is_some_and(|shared| !shared.load(Ordering::Acquire))
    }

    /// Waits for another process that answers, but not for ever.
    pub(super) async fn wait(&self, hand_over: &HandOver) {
        if hand_over.grace.is_zero() || hand_over.hurry.is_cancelled() {
            return;
        }
        let mut answering = self.answering.subscribe();
        if *answering.borrow() == 0 {
            let most = hand_over.grace.as_secs_f32();
            tracing::info!(most, "names are still answered, until another process does");
        }
        tokio::select! {
            found = answering.wait_for(|count| *count > 0) => {
                if found.is_ok() {
                    tracing::info!("another process answers");
                }
            }
            () = tokio::time::sleep(hand_over.grace) => {}
            () = hand_over.hurry.cancelled() => {}
        }
    }

    /// Gives to whoever asks, on a thread of its own, until `stop`: who asks may be
    /// waiting on a thread of the runtime.
    pub(super) fn start(
        self: &Arc<Self>,
        estates: Vec<Estate>,
        (tasks, stop): (&TaskTracker, &CancellationToken),
    ) -> io::Result<()> {
        if estates.is_empty() {
            return Ok(());
        }
        let (running, stopped) = UnixStream::pair()?;
        let giver = Giver {
            heirs: Arc::clone(self),
            runtime: Handle::current(),
            stop: stop.clone(),
            estates,
            stopped,
        };
        let thread = thread::Builder::new()
            .name("dns-heirs".to_owned())
            .spawn(move || giver.run())?;
        let stop = stop.clone();
        tasks.spawn(async move {
            stop.cancelled().await;
            drop(running);
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the thread that passes sockets on panicked");
            }
        });
        Ok(())
    }

    /// Counts one that says that it answers, until it ends.
    async fn follow(&self, line: UnixStream) -> io::Result<()> {
        line.set_nonblocking(true)?;
        let mut line = tokio::net::UnixStream::from_std(line)?;
        if line.read_u8().await? != ANSWERS {
            return Ok(());
        }
        self.answering.send_modify(|count| *count += 1);
        let ended = line.read_u8().await;
        self.answering.send_modify(|count| *count -= 1);
        ended.map(|_| ())
    }
}

/// The thread that gives.
struct Giver {
    heirs: Arc<Heirs>,
    estates: Vec<Estate>,
    runtime: Handle,
    /// Closed at its other end when the thread is to end.
    stopped: UnixStream,
    stop: CancellationToken,
}

impl Giver {
    fn run(self) {
        let offers: Vec<&UnixListener> = self.estates.iter().map(|one| &one.offer).collect();
        loop {
            match wait(&offers, &self.stopped) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, "sockets are not passed on");
                    thread::sleep(PAUSE);
                }
            }
            for estate in &self.estates {
                match estate.offer.accept() {
                    Ok((line, _)) => self.give(estate, line),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => {
                        tracing::warn!(%error, "sockets are not passed on");
                        thread::sleep(PAUSE);
                    }
                }
            }
        }
    }

    fn give(&self, estate: &Estate, line: UnixStream) {
        if let Some(shared) = self.heirs.shared.get(estate.index) {
            shared.store(true, Ordering::Release);
        }
        let descriptors: Vec<BorrowedFd<'_>> = estate.descriptors.iter().map(AsFd::as_fd).collect();
        match passing::give(&line, &descriptors) {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!("a process of another user asked for the DNS sockets");
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "whoever asked for the DNS sockets has gone");
                return;
            }
        }
        let (heirs, stop) = (Arc::clone(&self.heirs), self.stop.clone());
        let follow = async move {
            // Its end is an error of the line.
            drop(stop.run_until_cancelled(heirs.follow(line)).await);
        };
        self.runtime.spawn(follow);
    }
}

/// The lines to those whose sockets were taken.
pub(super) fn lines(before: Vec<UnixStream>) -> io::Result<Vec<tokio::net::UnixStream>> {
    let line = |line: UnixStream| {
        line.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(line)
    };
    before.into_iter().map(line).collect()
}

/// Waits until all of them have ended.
pub(super) async fn ended(lines: &mut [tokio::net::UnixStream]) {
    for line in lines {
        // They say nothing: what comes is the end.
        drop(line.read_u8().await);
    }
}

/// Tells them that they have an heir who answers.
pub(super) async fn answer(lines: &mut [tokio::net::UnixStream]) {
    for line in lines {
        if let Err(error) = line.write_u8(ANSWERS).await {
            tracing::debug!(%error, "the process before this one has ended");
        }
    }
}

/// Takes a socket out of the kernel's choice among those of its address, so that
/// nothing more arrives in its queue: one that is connected gets its peer's datagrams
/// only (Linux 5.4). What is in the queue stays, and others can be sent to.
pub(super) fn detach(socket: &UdpSocket) {
    let Ok(own) = socket.local_addr() else { return };
    // Connecting would give it an address, from which replies would leave.
    if own.ip().is_unspecified() {
        return;
    }
    // Nobody sends from the port "discard" of this machine's own address.
    if let Err(error) = socket.connect(SocketAddr::new(own.ip(), 9)) {
        tracing::debug!(%error, "a DNS socket is closed without being emptied first");
    }
}
