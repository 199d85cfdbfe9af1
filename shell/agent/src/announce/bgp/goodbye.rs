//! Ends the sessions of a node for good.
//!
//! An agent that ends leaves without a word, so that routers keep its paths for the next
//! one. Where there will be none, that is wrong: until their restart time is over they
//! send to a node that no longer serves. A session without graceful restart makes them
//! forget (RFC 4724 section 4.2), and ends with a Cease.

use std::time::Duration;

use portolan_client::{
    BGP_PEERS, Client, METALLB_BGP_PEERS, NODES, Recorder, RequestError, Resource, Target, Writer,
};
use portolan_kernel::netns::NetNs;
use portolan_model::workloads::{BalancerNode, Object, Peer};
use tokio::sync::mpsc;

use super::super::{AnnounceTold, COMPONENT};
use super::board::{Board, ESTABLISHED};
use super::path::Paths;
use super::task::{Farewell, Order, Speaker};
use super::{Common, Own};

/// How long a peer may take until there is a session to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// A session with a router that may keep the paths of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Farewelled {
    /// The BGPPeer.
    pub peer: String,
    /// Its address.
    pub address: String,
    /// Why its session could not be ended, if so.
    pub failed: Option<String>,
}

/// The peers of a node that were asked to keep its paths when its agent ends.
///
/// # Errors
/// Those of the API server, but for a kind that it does not serve.
async fn keepers(client: &Client, node: &str) -> Result<(Own, Vec<Peer>), RequestError> {
    let writer = Writer::new(client.clone(), COMPONENT);
    let node = writer.get(Target::one(&NODES, None, node)).await?;
    let node = BalancerNode::read(&node);
    let mut peers: Vec<Peer> = Vec::new();
    for kind in [&BGP_PEERS, &METALLB_BGP_PEERS] {
        peers.extend(all(&writer, kind).await?);
    }
    peers.retain(|peer| {
        peer.takes_node(&node.meta.labels) && peer.faults.is_empty() && peer.restart.is_some()
    });
    let own = Own {
        node: node.meta.key.name.clone(),
        addresses: node.internal.clone(),
    };
    Ok((own, peers))
}

async fn all(writer: &Writer, kind: &Resource) -> Result<Vec<Peer>, RequestError> {
    match writer.get(Target::all(kind, None)).await {
        Ok(list) => {
            let items = list["items"].as_array();
            Ok(items.into_iter().flatten().map(Peer::read).collect())
        }
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Ends the sessions of a node whose agent has ended, so that routers forget its paths;
/// with `dry_run` only says which.
///
/// # Errors
/// Those of the API server. A router that is not reached is none.
pub async fn end_sessions(
    client: Client,
    node: &str,
    netns: &NetNs,
    dry_run: bool,
) -> Result<Vec<Farewelled>, RequestError> {
    let (own, peers) = keepers(&client, node).await?;
    let common = Common {
        netns: netns.clone(),
        recorder: Recorder::new(client.clone(), COMPONENT, node),
        client,
        told: AnnounceTold::default(),
        paths: Paths::new(netns.clone(), AnnounceTold::default()),
        board: Board::default(),
    };
    let ends = peers.into_iter().map(|peer| {
        let (own, common) = (own.clone(), common.clone());
        async move {
            let (name, port) = (peer.meta.key.to_string(), peer.port);
            let address = peer.address.map(|ip| std::net::SocketAddr::new(ip, port));
            Farewelled {
                peer: name,
                address: address.map_or_else(String::new, |address| address.to_string()),
                failed: match dry_run {
                    true => None,
                    false => end(peer, own, common).await.err(),
                },
            }
        }
    });
    Ok(futures::future::join_all(ends).await)
}

/// A session that comes up and ends, or why it did not.
async fn end(mut peer: Peer, own: Own, common: Common) -> Result<(), String> {
    (peer.restart, peer.bfd) = (None, None);
    let key = peer.meta.key.clone();
    let mut sessions = common.board.follow();
    let (orders, receiver) = mpsc::unbounded_channel();
    let task = tokio::spawn(Speaker::new(peer, own, common).run(receiver));
    // There is nothing to tell, and that is all.
    let told = orders.send(Order::Routes(Vec::new()));
    let is_up = sessions.wait_for(|all| all.get(&key).is_some_and(|one| one.state == ESTABLISHED));
    let is_up = tokio::time::timeout(PATIENCE, is_up).await.is_ok();
    let why = sessions
        .borrow()
        .get(&key)
        .map(|one| one.message().to_owned());
    let ended = orders.send(Order::End(Farewell::Deconfigured));
    let over = task.await;
    match is_up && told.is_ok() && ended.is_ok() && over.is_ok() {
        true => Ok(()),
        false => Err(why
            .filter(|why| !why.is_empty())
            .unwrap_or_else(|| format!("no session within {} s", PATIENCE.as_secs()))),
    }
}
