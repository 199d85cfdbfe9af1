//! The DNS rules D1–D18, each as the questions of a client and the replies to
//! them, read by another DNS library.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod support;

use domain::base::Rtype as Type;
use domain::base::iana::Class;
use portolan_dns::{Answer, Data, Name, Record, Rtype, Transport, Zone, Zones};
use support::{SOA, address, answers, ask, cluster, empty, name, query, query_of, reply_to};

#[test]
fn d1_names_compare_without_case_and_the_question_keeps_its_own() {
    let zones = cluster();
    for spelling in ["web.prod.svc.cluster.local", "WeB.PROD.svc.CLUSTER.local"] {
        let asked = query(spelling, Type::A, None);
        let reply = reply_to(&zones, &asked, Transport::Udp, 0);
        assert_eq!(
            reply.raw[12..asked.len()],
            asked[12..],
            "the question as it came"
        );
        assert_eq!(reply.answers(), [format!("{spelling} 5 A 10.96.7.1")]);
    }
    empty(
        &ask(&zones, "Nope.Cluster.LOCAL", Type::A),
        "NXDOMAIN aa rd",
    );
    let mut upper = Zone::new(name("CLUSTER.local"), 5, 1);
    upper
        .set(&name("Web.Prod.svc.Cluster.Local"), &[address("10.0.0.1")])
        .unwrap();
    answers(
        &Zones::new([upper]),
        "web.prod.svc.cluster.local",
        Type::A,
        &["web.prod.svc.cluster.local 5 A 10.0.0.1"],
    );
}

#[test]
fn d2_the_version_of_the_schema_is_a_text_with_a_ttl_of_its_own() {
    let expected = ["dns-version.cluster.local 28800 TXT \"1.1.0\""];
    answers(
        &cluster(),
        "dns-version.cluster.local",
        Type::TXT,
        &expected,
    );
}

#[test]
fn d3_a_service_answers_with_its_addresses_of_each_family() {
    let zones = cluster();
    let cases = [
        ("web", Type::A, "10.96.7.1"),
        ("six", Type::AAAA, "fd00:10:96::66"),
        ("both", Type::A, "10.96.7.2"),
        ("both", Type::AAAA, "fd00:10:96::67"),
    ];
    for (service, rtype, expected) in cases {
        let owner = format!("{service}.prod.svc.cluster.local");
        answers(
            &zones,
            &owner,
            rtype,
            &[&format!("{owner} 5 {rtype} {expected}")],
        );
    }
}

#[test]
fn d4_a_name_without_such_records_is_no_error_with_soa() {
    let zones = cluster();
    let cases = [
        ("web", Type::AAAA),
        ("six", Type::A),
        ("web", Type::TXT),
        ("web", Type::SOA),
        ("web", Type::NS),
        ("web", Type::SRV),
        ("web", Type::MX),
        ("web", Type::CNAME),
        ("_tcp.web", Type::A),
    ];
    for (service, rtype) in cases {
        let owner = format!("{service}.prod.svc.cluster.local");
        empty(&ask(&zones, &owner, rtype), "NOERROR aa rd");
    }
}

#[test]
fn d5_a_name_that_does_not_exist_is_nxdomain_with_soa() {
    let zones = cluster();
    for owner in [
        "nope.prod.svc",
        "web.nope.svc",
        "a.web.prod.svc",
        "db-1.db.prod.svc",
        "_ftp._tcp.web.prod.svc",
        "_http._udp.web.prod.svc",
        "*.prod.svc",
        "web\\.prod.svc",
    ] {
        for rtype in [Type::A, Type::AAAA, Type::SRV, Type::ANY, Type::SOA] {
            let reply = ask(&zones, &format!("{owner}.cluster.local"), rtype);
            empty(&reply, "NXDOMAIN aa rd");
        }
    }
}

