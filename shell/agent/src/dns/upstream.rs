//! Who answers for names outside the cluster, as the server sees it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use portolan_dns::Transport;

/// Somebody who answers for names outside the zones.
pub trait Upstream: Send + Sync {
    /// Writes a reply that is known without asking anybody, if there is one.
    fn at_once(&self, _query: &[u8], _transport: Transport, _out: &mut Vec<u8>) -> bool {
        false
    }

    /// The server that asks this one has begun to serve: a query that comes back
    /// is seen from now on.
    fn started(&self) {}

    /// Forwards a query, which has one readable question, and returns the reply
    /// with the query's ID. A reply to a query that came over TCP must be whole;
    /// one to a query over UDP may have TC set.
    fn forward(
        &self,
        query: Bytes,
        transport: Transport,
    ) -> BoxFuture<'_, Result<Bytes, UpstreamError>>;
}

/// No resolver gave a usable reply.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Nobody is configured for the name.
    #[error("there is no upstream resolver")]
    NoServer,
    /// Whoever is configured sends what it is asked back to here.
    #[error("all upstream resolvers forward to this server: a loop")]
    Loop,
    /// The last of the servers that were asked failed with `source`.
    #[error("no upstream resolver replied, the last one asked was {server}")]
    NoReply {
        /// The last one asked.
        server: SocketAddr,
        /// What became of it.
        source: io::Error,
    },
    /// All servers together took too long.
    #[error("the upstream resolvers took longer than {} ms", .0.as_millis())]
    TooLate(Duration),
    /// Too many other questions are under way.
    #[error("{0} questions to upstream resolvers are under way")]
    Busy(usize),
    /// The query cannot be read.
    #[error("the query cannot be read")]
    Unreadable,
    /// The question that this one was joined to failed.
    #[error(transparent)]
    Joined(Arc<UpstreamError>),
}

impl UpstreamError {
    /// The error itself, also of a question that others had joined.
    pub(super) fn cause(&self) -> &Self {
        match self {
            Self::Joined(error) => error.cause(),
            Self::NoServer
            | Self::Loop
            | Self::NoReply { .. }
            | Self::TooLate(_)
            | Self::Busy(_)
            | Self::Unreadable => self,
        }
    }
}
