//! Running a command in a container that runs already, as probes do.
//!
//! The lab starts itself again as a helper, which joins every namespace of the
//! container's PID 1 through one pidfd and forks the command there. Joining the
//! mount namespace also brings the container's root.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream as StdUnixStream,
    },
    process::Stdio,
    time::Duration,
};

use nix::{
    fcntl::OFlag,
    sched::{CloneFlags, setns},
    sys::{prctl::set_pdeathsig, signal::Signal, wait::waitpid},
    unistd::{ForkResult, Pid, chdir, fork, pipe2, setsid},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, BufReader},
    net::UnixStream,
    process::{Child, Command},
};

use super::{
    POD_EXEC,
    init::{execute, exit_of},
    launch::{Launcher, Report, in_memory, inherit},
    terminal::{self, Terminal},
    user::User,
};

/// How much output of a command is kept, as kubelet does for probes.
const MAX_OUTPUT: u64 = 10 * 1024;
/// Exit code of the helper when the container is gone.
const NO_CONTAINER: i32 = 125;
/// Exit code of a command that cannot be executed.
const REFUSED: i32 = 126;

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Its exit code; 128 + n after signal n.
    pub code: i32,
    /// Standard output and error together, the first 10 KiB.
    pub output: String,
}

/// Why a command was not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It ran longer than it may and was killed.
    #[error("command {command:?} timed out after {limit:?}")]
    Timeout {
        /// The command.
        command: String,
        /// How long it was given.
        limit: Duration,
    },
    /// The command cannot be executed.
    #[error("{message}")]
    Refused {
        /// Why, in runc's words.
        message: String,
    },
    /// The helper could not be started.
    #[error("cannot start the command {command:?}")]
    Start {
        /// The command.
        command: String,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
}

/// A command to run in a container, as data that travels to the helper.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Where it starts; `/` if empty.
    pub cwd: String,
    /// Whether it gets a terminal, which carries all three streams.
    pub terminal: bool,
    /// Whether somebody writes to it; otherwise its input is empty.
    pub stdin: bool,
    /// Who it runs as; root without one.
    pub user: Option<User>,
}

/// A command that runs. Dropped, it is killed.
pub struct Executing {
    /// Its input, if wanted.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Its output; with a terminal everything that it prints.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// Its errors; none with a terminal.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Its terminal.
    pub terminal: Option<Terminal>,
    /// The helper, which ends as the command does.
    child: Child,
}

impl Executing {
    /// Waits for its end: the exit code, 128 + n after signal n.
    pub async fn wait(&mut self) -> io::Result<i32> {
        let status = self.child.wait().await?;
        Ok(status.code().unwrap_or(NO_CONTAINER))
    }
}

