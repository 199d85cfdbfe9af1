//! Replies of other resolvers, of any bytes: what is kept of them, given to clients, put
//! behind an alias, or respelled can be read, answers what was asked, and is never
//! longer than what the asker takes; a cache of them keeps its bounds.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use portolan_dns::upstream::{
    Age, Ask, Cache, Found, Key, Limits, Match, Received, Rewrites, Rule, Stale,
};
use portolan_dns::{Name, Rtype, Transport, copy_answers, fit, granted, id, query, same_question};

/// What clients ask, one with EDNS.
static QUERIES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let asked = |name: &str, rtype| query(0x4321, &Name::parse(name).expect("a name"), rtype);
    let mut edns = asked("www.example.com", Rtype::A);
    if let Some(count) = edns.get_mut(11) {
        *count = 1;
    }
    edns.extend(b"\0\x00\x29\x04\xd0\0\0\x80\0\0\0");
    vec![
        asked("www.example.com", Rtype::A),
        edns,
        asked("www.example.com", Rtype::SRV),
        asked("www.example.com", Rtype::ANY),
    ]
});

static REWRITES: LazyLock<Rewrites> = LazyLock::new(|| {
    let rule = Rule::new(Match::Suffix, "example.com.", "example.org.");
    Rewrites::new(vec![rule.expect("a rule")])
});

/// An alias of ours that ends outside, without its end.
const ALIAS: &[u8] = b"\x43\x21\x85\x80\0\x01\0\x01\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01\
    \xc0\x0c\0\x05\0\x01\0\0\0\x05\0\x06\x03far\xc0\x10";

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, bytes)) = bytes.split_first() else {
        return;
    };
    let Some(query) = QUERIES.get(usize::from(first & 3)) else {
        return;
    };
    let transport = if first & 4 == 0 { Transport::Udp } else { Transport::Tcp };
    let most = usize::from(granted(query, transport));
    let Some(key) = Key::of(query) else { return };

    // A reply as it came, and the same with the question in place of its beginning, so
    // that what comes behind is reached.
    let mut grafted = query.get(..33).unwrap_or_default().to_vec();
    if let (Some(to), Some(from)) = (grafted.get_mut(2..12), bytes.get(..10)) {
        to.copy_from_slice(from);
        to[0] |= 0x80;
        to[2..4].copy_from_slice(&[0, 1]);
    }
    grafted.extend_from_slice(bytes.get(10..).unwrap_or_default());
    let ask = Ask::new(&key, 0x4321, None, true);
    for reply in [bytes, &grafted] {
        let answered = ask.is_answered_by(reply);
        assert!(!answered || reply.get(2).is_some_and(|flags| flags & 0x80 != 0));
        assert!(!ask.is_answered_by(ask.message()), "a question is no reply");
        if let Some(received) = Received::read(reply) {
            kept(&key, &received, (query, transport, most), answered);
        }
        let mut spliced = ALIAS.to_vec();
        if copy_answers(query, transport, reply, &mut spliced) {
            assert!(spliced.len() <= most.max(ALIAS.len()));
            assert!(Received::read(&spliced).is_some(), "spliced: {spliced:?}");
        }
        if let Some(rewritten) = REWRITES.query(query) {
            let mut out = reply.to_vec();
            rewritten.restore(query, transport, &mut out);
            assert!(out.len() <= most, "respelled: {} > {most}", out.len());
        }
        let mut cut = reply.to_vec();
        fit(query, transport, &mut cut);
        assert!(cut.len() <= most, "cut: {} > {most}", cut.len());
    }
});

/// Gives a reply to whoever asks, from a small cache and without one.
fn kept(key: &Key, received: &Received, (query, transport, most): (&[u8], Transport, usize), answered: bool) {
    let limits = Limits {
        entries: 2,
        bytes: 2000,
        stale: Some(Stale {
            most: Duration::from_secs(60),
            ttl: 30,
            rest: Duration::ZERO,
        }),
        ..Limits::default()
    };
    let mut cache = Cache::new(limits, 1);
    cache.keep(key, received.clone(), Duration::ZERO);
    assert!(cache.len() <= 2 && cache.bytes() <= 2000);
    let mut out = Vec::new();
    for seconds in [0, 10, 4000] {
        let age = match cache.find(key, Duration::from_secs(seconds)) {
            Found::Fresh { age, .. } | Found::Stale { age, .. } => age,
            Found::Nothing => Age::NEW,
        };
        if !received.write(query, transport, age, &mut out) {
            continue;
        }
        assert!(out.len() <= most, "{} > {most}", out.len());
        assert_eq!(id(&out), id(query), "the query's ID");
        assert!(!answered || same_question(query, &out), "{out:?}");
        assert!(Received::read(&out).is_some(), "cannot be read again: {out:?}");
    }
}
