//! Network namespaces as values.
//!
//! A [`NetNs`] is an open file descriptor of a namespace: the namespace lives as
//! long as somebody holds one (or runs in it), and needs no name in the file
//! system. Work inside a namespace is done by a thread of its own that enters
//! it and ends, because a thread of the async runtime that changed its
//! namespace would take unrelated tasks along. A socket stays where it was
//! opened, so one short visit is all that a long-lived handle needs.
//!
//! Absent on purpose: a list of namespaces, and entering for good.

#![expect(unsafe_code, reason = "one ioctl on a zeroed C struct brings lo up")]

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    os::unix::fs::MetadataExt,
    panic,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

/// Where a thread finds its own network namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace, held open. Clones share the descriptor.
#[derive(Clone, Debug)]
pub struct NetNs {
    file: Arc<File>,
    inode: u64,
}

/// Why a network namespace could not be made, found or entered.
#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    /// The file that stands for the namespace could not be opened.
    #[error("cannot open the network namespace {}", path.display())]
    Open {
        /// The file, under `/proc` or wherever it is mounted.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// The kernel refused a new namespace.
    #[error("cannot create a network namespace")]
    Create(#[source] io::Error),
    /// The kernel refused to let a thread in.
    #[error("cannot enter the network namespace with inode {inode}")]
    Enter {
        /// Which namespace.
        inode: u64,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// No thread could be started for the visit.
    #[error("cannot start a thread for work in a network namespace")]
    Thread(#[source] io::Error),
    /// The loopback device of a new namespace could not be brought up.
    #[error("cannot bring up lo in a new network namespace")]
    Loopback(#[source] io::Error),
}

impl NetNs {
    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, NetNsError> {
        Self::open(Path::new(OWN))
    }

    /// The namespace of the process `pid`, as seen in this PID namespace.
    pub fn from_pid(pid: u32) -> Result<Self, NetNsError> {
        Self::open(&PathBuf::from(format!("/proc/{pid}/ns/net")))
    }

    /// The namespace that a file stands for, such as `/run/netns/blue`.
    pub fn open(path: &Path) -> Result<Self, NetNsError> {
        let fail = |cause| NetNsError::Open {
            path: path.to_owned(),
            cause,
        };
        let file = File::open(path).map_err(fail)?;
        let inode = file.metadata().map_err(fail)?.ino();
        Ok(Self {
            file: Arc::new(file),
            inode,
        })
    }

    /// A new, empty namespace with `lo` up. The caller's stays what it is.
    pub fn create() -> Result<Self, NetNsError> {
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|e| NetNsError::Create(e.into()))?;
            loopback_up().map_err(NetNsError::Loopback)?;
            Self::current()
        })?
    }

    /// Runs `work` on a thread inside this namespace and waits for it.
    ///
    /// The calling thread blocks for the visit, so keep it short: open sockets,
    /// write sysctls. Where the caller is inside already, it works by itself: to
    /// enter a namespace, even one's own, takes CAP_SYS_ADMIN, which an agent on a
    /// node of its own need not have. To open a tokio object inside, enter the runtime first:
    /// `let rt = Handle::current(); ns.run(|| { let _in = rt.enter(); … })`.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
        if Self::current().is_ok_and(|own| own == *self) {
            return Ok(work());
        }
        on_thread(|| {
            setns(self.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|e| NetNsError::Enter {
                inode: self.inode,
                cause: e.into(),
            })?;
            Ok(work())
        })?
    }

    /// The inode number, by which the kernel tells namespaces apart.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// A descriptor of its own, for calls that keep or send one.
    pub fn try_clone_fd(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for NetNs {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl PartialEq for NetNs {
    fn eq(&self, other: &Self) -> bool {
        self.inode == other.inode
    }
}

impl Eq for NetNs {}

/// One thread for one visit; its panic is the caller's.
fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
    thread::scope(|scope| {
        let visit = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(NetNsError::Thread)?;
        visit.join().or_else(|panic| panic::resume_unwind(panic))
    })
}

/// `ip link set lo up` by the oldest interface there is: no netlink round trip.
fn loopback_up() -> io::Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    // SAFETY: `ifreq` is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the socket is open and the request outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::privileged;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_new_namespace_has_lo_up_and_is_not_ours() {
        if !privileged() {
            return;
        }
        let own = NetNs::current().unwrap();
        let new = NetNs::create().unwrap();
        assert_ne!(own, new);
        let inside = new.run(|| NetNs::current().unwrap()).unwrap();
        assert_eq!(inside, new);
        assert_eq!(NetNs::current().unwrap(), own, "the caller did not move");
        let listener = new
            .run(|| TcpListener::bind("127.0.0.1:0").unwrap())
            .unwrap();
        let at = listener.local_addr().unwrap();
        new.run(|| TcpStream::connect(at).unwrap()).unwrap();
    }

    #[test]
    fn a_panic_inside_reaches_the_caller() {
        if !privileged() {
            return;
        }
        let new = NetNs::create().unwrap();
        let caught = panic::catch_unwind(|| new.run(|| panic!("inside")));
        assert!(caught.is_err());
    }

    #[test]
    fn a_file_that_is_no_namespace_is_named() {
        let error = NetNs::open(Path::new("/nonexistent/ns")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/ns"));
    }
}
