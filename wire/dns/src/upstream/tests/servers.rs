use std::time::Duration;

use proptest::prelude::*;

use super::super::{Health, HealthLimits, Policy, Suffixes, order};
use super::*;

const LIMITS: HealthLimits = HealthLimits {
    most_failures: 2,
    first_wait: Duration::from_millis(500),
    most_wait: Duration::from_secs(2),
};

#[test]
fn d22_a_server_is_down_after_failures_and_up_after_a_reply() {
    let mut health = Health::default();
    assert!(
        health.is_up() && !health.failed(&LIMITS),
        "one is no pattern"
    );
    assert!(!health.replied(), "it was up");
    assert!(!health.failed(&LIMITS), "counted anew");
    assert!(health.failed(&LIMITS), "now it falls");
    assert!(!health.is_up() && !health.failed(&LIMITS), "it falls once");
    let waits: Vec<u128> = (0..4)
        .map(|_| {
            let wait = health.wait().unwrap().as_millis();
            health.probe_failed(&LIMITS);
            wait
        })
        .collect();
    assert_eq!(waits, [500, 1000, 2000, 2000]);
    assert!(health.replied() && health.is_up());
    assert_eq!(health, Health::default());
    // Some want that no server is ever given up.
    let never = HealthLimits {
        most_failures: 0,
        ..LIMITS
    };
    assert!((0..100).all(|_| !health.failed(&never)) && health.is_up());
    health.probe_failed(&LIMITS);
    assert!(health.is_up(), "a probe is no question of a client");
}

#[test]
fn d22_servers_are_asked_in_the_order_of_the_policy() {
    let up = [true, false, true, true];
    let cases: [(Policy, &[bool], u64, &[usize]); 6] = [
        (Policy::Sequential, &up, 5, &[0, 2, 3]),
        (Policy::RoundRobin, &up, 0, &[0, 2, 3]),
        (Policy::RoundRobin, &up, 1, &[2, 3, 0]),
        (Policy::RoundRobin, &up, 2, &[3, 0, 2]),
        (Policy::Sequential, &[false, false], 0, &[0, 1]),
        (Policy::Random, &[], 9, &[]),
    ];
    for (policy, up, turn, expected) in cases {
        assert_eq!(order(policy, up, turn), expected, "{policy:?} {turn}");
    }
    let firsts: std::collections::BTreeSet<_> = (0..12)
        .map(|turn| order(Policy::Random, &up, turn))
        .collect();
    assert_eq!(firsts.len(), 6, "every order comes");
}

proptest! {
    #[test]
    fn d22_every_healthy_server_is_in_the_order_once(up in prop::collection::vec(any::<bool>(), 0..9), turn: u64) {
        for policy in [Policy::Random, Policy::RoundRobin, Policy::Sequential] {
            let mut found = order(policy, &up, turn);
            found.sort_unstable();
            let all_down = !up.contains(&true);
            let expected: Vec<usize> = (0..up.len()).filter(|&at| all_down || up[at]).collect();
            prop_assert_eq!(found, expected);
        }
    }

    /// The closest domain around a name, as a simple search finds it.
    #[test]
    fn d22_the_longest_suffix_wins(domains in prop::collection::vec("([ab]\\.){0,3}", 0..8), asked in "([ab]\\.){0,4}") {
        let rows: Vec<_> = domains.iter().enumerate().map(|(at, domain)| (name(domain), at)).collect();
        let table = Suffixes::new(rows.clone());
        let asked = name(&asked);
        let mut around = Some(asked.clone());
        let mut expected = None;
        while let Some(domain) = around.filter(|_| expected.is_none()) {
            expected = rows.iter().rfind(|(row, _)| *row == domain).map(|(_, at)| *at);
            around = domain.parent().or_else(|| (domain != Name::root()).then(Name::root));
        }
        prop_assert_eq!(table.find(&asked).map(|(_, at)| *at), expected);
    }
}

