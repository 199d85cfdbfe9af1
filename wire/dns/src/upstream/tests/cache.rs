use std::time::Duration;

use proptest::prelude::*;

use super::super::{Cache, Found, Limits, Outcome, Prefetch, Stale};
use super::*;

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn cache(limits: Limits) -> Cache {
    Cache::new(limits, 1)
}

/// The TTL that the cache gives, or `None`.
fn ttl_at(cache: &mut Cache, text: &str, now: Duration) -> Option<u32> {
    let (reply, age) = match cache.find(&key(text), now) {
        Found::Nothing => return None,
        Found::Fresh { reply, age, .. } | Found::Stale { reply, age, .. } => (reply, age),
    };
    let mut out = Vec::new();
    assert!(reply.write(&query(text, Rtype::A), Transport::Udp, age, &mut out));
    Some(shown_ttl(&out))
}

#[test]
fn d22_ttls_count_down_until_a_reply_expires() {
    let mut cache = cache(Limits::default());
    cache.keep(&key("a.example"), received("a.example", 30), seconds(100));
    for (now, expected) in [
        (100, Some(30)),
        (101, Some(29)),
        (129, Some(1)),
        (130, None),
    ] {
        assert_eq!(
            ttl_at(&mut cache, "A.example", seconds(now)),
            expected,
            "{now}"
        );
    }
    assert_eq!(ttl_at(&mut cache, "b.example", seconds(100)), None);
}

#[test]
fn d22_ttls_lie_between_the_limits() {
    let limits = Limits {
        most_ttl: 60,
        least_ttl: 5,
        ..Limits::default()
    };
    for (own, shown) in [
        (0, Some(5)),
        (4, Some(5)),
        (30, Some(30)),
        (86_400, Some(60)),
    ] {
        let mut cache = cache(limits);
        cache.keep(&key("a.example"), received("a.example", own), seconds(0));
        assert_eq!(ttl_at(&mut cache, "a.example", seconds(0)), shown, "{own}");
    }
    // Without a least one, zero means that nobody keeps it (RFC 1035 §3.2.1), and
    // so does a TTL with the highest bit (RFC 2181 §8).
    for own in [0, 0x8000_0000, u32::MAX] {
        let mut cache = cache(Limits::default());
        cache.keep(&key("a.example"), received("a.example", own), seconds(0));
        assert!(cache.is_empty(), "{own}");
    }
}

#[test]
fn d22_negative_replies_are_kept_as_rfc_2308_says() {
    let asked = query("no.example", Rtype::A);
    let alias = record("no.example", Rtype::CNAME, 7, name("to.example").as_wire());
    let cases: [(&str, Vec<u8>, Option<u32>, Outcome); 8] = [
        (
            "the minimum",
            reply(&asked, 3, [&[], &[soa("example", 900, 60)], &[]]),
            Some(60),
            Outcome::Negative,
        ),
        (
            "the SOA's own TTL",
            reply(&asked, 3, [&[], &[soa("example", 20, 60)], &[]]),
            Some(20),
            Outcome::Negative,
        ),
        (
            "no data",
            reply(&asked, 0, [&[], &[soa("example", 20, 60)], &[]]),
            Some(20),
            Outcome::Negative,
        ),
        (
            "an alias to nothing",
            reply(
                &asked,
                0,
                [std::slice::from_ref(&alias), &[soa("example", 20, 60)], &[]],
            ),
            Some(7),
            Outcome::Negative,
        ),
        (
            "without SOA",
            reply(&asked, 3, [&[], &[], &[]]),
            None,
            Outcome::Negative,
        ),
        (
            "an alias that ends nowhere",
            reply(&asked, 0, [&[alias], &[], &[]]),
            None,
            Outcome::Negative,
        ),
        (
            "refused",
            reply(&asked, 5, [&[], &[soa("example", 20, 60)], &[]]),
            None,
            Outcome::Failure,
        ),
        (
            "failed",
            reply(&asked, 2, [&[], &[], &[]]),
            None,
            Outcome::Failure,
        ),
    ];
    for (what, reply, ttl, outcome) in cases {
        let received = Received::read(&reply).unwrap();
        assert_eq!(
            (received.ttl(), received.outcome()),
            (ttl, outcome),
            "{what}"
        );
    }
}

