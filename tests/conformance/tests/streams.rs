//! Connections into pods, with both kubectls: exec, attach, cp, port-forward and
//! /proxy. 1.32 speaks WebSocket, 1.20 speaks SPDY/3.1.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use portolan_conformance::{Lab, tools};

const SOON: Duration = Duration::from_secs(60);

/// A pod that does nothing until it is told, and a web site.
const BOX: &str = "run box --image=host --restart=Never --command -- sleep infinity";

fn both() -> Result<[PathBuf; 2]> {
    Ok([tools::kubectl()?, tools::old_kubectl()?])
}

fn lab() -> Result<Lab> {
    let lab = Lab::start(2, &[])?;
    lab.run(&format!("kubectl {BOX}"))?;
    lab.run("kubectl create deployment web --image=nginx --replicas=2")?;
    lab.run("kubectl expose deployment web --port=80")?;
    lab.run("kubectl wait --for=condition=Ready pod/box --timeout=60s")?;
    lab.run("kubectl rollout status deployment/web --timeout=60s")?;
    lab.until(
        SOON,
        "kubectl get endpoints web -o jsonpath='{.subsets[0].addresses[*].ip}'",
        |ips| ips.split_whitespace().count() == 2,
    )?;
    Ok(lab)
}

/// What a line prints, and its exit code.
fn says(lab: &Lab, line: &str) -> Result<(String, i32)> {
    let line = format!("timeout 60 {line} 2>&1");
    let out = lab.shell(lab.data_dir(), &line).output()?;
    let code = out.status.code().context("killed by a signal")?;
    Ok((String::from_utf8_lossy(&out.stdout).into_owned(), code))
}

#[test]
fn commands_run_and_tell_their_end() -> Result<()> {
    let lab = lab()?;
    for kubectl in both()? {
        let kubectl = kubectl.display();
        let cases = [
            ("exec box -- echo a 'b  c'", "a b  c\n", 0),
            (
                "exec box -- sh -c 'echo out; exit 7'",
                "out\ncommand terminated with exit code 7\n",
                7,
            ),
            (
                "exec box -- sh -c 'kill -9 $$'",
                "command terminated with exit code 137\n",
                137,
            ),
            (
                "exec -i box -- sh -c 'cat; echo end' < /etc/hostname",
                "",
                0,
            ),
            ("exec deploy/web -- hostname", "", 0),
        ];
        for (arguments, expected, code) in cases {
            let (shown, found) = says(&lab, &format!("{kubectl} {arguments}"))?;
            assert_eq!(found, code, "{kubectl} {arguments}: {shown}");
            if !expected.is_empty() {
                assert_eq!(shown, expected, "{kubectl} {arguments}");
            }
        }
        let (shown, code) = says(&lab, &format!("{kubectl} exec box -- no-such-program"))?;
        assert!(code != 0 && shown.contains("no-such-program"), "{shown}");
        let (shown, code) = says(&lab, &format!("{kubectl} exec box -c other -- true"))?;
        let expected = "container other is not valid for pod box";
        assert!(code == 1 && shown.contains(expected), "{shown}");
        // The end of the input is told to the command and ends nothing else.
        let line = format!("{kubectl} exec -i box -- sh -c 'wc -c; sleep 0.3; echo late'");
        let (shown, _) = says(&lab, &format!("{line} < {}", big(&lab)?.display()))?;
        assert_eq!(shown, "5000000\nlate\n");
        let (shown, _) = says(
            &lab,
            &format!("{kubectl} exec box -- head -c 9000000 /dev/zero | wc -c"),
        )?;
        assert_eq!(shown, "9000000\n");
    }
    Ok(())
}

/// A file larger than all buffers on the way.
fn big(lab: &Lab) -> Result<PathBuf> {
    let path = lab.data_dir().join("big");
    let bytes: Vec<u8> = (0..5_000_000_u32)
        .map(|at| at.to_le_bytes()[1] ^ at.to_le_bytes()[0])
        .collect();
    fs::write(&path, bytes)?;
    Ok(path)
}

