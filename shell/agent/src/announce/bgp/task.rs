//! The task of one peer: the machine, its timers, and what it asks for.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use ipnet::IpNet;
use portolan_announce::bgp::config::Restart;
use portolan_announce::bgp::fsm::State;
use portolan_announce::bgp::{Config, Connection, Family, Input, News, Output, Session, Stop};
use portolan_client::{Client, SECRETS, Target};
use portolan_kernel::netns::NetNs;
use portolan_model::workloads::{Password, Peer};
use portolan_plan::announce::Route;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::connection::{Event, Writer};
use super::dial::Dial;
use super::route::{Change, attributes, next_hop};
use super::{AnnounceTold, Board, Own};

/// What connections tell that is not taken yet.
const DEPTH: usize = 16;
/// Where a message's header says its type, and that of an UPDATE (RFC 4271 section 4.1).
const TYPE_AT: usize = 18;
const UPDATE: u8 = 2;
/// How long the last message to a peer may take.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How soon a password that could not be read is asked for again.
const AGAIN: Duration = Duration::from_secs(10);

/// How a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// The agent ends, and another may follow.
    Restart,
    /// The peer is gone, or no longer for this node.
    Deconfigured,
    /// It is configured otherwise.
    Changed,
}

/// What the task is to do.
pub(super) enum Order {
    /// Tell these routes, or no longer.
    Routes(Vec<Change>),
    /// End the session.
    End(Farewell),
}

/// The task of one peer.
pub(super) struct Speaker {
    peer: Peer,
    own: Own,
    netns: NetNs,
    board: Board,
    told: AnnounceTold,
    session: Session,
    routes: BTreeMap<IpNet, Route>,
    password: Option<Vec<u8>>,
    /// Our end of the connection that was opened last.
    local: Option<IpAddr>,
    writers: BTreeMap<Connection, Writer>,
    /// Connections whose last words are still written.
    closing: Vec<JoinHandle<()>>,
    attempt: Option<JoinHandle<()>>,
    next: u64,
    start: Instant,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
}

