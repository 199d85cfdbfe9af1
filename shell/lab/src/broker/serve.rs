//! The broker's loop: signals, requests, and the end of the lab.

use std::{
    fs,
    io::IoSlice,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        socket::{ControlMessage, MsgFlags, recv, sendmsg},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    DNS_PORT,
    wire::{MAX_MESSAGE, Reply, Request, STOP_ID, nameservers, packet, parse},
};
use crate::sandbox::exit_code;

/// Connections that may wait to be accepted by the lab.
const BACKLOG: i32 = 1024;

/// Serves the lab until it ends; its exit code.
pub(crate) fn serve(
    line: OwnedFd,
    signals: &SigSet,
    init: Pid,
    grace: Duration,
) -> Result<i32, Errno> {
    let signals = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut line = Some(line);
    // When the lab is killed because it did not stop.
    let mut deadline: Option<Instant> = None;
    loop {
        if let Some(code) = exit_code(waitpid(init, Some(WaitPidFlag::WNOHANG))?) {
            return Ok(code);
        }
        let mut watched = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        watched.extend(
            line.as_ref()
                .map(|line| PollFd::new(line.as_fd(), PollFlags::POLLIN)),
        );
        match poll(&mut watched, until(deadline)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let line_is_ready = watched.get(1).and_then(PollFd::any).unwrap_or(false);
        while let Some(signal) = signals.read_signal()? {
            if signal.ssi_signo == Signal::SIGCHLD as u32 {
                continue;
            }
            let asked_before = deadline.is_some();
            let heard = line
                .as_ref()
                .is_some_and(|line| tell(line, STOP_ID, &Reply::Stop, None));
            if asked_before || !heard {
                kill(init, Signal::SIGKILL).ok();
            }
            deadline = Some(Instant::now() + grace);
        }
        if deadline.is_some_and(|at| at <= Instant::now()) {
            kill(init, Signal::SIGKILL).ok();
            deadline = Some(Instant::now() + grace);
        }
        if line_is_ready && !line.as_ref().is_some_and(answer_one) {
            line = None;
        }
    }
}

/// How long poll may sleep: forever, or to the deadline.
fn until(deadline: Option<Instant>) -> PollTimeout {
    let Some(at) = deadline else {
        return PollTimeout::NONE;
    };
    // Rounded up, so that the loop does not spin through the last millisecond.
    let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}

/// Answers one request; false when the lab has hung up.
fn answer_one(line: &OwnedFd) -> bool {
    let mut buffer = [0; MAX_MESSAGE];
    match recv(line.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
        Ok(0) => false,
        Ok(length) => {
            // The lab is our own program: what it should not say, it does not
            // say, and a packet that is not understood has no id to answer to.
            let Some(Ok((id, request))) = buffer.get(..length).map(parse::<Request>) else {
                return true;
            };
            let done = fulfil(&request);
            match done {
                Ok((reply, socket)) => tell(line, id, &reply, socket.as_ref()),
                Err(errno) => tell(line, id, &Reply::Failed(errno as i32), None),
            }
        }
        Err(Errno::EAGAIN | Errno::EINTR) => true,
        Err(_) => false,
    }
}

/// One message, with a descriptor beside it; false when the lab cannot hear it.
fn tell(line: &OwnedFd, id: u64, reply: &Reply, socket: Option<&Socket>) -> bool {
    let packet = packet(id, reply);
    let fds: Vec<i32> = socket.iter().map(|socket| socket.as_raw_fd()).collect();
    let beside = [ControlMessage::ScmRights(&fds)];
    let beside = if fds.is_empty() {
        &beside[..0]
    } else {
        &beside[..]
    };
    // The lab drains its end all the time; waiting for room would let a stuck
    // lab make the broker deaf for Ctrl-C.
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(
        line.as_raw_fd(),
        &[IoSlice::new(&packet)],
        beside,
        flags,
        None,
    )
    .is_ok()
}

fn fulfil(request: &Request) -> Result<(Reply, Option<Socket>), Errno> {
    let socket = match request {
        Request::Resolvers => return Ok((Reply::Done(resolvers()), None)),
        Request::ListenTcp(at) => listen(*at),
        Request::BindUdp(at) => bind(*at, Type::DGRAM),
        Request::ConnectTcp(to) => connect(*to, Type::STREAM),
        Request::ConnectUdp(to) => connect(*to, Type::DGRAM),
    };
    match socket {
        Ok(socket) => Ok((Reply::Done(Vec::new()), Some(socket))),
        Err(error) => Err(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)),
    }
}

fn resolvers() -> Vec<std::net::IpAddr> {
    fs::read_to_string("/etc/resolv.conf").map_or(Vec::new(), |text| nameservers(&text))
}

fn open(address: SocketAddr, kind: Type) -> std::io::Result<Socket> {
    let protocol = if kind == Type::STREAM {
        Protocol::TCP
    } else {
        Protocol::UDP
    };
    Socket::new(
        Domain::for_address(address),
        kind.nonblocking().cloexec(),
        Some(protocol),
    )
}

fn bind(address: SocketAddr, kind: Type) -> std::io::Result<Socket> {
    let socket = open(address, kind)?;
    if address.is_ipv6() {
        // So that 0.0.0.0 and [::] can be asked for side by side.
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // A port in TIME_WAIT from the last run is not in use.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = bind(address, Type::STREAM)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Starts a connection; whether it succeeds, the lab finds out on its own.
fn connect(address: SocketAddr, kind: Type) -> std::io::Result<Socket> {
    if address.port() != DNS_PORT || !resolvers().contains(&address.ip()) {
        return Err(Errno::EACCES.into());
    }
    let socket = open(address, kind)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        Ok(()) | Err(_) => Ok(socket),
    }
}
