//! The other side of a container: the keeper and the PID 1 that it forks.
//!
//! Runs in a process of its own with one thread, before anything else of the
//! program, so fork is safe here.

use std::{
    error::Error,
    ffi::CString,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl::set_pdeathsig,
        signal::{SigHandler, SigSet, SigmaskHow, Signal, kill, signal, sigprocmask},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, chdir, execve, fork, pipe2, sethostname, setsid},
};

use super::{
    POD_EXEC, POD_INIT, exec,
    launch::{Exit, Report},
    ownership, rootfs,
    spec::ContainerSpec,
    terminal,
    user::User,
};

/// Capabilities of an ordinary container, as container engines grant them.
const USUAL_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Every capability by number, as of Linux 5.9.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// If this process was started as a keeper or to run a command in a container,
/// does that and returns its exit code. Call it first thing in `main`, before
/// any thread is started.
pub fn init_main() -> Option<i32> {
    let mut args = std::env::args().skip(1);
    let role = args.next()?;
    let numbers: Vec<RawFd> = args.map_while(|arg| arg.parse().ok()).collect();
    match (role.as_str(), numbers.as_slice()) {
        (POD_INIT, [control, netns, spec, console]) => {
            Some(keeper(*control, *netns, [*spec, *console]))
        }
        (POD_EXEC, [pid, spec, control, console]) => {
            Some(exec::helper(*pid, *spec, *control, *console))
        }
        (POD_INIT | POD_EXEC, _) => Some(2),
        _ => None,
    }
}

/// An error and its causes in one line.
pub(crate) fn in_one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Starts the container, reports, and stays until it is over.
fn keeper(control: RawFd, netns: RawFd, [spec, console]: [RawFd; 2]) -> i32 {
    // SAFETY: the lab handed these descriptors over for this process alone.
    let [control, netns, spec, console] =
        [control, netns, spec, console].map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    let mut control = UnixStream::from(control);
    match start(&netns, &control, spec, console) {
        Ok(pid) => {
            report(&mut control, &Report::Started { pid: pid.as_raw() });
            drop(netns);
            let exit = stay(&mut control, pid);
            report(&mut control, &Report::Exited(exit));
            0
        }
        Err(message) => {
            report(&mut control, &Report::Failed { message });
            1
        }
    }
}

fn report(control: &mut UnixStream, report: &Report) {
    let line = serde_json::to_string(report).unwrap_or_default() + "\n";
    // Without a lab at the other end there is nobody to tell.
    control.write_all(line.as_bytes()).unwrap_or_default();
}

/// Reads the specification and forks PID 1; returns once the command runs.
fn start(
    netns: &OwnedFd,
    control: &UnixStream,
    spec: OwnedFd,
    console: OwnedFd,
) -> Result<Pid, String> {
    let spec: ContainerSpec = serde_json::from_reader(File::from(spec))
        .map_err(|e| format!("cannot read the specification: {e}"))?;
    let kernel = |what: &str| {
        let what = what.to_owned();
        move |e: Errno| format!("cannot {what}: {}", e.desc())
    };
    // The terminal's Ctrl-C is for the lab, which then stops its pods.
    setsid().map_err(kernel("start a session"))?;
    setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).map_err(kernel("enter the pod's network"))?;
    let own = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    unshare(own).map_err(kernel("create namespaces"))?;
    let (broken, tell) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(kernel("create a pipe"))?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }.map_err(kernel("fork"))? {
        ForkResult::Child => {
            let closed = [broken.as_raw_fd(), netns.as_raw_fd(), control.as_raw_fd()];
            for fd in closed {
                // SAFETY: the child owns its copies and does not use them again.
                drop(unsafe { OwnedFd::from_raw_fd(fd) });
            }
            let message = first_process(&spec, console);
            File::from(tell)
                .write_all(message.as_bytes())
                .unwrap_or_default();
            // SAFETY: ends this process without running the parent's exit handlers.
            unsafe { libc::_exit(1) }
        }
        ForkResult::Parent { child } => {
            drop((tell, console));
            silence().map_err(|e| format!("cannot let go of the output: {e}"))?;
            let mut message = String::new();
            let read = File::from(broken).read_to_string(&mut message);
            if read.is_ok() && message.is_empty() {
                return Ok(child);
            }
            waitpid(child, None).map_err(kernel("wait"))?;
            Err(message)
        }
    }
}

