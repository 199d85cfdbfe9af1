//! A name that one process holds in a network namespace, for others to ask after.
//!
//! It is a listening socket with a name in the abstract Unix namespace, which
//! belongs to the network namespace: it goes with its process, however that ends,
//! and leaves no file. Any user may take any such name, so only a holder of the
//! asker's own user or root counts.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;

use crate::netns::{NetNs, NetNsError};

/// A name that is held. It is free again when this is dropped.
#[derive(Debug)]
pub struct Presence {
    _listener: UnixListener,
}

/// Who holds a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The number of the process; 0 if it cannot be seen from here.
    pub pid: i32,
}

/// Why a name was neither had nor looked up.
#[derive(Debug, thiserror::Error)]
pub enum PresenceError {
    /// The namespace cannot be entered.
    #[error("enter the network namespace to look for another process")]
    NetNs(#[source] NetNsError),
    /// There is no such socket to be had.
    #[error("hold the name {name} in a network namespace")]
    Socket {
        /// The name.
        name: String,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
}

impl Presence {
    /// Takes a name; none if somebody holds it already.
    ///
    /// # Errors
    /// If the namespace cannot be entered or gives no socket.
    pub fn hold(netns: &NetNs, name: &str) -> Result<Option<Self>, PresenceError> {
        let taken = netns.run(|| UnixListener::bind_addr(&address(name)?));
        match taken.map_err(PresenceError::NetNs)? {
            Ok(listener) => Ok(Some(Self {
                _listener: listener,
            })),
            Err(cause) if cause.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(cause) => Err(failed(name, cause)),
        }
    }
}

/// Who holds a name, if somebody who counts does.
///
/// # Errors
/// If the namespace cannot be entered or gives no socket.
pub fn holder(netns: &NetNs, name: &str) -> Result<Option<Holder>, PresenceError> {
    let asked = netns.run(|| UnixStream::connect_addr(&address(name)?));
    let stream = match asked.map_err(PresenceError::NetNs)? {
        Ok(stream) => stream,
        Err(cause) if cause.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        Err(cause) => return Err(failed(name, cause)),
    };
    let who = getsockopt(&stream, PeerCredentials).map_err(|errno| failed(name, errno.into()))?;
    let counts = who.uid() == 0 || who.uid() == geteuid().as_raw();
    Ok(counts.then_some(Holder { pid: who.pid() }))
}

fn address(name: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name)
}

fn failed(name: &str, cause: io::Error) -> PresenceError {
    PresenceError::Socket {
        name: name.to_owned(),
        cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::privileged;

    #[test]
    fn a_name_is_held_once_in_each_namespace_and_free_after_its_holder() {
        if !privileged() {
            return;
        }
        let [here, there] = [(); 2].map(|()| NetNs::create().unwrap());
        let name = "portolan-test-presence";
        assert_eq!(holder(&here, name).unwrap(), None);
        let held = Presence::hold(&here, name).unwrap().unwrap();
        assert!(Presence::hold(&here, name).unwrap().is_none());
        let pid = i32::try_from(std::process::id()).unwrap();
        assert_eq!(holder(&here, name).unwrap(), Some(Holder { pid }));
        assert_eq!(holder(&there, name).unwrap(), None);
        assert!(Presence::hold(&there, name).unwrap().is_some());
        drop(held);
        assert_eq!(holder(&here, name).unwrap(), None);
        assert!(Presence::hold(&here, name).unwrap().is_some());
    }
}