#[test]
fn d22_negative_replies_have_a_limit_of_their_own() {
    let asked = query("no.example", Rtype::A);
    let limits = Limits {
        most_negative_ttl: 10,
        ..Limits::default()
    };
    let mut cache = cache(limits);
    let reply = reply(&asked, 3, [&[], &[soa("example", 900, 60)], &[]]);
    cache.keep(
        &key("no.example"),
        Received::read(&reply).unwrap(),
        seconds(0),
    );
    assert!(matches!(
        cache.find(&key("no.example"), seconds(9)),
        Found::Fresh { .. }
    ));
    assert!(matches!(
        cache.find(&key("no.example"), seconds(10)),
        Found::Nothing
    ));
}

#[test]
fn d22_what_was_cut_is_never_kept_and_failures_hardly() {
    let asked = query("a.example", Rtype::A);
    let mut cache = cache(Limits::default());
    let answer = record("a.example", Rtype::A, 30, &[192, 0, 2, 1]);
    let mut cut = reply(&asked, 0, [&[answer], &[], &[]]);
    cut[2] |= 0x02;
    cache.keep(&key("a.example"), Received::read(&cut).unwrap(), seconds(0));
    let refused = reply(&asked, 5, [&[], &[], &[]]);
    cache.keep(
        &key("a.example"),
        Received::read(&refused).unwrap(),
        seconds(0),
    );
    assert!(cache.is_empty());
    let failed = Received::read(&reply(&asked, 2, [&[], &[], &[]])).unwrap();
    cache.keep(&key("a.example"), failed.clone(), seconds(0));
    assert!(matches!(
        cache.find(&key("a.example"), seconds(4)),
        Found::Fresh { .. }
    ));
    assert!(matches!(
        cache.find(&key("a.example"), seconds(5)),
        Found::Nothing
    ));
    // A failure never replaces an answer.
    cache.keep(&key("a.example"), received("a.example", 30), seconds(10));
    cache.keep(&key("a.example"), failed, seconds(11));
    assert_eq!(ttl_at(&mut cache, "a.example", seconds(12)), Some(28));
}

#[test]
fn d22_stale_answers_have_a_limit_and_a_short_ttl() {
    let limits = Limits {
        stale: Some(Stale {
            most: seconds(3600),
            ttl: 30,
            rest: seconds(30),
        }),
        ..Limits::default()
    };
    let mut cache = cache(limits);
    cache.keep(&key("a.example"), received("a.example", 60), seconds(0));
    for (now, stale) in [(59, false), (60, true), (3659, true)] {
        let found = cache.find(&key("a.example"), seconds(now));
        assert_eq!(
            matches!(found, Found::Stale { .. }),
            stale,
            "{now}: {found:?}"
        );
    }
    assert_eq!(ttl_at(&mut cache, "a.example", seconds(60)), Some(30));
    assert_eq!(ttl_at(&mut cache, "a.example", seconds(3660)), None);
    // A failure to renew it leaves it there.
    let failed = reply(&query("a.example", Rtype::A), 2, [&[], &[], &[]]);
    cache.keep(
        &key("a.example"),
        Received::read(&failed).unwrap(),
        seconds(100),
    );
    assert_eq!(ttl_at(&mut cache, "a.example", seconds(101)), Some(30));
    // Once renewing it has failed, nobody tries that again for a while.
    cache.renewal_failed(&key("a.example"), seconds(102));
    for (now, rests) in [(102, true), (131, true), (132, false)] {
        let found = cache.find(&key("a.example"), seconds(now));
        assert!(
            matches!(found, Found::Stale { failed, .. } if failed == rests),
            "{now}"
        );
    }
    // That a name does not exist is not told for longer than it holds.
    let negative = reply(
        &query("no.example", Rtype::A),
        3,
        [&[], &[soa("example", 60, 60)], &[]],
    );
    cache.keep(
        &key("no.example"),
        Received::read(&negative).unwrap(),
        seconds(0),
    );
    assert!(matches!(
        cache.find(&key("no.example"), seconds(60)),
        Found::Nothing
    ));
}

