//! Datagrams by the batch: one system call receives what has arrived and one sends
//! all replies, since at hundreds of thousands of datagrams per second the calls
//! cost more than the work in between.

#![expect(
    unsafe_code,
    reason = "recvmmsg and sendmmsg take structures that point into buffers"
)]

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use libc::{c_uint, iovec, mmsghdr, msghdr, sockaddr_in, sockaddr_in6, sockaddr_storage};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Room for received datagrams, and for the replies to them.
pub struct Batch {
    /// `longest` octets for each datagram.
    inbox: Vec<u8>,
    longest: usize,
    arrived: Vec<Arrived>,
    /// Replies, one behind the other.
    outbox: Vec<u8>,
    replies: Vec<Reply>,
    peers: Box<[sockaddr_storage]>,
    headers: Box<[mmsghdr]>,
    pieces: Box<[iovec]>,
}

// SAFETY: the raw pointers in `headers` and `pieces` are set anew before each call
// and never followed outside it.
unsafe impl Send for Batch {}

#[derive(Clone, Copy)]
struct Arrived {
    length: usize,
    cut: bool,
}

struct Reply {
    to: usize,
    range: Range<usize>,
}

fn zeroed<T: Copy>() -> T {
    // SAFETY: only used for C structures of numbers and pointers, for which zero is
    // a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

impl Batch {
    /// Room for `count` datagrams of at most `longest` octets. Replies may be longer.
    pub fn new(count: usize, longest: usize) -> Self {
        Self {
            inbox: vec![0; count * longest],
            longest,
            arrived: Vec::with_capacity(count),
            outbox: Vec::with_capacity(count * longest),
            replies: Vec::with_capacity(count),
            peers: vec![zeroed(); count].into_boxed_slice(),
            headers: vec![zeroed(); count].into_boxed_slice(),
            pieces: vec![zeroed(); count].into_boxed_slice(),
        }
    }

    /// Takes what has arrived at the socket, without waiting. Replies that were not
    /// sent are forgotten.
    ///
    /// # Errors
    /// Those of recvmmsg(2); nothing having arrived is none.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.arrived.clear();
        self.replies.clear();
        self.outbox.clear();
        let room = self.headers.len();
        let slots = self.inbox.chunks_exact_mut(self.longest);
        let parts = self.headers.iter_mut().zip(self.pieces.iter_mut());
        for ((slot, peer), (header, piece)) in slots.zip(self.peers.iter_mut()).zip(parts) {
            piece.iov_base = slot.as_mut_ptr().cast();
            piece.iov_len = slot.len();
            header.msg_hdr = message(peer, size_of::<sockaddr_storage>(), piece);
        }
        // SAFETY: each of the `room` headers points to its own slot, address and piece,
        // which live until after the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                c_uint::try_from(room).unwrap_or(c_uint::MAX),
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            let nothing = [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted];
            return if nothing.contains(&error.kind()) {
                Ok(0)
            } else {
                Err(error)
            };
        };
        for header in self.headers.iter().take(count) {
            self.arrived.push(Arrived {
                length: (header.msg_len as usize).min(self.longest),
                cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            });
        }
        Ok(count)
    }

    /// The datagram number `index` of those that arrived, and who sent it; none if it
    /// was longer than there is room for, or of no address of ours.
    pub fn message(&self, index: usize) -> Option<(&[u8], SocketAddr)> {
        let arrived = self.arrived.get(index).filter(|arrived| !arrived.cut)?;
        let start = index * self.longest;
        let bytes = self.inbox.get(start..start + arrived.length)?;
        Some((bytes, peer(self.peers.get(index)?)?))
    }

    /// Keeps a reply to datagram number `index`.
    pub fn reply(&mut self, index: usize, bytes: &[u8]) {
        if index >= self.arrived.len() || self.replies.len() >= self.headers.len() {
            return;
        }
        let start = self.outbox.len();
        self.outbox.extend_from_slice(bytes);
        self.replies.push(Reply {
            to: index,
            range: start..self.outbox.len(),
        });
    }

    /// Sends the replies that were kept; those that the kernel does not take are
    /// lost, as datagrams may be. Says how many were.
    pub fn send(&mut self, socket: &UdpSocket) -> usize {
        let parts = self.headers.iter_mut().zip(self.pieces.iter_mut());
        for (reply, (header, piece)) in self.replies.iter().zip(parts) {
            let (Some(bytes), Some(peer)) = (
                self.outbox.get_mut(reply.range.clone()),
                self.peers.get_mut(reply.to),
            ) else {
                continue;
            };
            piece.iov_base = bytes.as_mut_ptr().cast();
            piece.iov_len = bytes.len();
            header.msg_hdr = message(peer, address_length(peer), piece);
        }
        let (mut from, mut lost) = (0, 0);
        while from < self.replies.len() {
            let rest = self.replies.len() - from;
            let Some(headers) = self.headers.get_mut(from..from + rest) else {
                break;
            };
            // SAFETY: as in `receive`; the headers of all replies were just set.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr(),
                    c_uint::try_from(rest).unwrap_or(c_uint::MAX),
                    libc::MSG_DONTWAIT,
                )
            };
            // An error is about the first one: go on after it.
            match usize::try_from(sent) {
                Ok(sent) if sent > 0 => from += sent,
                Ok(_) | Err(_) => {
                    lost += 1;
                    from += 1;
                }
            }
        }
        self.replies.clear();
        self.outbox.clear();
        lost
    }
}

