//! Node ports on 127.0.0.1 and ::1, for those who ask for them (P11, KEP-6032).
//!
//! The kernel does not translate what goes to localhost, and the switch that makes
//! it do so for IPv4 opens local services to neighbours. So a node port there is a
//! socket of ours, and what comes in is passed on to an endpoint: the plan's
//! decision for clients on the node itself, with its policies and its affinity.
//! TCP and UDP; SCTP has no node ports on localhost.
//!
//! A frontend has a socket while its decision is to forward. Connections outlive
//! the socket, and changes of endpoints; they end with the agent.

mod choice;
mod tcp;
mod udp;

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use portolan_kernel::netns::NetNs;
use portolan_model::{Family, Protocol};
use portolan_plan::{Decision, Frontend, NodePlan, Place, Touched};
use socket2::{Domain, Socket, Type};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use choice::Choice;

/// Connections and sessions of all frontends together.
const CONNECTIONS: usize = 4096;
/// Connections that may wait to be accepted at one frontend.
const BACKLOG: i32 = 128;

/// The sockets of one node. They, and what goes through them, end with this handle.
pub(crate) struct Localhost {
    shared: Arc<Shared>,
    open: BTreeMap<Frontend, Listening>,
    /// That SCTP is not served was told.
    told_of_sctp: bool,
    /// Everything that runs ends with this.
    all: CancellationToken,
}

/// What every frontend uses.
struct Shared {
    netns: NetNs,
    node: String,
    places: Arc<Semaphore>,
}

/// One frontend.
struct Listening {
    route: Arc<Route>,
    /// Ends the socket, and not what came in by it; none while there is no socket,
    /// since somebody else has the port.
    stop: Option<CancellationToken>,
}

/// Where connections of one frontend go to.
struct Route {
    choice: Mutex<Choice>,
}

impl Route {
    fn choice(&self) -> MutexGuard<'_, Choice> {
        // The choice is whole between any two statements on it.
        self.choice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn choose(&self, client: IpAddr) -> Option<SocketAddr> {
        let draw = RandomState::new().hash_one(client) as usize;
        self.choice().choose(client, Instant::now(), draw)
    }
}

impl Shared {
    /// A socket of the node's namespace that is not bound, for a way to `peer`.
    fn socket(&self, kind: Type, peer: SocketAddr) -> io::Result<Socket> {
        let open = || Socket::new(Domain::for_address(peer), kind, None);
        let socket = self.netns.run(open).map_err(io::Error::other)??;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

impl Localhost {
    /// Nothing is listened to yet.
    pub(crate) fn new(netns: &NetNs, node: &str) -> Self {
        Self {
            shared: Arc::new(Shared {
                netns: netns.clone(),
                node: node.to_owned(),
                places: Arc::new(Semaphore::new(CONNECTIONS)),
            }),
            open: BTreeMap::new(),
            told_of_sctp: false,
            all: CancellationToken::new(),
        }
    }

    /// The kernel holds the plan, of which this was touched.
    pub(crate) fn follow(&mut self, plan: &NodePlan, touched: &Touched) {
        if touched.view.is_some() {
            return self.follow_all(plan);
        }
        for frontend in touched.frontends.keys() {
            let decision = plan.frontends.get(frontend);
            self.set(plan, *frontend, decision.map(|decision| &**decision));
        }
    }

    /// The same, for every frontend; a port that somebody else had is tried again.
    pub(crate) fn follow_all(&mut self, plan: &NodePlan) {
        let gone: Vec<Frontend> = self
            .open
            .keys()
            .filter(|frontend| !plan.frontends.contains_key(*frontend))
            .copied()
            .collect();
        for frontend in gone {
            self.set(plan, frontend, None);
        }
        if !Family::BOTH
            .into_iter()
            .any(|family| plan.view.node_ports.on_localhost(family))
            && self.open.is_empty()
        {
            return;
        }
        for (frontend, decision) in &plan.frontends {
            self.set(plan, *frontend, Some(decision));
        }
    }

    /// Listens at a frontend as its decision says, or no longer.
    fn set(&mut self, plan: &NodePlan, frontend: Frontend, decision: Option<&Decision>) {
        let Place::NodePort(family) = frontend.place else {
            return;
        };
        let choice = decision
            .filter(|_| plan.view.node_ports.on_localhost(family))
            .and_then(Choice::of);
        let Some(choice) = choice else {
            if let Some(stop) = self.open.remove(&frontend).and_then(|old| old.stop) {
                stop.cancel();
            }
            return;
        };
        if frontend.protocol == Protocol::Sctp {
            if !self.told_of_sctp {
                let node = &self.shared.node;
                tracing::warn!(node, %frontend, "SCTP is not served on localhost");
            }
            self.told_of_sctp = true;
            return;
        }
        match self.open.get_mut(&frontend) {
            Some(listening) => {
                listening.route.choice().follow(choice);
                if listening.stop.is_none() {
                    listening.stop = listen(&self.shared, &self.all, frontend, &listening.route)
                        .inspect_err(|error| tracing::debug!(%frontend, %error, "not on localhost"))
                        .ok();
                }
            }
            None => {
                let choice = Mutex::new(choice);
                let route = Arc::new(Route { choice });
                let stop = listen(&self.shared, &self.all, frontend, &route)
                    .inspect_err(|error| {
                        let node = &self.shared.node;
                        tracing::warn!(node, %frontend, %error, "a node port is not served on localhost; it is tried again");
                    })
                    .ok();
                self.open.insert(frontend, Listening { route, stop });
            }
        }
    }
}

impl Drop for Localhost {
    fn drop(&mut self) {
        self.all.cancel();
    }
}

/// Opens a frontend's socket and serves it until the token is cancelled.
fn listen(
    shared: &Arc<Shared>,
    all: &CancellationToken,
    frontend: Frontend,
    route: &Arc<Route>,
) -> io::Result<CancellationToken> {
    let ip: IpAddr = match frontend.family() {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    let address = SocketAddr::new(ip, frontend.port);
    let stop = all.child_token();
    let (shared, route) = (Arc::clone(shared), Arc::clone(route));
    match frontend.protocol {
        Protocol::Tcp => {
            let socket = shared.socket(Type::STREAM, address)?;
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            let listener = tokio::net::TcpListener::from_std(socket.into())?;
            let ends = (stop.clone(), all.clone());
            tokio::spawn(tcp::serve(listener, shared, route, ends));
        }
        Protocol::Udp => {
            let socket = shared.socket(Type::DGRAM, address)?;
            socket.bind(&address.into())?;
            let socket = tokio::net::UdpSocket::from_std(socket.into())?;
            let proxy = udp::Proxy::new(socket, shared, route);
            tokio::spawn(proxy.serve(stop.clone()));
        }
        Protocol::Sctp => return Err(io::ErrorKind::Unsupported.into()),
    }
    Ok(stop)
}
