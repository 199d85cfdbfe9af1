//! The state table, two sessions that watch each other, and damaged packets.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const START: Duration = Duration::from_secs(50);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// RFC 5880 section 6.8.6, every cell: state, what is received, what follows.
#[test]
fn l10_every_received_state_in_every_state() {
    use State::{AdminDown, Down, Init, Up};
    let table = [
        (AdminDown, AdminDown, AdminDown),
        (AdminDown, Down, AdminDown),
        (AdminDown, Init, AdminDown),
        (AdminDown, Up, AdminDown),
        (Down, AdminDown, Down),
        (Down, Down, Init),
        (Down, Init, Up),
        (Down, Up, Down),
        (Init, AdminDown, Down),
        (Init, Down, Init),
        (Init, Init, Up),
        (Init, Up, Up),
        (Up, AdminDown, Down),
        (Up, Down, Down),
        (Up, Init, Up),
        (Up, Up, Up),
    ];
    let mut cells = std::collections::BTreeSet::new();
    for (state, received, expected) in table {
        assert!(cells.insert((state, received)));
        assert_eq!(
            next(state, received),
            expected,
            "{state:?} hears {received:?}"
        );
    }
    assert_eq!(cells.len(), 16);
}

#[test]
fn a_packet_is_as_the_bytes_say() {
    let packet = Packet {
        diagnostic: Diagnostic::NEIGHBOR,
        state: State::Up,
        poll: true,
        last: false,
        independent: true,
        demand: false,
        multiplier: 3,
        mine: 0x0102_0304,
        yours: 0x0a0b_0c0d,
        desired_transmit: ms(100),
        required_receive: ms(300),
    };
    let bytes = [
        0x23, 0xe8, 3, 24, 1, 2, 3, 4, 10, 11, 12, 13, 0, 1, 0x86, 0xa0, 0, 4, 0x93, 0xe0, 0, 0, 0,
        0,
    ];
    assert_eq!(packet.bytes(), bytes);
    assert_eq!(Packet::parse(&bytes), Some(packet));
    // Each is discarded: what was changed, where, to what.
    let changes: [(&str, usize, u8); 8] = [
        ("version", 0, 0x43),
        ("multipoint", 1, 0xe9),
        ("authentication", 1, 0xec),
        ("multiplier", 2, 0),
        ("too short", 3, 23),
        ("longer than it is", 3, 25),
        ("no number of the sender", 4, 0),
        ("no number of ours, and up", 8, 0),
    ];
    for (what, at, byte) in changes {
        let mut bytes = bytes;
        match what {
            "no number of the sender" => bytes[4..8].fill(0),
            "no number of ours, and up" => bytes[8..12].fill(0),
            _ => bytes[at] = byte,
        }
        assert_eq!(Packet::parse(&bytes), None, "{what}");
    }
    for length in 0..24 {
        assert_eq!(Packet::parse(&bytes[..length]), None);
    }
    // Who is down may not know our number yet.
    let mut down = bytes;
    down[1] = 0x40;
    down[8..12].fill(0);
    assert!(Packet::parse(&down).is_some());
}

/// Two sessions on a link.
struct Link {
    ends: [Session; 2],
    now: Duration,
    changes: Vec<(usize, Duration, State)>,
    /// Which directions carry packets.
    carries: [bool; 2],
    sent: [Vec<Packet>; 2],
}

impl Link {
    fn new(configs: [Config; 2]) -> Self {
        let [a, b] = configs;
        Self {
            ends: [Session::new(a, 1, START), Session::new(b, 2, START)],
            now: START,
            changes: Vec::new(),
            carries: [true, true],
            sent: [Vec::new(), Vec::new()],
        }
    }

    fn perform(&mut self, end: usize, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Changed(state, _) => self.changes.push((end, self.now, state)),
                Output::Send(bytes) => {
                    self.sent[end].push(Packet::parse(&bytes).expect("a valid packet"));
                    if self.carries[end] {
                        let answers = self.ends[1 - end].receive(&bytes, 255, self.now);
                        self.perform(1 - end, answers);
                    }
                }
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.ends.iter().filter_map(Session::deadline).min() {
            if due > until {
                break;
            }
            self.now = due.max(self.now);
            for end in 0..2 {
                let outputs = self.ends[end].tick(self.now);
                self.perform(end, outputs);
            }
        }
        self.now = until;
    }

