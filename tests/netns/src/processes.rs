//! Which processes descend from one, and whether they are gone.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// One process: its id and when it started, so that a reused id is another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its id in this PID namespace.
    pub pid: i32,
    /// Clock ticks since boot (field 22 of /proc/PID/stat).
    pub started: u64,
}

/// Parent and start time of every process that can be seen.
fn all() -> BTreeMap<i32, (i32, Process)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
    {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<i32>().ok())
        else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        // The name in parentheses may hold anything, so fields are counted from its end.
        let Some((_, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let parent = fields.get(1).and_then(|f| f.parse().ok()).unwrap_or(0);
        let started = fields.get(19).and_then(|f| f.parse().ok()).unwrap_or(0);
        found.insert(pid, (parent, Process { pid, started }));
    }
    found
}

/// The process and all that descend from it.
pub fn descendants(of: i32) -> Vec<Process> {
    let all = all();
    let mut family: Vec<Process> = all.get(&of).map(|(_, p)| *p).into_iter().collect();
    let mut next = 0;
    while let Some(process) = family.get(next).copied() {
        next += 1;
        family.extend(
            all.values()
                .filter(|(parent, _)| *parent == process.pid)
                .map(|(_, p)| *p),
        );
    }
    family
}

/// Waits until none of the processes is there any more.
///
/// # Errors
/// When some are still there after `limit`.
pub fn wait_until_gone(processes: &[Process], limit: Duration) -> Result<()> {
    let end = Instant::now() + limit;
    loop {
        let all = all();
        let left: Vec<Process> = processes
            .iter()
            .copied()
            .filter(|p| all.get(&p.pid).is_some_and(|(_, now)| now == p))
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            bail!("still there after {limit:?}: {left:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
