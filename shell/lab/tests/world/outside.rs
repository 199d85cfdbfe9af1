//! Cases that need a look from the host's side: how a lab ends, what it leaves,
//! and what it offers to the host.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::process::CommandExt,
    process::Child,
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        prctl::set_dumpable,
        signal::{Signal, kill},
    },
    unistd::{Pid, getegid, geteuid},
};

use crate::run::{DEADLINE, User, command, eventually, wait};

/// One case and its name.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: fn(User) -> Result<(), String>,
}

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "ctrl_c_lets_the_lab_stop_and_its_exit_code_through",
        run: ctrl_c,
    },
    Case {
        name: "term_lets_the_lab_stop_and_its_exit_code_through",
        run: term,
    },
    Case {
        name: "a_second_signal_ends_a_stuck_lab",
        run: second_signal,
    },
    Case {
        name: "kill_9_of_the_broker_leaves_no_process",
        run: kill_broker,
    },
    Case {
        name: "kill_9_of_the_lab_leaves_no_process",
        run: kill_lab,
    },
    Case {
        name: "the_host_network_is_not_touched",
        run: host_untouched,
    },
    Case {
        name: "published_ports_reach_a_node_over_tcp_and_udp",
        run: published,
    },
    Case {
        name: "refused_user_namespaces_are_one_line_with_advice",
        run: refused,
    },
];

/// A lab that has said "ready".
struct Lab {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Lab {
    fn start(user: User, case: &str, arguments: &[&str]) -> Result<Self, String> {
        let mut child = command(user, case, arguments)
            .spawn()
            .map_err(|e| e.to_string())?;
        let out = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut lab = Self { child, out };
        if lab.line()? == "ready" {
            return Ok(lab);
        }
        let mut text = String::new();
        lab.child
            .stderr
            .take()
            .map(|mut err| err.read_to_string(&mut text));
        Err(format!("the lab did not get ready: {text}"))
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        self.out.read_line(&mut line).map_err(|e| e.to_string())?;
        Ok(line.trim_end().to_owned())
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = i32::try_from(self.child.id()).map_err(|e| e.to_string())?;
        kill(Pid::from_raw(pid), signal).map_err(|e| e.to_string())
    }

