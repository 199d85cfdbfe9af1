//! One neighbour.

use std::time::Duration;

use super::packet::{Diagnostic, LENGTH, Packet, State};
use crate::random::Random;

/// The least time between packets while a session is not up (RFC 5880 section 6.8.3).
const SLOW: Duration = Duration::from_secs(1);
/// What packets of this link arrive with, and no others (RFC 5881 section 5).
pub const TTL: u8 = 255;

/// What is configured about one neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Our number of the session: not zero, and no other session's of this node.
    pub discriminator: u32,
    /// The time between our packets, at least a millisecond.
    pub transmit: Duration,
    /// The least time between the neighbour's that we take; at least a millisecond.
    pub receive: Duration,
    /// How many packets in a row may be missing; at least one.
    pub multiplier: u8,
    /// The lowest TTL (or hop limit) that packets may arrive with: 255 from a neighbour
    /// (RFC 5881 section 5), less from several hops away (RFC 5883 section 5).
    pub least_ttl: u8,
}

impl Config {
    /// 100 ms and three packets: a broken path is noticed after 300 ms.
    #[must_use]
    pub const fn new(discriminator: u32) -> Self {
        let interval = Duration::from_millis(100);
        Self {
            discriminator,
            transmit: interval,
            receive: interval,
            multiplier: 3,
            least_ttl: TTL,
        }
    }
}

/// What is to be done outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this packet.
    Send([u8; LENGTH]),
    /// The session has another state.
    Changed(State, Diagnostic),
}

/// The state that follows, when the neighbour says that it is in another (RFC 5880
/// section 6.8.6).
#[must_use]
pub const fn next(state: State, received: State) -> State {
    match (state, received) {
        (State::AdminDown, _) => State::AdminDown,
        (_, State::AdminDown) => State::Down,
        (State::Down | State::Init, State::Down) => State::Init,
        (State::Down, State::Init) => State::Up,
        (State::Down, State::Up) => State::Down,
        (State::Init | State::Up, State::Init | State::Up) => State::Up,
        (State::Up, State::Down) => State::Down,
    }
}

/// One neighbour. Times are those since any fixed start, the same for all calls.
#[derive(Clone, Debug)]
pub struct Session {
    config: Config,
    state: State,
    diagnostic: Diagnostic,
    /// What the neighbour last said, until it is silent for the detection time.
    remote: Option<Packet>,
    /// A change of our times is being told, until the neighbour answers.
    polling: bool,
    transmit_at: Option<Duration>,
    expires_at: Option<Duration>,
    random: Random,
}

impl Session {
    /// A session that begins to look for its neighbour at once.
    #[must_use]
    pub fn new(config: Config, seed: u64, now: Duration) -> Self {
        let least = Duration::from_millis(1);
        let config = Config {
            discriminator: config.discriminator.max(1),
            transmit: config.transmit.max(least),
            receive: config.receive.max(least),
            multiplier: config.multiplier.max(1),
            least_ttl: config.least_ttl,
        };
        Self {
            config,
            state: State::Down,
            diagnostic: Diagnostic::NONE,
            remote: None,
            polling: false,
            transmit_at: Some(now),
            expires_at: None,
            random: Random::new(seed),
        }
    }

    /// The state, and why it was last left.
    #[must_use]
    pub const fn state(&self) -> (State, Diagnostic) {
        (self.state, self.diagnostic)
    }

    /// The number by which packets name this session.
    #[must_use]
    pub const fn discriminator(&self) -> u32 {
        self.config.discriminator
    }

    /// The state that the neighbour last told, unless it has been silent since for the
    /// detection time. One that has switched its session off is no broken path (RFC
    /// 5882 section 3.2).
    #[must_use]
    pub fn neighbor(&self) -> Option<State> {
        self.remote.map(|remote| remote.state)
    }

    /// How long the neighbour may be silent, once it has been heard (RFC 5880 section
    /// 6.8.4).
    #[must_use]
    pub fn detection_time(&self) -> Option<Duration> {
        let remote = self.remote?;
        let interval = self.config.receive.max(remote.desired_transmit);
        Some(interval * u32::from(remote.multiplier))
    }

