//! BIRD 2 as the peer.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use portolan_announce::bfd::{self, State};
use portolan_announce::bgp::config::Restart;
use portolan_announce::bgp::{Attributes, Config, Input, News, Reason, Stop};
use portolan_peers::bird::Bird;
use portolan_peers::path::Path;
use portolan_peers::speaker::Speaker;
use portolan_peers::{Place, inside, until};

const OURS: &str = "192.0.2.1";
const FOUR: &str = "198.51.100.7/32";
const SIX: &str = "2001:db8:1::7/128";

fn ends(family: u8) -> [IpAddr; 2] {
    match family {
        4 => ["192.0.2.1", "192.0.2.2"].map(|end| end.parse().expect("an address")),
        _ => ["2001:db8::1", "2001:db8::2"].map(|end| end.parse().expect("an address")),
    }
}

/// The hold time of the tests.
const HOLD: Duration = Duration::from_secs(9);

/// A peer that tries often.
fn config() -> Config {
    let identifier: Ipv4Addr = OURS.parse().expect("an address");
    Config {
        hold_time: HOLD,
        connect_retry: Duration::from_secs(2),
        idle_hold: Duration::from_millis(500),
        ..Config::new(4_200_000_001, 64_513, identifier)
    }
}

fn bird(place: &Place, family: u8, more: &str) -> Bird {
    let [ours, theirs] = ends(family);
    let text = format!(
        "protocol bgp peer {{
            local {theirs} as 64513;
            neighbor {ours} as 4200000001;
            connect delay time 1; connect retry time 1; error wait time 1, 2;
            {more}
        }}"
    );
    Bird::start(&place.theirs, &text).expect("BIRD")
}

const BOTH: &str = "ipv4 { import all; export all; }; ipv6 { import all; export all; };";

fn announce(speaker: &mut Speaker, prefix: &str, attributes: Attributes) {
    let prefix = prefix.parse().expect("a prefix");
    speaker.session.announce(prefix, Arc::new(attributes));
}

fn hop(text: &str) -> Attributes {
    Attributes::new(text.parse().expect("an address"))
}

/// What BIRD knows of a prefix; empty if nothing.
fn route(bird: &Bird, prefix: &str) -> String {
    bird.ask(&format!("show route for {prefix} all"))
        .unwrap_or_default()
}

fn until_route(speaker: &mut Speaker, bird: &Bird, prefix: &str, there: bool) -> String {
    until("a route to come or go", || {
        speaker.step();
        let said = route(bird, prefix);
        (said.contains("BGP.next_hop") == there).then_some(said)
    })
}

#[test]
fn l10_bird_learns_routes_of_both_families() {
    if !inside("l10_bird_learns_routes_of_both_families") {
        return;
    }
    let place = Place::new().unwrap();
    let bird = bird(&place, 4, BOTH);
    let mut speaker = Speaker::start(&place.ours, config(), ends(4), None).unwrap();
    let said = Attributes {
        med: Some(7),
        communities: vec![64_512 << 16 | 100],
        large_communities: vec![[64_512, 1, 2]],
        prepend: 1,
        ..hop(OURS)
    };
    announce(&mut speaker, FOUR, said);
    announce(&mut speaker, SIX, hop("2001:db8::1"));
    speaker.come_up();
    let four = until_route(&mut speaker, &bird, FOUR, true);
    for part in [
        "BGP.as_path: 4200000001 4200000001",
        "BGP.next_hop: 192.0.2.1",
        "BGP.med: 7",
        "BGP.community: (64512,100)",
        "BGP.large_community: (64512, 1, 2)",
        "BGP.origin: IGP",
    ] {
        assert!(four.contains(part), "{part} in:\n{four}");
    }
    let six = until_route(&mut speaker, &bird, SIX, true);
    assert!(six.contains("BGP.next_hop: 2001:db8::1"), "{six}");
    speaker.session.withdraw(FOUR.parse().unwrap());
    speaker.session.withdraw(SIX.parse().unwrap());
    speaker.flush();
    until_route(&mut speaker, &bird, FOUR, false);
    until_route(&mut speaker, &bird, SIX, false);
    // Without keepalives, either end would give up after the hold time.
    until("a session that lasts longer than the hold time", || {
        speaker.step();
        let lasted = speaker.uptime()?;
        (lasted > HOLD + Duration::from_secs(1)).then_some(())
    });
    let state = bird.ask("show protocols all peer").unwrap();
    assert!(state.contains("Neighbor AS:      4200000001"), "{state}");
}

