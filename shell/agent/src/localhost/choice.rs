//! Which endpoint a client of a node port on localhost gets: pure.
//!
//! The plan has decided which endpoints there are to choose from, for clients on
//! the node itself; here one of them is drawn, or the one that the client had.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use portolan_model::Algorithm;
use portolan_nft::hash::slot_of;
use portolan_plan::{CLIENT_SEED, Decision, Forward, Target, Verdict};

/// How many clients are remembered for one frontend.
const MOST_CLIENTS: usize = 1024;

/// The endpoints of one frontend, and who had which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    /// Who new connections go to, and how they are spread.
    forward: Forward,
    /// Who else still serves: sessions there go on.
    lasting: BTreeSet<SocketAddr>,
    /// The turn of the next connection.
    turn: usize,
    /// When a client connected last, and whom it got.
    clients: BTreeMap<IpAddr, (SocketAddr, Instant)>,
}

fn socket(target: &Target) -> SocketAddr {
    SocketAddr::new(target.address, target.port)
}

impl Choice {
    /// What a decision leaves to clients on the node; none if they are refused.
    pub(super) fn of(decision: &Decision) -> Option<Self> {
        let Verdict::Forward(forward) = decision.for_client(false) else {
            return None;
        };
        let excluded = decision.excluded.iter();
        let lasting = excluded.filter(|(_, why)| why.still_serves());
        Some(Self {
            forward: forward.clone(),
            lasting: lasting.map(|(target, _)| socket(target)).collect(),
            turn: 0,
            clients: BTreeMap::new(),
        })
    }

    /// Goes over to a new decision; clients of endpoints that stay are remembered.
    pub(super) fn follow(&mut self, next: Self) {
        let clients = std::mem::take(&mut self.clients);
        let turn = self.turn;
        *self = Self { turn, ..next };
        if self.forward.affinity.is_some() {
            let stays = |had| self.is_target(had);
            self.clients = clients
                .into_iter()
                .filter(|(_, (had, _))| stays(*had))
                .collect();
        }
    }

    /// Whether a session with this endpoint may go on.
    pub(super) fn serves(&self, endpoint: SocketAddr) -> bool {
        self.is_target(endpoint) || self.lasting.contains(&endpoint)
    }

    fn is_target(&self, endpoint: SocketAddr) -> bool {
        let mut targets = self.forward.targets.iter();
        targets.any(|target| socket(target) == endpoint)
    }

    /// The endpoint of the next connection by the frontend's algorithm.
    fn spread(&mut self, client: IpAddr, draw: usize) -> Option<SocketAddr> {
        let width = self.forward.width();
        let slot = match self.forward.algorithm() {
            Algorithm::Random => draw.checked_rem(width)?,
            Algorithm::RoundRobin => {
                self.turn = self.turn.wrapping_add(1);
                self.turn.checked_rem(width)?
            }
            Algorithm::Maglev => slot_of(client, u32::try_from(width).ok()?, CLIENT_SEED) as usize,
        };
        self.forward.at(slot).map(socket)
    }

