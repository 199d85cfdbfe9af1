//! One agent in a network namespace: two would undo each other's changes.

use std::time::Duration;

use portolan_kernel::netns::NetNs;
use portolan_kernel::presence::{Presence, PresenceError, holder};
use tokio::task::JoinHandle;

/// The name that an agent holds in its namespace for as long as it runs.
pub const PRESENCE: &str = "portolan/agent";

/// How often the name is asked for while somebody else holds it.
const AGAIN: Duration = Duration::from_secs(5);

/// Holds the name, or tries to, until it is dropped.
#[derive(Debug)]
pub(crate) struct Alone {
    task: JoinHandle<()>,
}

impl Alone {
    /// Takes the name. If another agent has it, that is told once: while a new
    /// version takes over from an old one, both run for a moment.
    pub(crate) fn start(netns: &NetNs, node: &str) -> Self {
        // The first attempt comes before anything else is done.
        let first = take(netns, node, true);
        let (netns, node) = (netns.clone(), node.to_owned());
        let task = tokio::spawn(async move {
            let mut held = first;
            while held.is_none() {
                tokio::time::sleep(AGAIN).await;
                held = take(&netns, &node, false);
            }
            // Held until this task is ended.
            std::future::pending::<()>().await;
            drop(held);
        });
        Self { task }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn take(netns: &NetNs, node: &str, first: bool) -> Option<Presence> {
    let held = Presence::hold(netns, PRESENCE);
    let told = |error: &PresenceError| {
        let error = error as &dyn std::error::Error;
        tracing::warn!(node, error, "other agents here are not noticed");
    };
    match held {
        Ok(Some(held)) => return Some(held),
        Ok(None) if first => match holder(netns, PRESENCE) {
            Ok(other) => {
                let pid = other.map_or(0, |other| other.pid);
                tracing::warn!(node, pid, "another agent runs in this network namespace");
            }
            Err(error) => told(&error),
        },
        Err(error) if first => told(&error),
        Ok(None) | Err(_) => {}
    }
    None
}
