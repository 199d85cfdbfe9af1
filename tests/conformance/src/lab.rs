//! A `portolan up` that a test owns: started, waited for, and ended.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::tools;

/// How long a lab may take to be up; a busy machine is slow.
const UP: Duration = Duration::from_secs(60);
/// How long it may take to end.
const DOWN: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A running lab. Dropping it ends it.
pub struct Lab {
    child: Child,
    folder: TempDir,
    data_dir: PathBuf,
}

impl Lab {
    /// Starts a lab with `nodes` nodes and waits until it says that it is up.
    ///
    /// # Errors
    /// When it ends early or is not up in time; the error carries what it printed.
    pub fn start(nodes: u8, more: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for the lab")?;
        let data_dir = folder.path().join("data");
        Self::start_in(folder, data_dir, nodes, more)
    }

    fn start_in(folder: TempDir, data_dir: PathBuf, nodes: u8, more: &[&str]) -> Result<Self> {
        let bin = folder.path().join("bin");
        if !bin.exists() {
            fs::create_dir(&bin)?;
            symlink(tools::kubectl()?, bin.join("kubectl"))?;
            symlink(tools::portolan()?, bin.join("portolan"))?;
        }
        let log = File::create(folder.path().join("up.log"))?;
        let child = Command::new(tools::portolan()?)
            .args(["up", "--nodes", &nodes.to_string(), "--data-dir"])
            .arg(&data_dir)
            .args(["--listen", &format!("127.0.0.1:{}", tools::free_port()?)])
            .args(more)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start portolan up")?;
        let mut lab = Self {
            child,
            folder,
            data_dir,
        };
        lab.wait_until_up()?;
        Ok(lab)
    }

    fn wait_until_up(&mut self) -> Result<()> {
        let end = Instant::now() + UP;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                bail!("portolan up ended with {status}:\n{}", self.printed());
            }
            if self.printed().contains("The lab is up") {
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
        bail!("portolan up is not up after {UP:?}:\n{}", self.printed())
    }

    /// What `portolan up` printed so far.
    pub fn printed(&self) -> String {
        fs::read_to_string(self.folder.path().join("up.log")).unwrap_or_default()
    }

    /// The kubeconfig that it wrote.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("kubeconfig")
    }

    /// Its data dir.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The process id of the program that was started.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// A shell command as a user types it: kubectl 1.32 and portolan are on PATH, KUBECONFIG is set.
    pub fn shell(&self, folder: &Path, line: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command
            .args(["-c", line])
            .current_dir(folder)
            .env(
                "PATH",
                format!(
                    "{}:{path}:/usr/sbin:/sbin",
                    self.folder.path().join("bin").display()
                ),
            )
            .env("HOME", self.folder.path())
            .env("KUBECONFIG", self.kubeconfig())
            .stdin(Stdio::null());
        command
    }

    /// Runs a shell command and returns what it printed on standard output.
    ///
    /// # Errors
    /// When it fails; the error carries all that it printed.
    pub fn run(&self, line: &str) -> Result<String> {
        let out = self
            .shell(self.folder.path(), line)
            .output()
            .with_context(|| line.to_owned())?;
        let Output {
            status,
            stdout,
            stderr,
        } = out;
        let text = String::from_utf8_lossy(&stdout).into_owned();
        if !status.success() {
            bail!(
                "`{line}` ended with {status}\n{text}{}",
                String::from_utf8_lossy(&stderr)
            );
        }
        Ok(text)
    }

    /// Runs a shell command again and again until `holds` accepts what it printed.
    ///
    /// # Errors
    /// After `limit`, with what it printed last.
    pub fn until(
        &self,
        limit: Duration,
        line: &str,
        holds: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let end = Instant::now() + limit;
        loop {
            let last = match self.run(line) {
                Ok(text) if holds(&text) => return Ok(text),
                Ok(text) => text,
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() >= end {
                bail!("`{line}` did not come to what was expected in {limit:?}; last:\n{last}");
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Ends the lab as Ctrl-C does and returns its exit status.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(mut self) -> Result<std::process::ExitStatus> {
        kill(self.pid(), Signal::SIGTERM).context("TERM portolan up")?;
        self.wait_for_end()
    }

    /// Kills the lab with SIGKILL and starts it again on the same data dir.
    ///
    /// # Errors
    /// When it cannot be killed or does not come up again.
    pub fn kill_and_restart(mut self, nodes: u8, more: &[&str]) -> Result<Self> {
        kill(self.pid(), Signal::SIGKILL).context("KILL portolan up")?;
        self.wait_for_end()?;
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir()?);
        let data_dir = self.data_dir.clone();
        drop(self);
        Self::start_in(folder, data_dir, nodes, more)
    }

    fn wait_for_end(&mut self) -> Result<std::process::ExitStatus> {
        let end = Instant::now() + DOWN;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(LOOK);
        }
        bail!("portolan up did not end in {DOWN:?}:\n{}", self.printed())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let asked = kill(self.pid(), Signal::SIGTERM);
            if asked.is_err() || self.wait_for_end().is_err() {
                drop(self.child.kill());
                drop(self.child.wait());
            }
        }
    }
}
