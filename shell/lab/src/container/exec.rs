//! Running a command in a container that runs already, as probes do.
//!
//! The lab starts itself again as a helper, which joins every namespace of the
//! container's PID 1 through one pidfd and forks the command there. Joining the
//! mount namespace also brings the container's root.

use std::{
    io,
    os::fd::{AsFd, FromRawFd, OwnedFd, RawFd},
    process::Stdio,
    time::Duration,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::{prctl::set_pdeathsig, signal::Signal, wait::waitpid},
    unistd::{ForkResult, Pid, chdir, fork},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

use super::{
    POD_EXEC,
    init::{execute, exit_of},
    launch::{Launcher, in_memory},
};

/// How much output of a command is kept, as kubelet does for probes.
const MAX_OUTPUT: u64 = 10 * 1024;
/// Exit code of the helper when the container is gone or refuses.
const NO_CONTAINER: i32 = 125;

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

/// What the helper reads from its standard input.
#[derive(Serialize, Deserialize)]
struct Wanted {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    cwd: String,
}

/// Runs `argv` in the container whose PID 1 is `pid`, with its environment.
pub async fn exec(
    launcher: &Launcher,
    pid: i32,
    argv: &[String],
    env: &[(String, String)],
    limit: Duration,
) -> Result<Executed, ExecError> {
    let command = argv.join(" ");
    let failed = |cause| ExecError::Start {
        command: command.clone(),
        cause,
    };
    let wanted = Wanted {
        argv: argv.to_vec(),
        env: env.to_vec(),
        cwd: "/".to_owned(),
    };
    let text = serde_json::to_vec(&wanted).map_err(|e| failed(e.into()))?;
    let mut child = Command::new(launcher.program())
        .arg(POD_EXEC)
        .arg(pid.to_string())
        .stdin(Stdio::from(in_memory(&text).map_err(failed)?))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let run = async {
        let (mut output, errors, status) =
            tokio::join!(some_of(stdout), some_of(stderr), child.wait());
        output.push_str(&errors);
        let status = status.map_err(failed)?;
        let code = status.code().unwrap_or(NO_CONTAINER);
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

/// The helper process: joins, forks, waits, and ends like the command.
pub(super) fn helper(pid: RawFd) -> i32 {
    let say = |message: String| {
        use std::io::Write;
        writeln!(io::stderr(), "{message}").unwrap_or_default();
        NO_CONTAINER
    };
    let wanted: Wanted = match serde_json::from_reader(io::stdin().lock()) {
        Ok(wanted) => wanted,
        Err(e) => return say(format!("cannot read what to execute: {e}")),
    };
    // SAFETY: takes plain numbers and returns a new descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let Some(fd) = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0) else {
        return say("container not running".to_owned());
    };
    // SAFETY: the kernel just gave it to us.
    let container = unsafe { OwnedFd::from_raw_fd(fd) };
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET;
    if let Err(e) = setns(container.as_fd(), all) {
        return say(format!("cannot enter the container: {}", e.desc()));
    }
    // SAFETY: this process has one thread.
    match unsafe { fork() } {
        Err(e) => say(format!("cannot fork: {}", e.desc())),
        Ok(ForkResult::Child) => {
            // Whoever kills the helper kills the command.
            let message =
                match set_pdeathsig(Signal::SIGKILL).and_then(|()| chdir(wanted.cwd.as_str())) {
                    Ok(()) => execute(&wanted.argv, &wanted.env),
                    Err(e) => e.desc().to_owned(),
                };
            say(message);
            // SAFETY: ends this process without running the parent's exit handlers.
            unsafe { libc::_exit(126) }
        }
        Ok(ForkResult::Parent { child }) => wait_for(child),
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
