//! What the tests need, and how a machine gets it.

use std::path::Path;

use anyhow::{Result, bail};

use crate::run::{check, is_root, say};
use crate::{clients, kubectl};

/// A program that tests start, the Debian package that holds it, and what for.
struct Tool {
    program: &'static str,
    package: &'static str,
    why: &'static str,
}

const TOOLS: [Tool; 21] = [
    Tool {
        program: "c++",
        package: "g++",
        why: "builds the fuzzing engine",
    },
    Tool {
        program: "nft",
        package: "nftables",
        why: "lists our table and loads the listing again",
    },
    Tool {
        program: "ip",
        package: "iproute2",
        why: "shows that nothing is left behind",
    },
    Tool {
        program: "unshare",
        package: "util-linux",
        why: "namespaces for kernel tests",
    },
    Tool {
        program: "setpriv",
        package: "util-linux",
        why: "runs the lab without root",
    },
    Tool {
        program: "dig",
        package: "bind9-dnsutils",
        why: "dig and nslookup ask the DNS server",
    },
    Tool {
        program: "delv",
        package: "bind9-dnsutils",
        why: "asks the DNS server as a validating resolver does",
    },
    Tool {
        program: "kdig",
        package: "knot-dnsutils",
        why: "another client of the DNS server",
    },
    Tool {
        program: "drill",
        package: "ldnsutils",
        why: "another client of the DNS server",
    },
    Tool {
        program: "busybox",
        package: "busybox",
        why: "its nslookup asks the DNS server as small images do",
    },
    Tool {
        program: "musl-gcc",
        package: "musl-tools",
        why: "builds a program that resolves names as small images do",
    },
    Tool {
        program: "systemctl",
        package: "systemd",
        why: "brings the libraries of systemd-resolved, which is not installed itself",
    },
    Tool {
        program: "curl",
        package: "curl",
        why: "asks Services",
    },
    Tool {
        program: "wget",
        package: "wget",
        why: "asks Services as tutorials do",
    },
    Tool {
        program: "arping",
        package: "iputils-arping",
        why: "asks who answers for an IPv4 address",
    },
    Tool {
        program: "ndisc6",
        package: "ndisc6",
        why: "asks who answers for an IPv6 address",
    },
    Tool {
        program: "tcpdump",
        package: "tcpdump",
        why: "shows who answers on a link",
    },
    Tool {
        program: "script",
        package: "bsdutils",
        why: "a terminal for kubectl exec -it",
    },
    Tool {
        program: "python3",
        package: "python3",
        why: "runs the Python client",
    },
    Tool {
        program: "node",
        package: "nodejs",
        why: "runs the JavaScript client",
    },
    Tool {
        program: "npm",
        package: "npm",
        why: "fetches the JavaScript client",
    },
];

/// Installs what is missing when root; otherwise says exactly what is missing and how to get it.
pub(crate) fn run(root: &Path) -> Result<()> {
    let missing: Vec<&Tool> = TOOLS.iter().filter(|t| !on_path(t.program)).collect();
    if !missing.is_empty() {
        let mut packages: Vec<&str> = missing.iter().map(|t| t.package).collect();
        packages.sort_unstable();
        packages.dedup();
        let list: Vec<String> = missing
            .iter()
            .map(|t| format!("  {} (package {}): {}", t.program, t.package, t.why))
            .collect();
        install(root, &packages, &list)?;
    }
    kubectl::fetch(root)?;
    kubectl::fetch_resolved(root)?;
    kubectl::fetch_routers(root)?;
    clients::fetch(root)?;
    user_namespaces()?;
    say("everything that the tests need is here");
    Ok(())
}

/// What only benchmarks start.
const BENCH_TOOLS: [Tool; 1] = [Tool {
    program: "dnsperf",
    package: "dnsperf",
    why: "loads the DNS server of `cargo xtask bench dns`",
}];

/// Gets one program that a benchmark needs.
pub(crate) fn need(root: &Path, program: &str) -> Result<()> {
    let missing = BENCH_TOOLS
        .iter()
        .find(|tool| tool.program == program && !on_path(program));
    missing.map_or(Ok(()), |tool| {
        let line = format!("  {program} (package {}): {}", tool.package, tool.why);
        install(root, &[tool.package], &[line])
    })
}

/// Installs Debian packages when root; otherwise names them, and what for.
pub(crate) fn install(root: &Path, packages: &[&str], what: &[String]) -> Result<()> {
    if !is_root() {
        bail!(
            "these programs are missing:\n{}\ninstall them: sudo apt-get install {}",
            what.join("\n"),
            packages.join(" ")
        );
    }
    check(root, &["apt-get", "-qq", "update"])?;
    let mut words = vec![
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "-qq",
        "-y",
        "install",
        "--no-install-recommends",
    ];
    words.extend(packages);
    check(root, &words)
}

/// The lab and the kernel tests live in user namespaces.
fn user_namespaces() -> Result<()> {
    let out = std::process::Command::new("unshare")
        .args(["-Urn", "true"])
        .output()?;
    if out.status.success() {
        return Ok(());
    }
    bail!(
        "user namespaces are refused here ({}): allow them with \
         `sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000` \
         and, on Ubuntu, `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`",
        String::from_utf8_lossy(&out.stderr).trim()
    )
}

fn on_path(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .any(|d| Path::new(d).join(program).is_file())
}
