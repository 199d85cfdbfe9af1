//! The lab's side of a container: start the keeper, hear its reports, send signals.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    process::Stdio,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};
use portolan_kernel::netns::NetNs;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{ChildStderr, ChildStdin, ChildStdout, Command},
};

use super::{POD_INIT, spec::ContainerSpec, terminal::Terminal};

/// How a container's PID 1 ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code; 128 + n after signal n.
    pub code: i32,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
}

/// What the keeper says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The command runs; its PID 1 has this number outside.
    Started {
        /// PID in the lab's PID namespace.
        pid: i32,
    },
    /// The command does not run; nothing is left of it.
    Failed {
        /// What went wrong, in containerd's words where the command is at fault.
        message: String,
    },
    /// The command ended; nothing is left of it.
    Exited(Exit),
}

/// Why no keeper could be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The specification could not be handed over.
    #[error("cannot hand over the specification of {hostname}")]
    Spec {
        /// Whose.
        hostname: String,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// The program could not be started again.
    #[error("cannot start {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
}

/// Starts keepers.
#[derive(Clone, Debug)]
pub struct Launcher {
    program: PathBuf,
}

/// A container that was launched. Dropping `signals` kills it.
#[derive(Debug)]
pub struct Launched {
    /// Its input, if the specification wants one and no terminal.
    pub stdin: Option<ChildStdin>,
    /// What it writes to its standard output; nothing with a terminal.
    pub stdout: ChildStdout,
    /// What it writes to its standard error; nothing with a terminal.
    pub stderr: ChildStderr,
    /// Where its terminal comes from, if the specification wants one.
    pub console: Option<Console>,
    /// What the keeper says.
    pub reports: Reports,
    /// The way to signal it.
    pub signals: Signals,
}

/// The way on which a container's terminal comes.
#[derive(Debug)]
pub struct Console {
    socket: StdUnixStream,
}

impl Console {
    /// The terminal, once the container has opened it.
    pub async fn terminal(self) -> io::Result<Terminal> {
        Terminal::receive(self.socket).await
    }
}

/// Reports of one keeper, in order.
#[derive(Debug)]
pub struct Reports {
    lines: Lines<BufReader<OwnedReadHalf>>,
}

/// Sends signals to the PID 1 of one container; dropped, it kills all of it.
#[derive(Debug)]
pub struct Signals {
    half: OwnedWriteHalf,
}

impl Launcher {
    /// `program` must call [`super::init_main`] first thing in its `main`.
    pub fn new(program: PathBuf) -> Self {
        Self { program }
    }

    /// The program that is started again.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Starts a keeper for `spec` in the network `netns`. Must be called in a
    /// tokio runtime.
    pub fn launch(&self, spec: &ContainerSpec, netns: &NetNs) -> Result<Launched, LaunchError> {
        let no_spec = |cause| LaunchError::Spec {
            hostname: spec.hostname.clone(),
            cause,
        };
        let no_start = |cause| LaunchError::Spawn {
            program: self.program.clone(),
            cause,
        };
        let text = serde_json::to_vec(spec).map_err(|e| no_spec(e.into()))?;
        let input = in_memory(&text).map_err(no_spec)?;
        let (ours, theirs) = StdUnixStream::pair().map_err(no_start)?;
        ours.set_nonblocking(true).map_err(no_start)?;
        let (console, their_console) = StdUnixStream::pair().map_err(no_start)?;
        let handed = [
            theirs.as_raw_fd(),
            netns.as_raw_fd(),
            input.as_raw_fd(),
            their_console.as_raw_fd(),
        ];
        let stdin = match spec.stdin && !spec.terminal {
            true => Stdio::piped(),
            false => Stdio::null(),
        };
        let mut command = Command::new(&self.program);
        command
            .arg(POD_INIT)
            .args(handed.map(|fd| fd.to_string()))
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        inherit(&mut command, handed.to_vec());
        let mut child = command.spawn().map_err(no_start)?;
        drop((theirs, their_console, input));
        let stdin = child.stdin.take();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(no_start(io::Error::other("no pipes")));
        };
        tokio::spawn(async move {
            // Only to reap it; what happened comes through the control socket.
            if let Err(cause) = child.wait().await {
                tracing::debug!(%cause, "keeper was reaped elsewhere");
            }
        });
        let (read, half) = UnixStream::from_std(ours).map_err(no_start)?.into_split();
        Ok(Launched {
            stdin,
            stdout,
            stderr,
            console: spec.terminal.then_some(Console { socket: console }),
            reports: Reports {
                lines: BufReader::new(read).lines(),
            },
            signals: Signals { half },
        })
    }
}

impl Reports {
    /// The next report; `None` when the keeper is gone, which without an
    /// [`Report::Exited`] before it means that somebody killed the keeper.
    pub async fn next(&mut self) -> Option<Report> {
        let line = self.lines.next_line().await.ok()??;
        serde_json::from_str(&line).ok()
    }
}

impl Signals {
    /// Sends `signal` to PID 1. A container that is gone is success.
    pub async fn send(&mut self, signal: nix::sys::signal::Signal) {
        let number = signal as i32;
        let Ok(byte) = u8::try_from(number) else {
            return;
        };
        if self.half.write_all(&[byte]).await.is_err() {
            tracing::debug!(number, "the container was gone before the signal");
        }
    }
}

/// Lets the child have these descriptors under the numbers they have here.
pub(super) fn inherit(command: &mut Command, descriptors: Vec<RawFd>) {
    let keep = move || {
        for fd in &descriptors {
            // SAFETY: the descriptor is open in the parent until spawn returned.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(*fd) };
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only fcntl(2) is called, which is
    // async-signal-safe, and nothing is allocated.
    unsafe { command.pre_exec(keep) };
}

/// A file in memory that holds `text`, to be read from its beginning.
pub(super) fn in_memory(text: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"portolan-spec", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}
