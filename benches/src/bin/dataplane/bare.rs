//! A netlink socket without anything around it: what the kernel itself takes.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use portolan_kernel::netns::NetNs;

const MESSAGE_ERROR: u16 = 2;

/// The socket.
pub(crate) struct Bare(OwnedFd);

impl Bare {
    /// Opens one in a namespace.
    pub(crate) fn open(netns: &NetNs) -> Result<Self> {
        let open = || {
            socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkNetFilter,
            )
        };
        Ok(Self(netns.run(open)??))
    }

    /// Sends one transaction, which the kernel works off before it returns, and says
    /// how long that took.
    pub(crate) fn commit(&self, bytes: &[u8]) -> Result<Duration> {
        let fd = self.0.as_raw_fd();
        let begin = Instant::now();
        send(fd, bytes, MsgFlags::empty())?;
        let took = begin.elapsed();
        let mut answer = [0; 4096];
        loop {
            let length = match recv(fd, &mut answer, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => return Ok(took),
                other => other?,
            };
            // nlmsghdr: length, type, flags, sequence number, port; then the code.
            let kind = answer.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]]));
            let code = answer
                .get(16..20)
                .map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
            if length >= 20 && kind == Some(MESSAGE_ERROR) && code != 0 {
                bail!(
                    "the kernel refused a bare transaction: {}",
                    Errno::from_raw(-code)
                );
            }
        }
    }
}
