//! Rewriting names, with CoreDNS' meanings.

use proptest::prelude::*;

use super::super::{Match, Rewrites, Rule};
use super::*;

fn rule(matching: Match, from: &str, to: &str) -> Rule {
    Rule::new(matching, from, to).unwrap()
}

#[test]
fn d22_names_are_rewritten_as_coredns_does() {
    use Match::{Exact, Prefix, Regex, Substring, Suffix};
    let cases = [
        (
            Exact,
            "foo.example",
            "web.default.svc.cluster.local",
            "FOO.example.",
            Some("web.default.svc.cluster.local."),
        ),
        (
            Exact,
            "foo.example.",
            "bar.example.",
            "a.foo.example.",
            None,
        ),
        (
            Prefix,
            "old-",
            "new-",
            "old-a.example.",
            Some("new-a.example."),
        ),
        (Prefix, "old-", "new-", "a.old-b.example.", None),
        (
            Suffix,
            ".corp.example.",
            ".default.svc.cluster.local.",
            "web.corp.example.",
            Some("web.default.svc.cluster.local."),
        ),
        (Suffix, ".corp.example.", ".x.", "corp.example.", None),
        (
            Substring,
            "corp",
            "c",
            "a.corp.corp-b.example.",
            Some("a.c.c-b.example."),
        ),
        (
            Regex,
            r"(.*)\.(us-.*)\.coredns\.rocks\.",
            "{1}.{2}.example.",
            "ftp.us-west.coredns.rocks.",
            Some("ftp.us-west.example."),
        ),
        (
            Regex,
            "ftp",
            "x.example.",
            "an-ftp-server.example.",
            Some("x.example."),
        ),
        (Regex, "^ftp$", "x.example.", "ftp.example.", None),
        // What is no name afterwards does not count.
        (Prefix, "a", ".", "a.example.", None),
    ];
    for (matching, from, to, asked, expected) in cases {
        let rules = Rewrites::new(vec![rule(matching, from, to)]);
        let found = rules.name(&name(asked)).map(|name| name.to_string());
        assert_eq!(found.as_deref(), expected, "{matching:?} {from} {asked}");
    }
    assert!(
        Rule::new(Match::Regex, "(", "x").is_err() && Rule::new(Match::Exact, "", "x").is_err()
    );
    let huge = "((((a{100}){100}){100}){100})";
    assert!(
        Rule::new(Match::Regex, huge, "x").is_err(),
        "expressions have a limit"
    );
}

#[test]
fn d22_the_first_rule_decides_unless_it_proceeds() {
    let first = || rule(Match::Exact, "a.example", "b.example");
    let second = || rule(Match::Exact, "b.example", "c.example");
    let to = |rules| {
        Rewrites::new(rules)
            .name(&name("a.example"))
            .unwrap()
            .to_string()
    };
    assert_eq!(to(vec![first(), second()]), "b.example.");
    assert_eq!(to(vec![first().proceeding(), second()]), "c.example.");
}

#[test]
fn d22_the_client_does_not_see_that_a_name_was_rewritten() {
    let rules = Rewrites::new(vec![rule(Match::Suffix, ".corp.example.", ".svc.local.")]);
    let mut asked = query("web.corp.example", Rtype::A);
    asked[13] = b'W';
    let rewritten = rules.query(&asked).unwrap();
    assert_eq!(rewritten.query(), query("web.svc.local", Rtype::A));
    let mut answer = reply(
        rewritten.query(),
        0,
        [
            &[
                [
                    b"\xc0\x0c".as_slice(),
                    &record("", Rtype::CNAME, 5, b"\x02db\xc0\x10")[1..],
                ]
                .concat(),
                record("db.svc.local", Rtype::A, 5, &[192, 0, 2, 1]),
            ],
            &[soa("other.local", 5, 5)],
            &[],
        ],
    );
    rewritten.restore(&asked, Transport::Udp, &mut answer);
    let expected = reply(
        &asked,
        0,
        [
            &[
                [
                    b"\xc0\x0c".as_slice(),
                    &record("", Rtype::CNAME, 5, name("db.corp.example").as_wire())[1..],
                ]
                .concat(),
                record("db.corp.example", Rtype::A, 5, &[192, 0, 2, 1]),
            ],
            &[soa("other.local", 5, 5)],
            &[],
        ],
    );
    assert_eq!(answer, expected);
    assert!(rules.query(&query("web.other.example", Rtype::A)).is_none());
    assert!(Rewrites::default().query(&asked).is_none());
}

#[test]
fn d22_answers_are_turned_back_as_the_rule_says() {
    let rules = Rewrites::new(vec![
        rule(Match::Regex, r"(.*)\.in\.example\.", "{1}.svc.local.")
            .with_answer_name(r"(.*)\.svc\.local\.", "{1}.in.example.")
            .unwrap()
            .with_answer_value(r"(.*)\.pods\.local\.", "{1}.out.example.")
            .unwrap(),
    ]);
    let asked = query("web.in.example", Rtype::SRV);
    let rewritten = rules.query(&asked).unwrap();
    let target = |host: &str| [&[0, 0, 0, 1, 0, 80], name(host).as_wire()].concat();
    let mut answer = reply(
        rewritten.query(),
        0,
        [
            &[record(
                "db.svc.local",
                Rtype::SRV,
                5,
                &target("x.pods.local"),
            )],
            &[],
            &[],
        ],
    );
    rewritten.restore(&asked, Transport::Udp, &mut answer);
    let expected = [record(
        "db.in.example",
        Rtype::SRV,
        5,
        &target("x.out.example"),
    )];
    assert_eq!(answer, reply(&asked, 0, [&expected, &[], &[]]));
}

#[test]
fn d22_a_reply_that_grew_too_long_is_cut() {
    let rules = Rewrites::new(vec![rule(Match::Prefix, "short.", "s.")]);
    let asked = query("short.example", Rtype::A);
    let rewritten = rules.query(&asked).unwrap();
    let records: Vec<Vec<u8>> = (0..30)
        .map(|last| record("s.s.example", Rtype::A, 5, &[192, 0, 2, last]))
        .collect();
    let mut answer = reply(rewritten.query(), 0, [&records, &[], &[]]);
    let mut whole = answer.clone();
    rewritten.restore(&asked, Transport::Udp, &mut answer);
    assert_eq!(answer.len(), asked.len());
    assert!(crate::is_truncated(&answer) && crate::id(&answer) == crate::id(&asked));
    rewritten.restore(&asked, Transport::Tcp, &mut whole);
    assert!(!crate::is_truncated(&whole) && whole.len() > 512);
}

proptest! {
    #[test]
    fn d22_broken_replies_to_rewritten_names_are_failures_at_worst(noise in prop::collection::vec(any::<u8>(), 0..120), keep in 0_usize..40) {
        let rules = Rewrites::new(vec![rule(Match::Suffix, ".corp.example.", ".local.")]);
        let asked = query("web.corp.example", Rtype::A);
        let rewritten = rules.query(&asked).unwrap();
        let mut message = reply(rewritten.query(), 0, [&[], &[], &[]]);
        message[7] = 2;
        message.truncate(keep);
        message.extend_from_slice(&noise);
        rewritten.restore(&asked, Transport::Udp, &mut message);
        prop_assert!(message.len() <= 512 && message.len() >= 12);
    }
}