#[test]
fn d22_only_the_reply_to_the_question_counts() {
    let asked = Ask::new(&key("www.example"), 99, None, true);
    let good = |message: &[u8]| {
        let mut reply = message.to_vec();
        reply[2] |= 0x80;
        reply
    };
    let answered = good(asked.message());
    assert!(asked.is_answered_by(&answered) && asked.is_internet());
    let mut respelled = answered.clone();
    respelled[13].make_ascii_uppercase();
    assert!(asked.is_answered_by(&respelled), "servers may respell");
    // Any other octet up to the end of the question makes it another message, but
    // for the rest of the flags and the counts of records.
    let question_end = 12 + 13 + 4;
    for at in (0..question_end).filter(|at| !(2..4).contains(at) && !(6..12).contains(at)) {
        let mut other = answered.clone();
        other[at] ^= 1;
        assert!(!asked.is_answered_by(&other), "{at}");
    }
    assert!(
        !asked.is_answered_by(asked.message()),
        "a query is no reply"
    );
    for length in 0..question_end {
        assert!(!asked.is_answered_by(&answered[..length]));
    }
    // With case as a secret, respelling is a forgery.
    let secret = Ask::new(&key("www.example"), 99, Some([0b1010_1010; 32]), true);
    assert_ne!(secret.message(), asked.message());
    assert!(secret.is_answered_by(&good(secret.message())));
    assert!(!secret.is_answered_by(&answered));
}

#[test]
fn d22_what_is_asked_upstream_has_nothing_of_the_clients_options() {
    // RD, CD, and an OPT record with DO and a cookie.
    let mut query = query("WWW.example", Rtype::A);
    query[3] = 0x10;
    query[11] = 1;
    query.extend_from_slice(b"\0\0\x29\x10\0\0\0\x80\0\0\x0c\0\x0a\0\x08cookie!!");
    let key = Key::of(&query).unwrap();
    assert_eq!(
        (key.to_name(), key.rtype()),
        (name("www.example"), Rtype::A)
    );
    let ask = Ask::new(&key, 0x1234, None, true);
    let expected: &[u8] = b"\x12\x34\x01\x30\0\x01\0\0\0\0\0\x01\x03www\x07example\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\x80\0\0\0";
    assert_eq!(ask.message(), expected);
    let plain = Key::of(&super::query("www.example", Rtype::A)).unwrap();
    assert_ne!(plain.as_bytes(), key.as_bytes(), "CD and DO are kept apart");
}

#[test]
fn d22_a_reply_is_given_in_the_clients_own_terms() {
    let asked = query("www.example", Rtype::A);
    let many: Vec<Vec<u8>> = (0..40)
        .map(|last| record("www.example", Rtype::A, 30, &[192, 0, 2, last]))
        .collect();
    // An OPT record of the server's own, with AA, AD and RA set.
    let opt = b"\0\0\x29\x02\0\0\0\0\0\0\x06\0\x0f\0\x02\0\x01".to_vec();
    let mut message = reply(&asked, 0, [&many, &[], &[opt]]);
    message[2] |= 0x04;
    message[3] |= 0x20;
    let received = Received::read(&message).unwrap();
    let mut client = crate::query(0xabcd, &name("www.example"), Rtype::A);
    client[13] = b'W';
    let mut out = Vec::new();
    assert!(received.write(&client, Transport::Tcp, Age::NEW, &mut out));
    assert_eq!(
        out[..12],
        *b"\xab\xcd\x81\x80\0\x01\0\x28\0\0\0\0",
        "no AA, no AD, no OPT"
    );
    assert_eq!(out[12..29], client[12..29], "spelled as the client did");
    assert!(received.write(&client, Transport::Udp, Age::NEW, &mut out));
    assert_eq!(
        out[..],
        [b"\xab\xcd\x83\x80\0\x01\0\0\0\0\0\0", &client[12..]].concat()[..],
        "cut"
    );
    // AD for those who understand it, OPT for those who sent one.
    client[3] |= 0x20;
    client[11] = 1;
    client.extend_from_slice(b"\0\0\x29\x10\0\0\0\0\0\0\0");
    assert!(received.write(&client, Transport::Udp, Age::NEW, &mut out));
    assert_eq!(out[..12], *b"\xab\xcd\x81\xa0\0\x01\0\x28\0\0\0\x01");
    assert!(out.ends_with(b"\0\0\x29\x04\xd0\0\0\0\0\0\0"));
    assert!(!received.write(b"no query", Transport::Udp, Age::NEW, &mut out));
}

proptest! {
    #[test]
    fn d22_broken_replies_never_panic(mut noise in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..60, octet: u8) {
        let asked = query("www.example", Rtype::A);
        let mut message = reply(&asked, 0, [&[record("www.example", Rtype::A, 9, &[1, 2, 3, 4])], &[soa("example", 1, 2)], &[]]);
        if let Some(field) = message.get_mut(at) {
            *field = octet;
        }
        noise.splice(0..0, message.iter().copied().take(at * 2));
        for message in [&message, &noise] {
            if let Some(received) = Received::read(message) {
                let mut out = Vec::new();
                received.write(&asked, Transport::Udp, Age::NEW, &mut out);
                prop_assert!(out.len() <= 512);
            }
        }
    }
}
