//! A netlink socket of netfilter, for nftables and for connection tracking.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, getsockopt, recv, send, setsockopt,
    sockopt,
};

/// A dump answers with at most this much at once (the kernel fills what it finds
/// in the reader's last buffer, 32 KiB at most).
const RECEIVE_BYTES: usize = 64 * 1024;

/// Room for the answers: one failed transaction may answer for every operation.
const RECEIVE_ROOM: usize = 4 * 1024 * 1024;

/// What the kernel keeps free in a send buffer for itself (netlink_sendmsg).
const SEND_OVERHEAD: usize = 64;

/// NLMSG_ERROR and NLMSG_DONE.
const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;

/// A netlink socket of the netfilter family, in the namespace where it was opened.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
    /// The longest transaction that the send buffer takes.
    room: usize,
}

/// What a control message says.
pub(crate) enum Answer {
    /// The end of a dump, or an acknowledgement.
    Done,
    /// A request failed.
    Failed(io::Error),
}

/// What a message of this type and body says, if it is a control message.
pub(crate) fn answer(kind: u16, body: &[u8]) -> Option<Answer> {
    if kind != MESSAGE_ERROR && kind != MESSAGE_DONE {
        return None;
    }
    let code = body
        .first_chunk::<4>()
        .map_or(0, |code| i32::from_ne_bytes(*code));
    if code == 0 {
        return Some(Answer::Done);
    }
    Some(Answer::Failed(io::Error::from_raw_os_error(
        code.saturating_neg(),
    )))
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Socket {
    pub(crate) fn open() -> io::Result<Self> {
        let fd = nix::sys::socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        let mut socket = Self {
            fd,
            buffer: vec![0; RECEIVE_BYTES],
            room: 0,
        };
        if setsockopt(&socket.fd, sockopt::RcvBufForce, &RECEIVE_ROOM).is_err() {
            setsockopt(&socket.fd, sockopt::RcvBuf, &RECEIVE_ROOM)?;
        }
        socket.measure()?;
        Ok(socket)
    }

    /// Keep so much room for answers, and no more.
    pub(crate) fn hold(&self, bytes: usize) -> io::Result<()> {
        Ok(setsockopt(&self.fd, sockopt::RcvBuf, &bytes)?)
    }

    fn measure(&mut self) -> io::Result<()> {
        let size = getsockopt(&self.fd.as_fd(), sockopt::SndBuf)?;
        self.room = size.saturating_sub(SEND_OVERHEAD);
        Ok(())
    }

    /// The longest transaction that can be sent.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// Make the send buffer take this many bytes, if that is allowed.
    pub(crate) fn make_room(&mut self, bytes: usize) {
        if bytes > self.room {
            let wanted = bytes + SEND_OVERHEAD;
            // Without the capability the size is silently cut to net.core.wmem_max;
            // what is really there is measured, whatever became of both.
            let set = setsockopt(&self.fd, sockopt::SndBufForce, &wanted)
                .or_else(|_| setsockopt(&self.fd, sockopt::SndBuf, &wanted));
            if set.is_ok() && self.measure().is_err() {
                self.room = 0;
            }
        }
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // Netlink takes a message whole or not at all.
        retry(|| send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()))?;
        Ok(())
    }

    /// Wait for the next answer.
    pub(crate) fn receive(&mut self) -> io::Result<&[u8]> {
        let fd = self.fd.as_raw_fd();
        let len = retry(|| recv(fd, &mut self.buffer, MsgFlags::empty()))?;
        Ok(self.buffer.get(..len).unwrap_or(&[]))
    }

    /// The next answer, if there is one. That answers were lost for want of room is
    /// no failure: those before are kept, and one is enough to know of a failure.
    pub(crate) fn receive_now(&mut self) -> io::Result<Option<&[u8]>> {
        let fd = self.fd.as_raw_fd();
        loop {
            match recv(fd, &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => return Ok(self.buffer.get(..len)),
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR | Errno::ENOBUFS) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Throw away answers to what nobody waits for any more.
    pub(crate) fn drain(&mut self) {
        while matches!(self.receive_now(), Ok(Some(_))) {}
    }
}
