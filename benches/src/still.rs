//! When the rules in the kernel come to rest.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portolan_kernel::nft::Nft;

/// How long the ruleset must have been still to count as still.
const STILL: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_secs(120);

/// Waits for the ruleset's generation to differ from `before`.
///
/// # Errors
/// If that takes too long.
pub async fn wait_for_change(nft: &mut Nft, before: u32) -> Result<u32> {
    let end = Instant::now() + LIMIT;
    loop {
        let now = nft.generation()?;
        if now != before {
            return Ok(now);
        }
        ensure!(
            Instant::now() < end,
            "the kernel did not change in {LIMIT:?}"
        );
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

/// Waits until the ruleset has been still for a while; returns its generation and
/// when it came.
///
/// # Errors
/// If that takes too long.
pub async fn settle(nft: &mut Nft) -> Result<(u32, Instant)> {
    let end = Instant::now() + LIMIT;
    let mut seen = (nft.generation()?, Instant::now());
    while seen.1.elapsed() < STILL {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let now = nft.generation()?;
        if now != seen.0 {
            seen = (now, Instant::now());
        }
        ensure!(Instant::now() < end, "the kernel is not still in {LIMIT:?}");
    }
    Ok(seen)
}
