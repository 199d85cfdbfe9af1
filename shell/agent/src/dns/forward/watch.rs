//! Servers that are down, and servers that forward to here.

use std::sync::{Arc, Weak};
use std::time::Duration;

use portolan_dns::upstream::Key;
use portolan_dns::{Name, Rtype};
use tokio::time::sleep;

use super::Shared;
use super::server::Server;

/// How long a question of our own may wander until it counts as lost.
const WANDER: Duration = Duration::from_secs(2);
/// How often it is looked whether a server that forwards to here still does.
const AGAIN: Duration = Duration::from_secs(30);

impl Shared {
    /// Looks for a server that is down until it answers.
    pub(super) fn look_after(self: &Arc<Self>, server: &Arc<Server>) {
        tracing::warn!(server = %server.settings, "an upstream resolver does not reply and is not asked for now");
        self.runtime
            .spawn(revive(Arc::downgrade(self), Arc::downgrade(server)));
    }

    /// Finds out whether a server forwards to here.
    pub(super) fn look_for_loop(self: &Arc<Self>, server: &Arc<Server>) {
        self.runtime
            .spawn(test_for_loop(Arc::downgrade(self), Arc::downgrade(server)));
    }
}

/// Asks for the name servers of the root, as CoreDNS does, which any resolver
/// answers somehow.
async fn revive(shared: Weak<Shared>, server: Weak<Server>) {
    let Some(question) = Key::of(&portolan_dns::query(0, &Name::root(), Rtype::NS)) else {
        return;
    };
    loop {
        let Some(wait) = server.upgrade().and_then(|server| server.wait()) else {
            return;
        };
        sleep(wait).await;
        let (Some(shared), Some(server)) = (shared.upgrade(), server.upgrade()) else {
            return;
        };
        if server.is_up() || server.probe(question).await {
            tracing::info!(server = %server.settings, "an upstream resolver replies again");
            shared.look_for_loop(&server);
            return;
        }
    }
}

/// Sends a question that nobody else knows. If it comes here, the server sends
/// what it is asked to here: whatever we asked it would go round for ever.
async fn test_for_loop(shared: Weak<Shared>, server: Weak<Server>) {
    loop {
        let (Some(shared), Some(server)) = (shared.upgrade(), server.upgrade()) else {
            return;
        };
        let secret = format!("{:016x}.{:016x}.", shared.random.u64(), shared.random.u64());
        let Ok(name) = Name::parse(&secret) else {
            return;
        };
        let Some(key) = Key::of(&portolan_dns::query(0, &name, Rtype::HINFO)) else {
            return;
        };
        let came_back = shared.expect(&name);
        let replied = server.exchange(key);
        let wandered = tokio::time::timeout(WANDER, async {
            tokio::select! {
                biased;
                Ok(()) = came_back => true,
                replied = replied => replied.is_err(),
            }
        });
        let looping = match wandered.await {
            Ok(_) | Err(_) if shared.has_come_back(&name) => Some(true),
            Ok(false) => Some(false),
            // No reply: nothing is known, and it is tested again.
            Ok(true) | Err(_) => None,
        };
        if let Some(looping) = looping
            && server.set_looping(looping)
        {
            if looping {
                tracing::error!(server = %server.settings, "an upstream resolver sends queries back to this server: a loop; it is not asked any more. Name other resolvers in the configuration, or the ones behind it in place of itself");
            } else {
                tracing::info!(server = %server.settings, "an upstream resolver no longer sends queries back");
            }
        }
        if looping == Some(false) {
            return;
        }
        drop((shared, server));
        sleep(AGAIN).await;
    }
}