/// Starts a command in the container whose PID 1 is `pid`.
///
/// # Errors
/// [`ExecError::Refused`] if the command cannot be executed, in runc's words.
pub async fn start(launcher: &Launcher, pid: i32, wanted: &Wanted) -> Result<Executing, ExecError> {
    let command = wanted.argv.join(" ");
    let failed = |cause| ExecError::Start {
        command: command.clone(),
        cause,
    };
    let text = serde_json::to_vec(wanted).map_err(|e| failed(e.into()))?;
    let spec = in_memory(&text).map_err(failed)?;
    let (control, their_control) = StdUnixStream::pair().map_err(failed)?;
    let (console, their_console) = StdUnixStream::pair().map_err(failed)?;
    let handed = [
        spec.as_raw_fd(),
        their_control.as_raw_fd(),
        their_console.as_raw_fd(),
    ];
    let piped = |wanted: bool| match wanted {
        true => Stdio::piped(),
        false => Stdio::null(),
    };
    let mut helper = Command::new(launcher.program());
    helper
        .arg(POD_EXEC)
        .arg(pid.to_string())
        .args(handed.map(|fd| fd.to_string()))
        .stdin(piped(wanted.stdin && !wanted.terminal))
        .stdout(piped(!wanted.terminal))
        .stderr(piped(!wanted.terminal))
        .kill_on_drop(true);
    inherit(&mut helper, handed.to_vec());
    let mut child = helper.spawn().map_err(failed)?;
    drop((spec, their_control, their_console));
    let terminal = match wanted.terminal {
        true => Terminal::receive(console).await.ok(),
        false => None,
    };
    control.set_nonblocking(true).map_err(failed)?;
    let control = UnixStream::from_std(control).map_err(failed)?;
    let line = BufReader::new(control).lines().next_line().await;
    match line
        .map_err(failed)?
        .map(|line| serde_json::from_str(&line))
    {
        Some(Ok(Report::Started { .. })) => {}
        Some(Ok(Report::Failed { message })) => return Err(ExecError::Refused { message }),
        Some(Ok(Report::Exited(_)) | Err(_)) | None => {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    Ok(match (terminal, streams) {
        (Some(terminal), _) => Executing {
            stdin: wanted.stdin.then(|| Box::new(terminal.clone()) as Box<_>),
            stdout: Box::new(terminal.clone()),
            stderr: None,
            terminal: Some(terminal),
            child,
        },
        (None, (stdin, Some(stdout), stderr)) => Executing {
            stdin: stdin.map(|stdin| Box::new(stdin) as Box<_>),
            stdout: Box::new(stdout),
            stderr: stderr.map(|stderr| Box::new(stderr) as Box<_>),
            terminal: None,
            child,
        },
        (None, (_, None, _)) => return Err(failed(io::ErrorKind::BrokenPipe.into())),
    })
}

/// Runs `argv` in the container whose PID 1 is `pid`, with its environment.
pub async fn exec(
    launcher: &Launcher,
    (pid, user): (i32, Option<&User>),
    argv: &[String],
    env: &[(String, String)],
    limit: Duration,
) -> Result<Executed, ExecError> {
    let command = argv.join(" ");
    let wanted = Wanted {
        argv: argv.to_vec(),
        env: env.to_vec(),
        user: user.cloned(),
        ..Wanted::default()
    };
    let run = async {
        let mut running = match start(launcher, pid, &wanted).await {
            Err(ExecError::Refused { message }) => {
                return Ok(Executed {
                    code: REFUSED,
                    output: message,
                });
            }
            other => other?,
        };
        let stdout = std::mem::replace(&mut running.stdout, Box::new(tokio::io::empty()));
        let stderr = running.stderr.take();
        let (mut output, errors, code) =
            tokio::join!(some_of(Some(stdout)), some_of(stderr), running.wait());
        output.push_str(&errors);
        let code = code.map_err(|cause| ExecError::Start {
            command: command.clone(),
            cause,
        })?;
        Ok(Executed { code, output })
    };
    tokio::time::timeout(limit, run).await.unwrap_or_else(|_| {
        Err(ExecError::Timeout {
            command: command.clone(),
            limit,
        })
    })
}

/// The beginning of a stream; the rest is read and dropped, so that the
/// command never blocks on a full pipe.
async fn some_of(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else {
        return String::new();
    };
    let mut kept = Vec::new();
    let read = (&mut stream).take(MAX_OUTPUT).read_to_end(&mut kept).await;
    if read.is_ok() {
        tokio::io::copy(&mut stream, &mut tokio::io::sink())
            .await
            .unwrap_or_default();
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// The helper process: joins, forks, says how that went, and ends like the command.
pub(super) fn helper(pid: RawFd, spec: RawFd, control: RawFd, console: RawFd) -> i32 {
    // SAFETY: the lab handed these descriptors over for this process alone.
    let [spec, control, console] =
        [spec, control, console].map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    let mut control = File::from(control);
    let mut tell = |report: &Report| {
        let line = serde_json::to_string(report).unwrap_or_default() + "\n";
        // Without a lab at the other end there is nobody to tell.
        control.write_all(line.as_bytes()).unwrap_or_default();
    };
    match begin(pid, spec, console) {
        Ok(child) => {
            tell(&Report::Started {
                pid: child.as_raw(),
            });
            wait_for(child)
        }
        Err(message) => {
            tell(&Report::Failed { message });
            NO_CONTAINER
        }
    }
}

/// Enters the container and forks the command; returns once it runs.
fn begin(pid: RawFd, spec: OwnedFd, console: OwnedFd) -> Result<Pid, String> {
    let wanted: Wanted = serde_json::from_reader(File::from(spec))
        .map_err(|e| format!("cannot read what to execute: {e}"))?;
    // SAFETY: takes plain numbers and returns a new descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let Some(fd) = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0) else {
        return Err("container not running".to_owned());
    };
    // SAFETY: the kernel just gave it to us.
    let container = unsafe { OwnedFd::from_raw_fd(fd) };
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET;
    setns(container.as_fd(), all)
        .map_err(|e| format!("cannot enter the container: {}", e.desc()))?;
    let (broken, tell) = pipe2(OFlag::O_CLOEXEC).map_err(|e| format!("pipe: {}", e.desc()))?;
    // SAFETY: this process has one thread.
    match unsafe { fork() } {
        Err(e) => Err(format!("cannot fork: {}", e.desc())),
        Ok(ForkResult::Child) => {
            drop(broken);
            let message = become_command(&wanted, &console);
            File::from(tell)
                .write_all(message.as_bytes())
                .unwrap_or_default();
            // SAFETY: ends this process without running the parent's exit handlers.
            unsafe { libc::_exit(REFUSED) }
        }
        Ok(ForkResult::Parent { child }) => {
            drop((tell, console));
            let mut message = String::new();
            let read = File::from(broken).read_to_string(&mut message);
            if read.is_ok() && message.is_empty() {
                return Ok(child);
            }
            wait_for(child);
            Err(message)
        }
    }
}

/// Becomes the command; returns only with the reason why it cannot.
fn become_command(wanted: &Wanted, console: &OwnedFd) -> String {
    // Whoever kills the helper kills the command.
    if let Err(e) = set_pdeathsig(Signal::SIGKILL) {
        return e.desc().to_owned();
    }
    let cwd = match wanted.cwd.as_str() {
        "" => "/",
        cwd => cwd,
    };
    if let Err(e) = chdir(cwd) {
        return format!("chdir to cwd ({cwd:?}) failed: {}", e.desc().to_lowercase());
    }
    let attached = setsid().map_err(io::Error::from).and_then(|_| {
        if wanted.terminal {
            terminal::take(&terminal::open_and_send(console)?)?;
        }
        Ok(())
    });
    if let Err(e) = attached {
        return format!("cannot set up the terminal: {e}");
    }
    close_on_exec(console);
    if let Some(Err(message)) = wanted.user.as_ref().map(User::assume) {
        return message;
    }
    execute(&wanted.argv, &wanted.env)
}

/// The command must not hold what only the helper needs.
fn close_on_exec(fd: &OwnedFd) {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    if fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).is_err() {
        tracing::debug!("a descriptor stays open in the command");
    }
}

fn wait_for(child: Pid) -> i32 {
    loop {
        match waitpid(child, None) {
            Ok(status) => {
                if let Some(exit) = exit_of(status) {
                    return exit.code;
                }
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return NO_CONTAINER,
        }
    }
}
