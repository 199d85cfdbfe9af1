//! A reply for a name further on in a search list becomes one to what was asked (D19).

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod support;

use domain::base::Rtype as Type;
use portolan_dns::{Transport, completed, next_names, query_for};
use support::{Reply, cluster, name, query, reply_to};

const ASKED: &str = "Many.prod.default.svc.cluster.local";
const FOUND: &str = "many.prod.svc.cluster.local";

fn read(raw: Vec<u8>) -> Reply {
    Reply {
        message: domain::base::Message::from_octets(raw.clone()).unwrap(),
        raw,
    }
}

#[test]
fn d19_the_names_of_a_search_list_follow_each_other() {
    let first = name("default.svc.cluster.local");
    let further = [name("svc.cluster.local"), name("cluster.local")];
    let next = |owner: &str| next_names(&query(owner, Type::A, None), &first, &further);
    let expected = [
        "api.Shop.svc.cluster.local",
        "api.shop.cluster.local",
        "api.shop",
    ];
    assert_eq!(
        next("api.shop.default.svc.cluster.local"),
        Some(expected.map(name).to_vec())
    );
    for other in [
        "default.svc.cluster.local",
        "api.shop.svc.cluster.local",
        "api.xdefault.svc.cluster.local",
        "example.com",
        ".",
    ] {
        assert_eq!(next(other), None, "{other}");
    }
    // What would be too long is not asked for.
    let label = "a".repeat(63);
    let long = format!("{label}.{label}.{label}.default.svc.cluster.local");
    let search = [name(&format!("{label}.example"))];
    let found = next_names(&query(&long, Type::A, None), &first, &search);
    assert_eq!(found, Some(vec![name(&format!("{label}.{label}.{label}"))]));
}

#[test]
fn d19_the_question_stays_and_an_alias_leads_on() {
    let asked = query(ASKED, Type::A, Some(4096));
    let instead = query_for(&asked, &name(FOUND)).unwrap();
    assert_eq!(instead, query(FOUND, Type::A, Some(4096)));
    let reply = reply_to(&cluster(), &instead, Transport::Tcp, 0);
    let whole = completed(&asked, &name(FOUND), Transport::Udp, &reply.raw).unwrap();
    let whole = read(whole);
    assert_eq!(whole.status(), "NOERROR aa rd");
    assert!(whole.has_opt());
    let answers = whole.answers();
    assert_eq!(answers[0], format!("{ASKED} 5 CNAME {FOUND}"));
    assert_eq!(answers.len(), 101);
    assert!(answers[1..].iter().all(|line| line.starts_with(FOUND)));
    let question = whole.message.sole_question().unwrap();
    assert_eq!(question.qname().to_string(), ASKED);

    // What does not fit is cut, with what the client needs to come back.
    let small = query(ASKED, Type::A, None);
    let instead = query_for(&small, &name(FOUND)).unwrap();
    let reply = reply_to(&cluster(), &instead, Transport::Tcp, 0);
    let cut = completed(&small, &name(FOUND), Transport::Udp, &reply.raw).unwrap();
    assert!(cut.len() <= 512);
    let cut = read(cut);
    assert_eq!(cut.status(), "NOERROR aa tc rd");
    assert_eq!(cut.answers(), [""; 0]);

    // SOA keeps its names where there is no answer.
    let asked = query(ASKED, Type::TXT, None);
    let instead = query_for(&asked, &name(FOUND)).unwrap();
    let reply = reply_to(&cluster(), &instead, Transport::Udp, 0);
    let none = completed(&asked, &name(FOUND), Transport::Udp, &reply.raw).unwrap();
    let none = read(none);
    assert_eq!(none.answers(), [""; 0]);
    assert_eq!(none.authority(), reply.authority());
}

#[test]
fn d19_damaged_replies_are_survived() {
    let asked = query(ASKED, Type::SRV, Some(1232));
    let owner = name("_sql._tcp.db.prod.svc.cluster.local");
    let instead = query_for(&asked, &owner).unwrap();
    let reply = reply_to(&cluster(), &instead, Transport::Tcp, 0).raw;
    assert!(completed(&asked, &owner, Transport::Udp, &reply).is_some());
    for length in 0..reply.len() {
        let cut = &reply[..length];
        assert_eq!(
            completed(&asked, &owner, Transport::Udp, cut),
            None,
            "{length}"
        );
    }
    for at in 0..reply.len() {
        for bit in 0..8 {
            let mut damaged = reply.clone();
            damaged[at] ^= 1 << bit;
            if let Some(whole) = completed(&asked, &owner, Transport::Udp, &damaged) {
                assert!(whole.len() <= 1232);
            }
        }
    }
    assert_eq!(completed(&[0; 12], &owner, Transport::Udp, &reply), None);
}
