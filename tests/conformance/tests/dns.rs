//! `portolan dns`, as users type it.

use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portolan_conformance::{Lab, tools};

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(60);

fn typed(words: &[&str], input: &str) -> Result<Output> {
    let mut child = Command::new(tools::portolan()?)
        .arg("dns")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("standard input")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    Ok(child.wait_with_output()?)
}

fn texts(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    (code, text(&output.stdout), text(&output.stderr))
}

#[test]
fn d22_a_corefile_becomes_a_configuration() -> Result<()> {
    let corefile = ".:53 {\n    errors\n    kubernetes cluster.local in-addr.arpa {\n        pods insecure\n        fallthrough in-addr.arpa\n    }\n    template ANY ANY\n    forward . 192.0.2.53\n    cache 30\n}\n";
    let (code, file, notes) = texts(&typed(&["import", "-"], corefile)?);
    assert_eq!(code, 0, "{notes}");
    assert_eq!(
        notes,
        "-: not converted: line 7: template ANY ANY: there is nothing like it\n"
    );
    for part in [
        "apiVersion: dns.portolan.dev/v1alpha1",
        "kind: DNSConfiguration",
        "192.0.2.53",
        "pods: Insecure",
    ] {
        assert!(file.contains(part), "{part} in {file}");
    }
    let (code, said, notes) = texts(&typed(&["check", "-"], &file)?);
    assert_eq!((code, said.as_str()), (0, "-: fine\n"), "{notes}");

    let broken = file.replace("pods: Insecure", "pods: Some");
    let (code, said, notes) = texts(&typed(&["check", "-"], &broken)?);
    assert_eq!((code, said.as_str()), (1, ""));
    assert!(
        notes.contains("kubernetes.pods: Unsupported value: \"Some\""),
        "{notes}"
    );
    let (code, said, notes) = texts(&typed(&["import", "-"], ".:53 {\n errors\n")?);
    assert_eq!((code, said.as_str()), (1, ""));
    assert!(notes.contains("line 1"), "{notes}");
    Ok(())
}

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn d3_d22_the_names_of_a_lab_are_answered_outside_of_it() -> Result<()> {
    let lab = Lab::start(1, &[])?;
    let file = lab.data_dir().join("dns.yaml");
    let head = "apiVersion: dns.portolan.dev/v1alpha1\nkind: DNSConfiguration\n";
    let off = "health: {address: ''}\nready: {address: ''}\nmetrics: {address: ''}\n";
    let hosts = |last: u8| {
        format!("hosts: {{entries: [{{address: 192.0.2.{last}, names: [db.example.com]}}]}}\n")
    };
    std::fs::write(&file, format!("{head}forward: []\n{off}{}", hosts(1)))?;
    let listen = own_address(5354);
    let server = Command::new(tools::portolan()?)
        .args(["dns", "serve", "--zone-from-kubeconfig"])
        .arg(lab.data_dir().join("kubeconfig"))
        .args(["--listen", &listen.to_string(), "--config"])
        .arg(&file)
        .spawn()?;
    let mut server = Server(server);
    let until = |words: &str, right: &str| -> Result<()> {
        let end = Instant::now() + DEADLINE;
        loop {
            let output = Command::new("dig")
                .args([
                    &format!("@{}", listen.ip()),
                    "-p",
                    &listen.port().to_string(),
                    "+short",
                    "+tries=1",
                ])
                .args(words.split(' '))
                .output()
                .context("dig, of bind9-dnsutils")?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            if said == right {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{words}: {said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    until("kubernetes.default.svc.cluster.local", "10.96.0.1\n")?;
    until("+tcp db.example.com", "192.0.2.1\n")?;
    std::fs::write(&file, format!("{head}forward: []\n{off}{}", hosts(2)))?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(server.0.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP)?;
    until("db.example.com", "192.0.2.2\n")?;
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    let ended = server.0.wait()?;
    assert!(ended.success(), "{ended}");
    Ok(())
}

/// A message with one question for the addresses of a name.
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut message = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}

/// Asks for names that nobody knows without waiting for replies, and counts them.
struct Flood {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Flood {
    fn start(server: SocketAddr) -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let (sent, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (count, end) = (Arc::clone(&sent), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let number = count.fetch_add(1, Ordering::Relaxed);
                let message = question(number as u16, &format!("r{number}.example.com"));
                // While nobody is there it is refused.
                drop(socket.send_to(&message, server));
            }
        });
        Ok(Self {
            sent,
            stop,
            thread: Some(thread),
        })
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(std::thread::JoinHandle::join));
    }
}

/// An address of the loopback that no other process has: connections of others, which
/// come from 127.0.0.1, cannot take its port between an end and a start.
fn own_address(port: u16) -> SocketAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, 64 | high, middle, low], port))
}