    /// The endpoint for a new connection of a client; `draw` decides where nothing
    /// else does.
    pub(super) fn choose(
        &mut self,
        client: IpAddr,
        now: Instant,
        draw: usize,
    ) -> Option<SocketAddr> {
        let stays = self.forward.affinity;
        let stays = stays.map(|seconds| Duration::from_secs(seconds.into()));
        let known = stays.and_then(|stays| {
            let (had, at) = self.clients.get(&client)?;
            (now.saturating_duration_since(*at) < stays).then_some(*had)
        });
        let chosen = match known {
            Some(had) => had,
            None => self.spread(client, draw)?,
        };
        if let Some(stays) = stays {
            if self.clients.len() >= MOST_CLIENTS {
                self.clients
                    .retain(|_, (_, at)| now.saturating_duration_since(*at) < stays);
            }
            if self.clients.len() < MOST_CLIENTS || self.clients.contains_key(&client) {
                self.clients.insert(client, (chosen, now));
            }
        }
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portolan_model::ServiceKey;
    use portolan_plan::{Balance, Masquerade, Reason, Selection};

    use super::*;

    const SELF: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn target(number: u8) -> Target {
        Target {
            address: [10, 244, 0, number].into(),
            port: 8080,
            local: false,
        }
    }

    fn decision(targets: &[u8], affinity: Option<u32>, excluded: &[(u8, Reason)]) -> Decision {
        let excluded = excluded.iter();
        Decision {
            service: ServiceKey::new("default", "web"),
            port_name: "".into(),
            verdict: Verdict::Forward(Forward {
                targets: targets.iter().copied().map(target).collect(),
                selection: Selection::Ready,
                masquerade: Masquerade::Always,
                affinity,
                balance: None,
            }),
            // What clients outside get makes no difference here.
            outside: Some(Verdict::Drop(Reason::NotReady)),
            sources: None,
            excluded: excluded.map(|(n, why)| (target(*n), why.clone())).collect(),
        }
    }

    fn at(number: u8) -> SocketAddr {
        ([10, 244, 0, number], 8080).into()
    }

    #[test]
    fn every_endpoint_is_drawn_and_refused_frontends_have_none() {
        let mut choice = Choice::of(&decision(&[1, 2, 3], None, &[])).unwrap();
        let now = Instant::now();
        let drawn: BTreeSet<_> = (0..3).filter_map(|n| choice.choose(SELF, now, n)).collect();
        assert_eq!(drawn, [1, 2, 3].map(at).into());
        let refused = Decision {
            verdict: Verdict::Reject(Reason::NoEndpoints),
            outside: None,
            ..decision(&[], None, &[])
        };
        assert_eq!(Choice::of(&refused), None);
    }

    #[test]
    fn algorithms_and_weights_are_the_services() {
        let mut decision = decision(&[1, 2], None, &[]);
        let mut choose = |algorithm, slots: Option<&[u16]>| {
            let Verdict::Forward(forward) = &mut decision.verdict else {
                unreachable!("made above")
            };
            forward.balance = Some(Arc::new(Balance {
                algorithm,
                weights: Vec::new(),
                slots: slots.map(Arc::from),
            }));
            let mut choice = Choice::of(&decision).unwrap();
            let now = Instant::now();
            (0..6)
                .filter_map(|draw| choice.choose(SELF, now, draw))
                .collect::<Vec<_>>()
        };
        let (one, two) = (at(1), at(2));
        let turns = choose(Algorithm::RoundRobin, None);
        assert_eq!(turns, [two, one, two, one, two, one]);
        let weighted = choose(Algorithm::Random, Some(&[0, 0, 1]));
        assert_eq!(weighted, [one, one, two, one, one, two]);
        // The slot that the kernel's jhash gives the client, as on every node.
        let same = choose(Algorithm::Maglev, Some(&[0, 1, 0, 1, 1]));
        let slot = slot_of(SELF, 5, CLIENT_SEED);
        assert_eq!(same, [[one, two, one, two, two][slot as usize]; 6]);
    }

    #[test]
    fn p13_a_client_stays_while_it_comes_back_in_time() {
        let sticky = |targets: &[u8]| Choice::of(&decision(targets, Some(10), &[])).unwrap();
        let mut choice = sticky(&[1, 2, 3]);
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(choice.choose(SELF, start, 1), Some(at(2)));
        assert_eq!(choice.choose(SELF, later(9), 0), Some(at(2)));
        assert_eq!(choice.choose(SELF, later(18), 0), Some(at(2)), "sliding");
        choice.follow(sticky(&[2, 4]));
        assert_eq!(choice.choose(SELF, later(20), 1), Some(at(2)));
        choice.follow(sticky(&[1, 4]));
        assert_eq!(choice.choose(SELF, later(21), 1), Some(at(4)), "it went");
        assert_eq!(choice.choose(SELF, later(31), 0), Some(at(1)), "too late");
    }

    #[test]
    fn p17_sessions_stay_with_whoever_serves() {
        let excluded = [
            (2, Reason::Terminating),
            (3, Reason::HintedElsewhere),
            (4, Reason::NotReady),
        ];
        let choice = Choice::of(&decision(&[1], None, &excluded)).unwrap();
        let serving = [1, 2, 3, 4, 5].map(|number| choice.serves(at(number)));
        assert_eq!(serving, [true, true, true, false, false]);
    }
}
