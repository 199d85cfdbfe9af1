//! Who leads, as laws; and agents that send their beats through a network that parts
//! and loses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

mod parting;

fn address(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0xc000_0200 + n).into()
}

fn names(count: u32) -> Vec<String> {
    (0..count).map(|n| format!("node-{n}")).collect()
}

proptest! {
    /// Removing a node that does not lead changes nothing, and who led keeps leading
    /// whatever else comes.
    #[test]
    fn l9_only_what_a_node_led_moves_when_it_goes(
        count in 1..12_u32, gone in 0..12_u32, n in any::<u32>(), v6 in any::<bool>(),
    ) {
        let address = match v6 {
            false => Ipv4Addr::from_bits(n).into(),
            true => IpAddr::from(std::net::Ipv6Addr::from_bits(u128::from(n) << 40 | 1)),
        };
        let all = names(count);
        let before = leader(address, all.iter().map(String::as_str)).unwrap();
        let roster = Roster::new(all.iter().map(String::as_str));
        prop_assert_eq!(roster.leader(address), Some(before));
        let left: Vec<&str> = all.iter().map(String::as_str)
            .filter(|name| *name != format!("node-{gone}"))
            .collect();
        let after = leader(address, left.iter().copied());
        if before != format!("node-{gone}") {
            prop_assert_eq!(after, Some(before));
        }
        // The order of the nodes does not matter.
        prop_assert_eq!(after, leader(address, left.iter().rev().copied()));
        let ranked = ranked(address, all.iter().map(String::as_str));
        prop_assert_eq!(ranked[0], before);
        prop_assert_eq!(ranked.len(), all.len());
        if before == format!("node-{gone}") {
            prop_assert_eq!(after, ranked.get(1).copied(), "the next takes over");
        }
    }
}

/// These numbers hold across versions: agents of two versions must agree.
#[test]
fn l9_leaders_stay_the_same_across_versions() {
    let nodes = names(5);
    let leads = |address: &str| {
        let address = address.parse().unwrap();
        leader(address, nodes.iter().map(String::as_str))
            .unwrap()
            .to_owned()
    };
    let found = [
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.3",
        "2001:db8::1",
        "2001:db8:0:1::1",
    ]
    .map(leads);
    assert_eq!(found, KNOWN);
    assert_eq!(leader(address(1), []), None);
}

#[test]
fn l9_addresses_are_spread_evenly() {
    let nodes = names(10);
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for n in 0..10_000 {
        let name = leader(address(n), nodes.iter().map(String::as_str)).unwrap();
        *counts.entry(name).or_default() += 1;
    }
    assert_eq!(counts.len(), 10);
    assert!(
        counts.values().all(|count| (900..1100).contains(count)),
        "{counts:?}"
    );
}

fn beat() -> Beat {
    Beat {
        name: "n1".to_owned(),
        cluster: 7,
        incarnation: 1 << 40,
        sequence: 3,
        interval: Duration::from_millis(150),
        leaving: false,
        serving: true,
        alive: Some(BTreeSet::from([1, 0x0203_0405])),
    }
}

#[test]
fn a_beat_is_as_the_bytes_say() {
    let mut expected = b"PtlB\x01\x0c\x00\x96".to_vec();
    expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 7]);
    expected.extend_from_slice(&[0, 0, 1, 0, 0, 0, 0, 0]);
    expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 3]);
    expected.extend_from_slice(b"\x02n1\x00\x02\x00\x00\x00\x01\x02\x03\x04\x05");
    assert_eq!(beat().bytes(None), expected);
    assert_eq!(Beat::parse(&expected, 7, None), Ok(beat()));
    assert_eq!(Beat::parse(&expected, 8, None), Err(Refused::Cluster));
    for length in 0..expected.len() {
        let cut = Beat::parse(&expected[..length], 7, None);
        assert_eq!(cut, Err(Refused::Malformed), "{length}");
    }
    expected.push(0);
    assert_eq!(Beat::parse(&expected, 7, None), Err(Refused::Malformed));
}

#[test]
fn a_seal_keeps_others_out() {
    let key = Key::new(b"a key that agents share");
    let sealed = beat().bytes(Some(&key));
    assert_eq!(Beat::parse(&sealed, 7, Some(&key)), Ok(beat()));
    for at in 0..sealed.len() {
        let mut bytes = sealed.clone();
        bytes[at] ^= 1;
        assert!(Beat::parse(&bytes, 7, Some(&key)).is_err(), "byte {at}");
    }
    let other = Key::new(b"another key");
    assert_eq!(Beat::parse(&sealed, 7, Some(&other)), Err(Refused::Seal));
    assert_eq!(Beat::parse(&sealed, 7, None), Err(Refused::Seal));
    let open = beat().bytes(None);
    assert_eq!(Beat::parse(&open, 7, Some(&key)), Err(Refused::Seal));
    assert_eq!(format!("{key:?}"), "Key(…)");
    // RFC 4231, test case 2, by the same function.
    let tag = hmac_sha256::HMAC::mac(b"what do ya want for nothing?", b"Jefe");
    assert_eq!(tag[..4], [0x5b, 0xdc, 0xc1, 0x46]);
}

