//! One agent's view of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::beat::{self, Beat, Key, Refused};
use crate::random::Random;

/// Deaths that are longer ago are forgiven.
const MEMORY: Duration = Duration::from_secs(300);
/// The longest time of settling.
const MOST_SETTLING: Duration = Duration::from_secs(60);
/// No interval of others is believed to be longer.
const MOST_INTERVAL: Duration = Duration::from_secs(5);

/// What an agent says of itself, and how patient it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node.
    pub name: String,
    /// The cluster, by any number that its agents agree on.
    pub cluster: u64,
    /// It grows with every start: the time of day in milliseconds does.
    pub incarnation: u64,
    /// The time between beats.
    pub interval: Duration,
    /// So many may be missing before a node is given up.
    pub misses: u32,
    /// The key of the seals, if there is one.
    pub key: Option<Key>,
}

impl Config {
    /// Beats each 150 ms, of which four may be missing: a dead node is known to be so
    /// after 600 ms.
    #[must_use]
    pub const fn new(name: String, cluster: u64, incarnation: u64) -> Self {
        Self {
            name,
            cluster,
            incarnation,
            interval: Duration::from_millis(150),
            misses: 4,
            key: None,
        }
    }
}

/// What came of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this datagram to every other member.
    Send(Vec<u8>),
    /// Who is alive has changed: leaders must be found anew.
    Changed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Taken for alive, though not heard yet.
    Presumed,
    Alive,
    Dead,
    /// Heard again, and taken for alive from then on.
    Returning(Duration),
}

/// Another agent.
#[derive(Clone, Debug)]
struct Member {
    state: State,
    /// When its silence is its death.
    expires: Duration,
    /// Its last incarnation and sequence.
    last: Option<(u64, u64)>,
    /// When it died lately.
    deaths: Vec<Duration>,
    /// Whether it counts us alive; `None` if it does not say.
    counts_us: Option<bool>,
    /// Until then its word about us is not taken: it could not have heard us.
    deaf_until: Duration,
    /// Whether it says that it serves.
    serving: bool,
    /// Until then it is trusted to be about to serve.
    trusted_until: Duration,
    /// Whether it is taken for one that answers.
    answers: bool,
    /// Whether it was there before us or has been heard, and has not left.
    known: bool,
}

impl Member {
    const fn is_alive(&self) -> bool {
        matches!(self.state, State::Presumed | State::Alive)
    }
}

/// The agents of a cluster, as one of them sees them. Times are those since any fixed
/// start, the same for all calls.
#[derive(Clone, Debug)]
pub struct Agents {
    config: Config,
    started: Duration,
    /// All others, by name.
    members: BTreeMap<String, Member>,
    serving: bool,
    sequence: u64,
    beaten: Option<Duration>,
    beat_at: Duration,
    random: Random,
}