    fn states(&self) -> [State; 2] {
        [self.ends[0].state().0, self.ends[1].state().0]
    }
}

fn configs() -> [Config; 2] {
    [Config::new(7), Config::new(9)]
}

#[test]
fn l10_two_sessions_come_up_and_speed_up() {
    let mut link = Link::new(configs());
    link.pass(ms(3000));
    assert_eq!(link.states(), [State::Up, State::Up]);
    assert_eq!(link.ends[0].detection_time(), Some(ms(300)));
    // Slow before, in steps of 75 to 100 ms after; polled once and answered.
    assert_eq!(link.sent[0][0].desired_transmit, ms(1000));
    assert_eq!(link.sent[0][0].yours, 0);
    assert!(link.sent.iter().flatten().any(|p| p.poll));
    assert!(link.sent.iter().flatten().any(|p| p.last));
    assert!(!link.sent.iter().flatten().any(|p| p.last && p.poll));
    let before = link.sent[0].len();
    link.pass(ms(10_000));
    let count = link.sent[0].len() - before;
    assert!((100..=134).contains(&count), "{count}");
    assert!(!link.sent[0].last().unwrap().poll, "it was answered");
    assert_eq!(link.sent[0].last().unwrap().yours, 9);
}

#[test]
fn l10_a_broken_path_is_noticed_within_the_detection_time() {
    for broken in [[false, false], [false, true], [true, false]] {
        let mut link = Link::new(configs());
        link.pass(ms(3000));
        link.changes.clear();
        let cut = link.now;
        link.carries = broken;
        link.pass(ms(1000));
        for end in 0..2 {
            assert_ne!(link.states()[end], State::Up, "{broken:?}");
            let (_, at, state) = link.changes.iter().find(|c| c.0 == end).unwrap();
            assert_eq!(*state, State::Down, "{broken:?}");
            assert!(*at <= cut + ms(700), "{broken:?}: {:?}", *at - cut);
        }
        if broken == [false, false] {
            assert_eq!(link.ends[0].state().1, Diagnostic::EXPIRED);
            assert!(link.changes.iter().all(|(_, at, _)| *at <= cut + ms(300)));
        }
        link.carries = [true, true];
        link.pass(ms(5000));
        assert_eq!(link.states(), [State::Up, State::Up]);
    }
}

#[test]
fn the_slower_end_counts() {
    let [a, mut b] = configs();
    b.receive = ms(400);
    b.multiplier = 5;
    let mut link = Link::new([a, b]);
    link.pass(ms(5000));
    let before = [link.sent[0].len(), link.sent[1].len()];
    link.pass(ms(10_000));
    let slow = link.sent[0].len() - before[0];
    let fast = link.sent[1].len() - before[1];
    assert!((25..=34).contains(&slow), "{slow}");
    assert!((100..=134).contains(&fast), "{fast}");
    // Ours: five of the neighbour's 100 ms. Its: three of the 400 ms that it takes.
    assert_eq!(link.ends[0].detection_time(), Some(ms(500)));
    assert_eq!(link.ends[1].detection_time(), Some(ms(1200)));
}

#[test]
fn l10_a_session_that_is_switched_off_is_no_broken_path() {
    let mut link = Link::new(configs());
    link.pass(ms(3000));
    let outputs = link.ends[0].disable(link.now);
    link.perform(0, outputs);
    assert_eq!(link.states(), [State::AdminDown, State::Down]);
    assert_eq!(link.ends[1].state().1, Diagnostic::NEIGHBOR);
    assert_eq!(link.ends[1].neighbor(), Some(State::AdminDown));
    link.pass(ms(5000));
    assert_eq!(link.states(), [State::AdminDown, State::Down]);
    assert!(link.ends[0].disable(link.now).is_empty());
    let outputs = link.ends[0].enable(link.now);
    link.perform(0, outputs);
    link.pass(ms(5000));
    assert_eq!(link.states(), [State::Up, State::Up]);
    assert!(link.ends[0].enable(link.now).is_empty());
}

