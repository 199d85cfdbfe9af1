//! The structure, checked: arrows, purity, sizes, and that ARCHITECTURE.md
//! names the crates that exist.
//!
//! Every fault is listed before the task fails, so that one run tells all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::{check, output, say};

/// The level table of ARCHITECTURE.md. A crate depends only on crates of a lower
/// level; a new arrow is a reviewed change of this table.
const LEVELS: [(&str, u8); 19] = [
    ("portolan-announce", 0),
    ("portolan-api", 0),
    ("portolan-dns", 0),
    ("portolan-netlink", 0),
    ("portolan-spdy", 0),
    ("portolan-conntrack", 1),
    ("portolan-nflog", 1),
    ("portolan-model", 1),
    ("portolan-nft", 1),
    ("portolan-plan", 2),
    ("portolan-render", 3),
    ("portolan-why", 4),
    ("portolan-client", 5),
    ("portolan-kernel", 5),
    ("portolan-apiserver", 6),
    ("portolan-agent", 7),
    ("portolan-lab", 7),
    ("portolan", 8),
    ("portolan-testkit", 8),
];

/// Packages outside the product, which may depend on anything.
const OUTSIDE: [&str; 5] = [
    "portolan-netns",
    "portolan-peers",
    "portolan-conformance",
    "portolan-benches",
    "xtask",
];

/// What a pure crate may not reach: a runtime, sockets, the kernel.
const IMPURE: [&str; 7] = [
    "tokio",
    "nix",
    "aya",
    "socket2",
    "libc",
    "hyper",
    "rtnetlink",
];

const LINES_MAX: usize = 1000;
const LINES_EXPLAINED: usize = 600;

/// `cargo fmt --check` and clippy with warnings denied, over everything.
pub(crate) fn formatting_and_lints(root: &Path) -> Result<()> {
    check(root, &["cargo", "fmt", "--all", "--check"])?;
    check(
        root,
        &[
            "cargo",
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ],
    )
}

/// Checks everything and lists every fault.
pub(crate) fn run(root: &Path) -> Result<()> {
    let packages = packages(root)?;
    let mut faults = Vec::new();
    arrows(&packages, &mut faults);
    purity(root, &packages, &mut faults)?;
    let files = tracked_files(root)?;
    texts(root, &files, &mut faults)?;
    crate_heads(&packages, &mut faults)?;
    city_map(root, &packages, &mut faults)?;
    if let Err(error) = crate::codegen::run(root, true) {
        faults.push(error.to_string());
    }
    if faults.is_empty() {
        say(&format!(
            "tidy: {} packages, {} files, nothing to mend",
            packages.len(),
            files.len()
        ));
        return Ok(());
    }
    bail!(
        "tidy found {} faults:\n  {}",
        faults.len(),
        faults.join("\n  ")
    )
}

/// One workspace package.
struct Package {
    name: String,
    dir: PathBuf,
    dependencies: BTreeSet<String>,
}

impl Package {
    /// In `core/` or `wire/`: values in, values out.
    fn is_pure(&self, root: &Path) -> bool {
        self.dir.starts_with(root.join("core")) || self.dir.starts_with(root.join("wire"))
    }
}

fn packages(root: &Path) -> Result<Vec<Package>> {
    let text = output(
        root,
        &["cargo", "metadata", "--format-version", "1", "--no-deps"],
    )?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata")?;
    let list = metadata["packages"]
        .as_array()
        .context("packages of cargo metadata")?;
    let mut packages = Vec::new();
    for package in list {
        let manifest = PathBuf::from(package["manifest_path"].as_str().context("manifest_path")?);
        let dependencies = package["dependencies"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|d| d["kind"].as_str() != Some("dev"))
            .filter_map(|d| d["name"].as_str().map(str::to_owned))
            .collect();
        packages.push(Package {
            name: package["name"].as_str().context("name")?.to_owned(),
            dir: manifest
                .parent()
                .context("a manifest lies in a folder")?
                .to_owned(),
            dependencies,
        });
    }
    Ok(packages)
}

fn arrows(packages: &[Package], faults: &mut Vec<String>) {
    let levels: BTreeMap<&str, u8> = LEVELS.into_iter().collect();
    for package in packages {
        if OUTSIDE.contains(&package.name.as_str()) {
            continue;
        }
        let Some(level) = levels.get(package.name.as_str()) else {
            faults.push(format!(
                "{}: not in the level table of xtask/src/tidy.rs",
                package.name
            ));
            continue;
        };
        for dependency in &package.dependencies {
            if let Some(other) = levels.get(dependency.as_str())
                && other >= level
            {
                faults.push(format!(
                    "{} (level {level}) depends on {dependency} (level {other}): arrows go down",
                    package.name
                ));
            }
            if OUTSIDE.contains(&dependency.as_str()) {
                faults.push(format!(
                    "{} depends on {dependency}, which is not of the product",
                    package.name
                ));
            }
        }
    }
}