    /// When [`Session::tick`] has something to do next.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.transmit_at.into_iter().chain(self.expires_at).min()
    }

    /// Switches the session off, which is told to the neighbour from now on: it must
    /// not take it for a broken path. Nobody needs the session after a detection
    /// time.
    #[must_use]
    pub fn disable(&mut self, now: Duration) -> Vec<Output> {
        self.expires_at = None;
        self.enter(State::AdminDown, Diagnostic::ADMINISTRATIVE, now)
    }

    /// Switches it on again.
    #[must_use]
    pub fn enable(&mut self, now: Duration) -> Vec<Output> {
        if self.state == State::AdminDown {
            return self.enter(State::Down, Diagnostic::NONE, now);
        }
        Vec::new()
    }

    /// A packet arrived from the neighbour's address, with this TTL (or hop limit).
    #[must_use]
    pub fn receive(&mut self, bytes: &[u8], ttl: u8, now: Duration) -> Vec<Output> {
        let Some(packet) = Packet::parse(bytes) else {
            return Vec::new();
        };
        let ours = packet.yours == 0 || packet.yours == self.config.discriminator;
        if ttl < self.config.least_ttl || !ours {
            return Vec::new();
        }
        let before = self.interval();
        self.remote = Some(packet);
        if packet.last {
            self.polling = false;
        }
        if self.state == State::AdminDown {
            return Vec::new();
        }
        let mut out = Vec::new();
        let state = next(self.state, packet.state);
        if state != self.state {
            let diagnostic = match state {
                State::Down => Diagnostic::NEIGHBOR,
                State::AdminDown | State::Init | State::Up => Diagnostic::NONE,
            };
            out = self.enter(state, diagnostic, now);
        } else if self.interval() != before {
            // What the neighbour can take has changed: not only at the next packet.
            self.schedule(now);
        }
        self.expires_at = self.detection_time().map(|time| now + time);
        if packet.poll {
            out.push(Output::Send(self.packet(true).bytes()));
        }
        out
    }

    /// Time has passed.
    #[must_use]
    pub fn tick(&mut self, now: Duration) -> Vec<Output> {
        let mut out = Vec::new();
        if self.expires_at.take_if(|at| *at <= now).is_some() {
            self.remote = None;
            if self.state > State::Down {
                out = self.enter(State::Down, Diagnostic::EXPIRED, now);
            }
        }
        if self.transmit_at.is_some_and(|at| at <= now) {
            out.push(Output::Send(self.packet(false).bytes()));
            self.schedule(now);
        }
        out
    }

    /// Another state: told at once, not only with the next packet.
    fn enter(&mut self, state: State, diagnostic: Diagnostic, now: Duration) -> Vec<Output> {
        if self.state == state {
            return Vec::new();
        }
        self.state = state;
        // A session that comes up says why it was down before (section 6.8.1).
        if diagnostic != Diagnostic::NONE || state == State::Up {
            self.diagnostic = diagnostic;
        }
        // Up, our packets come faster: that is a change to be confirmed (6.8.3).
        self.polling = state == State::Up;
        let mut out = vec![Output::Changed(state, self.diagnostic)];
        self.schedule(now);
        if self.transmit_at.is_some() {
            out.push(Output::Send(self.packet(false).bytes()));
        }
        out
    }

    /// The time between our packets that we ask for.
    fn desired(&self) -> Duration {
        match self.state {
            State::Up => self.config.transmit,
            State::AdminDown | State::Down | State::Init => self.config.transmit.max(SLOW),
        }
    }

    /// The time between our packets; `None` if the neighbour wants none.
    fn interval(&self) -> Option<Duration> {
        let Some(remote) = self.remote else {
            return Some(self.desired());
        };
        let both_up = self.state == State::Up && remote.state == State::Up;
        let unwanted = remote.required_receive.is_zero() || (remote.demand && both_up);
        (!unwanted || self.polling).then(|| self.desired().max(remote.required_receive))
    }

    fn schedule(&mut self, now: Duration) {
        // With a multiplier of one, the next packet must not be the late one.
        let most = if self.config.multiplier == 1 { 90 } else { 100 };
        let interval = self.interval();
        self.transmit_at = interval.map(|time| now + self.random.jitter(time, most));
    }

    fn packet(&self, answer: bool) -> Packet {
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            // Never both (section 6.5).
            poll: self.polling && !answer,
            last: answer,
            independent: false,
            demand: false,
            multiplier: self.config.multiplier,
            mine: self.config.discriminator,
            yours: self.remote.map_or(0, |remote| remote.mine),
            desired_transmit: self.desired(),
            required_receive: self.config.receive,
        }
    }
}
