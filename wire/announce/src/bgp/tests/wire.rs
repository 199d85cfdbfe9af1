//! Two sessions, the connections between them, and a clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::bgp::{Config, Connection, Input, News, Output, Session};

/// The ends of the wire.
pub(super) const ENDS: [usize; 2] = [0, 1];

/// What is on its way to an end.
#[derive(Clone, Debug)]
enum Flight {
    Connected(Connection),
    Accepted(Connection),
    Failed,
    Bytes(Connection, Vec<u8>),
    Closed(Connection),
}

/// Two sessions and what is between them.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) ends: [Session; 2],
    pub(super) now: Duration,
    /// What each end was told of, in order.
    pub(super) news: [Vec<News>; 2],
    /// All bytes that each end sent.
    pub(super) sent: [Vec<Vec<u8>>; 2],
    flights: [VecDeque<Flight>; 2],
    open: BTreeMap<Connection, [bool; 2]>,
    /// Connections that lost something: nothing more arrives on them, since TCP
    /// leaves nothing out.
    dead: BTreeSet<Connection>,
    next: u64,
    /// Connections can be opened.
    pub(super) reachable: bool,
    /// Bytes arrive; otherwise they vanish, and nobody notices.
    pub(super) carries: bool,
    /// The size of the pieces in which bytes arrive.
    pub(super) piece: usize,
}

impl Wire {
    pub(super) fn new([a, b]: [Config; 2]) -> Self {
        Self {
            ends: [Session::new(a, 1), Session::new(b, 2)],
            now: Duration::from_secs(1000),
            news: [Vec::new(), Vec::new()],
            sent: [Vec::new(), Vec::new()],
            flights: [VecDeque::new(), VecDeque::new()],
            open: BTreeMap::new(),
            dead: BTreeSet::new(),
            next: 0,
            reachable: true,
            carries: true,
            piece: 4096,
        }
    }

    /// Starts both and lets them talk.
    pub(super) fn started(configs: [Config; 2]) -> Self {
        let mut wire = Self::new(configs);
        for end in ENDS {
            wire.input(end, Input::Start);
        }
        wire.settle();
        wire
    }

    pub(super) fn input(&mut self, end: usize, input: Input<'_>) {
        let outputs = self.ends[end].handle(input, self.now);
        self.perform(end, outputs);
    }

    pub(super) fn flush(&mut self, end: usize) {
        let outputs = self.ends[end].flush();
        self.perform(end, outputs);
        self.settle();
    }

    pub(super) fn perform(&mut self, end: usize, outputs: Vec<Output>) {
        let other = 1 - end;
        for output in outputs {
            match output {
                Output::Connect if self.reachable => {
                    let connection = Connection(self.next);
                    self.next += 1;
                    self.open.insert(connection, [true, true]);
                    self.flights[end].push_back(Flight::Connected(connection));
                    self.flights[other].push_back(Flight::Accepted(connection));
                }
                Output::Connect => self.flights[end].push_back(Flight::Failed),
                Output::CancelConnect => {
                    self.flights[end].retain(|flight| !matches!(flight, Flight::Failed));
                }
                Output::Send(connection, bytes) => {
                    let ours = self.open.get(&connection).is_some_and(|ends| ends[end]);
                    assert!(ours, "bytes for a connection that is closed");
                    assert!(bytes.len() <= 4096, "a message of {} bytes", bytes.len());
                    self.sent[end].push(bytes.clone());
                    if !self.carries {
                        self.dead.insert(connection);
                    }
                    if !self.dead.contains(&connection) {
                        self.flights[other].push_back(Flight::Bytes(connection, bytes));
                    }
                }
                Output::Close(connection) => {
                    let ends = self.open.get_mut(&connection).expect("a connection");
                    assert!(std::mem::take(&mut ends[end]), "closed twice");
                    if self.carries && !self.dead.contains(&connection) {
                        self.flights[other].push_back(Flight::Closed(connection));
                    }
                }
                Output::News(news) => self.news[end].push(news),
            }
        }
    }

    /// Everything on its way arrives, and what it leads to.
    pub(super) fn settle(&mut self) {
        for _ in 0..100_000 {
            let Some(end) = ENDS.into_iter().find(|end| !self.flights[*end].is_empty()) else {
                return;
            };
            self.deliver(end);
        }
        panic!("the two never come to rest");
    }

    /// The next thing on its way to an end arrives. False if there is none.
    pub(super) fn deliver(&mut self, end: usize) -> bool {
        let Some(flight) = self.flights[end].pop_front() else {
            return false;
        };
        match flight {
            Flight::Connected(connection) => self.input(end, Input::Connected(connection)),
            Flight::Accepted(connection) => self.input(end, Input::Accepted(connection)),
            Flight::Failed => self.input(end, Input::ConnectFailed),
            Flight::Bytes(connection, bytes) => {
                for piece in bytes.chunks(self.piece) {
                    if self.open.get(&connection).is_some_and(|ends| ends[end]) {
                        self.input(end, Input::Received(connection, piece));
                    }
                }
            }
            Flight::Closed(connection) => {
                let ends = self.open.get_mut(&connection).expect("a connection");
                if std::mem::take(&mut ends[end]) {
                    self.input(end, Input::Closed(connection));
                }
            }
        }
        true
    }

    /// Every connection breaks, and both ends notice.
    pub(super) fn cut(&mut self) {
        for end in ENDS {
            let bytes = |flight: &Flight| !matches!(flight, Flight::Bytes(..));
            self.flights[end].retain(bytes);
        }
        let open: Vec<Connection> = self.open.keys().copied().collect();
        for connection in open {
            for end in ENDS {
                self.flights[end].push_back(Flight::Closed(connection));
            }
        }
        self.settle();
    }

    /// Time passes, timer by timer.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            self.settle();
            let due = self.ends.iter().filter_map(Session::deadline).min();
            match due {
                Some(due) if due <= until => self.now = self.now.max(due),
                _ => break,
            }
            for end in ENDS {
                let outputs = self.ends[end].tick(self.now);
                self.perform(end, outputs);
            }
        }
        self.now = until;
    }

    pub(super) fn up(&self) -> [bool; 2] {
        ENDS.map(|end| self.ends[end].agreed().is_some())
    }

    /// How many connections both ends believe to be open.
    pub(super) fn connections(&self) -> usize {
        self.connections_open().count()
    }

    /// An end's process is gone, and another in its place.
    pub(super) fn replace(&mut self, end: usize, config: Config) {
        let outputs = self.ends[end].leave();
        self.perform(end, outputs);
        self.ends[end] = Session::new(config, 9);
        self.input(end, Input::Start);
    }

    /// An end's process is gone without its connections being closed.
    pub(super) fn crash(&mut self, end: usize, config: Config) {
        for ends in self.open.values_mut() {
            ends[end] = false;
        }
        self.flights[end].clear();
        self.ends[end] = Session::new(config, 9);
        self.input(end, Input::Start);
    }
}

impl Wire {
    /// The numbers of the connections that both ends believe to be open.
    pub(super) fn connections_open(&self) -> impl Iterator<Item = u64> + '_ {
        let open = self.open.iter().filter(|(_, ends)| **ends == [true, true]);
        open.map(|(connection, _)| connection.0)
    }
}