#[test]
fn lists_that_are_too_long_are_left_out() {
    let many = Beat {
        alive: Some((0..251).collect()),
        ..beat()
    };
    let read = Beat::parse(&many.bytes(None), 7, None).unwrap();
    assert_eq!(read.alive, None);
    assert!(many.bytes(None).len() < 1400);
}

/// Agents and the network between them.
struct Net {
    agents: Vec<Option<Agents>>,
    now: Duration,
    /// Pairs (from, to) where nothing arrives.
    cut: BTreeSet<(usize, usize)>,
    starts: u64,
    key: Option<Key>,
}

const STEP: Duration = Duration::from_millis(5);

impl Net {
    fn new(count: usize) -> Self {
        let mut net = Self {
            agents: vec![None; count],
            now: Duration::from_secs(10),
            cut: BTreeSet::new(),
            starts: 0,
            key: Some(Key::new(b"shared")),
        };
        for n in 0..count {
            net.start(n);
        }
        net
    }

    fn members(&self) -> BTreeSet<String> {
        let count = u32::try_from(self.agents.len()).unwrap();
        names(count).into_iter().collect()
    }

    fn start(&mut self, n: usize) {
        self.starts += 1;
        let config = Config {
            key: self.key.clone(),
            ..Config::new(format!("node-{n}"), 1, self.starts)
        };
        let members = self.members();
        let names = members.iter().map(String::as_str);
        self.agents[n] = Some(Agents::new(config, names, self.now));
    }

    /// Starts an agent that knows of nobody yet.
    fn alone(&mut self, n: usize) {
        self.start(n);
        let now = self.now;
        let agent = self.agents[n].as_mut().expect("it has been started");
        drop(agent.set_members(&BTreeSet::new(), now));
    }

