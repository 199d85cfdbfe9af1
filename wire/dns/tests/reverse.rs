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
