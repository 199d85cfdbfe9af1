//! Packets that rules logged, as they happen: the one listener of a group.

#![expect(
    unsafe_code,
    reason = "an AsyncFd asks to be told that its descriptor lives"
)]

use std::io;

use portolan_nflog::{join, messages};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub use portolan_nflog::{Ends, Logged};

use crate::netns::{NetNs, NetNsError};
use crate::nft::socket::{Answer, Socket, answer};

/// Room for what is not taken yet; more is lost, and counted.
const ROOM: usize = 256 * 1024;

/// Why a group cannot be listened to.
#[derive(Debug, thiserror::Error)]
pub enum NflogError {
    /// No thread could enter the namespace.
    #[error("cannot enter the network namespace to listen for logged packets")]
    Namespace(#[source] NetNsError),
    /// The kernel gave no netlink socket.
    #[error("cannot open a netlink socket for logged packets")]
    Socket(#[source] io::Error),
    /// The kernel does not make us the listener: it has no nfnetlink_log, or somebody
    /// else listens.
    #[error("cannot listen to group {group} of logged packets")]
    Join {
        /// The group.
        group: u16,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
}

/// The listener of one group in one network namespace.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<Socket>,
    /// The number that the next message has.
    next: Option<u32>,
}

/// What was heard at once.
#[derive(Debug, Default)]
pub struct Heard {
    /// Packets.
    pub packets: Vec<Logged>,
    /// How many were lost before them.
    pub lost: u32,
}

impl Listener {
    /// Listens to a group from now on. Within a runtime.
    ///
    /// # Errors
    ///
    /// If the kernel has no such log, or the group has a listener.
    pub fn open(netns: &NetNs, group: u16) -> Result<Self, NflogError> {
        let socket = netns.run(Socket::open).map_err(NflogError::Namespace)?;
        let mut socket = socket.map_err(NflogError::Socket)?;
        socket.hold(ROOM).map_err(NflogError::Socket)?;
        for request in join(group, 1) {
            ask(&mut socket, &request).map_err(|cause| NflogError::Join { group, cause })?;
        }
        // SAFETY: the socket owns its descriptor, gives always the same, and lives in
        // the AsyncFd, as long as that.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self {
            socket: socket.map_err(|error| NflogError::Socket(error.into()))?,
            next: None,
        })
    }

    /// Waits for packets. What was heard is kept by whoever calls: a call that is given
    /// up loses nothing.
    ///
    /// # Errors
    ///
    /// If the socket fails.
    pub async fn hear(&mut self) -> io::Result<Heard> {
        loop {
            let mut ready = self.socket.readable_mut().await?;
            let mut heard = Heard::default();
            match ready.get_inner_mut().receive_now()? {
                Some(buffer) => {
                    for message in messages(buffer) {
                        let Some(logged) = Logged::decode(&message) else {
                            continue;
                        };
                        if let Some(number) = logged.number {
                            let expected = self.next.unwrap_or(number);
                            heard.lost += number.wrapping_sub(expected);
                            self.next = Some(number.wrapping_add(1));
                        }
                        heard.packets.push(logged);
                    }
                }
                None => {
                    ready.clear_ready();
                    continue;
                }
            }
            if !heard.packets.is_empty() {
                return Ok(heard);
            }
        }
    }
}

/// Sends a request and waits for its answer.
fn ask(socket: &mut Socket, request: &[u8]) -> io::Result<()> {
    socket.send(request)?;
    loop {
        let buffer = socket.receive()?;
        for message in messages(buffer) {
            match answer(message.kind, message.body) {
                Some(Answer::Done) => return Ok(()),
                Some(Answer::Failed(error)) => return Err(error),
                None => {}
            }
        }
    }
}