fn purity(root: &Path, packages: &[Package], faults: &mut Vec<String>) -> Result<()> {
    for package in packages.iter().filter(|p| p.is_pure(root)) {
        let tree = output(
            root,
            &[
                "cargo",
                "tree",
                "-p",
                &package.name,
                "-e",
                "normal",
                "--prefix",
                "none",
                "--locked",
            ],
        )?;
        let reached: BTreeSet<&str> = tree
            .lines()
            .filter_map(|l| l.split_whitespace().next())
            .collect();
        for name in IMPURE.iter().filter(|n| reached.contains(**n)) {
            faults.push(format!("{} is pure and reaches {name}", package.name));
        }
    }
    Ok(())
}

fn tracked_files(root: &Path) -> Result<Vec<PathBuf>> {
    let text = output(root, &["git", "ls-files", "-co", "--exclude-standard"])?;
    Ok(text
        .lines()
        .map(PathBuf::from)
        .filter(|p| root.join(p).is_file())
        .collect())
}

/// Length and white space of our own texts.
fn texts(root: &Path, files: &[PathBuf], faults: &mut Vec<String>) -> Result<()> {
    let explained = explained_long_files(root)?;
    let kinds = ["rs", "md", "toml", "yaml", "scn", "sh"];
    for file in files {
        let Some(kind) = file.extension().and_then(|x| x.to_str()) else {
            continue;
        };
        if !kinds.contains(&kind) {
            continue;
        }
        let text =
            fs::read_to_string(root.join(file)).with_context(|| file.display().to_string())?;
        for (index, line) in text.lines().enumerate() {
            if line.ends_with([' ', '\t']) {
                faults.push(format!(
                    "{}:{}: white space at the end",
                    file.display(),
                    index + 1
                ));
            }
        }
        let count = text.lines().count();
        let name = file.display().to_string();
        if kind == "rs" && count > LINES_MAX {
            faults.push(format!(
                "{name}: {count} lines, more than {LINES_MAX}: split it by meaning"
            ));
        } else if kind == "rs" && count > LINES_EXPLAINED && !explained.contains(&name) {
            faults.push(format!(
                "{name}: {count} lines: split it by meaning, or explain it in tidy-allow.txt"
            ));
        }
    }
    Ok(())
}

/// `tidy-allow.txt`: lines `PATH: why it is long`.
fn explained_long_files(root: &Path) -> Result<BTreeSet<String>> {
    let path = root.join("tidy-allow.txt");
    if !path.exists() {
        return Ok(BTreeSet::new());
    }
    let text = fs::read_to_string(&path)?;
    Ok(text
        .lines()
        .filter(|l| !l.trim().is_empty() && !l.starts_with('#'))
        .filter_map(|l| l.split_once(": ").map(|(path, _)| path.to_owned()))
        .collect())
}

/// Every `lib.rs` and `main.rs` opens with prose and stays a table of contents.
fn crate_heads(packages: &[Package], faults: &mut Vec<String>) -> Result<()> {
    for package in packages {
        for head in ["src/lib.rs", "src/main.rs"] {
            let path = package.dir.join(head);
            if !path.is_file() {
                continue;
            }
            let text = fs::read_to_string(&path)?;
            if !text.starts_with("//!") {
                faults.push(format!(
                    "{}/{head}: open with `//!`: what this room is",
                    package.name
                ));
            }
            if head == "src/lib.rs" && text.lines().count() > 100 {
                faults.push(format!("{}/{head}: more than 100 lines", package.name));
            }
        }
    }
    Ok(())
}

/// ARCHITECTURE.md names every crate folder, and every crate folder it names exists.
fn city_map(root: &Path, packages: &[Package], faults: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).context("ARCHITECTURE.md")?;
    let mut folders = BTreeSet::new();
    for package in packages {
        let folder = package.dir.strip_prefix(root)?.display().to_string();
        if !text.contains(&format!("`{folder}`")) {
            faults.push(format!("ARCHITECTURE.md does not name `{folder}`"));
        }
        folders.insert(folder);
    }
    let named = text.split('`').skip(1).step_by(2);
    for name in named {
        let is_room = ["core/", "wire/", "shell/"].iter().any(|ring| {
            name.strip_prefix(ring)
                .is_some_and(|rest| !rest.is_empty() && !rest.contains('/'))
        });
        if is_room && !folders.contains(name) {
            faults.push(format!(
                "ARCHITECTURE.md names `{name}`, which does not exist"
            ));
        }
    }
    Ok(())
}
