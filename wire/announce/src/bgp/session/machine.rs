//! One connection's machine.

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
