//! One connection's machine, and randomness for the timers.

use std::time::Duration;

use super::Connection;
use crate::bgp::fsm::State;
use crate::bgp::open::Agreed;
use crate::bgp::stream::Stream;

/// One connection, or the attempt at one.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) state: State,
    pub(super) connection: Option<Connection>,
    /// We opened it.
    pub(super) ours: bool,
    /// It came while another was established: the peer may have restarted.
    pub(super) after_established: bool,
    pub(super) stream: Stream,
    pub(super) hold: Option<Duration>,
    pub(super) keepalive: Option<Duration>,
    pub(super) agreed: Option<Agreed>,
}

impl Machine {
    pub(super) fn new(state: State, connection: Option<Connection>) -> Self {
        Self {
            state,
            connection,
            ours: false,
            after_established: false,
            stream: Stream::default(),
            hold: None,
            keepalive: None,
            agreed: None,
        }
    }
}

/// Numbers that differ between agents: SplitMix64. Nothing secret is made of them.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Three quarters of a time up to the whole (RFC 4271 section 10).
    pub(super) fn jitter(&mut self, time: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let part = u32::try_from((bits ^ (bits >> 31)) % 1024).unwrap_or(0);
        time * 3 / 4 + time / 4 * part / 1023
    }
}
