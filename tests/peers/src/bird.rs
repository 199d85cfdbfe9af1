//! BIRD 2 in a namespace.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portolan_kernel::netns::NetNs;
use tempfile::TempDir;

use crate::tools::{libraries, tools};

fn program(name: &str) -> Result<Command> {
    let mut command = Command::new(tools("bird2", &format!("usr/sbin/{name}"))?);
    command.env("LD_LIBRARY_PATH", libraries("bird2")?);
    Ok(command)
}

/// A BIRD that runs until it is dropped.
pub struct Bird {
    child: Child,
    folder: TempDir,
}

impl Bird {
    /// Starts one with this configuration, besides what every one needs.
    ///
    /// # Errors
    /// If it is not there or does not come to listen.
    pub fn start(ns: &NetNs, config: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let text = format!(
            "log \"{0}/log\" all;\nrouter id 192.0.2.2;\nprotocol device {{}}\n{config}\n",
            folder.path().display()
        );
        let file = folder.path().join("bird.conf");
        std::fs::write(&file, text)?;
        let mut command = program("bird")?;
        command.arg("-f").arg("-c").arg(&file);
        command.arg("-s").arg(folder.path().join("control"));
        command.stdout(Stdio::null());
        let child = ns.run(|| command.spawn())?.context("start BIRD")?;
        let bird = Self { child, folder };
        crate::until("BIRD's control socket", || {
            bird.ask("show status")
                .ok()
                .filter(|said| said.contains("Daemon is up"))
        });
        Ok(bird)
    }

    /// What its client says to a command.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub fn ask(&self, words: &str) -> Result<String> {
        let mut command = program("birdcl")?;
        command.arg("-s").arg(self.control());
        let output = command.args(words.split(' ')).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(text)
        } else {
            bail!("birdcl {words}: {text}")
        }
    }

    /// Where it is asked, for who does not want a process for each question.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.folder.path().join("control")
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Sends it a signal, such as SIGSTOP.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, signal).context("send BIRD a signal")
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