/// Asks for a name of the cluster until it is answered; in a flood datagrams are lost.
fn answered(server: SocketAddr, process: &mut Server) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let message = question(7, "kubernetes.default.svc.cluster.local");
    let end = Instant::now() + DEADLINE;
    let mut reply = [0; 512];
    while Instant::now() < end {
        let ended = process.0.try_wait()?;
        ensure!(ended.is_none(), "the server ended: {ended:?}");
        let sent = socket.send_to(&message, server);
        let length = sent.and_then(|_| socket.recv(&mut reply)).unwrap_or(0);
        if length > 4 && reply[3] & 15 == 0 && reply[length - 4..length] == [10, 96, 0, 1] {
            return Ok(());
        }
    }
    anyhow::bail!("names of the cluster are not answered")
}

/// Resident memory of a process, in bytes.
fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kilobytes.context("VmRSS")?.parse::<u64>()? * 1024)
}

/// Under a flood of names that nobody outside answers for, names of the cluster are
/// answered and memory is bounded; kill -9 in the midst of it costs no more than the
/// time of a start; and without the API server the names stay.
#[test]
fn d20_d22_floods_kill_9_and_the_end_of_the_api_server_are_outlived() -> Result<()> {
    const NAMES: u64 = 200_000;
    /// What a thousand questions that are under way and the tasks that wait may take,
    /// whatever the number of names: about a third of this, without optimization.
    const MOST_GROWTH: u64 = 160 << 20;
    let lab = Lab::start(1, &[])?;
    let folder = tempfile::tempdir()?;
    let (file, kubeconfig) = (
        folder.path().join("dns.yaml"),
        folder.path().join("kubeconfig"),
    );
    std::fs::copy(lab.data_dir().join("kubeconfig"), &kubeconfig)?;
    // Somebody who never answers.
    let silent = UdpSocket::bind("127.0.0.1:0")?;
    let text = format!(
        "apiVersion: dns.portolan.dev/v1alpha1\nkind: DNSConfiguration\n\
         forward: [{{domain: ., servers: ['{}']}}]\n\
         health: {{address: ''}}\nready: {{address: ''}}\nmetrics: {{address: ''}}\n",
        silent.local_addr()?
    );
    std::fs::write(&file, text)?;
    let listen = own_address(5353);
    let start = || -> Result<Server> {
        let child = Command::new(tools::portolan()?)
            .args(["dns", "serve", "--zone-from-kubeconfig"])
            .arg(&kubeconfig)
            .args(["--listen", &listen.to_string(), "--config"])
            .arg(&file)
            .spawn()?;
        Ok(Server(child))
    };
    let mut server = start()?;
    answered(listen, &mut server)?;
    let before = resident(server.0.id())?;
    let flood = Flood::start(listen)?;
    let end = Instant::now() + 4 * DEADLINE;
    while flood.sent() < NAMES {
        answered(listen, &mut server)?;
        let growth = resident(server.0.id())?.saturating_sub(before);
        ensure!(
            growth < MOST_GROWTH,
            "{growth} bytes more after {} names",
            flood.sent()
        );
        ensure!(
            Instant::now() < end,
            "only {} names were sent",
            flood.sent()
        );
    }
    for _ in 0..3 {
        // SIGKILL: it cannot prepare for that.
        server.0.kill()?;
        server.0.wait()?;
        server = start()?;
        answered(listen, &mut server)?;
    }
    drop(flood);
    drop(lab);
    for _ in 0..100 {
        answered(listen, &mut server)?;
    }
    Ok(())
}
