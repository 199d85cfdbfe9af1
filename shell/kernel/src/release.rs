//! Which Linux this is.

use std::fmt;
use std::io;

/// A release of Linux, as far as features depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// 6 of 6.18.2.
    pub major: u32,
    /// 18 of 6.18.2.
    pub minor: u32,
}

impl Release {
    /// The release of the kernel that runs this; none if it calls itself otherwise.
    ///
    /// # Errors
    /// If /proc cannot be read.
    pub fn running() -> io::Result<Option<Self>> {
        let text = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        Ok(Self::parse(&text))
    }

    /// `6.18.2-cloud-amd64`.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().split(|c: char| !c.is_ascii_digit());
        Some(Self {
            major: numbers.next()?.parse().ok()?,
            minor: numbers.next()?.parse().ok()?,
        })
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_and_compared() {
        let of = |text| Release::parse(text).map(|release| release.to_string());
        assert_eq!(of("6.18.2-cloud-amd64\n").as_deref(), Some("6.18"));
        assert_eq!(of("5.10-rc1").as_deref(), Some("5.10"));
        assert_eq!(of("next"), None);
        assert!(Release::parse("5.9.16") < Release::parse("5.10.0"));
        assert!(Release::running().is_ok_and(|release| release.is_some()));
    }
}