impl Speaker {
    pub(super) fn new(
        peer: Peer,
        own: Own,
        netns: NetNs,
        board: Board,
        told: AnnounceTold,
    ) -> Self {
        let (events, inbox) = mpsc::channel(DEPTH);
        let seed = RandomState::new().build_hasher().finish();
        Self {
            session: Session::new(config(&peer, &own), seed),
            peer,
            own,
            netns,
            board,
            told,
            routes: BTreeMap::new(),
            password: None,
            local: None,
            writers: BTreeMap::new(),
            closing: Vec::new(),
            attempt: None,
            next: 0,
            start: Instant::now(),
            events,
            inbox,
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Speaks with the peer until it is told to end.
    pub(super) async fn run(mut self, client: Client, mut orders: mpsc::UnboundedReceiver<Order>) {
        if !self.password(&client, &mut orders).await {
            return;
        }
        self.handle(Input::Start);
        loop {
            self.publish();
            let due = self.session.deadline().map(|due| self.start + due);
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Routes(changes)) => {
                        self.take(changes);
                        self.flush();
                    }
                    Some(Order::End(farewell)) => break self.end(farewell),
                    None => break self.end(Farewell::Restart),
                },
                // There is always a sender: our own.
                Some(event) = self.inbox.recv() => self.happened(event),
                () = super::super::sleep_until(due) => {
                    let outputs = self.session.tick(self.now());
                    self.perform(outputs);
                }
            }
        }
        self.board.remove(&self.peer.meta.key);
        if let Some(at) = self.at() {
            self.told.ended(at);
        }
        let closing = futures::future::join_all(std::mem::take(&mut self.closing));
        if tokio::time::timeout(LAST_WORDS, closing).await.is_err() {
            let peer = self.peer.meta.key.to_string();
            tracing::debug!(peer, "a BGP peer did not take the last message");
        }
    }

    /// Finds the password, if there is one. False if the task is to end before.
    async fn password(
        &mut self,
        client: &Client,
        orders: &mut mpsc::UnboundedReceiver<Order>,
    ) -> bool {
        loop {
            match read_password(client, self.peer.password.as_ref()).await {
                Ok(password) => {
                    self.password = password;
                    return true;
                }
                Err(why) => {
                    let peer = self.peer.meta.key.to_string();
                    tracing::warn!(peer, why, "no session: its password is not known");
                }
            }
            let again = tokio::time::sleep(AGAIN);
            tokio::pin!(again);
            loop {
                tokio::select! {
                    () = &mut again => break,
                    order = orders.recv() => match order {
                        Some(Order::Routes(changes)) => self.take(changes),
                        Some(Order::End(_)) | None => return false,
                    },
                }
            }
        }
    }

    /// What is to be told from now on. The first order has all of it.
    fn take(&mut self, changes: Vec<Change>) {
        for (prefix, route) in changes {
            match route {
                Some(route) => {
                    if let Some(local) = self.local {
                        let hop = next_hop(prefix, local, &self.own.addresses);
                        let said = Arc::new(attributes(&route, hop));
                        self.session.announce(prefix, said);
                    }
                    self.routes.insert(prefix, route);
                }
                None => {
                    self.routes.remove(&prefix);
                    self.session.withdraw(prefix);
                }
            }
        }
        self.session.complete();
    }

    fn flush(&mut self) {
        let outputs = self.session.flush();
        self.perform(outputs);
    }

    fn handle(&mut self, input: Input<'_>) {
        let outputs = self.session.handle(input, self.now());
        self.perform(outputs);
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Dialled(Ok(stream)) => {
                self.attempt = None;
                let local = stream.local_addr().map(|at| at.ip().to_canonical());
                let Ok(local) = local else {
                    return self.handle(Input::ConnectFailed);
                };
                let id = Connection(self.next);
                self.next += 1;
                let hold = self.peer.hold;
                let writer = Writer::start(id, stream, hold, &self.events);
                self.writers.insert(id, writer);
                self.meet(local);
                self.handle(Input::Connected(id));
            }
            Event::Dialled(Err(error)) => {
                self.attempt = None;
                let peer = self.peer.meta.key.to_string();
                tracing::debug!(peer, %error, "a BGP peer was not reached");
                self.handle(Input::ConnectFailed);
            }
            Event::Read(id, bytes) => self.handle(Input::Received(id, &bytes)),
            Event::Closed(id) => {
                self.writers.remove(&id);
                self.handle(Input::Closed(id));
            }
        }
    }

    /// Our end of the connection is this: next hops follow from it.
    fn meet(&mut self, local: IpAddr) {
        if self.local.replace(local) == Some(local) {
            return;
        }
        for (prefix, route) in &self.routes {
            let hop = next_hop(*prefix, local, &self.own.addresses);
            let said = Arc::new(attributes(route, hop));
            self.session.announce(*prefix, said);
        }
    }

    /// Does what the machine asks for.
    fn perform(&mut self, outputs: Vec<Output>) {
        let mut is_up = false;
        for output in outputs {
            match output {
                Output::Connect => self.dial(),
                Output::CancelConnect => {
                    if let Some(attempt) = self.attempt.take() {
                        attempt.abort();
                    }
                }
                Output::Send(id, bytes) => {
                    if let Some(writer) = self.writers.get(&id) {
                        if bytes.get(TYPE_AT) == Some(&UPDATE)
                            && let Some(at) = self.at()
                        {
                            self.told.update(at);
                        }
                        writer.send(bytes);
                    }
                }
                Output::Close(id) => self.close(id),
                Output::News(news) => is_up |= self.tell(&news),
            }
        }
        if is_up {
            self.flush();
        }
    }

    fn close(&mut self, id: Connection) {
        self.closing.retain(|task| !task.is_finished());
        let writer = self.writers.remove(&id);
        self.closing.extend(writer.map(Writer::close));
    }

    fn dial(&mut self) {
        let dial = Dial {
            netns: self.netns.clone(),
            peer: self.peer.clone(),
            password: self.password.clone(),
        };
        let events = self.events.clone();
        let attempt = tokio::spawn(async move {
            let answer = dial.connect().await;
            // Nobody listens any more where the session's task has ended.
            drop(events.send(Event::Dialled(answer)).await);
        });
        if let Some(before) = self.attempt.replace(attempt) {
            before.abort();
        }
    }

    /// Says what happened. Whether the session is up now.
    fn tell(&self, news: &News) -> bool {
        let peer = self.peer.meta.key.to_string();
        match news {
            News::Up(agreed) => {
                let (hold, families) = (agreed.hold_time, &agreed.families);
                tracing::info!(peer, ?hold, ?families, "BGP session up");
                return true;
            }
            News::Down(why) => tracing::warn!(peer, %why, "BGP session down"),
            News::Failed(why) => tracing::debug!(peer, %why, "no BGP session"),
            News::Malformed(notice) => tracing::warn!(peer, %notice, "malformed UPDATE"),
        }
        false
    }

    fn publish(&self) {
        let now = jiff::Timestamp::now();
        let status = self.session.status();
        self.board.set(&self.peer.meta.key, &status, now);
        if let Some(at) = self.at() {
            let up = status.state == State::Established;
            self.told.session(at, up, status.prefixes.1);
        }
    }

    /// Where the peer is, as metrics name it.
    fn at(&self) -> Option<SocketAddr> {
        let address = self.peer.address?;
        Some(SocketAddr::new(address, self.peer.port))
    }

    fn end(&mut self, farewell: Farewell) {
        let outputs = match farewell {
            Farewell::Restart if self.peer.restart.is_some() => self.session.leave(),
            Farewell::Restart => self.stop(Stop::Shutdown),
            Farewell::Deconfigured => self.stop(Stop::Deconfigured),
            Farewell::Changed => self.stop(Stop::Changed),
        };
        self.perform(outputs);
    }

    fn stop(&mut self, stop: Stop) -> Vec<Output> {
        let now = self.now();
        self.session.handle(Input::Stop(stop), now)
    }
}