#[test]
fn d6_empty_non_terminals_have_no_data_and_their_neighbours_do_not_exist() {
    let zones = cluster();
    for owner in ["svc", "pod", "prod.svc", "empty.svc", "dns"] {
        empty(
            &ask(&zones, &format!("{owner}.cluster.local"), Type::A),
            "NOERROR aa rd",
        );
    }
    for owner in ["foo", "foo.svc", "foo.pod", "svc.svc"] {
        empty(
            &ask(&zones, &format!("{owner}.cluster.local"), Type::A),
            "NXDOMAIN aa rd",
        );
    }
    empty(&ask(&zones, "cluster.local", Type::A), "NOERROR aa rd");
}

#[test]
fn d6_a_name_lives_as_long_as_it_or_a_name_below_it() {
    let mut zone = Zone::new(name("z"), 5, 0);
    let (deep, middle) = (name("a.b.c.z"), name("b.c.z"));
    zone.set(&deep, &[address("10.0.0.1")]).unwrap();
    assert_eq!(zone.get(&middle), Some(vec![]));
    zone.set(&middle, &[address("10.0.0.2")]).unwrap();
    zone.remove(&deep).unwrap();
    assert_eq!(zone.get(&deep), None);
    assert_eq!(zone.get(&middle), Some(vec![address("10.0.0.2")]));
    zone.set(&deep, &[address("10.0.0.1")]).unwrap();
    zone.remove(&middle).unwrap();
    assert_eq!(
        zone.get(&middle),
        Some(vec![]),
        "kept for the sake of the one below"
    );
    zone.remove(&deep).unwrap();
    assert_eq!(zone.get(&name("c.z")), None);
    assert!(zone.is_empty());
    assert_eq!(
        zone.remove(&deep),
        Ok(false),
        "removing what is gone is no change"
    );
    assert!(zone.set(&name("a.y"), &[]).is_err());
}

#[test]
fn d7_srv_names_port_and_host_and_brings_the_addresses_along() {
    let zones = cluster();
    let reply = ask(&zones, "_HTTP._tcp.web.prod.svc.cluster.local", Type::SRV);
    let owner = "_HTTP._tcp.web.prod.svc.cluster.local";
    let expected = format!("{owner} 5 SRV 0 100 80 web.prod.svc.cluster.local");
    assert_eq!(reply.answers(), [expected]);
    assert_eq!(
        reply.additional(),
        ["web.prod.svc.cluster.local 5 A 10.96.7.1"]
    );
    let reply = ask(&zones, "_sql._tcp.db.prod.svc.cluster.local", Type::SRV);
    assert_eq!(
        reply.additional(),
        ["db-0.db.prod.svc.cluster.local 5 A 10.244.1.3"]
    );
}

#[test]
fn d8_the_addresses_of_a_headless_service_are_without_duplicates() {
    let mut zone = Zone::new(name("z"), 5, 0);
    let owner = name("a.z");
    let twice = [
        address("10.0.0.2"),
        address("10.0.0.1"),
        address("10.0.0.2"),
    ];
    assert_eq!(zone.set(&owner, &twice), Ok(true));
    assert_eq!(
        zone.get(&owner),
        Some(vec![address("10.0.0.1"), address("10.0.0.2")])
    );
    assert_eq!(
        zone.set(&owner, &twice[..2]),
        Ok(false),
        "the same set is no change"
    );
}

