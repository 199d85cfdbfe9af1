//! The split itself: one clone into all namespaces, user ids from outside,
//! mounts and loopback from inside.

use std::{
    fs, io,
    io::{Read, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    mount::{MsFlags, mount},
    sys::wait::waitpid,
    unistd::{Pid, getegid, geteuid, pipe2},
};

use super::{SandboxError, refused::Facts};

/// The namespaces that make a lab.
const NAMESPACES: libc::c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC;

/// Longest error text that the child reports.
const MAX_REPORT: u64 = 1024;

/// Where the caller finds itself after [`split`].
pub(super) enum Side {
    Parent(Child),
    Child(Gate),
}

/// The child, waiting for its user ids.
pub(super) struct Child {
    pid: Pid,
    go: fs::File,
    report: fs::File,
}

/// The child's ends: it may go on when `go` has a byte, and says in `report`
/// what went wrong. An empty report is success.
pub(super) struct Gate {
    go: fs::File,
    report: fs::File,
}

/// Clones the process into new namespaces.
pub(super) fn split() -> Result<Side, SandboxError> {
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(SandboxError::failed("pipe"));
    let (go_read, go_write) = pipe()?;
    let (report_read, report_write) = pipe()?;
    // SAFETY: without CLONE_VM this is a fork; the process has one thread, so
    // no lock is held by anybody who does not exist in the child. clone and not
    // clone3, because seccomp filters of older container engines refuse the
    // latter. All arguments but the flags are zero, so their order, which
    // differs between machines, does not matter (s390x is not supported).
    let pid = unsafe { libc::syscall(libc::SYS_clone, NAMESPACES | libc::SIGCHLD, 0, 0, 0, 0) };
    match pid {
        -1 => {
            let cause = io::Error::last_os_error();
            let advice = Facts::gather().advice("clone into new namespaces", &cause);
            Err(SandboxError::Refused { advice })
        }
        0 => Ok(Side::Child(Gate {
            go: go_read.into(),
            report: report_write.into(),
        })),
        pid => Ok(Side::Parent(Child {
            pid: Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX)),
            go: go_write.into(),
            report: report_read.into(),
        })),
    }
}

/// Parent: gives the child its user ids, lets it go on and hears how it went.
pub(super) fn admit(mut child: Child) -> Result<Pid, SandboxError> {
    let outcome = write_maps(child.pid)
        .map_err(|cause| Facts::gather().advice("give the lab its user ids", &cause))
        .and_then(|()| {
            let mut report = String::new();
            let heard = child
                .go
                .write_all(b"!")
                .and_then(|()| child.report.take(MAX_REPORT).read_to_string(&mut report));
            match (heard, report.is_empty()) {
                (Ok(_), true) => Ok(()),
                (Ok(_), false) => Err(explain(&report)),
                (Err(error), _) => Err(error.to_string()),
            }
        });
    outcome.map(|()| child.pid).map_err(|advice| {
        // Closing our end of the gate ends a child that still waits.
        drop(child.go);
        waitpid(child.pid, None).ok();
        SandboxError::Refused { advice }
    })
}

/// Root keeps every id that it has here; anybody else becomes root in the lab
/// and is nobody but themselves outside.
fn write_maps(pid: Pid) -> io::Result<()> {
    let proc = |file: &str| format!("/proc/{pid}/{file}");
    if geteuid().is_root() {
        let own = |file: &str| fs::read_to_string(file).map(|map| identity_map(&map));
        let full = own("/proc/self/uid_map").and_then(|map| fs::write(proc("uid_map"), map));
        if full.is_ok() {
            return fs::write(proc("gid_map"), own("/proc/self/gid_map")?);
        }
        // Root without CAP_SETUID, as in some containers: go on as anybody.
    }
    fs::write(proc("setgroups"), "deny")?;
    fs::write(proc("uid_map"), format!("0 {} 1\n", geteuid()))?;
    fs::write(proc("gid_map"), format!("0 {} 1\n", getegid()))
}

/// A map that gives the child each id that the parent has, under the same
/// number: `inside outside count` becomes `inside inside count`.
fn identity_map(own: &str) -> String {
    own.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (inside, _outside, count) = (words.next()?, words.next()?, words.next()?);
            Some(format!("{inside} {inside} {count}\n"))
        })
        .collect()
}

impl Gate {
    /// Child: waits for its user ids. False when the parent is gone.
    pub(super) fn wait(&mut self) -> bool {
        self.go.read_exact(&mut [0]).is_ok()
    }

    /// Tells the parent why there will be no lab. The parent finds the words:
    /// seen from inside, everybody is root.
    pub(super) fn refuse(mut self, step: &str, errno: Errno) {
        self.report
            .write_all(format!("{} {step}", errno as i32).as_bytes())
            .ok();
    }
}

/// Parent: what the child's report means for the user.
fn explain(report: &str) -> String {
    let (code, step) = report.split_once(' ').unwrap_or(("0", report));
    let cause = io::Error::from_raw_os_error(code.parse().unwrap_or(0));
    Facts::gather().advice(step, &cause)
}

/// Child: private mounts, a `/proc` that shows the new PID namespace, `lo` up.
pub(super) fn furnish() -> Result<(), (&'static str, Errno)> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|errno| ("make the mounts private", errno))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, none)
        .map_err(|errno| ("mount /proc", errno))?;
    loopback_up().map_err(|errno| ("bring up lo", errno))
}

/// `ip link set lo up` without a thread and without netlink.
fn loopback_up() -> Result<(), Errno> {
    // SAFETY: a plain system call; the result is checked before it is owned.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    Errno::result(socket)?;
    // SAFETY: the descriptor was just opened and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: `ifreq` is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the socket is open and the request outlives the call.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) })
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_keeps_the_ids_that_it_has() {
        assert_eq!(
            identity_map("         0          0 4294967295\n"),
            "0 0 4294967295\n"
        );
        assert_eq!(
            identity_map("0 1000 1\n1 100000 65536\n"),
            "0 0 1\n1 1 65536\n"
        );
        assert_eq!(identity_map("garbage\n"), "");
    }
}
