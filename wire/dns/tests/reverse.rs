//! The names of addresses.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod support;

use domain::base::Rtype as Type;
use portolan_dns::{Answer, Data, Name, Transport, Zone};
use support::{ask, cluster, name, query};

#[test]
fn d12_an_address_has_a_name_in_the_reverse_zone() {
    let zones = cluster();
    let owner = "1.7.96.10.in-addr.arpa";
    let expected = format!("{owner} 5 PTR web.prod.svc.cluster.local");
    assert_eq!(ask(&zones, owner, Type::PTR).answers(), [expected]);
    assert_eq!(
        ask(&zones, "2.7.96.10.in-addr.arpa", Type::PTR).status(),
        "NXDOMAIN aa rd"
    );
    let outside = query("1.7.97.10.in-addr.arpa", Type::PTR, None);
    assert_eq!(
        zones.answer(&outside, Transport::Udp, 0, &mut Vec::new()),
        Answer::Forward
    );
    let six = Name::reverse("fd00:10:96::1:a".parse().unwrap());
    let nibbles = "a.0.0.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa.";
    assert_eq!(six.to_string(), nibbles);
}

/// A zone that falls through knows some names and nothing of the others, not
/// even that its own origin or what lies above a known name exists.
#[test]
fn d12_d22_what_a_zone_does_not_know_falls_through() {
    let mut wide = Zone::new(name("in-addr.arpa"), 5, 7).falling_through();
    let known = Name::reverse([192, 0, 2, 7].into());
    let pointer = Data::Ptr(name("db-0.db.prod.svc.cluster.local"));
    wide.set(&known, &[pointer.into()]).unwrap();
    let mut zones = cluster();
    zones.insert(wide);
    let owner = "7.2.0.192.in-addr.arpa";
    let expected = format!("{owner} 5 PTR db-0.db.prod.svc.cluster.local");
    assert_eq!(ask(&zones, owner, Type::PTR).answers(), [expected]);
    let no_data = ask(&zones, owner, Type::A);
    assert_eq!(no_data.status(), "NOERROR aa rd");
    assert_eq!(no_data.answers(), [""; 0]);
    for (owner, rtype) in [
        ("8.2.0.192.in-addr.arpa", Type::PTR),
        ("2.0.192.in-addr.arpa", Type::PTR),
        ("in-addr.arpa", Type::SOA),
    ] {
        let answer = zones.answer(
            &query(owner, rtype, None),
            Transport::Udp,
            0,
            &mut Vec::new(),
        );
        assert_eq!(answer, Answer::Forward, "{owner}");
    }
    // A closer zone that answers for everything below it still does.
    assert_eq!(
        ask(&zones, "2.7.96.10.in-addr.arpa", Type::PTR).status(),
        "NXDOMAIN aa rd"
    );
}

/// A range of addresses that ends within a label: its zone answers for the range alone,
/// and an address without a name does not exist there, as everywhere.
#[test]
fn d12_d5_an_address_of_a_part_of_a_zone_has_a_name_or_does_not_exist() {
    let labels = (64..128_u8).map(|label| label.to_string());
    let mut narrow = Zone::new(name("2.1.10.in-addr.arpa"), 5, 7).answering_below(labels);
    let web = Data::Ptr(name("web.prod.svc.cluster.local"));
    let far = Data::Ptr(name("db-0.db.prod.svc.cluster.local"));
    narrow
        .set(&Name::reverse([10, 1, 2, 64].into()), &[web.into()])
        .unwrap();
    narrow
        .set(&Name::reverse([10, 1, 2, 200].into()), &[far.into()])
        .unwrap();
    let mut zones = cluster();
    zones.insert(narrow);
    let soa = "2.1.10.in-addr.arpa 5 SOA ns.dns.2.1.10.in-addr.arpa \
               hostmaster.2.1.10.in-addr.arpa 9 7200 1800 86400 5";
    for (owner, status, answers, authority) in [
        ("64.2.1.10.in-addr.arpa", "NOERROR aa rd", 1, [].as_slice()),
        ("200.2.1.10.in-addr.arpa", "NOERROR aa rd", 1, &[]),
        ("65.2.1.10.in-addr.arpa", "NXDOMAIN aa rd", 0, &[soa]),
        ("127.2.1.10.in-addr.arpa", "NXDOMAIN aa rd", 0, &[soa]),
        ("x.64.2.1.10.in-addr.arpa", "NXDOMAIN aa rd", 0, &[soa]),
    ] {
        let said = ask(&zones, owner, Type::PTR);
        assert_eq!(said.status(), status, "{owner}");
        assert_eq!(said.answers().len(), answers, "{owner}");
        assert_eq!(said.authority(), authority, "{owner}");
    }
    for owner in [
        "2.1.10.in-addr.arpa",
        "63.2.1.10.in-addr.arpa",
        "128.2.1.10.in-addr.arpa",
        "064.2.1.10.in-addr.arpa",
        "64.x.2.1.10.in-addr.arpa",
    ] {
        let asked = query(owner, Type::PTR, None);
        let answer = zones.answer(&asked, Transport::Udp, 0, &mut Vec::new());
        assert_eq!(answer, Answer::Forward, "{owner}");
    }
}
