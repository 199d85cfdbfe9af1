//! Numbers that differ between agents, for timers that must not run in step.

use std::time::Duration;

/// The finishing step of SplitMix64: every bit of the input moves every bit of the
/// output. It is the same on every machine and in every version.
pub(crate) const fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// SplitMix64. Nothing secret is made of it.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A time from three quarters of the one given up to so many percent of it.
    pub(crate) fn jitter(&mut self, time: Duration, most: u32) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let span = u64::from(most.clamp(75, 100) - 75) * 100 + 1;
        let part = u32::try_from(mix(self.0) % span).unwrap_or(0);
        time * (7500 + part) / 10_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_bounds_and_uses_them() {
        let mut random = Random::new(1);
        let times: Vec<Duration> = (0..1000)
            .map(|_| random.jitter(Duration::from_secs(100), 90))
            .collect();
        let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        assert!((Duration::from_secs(75)..Duration::from_secs(76)).contains(least));
        assert!((Duration::from_secs(89)..=Duration::from_secs(90)).contains(most));
    }
}