#[test]
fn d22_popular_names_are_asked_for_again_before_they_expire() {
    let limits = Limits {
        prefetch: Some(Prefetch {
            queries: 3,
            pause: seconds(60),
            percent: 10,
        }),
        ..Limits::default()
    };
    let mut cache = cache(limits);
    let mut prefetches = |name: &str, times: &[u64]| -> Vec<u64> {
        cache.keep(&key(name), received(name, 100), seconds(0));
        times
            .iter()
            .copied()
            .filter(|&at| {
                matches!(
                    cache.find(&key(name), seconds(at)),
                    Found::Fresh { prefetch: true, .. }
                )
            })
            .collect()
    };
    assert_eq!(
        prefetches("popular.example", &[1, 50, 89, 91, 95]),
        [91],
        "once"
    );
    assert_eq!(
        prefetches("rare.example", &[91, 95]),
        [],
        "asked for too seldom"
    );
    assert_eq!(
        prefetches("forgotten.example", &[1, 2, 3, 95]),
        [],
        "after a long pause"
    );
}

#[test]
fn d22_random_names_do_not_push_out_what_is_asked_for() {
    let limits = Limits {
        entries: 1000,
        bytes: 1 << 20,
        ..Limits::default()
    };
    let mut cache = cache(limits);
    cache.keep(
        &key("popular.example"),
        received("popular.example", 3600),
        seconds(0),
    );
    for number in 0..100_000_u32 {
        let random = format!("r{number}.example");
        cache.keep(&key(&random), received(&random, 3600), seconds(1));
        if number % 500 == 0 {
            let found = cache.find(&key("popular.example"), seconds(1));
            assert!(matches!(found, Found::Fresh { .. }), "{number}");
        }
        assert!(cache.len() <= 1000 && cache.bytes() <= 1 << 20);
    }
    assert_eq!(cache.len(), 1000);
}

proptest! {
    /// Whatever is kept and asked, the bounds hold, the sizes add up, and nothing
    /// is given for longer than it holds.
    #[test]
    fn d22_a_cache_is_bounded_and_never_late(
        steps in prop::collection::vec((0_u8..40, 0_u32..50, 0_u64..5, any::<bool>()), 1..300),
        entries in 1_usize..20,
        bytes in 300_usize..4000,
    ) {
        let mut cache = cache(Limits { entries, bytes, ..Limits::default() });
        let mut now = seconds(0);
        let mut model = std::collections::BTreeMap::new();
        for (which, ttl, pause, keeps) in steps {
            now += seconds(pause);
            let text = format!("n{which}.example");
            if keeps {
                cache.keep(&key(&text), received(&text, ttl), now);
                if ttl > 0 {
                    model.insert(which, now + seconds(u64::from(ttl)));
                }
            } else if let Some(left) = ttl_at(&mut cache, &text, now) {
                let end = model[&which];
                prop_assert!(now < end);
                prop_assert_eq!(u64::from(left), (end - now).as_secs());
            }
            prop_assert!(cache.len() <= entries && cache.bytes() <= bytes);
            if cache.is_empty() {
                prop_assert_eq!(cache.bytes(), 0);
            }
        }
        cache.clear();
        prop_assert_eq!((cache.len(), cache.bytes()), (0, 0));
    }
}