#[test]
fn d16_d17_the_apex_has_soa_and_ns_and_the_serial_grows() {
    let mut zones = cluster();
    let origin = name("cluster.local");
    let soa = |zones: &Zones| ask(zones, "cluster.local", Type::SOA).answers();
    let serial = zones.zone(&origin).unwrap().serial();
    let expected = |serial| format!("{SOA} {serial} 7200 1800 86400 5");
    assert_eq!(soa(&zones), [expected(serial)]);
    let zone = zones.zone_mut(&origin).unwrap();
    zone.set(
        &name("new.prod.svc.cluster.local"),
        &[address("10.96.0.99")],
    )
    .unwrap();
    assert_eq!(soa(&zones), [expected(serial + 1)]);

    let reply = ask(&zones, "cluster.local", Type::NS);
    assert_eq!(reply.status(), "NOERROR aa rd");
    assert_eq!(reply.answers(), ["cluster.local 5 NS ns.dns.cluster.local"]);
    let glue = [
        "ns.dns.cluster.local 5 A 10.96.0.10",
        "ns.dns.cluster.local 5 AAAA fd00:10:96::a",
    ];
    assert_eq!(reply.additional(), glue);
    answers(&zones, "ns.dns.cluster.local", Type::A, &glue[..1]);
    answers(&zones, "ns.dns.cluster.local", Type::AAAA, &glue[1..]);
}

#[test]
fn d18_the_size_of_a_datagram_is_what_edns_grants() {
    let zones = cluster();
    let owner = "many.prod.svc.cluster.local";
    // (granted, transport, longest reply, whole)
    let cases = [
        (None, Transport::Udp, 512, false),
        (Some(0), Transport::Udp, 512, false),
        (Some(511), Transport::Udp, 512, false),
        (Some(513), Transport::Udp, 513, false),
        (Some(1232), Transport::Udp, 1232, false),
        (Some(4096), Transport::Udp, 4096, true),
        (None, Transport::Tcp, 65_535, true),
        (Some(512), Transport::Tcp, 65_535, true),
    ];
    for (granted, transport, longest, whole) in cases {
        let reply = reply_to(&zones, &query(owner, Type::A, granted), transport, 3);
        assert!(reply.raw.len() <= longest, "{granted:?}");
        assert_eq!(
            reply.status() == "NOERROR aa rd",
            whole,
            "{granted:?} {}",
            reply.status()
        );
        assert_eq!(reply.answers().len() == 100, whole);
        assert_eq!(reply.has_opt(), granted.is_some(), "OPT only when sent");
        if !whole {
            assert_eq!(reply.status(), "NOERROR aa tc rd");
            assert!(longest - reply.raw.len() < 16 + 11, "as many as fit");
        }
    }
}

#[test]
fn d18_addresses_take_turns() {
    let zones = cluster();
    let asked = query("db.prod.svc.cluster.local", Type::A, None);
    let mut firsts = Vec::new();
    for turn in 0..6 {
        let mut all = reply_to(&zones, &asked, Transport::Udp, turn).answers();
        firsts.push(all[0].rsplit(' ').next().unwrap().to_owned());
        all.sort();
        assert_eq!(all.len(), 3);
        all.dedup();
        assert_eq!(all.len(), 3, "each address once");
    }
    let cycle = ["10.244.1.3", "10.244.1.4", "10.244.2.3"];
    assert_eq!(firsts, [cycle, cycle].concat());
}

#[test]
fn d18_edns_versions_and_flags() {
    let zones = cluster();
    let mut asked = query("web.prod.svc.cluster.local", Type::A, Some(1232));
    let opt = asked.len() - 11;
    asked[opt + 7] = 0x80;
    let reply = reply_to(&zones, &asked, Transport::Udp, 0);
    assert_eq!(
        reply.raw[reply.raw.len() - 4],
        0x80,
        "DO is copied (RFC 3225)"
    );
    asked[opt + 6] = 1;
    let reply = reply_to(&zones, &asked, Transport::Udp, 0);
    assert_eq!(reply.status(), "BADVERS rd");
    assert_eq!(reply.answers(), [""; 0]);
}

/// What becomes of a message: the answer, and the code of the reply.
fn outcome(message: &[u8]) -> (Answer, Option<u8>) {
    let mut out = Vec::new();
    let answer = cluster().answer(message, Transport::Udp, 0, &mut out);
    (answer, portolan_dns::rcode(&out))
}