/// What is configured, as the machine has it.
fn config(peer: &Peer, own: &Own) -> Config {
    let v4 = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    };
    let own_v4 = own.addresses.iter().find_map(v4);
    let identifier = peer.router_id.or(own_v4);
    let session = peer.address.map(portolan_model::Family::of);
    let written = peer.families.iter().copied();
    let mut families: Vec<portolan_model::Family> = written.collect();
    if families.is_empty() {
        families.extend(session);
    }
    let families: Vec<Family> = families
        .into_iter()
        .map(|family| match family {
            portolan_model::Family::V4 => Family::V4,
            portolan_model::Family::V6 => Family::V6,
        })
        .collect();
    Config {
        // Without any IPv4 address, IPv4 prefixes go by way of IPv6 or not at all.
        extended_next_hop: own_v4.is_none() && families.contains(&Family::V4),
        families,
        hold_time: peer.hold,
        connect_retry: peer.connect_retry,
        restart: peer.restart.map(|seconds| Restart {
            time: Duration::from_secs(seconds.into()),
            // Whether there was another before is not known; to say so makes a peer
            // that knows of none do nothing.
            restarted: true,
        }),
        most_prefixes: peer.max_prefixes,
        ..Config::new(
            peer.local_as,
            peer.peer_as,
            identifier.unwrap_or_else(|| made_up(&own.node)),
        )
    }
}

/// An identifier for a node without an IPv4 address: of its name, never zero.
fn made_up(node: &str) -> Ipv4Addr {
    let hash = node.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    Ipv4Addr::from_bits(hash.max(1))
}

/// The password of a peer, or why it is not known.
async fn read_password(
    client: &Client,
    password: Option<&Password>,
) -> Result<Option<Vec<u8>>, String> {
    let key = match password {
        None => return Ok(None),
        Some(Password::Written(text)) => return Ok(Some(text.clone().into_bytes())),
        Some(Password::Secret(key)) => key,
    };
    let writer = portolan_client::Writer::new(client.clone(), super::super::COMPONENT);
    let target = Target::one(&SECRETS, Some(&key.namespace), &key.name);
    let secret = writer.get(target).await;
    let secret = secret.map_err(|error| format!("secret {key}: {}", error.message()))?;
    let text = portolan_api::value::str_at(&secret, "data.password");
    let engine = base64::engine::general_purpose::STANDARD;
    match engine.decode(text) {
        Ok(bytes) if !bytes.is_empty() => Ok(Some(bytes)),
        Ok(_) | Err(_) => Err(format!("secret {key} has no password")),
    }
}

#[cfg(test)]
mod tests {
    use portolan_model::workloads::Object;
    use serde_json::json;

    use super::*;

    fn own(addresses: &[&str]) -> Own {
        Own {
            node: "n1".to_owned(),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn l10_a_peer_is_configured_as_it_is_written() {
        let peer = |address: &str| {
            Peer::read(&json!({"metadata": {"name": "tor"}, "spec": {
                "localASN": 64512, "peerASN": 64513, "peerAddress": address,
                "holdTimeSeconds": 9, "maxPrefixes": 5,
                "gracefulRestart": {"restartTimeSeconds": 60},
            }}))
        };
        let made = config(&peer("192.0.2.1"), &own(&["2001:db8::7", "192.0.2.7"]));
        assert_eq!(made.identifier, Ipv4Addr::new(192, 0, 2, 7));
        assert_eq!(made.families, [Family::V4]);
        assert!(!made.extended_next_hop);
        assert_eq!(made.hold_time.as_secs(), 9);
        assert_eq!(made.most_prefixes, Some(5));
        assert_eq!(made.restart.unwrap().time.as_secs(), 60);
        let mut both = peer("2001:db8::1");
        both.families = [portolan_model::Family::V4, portolan_model::Family::V6].into();
        let made = config(&both, &own(&["2001:db8::7"]));
        assert_eq!(made.families, Family::ALL);
        assert!(made.extended_next_hop);
        assert_ne!(made.identifier, Ipv4Addr::UNSPECIFIED);
    }
}
