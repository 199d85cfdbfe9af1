//! FRR's bgpd as the peer.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use portolan_announce::bgp::config::Restart;
use portolan_announce::bgp::{Attributes, Config, News, Reason};
use portolan_peers::frr::Frr;
use portolan_peers::speaker::Speaker;
use portolan_peers::{Place, inside, until};

const FOUR: &str = "198.51.100.7/32";
const SIX: &str = "2001:db8:1::7/128";

fn ends() -> [IpAddr; 2] {
    ["192.0.2.1", "192.0.2.2"].map(|end| end.parse().expect("an address"))
}

fn config() -> Config {
    Config {
        hold_time: Duration::from_secs(9),
        connect_retry: Duration::from_secs(2),
        idle_hold: Duration::from_millis(500),
        ..Config::new(4_200_000_001, 64_513, Ipv4Addr::new(192, 0, 2, 1))
    }
}

/// A bgpd with a line more for the router.
fn frr(place: &Place, router: &str) -> Frr {
    let text = format!(
        "router bgp 64513
 bgp router-id 192.0.2.2
 no bgp ebgp-requires-policy
 no bgp network import-check
 {router}
 neighbor 192.0.2.1 remote-as 4200000001
 neighbor 192.0.2.1 ebgp-multihop 2
 neighbor 192.0.2.1 timers 3 9
 neighbor 192.0.2.1 timers connect 2
 address-family ipv4 unicast
  neighbor 192.0.2.1 activate
 exit-address-family
 address-family ipv6 unicast
  neighbor 192.0.2.1 activate
 exit-address-family
"
    );
    Frr::start(&place.theirs, &text).expect("bgpd")
}

fn announce(speaker: &mut Speaker, prefix: &str, attributes: Attributes) {
    let prefix = prefix.parse().expect("a prefix");
    speaker.session.announce(prefix, Arc::new(attributes));
}

fn hop(text: &str) -> Attributes {
    Attributes::new(text.parse().expect("an address"))
}

/// What bgpd knows of a prefix, as JSON; nothing if it has no path.
fn route(frr: &Frr, prefix: &str) -> Option<String> {
    let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
    let said = frr.ask(&format!("show bgp {family} unicast {prefix} json"));
    said.ok().filter(|text| text.contains("\"nexthops\""))
}

/// How many UPDATEs bgpd has had from us.
fn sent(frr: &Frr) -> u64 {
    let said = frr.ask("show bgp neighbors 192.0.2.1").unwrap_or_default();
    let line = said.lines().find(|line| line.contains("Updates:"));
    let words = line.map(|line| line.split_whitespace().collect::<Vec<_>>());
    let count = words.and_then(|words| words.last().and_then(|last| last.parse().ok()));
    count.unwrap_or(0)
}

#[test]
fn l10_frr_learns_routes_of_both_families() {
    if !inside("l10_frr_learns_routes_of_both_families") {
        return;
    }
    let place = Place::new().unwrap();
    let frr = frr(&place, "");
    let mut speaker = Speaker::start(&place.ours, config(), ends(), None).unwrap();
    let said = Attributes {
        med: Some(7),
        communities: vec![64_512 << 16 | 100],
        large_communities: vec![[64_512, 1, 2]],
        prepend: 1,
        ..hop("192.0.2.1")
    };
    announce(&mut speaker, FOUR, said);
    announce(&mut speaker, SIX, hop("2001:db8::1"));
    speaker.come_up();
    let [four, six] = [FOUR, SIX].map(|prefix| {
        until("a route", || {
            speaker.step();
            route(&frr, prefix)
        })
    });
    for part in [
        "\"4200000001 4200000001\"",
        "\"192.0.2.1\"",
        "\"metric\":7",
        "\"64512:100\"",
        "\"64512:1:2\"",
    ] {
        assert!(four.contains(part), "{part} in:\n{four}");
    }
    assert!(six.contains("\"2001:db8::1\""), "{six}");
    speaker.session.withdraw(FOUR.parse().unwrap());
    speaker.session.withdraw(SIX.parse().unwrap());
    speaker.flush();
    for prefix in [FOUR, SIX] {
        until("a route to go", || {
            speaker.step();
            route(&frr, prefix).is_none().then_some(())
        });
    }
    // It may ask for all again.
    announce(&mut speaker, FOUR, hop("192.0.2.1"));
    speaker.flush();
    until("the route", || {
        speaker.step();
        route(&frr, FOUR)
    });
    let before = sent(&frr);
    frr.ask("clear bgp ipv4 unicast 192.0.2.1 in").unwrap();
    until("an UPDATE for the refresh", || {
        speaker.step();
        (sent(&frr) > before).then_some(())
    });
    until("a session that lasts longer than the hold time", || {
        speaker.step();
        (speaker.uptime()? > Duration::from_secs(10)).then_some(())
    });
}

#[test]
fn l10_frr_keeps_routes_over_a_graceful_restart() {
    if !inside("l10_frr_keeps_routes_over_a_graceful_restart") {
        return;
    }
    let place = Place::new().unwrap();
    let frr = frr(&place, "bgp graceful-restart");
    let with = |restarted| Config {
        restart: Some(Restart {
            time: Duration::from_secs(120),
            restarted,
        }),
        ..config()
    };
    let mut first = Speaker::start(&place.ours, with(false), ends(), None).unwrap();
    announce(&mut first, FOUR, hop("192.0.2.1"));
    announce(&mut first, SIX, hop("2001:db8::1"));
    first.session.complete();
    first.come_up();
    for prefix in [FOUR, SIX] {
        until("a route", || {
            first.step();
            route(&frr, prefix)
        });
    }
    let outputs = first.session.leave();
    first.perform(outputs);
    drop(first);
    until("bgpd to notice", || {
        let said = route(&frr, FOUR).expect("the route stays");
        said.contains("\"stale\":true").then_some(())
    });
    let mut second = Speaker::start(&place.ours, with(true), ends(), None).unwrap();
    announce(&mut second, FOUR, hop("192.0.2.1"));
    until("the session of the second, and its route", || {
        second.step();
        let said = route(&frr, FOUR).expect("the route stays");
        let fresh = !said.contains("\"stale\":true");
        (fresh && second.session.agreed().is_some()).then_some(())
    });
    assert!(
        route(&frr, SIX).is_some(),
        "not complete yet\n{}",
        frr.log()
    );
    second.session.complete();
    second.flush();
    until("what is not announced again to go", || {
        second.step();
        assert!(route(&frr, FOUR).is_some());
        route(&frr, SIX).is_none().then_some(())
    });
}

/// An operator of the router resets the session: it comes back.
#[test]
fn l10_a_reset_by_frr_is_understood() {
    if !inside("l10_a_reset_by_frr_is_understood") {
        return;
    }
    let place = Place::new().unwrap();
    let frr = frr(&place, "");
    let mut speaker = Speaker::start(&place.ours, config(), ends(), None).unwrap();
    announce(&mut speaker, FOUR, hop("192.0.2.1"));
    speaker.come_up();
    frr.ask("clear bgp 192.0.2.1").unwrap();
    let notice = until("its NOTIFICATION", || {
        speaker.step();
        speaker.news.iter().find_map(|news| match news {
            News::Down(Reason::Received(notice)) => Some(notice.to_string()),
            News::Down(_) | News::Failed(_) | News::Up(_) | News::Malformed(_) => None,
        })
    });
    assert_eq!(notice, "Administrative Reset (6/4)");
    speaker.come_up();
    until("the route", || {
        speaker.step();
        route(&frr, FOUR)
    });
}
