//! A way to the API server that can be shut: connections are passed on while it is
//! open; when it shuts they break, and new ones are refused.

use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};

use anyhow::{Context, Result};
use portolan_kernel::netns::NetNs;
use portolan_model::Family;
use portolan_netns::world::{Client, World};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// The door, in the town's outside.
pub(crate) struct Door {
    outside: NetNs,
    /// Where it is.
    pub(crate) at: SocketAddr,
    to: SocketAddr,
    keeper: Option<JoinHandle<()>>,
}

impl Door {
    /// A closed door to a port of the outside.
    pub(crate) fn new(world: &World, port: u16) -> Result<Self> {
        let outside = world.fabric.outside().clone();
        let ip = world.address(Client::Outside, Family::V4);
        let at = outside
            .run(|| StdListener::bind((ip, 0)))?
            .context("find a port")?
            .local_addr()?;
        Ok(Self {
            outside,
            at,
            to: SocketAddr::new(ip, port),
            keeper: None,
        })
    }

    pub(crate) fn open(&mut self) -> Result<()> {
        let listener = self
            .outside
            .run(|| StdListener::bind(self.at))?
            .context("open the door")?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (outside, to) = (self.outside.clone(), self.to);
        self.keeper = Some(tokio::spawn(async move {
            let mut guests = JoinSet::new();
            while let Ok((guest, _)) = listener.accept().await {
                let Ok(Ok(inner)) = outside.run(|| StdStream::connect(to)) else {
                    continue;
                };
                guests.spawn(pass(guest, inner));
                while guests.try_join_next().is_some() {}
            }
        }));
        Ok(())
    }

    /// Shuts it; what is under way breaks.
    pub(crate) async fn close(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.abort();
            // Its end is that of an abort.
            drop(keeper.await);
        }
    }
}

async fn pass(mut guest: TcpStream, inner: StdStream) {
    if inner.set_nonblocking(true).is_ok()
        && let Ok(mut inner) = TcpStream::from_std(inner)
    {
        // However it ends: both sides are shut then.
        drop(tokio::io::copy_bidirectional(&mut guest, &mut inner).await);
    }
}