    fn exit_code(&mut self) -> Result<Option<i32>, String> {
        wait(&mut self.child).map_err(|e| e.to_string())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn expect<T: PartialEq + std::fmt::Debug>(got: T, wanted: T) -> Result<(), String> {
    if got == wanted {
        Ok(())
    } else {
        Err(format!("got {got:?}, not {wanted:?}"))
    }
}

fn ctrl_c(user: User) -> Result<(), String> {
    stops_on(user, Signal::SIGINT)
}

fn term(user: User) -> Result<(), String> {
    stops_on(user, Signal::SIGTERM)
}

fn stops_on(user: User, signal: Signal) -> Result<(), String> {
    let mut lab = Lab::start(user, "wait_for_stop", &[])?;
    lab.signal(signal)?;
    expect(lab.line()?, "stopping".to_owned())?;
    expect(lab.exit_code()?, Some(42))
}

fn second_signal(user: User) -> Result<(), String> {
    let mut lab = Lab::start(user, "never_stop", &[])?;
    lab.signal(Signal::SIGINT)?;
    expect(lab.line()?, "not stopping".to_owned())?;
    lab.signal(Signal::SIGINT)?;
    expect(lab.exit_code()?, Some(137))
}

/// Everything below `root` in the process tree, as /proc shows it.
fn descendants(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name in parentheses may hold anything; the parent comes after it.
        let parent = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1));
        if let Some(parent) = parent.and_then(|parent| parent.parse::<u32>().ok()) {
            parents.push((pid, parent));
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(of) = found.get(next).copied() {
        found.extend(
            parents
                .iter()
                .filter(|(_, parent)| *parent == of)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found.split_off(1)
}

/// Whether a process is gone; a zombie has released everything but its number.
fn gone(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| {
        rest.is_empty() || matches!(rest.split_whitespace().next(), Some("Z" | "X") | None)
    })
}

fn kill_broker(user: User) -> Result<(), String> {
    let mut lab = Lab::start(user, "with_children", &[])?;
    let below = descendants(lab.child.id());
    if below.len() < 4 {
        return Err(format!(
            "init, the lab and two children were expected: {below:?}"
        ));
    }
    lab.child.kill().map_err(|e| e.to_string())?;
    eventually(|| below.iter().all(|pid| gone(*pid)).then_some(()))
        .ok_or_else(|| format!("some of {below:?} are left"))
}

fn kill_lab(user: User) -> Result<(), String> {
    let mut lab = Lab::start(user, "with_children", &[])?;
    let below = descendants(lab.child.id());
    // Below the broker there is init, and below init the lab.
    let pid = below.get(1).copied().ok_or("no lab")?;
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).map_err(|e| e.to_string())?;
    expect(lab.exit_code()?, Some(137))?;
    eventually(|| below.iter().all(|pid| gone(*pid)).then_some(()))
        .ok_or_else(|| format!("some of {below:?} are left"))
}

fn host_untouched(user: User) -> Result<(), String> {
    let mut lab = Lab::start(user, "with_fabric", &[])?;
    let devices = fs::read_to_string("/proc/net/dev").unwrap();
    for device in ["fabric0", "node-1"] {
        if devices.contains(device) {
            return Err(format!("the host has {device}"));
        }
    }
    let routes = fs::read_to_string("/proc/net/route").unwrap();
    // 172.18.0.0 in the kernel's notation.
    if routes.contains("000012AC") {
        return Err("the host has a route to the node network".to_owned());
    }
    lab.signal(Signal::SIGTERM)?;
    expect(lab.exit_code()?, Some(42))
}

fn published(user: User) -> Result<(), String> {
    // A port that is free on the host for both transports.
    let port = eventually(|| {
        let tcp = TcpListener::bind("127.0.0.1:0").ok()?;
        let at = tcp.local_addr().ok()?;
        UdpSocket::bind(at).ok().map(|_free| at.port())
    })
    .ok_or("no free port")?;
    let mut lab = Lab::start(user, "publish_echo", &[&port.to_string()])?;
    let at = SocketAddr::from(([127, 0, 0, 1], port));

    let mut stream = TcpStream::connect(at).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"over tcp").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .map_err(|e| e.to_string())?;
    expect(answer.as_str(), "172.18.0.1 says over tcp")?;

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.send_to(b"over udp", at).unwrap();
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).map_err(|e| e.to_string())?;
    expect(&buffer[..length], b"172.18.0.1 says over udp")?;

    // The lab unpublishes when told to go on, and the port is the host's again.
    lab.signal(Signal::SIGTERM)?;
    expect(lab.line()?, "unpublished".to_owned())?;
    eventually(|| TcpListener::bind(at).ok()).ok_or("the port is still taken")?;
    expect(lab.exit_code()?, Some(0))
}

fn refused(user: User) -> Result<(), String> {
    let mut command = command(user, "wait_for_stop", &[]);
    let enter = || {
        let (uid, gid) = (geteuid(), getegid());
        // A change of user hides /proc/self from the process itself until exec.
        set_dumpable(true)?;
        unshare(CloneFlags::CLONE_NEWUSER)?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
        fs::write("/proc/sys/user/max_user_namespaces", "0")
    };
    // SAFETY: between fork and exec the child makes system calls and allocates
    // small strings, which glibc allows after a fork.
    unsafe { command.pre_exec(enter) };
    let output = command.output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stderr);
    expect(output.status.code(), Some(1))?;
    expect(text.lines().count(), 1)?;
    if text.contains("sysctl -w user.max_user_namespaces") {
        Ok(())
    } else {
        Err(text.into())
    }
}
