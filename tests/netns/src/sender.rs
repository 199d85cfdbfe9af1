//! Clients without connections, which the kernel knows by their port alone.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use portolan_conntrack::{Entry, Filter};
use portolan_kernel::conntrack::Conntrack;
use portolan_kernel::netns::NetNs;
use portolan_model::Protocol::Udp;
use tokio::time::Instant;

use crate::talk::{PATIENCE, SILENCE, Seen, knock};
use crate::world::{Client, World};

/// Between two datagrams of a client that goes on sending.
pub const PAUSE: Duration = Duration::from_millis(10);

/// A client that always sends from the same port.
#[derive(Debug)]
pub struct Sender {
    ns: NetNs,
    /// Its port.
    pub port: u16,
    /// Where it sends to.
    pub to: SocketAddr,
}

impl Sender {
    /// A client that has not sent yet.
    pub fn new(world: &World, client: Client, to: SocketAddr) -> Self {
        Self {
            ns: world.namespace(client).clone(),
            port: world.port(),
            to,
        }
    }

    /// Sends once, and does not wait for long.
    ///
    /// # Errors
    /// If nothing can be sent.
    pub async fn send(&self) -> Result<Seen> {
        knock(&self.ns, self.port, Udp, self.to, SILENCE).await
    }

    /// Who answers.
    ///
    /// # Errors
    /// If nobody does.
    pub async fn server(&self) -> Result<SocketAddr> {
        match knock(&self.ns, self.port, Udp, self.to, PATIENCE).await? {
            Seen::Answer { server, .. } => Ok(server),
            other @ (Seen::Refused | Seen::Silence | Seen::Failed(_)) => {
                anyhow::bail!("to {}: {other:?}", self.to)
            }
        }
    }

    /// Goes on sending until this is seen.
    ///
    /// # Errors
    /// If it is not seen in time.
    pub async fn until(&self, wanted: impl Fn(&Seen) -> bool) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let seen = self.send().await?;
            if wanted(&seen) {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "{} to {}: {seen:?}",
                self.port,
                self.to
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Goes on sending until this one answers.
    ///
    /// # Errors
    /// If it does not in time.
    pub async fn until_served_by(&self, wanted: SocketAddr) -> Result<()> {
        self.until(|seen| matches!(seen, Seen::Answer { server, .. } if *server == wanted))
            .await
    }
}

/// The entries of a node with this destination.
///
/// # Errors
/// If the kernel does not list them.
pub fn entries(node: &NetNs, to: SocketAddr) -> Result<Vec<Entry>> {
    let mut conntrack = Conntrack::open(node)?;
    let filter = Filter {
        protocol: Some(Udp.number()),
        destination: Some(to.ip()),
        ..Filter::default()
    };
    let at = |entry: &Entry| (entry.original.to() == Some(to)).then_some(*entry);
    Ok(conntrack.pick(&filter, at)?)
}
