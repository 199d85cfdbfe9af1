//! The task of one peer: the machine, its timers, and what it asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use portolan_announce::bgp::fsm::State;
use portolan_announce::bgp::{Connection, Input, News, Output, Reason, Session, Stop};
use portolan_client::Severity;
use portolan_model::workloads::{Bfd, Peer};
use portolan_plan::announce::Route;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::config::{config, read_password, regarding};
use super::connection::{Event, Writer};
use super::dial::Dial;
use super::fault::Fault;
use super::path::{Path, PathStanding};
use super::route::{Change, attributes, next_hop};
use super::{Common, Own};

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
    /// Look after the path so from now on, or not at all.
    Watch(Option<Bfd>),
    /// End the session.
    End(Farewell),
}

/// The task of one peer.
pub(super) struct Speaker {
    peer: Peer,
    own: Own,
    common: Common,
    session: Session,
    /// What was last the matter, and when.
    last: Option<(Fault, Timestamp)>,
    /// Why the last connection was not opened.
    attempted: Option<Fault>,
    /// What an event has told of since the session was last up.
    events_told: BTreeSet<String>,
    /// Whether the password may be another by now.
    doubtful: bool,
    routes: BTreeMap<IpNet, Route>,
    password: Option<Vec<u8>>,
    /// Our end of the connection that was opened last.
    local: Option<IpAddr>,
    /// Both of its ends.
    ends: Option<[SocketAddr; 2]>,
    /// The path, once it is looked after.
    path: Option<Path>,
    /// How many times it was found to be broken.
    breaks: u64,
    writers: BTreeMap<Connection, Writer>,
    /// Connections whose last words are still written.
    closing: Vec<JoinHandle<()>>,
    attempt: Option<JoinHandle<()>>,
    /// Whether the task is about to end.
    ends_now: bool,
    next: u64,
    start: Instant,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
}

