//! How a connection gets its endpoint.

use std::fmt;

/// How a connection gets its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Algorithm {
    /// At random, each with the chance of its weight.
    #[default]
    Random,
    /// One after the other, each as often as its weight says.
    RoundRobin,
    /// By the client's address: on every node the same endpoint, and few clients
    /// move when one comes or goes.
    Maglev,
}

/// Why a text names no algorithm that can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAlgorithm {
    /// Open connections would have to be counted.
    CountsConnections(String),
    /// Nobody knows it.
    Unknown(String),
}

/// Names, and those of IPVS schedulers.
const NAMES: [(&str, Algorithm); 7] = [
    ("random", Algorithm::Random),
    ("round-robin", Algorithm::RoundRobin),
    ("maglev", Algorithm::Maglev),
    ("rr", Algorithm::RoundRobin),
    ("wrr", Algorithm::RoundRobin),
    ("sh", Algorithm::Maglev),
    ("mh", Algorithm::Maglev),
];

/// What counts open connections, with IPVS' names.
const COUNTING: [&str; 5] = ["least-connections", "lc", "wlc", "sed", "nq"];

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Random, Self::RoundRobin, Self::Maglev];

    /// The algorithm of a name; IPVS' names of schedulers are understood.
    ///
    /// # Errors
    /// When it is none that nftables can do.
    pub fn parse(text: &str) -> Result<Self, NoAlgorithm> {
        let found = NAMES.iter().find(|(name, _)| *name == text);
        match found {
            Some((_, algorithm)) => Ok(*algorithm),
            None if COUNTING.contains(&text) => Err(NoAlgorithm::CountsConnections(text.into())),
            None => Err(NoAlgorithm::Unknown(text.into())),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Random => "random",
            Self::RoundRobin => "round-robin",
            Self::Maglev => "maglev",
        })
    }
}

impl fmt::Display for NoAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CountsConnections(text) => write!(
                f,
                "{text:?} counts open connections, which nftables cannot and only the eBPF plane will; use random, round-robin or maglev"
            ),
            Self::Unknown(text) => write!(
                f,
                "{text:?} is not a known algorithm; use random, round-robin or maglev"
            ),
        }
    }
}

impl std::error::Error for NoAlgorithm {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_those_of_ipvs_are_understood() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::parse(&algorithm.to_string()), Ok(algorithm));
        }
        assert_eq!(Algorithm::parse("wrr"), Ok(Algorithm::RoundRobin));
        assert_eq!(Algorithm::parse("mh"), Ok(Algorithm::Maglev));
        for counting in COUNTING {
            let refused = Algorithm::parse(counting).unwrap_err();
            assert!(refused.to_string().contains("eBPF"), "{refused}");
        }
        let unknown = Algorithm::parse("fastest").unwrap_err().to_string();
        assert!(unknown.contains("\"fastest\"") && unknown.contains("round-robin"));
    }
}
