//! Real containers: namespaces, mounts, processes, signals, exit codes.
#![expect(unsafe_code, reason = "namespaces are entered between fork and exec")]

mod support;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use nix::sys::signal::Signal;
use portolan_kernel::netns::NetNs;
use portolan_lab::container::{
    Bind, ContainerSpec, DEFAULT_PATH, ExecError, Executing, Exit, Launched, Launcher, Report,
    Wanted, exec, start,
};
use support::{Folder, PATIENCE, block_on, in_lab};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

fn launcher() -> Launcher {
    Launcher::new(PathBuf::from(env!("CARGO_BIN_EXE_lab-program")))
}

fn spec(folder: &Folder, argv: &[&str]) -> ContainerSpec {
    let root = folder.0.join("root");
    std::fs::create_dir_all(&root).expect("a root");
    ContainerSpec {
        hostname: "web-0".into(),
        argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec![
            ("PATH".into(), DEFAULT_PATH.into()),
            ("COLOUR".into(), "blue".into()),
        ],
        root,
        files: BTreeMap::from([
            ("/etc/hosts".into(), "10.244.1.7\tweb-0\n".into()),
            ("/etc/resolv.conf".into(), "nameserver 10.96.0.10\n".into()),
            ("/etc/hostname".into(), "web-0\n".into()),
        ]),
        hide: vec![folder.0.clone()],
        ..ContainerSpec::default()
    }
}

/// Everything it wrote, and all reports.
async fn to_the_end(launched: Launched) -> (String, Vec<Report>) {
    let Launched {
        mut stdout,
        mut stderr,
        mut reports,
        signals,
        ..
    } = launched;
    let mut all = Vec::new();
    while let Some(report) = reports.next().await {
        all.push(report);
    }
    drop(signals);
    let mut text = String::new();
    stdout.read_to_string(&mut text).await.expect("text");
    stderr.read_to_string(&mut text).await.expect("text");
    (text, all)
}

/// Runs a shell script in a container and returns its output and exit.
fn script(
    name: &str,
    change: impl FnOnce(&mut ContainerSpec, &Folder),
    text: &str,
) -> (String, Exit) {
    let folder = Folder::new(name);
    let mut spec = spec(&folder, &["sh", "-c", text]);
    change(&mut spec, &folder);
    block_on(async {
        let netns = NetNs::create().expect("a namespace");
        let launched = launcher().launch(&spec, &netns).expect("launched");
        let (text, reports) = to_the_end(launched).await;
        match reports.as_slice() {
            [Report::Started { .. }, Report::Exited(exit)] => (text, *exit),
            other => panic!("{other:?}\n{text}"),
        }
    })
}

#[test]
fn a_container_has_its_own_view() {
    in_lab("a_container_has_its_own_view", || {
        let (text, exit) = script(
            "view",
            |_, _| (),
            r#"
            echo "pid $$"; echo "user $(id -u)"; echo "host $(hostname)"; echo "colour $COLOUR"
            cat /etc/hosts /etc/resolv.conf /etc/hostname
            ls /proc | grep -c '^[0-9]' >/dev/null && echo "first $(tr '\0' ' ' </proc/1/cmdline | head -c 5)"
            ls /sys/class/net | tr '\n' ' '; echo
            touch /usr/bin/x 2>/dev/null && echo "writable /usr"
            touch /bin/x 2>/dev/null && echo "writable /bin"
            for d in /tmp /run /var/tmp /dev/shm /etc; do touch $d/x || echo "not writable $d"; done
            ls /tmp
            echo x >/dev/null; head -c 3 /dev/zero | wc -c; ls -l /dev/fd >/dev/null && echo devices
            test -x /.portolan/portolan && echo program
            mount -t tmpfs none /mnt 2>/dev/null && echo "may mount"
            exit 7
            "#,
        );
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "pid 1",
                "user 0",
                "host web-0",
                "colour blue",
                "10.244.1.7\tweb-0",
                "nameserver 10.96.0.10",
                "web-0",
                "first sh -c",
                "lo ",
                "x",
                "3",
                "devices",
                "program",
            ]
        );
        assert_eq!(
            exit,
            Exit {
                code: 7,
                signal: None
            }
        );
    });
}

