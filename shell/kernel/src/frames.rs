//! Frames of one link: a packet socket that hears ARP and neighbour discovery, and
//! nothing else.
//!
//! The kernel drops everything else before it is copied (a classic BPF program), our own
//! frames too, and frames of a VLAN: their tag is no longer in the frame when it
//! arrives, and they are of another link.
//!
//! IPv6 groups are joined by sockets of IPv6, not of packets: so the kernel tells
//! switches that look for it (MLD), besides letting the frames in. One socket takes as
//! many as its share of memory holds (net.core.optmem_max: some hundred, or thousands
//! where the kernel is newer), so there is another where one is full.

#![expect(
    unsafe_code,
    reason = "packet sockets are bound with an address that no safe wrapper makes, and an AsyncFd asks to be told that its descriptor lives"
)]

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::link::LinkIndex;
use crate::netns::{NetNs, NetNsError};

/// Why frames of a link cannot be heard.
#[derive(Debug, thiserror::Error)]
pub enum FramesError {
    /// The network namespace could not be entered.
    #[error("cannot enter the network namespace of a link")]
    Namespace(#[source] NetNsError),
    /// The kernel refused a step.
    #[error("cannot {step} for the frames of link {link}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// The link.
        link: LinkIndex,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
}

/// A packet socket on one link. It never blocks.
#[derive(Debug)]
pub struct Frames {
    socket: Socket,
    groups: Mutex<Vec<Groups>>,
    ns: NetNs,
    link: LinkIndex,
}

/// A socket of IPv6, and the groups that it is in.
#[derive(Debug)]
struct Groups {
    socket: Socket,
    joined: BTreeSet<Ipv6Addr>,
}

impl Groups {
    fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        let joined = BTreeSet::new();
        Ok(Self { socket, joined })
    }

    fn join(&mut self, group: Ipv6Addr, link: LinkIndex) -> io::Result<()> {
        self.socket.join_multicast_v6(&group, link.0)?;
        self.joined.insert(group);
        Ok(())
    }
}

// Classic BPF, as linux/bpf_common.h has it.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const AND: u16 = 0x54;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Where the kernel shows what is known of a frame beside its bytes (SKF_AD_OFF).
const BESIDE: u32 = 0xffff_f000;
const WHOLE: u32 = 0x0004_0000;

/// Lets ARP, and IPv6 with a neighbour solicitation or advertisement, pass.
const FILTER: [SockFilter; 14] = [
    // A VLAN other than 0 (priority only)?
    SockFilter::new(
        LOAD_WORD,
        0,
        0,
        BESIDE + libc::SKF_AD_VLAN_TAG.cast_unsigned(),
    ),
    SockFilter::new(AND, 0, 0, 0x0fff),
    SockFilter::new(JUMP_EQUAL, 0, 10, 0),
    // The EtherType: ARP, or IPv6?
    SockFilter::new(LOAD_HALF, 0, 0, 12),
    SockFilter::new(JUMP_EQUAL, 7, 0, 0x0806),
    SockFilter::new(JUMP_EQUAL, 0, 7, 0x86dd),
    // The next header: ICMPv6, and its type?
    SockFilter::new(LOAD_BYTE, 0, 0, 20),
    SockFilter::new(JUMP_EQUAL, 0, 5, 58),
    SockFilter::new(LOAD_BYTE, 0, 0, 54),
    SockFilter::new(JUMP_EQUAL, 2, 0, 135),
    SockFilter::new(JUMP_EQUAL, 1, 0, 136),
    SockFilter::new(RETURN, 0, 0, 0),
    SockFilter::new(RETURN, 0, 0, WHOLE),
    SockFilter::new(RETURN, 0, 0, 0),
];

impl Frames {
    /// Hears the frames of a link from now on. Needs CAP_NET_RAW.
    ///
    /// # Errors
    /// [`FramesError`], if the namespace cannot be entered or a socket is refused.
    pub fn open(ns: &NetNs, link: LinkIndex) -> Result<Self, FramesError> {
        ns.run(|| Self::open_here(ns, link))
            .map_err(FramesError::Namespace)?
    }

    fn open_here(ns: &NetNs, link: LinkIndex) -> Result<Self, FramesError> {
        let refused = |step| move |cause| FramesError::Refused { step, link, cause };
        // Of no protocol before it is bound: nothing comes in without the filter.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)
            .map_err(refused("open a packet socket"))?;
        socket
            .attach_filter(&FILTER)
            .map_err(refused("attach a filter"))?;
        ignore_outgoing(&socket).map_err(refused("leave our own frames out"))?;
        bind(&socket, link).map_err(refused("bind a packet socket"))?;
        socket
            .set_nonblocking(true)
            .map_err(refused("make a packet socket that never blocks"))?;
        let groups = Groups::open().map_err(refused("open a socket of IPv6"))?;
        Ok(Self {
            socket,
            groups: Mutex::new(vec![groups]),
            ns: ns.clone(),
            link,
        })
    }

