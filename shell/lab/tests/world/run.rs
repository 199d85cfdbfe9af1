//! Starts this test again, inside of a lab.

use std::{
    env, fs,
    io::{self, Read},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

/// How long anything here may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Somebody to run a lab as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User {
    pub(crate) name: &'static str,
    uid: Option<u32>,
}

/// The caller, and for root an unprivileged user as well.
pub(crate) fn users() -> Vec<User> {
    let root = nix::unistd::geteuid().is_root();
    let mut users = vec![User {
        name: if root { "root" } else { "user" },
        uid: None,
    }];
    if root {
        users.push(User {
            name: "nobody",
            uid: Some(65534),
        });
    }
    users
}

/// Where the copy of this program is, if there is one.
static COPY: OnceLock<PathBuf> = OnceLock::new();

/// Removes the copy again.
pub(crate) fn remove_copy() {
    if nix::unistd::geteuid().is_root()
        && let Some(dir) = COPY.get().and_then(|copy| copy.parent())
    {
        fs::remove_dir_all(dir).unwrap();
    }
}

/// A copy of this program that everybody may run, wherever it was built.
fn program() -> &'static PathBuf {
    COPY.get_or_init(|| {
        let own = env::current_exe().unwrap();
        if !nix::unistd::geteuid().is_root() {
            return own;
        }
        let dir = env::temp_dir().join(format!("portolan-world-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let copy = dir.join("world");
        fs::copy(own, &copy).unwrap();
        copy
    })
}

/// The command that runs `case` inside of a lab as `user`.
pub(crate) fn command(user: User, case: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command
        .args(["--inside", case])
        .args(arguments)
        .current_dir("/");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(uid) = user.uid {
        command.uid(uid).gid(uid);
    }
    command
}

/// Runs one case to its end; its output if it fails.
pub(crate) fn inside(user: User, case: &str) -> Result<(), String> {
    let mut child = command(user, case, &[])
        .spawn()
        .map_err(|e| e.to_string())?;
    let code = wait(&mut child).map_err(|e| e.to_string())?;
    if code == Some(0) {
        return Ok(());
    }
    let mut text = String::new();
    child
        .stdout
        .take()
        .map(|mut out| out.read_to_string(&mut text));
    child
        .stderr
        .take()
        .map(|mut err| err.read_to_string(&mut text));
    Err(format!("exit code {code:?}\n{text}"))
}

/// The exit code of a child that must end before the deadline.
pub(crate) fn wait(child: &mut Child) -> io::Result<Option<i32>> {
    let ended = eventually(|| child.try_wait().ok().flatten());
    let Some(status) = ended else {
        child.kill()?;
        return Err(io::Error::other("it did not end in time"));
    };
    Ok(status.code())
}

/// Asks again and again until there is an answer or the deadline.
pub(crate) fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() > end {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}