#[test]
fn d18_damaged_queries_are_refused() {
    let good = query("web.prod.svc.cluster.local", Type::A, Some(1232));
    let change = |at: usize, value: u8| {
        let mut message = good.clone();
        message[at] = value;
        message
    };
    let opt = &good[good.len() - 11..];
    let two_opts = [&change(11, 2)[..], opt].concat();
    let drop = (Answer::Drop, None);
    let formerr = (Answer::Reply, Some(1));
    let notimp = (Answer::Reply, Some(4));
    let cases = [
        ("a reply", change(2, 0x81), &drop),
        ("shorter than a header", good[..11].to_vec(), &drop),
        ("a header only", good[..12].to_vec(), &formerr),
        ("opcode STATUS", change(2, 0x10), &notimp),
        ("opcode UPDATE", change(2, 0x28), &notimp),
        ("no question", change(5, 0), &formerr),
        ("two questions", change(5, 2), &formerr),
        ("a label too long", change(12, 64), &formerr),
        ("a pointer in the question", change(12, 0xc0), &formerr),
        ("an answer that is not there", change(7, 9), &formerr),
        ("two OPT records", two_opts, &formerr),
        ("as it was", good.clone(), &(Answer::Reply, Some(0))),
    ];
    for (what, message, expected) in cases {
        assert_eq!(&outcome(&message), expected, "{what}");
    }
}

#[test]
fn d18_d22_questions_for_others_are_refused_or_forwarded() {
    let formerr = (Answer::Reply, Some(1));
    let refused = (Answer::Reply, Some(5));
    let forward = (Answer::Forward, None);
    let cases = [
        ("web.prod.svc.cluster.local", Type::A, Class::CH, &refused),
        ("version.bind", Type::TXT, Class::CH, &refused),
        ("cluster.local", Type::AXFR, Class::IN, &refused),
        ("example.com", Type::IXFR, Class::IN, &refused),
        ("cluster.local", Type::OPT, Class::IN, &formerr),
        ("example.com", Type::A, Class::IN, &forward),
        ("xcluster.local", Type::A, Class::IN, &forward),
        ("local", Type::A, Class::IN, &forward),
        (".", Type::NS, Class::IN, &forward),
    ];
    for (owner, rtype, class, expected) in cases {
        let asked = query_of(owner, rtype, class, None);
        assert_eq!(&outcome(&asked), expected, "{owner} {class} {rtype}");
    }
}

#[test]
fn d18_any_is_answered_as_rfc_8482_says() {
    let zones = cluster();
    let owner = "db.prod.svc.cluster.local";
    answers(
        &zones,
        owner,
        Type::ANY,
        &[&format!("{owner} 5 HINFO \"RFC8482\" \"\"")],
    );
}

#[test]
fn d20_a_failure_says_why_to_those_who_speak_edns() {
    let mut out = Vec::new();
    let reason = (14, "not ready");
    let servfail = portolan_dns::Rcode::ServFail;
    let asked = query("example.com", Type::A, Some(512));
    assert!(portolan_dns::failure(&asked, servfail, reason, &mut out));
    let text = b"\x00\x0f\x00\x0b\x00\x0enot ready";
    assert!(out.ends_with(text));
    assert!(portolan_dns::same_question(&asked, &out));
    let plain = query("example.com", Type::A, None);
    assert!(portolan_dns::failure(&plain, servfail, reason, &mut out));
    assert_eq!(out.len(), plain.len());
    assert!(!portolan_dns::failure(
        &out.clone(),
        servfail,
        reason,
        &mut out
    ));
}

