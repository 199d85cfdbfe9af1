//! One peer: the machines of its connections, their timers, and what is told.

mod act;
mod machine;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::attributes::Attributes;
use super::config::Config;
use super::fsm::{Event, State};
use super::open::Agreed;
use super::rib::{Rib, Untold};
use super::{Notice, code};
use crate::random::Random;
use machine::Machine;

/// A connection, by the number that the caller gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection(pub u64);

/// Why a session is stopped (RFC 4486, RFC 9384).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Somebody asked for it.
    Shutdown,
    /// The peer is no longer configured.
    Deconfigured,
    /// It is configured otherwise.
    Changed,
    /// BFD says that the path to the peer is broken. The session tries again.
    PathDown,
}

impl Stop {
    const fn notice(self) -> Notice {
        let subcode = match self {
            Self::Shutdown => 2,
            Self::Deconfigured => 3,
            Self::Changed => 6,
            Self::PathDown => 10,
        };
        Notice::new(code::CEASE, subcode)
    }
}

/// What happened outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// The peer is to be talked to.
    Start,
    /// It is not any more.
    Stop(Stop),
    /// The connection that [`Output::Connect`] asked for is there.
    Connected(Connection),
    /// It could not be opened.
    ConnectFailed,
    /// The peer has opened a connection.
    Accepted(Connection),
    /// Bytes came in.
    Received(Connection, &'a [u8]),
    /// A connection was closed by the peer, or broke.
    Closed(Connection),
}

/// What is to be done outside, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a connection to the peer.
    Connect,
    /// Give up the attempt at it.
    CancelConnect,
    /// Send these bytes.
    Send(Connection, Vec<u8>),
    /// Close a connection once what was sent before is out.
    Close(Connection),
    /// Something that others may want to know.
    News(News),
}

/// What others may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The session is up.
    Up(Agreed),
    /// It was up, and no longer is.
    Down(Reason),
    /// An attempt at it came to nothing.
    Failed(Reason),
    /// An UPDATE of the peer was malformed, and counts as withdrawal (RFC 7606).
    Malformed(Notice),
}

/// Why a session ended or did not come up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It was stopped here.
    Stopped(Stop),
    /// This process ends; the peer may keep our routes.
    Left,
    /// No connection could be opened.
    Unreachable,
    /// The connection was lost.
    Lost,
    /// The peer said this.
    Received(Notice),
    /// We said this.
    Sent(Notice),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped(Stop::Shutdown) => f.write_str("stopped here"),
            Self::Stopped(Stop::Deconfigured) => f.write_str("no longer configured"),
            Self::Stopped(Stop::Changed) => f.write_str("configured otherwise"),
            Self::Stopped(Stop::PathDown) => f.write_str("BFD: the path is down"),
            Self::Left => f.write_str("left without a word, for a restart"),
            Self::Unreachable => f.write_str("no connection"),
            Self::Lost => f.write_str("connection lost"),
            Self::Received(notice) => write!(f, "the peer says: {notice}"),
            Self::Sent(notice) => write!(f, "told the peer: {notice}"),
        }
    }
}

/// How a session is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The state of the connection that is furthest.
    pub state: State,
    /// When it came up, if it is.
    pub up_since: Option<Duration>,
    /// What both sides agreed on, if it is up.
    pub agreed: Option<Agreed>,
    /// Failures in a row.
    pub failures: u32,
    /// Why it last ended or did not come up.
    pub last: Option<Reason>,
    /// Prefixes that are to be announced, and that the peer was told.
    pub prefixes: (usize, usize),
    /// UPDATEs of the peer so far.
    pub updates_received: u64,
    /// Of these, malformed ones that counted as withdrawals.
    pub updates_malformed: u64,
    /// Prefixes that the peer announces; counted only where they are limited.
    pub prefixes_received: usize,
}

/// One peer. Times are those since any fixed start, the same for all calls.
#[derive(Clone, Debug)]
pub struct Session {
    config: Config,
    /// The machine that opens connections, or has the one that counts.
    main: Machine,
    /// A connection of the peer's beside it, until their OPENs decide.
    second: Option<Machine>,
    connecting: bool,
    connect_retry: Option<Duration>,
    idle_hold: Option<Duration>,
    failures: u32,
    up_since: Option<Duration>,
    restarted: bool,
    rib: Rib,
    received: BTreeSet<IpNet>,
    updates_received: u64,
    updates_malformed: u64,
    /// What the event at hand says of itself.
    cause: Option<Reason>,
    last: Option<Reason>,
    random: Random,
}

impl Session {
    /// A session that has not been started. `seed` is any number that differs
    /// between agents: their timers must not run in step.
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Self {
        let restarted = config.restart.is_some_and(|restart| restart.restarted);
        Self {
            config,
            main: Machine::new(State::Idle, None),
            second: None,
            connecting: false,
            connect_retry: None,
            idle_hold: None,
            failures: 0,
            up_since: None,
            restarted,
            rib: Rib::default(),
            received: BTreeSet::new(),
            updates_received: 0,
            updates_malformed: 0,
            cause: None,
            last: None,
            random: Random::new(seed),
        }
    }