impl Agents {
    /// An agent that starts now, with the others that are members at this time: they
    /// are presumed to be alive until their silence says otherwise, so that a start
    /// takes nothing away from anybody.
    #[must_use]
    pub fn new<'a>(
        config: Config,
        members: impl IntoIterator<Item = &'a str>,
        now: Duration,
    ) -> Self {
        let config = Config {
            interval: config.interval.max(Duration::from_millis(10)),
            misses: config.misses.max(1),
            ..config
        };
        let random = Random::new(config.incarnation ^ u64::from(beat::number(&config.name)));
        let mut agents = Self {
            started: now,
            members: BTreeMap::new(),
            serving: false,
            sequence: 0,
            beaten: None,
            beat_at: now,
            random,
            config,
        };
        for name in members {
            agents.add(name, State::Presumed, now);
        }
        agents.vote(now);
        agents
    }

    fn add(&mut self, name: &str, state: State, now: Duration) {
        if name == self.config.name {
            return;
        }
        let member = Member {
            state,
            expires: now + self.detection(self.config.interval),
            last: None,
            deaths: Vec::new(),
            counts_us: None,
            deaf_until: now,
            serving: false,
            trusted_until: now,
            answers: state == State::Presumed,
            known: state == State::Presumed,
        };
        self.members.entry(name.to_owned()).or_insert(member);
    }

    /// How long a node with this interval may be silent.
    fn detection(&self, interval: Duration) -> Duration {
        let interval = interval.min(MOST_INTERVAL).max(self.config.interval);
        interval * self.config.misses
    }

    /// The members are these now, this node among them or not. Who is new is not
    /// alive before it has been heard and has settled.
    #[must_use]
    pub fn set_members(&mut self, names: &BTreeSet<String>, now: Duration) -> Vec<Output> {
        let mut changed = false;
        self.members.retain(|name, member| {
            let stays = names.contains(name);
            changed |= !stays && member.answers;
            stays
        });
        for name in names {
            self.add(name, State::Dead, now);
        }
        changed |= self.judge(now);
        changed.then_some(Output::Changed).into_iter().collect()
    }

    /// Whether this node counts itself among those that answer.
    #[must_use]
    pub const fn serving(&self) -> bool {
        self.serving
    }

    /// The nodes that answer, this one among them if it serves, in order: those that are
    /// alive, but for who says all the time that it does not serve.
    pub fn alive(&self) -> impl Iterator<Item = &str> + '_ {
        let others = self.members.iter().filter(|(_, member)| member.answers);
        let mut names: Vec<&str> = others.map(|(name, _)| name.as_str()).collect();
        if self.serving {
            names.push(&self.config.name);
        }
        names.sort_unstable();
        names.into_iter()
    }

    /// When [`Agents::tick`] has something to do next.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        let members = self.members.values().flat_map(|member| match member.state {
            State::Dead => [None, None],
            State::Alive if member.answers && !member.serving => {
                [Some(member.expires), Some(member.trusted_until)]
            }
            State::Presumed | State::Alive => [Some(member.expires), None],
            State::Returning(settled) => [Some(member.expires), Some(settled)],
        });
        members.flatten().fold(self.beat_at, Duration::min)
    }

    /// Time has passed.
    #[must_use]
    pub fn tick(&mut self, now: Duration) -> Vec<Output> {
        let trusted_until = now + self.config.interval * 2;
        let mut moved = false;
        for member in self.members.values_mut() {
            let was_alive = member.is_alive();
            if member.state != State::Dead && member.expires <= now {
                member.state = State::Dead;
                member.counts_us = None;
                member.deaths.push(now);
            }
            if let State::Returning(settled) = member.state
                && settled <= now
            {
                member.state = State::Alive;
                member.trusted_until = trusted_until;
            }
            moved |= was_alive != member.is_alive();
        }
        moved |= self.judge(now);
        let mut out = Vec::new();
        if moved {
            self.hurry(now);
            out.push(Output::Changed);
        }
        if self.beat_at <= now {
            out.push(Output::Send(self.beat(false)));
            self.beaten = Some(now);
            self.beat_at = now + self.random.jitter(self.config.interval, 100);
        }
        out
    }

    /// The last beat of an agent that ends: the others take over at once.
    #[must_use]
    pub fn leave(&mut self) -> Vec<Output> {
        let was = std::mem::take(&mut self.serving);
        let mut out = vec![Output::Send(self.beat(true))];
        if was {
            out.push(Output::Changed);
        }
        out
    }

    fn beat(&mut self, leaving: bool) -> Vec<u8> {
        self.sequence += 1;
        let alive = self.members.iter().filter(|(_, member)| member.is_alive());
        let beat = Beat {
            name: self.config.name.clone(),
            cluster: self.config.cluster,
            incarnation: self.config.incarnation,
            sequence: self.sequence,
            interval: self.config.interval,
            leaving,
            serving: self.serving,
            alive: Some(alive.map(|(name, _)| beat::number(name)).collect()),
        };
        beat.bytes(self.config.key.as_ref())
    }

    /// A datagram came in.
    ///
    /// # Errors
    /// [`Refused`] if it is no beat for us. Beats of nodes that are no members, and old
    /// ones, are no errors: nothing comes of them.
    pub fn receive(&mut self, bytes: &[u8], now: Duration) -> Result<Vec<Output>, Refused> {
        let beat = Beat::parse(bytes, self.config.cluster, self.config.key.as_ref())?;
        let was_serving = self.serving;
        let detection = self.detection(beat.interval);
        let number = beat::number(&self.config.name);
        let Some(member) = self.members.get_mut(&beat.name) else {
            return Ok(Vec::new());
        };
        let this = (beat.incarnation, beat.sequence);
        // A clock that went back must not keep a node out: once it is dead, any other
        // incarnation may be the next.
        let another = member.state == State::Dead
            && member
                .last
                .is_none_or(|(known, _)| known != beat.incarnation);
        if !another && member.last.is_some_and(|last| this <= last) {
            return Ok(Vec::new());
        }
        let (was_alive, state) = (member.is_alive(), member.state);
        if member.serving && !beat.serving {
            // It may have lost a vote for a moment only.
            member.trusted_until = now + self.config.interval * 2;
        }
        member.serving = beat.serving && !beat.leaving;
        member.known = true;
        member.last = Some(this);
        member.counts_us = beat.alive.map(|list| list.contains(&number));
        if beat.leaving {
            // No death to hold against it, no silence to wait for, and no sign that we
            // are cut off.
            member.state = State::Dead;
            member.known = false;
            member.counts_us = None;
        } else {
            member.expires = now + detection;
            match member.state {
                State::Presumed => member.state = State::Alive,
                // It answers for what it leads: to let it settle would be to answer
                // for the same beside it. If both do, neither had heard the other.
                State::Dead | State::Returning(_) if beat.serving => {
                    member.state = State::Alive;
                    if was_serving {
                        member.deaf_until = now + self.config.interval * 2;
                    }
                }
                State::Dead => {
                    member
                        .deaths
                        .retain(|death| now.saturating_sub(*death) < MEMORY);
                    let doublings = member.deaths.len().saturating_sub(1).min(16);
                    let settling = detection.saturating_mul(1 << doublings);
                    member.state = State::Returning(now + settling.min(MOST_SETTLING));
                }
                State::Alive | State::Returning(_) => {}
            }
        }
        if member.state == State::Alive && state != State::Alive {
            member.trusted_until = now + self.config.interval * 2;
        }
        let moved = was_alive != member.is_alive();
        let changed = self.judge(now) || moved;
        if changed {
            self.hurry(now);
        }
        Ok(changed.then_some(Output::Changed).into_iter().collect())
    }

    /// The next beat has news: it does not wait for its time, as long as there are not
    /// many of them.
    fn hurry(&mut self, now: Duration) {
        let last = self.beaten.unwrap_or(self.started);
        let soon = now.max(last + self.config.interval / 5);
        self.beat_at = self.beat_at.min(soon);
    }

    /// Finds out who answers: this node, by the table of the room, and the others.
    /// Whether that is otherwise than before.
    fn judge(&mut self, now: Duration) -> bool {
        let was_serving = self.serving;
        self.vote(now);
        let mut changed = was_serving != self.serving;
        for member in self.members.values_mut() {
            let answers = match member.state {
                State::Presumed => true,
                State::Alive => member.serving || now < member.trusted_until,
                State::Dead | State::Returning(_) => false,
            };
            changed |= answers != member.answers;
            member.answers = answers;
        }
        changed
    }

    fn vote(&mut self, now: Duration) {
        let is_voter = |m: &&Member| m.state == State::Alive && m.deaf_until <= now;
        let voters = self.members.values().filter(is_voter);
        let votes: Vec<bool> = voters.filter_map(|member| member.counts_us).collect();
        let yes = votes.iter().filter(|vote| **vote).count();
        let no = votes.len() - yes;
        let heard = |member: &Member| matches!(member.state, State::Alive | State::Returning(_));
        if yes != no {
            self.serving = yes > no;
        } else if !self.members.values().any(heard) {
            let waited = now >= self.started + self.detection(self.config.interval);
            // Who comes later and is never heard may not have begun.
            self.serving = match self.members.values().filter(|m| m.known).count() {
                0 => true,
                1 => waited || self.serving,
                _ => self.serving && self.members.values().any(Member::is_alive),
            };
        } else if votes.is_empty() && self.members.values().any(|m| m.state == State::Alive) {
            // Alive ones that list nobody, since they are too many.
            self.serving = true;
        }
    }
}