#[test]
fn l10_bird_takes_ipv4_over_ipv6_next_hops_from_an_internal_peer() {
    if !inside("l10_bird_takes_ipv4_over_ipv6_next_hops_from_an_internal_peer") {
        return;
    }
    let place = Place::new().unwrap();
    let [ours, theirs] = ends(6);
    let text = format!(
        "protocol bgp peer {{
            local {theirs} as 64513; neighbor {ours} as 64513; direct;
            connect delay time 1;
            ipv4 {{ import all; export none; extended next hop on; }};
            ipv6 {{ import all; export none; }};
        }}"
    );
    let bird = Bird::start(&place.theirs, &text).unwrap();
    let config = Config {
        local_as: 64_513,
        extended_next_hop: true,
        ..config()
    };
    let mut speaker = Speaker::start(&place.ours, config, ends(6), None).unwrap();
    let said = Attributes {
        local_pref: Some(250),
        ..hop("2001:db8::1")
    };
    announce(&mut speaker, FOUR, said);
    announce(&mut speaker, SIX, hop("2001:db8::1"));
    speaker.come_up();
    let four = until_route(&mut speaker, &bird, FOUR, true);
    assert!(four.contains("BGP.next_hop: 2001:db8::1"), "{four}");
    assert!(four.contains("BGP.local_pref: 250"), "{four}");
    let six = until_route(&mut speaker, &bird, SIX, true);
    assert!(six.contains("BGP.local_pref: 100"), "{six}");
}

#[test]
fn l10_ten_thousand_routes_arrive() {
    if !inside("l10_ten_thousand_routes_arrive") {
        return;
    }
    let place = Place::new().unwrap();
    let bird = bird(&place, 4, BOTH);
    let mut speaker = Speaker::start(&place.ours, config(), ends(4), None).unwrap();
    for n in 0..10_000_u32 {
        let address = Ipv4Addr::from_bits(0xc633_6400 + n);
        announce(&mut speaker, &format!("{address}/32"), hop(OURS));
    }
    speaker.come_up();
    until("all routes", || {
        speaker.step();
        let said = bird.ask("show route count").ok()?;
        said.contains("10000 of 10000 routes").then_some(())
    });
}

#[test]
fn l10_passwords_must_be_the_same() {
    if !inside("l10_passwords_must_be_the_same") {
        return;
    }
    let place = Place::new().unwrap();
    let more = format!("password \"right\"; {BOTH}");
    let bird = bird(&place, 4, &more);
    let wrong = Speaker::start(&place.ours, config(), ends(4), Some("wrong"));
    let mut wrong = wrong.unwrap();
    // It tries, and nothing comes of it.
    until("two failures", || {
        wrong.step();
        let failed = |news: &&News| **news == News::Failed(Reason::Unreachable);
        (wrong.news.iter().filter(failed).count() >= 2).then_some(())
    });
    assert!(wrong.session.agreed().is_none());
    drop(wrong);
    let right = Speaker::start(&place.ours, config(), ends(4), Some("right"));
    let mut right = right.unwrap();
    announce(&mut right, FOUR, hop(OURS));
    right.come_up();
    until_route(&mut right, &bird, FOUR, true);
}

#[test]
fn l10_bird_says_that_the_as_is_wrong() {
    if !inside("l10_bird_says_that_the_as_is_wrong") {
        return;
    }
    let place = Place::new().unwrap();
    let _bird = bird(&place, 4, BOTH);
    let wrong = Config {
        local_as: 64_999,
        ..config()
    };
    let mut speaker = Speaker::start(&place.ours, wrong, ends(4), None).unwrap();
    until("Bad Peer AS", || {
        speaker.step();
        let said = |news: &News| match news {
            News::Failed(Reason::Received(notice)) => (notice.code, notice.subcode) == (2, 2),
            News::Failed(_) | News::Up(_) | News::Down(_) | News::Malformed(_) => false,
        };
        speaker.news.iter().any(said).then_some(())
    });
}

/// The process that speaks is replaced: BIRD never forgets the route.
#[test]
fn l10_bird_keeps_routes_over_a_graceful_restart() {
    if !inside("l10_bird_keeps_routes_over_a_graceful_restart") {
        return;
    }
    let place = Place::new().unwrap();
    let more = format!("graceful restart on; {BOTH}");
    let bird = bird(&place, 4, &more);
    let with = |restarted| Config {
        restart: Some(Restart {
            time: Duration::from_secs(120),
            restarted,
        }),
        ..config()
    };
    let mut first = Speaker::start(&place.ours, with(false), ends(4), None).unwrap();
    announce(&mut first, FOUR, hop(OURS));
    announce(&mut first, SIX, hop("2001:db8::1"));
    first.session.complete();
    first.come_up();
    until_route(&mut first, &bird, FOUR, true);
    until_route(&mut first, &bird, SIX, true);
    let outputs = first.session.leave();
    first.perform(outputs);
    drop(first);
    until("BIRD to notice", || {
        let said = bird.ask("show protocols peer").ok()?;
        (!said.contains("Established")).then_some(())
    });
    let kept = route(&bird, FOUR);
    assert!(kept.contains("BGP.next_hop"), "{kept}\n{}", bird.log());
    let mut second = Speaker::start(&place.ours, with(true), ends(4), None).unwrap();
    announce(&mut second, FOUR, hop(OURS));
    until("the session of the second", || {
        second.step();
        assert!(
            route(&bird, FOUR).contains("BGP.next_hop"),
            "{}",
            bird.log()
        );
        second.session.agreed().map(drop)
    });
    assert!(
        route(&bird, SIX).contains("BGP.next_hop"),
        "not complete yet"
    );
    second.session.complete();
    second.flush();
    // What the second does not announce goes with End-of-RIB, and only that.
    until_route(&mut second, &bird, SIX, false);
    assert!(route(&bird, FOUR).contains("BGP.next_hop"));
}

