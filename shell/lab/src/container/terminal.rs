//! Terminals of containers.
//!
//! A terminal is opened inside the container, in its own `/dev/pts`, so that
//! programs in it find it by name; its other end travels to the lab over a
//! Unix socket, as runc does with its console socket.

use std::{
    ffi::CString,
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use nix::{
    cmsg_space,
    fcntl::{FcntlArg, OFlag, fcntl, open},
    pty::{grantpt, posix_openpt, ptsname_r, unlockpt},
    sys::{
        socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg},
        stat::Mode,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd},
    net::UnixStream,
};

/// The lab's end of a container's terminal. Clones share it; the terminal
/// hangs up when the last is dropped.
#[derive(Clone, Debug)]
pub struct Terminal {
    fd: Arc<AsyncFd<OwnedFd>>,
}

/// Inside the container: a new terminal. Its lab's end goes over `console`;
/// the rest is the path of the other.
pub(super) fn open_and_send(console: &OwnedFd) -> io::Result<CString> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let path = ptsname_r(&master)?;
    let descriptors = [master.as_raw_fd()];
    let beside = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<UnixAddr>(
        console.as_raw_fd(),
        &[IoSlice::new(b"t")],
        &beside,
        MsgFlags::empty(),
        None,
    )?;
    Ok(CString::new(path)?)
}

/// Inside the container, as the leader of a new session: makes the terminal
/// this session's, and its standard input, output and error.
pub(super) fn take(path: &CString) -> io::Result<()> {
    let slave = open(path.as_c_str(), OFlag::O_RDWR, Mode::empty())?;
    // SAFETY: takes an open descriptor and a plain number.
    if unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    nix::unistd::dup2_stdin(&slave)?;
    nix::unistd::dup2_stdout(&slave)?;
    nix::unistd::dup2_stderr(&slave)?;
    Ok(())
}

impl Terminal {
    /// Waits for the terminal that the container sends. The socket ends
    /// without one if the container fails before.
    pub(super) async fn receive(console: StdUnixStream) -> io::Result<Self> {
        console.set_nonblocking(true)?;
        let console = UnixStream::from_std(console)?;
        let received = console.async_io(Interest::READABLE, || receive_one(console.as_fd()));
        let fd = received.await?;
        let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        // SAFETY: an OwnedFd names the same open descriptor until it is dropped.
        let fd = unsafe { AsyncFd::register(fd)? };
        Ok(Self { fd: Arc::new(fd) })
    }

    /// Sets its size in characters; the programs in it get SIGWINCH.
    pub fn resize(&self, width: u16, height: u16) -> io::Result<()> {
        let size = libc::winsize {
            ws_row: height,
            ws_col: width,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the descriptor is open and the structure outlives the call.
        let done = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TIOCSWINSZ, &size) };
        match done {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn receive_one(console: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!([std::os::fd::RawFd; 1]);
    let message = recvmsg::<UnixAddr>(
        console.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    for beside in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = beside
            && let Some(fd) = descriptors.first()
        {
            // SAFETY: the kernel just gave it to us.
            return Ok(unsafe { OwnedFd::from_raw_fd(*fd) });
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.fd.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            match ready.try_io(|fd| nix::unistd::read(fd.get_ref(), unfilled).map_err(Into::into)) {
                Ok(Ok(read)) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                // Everybody in the container has closed it: that is its end.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.fd.poll_write_ready(context))?;
            match ready.try_io(|fd| nix::unistd::write(fd.get_ref(), bytes).map_err(Into::into)) {
                Ok(written) => return Poll::Ready(written),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
