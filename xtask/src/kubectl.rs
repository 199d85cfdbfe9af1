//! Programs that tests call and nobody has to install: the two kubectl versions that
//! judge the API server, and systemd-resolved, which takes a machine's resolv.conf for
//! itself where it is installed, and BIRD and FRR, which the tests of BGP talk to.
//!
//! 1.32 is Debian 13's package `kubectl`; 1.20 is Debian 12's
//! `kubernetes-client`, which asks for OpenAPI v2 as protobuf and knows only
//! SPDY. Both are downloaded with apt into a folder of our own (own lists, own
//! cache, the system's sources untouched) and unpacked, never installed: tests
//! call these paths and not whatever kubectl is on PATH.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::run::{check, command, run, say};

/// One kubectl to fetch: Debian suite, package, and the folder below `target/tools`.
const KUBECTLS: [(&str, &str, &str); 2] = [
    ("trixie", "kubectl", "kubectl-1.32"),
    ("bookworm", "kubernetes-client", "kubectl-1.20"),
];

/// Where a fetched kubectl's program lies.
fn program(root: &Path, folder: &str) -> PathBuf {
    root.join("target/tools")
        .join(folder)
        .join("usr/bin/kubectl")
}

/// The folder below `target/tools` with systemd-resolved, the packages of Debian 12 that
/// are unpacked there, and the program.
pub(crate) const RESOLVED: &str = "systemd-resolved";
const RESOLVED_PACKAGES: [&str; 2] = ["systemd-resolved", "libsystemd-shared"];
const RESOLVED_PROGRAM: &str = "lib/systemd/systemd-resolved";

/// Fetches systemd-resolved if it is not there yet.
pub(crate) fn fetch_resolved(root: &Path) -> Result<()> {
    let folder = root.join("target/tools").join(RESOLVED);
    if folder.join(RESOLVED_PROGRAM).is_file() {
        return Ok(());
    }
    for package in RESOLVED_PACKAGES {
        fetch_one(root, "bookworm", package, RESOLVED)
            .with_context(|| format!("fetch {package} of Debian bookworm"))?;
    }
    Ok(())
}

/// Routers that speak BGP and BFD: the folder below `target/tools`, its packages of
/// Debian 12, and the program. Installed, they would be started. With them come the
/// libraries that only they need.
const ROUTERS: [(&str, &[&str], &str); 2] = [
    (
        "bird2",
        &["bird2", "libssh-gcrypt-4", "libgcrypt20", "libgpg-error0"],
        "usr/sbin/bird",
    ),
    (
        "frr",
        &["frr", "libyang2", "libjson-c5", "libcap2"],
        "usr/lib/frr/bgpd",
    ),
];

/// Fetches the routers that are not there yet.
pub(crate) fn fetch_routers(root: &Path) -> Result<()> {
    for (folder, packages, program) in ROUTERS {
        if root
            .join("target/tools")
            .join(folder)
            .join(program)
            .is_file()
        {
            continue;
        }
        for package in packages {
            fetch_one(root, "bookworm", package, folder)
                .with_context(|| format!("fetch {package} of Debian bookworm"))?;
        }
    }
    Ok(())
}

/// Fetches what is not there yet.
pub(crate) fn fetch(root: &Path) -> Result<()> {
    for (suite, package, folder) in KUBECTLS {
        if !program(root, folder).is_file() {
            fetch_one(root, suite, package, folder)
                .with_context(|| format!("fetch {package} of Debian {suite}"))?;
        }
        let path = program(root, folder);
        let words = [
            path.to_str().context("the path is UTF-8")?,
            "version",
            "--client",
        ];
        run_quiet(root, &words)?;
    }
    Ok(())
}

fn run_quiet(root: &Path, words: &[&str]) -> Result<()> {
    let mut c = command(root, words);
    c.stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    run(c, &words.join(" "))
}

fn fetch_one(root: &Path, suite: &str, package: &str, folder: &str) -> Result<()> {
    let mirror = debian_mirror().context(
        "no Debian mirror in /etc/apt: the tests need kubectl 1.32 (Debian 13's package kubectl); \
         on another system unpack it under target/tools/kubectl-1.32, and Debian 12's \
         systemd-resolved under target/tools/systemd-resolved and its bird2 and frr \
         under target/tools/bird2 and target/tools/frr",
    )?;
    let apt = root.join("target/tools/apt").join(suite);
    for sub in ["lists/partial", "cache/archives/partial", "etc"] {
        fs::create_dir_all(apt.join(sub))?;
    }
    fs::write(apt.join("status"), "")?;
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    fs::write(
        apt.join("etc/debian.sources"),
        format!(
            "Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\nSigned-By: {keyring}\n"
        ),
    )?;
    let dir = apt.display();
    let options: Vec<String> = [
        "Dir::Etc::SourceList=/dev/null".to_owned(),
        format!("Dir::Etc::SourceParts={dir}/etc"),
        format!("Dir::State={dir}"),
        format!("Dir::State::Lists={dir}/lists"),
        format!("Dir::State::status={dir}/status"),
        format!("Dir::Cache={dir}/cache"),
        "APT::Sandbox::User=".to_owned(),
        "Acquire::Languages=none".to_owned(),
        "Acquire::Retries=3".to_owned(),
    ]
    .into_iter()
    .flat_map(|o| ["-o".to_owned(), o])
    .collect();
    say(&format!("fetching {package} of Debian {suite}"));
    let mut update = command(&apt, &["apt-get", "-qq"]);
    update.args(&options).arg("update");
    run(update, "apt-get update with our own lists")?;
    let mut download = command(&apt, &["apt-get", "-qq"]);
    download.args(&options).args(["download", package]);
    run(download, &format!("apt-get download {package}"))?;
    let deb = fs::read_dir(&apt)?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .find(|p| {
            let name = p.file_name().and_then(|name| name.to_str());
            name.is_some_and(|n| n.starts_with(&format!("{package}_")) && n.ends_with(".deb"))
        })
        .context("apt-get download left no package")?;
    let into = root.join("target/tools").join(folder);
    fs::create_dir_all(&into)?;
    let (deb, into) = (deb.display().to_string(), into.display().to_string());
    check(root, &["dpkg-deb", "-x", &deb, &into])
}

/// The first Debian archive that the system's own apt sources name (deb822 or one-line form).
fn debian_mirror() -> Result<String> {
    let mut texts = vec![fs::read_to_string("/etc/apt/sources.list").unwrap_or_default()];
    let mut parts: Vec<PathBuf> = fs::read_dir("/etc/apt/sources.list.d")
        .map(|d| d.filter_map(|e| e.ok().map(|e| e.path())).collect())
        .unwrap_or_default();
    parts.sort();
    texts.extend(parts.iter().filter_map(|p| fs::read_to_string(p).ok()));
    for word in texts.iter().flat_map(|t| t.split_whitespace()) {
        let path = word.trim_end_matches('/');
        if (path.starts_with("http://") || path.starts_with("https://"))
            && path.ends_with("/debian")
        {
            return Ok(path.to_owned());
        }
    }
    bail!("no source that ends in /debian")
}
