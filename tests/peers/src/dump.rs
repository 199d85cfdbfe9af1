//! tcpdump at the client's.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::segment::Segment;
use crate::until;

/// A tcpdump that runs until it is dropped.
pub struct Dump {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Dump {
    /// Shows frames that pass a filter, with their link-layer addresses and the seconds
    /// since each before it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(segment: &Segment, filter: &str) -> Result<Self> {
        let mut command = Command::new("tcpdump");
        command
            .args(["-i", "link", "-e", "-n", "-l", "-tt", filter])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let client = segment.client()?;
        let spawned = client.run(|| command.spawn())?;
        let mut child = spawned.context("start tcpdump (Debian package tcpdump)")?;
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let outputs: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(child.stdout.take().context("its output")?),
            Box::new(child.stderr.take().context("its messages")?),
        ];
        for output in outputs {
            let book = Arc::clone(&lines);
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
                    book.push(line);
                }
            });
        }
        let dump = Self { child, lines };
        until("tcpdump to listen", || {
            let lines = dump.lines();
            let said = lines.iter().any(|line| line.contains("listening on"));
            said.then_some(())
        });
        Ok(dump)
    }

    /// All that it said.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.clone()
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        drop(killed);
    }
}
