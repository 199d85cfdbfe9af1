//! Sockets that one process passes on to the next, under a name.
//!
//! A socket that two processes hold is one socket with one queue: nothing that has
//! arrived is lost when the first one ends. The name is of the abstract Unix
//! namespace, as in [`presence`](crate::presence), and the socket behind it is passed
//! on too, so that the name goes with the last process that holds it. Any user may
//! take any such name or ask for it, so only processes of one's own user or of root
//! are given to and taken from.

#![expect(unsafe_code, reason = "descriptors arrive as numbers")]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, getsockopt, recvmsg, sendmsg,
    sockopt::PeerCredentials,
};
use nix::unistd::geteuid;

/// The most descriptors that are passed at once.
pub const MOST: usize = 64;
/// How long an answer may take: the other side gives at once, or is stuck.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was passed.
#[derive(Debug)]
pub struct Passed {
    /// The descriptors, in the order in which they were given.
    pub descriptors: Vec<OwnedFd>,
    /// Open for as long as either process wants the other to know that it lives.
    pub line: UnixStream,
}

/// Takes a name, in the network namespace of the calling thread; none if somebody has
/// it.
///
/// # Errors
/// If the kernel gives no such socket.
pub fn offer(name: &str) -> io::Result<Option<UnixListener>> {
    match UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(error),
    }
}

/// Asks whoever has a name for its descriptors, in the network namespace of the calling
/// thread; none if nobody has it who counts.
///
/// # Errors
/// If whoever has it does not answer, or not in this way.
pub fn ask(name: &str) -> io::Result<Option<Passed>> {
    let line = match UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?) {
        Ok(line) => line,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        Err(error) => return Err(error),
    };
    if !trusted(&line)? {
        return Ok(None);
    }
    line.set_read_timeout(Some(PATIENCE))?;
    let mut mark = [0];
    let mut beside = nix::cmsg_space!([i32; MOST]);
    let mut descriptors = Vec::new();
    let length = {
        let mut parts = [IoSliceMut::new(&mut mark)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(line.as_raw_fd(), &mut parts, Some(&mut beside), flags)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                for number in numbers {
                    // SAFETY: the kernel has just made this descriptor for us.
                    descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
                }
            }
        }
        message.bytes
    };
    if length == 0 {
        // It ended just now.
        return Ok(None);
    }
    line.set_read_timeout(None)?;
    Ok(Some(Passed { descriptors, line }))
}

/// Gives descriptors to whoever has asked, without waiting; says whether it is somebody
/// who counts.
///
/// # Errors
/// If there is no room, or nobody there any more.
pub fn give(line: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<bool> {
    if !trusted(line)? {
        return Ok(false);
    }
    let numbers: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let beside = [ControlMessage::ScmRights(&numbers)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(
        line.as_raw_fd(),
        &[IoSlice::new(&[0])],
        &beside,
        flags,
        None,
    )?;
    Ok(true)
}

/// Whether the user at the other end counts. Of a name that was passed on, that is the
/// one who took it first, whose process may have ended.
fn trusted(line: &impl AsFd) -> io::Result<bool> {
    let who = getsockopt(line, PeerCredentials)?;
    Ok(who.uid() == 0 || who.uid() == geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_socket_that_was_passed_on_is_the_same_socket() {
        let name = format!("portolan-test-passing-{}", std::process::id());
        assert!(ask(&name).unwrap().is_none(), "nobody is there");
        let first = offer(&name).unwrap().unwrap();
        assert!(offer(&name).unwrap().is_none(), "it is taken");

        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"before", at).unwrap();
        let asked = std::thread::spawn({
            let name = name.clone();
            move || ask(&name).unwrap().unwrap()
        });
        let (line, _) = first.accept().unwrap();
        assert!(give(&line, &[socket.as_fd(), first.as_fd()]).unwrap());
        let mut passed = asked.join().unwrap();
        drop((socket, first, line));

        // The queue and the name have outlived who had them first.
        let second = UnixListener::from(passed.descriptors.pop().unwrap());
        let socket = UdpSocket::from(passed.descriptors.pop().unwrap());
        client.send_to(b"after", at).unwrap();
        let mut buffer = [0; 16];
        for expected in [&b"before"[..], b"after"] {
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(buffer.get(..length), Some(expected));
        }
        assert!(offer(&name).unwrap().is_none());
        drop(second);
        assert!(ask(&name).unwrap().is_none());
        assert!(offer(&name).unwrap().is_some());
    }
}
