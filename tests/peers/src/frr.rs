//! FRR's bgpd in a namespace, alone: without zebra it installs nothing, but it speaks.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use portolan_kernel::netns::NetNs;
use tempfile::TempDir;

use crate::tools::tools;

/// A bgpd that runs until it is dropped.
pub struct Frr {
    child: Child,
    folder: TempDir,
}

impl Frr {
    /// Starts one with this configuration, besides what every one needs.
    ///
    /// # Errors
    /// If it is not there or cannot be started.
    pub fn start(ns: &NetNs, config: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path();
        let file = path.join("bgpd.conf");
        let text = format!("log file {}/log\n{config}\n", path.display());
        std::fs::write(&file, text)?;
        let mut command = Command::new(tools("frr", "usr/lib/frr/bgpd")?);
        command.env("LD_LIBRARY_PATH", crate::tools::libraries("frr")?);
        // No privileges to give up: the user is root of the user namespace.
        command.args(["--no_zebra", "--skip_runas", "-u", "root", "-g", "root"]);
        command.arg("-f").arg(&file).arg("-i").arg(path.join("pid"));
        command.arg("--vty_socket").arg(path).args(["-P", "0"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = ns.run(|| command.spawn())?.context("start bgpd")?;
        let frr = Self { child, folder };
        crate::until("bgpd's socket", || {
            frr.ask("show bgp summary")
                .ok()
                .filter(|said| !said.is_empty())
        });
        Ok(frr)
    }

    /// What it says to a command. (The protocol of vtysh: a command ends with a zero
    /// byte, its answer with three and a status.)
    ///
    /// # Errors
    /// If it cannot be asked, or does not know the command.
    pub fn ask(&self, words: &str) -> Result<String> {
        let mut socket = UnixStream::connect(self.folder.path().join("bgpd.vty"))?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        // As vtysh begins.
        command(&mut socket, "enable")?;
        command(&mut socket, words)
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Frr {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// One command, and its answer.
fn command(socket: &mut UnixStream, words: &str) -> Result<String> {
    socket.write_all(words.as_bytes())?;
    socket.write_all(&[0])?;
    let mut said = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let length = socket.read(&mut piece)?;
        said.extend_from_slice(piece.get(..length).unwrap_or_default());
        if length == 0 {
            bail!("bgpd hung up on {words:?}");
        }
        let Some((text, [0, 0, 0, status])) = said.split_last_chunk::<4>() else {
            continue;
        };
        let text = String::from_utf8_lossy(text).into_owned();
        if *status != 0 {
            bail!("bgpd does not take {words:?}: {text}");
        }
        return Ok(text);
    }
}