    /// The next frame, cut to the buffer; `None` if there is none.
    ///
    /// # Errors
    /// Those of recv(2), such as ENETDOWN while the link is down.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match io::Read::read(&mut &self.socket, buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a frame, its Ethernet header included.
    ///
    /// # Errors
    /// Those of send(2); a queue that is full is one.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// Hears an IPv6 group on the link. Hearing it already is success.
    ///
    /// # Errors
    /// Those of IPV6_ADD_MEMBERSHIP, of a socket that no other group fills.
    pub fn join(&self, group: Ipv6Addr) -> io::Result<()> {
        let mut groups = self.groups();
        if groups.iter().any(|one| one.joined.contains(&group)) {
            return Ok(());
        }
        // Earlier ones may have room again, but to ask them all costs their number.
        if let Some(last) = groups.last_mut() {
            match last.join(group, self.link) {
                Err(error) if is_full(&error) && !last.joined.is_empty() => {}
                answer => return answer,
            }
        }
        let opened = self.ns.run(Groups::open).map_err(io::Error::other)?;
        let mut another = opened?;
        another.join(group, self.link)?;
        groups.push(another);
        Ok(())
    }

    /// Leaves an IPv6 group. Not being in it is success.
    ///
    /// # Errors
    /// Those of IPV6_DROP_MEMBERSHIP.
    pub fn leave(&self, group: Ipv6Addr) -> io::Result<()> {
        let mut groups = self.groups();
        let Some(at) = groups.iter().position(|one| one.joined.contains(&group)) else {
            return Ok(());
        };
        let Some(one) = groups.get_mut(at) else {
            return Ok(());
        };
        one.joined.remove(&group);
        let left = one.socket.leave_multicast_v6(&group, self.link.0);
        if one.joined.is_empty() && groups.len() > 1 {
            groups.remove(at);
        }
        match left {
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            answer => answer,
        }
    }

    fn groups(&self) -> MutexGuard<'_, Vec<Groups>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a socket has no room for another group.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::ENOBUFS))
}

impl AsFd for Frames {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Frames {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Frames of a link that are waited for.
#[derive(Debug)]
pub struct AwaitedFrames {
    frames: AsyncFd<Frames>,
}

impl AwaitedFrames {
    /// Waits on these. It must be made within a runtime.
    ///
    /// # Errors
    /// If the runtime cannot watch the socket.
    pub fn new(frames: Frames) -> io::Result<Self> {
        // SAFETY: the socket is owned by the `Frames`, and these by the AsyncFd, so the
        // descriptor lives as long as that, and stays the same.
        let frames = unsafe { AsyncFd::register_with_interest(frames, Interest::READABLE) };
        Ok(Self { frames: frames? })
    }

    /// The next frame, cut to the buffer. Nothing is lost if it is given up.
    ///
    /// # Errors
    /// Those of recv(2), such as ENETDOWN while the link is down.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.frames.readable().await?;
            match self.frames.get_ref().receive(buffer)? {
                Some(length) => return Ok(length),
                None => ready.clear_ready(),
            }
        }
    }

    /// The frames, to send and to join groups.
    #[must_use]
    pub fn frames(&self) -> &Frames {
        self.frames.get_ref()
    }
}

fn ignore_outgoing(socket: &Socket) -> io::Result<()> {
    let yes: libc::c_int = 1;
    // SAFETY: the value is an int that outlives the call, and its size is given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            (&raw const yes).cast(),
            length_of::<libc::c_int>(),
        )
    };
    result(done)
}

fn bind(socket: &Socket, link: LinkIndex) -> io::Result<()> {
    // SAFETY: `sockaddr_ll` is plain data for which all zeroes is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::c_ushort::try_from(libc::AF_PACKET).unwrap_or_default();
    let all = u16::try_from(libc::ETH_P_ALL).unwrap_or_default();
    address.sll_protocol = all.to_be();
    address.sll_ifindex = link.0.cast_signed();
    // SAFETY: the address is a `sockaddr_ll` that outlives the call, and its size is
    // given.
    let done = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            length_of::<libc::sockaddr_ll>(),
        )
    };
    result(done)
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(libc::socklen_t::MAX)
}

fn result(done: libc::c_int) -> io::Result<()> {
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
