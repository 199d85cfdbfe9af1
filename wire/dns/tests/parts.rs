//! Names for a part of what a name stands for, as CoreDNS' zonal names are (D8, D9).

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod support;

use std::collections::BTreeMap;

use domain::base::Rtype as Type;
use portolan_dns::{Data, Lookup, Record, Rtype, Transport, Zone, Zones};
use support::{address, answers, ask, cluster, empty, name, query, reply_to, srv};

/// The database of [`cluster`], with two zones and a port.
fn zonal() -> Zones {
    let mut zones = cluster();
    let zone = zones.zone_mut(&name("cluster.local")).unwrap();
    let whole = name("db.prod.svc.cluster.local");
    let host = |last: u8| format!("10-244-2-{last}.db.prod.svc.cluster.local");
    let mut all: Vec<Record> = zone.get(&whole).unwrap();
    all.push(srv(5432, "db-0.db.prod.svc.cluster.local"));
    zone.set(&whole, &all).unwrap();
    for last in [3, 4] {
        let record = address(&format!("10.244.2.{last}"));
        zone.set(&name(&host(last)), &[record]).unwrap();
    }
    let parts = BTreeMap::from([
        (b"west-1a".to_vec(), vec![address("10.244.1.3")]),
        (
            b"West-1b".to_vec(),
            vec![
                address("10.244.2.3"),
                address("10.244.2.4"),
                srv(5432, &host(3)),
                srv(5432, &host(4)),
            ],
        ),
    ]);
    assert_eq!(zone.set_parts(&whole, Some(&parts)), Ok(true));
    let serial = zone.serial();
    assert_eq!(zone.set_parts(&whole, Some(&parts)), Ok(false));
    assert_eq!(zone.serial(), serial);
    zones
}

#[test]
fn d8_a_part_has_its_own_addresses() {
    let zones = zonal();
    let owner = "west-1a.pin._zone.db.prod.svc.cluster.local";
    answers(
        &zones,
        owner,
        Type::A,
        &[&format!("{owner} 5 A 10.244.1.3")],
    );
    let owner = "West-1B.Prefer._Zone.db.prod.svc.cluster.local";
    let reply = ask(&zones, owner, Type::A);
    assert_eq!(
        reply.answers(),
        [
            format!("{owner} 5 A 10.244.2.3"),
            format!("{owner} 5 A 10.244.2.4"),
        ],
        "the question keeps its case (D1)"
    );
    empty(
        &ask(
            &zones,
            "west-1a.pin._zone.db.prod.svc.cluster.local",
            Type::TXT,
        ),
        "NOERROR aa rd",
    );
    let any = ask(&zones, "x.pin._zone.db.prod.svc.cluster.local", Type::ANY);
    assert_eq!(any.answers().len(), 1, "{:?}", any.answers());
}

#[test]
fn d9_targets_of_a_part_are_below_the_whole() {
    let zones = zonal();
    let owner = "west-1b.pin._zone.db.prod.svc.cluster.local";
    let reply = ask(&zones, owner, Type::SRV);
    let below = "db.prod.svc.cluster.local";
    assert_eq!(
        reply.answers(),
        [
            format!("{owner} 5 SRV 0 100 5432 10-244-2-3.{below}"),
            format!("{owner} 5 SRV 0 100 5432 10-244-2-4.{below}"),
        ]
    );
    assert_eq!(
        reply.additional(),
        [
            format!("10-244-2-3.{below} 5 A 10.244.2.3"),
            format!("10-244-2-4.{below} 5 A 10.244.2.4"),
        ]
    );
    let found = zones.lookup(&name(owner), Rtype::SRV);
    let Lookup::Records(records) = found else {
        panic!("{found:?}");
    };
    assert_eq!(records[0], {
        let Data::Srv { port, target, .. } = srv(5432, &format!("10-244-2-3.{below}")).data else {
            unreachable!();
        };
        Data::Srv {
            priority: 0,
            weight: 100,
            port,
            target,
        }
        .into()
    });
}

#[test]
fn d8_a_part_without_records_is_no_data_or_the_whole() {
    let zones = zonal();
    let pinned = ask(&zones, "typo.pin._zone.db.prod.svc.cluster.local", Type::A);
    empty(&pinned, "NOERROR aa rd");
    let owner = "typo.prefer._zone.db.prod.svc.cluster.local";
    let all = ["10.244.1.3", "10.244.1.4", "10.244.2.3"].map(|ip| format!("{owner} 5 A {ip}"));
    answers(&zones, owner, Type::A, &all.each_ref().map(String::as_str));
    let reply = ask(&zones, owner, Type::SRV);
    let target = "db-0.db.prod.svc.cluster.local";
    assert_eq!(
        reply.answers(),
        [format!("{owner} 5 SRV 0 100 5432 {target}")]
    );
    assert_eq!(reply.additional(), [format!("{target} 5 A 10.244.1.3")]);
    for nothing in [
        "west-1a.florp._zone.db.prod.svc.cluster.local",
        "pin._zone.db.prod.svc.cluster.local",
        "_zone.db.prod.svc.cluster.local",
        "x.west-1a.pin._zone.db.prod.svc.cluster.local",
        "west-1a.pin._zone.web.prod.svc.cluster.local",
        "west-1a.pin._zone.gone.prod.svc.cluster.local",
        "west-1a.pin._zone.cluster.local",
    ] {
        empty(&ask(&zones, nothing, Type::A), "NXDOMAIN aa rd");
    }
}

#[test]
fn d13_an_alias_may_lead_to_a_part() {
    let mut zones = zonal();
    let zone = zones.zone_mut(&name("cluster.local")).unwrap();
    let target = "west-1a.pin._zone.db.prod.svc.cluster.local";
    zone.set(
        &name("near.prod.svc.cluster.local"),
        &[Data::Cname(name(target)).into()],
    )
    .unwrap();
    let owner = "near.prod.svc.cluster.local";
    let chain = [
        format!("{owner} 5 CNAME {target}"),
        format!("{target} 5 A 10.244.1.3"),
    ];
    answers(
        &zones,
        owner,
        Type::A,
        &chain.each_ref().map(String::as_str),
    );
    empty(&ask(&zones, owner, Type::AAAA), "NOERROR aa rd");
}

#[test]
fn d17_parts_are_not_transferred_and_go_with_the_whole() {
    let mut zones = zonal();
    let asked = query("cluster.local", Type::AXFR, None);
    let mut transfer = zones.transfer(&asked, Transport::Tcp);
    let mut raw = Vec::new();
    assert!(
        !transfer.next(&asked, Transport::Tcp, &mut raw),
        "one message"
    );
    assert!(!raw.windows(5).any(|label| label == b"_zone"));

    let whole = name("db.prod.svc.cluster.local");
    let before: Zone = zones.zone(&name("cluster.local")).unwrap().clone();
    let zone = zones.zone_mut(&name("cluster.local")).unwrap();
    assert_eq!(zone.set_parts(&whole, None), Ok(true));
    assert_ne!(*zone, before, "others answer otherwise");
    assert_eq!(zone.set_parts(&whole, None), Ok(false));
    assert!(zone.set_parts(&name("example.com"), None).is_err());
    let owner = "west-1a.pin._zone.db.prod.svc.cluster.local";
    empty(
        &reply_to(&zones, &query(owner, Type::A, None), Transport::Udp, 0),
        "NXDOMAIN aa rd",
    );
}