    /// What is configured.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// How it is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        let furthest = self.second.iter().map(|machine| machine.state);
        Status {
            state: furthest.fold(self.main.state, State::max),
            up_since: self.up_since,
            agreed: self.agreed().cloned(),
            failures: self.failures,
            last: self.last.clone(),
            prefixes: self.rib.counts(),
            updates_received: self.updates_received,
            updates_malformed: self.updates_malformed,
            prefixes_received: self.received.len(),
        }
    }

    /// What both sides agreed on, if the session is up.
    #[must_use]
    pub const fn agreed(&self) -> Option<&Agreed> {
        if matches!(self.main.state, State::Established) {
            return self.main.agreed.as_ref();
        }
        None
    }

    /// What the peer was told, in order.
    pub fn told(&self) -> impl Iterator<Item = (IpNet, &Attributes)> + '_ {
        self.rib.told()
    }

    /// Why a prefix that should be announced is not.
    #[must_use]
    pub fn untold(&self, prefix: IpNet) -> Option<Untold> {
        self.rib.untold(prefix, self.agreed())
    }

    /// A prefix is to be announced. [`Session::flush`] sends what has gathered.
    pub fn announce(&mut self, prefix: IpNet, attributes: Arc<Attributes>) {
        self.rib.announce(prefix, attributes);
    }

    /// A prefix is not to be announced any more.
    pub fn withdraw(&mut self, prefix: IpNet) -> bool {
        self.rib.withdraw(prefix)
    }

    /// What is to be announced is known in whole (see [`Rib::complete`]).
    pub const fn complete(&mut self) {
        self.rib.complete();
    }

    /// Tells the peer what has changed, if the session is up.
    #[must_use]
    pub fn flush(&mut self) -> Vec<Output> {
        let (State::Established, Some(agreed), Some(connection)) =
            (self.main.state, &self.main.agreed, self.main.connection)
        else {
            return Vec::new();
        };
        let messages = self.rib.flush(&self.config, agreed).into_iter();
        messages.map(|m| Output::Send(connection, m)).collect()
    }

    /// Closes everything without a word: the peer keeps our routes for a while
    /// where graceful restart was agreed on. The session does not start again by
    /// itself.
    #[must_use]
    pub fn leave(&mut self) -> Vec<Output> {
        let mut out = Vec::new();
        if self.main.state == State::Established {
            self.last = Some(Reason::Left);
            out.push(Output::News(News::Down(Reason::Left)));
        }
        if std::mem::take(&mut self.connecting) {
            out.push(Output::CancelConnect);
        }
        let both = [self.main.connection.take(), self.second_connection()];
        out.extend(both.into_iter().flatten().map(Output::Close));
        self.second = None;
        self.main = Machine::new(State::Idle, None);
        self.connect_retry = None;
        self.idle_hold = None;
        self.up_since = None;
        self.rib.end();
        self.received.clear();
        out
    }

    /// Something happened.
    #[must_use]
    pub fn handle(&mut self, input: Input<'_>, now: Duration) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Start => self.event(Slot::Main, Event::Start, now, &mut out),
            Input::Stop(stop) => self.stop(stop, now, &mut out),
            Input::Connected(connection) => self.connected(connection, now, &mut out),
            Input::ConnectFailed => {
                if std::mem::take(&mut self.connecting) {
                    self.cause = Some(Reason::Unreachable);
                    self.event(Slot::Main, Event::ConnectionFails, now, &mut out);
                }
            }
            Input::Accepted(connection) => self.accepted(connection, now, &mut out),
            Input::Received(connection, bytes) => {
                self.received(connection, bytes, now, &mut out);
            }
            Input::Closed(connection) => {
                if let Some(slot) = self.slot_of(connection) {
                    self.machine(slot).connection = None;
                    self.cause = Some(Reason::Lost);
                    self.event(slot, Event::ConnectionFails, now, &mut out);
                }
            }
        }
        out
    }

    /// When [`Session::tick`] has something to do next.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let machines = std::iter::once(&self.main).chain(&self.second);
        let timers = machines.flat_map(|machine| [machine.hold, machine.keepalive]);
        let own = [self.connect_retry, self.idle_hold];
        timers.chain(own).flatten().min()
    }

    /// Time has passed.
    #[must_use]
    pub fn tick(&mut self, now: Duration) -> Vec<Output> {
        let mut out = Vec::new();
        while let Some((slot, event)) = self.expired(now) {
            self.event(slot, event, now, &mut out);
        }
        out
    }

    /// One timer that has run out, which is stopped.
    fn expired(&mut self, now: Duration) -> Option<(Slot, Event)> {
        let due = |timer: &mut Option<Duration>| timer.take_if(|at| *at <= now).is_some();
        if due(&mut self.idle_hold) {
            return Some((Slot::Main, Event::IdleHoldExpires));
        }
        if due(&mut self.connect_retry) {
            return Some((Slot::Main, Event::ConnectRetryExpires));
        }
        let main = (Slot::Main, Some(&mut self.main));
        let second = (Slot::Second, self.second.as_mut());
        for (slot, machine) in [main, second] {
            let Some(machine) = machine else { continue };
            if due(&mut machine.hold) {
                return Some((slot, Event::HoldExpires));
            }
            if due(&mut machine.keepalive) {
                return Some((slot, Event::KeepaliveExpires));
            }
        }
        None
    }
}

/// Which of the two machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Main,
    Second,
}