impl Speaker {
    pub(super) fn new(peer: Peer, own: Own, common: Common) -> Self {
        let (events, inbox) = mpsc::channel(DEPTH);
        let seed = RandomState::new().build_hasher().finish();
        Self {
            session: Session::new(config(&peer, &own), seed),
            peer,
            own,
            common,
            last: None,
            attempted: None,
            events_told: BTreeSet::new(),
            doubtful: false,
            routes: BTreeMap::new(),
            password: None,
            local: None,
            ends: None,
            path: None,
            breaks: 0,
            writers: BTreeMap::new(),
            closing: Vec::new(),
            attempt: None,
            ends_now: false,
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
    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        if !self.password(&mut orders).await {
            self.common.board.remove(&self.peer.meta.key);
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
                    Some(Order::Watch(bfd)) => {
                        self.peer.bfd = bfd;
                        self.watch().await;
                    }
                    Some(Order::End(farewell)) => break self.end(farewell).await,
                    None => break self.end(Farewell::Restart).await,
                },
                standing = Path::changed(&mut self.path) => self.path_changed(standing),
                // There is always a sender: our own.
                Some(event) = self.inbox.recv() => {
                    self.happened(event);
                    self.watch().await;
                    self.doubt().await;
                }
                () = super::super::sleep_until(due) => {
                    let outputs = self.session.tick(self.now());
                    self.perform(outputs);
                    self.doubt().await;
                }
            }
        }
        self.common.board.remove(&self.peer.meta.key);
        if let Some(at) = self.at() {
            self.common.told.ended(at);
        }
        let closing = futures::future::join_all(std::mem::take(&mut self.closing));
        if tokio::time::timeout(LAST_WORDS, closing).await.is_err() {
            let peer = self.peer.meta.key.to_string();
            tracing::debug!(peer, "a BGP peer did not take the last message");
        }
    }

    /// Finds the password, if there is one. False if the task is to end before.
    async fn password(&mut self, orders: &mut mpsc::UnboundedReceiver<Order>) -> bool {
        loop {
            match read_password(&self.common.client, self.peer.password.as_ref()).await {
                Ok(password) => {
                    self.password = password;
                    return true;
                }
                Err(why) => {
                    let peer = self.peer.meta.key.to_string();
                    tracing::warn!(peer, why, "no session: its password is not known");
                    self.fail(Fault::no_password(why));
                    self.publish();
                }
            }
            let again = tokio::time::sleep(AGAIN);
            tokio::pin!(again);
            loop {
                tokio::select! {
                    () = &mut again => break,
                    order = orders.recv() => match order {
                        Some(Order::Routes(changes)) => self.take(changes),
                        Some(Order::Watch(bfd)) => self.peer.bfd = bfd,
                        Some(Order::End(_)) | None => return false,
                    },
                }
            }
        }
    }

    /// Reads the password again after a failure that another one may have caused.
    async fn doubt(&mut self) {
        if !std::mem::take(&mut self.doubtful) || self.peer.password.is_none() {
            return;
        }
        let read = read_password(&self.common.client, self.peer.password.as_ref());
        match tokio::time::timeout(AGAIN, read).await {
            Ok(Ok(password)) => self.password = password,
            Ok(Err(why)) => {
                let peer = self.peer.meta.key.to_string();
                tracing::debug!(peer, why, "the password was not read again");
            }
            Err(_late) => {}
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

    /// Has the path looked after once there is a session, as it is configured now.
    async fn watch(&mut self) {
        let wanted = self.peer.bfd.zip(self.ends);
        let is_so = |path: &Path| {
            let same = |[local, peer]: [SocketAddr; 2]| (local.ip(), peer.ip());
            wanted.is_some_and(|(bfd, ends)| path.bfd == bfd && same(path.ends) == same(ends))
        };
        let is_up = self.session.agreed().is_some();
        // Without a session, the path of the last one shows whether it can come back.
        if self.path.as_ref().is_some_and(is_so) || (self.peer.bfd.is_some() && !is_up) {
            return;
        }
        if let Some(path) = self.path.take() {
            path.end().await;
        }
        self.breaks = 0;
        if let Some((bfd, ends)) = wanted {
            match self.common.paths.start(ends, bfd, self.peer.far) {
                Ok(path) => self.path = Some(path),
                Err(error) => {
                    let peer = self.peer.meta.key.to_string();
                    tracing::warn!(peer, %error, "no BFD: there is no thread for it");
                }
            }
        }
    }

    /// A path that is broken ends the session, which is tried again as after any error.
    fn path_changed(&mut self, standing: PathStanding) {
        if std::mem::replace(&mut self.breaks, standing.breaks) != standing.breaks {
            let outputs = self.stop(Stop::PathDown);
            self.perform(outputs);
        }
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
                let (Ok(local), Ok(peer)) = (stream.local_addr(), stream.peer_addr()) else {
                    return self.handle(Input::ConnectFailed);
                };
                self.ends = Some([local, peer]);
                let local = local.ip().to_canonical();
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
                self.attempted = Some(Fault::refused(&self.peer, &error));
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
                Output::CancelConnect => self.give_up(),
                Output::Send(id, bytes) => {
                    if let Some(writer) = self.writers.get(&id) {
                        if bytes.get(TYPE_AT) == Some(&UPDATE)
                            && let Some(at) = self.at()
                        {
                            self.common.told.update(at);
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

    /// An attempt has taken too long, or is no longer wanted.
    fn give_up(&mut self) {
        let Some(attempt) = self.attempt.take() else {
            return;
        };
        attempt.abort();
        if !self.ends_now {
            self.fail(Fault::no_answer(&self.peer));
        }
    }

    /// Notes what is the matter, and tells of it once, until the session is up again.
    fn fail(&mut self, fault: Fault) {
        if self.events_told.insert(fault.text.clone()) {
            let node = &self.own.node;
            let text = format!("node {node}: {}", fault.text);
            let about = regarding(&self.peer);
            let recorder = &self.common.recorder;
            recorder.tell(&about, Severity::Warning, fault.reason, &text);
        }
        self.doubtful = true;
        self.last = Some((fault, Timestamp::now()));
    }

    fn dial(&mut self) {
        let dial = Dial {
            netns: self.common.netns.clone(),
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
    fn tell(&mut self, news: &News) -> bool {
        let peer = self.peer.meta.key.to_string();
        match news {
            News::Up(agreed) => {
                let (hold, families) = (agreed.hold_time, &agreed.families);
                tracing::info!(peer, ?hold, ?families, "BGP session up");
                self.attempted = None;
                if !std::mem::take(&mut self.events_told).is_empty() {
                    let node = &self.own.node;
                    let text = format!("node {node}: the session is up again");
                    let about = regarding(&self.peer);
                    let recorder = &self.common.recorder;
                    recorder.tell(&about, Severity::Normal, "SessionUp", &text);
                }
                return true;
            }
            News::Down(why) => {
                tracing::warn!(peer, %why, "BGP session down");
                self.failed(why);
            }
            News::Failed(why) => {
                tracing::debug!(peer, %why, "no BGP session");
                self.failed(why);
            }
            News::Malformed(notice) => tracing::warn!(peer, %notice, "malformed UPDATE"),
        }
        false
    }

    fn failed(&mut self, why: &Reason) {
        if let Some(fault) = Fault::of(why, &self.peer, self.attempted.as_ref()) {
            self.fail(fault);
        }
    }

    fn publish(&self) {
        let status = self.session.status();
        let path = self.path.as_ref().map(|path| path.standing().name());
        let (board, key) = (&self.common.board, &self.peer.meta.key);
        board.set(key, &status, path, self.last.as_ref());
        if let Some(at) = self.at() {
            let up = status.state == State::Established;
            self.common.told.session(at, up, status.prefixes.1);
        }
    }

    /// Where the peer is, as metrics name it.
    fn at(&self) -> Option<SocketAddr> {
        let address = self.peer.address?;
        Some(SocketAddr::new(address, self.peer.port))
    }

    async fn end(&mut self, farewell: Farewell) {
        self.ends_now = true;
        // First of all, so that the peer takes what follows for no broken path.
        if let Some(path) = self.path.take() {
            path.end().await;
        }
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
