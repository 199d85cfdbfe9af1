//! Runs a test's body in a process of its own inside new user, mount and
//! network namespaces, as `portolan up` does: once as the caller and, where the
//! caller is root, once more as an unprivileged user.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::{
    ffi::CString,
    io,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use nix::unistd::{Gid, Uid, getgid, getuid, setgid, setgroups, setuid};

/// Set in the process that runs the body.
const INSIDE: &str = "PORTOLAN_TEST_INSIDE";
/// nobody, on Debian and everywhere else.
const NOBODY: u32 = 65_534;
/// How long anything in a test may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `body` for the test `name` (its path in the test binary).
pub(crate) fn in_lab(name: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    again(name, getuid().as_raw(), getgid().as_raw());
    if getuid().is_root() {
        again(name, NOBODY, NOBODY);
    }
}

/// Starts this test binary again for one test, in new namespaces.
fn again(name: &str, uid: u32, gid: u32) {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, uid.to_string());
    let drop_to = (!Uid::from_raw(uid).eq(&getuid())).then_some((uid, gid));
    let maps = [
        (c"/proc/self/setgroups", "deny".to_owned()),
        (c"/proc/self/uid_map", format!("0 {uid} 1")),
        (c"/proc/self/gid_map", format!("0 {gid} 1")),
    ]
    .map(|(path, text)| (path.to_owned(), text));
    // SAFETY: only system calls between fork and exec; every text is ready.
    unsafe { command.pre_exec(move || enter(drop_to, &maps)) };
    let output = command.output().expect("the test binary starts");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "as uid {uid}:\n{text}");
    assert!(
        text.contains("1 passed"),
        "no test is called {name}:\n{text}"
    );
}

fn enter(drop_to: Option<(u32, u32)>, maps: &[(CString, String)]) -> io::Result<()> {
    if let Some((uid, gid)) = drop_to {
        setgroups(&[])?;
        setgid(Gid::from_raw(gid))?;
        setuid(Uid::from_raw(uid))?;
        // Without this the files under /proc/self stay root's.
        nix::sys::prctl::set_dumpable(true)?;
    }
    // As a shell has it for what it starts in the background: commands in containers
    // must not notice.
    // SAFETY: installs no handler.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
    // SAFETY: takes flags alone; one thread after fork.
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWNET;
    if unsafe { libc::unshare(flags) } < 0 {
        return Err(io::Error::last_os_error());
    }
    for (path, text) in maps {
        // SAFETY: the path is a C string and the descriptor is closed below.
        unsafe {
            let fd = libc::open(path.as_ptr(), libc::O_WRONLY);
            let wrote = libc::write(fd, text.as_ptr().cast(), text.len());
            if fd < 0 || wrote < 0 {
                return Err(io::Error::last_os_error());
            }
            libc::close(fd);
        }
    }
    Ok(())
}

/// A folder for one test, removed at its end.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("portolan-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}

/// Runs asynchronous work to its end, in time.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let work = async { tokio::time::timeout(PATIENCE, work).await.expect("in time") };
    runtime.expect("a runtime").block_on(work)
}

/// Looks until `found` gives something, or panics with `what`.
pub(crate) async fn eventually<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = found().await {
            return value;
        }
        assert!(Instant::now() < give_up, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
