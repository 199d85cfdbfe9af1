//! Asking several servers for one thing.
//!
//! The first one has a moment for itself; then the next one is asked too, and so
//! on, and whoever answers first wins. One that fails makes the next one's turn
//! come at once, unless another one is being asked already. What was asked goes on in tasks of their own: a server that never
//! answers must be found out although another one was quicker.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use portolan_dns::upstream::{Key, Outcome, Policy, Received, order};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::server::Server;
use crate::dns::UpstreamError;

/// How often the list of servers is gone through: datagrams get lost.
const ROUNDS: usize = 2;
/// How long all servers together have: less than the five seconds after which
/// stub resolvers ask again.
pub(super) const DEADLINE: Duration = Duration::from_millis(4500);

/// The servers for a domain.
pub(super) struct Route {
    pub(super) servers: Vec<Arc<Server>>,
    pub(super) policy: Policy,
    pub(super) race_after: Duration,
}

/// What came of one attempt.
type Came = (Arc<Server>, io::Result<Received>);

impl Route {
    /// Asks until somebody gives a usable reply. A refusal or failure that a server
    /// states is an answer once everybody was asked.
    pub(super) async fn ask(
        &self,
        shared: &Arc<Shared>,
        key: Key,
        permit: OwnedSemaphorePermit,
    ) -> Result<Received, UpstreamError> {
        let servers = self.servers_in_order(shared)?;
        let permit = Arc::new(permit);
        let (sender, mut results) = mpsc::channel::<Came>(ROUNDS * servers.len());
        let deadline = Instant::now() + DEADLINE;
        let mut turns = servers.iter().cycle().take(ROUNDS * servers.len());
        let mut next_at = Instant::now();
        let (mut waiting, mut finished) = (0_usize, 0_usize);
        let mut poor = None;
        let mut error = UpstreamError::NoServer;
        let mut more = true;
        loop {
            if waiting == 0 && !more {
                return poor.ok_or(error);
            }
            tokio::select! {
                biased;
                () = sleep_until(deadline) => return poor.ok_or(UpstreamError::TooLate(DEADLINE)),
                Some((server, came)) = results.recv() => {
                    waiting -= 1;
                    finished += 1;
                    match came {
                        Ok(reply) if reply.outcome() != Outcome::Failure => return Ok(reply),
                        Ok(reply) => poor = Some(reply),
                        Err(source) => {
                            let server = server.settings.address;
                            error = UpstreamError::NoReply { server, source };
                        }
                    }
                    if finished >= servers.len() && poor.is_some() && waiting == 0 {
                        return poor.ok_or(error);
                    }
                    // Whoever was asked meanwhile has its time.
                    if waiting == 0 {
                        next_at = Instant::now();
                    }
                }
                () = sleep_until(next_at), if more => {
                    let Some(server) = turns.next() else {
                        more = false;
                        continue;
                    };
                    waiting += 1;
                    tokio::spawn(attempt(
                        (Arc::clone(shared), Arc::clone(server)),
                        key,
                        sender.clone(),
                        Arc::clone(&permit),
                    ));
                    next_at = Instant::now() + self.race_after;
                }
            }
        }
    }

    fn servers_in_order(&self, shared: &Shared) -> Result<Vec<Arc<Server>>, UpstreamError> {
        let usable: Vec<&Arc<Server>> = self
            .servers
            .iter()
            .filter(|server| !server.is_looping())
            .collect();
        if usable.is_empty() {
            return Err(match self.servers.is_empty() {
                true => UpstreamError::NoServer,
                false => UpstreamError::Loop,
            });
        }
        let up: Vec<bool> = usable.iter().map(|server| server.is_up()).collect();
        if !up.contains(&true) {
            shared.counts.broken.fetch_add(1, Ordering::Relaxed);
        }
        let turn = match self.policy {
            Policy::RoundRobin => shared.turn(),
            Policy::Random | Policy::Sequential => shared.random.u64(),
        };
        let order = order(self.policy, &up, turn).into_iter();
        Ok(order
            .filter_map(|at| usable.get(at).map(|&server| Arc::clone(server)))
            .collect())
    }
}

/// Asks one server; whoever waits may have gone when it answers.
async fn attempt(
    (shared, server): (Arc<Shared>, Arc<Server>),
    key: Key,
    result: mpsc::Sender<Came>,
    permit: Arc<OwnedSemaphorePermit>,
) {
    let (came, fell) = server.question(key).await;
    if fell {
        shared.look_after(&server);
    }
    drop(result.send((server, came)).await);
    drop(permit);
}