#[test]
fn packets_from_elsewhere_are_dropped() {
    let mut link = Link::new(configs());
    link.pass(ms(3000));
    let down = Packet {
        state: State::Down,
        ..*link.sent[1].last().unwrap()
    };
    let mut end = link.ends[0].clone();
    assert!(
        end.receive(&down.bytes(), 254, link.now).is_empty(),
        "routed"
    );
    // Over several hops that is as it should be (RFC 5883).
    let far = Config {
        least_ttl: 254,
        ..Config::new(7)
    };
    let hello = Packet { yours: 0, ..down };
    for (ttl, heard) in [(253, None), (254, Some(State::Down))] {
        let mut end = Session::new(far, 1, link.now);
        drop(end.receive(&hello.bytes(), ttl, link.now));
        assert_eq!(end.neighbor(), heard, "TTL {ttl}");
    }
    let other = Packet { yours: 8, ..down };
    assert!(
        end.receive(&other.bytes(), 255, link.now).is_empty(),
        "of another session"
    );
    assert_eq!(end.state().0, State::Up);
    assert!(!end.receive(&down.bytes(), 255, link.now).is_empty());
    assert_eq!(end.state().0, State::Down);
}

#[test]
fn a_neighbour_that_wants_no_packets_gets_none_but_answers() {
    let mut link = Link::new(configs());
    link.pass(ms(3000));
    let mut end = link.ends[0].clone();
    let quiet = Packet {
        required_receive: ms(0),
        poll: true,
        ..*link.sent[1].last().unwrap()
    };
    let answers = end.receive(&quiet.bytes(), 255, link.now);
    assert_eq!(answers.len(), 1);
    assert_eq!(
        end.deadline(),
        Some(link.now + ms(300)),
        "only its silence counts"
    );
    let demand = Packet {
        required_receive: ms(100),
        demand: true,
        poll: false,
        ..quiet
    };
    let mut end = link.ends[0].clone();
    assert!(end.receive(&demand.bytes(), 255, link.now).is_empty());
    assert_eq!(end.deadline(), Some(link.now + ms(300)));
}

#[test]
fn silly_times_are_mended() {
    let none = Config {
        discriminator: 0,
        transmit: ms(0),
        receive: ms(0),
        multiplier: 0,
        least_ttl: 0,
    };
    let mut link = Link::new([none, Config::new(9)]);
    link.pass(ms(4000));
    assert_eq!(link.states(), [State::Up, State::Up]);
}

proptest! {
    #[test]
    fn no_packet_breaks_a_session(
        bytes in prop::collection::vec(any::<u8>(), 0..40),
        up in any::<bool>(),
    ) {
        let mut link = Link::new(configs());
        if up {
            link.pass(ms(3000));
        }
        let outputs = link.ends[0].receive(&bytes, 255, link.now);
        prop_assert!(outputs.len() <= 3);
        link.pass(ms(20_000));
    }

    #[test]
    fn no_damage_keeps_a_session_down(
        at in 0..24_usize, byte in any::<u8>(), which in any::<prop::sample::Index>(),
    ) {
        let mut link = Link::new(configs());
        link.pass(ms(3000));
        let mut bytes = link.sent[1][which.index(link.sent[1].len())].bytes();
        bytes[at] = byte;
        let now = link.now;
        let outputs = link.ends[0].receive(&bytes, 255, now);
        link.perform(0, outputs);
        link.pass(Duration::from_secs(10));
        prop_assert_eq!(link.states(), [State::Up, State::Up]);
    }

    #[test]
    fn packets_are_read_as_written(
        bytes in any::<[u8; 24]>(), state in 0..4_usize, mine in 1..u32::MAX, yours in 1..u32::MAX,
    ) {
        let packet = Packet {
            diagnostic: Diagnostic(bytes[0] & 0x1f),
            state: State::ALL[state],
            poll: bytes[1] & 1 == 1,
            last: bytes[1] & 2 == 2,
            independent: bytes[1] & 4 == 4,
            demand: bytes[1] & 8 == 8,
            multiplier: bytes[2].max(1),
            mine,
            yours,
            desired_transmit: Duration::from_micros(u32::from_be_bytes([bytes[4]; 4]).into()),
            required_receive: Duration::from_micros(u32::from_be_bytes([bytes[5]; 4]).into()),
        };
        prop_assert_eq!(Packet::parse(&packet.bytes()), Some(packet));
    }
}