#[test]
fn volumes_appear_where_no_folder_is() {
    in_lab("volumes_appear_where_no_folder_is", || {
        let volumes = |spec: &mut ContainerSpec, folder: &Folder| {
            let data = folder.0.join("data");
            std::fs::create_dir_all(&data).expect("a folder");
            std::fs::write(data.join("f"), "content\n").expect("a file");
            for (target, read_only) in [
                ("/data", false),
                ("/usr/share/nginx/html/deep", true),
                ("/var/run/secrets/kubernetes.io/serviceaccount", true),
            ] {
                spec.binds.push(Bind {
                    source: data.clone(),
                    target: target.into(),
                    read_only,
                });
            }
        };
        let (text, exit) = script(
            "volumes",
            volumes,
            r"
            cat /data/f /usr/share/nginx/html/deep/f /run/secrets/kubernetes.io/serviceaccount/f
            echo more >/data/g && cat /data/g
            touch /usr/share/nginx/html/deep/x 2>/dev/null || echo read-only
            ls -d /usr/share/doc
            ",
        );
        assert_eq!(
            text,
            "content\ncontent\ncontent\nmore\nread-only\n/usr/share/doc\n"
        );
        assert_eq!(exit.code, 0);
    });
}

#[test]
fn the_labs_own_state_is_hidden() {
    in_lab("the_labs_own_state_is_hidden", || {
        // Under the system's temporary folder it is out of sight anyway: put it elsewhere.
        let secret =
            Folder(PathBuf::from("/var/tmp").join(format!("portolan-s-{}", std::process::id())));
        std::fs::create_dir_all(&secret.0).expect("a folder");
        std::fs::write(secret.0.join("ca.key"), "secret").expect("a file");
        let hide = |spec: &mut ContainerSpec, _: &Folder| spec.hide.push(secret.0.clone());
        let (text, _) = script(
            "hidden",
            hide,
            &format!("cat {}/ca.key 2>&1 | grep -c secret", secret.0.display()),
        );
        assert_eq!(text, "0\n");
    });
}