/// Lets go of the container's pipes, so that they end when the container does.
fn silence() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for fd in 0..=2 {
        // SAFETY: replaces a standard descriptor of this process by an open one.
        if unsafe { libc::dup2(null.as_raw_fd(), fd) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Passes signals on and waits for the end. When the lab is gone, so is the container.
fn stay(control: &mut UnixStream, pid: Pid) -> Exit {
    let Ok(over) = pidfd(pid) else {
        return last_wait(pid);
    };
    loop {
        let mut on = [
            PollFd::new(over.as_fd(), PollFlags::POLLIN),
            PollFd::new(control.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut on, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            Err(_) => return last_wait(pid),
            Ok(_) => {}
        }
        let [ended, heard] = on.map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
        if ended {
            return last_wait(pid);
        }
        if heard {
            let mut byte = [0];
            let wanted = match control.read(&mut byte) {
                Ok(1) => Signal::try_from(i32::from(byte[0])),
                Ok(_) | Err(_) => Ok(Signal::SIGKILL),
            };
            let Ok(wanted) = wanted else { continue };
            if kill(pid, wanted).is_err() || byte == [0] {
                return last_wait(pid);
            }
        }
    }
}

/// A descriptor that becomes readable when the process ends.
fn pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: the call takes plain numbers and returns a new descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn last_wait(pid: Pid) -> Exit {
    loop {
        match waitpid(pid, None) {
            Err(Errno::EINTR) => {}
            Ok(status) => {
                if let Some(exit) = exit_of(status) {
                    return exit;
                }
            }
            Err(_) => {
                return Exit {
                    code: 255,
                    signal: None,
                };
            }
        }
    }
}

/// What a wait status says about an end, if it is one.
pub(super) fn exit_of(status: WaitStatus) -> Option<Exit> {
    match status {
        WaitStatus::Exited(_, code) => Some(Exit { code, signal: None }),
        WaitStatus::Signaled(_, signal, _) => Some(Exit {
            code: 128 + signal as i32,
            signal: Some(signal as i32),
        }),
        WaitStatus::Stopped(..)
        | WaitStatus::PtraceEvent(..)
        | WaitStatus::PtraceSyscall(..)
        | WaitStatus::Continued(..)
        | WaitStatus::StillAlive => None,
    }
}

/// PID 1 of the container: returns only with the reason why it cannot be.
fn first_process(spec: &ContainerSpec, console: OwnedFd) -> String {
    if let Err(e) = set_pdeathsig(Signal::SIGKILL) {
        return format!("cannot tie the container to its keeper: {}", e.desc());
    }
    if let Err(e) = sethostname(&spec.hostname) {
        return format!("cannot set the host name {}: {}", spec.hostname, e.desc());
    }
    if let Err(e) = rootfs::enter(spec) {
        return in_one_line(&e);
    }
    let cwd = if spec.cwd.is_empty() { "/" } else { &spec.cwd };
    if let Err(e) = chdir(cwd) {
        return format!(
            "chdir to cwd ({cwd:?}) set in config.json failed: {}",
            e.desc().to_lowercase()
        );
    }
    limit_capabilities(spec);
    if !spec.stdin
        && let Err(e) = null_input()
    {
        return format!("cannot open /dev/null: {e}");
    }
    if let Err(e) = setsid() {
        return format!("cannot start a session: {}", e.desc());
    }
    if spec.terminal
        && let Err(e) = terminal::open_and_send(&console).and_then(|path| terminal::take(&path))
    {
        return format!("cannot set up the terminal: {e}");
    }
    drop(console);
    if let Some(Err(message)) = spec.user.as_ref().map(User::assume) {
        return message;
    }
    execute(&spec.argv, &spec.env)
}

/// Nobody writes to the container: its standard input is `/dev/null`.
fn null_input() -> io::Result<()> {
    let null = File::open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    Ok(())
}

/// Takes from the bounding set what the container may not have; exec applies it.
fn limit_capabilities(spec: &ContainerSpec) {
    if spec.privileged {
        return;
    }
    let asks = |list: &[String], name: &str| {
        list.iter().any(|asked| {
            let asked = asked.to_ascii_uppercase();
            asked == "ALL" || asked.trim_start_matches("CAP_") == name
        })
    };
    for (number, name) in CAPABILITIES.iter().enumerate() {
        let usual = USUAL_CAPABILITIES.contains(name) && !asks(&spec.drop_capabilities, name);
        if !usual && !asks(&spec.add_capabilities, name) {
            // SAFETY: takes plain numbers. A capability that this kernel does
            // not know, or that is gone already, needs no dropping.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
        }
    }
}

/// Becomes the command; returns why not, in the words of containerd's runc.
pub(super) fn execute(argv: &[String], env: &[(String, String)]) -> String {
    let Some(program) = argv.first() else {
        return "no command specified".to_owned();
    };
    let path = match find(program, env) {
        Ok(path) => path,
        Err(message) => return message,
    };
    let strings = |texts: Vec<String>| -> Result<Vec<CString>, _> {
        texts.into_iter().map(CString::new).collect()
    };
    let pairs = env.iter().map(|(name, value)| format!("{name}={value}"));
    let (Ok(path), Ok(args), Ok(env)) = (
        CString::new(path),
        strings(argv.to_vec()),
        strings(pairs.collect()),
    ) else {
        return format!("exec: {program:?}: invalid argument");
    };
    if let Err(e) = normal_signals() {
        return format!("cannot reset signals: {}", e.desc());
    }
    if let Err(e) = ownership::pretend_if_alone() {
        return format!("cannot pretend to give files away: {e}");
    }
    match execve(&path, &args, &env) {
        Err(e) => format!(
            "exec {}: {}",
            path.to_string_lossy(),
            e.desc().to_lowercase()
        ),
    }
}

/// Rust ignores SIGPIPE, the lab may block signals, and who started it in the
/// background of a script or by `nohup` had it ignore some, which every process
/// after it would do too, Ctrl-C or not. Commands expect none of that.
fn normal_signals() -> nix::Result<()> {
    let fixed = [Signal::SIGKILL, Signal::SIGSTOP];
    for other in Signal::iterator().filter(|signal| !fixed.contains(signal)) {
        // SAFETY: installs no handler.
        unsafe { signal(other, SigHandler::SigDfl)? };
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// The program's path, looked up in the container's `PATH`.
fn find(program: &str, env: &[(String, String)]) -> Result<String, String> {
    if program.contains('/') {
        return match is_program(Path::new(program)) {
            Ok(()) => Ok(program.to_owned()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(format!(
                "exec: {program:?}: stat {program}: no such file or directory"
            )),
            Err(_) => Err(format!("exec: {program:?}: permission denied")),
        };
    }
    let path = env.iter().rev().find(|(name, _)| name == "PATH");
    let path = path.map_or("", |(_, value)| value.as_str());
    path.split(':')
        .map(|folder| format!("{folder}/{program}"))
        .find(|candidate| is_program(Path::new(candidate)).is_ok())
        .ok_or_else(|| format!("exec: {program:?}: executable file not found in $PATH"))
}

fn is_program(path: &Path) -> io::Result<()> {
    let about = std::fs::metadata(path)?;
    if about.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    nix::unistd::access(path, nix::unistd::AccessFlags::X_OK)?;
    Ok(())
}