#[test]
fn files_are_copied_in_and_out() -> Result<()> {
    let lab = lab()?;
    let file = big(&lab)?;
    let back = lab.data_dir().join("back");
    for (number, kubectl) in both()?.iter().enumerate() {
        let kubectl = kubectl.display();
        let there = format!("box:/tmp/copied-{number}");
        says(&lab, &format!("{kubectl} cp {} {there}", file.display()))?;
        says(&lab, &format!("{kubectl} cp {there} {}", back.display()))?;
        ensure!(
            fs::read(&file)? == fs::read(&back)?,
            "{kubectl}: another file came back"
        );
        fs::remove_file(&back)?;
    }
    Ok(())
}

/// A program under a terminal of its own.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<String>>,
    device: PathBuf,
}

impl Terminal {
    fn start(lab: &Lab, line: &str) -> Result<Self> {
        let device = lab.data_dir().join("device");
        drop(fs::remove_file(&device));
        let inner = lab.data_dir().join("inner.sh");
        fs::write(
            &inner,
            format!(
                "stty rows 30 cols 90\ntty > {}.new\nmv {0}.new {0}\nexec {line}\n",
                device.display()
            ),
        )?;
        let line = format!("exec script -qfec 'sh {}' /dev/null", inner.display());
        let mut child = lab
            .shell(lab.data_dir(), &line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let keys = child.stdin.take().context("no stdin")?;
        let mut output = child.stdout.take().context("no stdout")?;
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 1000];
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                let text =
                    String::from_utf8_lossy(bytes.get(..read).unwrap_or_default()).into_owned();
                shown
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_str(&text);
            }
        });
        let mut terminal = Self {
            child,
            keys,
            screen,
            device: PathBuf::new(),
        };
        terminal.wait("its device", || device.exists())?;
        terminal.device = PathBuf::from(fs::read_to_string(&device)?.trim());
        Ok(terminal)
    }

    fn screen(&self) -> String {
        self.screen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn wait(&self, what: &str, holds: impl Fn() -> bool) -> Result<()> {
        let end = Instant::now() + SOON;
        while !holds() {
            if Instant::now() > end {
                bail!("no {what}; on the screen:\n{}", self.screen());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Type a line again and again until the screen shows what it shall.
    fn until(&mut self, line: &str, expected: &str) -> Result<()> {
        let end = Instant::now() + SOON;
        loop {
            self.keys.write_all(format!("{line}\n").as_bytes())?;
            let look = Instant::now() + Duration::from_secs(2);
            while Instant::now() < look {
                if self.screen().contains(expected) {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            if Instant::now() > end {
                bail!("`{line}` never showed {expected:?}:\n{}", self.screen());
            }
        }
    }

    fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let status = std::process::Command::new("stty")
            .arg("-F")
            .arg(&self.device)
            .args(["rows", &rows.to_string(), "cols", &columns.to_string()])
            .status()?;
        ensure!(status.success(), "stty failed");
        Ok(())
    }

    fn end(mut self) -> Result<(String, i32)> {
        let end = Instant::now() + SOON;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                let code = status.code().context("killed by a signal")?;
                // What it printed last may still be on its way to the screen.
                std::thread::sleep(Duration::from_millis(100));
                return Ok((self.screen(), code));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("it does not end; on the screen:\n{}", self.screen())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

#[test]
fn a_terminal_is_real_and_follows_the_window() -> Result<()> {
    let lab = lab()?;
    for kubectl in both()? {
        let line = format!("{} exec -it box -- sh", kubectl.display());
        let mut terminal = Terminal::start(&lab, &line)?;
        terminal.until("stty size", "30 90")?;
        terminal.until("tty", "/dev/pts/")?;
        terminal.resize(31, 101)?;
        terminal.until("stty size", "31 101")?;
        // Ctrl-C is for the program inside, not for kubectl.
        terminal.until("sleep 1000 || echo int$((1+1))", "sleep 1000")?;
        terminal.keys.write_all(b"\x03")?;
        terminal.until("echo still-$((40+2))", "still-42")?;
        terminal.keys.write_all(b"exit 5\n")?;
        let (screen, code) = terminal.end()?;
        assert_eq!(code, 5, "{screen}");
        assert!(
            screen.contains("command terminated with exit code 5"),
            "{screen}"
        );
    }
    Ok(())
}

#[test]
fn a_pod_for_one_terminal_comes_and_goes() -> Result<()> {
    let lab = lab()?;
    for kubectl in both()? {
        let line = format!(
            "{} run tmp --rm -it --restart=Never --image=host -- sh",
            kubectl.display()
        );
        let mut terminal = Terminal::start(&lab, &line)?;
        terminal.until("echo here-$((40+2))", "here-42")?;
        terminal.until("stty size", "30 90")?;
        terminal.keys.write_all(b"exit\n")?;
        let (screen, code) = terminal.end()?;
        assert_eq!(code, 0, "{screen}");
        assert!(screen.contains("pod \"tmp\" deleted"), "{screen}");
        lab.until(SOON, "kubectl get pods -o name", |pods| {
            !pods.contains("pod/tmp")
        })?;
    }
    Ok(())
}

/// A running port-forward.
struct Forward {
    child: Child,
    log: PathBuf,
}

impl Forward {
    fn start(lab: &Lab, kubectl: &Path, what: &str, ports: &str) -> Result<Self> {
        let log = lab.data_dir().join("forward.log");
        drop(fs::remove_file(&log));
        let line = format!(
            "exec {} port-forward --address 127.0.0.1 {what} {ports} > {} 2>&1",
            kubectl.display(),
            log.display()
        );
        let child = lab.shell(lab.data_dir(), &line).spawn()?;
        let forward = Self { child, log };
        let count = ports.split(' ').count();
        let end = Instant::now() + SOON;
        while forward.printed().matches("Forwarding from").count() < count {
            ensure!(Instant::now() < end, "{line}: {}", forward.printed());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(forward)
    }

    fn printed(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn ports_are_forwarded_for_many_at_once() -> Result<()> {
    let lab = lab()?;
    for kubectl in both()? {
        for what in ["svc/web", "deploy/web"] {
            let (port, refused) = (tools::free_port()?, tools::free_port()?);
            let mut ports = format!("{port}:80");
            if what == "deploy/web" {
                ports.push_str(&format!(" {refused}:81"));
            }
            let forward = Forward::start(&lab, &kubectl, what, &ports)?;
            let line = format!(
                "for i in $(seq 12); do curl -sS -m 20 -o /dev/null -w '%{{http_code}}\\n' http://127.0.0.1:{port}/$i & done; wait"
            );
            let shown = lab.run(&line)?;
            assert_eq!(shown, "200\n".repeat(12), "{what}: {}", forward.printed());
            if what == "deploy/web" {
                lab.run(&format!("! curl -s -m 20 http://127.0.0.1:{refused}/"))?;
                let log = format!("cat {}", forward.log.display());
                lab.until(SOON, &log, |log| {
                    log.contains("error forwarding port 81 to pod web-")
                        && log.contains("connection refused")
                })?;
            }
        }
    }
    Ok(())
}

#[test]
fn services_and_pods_are_reached_through_the_api() -> Result<()> {
    let lab = lab()?;
    let services = "/api/v1/namespaces/default/services";
    for kubectl in both()? {
        let raw = |path: &str| says(&lab, &format!("{} get --raw {path}", kubectl.display()));
        for path in ["web:80/proxy/x", "http:web:80/proxy/x", "web/proxy/x"] {
            let (shown, code) = raw(&format!("{services}/{path}"))?;
            assert!(
                code == 0 && shown.contains("GET /x HTTP/1.1"),
                "{path}: {shown}"
            );
        }
        let pod = lab.run("kubectl get pods -l app=web -o jsonpath='{.items[0].metadata.name}'")?;
        let (shown, code) = raw(&format!("/api/v1/namespaces/default/pods/{pod}:80/proxy/"))?;
        assert!(code == 0 && shown.contains(&pod), "{shown}");
        let (shown, code) = raw(&format!("/api/v1/namespaces/default/pods/{pod}:81/proxy/"))?;
        assert!(
            code == 1
                && shown.contains("(ServiceUnavailable): error trying to reach service: dial tcp ")
                && shown.contains(":81: connect: connection refused"),
            "{shown}"
        );
        let (shown, code) = raw(&format!("{services}/none:80/proxy/"))?;
        assert!(
            code == 1 && shown.contains("services \"none\" not found"),
            "{shown}"
        );
    }
    Ok(())
}
