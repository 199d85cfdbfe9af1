//! The DNS rules D13–D15: names that stand for other names, and names that spell
//! what they stand for.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod support;

use domain::base::Rtype as Type;
use portolan_dns::{Answer, Data, Rtype, Transport, Zones};
use support::{address, answers, ask, cluster, empty, name, query};

#[test]
fn d13_aliases_are_followed_inside_the_zones() {
    let zones = cluster();
    let owner = "in.prod.svc.cluster.local";
    let alias = format!("{owner} 5 CNAME web.prod.svc.cluster.local");
    let target = "web.prod.svc.cluster.local 5 A 10.96.7.1";
    answers(&zones, owner, Type::A, &[&alias, target]);
    answers(&zones, owner, Type::CNAME, &[&alias]);
    empty(&ask(&zones, owner, Type::AAAA), "NOERROR aa rd");
    empty(
        &ask(&zones, "lost.prod.svc.cluster.local", Type::A),
        "NOERROR aa rd",
    );
    empty(
        &ask(&zones, "loop.prod.svc.cluster.local", Type::A),
        "NOERROR aa rd",
    );
    empty(
        &ask(&zones, "x.out.prod.svc.cluster.local", Type::A),
        "NXDOMAIN aa rd",
    );
}

#[test]
fn d13_an_alias_that_leaves_the_zones_is_completed_by_somebody_else() {
    let zones = cluster();
    let owner = "out.prod.svc.cluster.local";
    let asked = query(owner, Type::A, Some(1232));
    let mut reply = Vec::new();
    let answer = zones.answer(&asked, Transport::Udp, 0, &mut reply);
    assert_eq!(answer, Answer::Follow(name("www.example.com")));

    // The other server's reply: an alias and an address, names compressed.
    let mut other = portolan_dns::query(9, &name("www.example.com"), Rtype::A);
    other[2] |= 0x80;
    other[7] = 2;
    let cdn = b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x1e\x00\x06\x03cdn\xc0\x10";
    let at = (other.len() + 12) as u8;
    other.extend_from_slice(cdn);
    other.extend_from_slice(&[0xc0, at]);
    other.extend_from_slice(b"\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x04\xc0\x00\x02\x07");
    assert!(portolan_dns::copy_answers(
        &asked,
        Transport::Udp,
        &other,
        &mut reply
    ));
    let reply = support::Reply {
        message: domain::base::Message::from_octets(reply.clone()).unwrap(),
        raw: reply,
    };
    let expected = [
        format!("{owner} 5 CNAME www.example.com"),
        "www.example.com 30 CNAME cdn.example.com".to_owned(),
        "cdn.example.com 30 A 192.0.2.7".to_owned(),
    ];
    assert_eq!(reply.answers(), expected);
    assert!(reply.has_opt());
}

/// Compressed names in the data of any type that may have them are spelled out: they
/// would point to anywhere in our reply (RFC 3597 §4).
#[test]
fn d13_names_in_the_records_of_others_are_spelled_out() {
    let zones = cluster();
    let asked = query("out.prod.svc.cluster.local", Type::MX, Some(1232));
    let mut reply = Vec::new();
    zones.answer(&asked, Transport::Udp, 0, &mut reply);
    let mut other = portolan_dns::query(9, &name("www.example.com"), Rtype(15));
    other[2] |= 0x80;
    other[7] = 1;
    other.extend_from_slice(
        b"\xc0\x0c\x00\x0f\x00\x01\x00\x00\x00\x1e\x00\x07\x00\x0a\x02mx\xc0\x10",
    );
    let added = portolan_dns::copy_answers(&asked, Transport::Udp, &other, &mut reply);
    assert!(added);
    let reply = support::Reply {
        message: domain::base::Message::from_octets(reply.clone()).unwrap(),
        raw: reply,
    };
    let expected = [
        "out.prod.svc.cluster.local 5 CNAME www.example.com",
        "www.example.com 30 MX 10 mx.example.com",
    ];
    assert_eq!(reply.answers(), expected);
}

/// Whoever has no room for what somebody else adds is told to come back over TCP.
#[test]
fn d13_d18_records_of_others_that_do_not_fit_set_tc() {
    let zones = cluster();
    let asked = query("out.prod.svc.cluster.local", Type::A, None);
    let mut other = portolan_dns::query(9, &name("www.example.com"), Rtype::A);
    other[2] |= 0x80;
    other[7] = 40;
    for last in 0..40 {
        other.extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x04\xc0\x00\x02");
        other.push(last);
    }
    for (transport, fits) in [(Transport::Udp, false), (Transport::Tcp, true)] {
        let mut reply = Vec::new();
        zones.answer(&asked, transport, 0, &mut reply);
        let added = portolan_dns::copy_answers(&asked, transport, &other, &mut reply);
        assert_eq!((added, portolan_dns::is_truncated(&reply)), (fits, !fits));
    }
}

/// `hop-0` to `hop-<last>`, each an alias of the next, and the last one of `end`.
fn hops(last: usize, end: &str) -> Zones {
    let mut zones = cluster();
    let zone = zones.zone_mut(&name("cluster.local")).unwrap();
    let hop = |number: usize| name(&format!("hop-{number}.prod.svc.cluster.local"));
    for number in 0..=last {
        let next = if number == last {
            name(end)
        } else {
            hop(number + 1)
        };
        zone.set(&hop(number), &[Data::Cname(next).into()]).unwrap();
    }
    zones
}