#[test]
fn d21_all_that_kubernetes_may_name_is_a_label() {
    let mut zone = Zone::new(name("cluster.local"), 5, 0);
    let long = "x".repeat(63);
    for label in ["0digit", "_under", "svc", "com", &long] {
        let owner = zone
            .origin()
            .child("svc")
            .unwrap()
            .child("ns")
            .unwrap()
            .child(label)
            .unwrap();
        zone.set(&owner, &[address("10.0.0.1")]).unwrap();
        let asked = format!("{label}.ns.svc.cluster.local");
        let found = Zones::new([zone.clone()]).lookup(&name(&asked), Rtype::A);
        assert_eq!(
            found,
            portolan_dns::Lookup::Records(vec![address("10.0.0.1")])
        );
    }
    assert!(Name::parse(&"x".repeat(64)).is_err());
    assert!(Name::parse(&vec!["y".repeat(62); 5].join(".")).is_err());
    assert!(Name::parse("a..b").is_err());
    assert_eq!(name("a\\.b.C.").to_string(), "a\\.b.c.");
}

#[test]
fn reverse_zones_cover_ranges_that_end_between_labels() {
    let zones = |range: &str, prefix| portolan_dns::reverse_zones(range.parse().unwrap(), prefix);
    let texts = |range: &str, prefix| {
        let origins = zones(range, prefix).into_iter().map(|zone| {
            assert_eq!(zone.labels, None, "{range}/{prefix}");
            zone.origin.to_string()
        });
        origins.collect::<Vec<_>>()
    };
    assert_eq!(texts("10.96.0.0", 16), ["96.10.in-addr.arpa."]);
    let twelve = texts("10.96.0.0", 12);
    assert_eq!(twelve.len(), 16);
    assert_eq!(twelve[15], "111.10.in-addr.arpa.");
    assert_eq!(
        texts("fd00:10:96::", 48),
        ["6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa."]
    );
    assert_eq!(texts("fd00::", 7), ["c.f.ip6.arpa.", "d.f.ip6.arpa."]);
    assert_eq!(texts("10.1.2.0", 24), ["2.1.10.in-addr.arpa."]);
    let part = |range: &str, prefix| match &zones(range, prefix)[..] {
        [one] => (one.origin.to_string(), one.labels.clone().unwrap()),
        more => panic!("{more:?}"),
    };
    let (origin, labels) = part("10.1.2.77", 26);
    assert_eq!(origin, "2.1.10.in-addr.arpa.");
    assert_eq!(labels.len(), 64);
    assert_eq!((&*labels[0], &*labels[63]), ("64", "127"));
    assert_eq!(part("10.1.2.3", 32).1, ["3"]);
    let (origin, labels) = part("fd00::a", 127);
    assert!(origin.starts_with("0.0.0.") && origin.ends_with(".d.f.ip6.arpa."));
    assert_eq!(labels, ["a", "b"]);
    assert_eq!(part("fd00::a", 128).1, ["a"]);
}

#[test]
fn the_closest_zone_answers_and_records_come_back_as_they_went_in() {
    let outer = Zone::new(name("local"), 60, 0);
    let mut inner = Zone::new(name("cluster.local"), 5, 0);
    let records: Vec<Record> = vec![
        address("10.0.0.1"),
        Data::Ns(name("other.example")).into(),
        Data::Ptr(name("a.b.cluster.local")).into(),
        Record {
            ttl: Some(9),
            data: Data::Txt(vec![b"x".to_vec(), vec![0; 255]]),
        },
        address("fd00::1"),
    ];
    let owner = name("b.cluster.local");
    inner.set(&owner, &records).unwrap();
    let mut expected = records.clone();
    expected.sort_by_key(|record| record.data.rtype());
    assert_eq!(inner.get(&owner), Some(expected.clone()));
    assert_eq!(inner.entries(), [(owner.clone(), expected)]);
    let mut zones = Zones::new([outer, inner]);
    assert_eq!(
        zones.zone_of_mut(&owner).unwrap().origin(),
        &name("cluster.local")
    );
    answers(
        &zones,
        "cluster.local",
        Type::SOA,
        &[&format!("{SOA} 1 7200 1800 86400 5")],
    );
}
