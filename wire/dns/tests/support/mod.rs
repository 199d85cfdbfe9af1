//! A small cluster's zone, and the `domain` crate as the reader of replies.

#![allow(dead_code, reason = "each test file uses another part of it")]

use domain::base::iana::{Class, Opcode};
use domain::base::{Message, MessageBuilder, Rtype as Type};
use domain::rdata::AllRecordData;
use portolan_dns::{Answer, Data, Name, Record, Transport, Zone, Zones};

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub(crate) fn address(text: &str) -> Record {
    Record::from(text.parse::<std::net::IpAddr>().unwrap())
}

pub(crate) fn srv(port: u16, target: &str) -> Record {
    Data::Srv {
        priority: 0,
        weight: 100,
        port,
        target: name(target),
    }
    .into()
}

/// A zone as the renderer would make it.
pub(crate) fn cluster() -> Zones {
    let mut zone = Zone::new(name("cluster.local"), 5, 7);
    let mut set = |owner: &str, records: &[Record]| {
        zone.set(&name(&format!("{owner}.cluster.local")), records)
            .unwrap();
    };
    set("ns.dns", &[address("10.96.0.10"), address("fd00:10:96::a")]);
    set("svc", &[]);
    set("pod", &[]);
    set("empty.svc", &[]);
    set("prod.svc", &[]);
    set("web.prod.svc", &[address("10.96.7.1")]);
    set(
        "_http._tcp.web.prod.svc",
        &[srv(80, "web.prod.svc.cluster.local")],
    );
    set("six.prod.svc", &[address("fd00:10:96::66")]);
    set(
        "both.prod.svc",
        &[address("10.96.7.2"), address("fd00:10:96::67")],
    );
    set(
        "db.prod.svc",
        &[
            address("10.244.1.4"),
            address("10.244.1.3"),
            address("10.244.2.3"),
        ],
    );
    set("db-0.db.prod.svc", &[address("10.244.1.3")]);
    set(
        "_sql._tcp.db.prod.svc",
        &[srv(5432, "db-0.db.prod.svc.cluster.local")],
    );
    set(
        "in.prod.svc",
        &[Data::Cname(name("web.prod.svc.cluster.local")).into()],
    );
    set(
        "out.prod.svc",
        &[Data::Cname(name("www.example.com")).into()],
    );
    set(
        "lost.prod.svc",
        &[Data::Cname(name("gone.prod.svc.cluster.local")).into()],
    );
    set(
        "loop.prod.svc",
        &[Data::Cname(name("loop.prod.svc.cluster.local")).into()],
    );
    let version = Record {
        ttl: Some(28_800),
        data: Data::Txt(vec![b"1.1.0".to_vec()]),
    };
    set("dns-version", &[version]);
    let many: Vec<Record> = (0..100)
        .map(|i| address(&format!("10.244.9.{i}")))
        .collect();
    set("many.prod.svc", &many);
    let mut reverse = Zone::new(name("96.10.in-addr.arpa"), 5, 7);
    let pointer = Data::Ptr(name("web.prod.svc.cluster.local"));
    reverse
        .set(&Name::reverse([10, 96, 7, 1].into()), &[pointer.into()])
        .unwrap();
    Zones::new([reverse, zone])
}

/// A query by the `domain` crate, with EDNS if a size is given.
pub(crate) fn query(owner: &str, rtype: Type, edns: Option<u16>) -> Vec<u8> {
    query_of(owner, rtype, Class::IN, edns)
}

pub(crate) fn query_of(owner: &str, rtype: Type, class: Class, edns: Option<u16>) -> Vec<u8> {
    let owner: domain::base::Name<Vec<u8>> = owner.parse().unwrap();
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(0x4321);
    builder.header_mut().set_rd(true);
    builder.header_mut().set_opcode(Opcode::QUERY);
    let mut question = builder.question();
    question.push((owner, rtype, class)).unwrap();
    let mut additional = question.additional();
    if let Some(size) = edns {
        additional
            .opt(|opt| {
                opt.set_udp_payload_size(size);
                Ok(())
            })
            .unwrap();
    }
    additional.finish()
}

/// A reply, read by the `domain` crate.
pub(crate) struct Reply {
    pub(crate) raw: Vec<u8>,
    pub(crate) message: Message<Vec<u8>>,
}

pub(crate) fn reply_to(zones: &Zones, query: &[u8], transport: Transport, rotation: u64) -> Reply {
    let mut raw = Vec::new();
    let answer = zones.answer(query, transport, rotation, &mut raw);
    assert!(
        matches!(answer, Answer::Reply | Answer::Follow(_)),
        "{answer:?}"
    );
    Reply {
        message: Message::from_octets(raw.clone()).unwrap(),
        raw,
    }
}

pub(crate) fn ask(zones: &Zones, owner: &str, rtype: Type) -> Reply {
    reply_to(zones, &query(owner, rtype, None), Transport::Udp, 0)
}

impl Reply {
    /// `NOERROR aa` and so on, flags in the order of the header.
    pub(crate) fn status(&self) -> String {
        let header = self.message.header();
        let mut out = self.message.opt_rcode().to_string();
        for (set, flag) in [
            (header.aa(), " aa"),
            (header.tc(), " tc"),
            (header.rd(), " rd"),
            (header.ra(), " ra"),
        ] {
            if set {
                out.push_str(flag);
            }
        }
        out
    }

    fn section(&self, index: usize) -> Vec<String> {
        let (_, answer, authority, additional) = self.message.sections().unwrap();
        [answer, authority, additional][index]
            .limit_to::<AllRecordData<_, _>>()
            .map(Result::unwrap)
            .filter(|record| record.rtype() != Type::OPT)
            .map(|record| {
                let (owner, ttl) = (record.owner(), record.ttl().as_secs());
                let text = format!("{owner} {ttl} {} {}", record.rtype(), record.data());
                // The library writes some names with their final dot, some without.
                text.split(' ')
                    .map(|word| word.trim_end_matches('.'))
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect()
    }

    pub(crate) fn answers(&self) -> Vec<String> {
        self.section(0)
    }

    pub(crate) fn authority(&self) -> Vec<String> {
        self.section(1)
    }

    pub(crate) fn additional(&self) -> Vec<String> {
        self.section(2)
    }

    pub(crate) fn has_opt(&self) -> bool {
        self.message.opt().is_some()
    }
}

/// How the SOA record of [`cluster`] begins.
pub(crate) const SOA: &str = "cluster.local 5 SOA ns.dns.cluster.local hostmaster.cluster.local";

/// The reply has no answer, and its authority section is the zone's SOA.
#[track_caller]
pub(crate) fn empty(reply: &Reply, status: &str) {
    assert_eq!(reply.status(), status);
    assert_eq!(reply.answers(), [""; 0]);
    let authority = reply.authority();
    assert_eq!(authority.len(), 1, "{authority:?}");
    assert!(
        authority[0].to_lowercase().starts_with(&SOA.to_lowercase()),
        "{authority:?}"
    );
    assert!(
        authority[0].ends_with(" 5"),
        "minimum is the ttl (D16): {authority:?}"
    );
}

#[track_caller]
pub(crate) fn answers(zones: &Zones, owner: &str, rtype: Type, expected: &[&str]) {
    let reply = ask(zones, owner, rtype);
    assert_eq!(reply.status(), "NOERROR aa rd", "{owner} {rtype}");
    assert_eq!(reply.answers(), expected, "{owner} {rtype}");
    assert_eq!(reply.authority(), [""; 0], "{owner} {rtype}");
}