#[test]
fn l10_a_frozen_peer_is_given_up_and_taken_back() {
    if !inside("l10_a_frozen_peer_is_given_up_and_taken_back") {
        return;
    }
    let place = Place::new().unwrap();
    let bird = bird(&place, 4, BOTH);
    let mut speaker = Speaker::start(&place.ours, config(), ends(4), None).unwrap();
    announce(&mut speaker, FOUR, hop(OURS));
    speaker.come_up();
    bird.signal(Signal::SIGSTOP).unwrap();
    until("the hold time to be over", || {
        speaker.step();
        let down = |news: &News| match news {
            News::Down(Reason::Sent(notice)) => notice.code == 4,
            News::Down(_) | News::Failed(_) | News::Up(_) | News::Malformed(_) => false,
        };
        speaker.news.iter().any(down).then_some(())
    });
    bird.signal(Signal::SIGCONT).unwrap();
    speaker.come_up();
    until_route(&mut speaker, &bird, FOUR, true);
    // An orderly end takes the routes away at once.
    speaker.input(Input::Stop(Stop::Shutdown));
    until("the routes to go", || {
        (!route(&bird, FOUR).contains("BGP.next_hop")).then_some(())
    });
    assert!(
        bird.log().contains("Administrative shutdown"),
        "{}",
        bird.log()
    );
}

#[test]
fn l10_routes_of_bird_are_counted_and_limited() {
    if !inside("l10_routes_of_bird_are_counted_and_limited") {
        return;
    }
    let place = Place::new().unwrap();
    let [ours, theirs] = ends(4);
    let routes: String = (0..4)
        .map(|n| format!("route 203.0.113.{n}/32 blackhole;"))
        .collect();
    let text = format!(
        "protocol static {{ ipv4; {routes} }}
        protocol bgp peer {{
            local {theirs} as 64513; neighbor {ours} as 4200000001;
            connect delay time 1; connect retry time 1; error wait time 1, 2;
            ipv4 {{ import all; export all; }};
        }}"
    );
    let _bird = Bird::start(&place.theirs, &text).unwrap();
    for (most, fits) in [(4, true), (3, false)] {
        let limited = Config {
            most_prefixes: Some(most),
            ..config()
        };
        let mut speaker = Speaker::start(&place.ours, limited, ends(4), None).unwrap();
        until("the routes", || {
            speaker.step();
            let status = speaker.session.status();
            let stopped = |news: &News| match news {
                News::Down(Reason::Sent(notice)) => (notice.code, notice.subcode) == (6, 1),
                News::Down(_) | News::Failed(_) | News::Up(_) | News::Malformed(_) => false,
            };
            let stopped = speaker.news.iter().any(stopped);
            assert!(!(fits && stopped), "{:?}", speaker.news);
            match fits {
                true => status.prefixes_received == 4,
                false => stopped,
            }
            .then_some(())
        });
    }
}

#[test]
fn l10_bfd_with_bird_comes_up_and_notices_silence() {
    if !inside("l10_bfd_with_bird_comes_up_and_notices_silence") {
        return;
    }
    let place = Place::new().unwrap();
    let text = "protocol bfd {
            interface \"*\" { min rx interval 100 ms; min tx interval 100 ms; multiplier 5; };
            neighbor 192.0.2.1;
        }";
    let bird = Bird::start(&place.theirs, text).unwrap();
    let config = bfd::Config {
        multiplier: 5,
        ..bfd::Config::new(77)
    };
    let mut path = Path::start(&place.ours, config, ends(4)).unwrap();
    until("both ends up", || {
        path.step();
        let said = bird.ask("show bfd sessions").ok()?;
        let theirs = said
            .lines()
            .any(|line| line.contains(OURS) && line.contains("Up"));
        (theirs && path.session.state().0 == State::Up).then_some(())
    });
    bird.signal(Signal::SIGSTOP).unwrap();
    until("its silence", || {
        path.step();
        (path.session.state() == (State::Down, bfd::Diagnostic::EXPIRED)).then_some(())
    });
    bird.signal(Signal::SIGCONT).unwrap();
    until("its return", || {
        path.step();
        (path.session.state().0 == State::Up).then_some(())
    });
    // Our own silence, as BIRD sees it.
    drop(path);
    until("BIRD to notice", || {
        let said = bird.ask("show bfd sessions").ok()?;
        let line = said.lines().find(|line| line.contains(OURS))?.to_owned();
        line.contains("Down").then_some(())
    });
}