    fn perform(&mut self, from: usize, outputs: Vec<Output>) {
        for output in outputs {
            let Output::Send(bytes) = output else {
                continue;
            };
            for to in 0..self.agents.len() {
                if to == from || self.cut.contains(&(from, to)) {
                    continue;
                }
                let now = self.now;
                if let Some(agent) = self.agents[to].as_mut() {
                    let outputs = agent.receive(&bytes, now).expect("a beat");
                    assert!(outputs.iter().all(|one| *one == Output::Changed));
                }
            }
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        for n in 0..self.agents.len() {
            let now = self.now;
            let outputs = match self.agents[n].as_mut() {
                Some(agent) if agent.deadline() <= now => agent.tick(now),
                _ => Vec::new(),
            };
            self.perform(n, outputs);
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step();
        }
    }

    /// Who answers for an address, each by its own view.
    fn answering(&self, n: u32) -> Vec<usize> {
        let answers = |agent: &Agents, own: usize| {
            let own = format!("node-{own}");
            agent.serving() && leader(address(n), agent.alive()) == Some(own.as_str())
        };
        let agents = self.agents.iter().enumerate();
        agents
            .filter_map(|(own, agent)| agent.as_ref().filter(|a| answers(a, own)).map(|_| own))
            .collect()
    }

    /// Passes time; for how long several answered for an address, and for how long
    /// nobody did, at most over all addresses.
    fn watch(&mut self, time: Duration) -> (Duration, Duration) {
        let until = self.now + time;
        let mut worst = (Duration::ZERO, Duration::ZERO);
        let mut spans = vec![worst; 32];
        while self.now < until {
            self.step();
            for (n, span) in (0..).zip(&mut spans) {
                match self.answering(n).len() {
                    0 => span.1 += STEP,
                    1 => {}
                    _ => span.0 += STEP,
                }
                worst = (worst.0.max(span.0), worst.1.max(span.1));
            }
        }
        worst
    }

    fn sides(&mut self, sides: [&[usize]; 2]) {
        for a in sides[0] {
            for b in sides[1] {
                self.cut.extend([(*a, *b), (*b, *a)]);
            }
        }
    }
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn l8_agents_that_start_together_serve_within_the_detection_time() {
    for count in 1..6 {
        let mut net = Net::new(count);
        net.pass(ms(700));
        for n in 0..32 {
            assert_eq!(net.answering(n).len(), 1, "{count} agents");
        }
        assert_eq!(net.watch(ms(5000)), (ms(0), ms(0)), "{count} agents");
    }
}

/// The take-over: never two at once, and nobody for less than a second.
#[test]
fn l8_a_dead_node_is_replaced_in_less_than_a_second() {
    for count in 2..6 {
        let mut net = Net::new(count);
        net.pass(ms(2000));
        net.agents[1] = None;
        let (twice, nobody) = net.watch(ms(5000));
        assert!(nobody < ms(800), "{nobody:?}");
        assert!(twice <= ms(150), "{twice:?}");
    }
}

#[test]
fn l8_a_node_that_leaves_is_replaced_at_once() {
    let mut net = Net::new(3);
    net.pass(ms(2000));
    let last = net.agents[1].as_mut().unwrap().leave();
    net.perform(1, last);
    net.agents[1] = None;
    assert_eq!(net.watch(ms(3000)), (ms(0), ms(0)));
    // Who leaves is no sign of a network that parts: the last one serves on.
    let last = net.agents[2].as_mut().unwrap().leave();
    net.perform(2, last);
    net.agents[2] = None;
    assert_eq!(net.watch(ms(3000)), (ms(0), ms(0)));
}

#[test]
fn l8_a_node_that_returns_takes_over_without_two_answering() {
    let mut net = Net::new(3);
    net.pass(ms(2000));
    let led: Vec<u32> = (0..32).filter(|n| net.answering(*n) == [1]).collect();
    assert!(!led.is_empty());
    net.agents[1] = None;
    net.pass(ms(3000));
    net.start(1);
    let (twice, nobody) = net.watch(ms(5000));
    assert_eq!(twice, ms(0));
    assert!(nobody <= ms(300), "{nobody:?}");
    assert!(
        led.iter().all(|n| net.answering(*n) == [1]),
        "what it led before"
    );
}

#[test]
fn l8_a_quick_restart_moves_nothing() {
    let mut net = Net::new(3);
    net.pass(ms(2000));
    let led: Vec<u32> = (0..32).filter(|n| net.answering(*n) == [1]).collect();
    net.agents[1] = None;
    net.pass(ms(200));
    net.start(1);
    let (twice, nobody) = net.watch(ms(3000));
    assert_eq!(twice, ms(0));
    assert!(nobody <= ms(200), "{nobody:?}");
    assert!(led.iter().all(|n| net.answering(*n) == [1]));
}

#[test]
fn l8_a_node_that_is_cut_off_stops_to_answer() {
    let mut net = Net::new(3);
    net.pass(ms(2000));
    net.sides([&[1], &[0, 2]]);
    let (twice, nobody) = net.watch(ms(5000));
    assert!(
        twice <= ms(200) && nobody <= ms(800),
        "{twice:?} {nobody:?}"
    );
    assert!(!net.agents[1].as_ref().unwrap().serving());
    // It comes back without a moment of two.
    net.cut.clear();
    let (twice, nobody) = net.watch(ms(5000));
    assert!(
        twice <= ms(200) && nobody <= ms(300),
        "{twice:?} {nobody:?}"
    );
    assert!(net.agents[1].as_ref().unwrap().serving());
    assert_eq!(net.watch(ms(5000)), (ms(0), ms(0)));
}

/// One direction is broken: who is not heard stops, also of two.
#[test]
fn l8_a_node_that_is_not_heard_stops_to_answer() {
    for count in [2, 3, 5] {
        let mut net = Net::new(count);
        net.pass(ms(2000));
        net.cut
            .extend((0..count).filter(|n| *n != 1).map(|n| (1, n)));
        let (twice, _) = net.watch(ms(3000));
        assert!(twice <= ms(300), "{count}: {twice:?}");
        assert!(!net.agents[1].as_ref().unwrap().serving(), "{count}");
        assert_eq!(net.watch(ms(3000)), (ms(0), ms(0)), "{count}");
    }
}

/// The second witness: members that are gone by the API server's word free a node that
/// is alone.
#[test]
fn l8_the_last_one_serves_once_the_others_are_no_members() {
    let mut net = Net::new(3);
    net.pass(ms(2000));
    net.agents[0] = None;
    net.agents[2] = None;
    net.pass(ms(5000));
    let now = net.now;
    let last = net.agents[1].as_mut().unwrap();
    assert!(!last.serving(), "it may be the one that is cut off");
    let members = BTreeSet::from(["node-1".to_owned(), "node-2".to_owned()]);
    assert_eq!(last.set_members(&members, now), [Output::Changed]);
    assert!(last.serving());
    assert_eq!(last.set_members(&members, now), []);
    assert_eq!(last.alive().collect::<Vec<_>>(), ["node-1"]);
}

#[test]
fn l8_a_new_member_takes_nothing_before_it_is_heard() {
    let mut net = Net::new(2);
    net.pass(ms(2000));
    net.agents.push(None);
    let (members, now) = (net.members(), net.now);
    for agent in net.agents.iter_mut().flatten() {
        assert_eq!(agent.set_members(&members, now), []);
    }
    assert_eq!(net.watch(ms(2000)), (ms(0), ms(0)));
    net.start(2);
    let (twice, nobody) = net.watch(ms(3000));
    assert!(twice == ms(0) && nobody <= ms(300), "{twice:?} {nobody:?}");
    assert!((0..32).any(|n| net.answering(n) == [2]));
}

/// Who flaps is taken back later and later.
#[test]
fn l8_a_flapping_node_is_left_alone() {
    let mut net = Net::new(3);
    net.pass(ms(2000));
    let mut waits = Vec::new();
    for _ in 0..5 {
        net.cut.extend([(1, 0), (1, 2), (0, 1), (2, 1)]);
        net.pass(ms(1000));
        net.cut.clear();
        let since = net.now;
        let back = |net: &Net| {
            net.agents[0]
                .as_ref()
                .unwrap()
                .alive()
                .any(|n| n == "node-1")
        };
        while !back(&net) && net.now < since + ms(60_000) {
            net.step();
        }
        waits.push((net.now - since).as_millis() / 100);
    }
    let grows = waits.windows(2).all(|pair| pair[1] > pair[0] + pair[0] / 2);
    assert!(grows, "{waits:?}");
    assert!(waits[0] <= 8, "{waits:?}");
}

#[test]
fn recorded_beats_keep_nobody_alive() {
    let mut net = Net::new(3);
    net.pass(ms(2000));
    let recorded = net.agents[1].as_mut().unwrap().tick(net.now + ms(1000));
    let recorded: Vec<Vec<u8>> = recorded
        .into_iter()
        .filter_map(|one| match one {
            Output::Send(bytes) => Some(bytes),
            Output::Changed => None,
        })
        .collect();
    assert_eq!(recorded.len(), 1);
    net.agents[1] = None;
    for _ in 0..50 {
        net.pass(ms(50));
        let now = net.now;
        let agent = net.agents[0].as_mut().unwrap();
        assert!(agent.receive(&recorded[0], now).is_ok());
    }
    let alive: Vec<&str> = net.agents[0].as_ref().unwrap().alive().collect();
    assert_eq!(alive, ["node-0", "node-2"]);
}

/// A node whose clock went back while it was away is let in.
#[test]
fn a_lower_incarnation_is_let_in_after_a_death() {
    let mut net = Net::new(2);
    net.pass(ms(2000));
    net.agents[1] = None;
    net.pass(ms(2000));
    net.starts = 0;
    net.start(1);
    net.pass(ms(3000));
    assert_eq!(net.agents[0].as_ref().unwrap().alive().count(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever befalls the network: once it is whole, everybody agrees again.
    #[test]
    fn l8_a_network_that_is_whole_has_one_answer(
        count in 1..5_usize,
        steps in prop::collection::vec((0..4_u8, 0..5_usize, 0..5_usize, 0..2000_u64), 0..12),
    ) {
        let mut net = Net::new(count);
        for (what, a, b, time) in steps {
            let (a, b) = (a % count, b % count);
            match what {
                0 => net.agents[a] = None,
                1 => net.start(a),
                2 => drop(net.cut.insert((a, b))),
                _ => net.cut.clear(),
            }
            net.pass(ms(time));
        }
        net.cut.clear();
        for n in 0..count {
            if net.agents[n].is_none() {
                net.start(n);
            }
        }
        // The longest time of settling, and a little.
        net.pass(ms(62_000));
        for n in 0..32 {
            prop_assert_eq!(net.answering(n).len(), 1);
        }
    }

    #[test]
    fn no_datagram_breaks_an_agent(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let mut with_head = b"PtlB\x01\x04".to_vec();
        with_head.extend_from_slice(&bytes);
        for bytes in [bytes, with_head] {
            let mut net = Net::new(2);
            net.pass(ms(1000));
            let now = net.now;
            let heard = net.agents[0].as_mut().unwrap().receive(&bytes, now);
            prop_assert!(heard.is_err());
        }
    }

    #[test]
    fn beats_are_read_as_written(
        name in "[a-z0-9.-]{1,253}", numbers in any::<[u64; 3]>(), interval in any::<u16>(),
        [leaving, serving, sealed] in any::<[bool; 3]>(),
        alive in prop::option::of(prop::collection::btree_set(any::<u32>(), 0..20)),
    ) {
        let [cluster, incarnation, sequence] = numbers;
        let interval = Duration::from_millis(interval.into());
        let beat = Beat { name, cluster, incarnation, sequence, interval, leaving, serving, alive };
        let key = sealed.then(|| Key::new(b"key"));
        let bytes = beat.bytes(key.as_ref());
        prop_assert_eq!(Beat::parse(&bytes, cluster, key.as_ref()), Ok(beat));
    }
}

/// As another implementation of the same formula finds them; never to change.
const KNOWN: [&str; 5] = ["node-1", "node-3", "node-2", "node-2", "node-3"];
