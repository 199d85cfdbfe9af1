//! How figures are taken from samples and printed.

use std::io::Write;
use std::time::Duration;

/// Prints a line `figure NAME VALUE UNIT`.
pub fn figure(name: &str, value: f64, unit: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "figure {name} {value:.3} {unit}").is_err() {
        std::process::exit(1);
    }
}

/// Says what is being measured, on standard error.
pub fn say(text: &str) {
    let mut err = std::io::stderr().lock();
    // Progress that cannot be written has no other place to go.
    drop(writeln!(err, "{text}"));
}

/// The sample below which the given share of all samples lies (nearest rank).
pub fn percentile(samples: &mut [Duration], share: f64) -> Duration {
    samples.sort_unstable();
    let rank = (share * samples.len() as f64).ceil() as usize;
    samples
        .get(rank.saturating_sub(1).min(samples.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// Milliseconds with a fraction.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The largest resident memory that a process ever had, in MB (10^6 bytes).
///
/// # Errors
/// When the process is gone.
pub fn peak_memory_mb(pid: u32) -> anyhow::Result<f64> {
    status_mb(pid, "VmHWM:")
}

/// The resident memory of a process, in MB (10^6 bytes).
///
/// # Errors
/// When the process is gone.
pub fn memory_mb(pid: u32) -> anyhow::Result<f64> {
    status_mb(pid, "VmRSS:")
}

fn status_mb(pid: u32, field: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix(field));
    let kib: f64 = line
        .and_then(|l| l.split_whitespace().next())
        .unwrap_or_default()
        .parse()?;
    Ok(kib * 1024.0 / 1e6)
}

/// Alternates both ways, and tells the median of the ratios of two neighbours.
///
/// # Errors
/// Those of either way, and if there are no rounds.
pub fn alternate(
    rounds: usize,
    mut straight: impl FnMut() -> anyhow::Result<f64>,
    mut through: impl FnMut() -> anyhow::Result<f64>,
) -> anyhow::Result<f64> {
    let mut ratios = Vec::new();
    for round in 0..rounds {
        let (direct, service);
        if round % 2 == 0 {
            direct = straight()?;
            service = through()?;
        } else {
            service = through()?;
            direct = straight()?;
        }
        // The first one warms up.
        if round > 0 {
            ratios.push(service / direct);
        }
    }
    ratios.sort_unstable_by(f64::total_cmp);
    ratios
        .get(ratios.len() / 2)
        .copied()
        .ok_or_else(|| anyhow::anyhow!("no round was measured"))
}

/// The middle one.
pub fn median(samples: &mut [f64]) -> f64 {
    samples.sort_unstable_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut samples: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut samples, 0.99), Duration::from_millis(99));
        assert_eq!(percentile(&mut samples, 0.5), Duration::from_millis(50));
        assert_eq!(percentile(&mut [], 0.5), Duration::ZERO);
    }
}