#[test]
fn d14_a_chain_of_aliases_is_answered_whole_and_has_an_end() {
    let first = "hop-0.prod.svc.cluster.local";
    let zones = hops(2, "both.prod.svc.cluster.local");
    let mut chain: Vec<String> = (0..2)
        .map(|number| {
            let next = number + 1;
            format!("hop-{number}.prod.svc.cluster.local 5 CNAME hop-{next}.prod.svc.cluster.local")
        })
        .collect();
    chain.push("hop-2.prod.svc.cluster.local 5 CNAME both.prod.svc.cluster.local".into());
    for (rtype, end) in [
        (Type::A, "A 10.96.7.2"),
        (Type::AAAA, "AAAA fd00:10:96::67"),
    ] {
        let end = format!("both.prod.svc.cluster.local 5 {end}");
        let expected: Vec<&str> = chain.iter().map(String::as_str).chain([&*end]).collect();
        answers(&zones, first, rtype, &expected);
    }
    answers(&zones, first, Type::CNAME, &[&chain[0]]);
    empty(&ask(&zones, first, Type::TXT), "NOERROR aa rd");

    // Eight aliases are followed, a ninth is not, and circles end.
    let eight = ask(&hops(7, "web.prod.svc.cluster.local"), first, Type::A);
    assert_eq!(eight.answers().len(), 9);
    for end in ["web.prod.svc.cluster.local", "hop-4.prod.svc.cluster.local"] {
        empty(&ask(&hops(8, end), first, Type::A), "NOERROR aa rd");
    }
    empty(&ask(&hops(3, first), first, Type::A), "NOERROR aa rd");
    let mut out = Vec::new();
    let asked = query(first, Type::A, None);
    let answer = hops(3, "www.example.com").answer(&asked, Transport::Udp, 0, &mut out);
    assert_eq!(answer, Answer::Follow(name("www.example.com")));
}

#[test]
fn d15_labels_that_spell_an_address_have_it_where_that_was_set() {
    let mut zones = cluster();
    let zone = zones.zone_mut(&name("cluster.local")).unwrap();
    assert_eq!(zone.set_spelling(&name("prod.pod.cluster.local")), Ok(true));
    assert_eq!(
        zone.set_spelling(&name("prod.pod.cluster.local")),
        Ok(false)
    );
    let set = [address("192.0.2.1")];
    zone.set(&name("10-0-0-9.prod.pod.cluster.local"), &set)
        .unwrap();
    let alias = Data::Cname(name("10-0-0-7.prod.pod.cluster.local"));
    zone.set(&name("pod.prod.svc.cluster.local"), &[alias.into()])
        .unwrap();
    let v4 = "10-0-0-7.prod.pod.cluster.local";
    answers(&zones, v4, Type::A, &[&format!("{v4} 5 A 10.0.0.7")]);
    empty(&ask(&zones, v4, Type::AAAA), "NOERROR aa rd");
    empty(&ask(&zones, v4, Type::SRV), "NOERROR aa rd");
    assert_eq!(ask(&zones, v4, Type::ANY).answers().len(), 1);
    for (label, spelled) in [
        ("fd00-10--7", "fd00:10::7"),
        ("FD00--", "fd00::"),
        ("--1", "::1"),
        ("--", "::"),
        ("1-2-3-4-5-6-7-8", "1:2:3:4:5:6:7:8"),
    ] {
        let owner = format!("{label}.prod.pod.cluster.local");
        let expected = format!("{owner} 5 AAAA {spelled}");
        answers(&zones, &owner, Type::AAAA, &[&expected]);
        empty(&ask(&zones, &owner, Type::A), "NOERROR aa rd");
    }
    // What was set goes before what is spelled, an alias leads there too.
    let own = "10-0-0-9.prod.pod.cluster.local";
    answers(&zones, own, Type::A, &[&format!("{own} 5 A 192.0.2.1")]);
    let by = "pod.prod.svc.cluster.local";
    let link = format!("{by} 5 CNAME {v4}");
    let end = format!("{v4} 5 A 10.0.0.7");
    answers(&zones, by, Type::A, &[&link, &end]);
    empty(&ask(&zones, by, Type::AAAA), "NOERROR aa rd");
    for nothing in [
        "10-0-0.prod.pod.cluster.local",
        "10-0-0-256.prod.pod.cluster.local",
        "10-0-0-07.prod.pod.cluster.local",
        "10.0.0.7.prod.pod.cluster.local",
        "10-0-0-7.web.prod.svc.cluster.local",
        "10-0-0-7.pod.cluster.local",
        "x.10-0-0-7.prod.pod.cluster.local",
        "fd00:10--7.prod.pod.cluster.local",
        "fd00-10--------------------------------------------------7.prod.pod.cluster.local",
    ] {
        empty(&ask(&zones, nothing, Type::A), "NXDOMAIN aa rd");
    }
    let zone = zones.zone_mut(&name("cluster.local")).unwrap();
    assert_eq!(zone.remove(&name("prod.pod.cluster.local")), Ok(true));
    empty(&ask(&zones, v4, Type::A), "NXDOMAIN aa rd");
    empty(
        &ask(&zones, "prod.pod.cluster.local", Type::A),
        "NOERROR aa rd",
    );
}
