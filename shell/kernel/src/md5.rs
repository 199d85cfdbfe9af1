//! TCP segments with an MD5 signature (RFC 2385), as BGP peers ask for it.

#![expect(unsafe_code, reason = "the socket option has no safe wrapper")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use socket2::SockAddr;

/// The kernel's `struct tcp_md5sig` (linux/tcp.h).
#[repr(C)]
struct Signature {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: i32,
    key: [u8; libc::TCP_MD5SIG_MAXKEYLEN],
}

/// Segments to and from `peer` are signed with `key` from now on: on a listener those
/// of every connection that this peer opens, on another socket those of the connection
/// that is opened afterwards. Segments without the right signature are dropped by the
/// kernel, so a wrong key looks like a peer that is not there. An empty key ends it.
///
/// # Errors
/// Those of TCP_MD5SIG: EINVAL for a key of more than 80 bytes, ENOENT where there is
/// none to end, ENOPROTOOPT from a kernel without it.
pub fn sign(socket: &impl AsFd, peer: IpAddr, key: &[u8]) -> io::Result<()> {
    let too_long = || io::Error::from_raw_os_error(libc::EINVAL);
    let mut bytes = [0; libc::TCP_MD5SIG_MAXKEYLEN];
    let slot = bytes.get_mut(..key.len()).ok_or_else(too_long)?;
    slot.copy_from_slice(key);
    let peer = SockAddr::from(SocketAddr::new(peer, 0));
    // SAFETY: `sockaddr_storage` is plain data for which all zeroes is a valid value.
    let mut address: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let length = usize::try_from(peer.len()).unwrap_or(0);
    // SAFETY: `peer` holds `length` bytes of an address, which is not more than a
    // `sockaddr_storage` has room for, and the two do not overlap.
    unsafe {
        std::ptr::copy_nonoverlapping(
            peer.as_ptr().cast::<u8>(),
            (&raw mut address).cast::<u8>(),
            length,
        );
    }
    let signature = Signature {
        address,
        flags: 0,
        prefix_length: 0,
        key_length: u16::try_from(key.len()).map_err(|_error| too_long())?,
        interface: 0,
        key: bytes,
    };
    // SAFETY: the value is what the option expects, outlives the call, and its size is
    // given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_MD5SIG,
            (&raw const signature).cast(),
            libc::socklen_t::try_from(size_of::<Signature>()).unwrap_or(libc::socklen_t::MAX),
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
