//! What every process tells of itself: the `process_*` metrics that Prometheus'
//! own libraries have, read from /proc at each scrape.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// The process that asks.
#[derive(Debug)]
pub(crate) struct Process;

/// Parts of /proc/self/stat behind the program's name, counted from the state.
const UTIME: usize = 11;
const STIME: usize = 12;
const STARTTIME: usize = 19;
const VSIZE: usize = 20;

/// Ticks per second in /proc: USER_HZ, the same on every architecture.
const TICKS: f64 = 100.0;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(stat) = Stat::read() else {
            return Ok(());
        };
        let cpu = ConstCounter::new((stat.part(UTIME) + stat.part(STIME)) / TICKS);
        let metric = encoder.encode_descriptor(
            "process_cpu_seconds",
            "Total user and system CPU time spent in seconds",
            None,
            cpu.metric_type(),
        )?;
        cpu.encode(metric)?;
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Resident memory size in bytes",
                resident(),
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory size in bytes",
                Some(stat.part(VSIZE)),
            ),
            (
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds",
                boot_time().map(|boot| boot + stat.part(STARTTIME) / TICKS),
            ),
            (
                "process_open_fds",
                "Number of open file descriptors",
                open_files(),
            ),
            (
                "process_max_fds",
                "Maximum number of open file descriptors",
                most_files(),
            ),
        ];
        for (name, help, value) in gauges {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}

/// /proc/self/stat, as far as it is behind the program's name.
struct Stat(Vec<f64>);

impl Stat {
    fn read() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name may hold anything, but ends with the last parenthesis.
        let (_, parts) = text.rsplit_once(')')?;
        let number = |part: &str| part.parse().unwrap_or(0.0);
        Some(Self(parts.split_whitespace().map(number).collect()))
    }

    fn part(&self, index: usize) -> f64 {
        self.0.get(index).copied().unwrap_or(0.0)
    }
}

/// VmRSS, which /proc has in KiB.
fn resident() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0)
}

/// When the machine started, in seconds since 1970.
fn boot_time() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

fn open_files() -> Option<f64> {
    let entries = std::fs::read_dir("/proc/self/fd").ok()?;
    // One of them is the folder being read.
    Some(entries.count().saturating_sub(1) as f64)
}

fn most_files() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