/// Waits until one of the sockets has something, or `stop` is closed at its other
/// end; says whether to go on.
///
/// # Errors
/// Those of poll(2).
pub fn wait(sockets: &[impl AsFd], stop: &impl AsFd) -> io::Result<bool> {
    let mut all: [PollFd<'_>; MOST_WAITED] =
        std::array::from_fn(|_| PollFd::new(stop.as_fd(), PollFlags::POLLIN));
    let mut count = 1;
    for (place, socket) in all.iter_mut().skip(1).zip(sockets) {
        *place = PollFd::new(socket.as_fd(), PollFlags::POLLIN);
        count += 1;
    }
    let all = all.get_mut(..count).unwrap_or_default();
    match poll(all, PollTimeout::NONE) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let stopped = all
        .first()
        .and_then(PollFd::revents)
        .is_some_and(|events| !events.is_empty());
    Ok(!stopped)
}

/// The most that [`wait`] looks at: `stop`, and sockets.
const MOST_WAITED: usize = 17;

fn message(peer: &mut sockaddr_storage, length: usize, piece: &mut iovec) -> msghdr {
    let mut header: msghdr = zeroed();
    header.msg_name = std::ptr::from_mut(peer).cast();
    header.msg_namelen = u32::try_from(length).unwrap_or(0);
    header.msg_iov = piece;
    header.msg_iovlen = 1;
    header
}

fn address_length(peer: &sockaddr_storage) -> usize {
    if i32::from(peer.ss_family) == libc::AF_INET {
        size_of::<sockaddr_in>()
    } else {
        size_of::<sockaddr_in6>()
    }
}

fn peer(storage: &sockaddr_storage) -> Option<SocketAddr> {
    let at = std::ptr::from_ref(storage);
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says so, and the storage is larger and aligned for all.
            let v4 = unsafe { &*at.cast::<sockaddr_in>() };
            let address = IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)));
            Some(SocketAddr::new(address, u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*at.cast::<sockaddr_in6>() };
            let address = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Some(SocketAddrV6::new(address, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::unix::net::UnixStream;

    use super::{Batch, wait};

    fn pair(at: &str) -> (UdpSocket, UdpSocket) {
        let (server, client) = (UdpSocket::bind(at).unwrap(), UdpSocket::bind(at).unwrap());
        client.connect(server.local_addr().unwrap()).unwrap();
        (server, client)
    }

    #[test]
    fn datagrams_are_taken_and_answered_by_the_batch() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let (server, client) = pair(at);
            let (stop, running) = UnixStream::pair().unwrap();
            let sockets = [server];
            let mut batch = Batch::new(4, 64);
            assert_eq!(batch.receive(&sockets[0]).unwrap(), 0, "nothing yet");
            for number in 0..6_u8 {
                client
                    .send(&vec![number; usize::from(number) * 20])
                    .unwrap();
            }
            let mut seen = Vec::new();
            while seen.len() < 6 {
                assert!(wait(&sockets, &stop).unwrap());
                let count = batch.receive(&sockets[0]).unwrap();
                assert!(count <= 4);
                for index in 0..count {
                    let message = batch.message(index).map(|(bytes, peer)| {
                        assert_eq!(peer, client.local_addr().unwrap());
                        bytes.to_vec()
                    });
                    if let Some(bytes) = &message {
                        batch.reply(index, &[bytes, &b"!"[..]].concat());
                    }
                    seen.push(message.map(|bytes| bytes.len()));
                }
                assert_eq!(batch.message(count).map(|(bytes, _)| bytes.len()), None);
                assert_eq!(batch.send(&sockets[0]), 0, "none is lost");
            }
            // What is longer than 64 octets is not looked at.
            let expected = [Some(0), Some(20), Some(40), Some(60), None, None];
            assert_eq!(seen, expected);
            let mut reply = [0; 128];
            for number in 0..4 {
                let length = client.recv(&mut reply).unwrap();
                assert_eq!((length, reply[length - 1]), (number * 20 + 1, b'!'));
            }
            drop(running);
            assert!(!wait(&sockets, &stop).unwrap(), "told to stop");
        }
    }
}