#[test]
fn a_missing_command_is_told_as_containerd_does() {
    in_lab("a_missing_command_is_told_as_containerd_does", || {
        for (argv, expected) in [
            ("foo", r#"exec: "foo": executable file not found in $PATH"#),
            (
                "/no/such",
                r#"exec: "/no/such": stat /no/such: no such file or directory"#,
            ),
            (
                "/etc/hostname",
                r#"exec: "/etc/hostname": permission denied"#,
            ),
        ] {
            let folder = Folder::new("missing");
            let spec = spec(&folder, &[argv]);
            let (_, reports) = block_on(async {
                let netns = NetNs::create().expect("a namespace");
                to_the_end(launcher().launch(&spec, &netns).expect("launched")).await
            });
            assert_eq!(
                reports,
                [Report::Failed {
                    message: expected.to_owned()
                }]
            );
        }
    });
}

#[test]
fn signals_reach_the_command_and_a_kill_reaches_all() {
    in_lab("signals_reach_the_command_and_a_kill_reaches_all", || {
        block_on(async {
            for (text, signal, expected) in [
                (
                    "trap 'exit 3' TERM; sleep 600 & echo up; wait",
                    Signal::SIGTERM,
                    Exit {
                        code: 3,
                        signal: None,
                    },
                ),
                (
                    "trap '' TERM; sleep 600 & echo up; wait",
                    Signal::SIGKILL,
                    Exit {
                        code: 137,
                        signal: Some(9),
                    },
                ),
            ] {
                let folder = Folder::new("signals");
                let netns = NetNs::create().expect("a namespace");
                let spec = spec(&folder, &["sh", "-c", text]);
                let mut launched = launcher().launch(&spec, &netns).expect("launched");
                let mut up = [0; 3];
                launched.stdout.read_exact(&mut up).await.expect("output");
                launched.signals.send(signal).await;
                // The sleeping grandchild holds the output open: its end proves that it died.
                let (_, reports) = to_the_end(launched).await;
                assert_eq!(reports.last(), Some(&Report::Exited(expected)));
            }
        });
    });
}

#[test]
fn a_dropped_container_is_dead() {
    in_lab("a_dropped_container_is_dead", || {
        block_on(async {
            let folder = Folder::new("dropped");
            let netns = NetNs::create().expect("a namespace");
            let spec = spec(
                &folder,
                &[
                    "sh",
                    "-c",
                    "trap '' TERM; echo up; while :; do sleep 600; done",
                ],
            );
            let Launched {
                mut stdout,
                mut reports,
                signals,
                stderr,
                ..
            } = launcher().launch(&spec, &netns).expect("launched");
            let Some(Report::Started { pid }) = reports.next().await else {
                panic!("not started")
            };
            drop((signals, reports, stderr));
            let mut rest = String::new();
            stdout.read_to_string(&mut rest).await.expect("the end");
            support::eventually("the process ends", async || {
                (!PathBuf::from(format!("/proc/{pid}/cwd")).exists()).then_some(())
            })
            .await;
        });
    });
}

#[test]
fn commands_run_inside_a_running_container() {
    in_lab("commands_run_inside_a_running_container", || {
        block_on(async {
            let folder = Folder::new("exec");
            let netns = NetNs::create().expect("a namespace");
            let spec = spec(&folder, &["sleep", "600"]);
            let mut launched = launcher().launch(&spec, &netns).expect("launched");
            let Some(Report::Started { pid }) = launched.reports.next().await else {
                panic!("not started")
            };
            let launcher = launcher();
            let run = async |text: &str, limit| {
                let argv = ["sh", "-c", text].map(str::to_owned);
                exec(&launcher, (pid, None), &argv, &spec.env, limit).await
            };
            let done = run(
                "hostname; cat /etc/hosts; echo $COLOUR; echo bad >&2; exit 4",
                PATIENCE,
            )
            .await
            .expect("ran");
            assert_eq!(
                (done.code, done.output.as_str()),
                (4, "web-0\n10.244.1.7\tweb-0\nblue\nbad\n")
            );
            let late = run("sleep 600", Duration::from_millis(300))
                .await
                .expect_err("too slow");
            assert_eq!(
                late.to_string(),
                "command \"sh -c sleep 600\" timed out after 300ms"
            );
            let many = run("ls /proc | grep -c '^[0-9]'", PATIENCE)
                .await
                .expect("ran");
            assert!(
                many.output.trim().parse::<u32>().expect("a number") <= 6,
                "{}",
                many.output
            );
            let none = exec(
                &launcher,
                (pid, None),
                &["nosuch".to_owned()],
                &spec.env,
                PATIENCE,
            )
            .await
            .expect("ran");
            assert_eq!(none.code, 126);
            assert!(
                none.output.contains("executable file not found in $PATH"),
                "{}",
                none.output
            );
        });
    });
}

/// A container that sleeps, and a command started in it.
async fn started(folder: &Folder, wanted: Wanted) -> (Launched, Result<Executing, ExecError>) {
    let netns = NetNs::create().expect("a namespace");
    let spec = spec(folder, &["sleep", "600"]);
    let mut launched = launcher().launch(&spec, &netns).expect("launched");
    let Some(Report::Started { pid }) = launched.reports.next().await else {
        panic!("not started")
    };
    let executing = start(&launcher(), pid, &wanted).await;
    (launched, executing)
}

fn shell(text: &str) -> Wanted {
    Wanted {
        argv: ["sh", "-c", text].map(str::to_owned).to_vec(),
        env: vec![("PATH".into(), DEFAULT_PATH.into())],
        stdin: true,
        ..Wanted::default()
    }
}

/// Reads until `text` has come.
async fn until(from: &mut (impl AsyncRead + Unpin), text: &str) -> String {
    let mut seen = String::new();
    let mut buffer = [0; 1024];
    // Before the whole test is out of time.
    let found = tokio::time::timeout(PATIENCE / 2, async {
        while !seen.contains(text) {
            let read = from.read(&mut buffer).await.expect("output");
            assert!(read > 0, "the end, after {seen:?}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    });
    let late = found.await.is_err();
    assert!(!late, "no {text:?} in {seen:?}");
    seen
}

#[test]
fn a_command_reads_until_its_input_ends() {
    in_lab("a_command_reads_until_its_input_ends", || {
        block_on(async {
            let folder = Folder::new("input");
            let (_container, executing) =
                started(&folder, shell("wc -c; echo bad >&2; exit 7")).await;
            let mut executing = executing.expect("started");
            let mut stdin = executing.stdin.take().expect("an input");
            stdin.write_all(&[b'x'; 100_000]).await.expect("written");
            drop(stdin);
            let (mut out, mut err) = (String::new(), String::new());
            executing
                .stdout
                .read_to_string(&mut out)
                .await
                .expect("text");
            let mut stderr = executing.stderr.take().expect("errors apart");
            stderr.read_to_string(&mut err).await.expect("text");
            assert_eq!((out.trim(), err.as_str()), ("100000", "bad\n"));
            assert_eq!(executing.wait().await.expect("an exit"), 7);
        });
    });
}

#[test]
fn a_command_has_a_real_terminal() {
    in_lab("a_command_has_a_real_terminal", || {
        block_on(async {
            let folder = Folder::new("terminal");
            let text = "tty; echo up; read x; stty size; trap 'echo caught' INT; sh -c 'echo waits; exec sleep 600'; echo after; exit 3";
            let wanted = Wanted {
                terminal: true,
                ..shell(text)
            };
            let (_container, executing) = started(&folder, wanted).await;
            let mut executing = executing.expect("started");
            assert!(executing.stderr.is_none(), "a terminal carries both");
            let terminal = executing.terminal.clone().expect("a terminal");
            let head = until(&mut executing.stdout, "up").await;
            assert!(head.contains("/dev/pts/0"), "{head}");
            terminal.resize(101, 33).expect("resized");
            let mut stdin = executing.stdin.take().expect("an input");
            stdin.write_all(b"go\n").await.expect("written");
            let sized = until(&mut executing.stdout, "waits").await;
            assert!(sized.contains("33 101"), "{sized}");
            // Ctrl-C goes to the foreground, not to the container.
            stdin.write_all(b"\x03").await.expect("written");
            until(&mut executing.stdout, "after").await;
            assert_eq!(executing.wait().await.expect("an exit"), 3);
        });
    });
}

#[test]
fn a_command_whose_client_is_gone_is_killed() {
    in_lab("a_command_whose_client_is_gone_is_killed", || {
        block_on(async {
            let folder = Folder::new("gone");
            let (container, executing) =
                started(&folder, shell("echo $$ >/tmp/pid; echo up; exec sleep 601")).await;
            let mut executing = executing.expect("started");
            until(&mut executing.stdout, "up").await;
            drop(executing);
            support::eventually("the command ends", async || {
                let found = std::fs::read_dir("/proc").ok()?.flatten().any(|process| {
                    std::fs::read(process.path().join("cmdline"))
                        .is_ok_and(|line| line.starts_with(b"sleep\x00601"))
                });
                (!found).then_some(())
            })
            .await;
            drop(container);
        });
    });
}

#[test]
fn what_cannot_be_executed_is_said() {
    in_lab("what_cannot_be_executed_is_said", || {
        block_on(async {
            for terminal in [false, true] {
                let folder = Folder::new("nosuch");
                let wanted = Wanted {
                    argv: vec!["nosuch".to_owned()],
                    terminal,
                    ..shell("")
                };
                let (_container, executing) = started(&folder, wanted).await;
                let Err(ExecError::Refused { message }) = executing else {
                    panic!("it runs")
                };
                let expected = "exec: \"nosuch\": executable file not found in $PATH";
                assert_eq!(message, expected);
            }
        });
    });
}

#[test]
fn a_container_has_a_terminal_and_an_input() {
    in_lab("a_container_has_a_terminal_and_an_input", || {
        block_on(async {
            let folder = Folder::new("console");
            let netns = NetNs::create().expect("a namespace");
            let mut spec = spec(&folder, &["sh", "-c", "tty; read x; echo got $x; exit 2"]);
            (spec.stdin, spec.terminal) = (true, true);
            let mut launched = launcher().launch(&spec, &netns).expect("launched");
            let console = launched.console.take().expect("a console");
            let mut terminal = console.terminal().await.expect("a terminal");
            until(&mut terminal, "/dev/pts/0").await;
            terminal.write_all(b"it\n").await.expect("written");
            until(&mut terminal, "got it").await;
            let mut reports = Vec::new();
            while let Some(report) = launched.reports.next().await {
                reports.push(report);
            }
            assert!(
                matches!(reports.last(), Some(Report::Exited(Exit { code: 2, .. }))),
                "{reports:?}"
            );
        });
    });
}
