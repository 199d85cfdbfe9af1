//! Nodes that die and agents that restart, under a load of packets. What is measured is
//! printed; the tests themselves are patient, since machines are slow.

use std::time::{Duration, Instant};

use portolan_peers::bird::Bird;
use portolan_peers::inside;
use serde_json::{Value, json};

use super::load::{Load, gap, lost};
use super::site::{FOUR, NODES_COUNT, SIX, Site};
use super::table::{BOTH, paths, router, until_learnt, until_spread};

/// For how long a load is looked at that nothing happens to.
const CALM: Duration = Duration::from_secs(2);

/// BFD at the router, as fast as ours.
const BFD: &str = "protocol bfd {
    interface \"link\" { min rx interval 100 ms; min tx interval 100 ms; multiplier 5; };
}";

/// BFD at ours: a path is broken after half a second.
fn bfd() -> Value {
    json!({
        "transmitIntervalMilliseconds": 100, "receiveIntervalMilliseconds": 100,
        "detectMultiplier": 5,
    })
}

/// Three agents whose connections the router spreads.
fn started(peer: &Value, session: &str, more: &str) -> (Site, Bird) {
    let mut site = Site::new().expect("a site");
    let bird = router(&site, session, more);
    let mut spec = peer.clone();
    spec["families"] = json!(BOTH);
    site.peer("tor", &spec).expect("a peer");
    site.announcement("all", &json!({}))
        .expect("an announcement");
    site.start_all().expect("agents");
    until_learnt(&site, &bird, 3);
    until_spread(&site, 3);
    (site, bird)
}

/// A node dies under a load. Answers with how long packets were lost.
fn node_dies(site: &mut Site, bird: &Bird, node: u8) -> Duration {
    let from = site.place(NODES_COUNT + 1).expect("the router").clone();
    let loads = [FOUR, SIX].map(|address| Load::start(&from, address).expect("a load"));
    std::thread::sleep(CALM);
    let died = Instant::now();
    site.link(node, false).expect("a link");
    site.kill(node).expect("an agent");
    until_learnt(site, bird, 2);
    std::thread::sleep(CALM);
    let sent = loads.map(Load::end);
    for sent in &sent {
        let before: Vec<_> = sent.iter().filter(|one| one.at < died).copied().collect();
        // A packet or two may be on their way when the node dies.
        let early = before.iter().filter(|one| one.by.is_none());
        let early = early.filter(|one| died.duration_since(one.at) > CALM / 2);
        assert_eq!(early.count(), 0, "lost before");
        assert!(sent.iter().any(|one| one.by == Some(node)));
    }
    let gaps = sent.map(|sent| gap(&sent, died).unwrap_or_default());
    let [four, six] = gaps;
    println!(
        "gap {:.3} s (IPv4 {four:?}, IPv6 {six:?})",
        four.max(six).as_secs_f64()
    );
    four.max(six)
}

fn comes_back(site: &mut Site, bird: &Bird, node: u8) {
    site.link(node, true).expect("a link");
    site.start(node).expect("an agent");
    until_learnt(site, bird, 3);
    until_spread(site, 3);
}

#[test]
fn l10_a_node_that_dies_is_left_out_at_once_with_bfd() {
    if !inside("failing::l10_a_node_that_dies_is_left_out_at_once_with_bfd") {
        return;
    }
    let (mut site, bird) = started(&json!({"bfd": bfd()}), "bfd on;", BFD);
    site.until("BFD on all paths", || {
        let said = bird.ask("show bfd sessions").ok()?;
        (said.matches(" Up ").count() == 3).then_some(())
    });
    site.until("a status that says so", || {
        let up = (1..=3).all(|n| site.session("tor", n).is_some_and(|one| one["bfd"] == "Up"));
        up.then_some(())
    });
    let rounds: u8 = std::env::var("PORTOLAN_ROUNDS").map_or(2, |n| n.parse().expect("a number"));
    for round in 0..rounds {
        let node = round % 3 + 1;
        let gap = node_dies(&mut site, &bird, node);
        assert!(gap < Duration::from_secs(30), "{gap:?}");
        comes_back(&mut site, &bird, node);
    }
}

#[test]
fn l10_a_node_that_dies_is_left_out_after_the_hold_time() {
    if !inside("failing::l10_a_node_that_dies_is_left_out_after_the_hold_time") {
        return;
    }
    let peer = json!({"holdTimeSeconds": 3, "gracefulRestart": {"enabled": false}});
    let (mut site, bird) = started(&peer, "hold time 3;", "");
    let gap = node_dies(&mut site, &bird, 2);
    assert!(gap < Duration::from_secs(60), "{gap:?}");
}

/// An agent dies without a word, or ends, and the next one follows: the router keeps the
/// paths, and no packet is lost.
#[test]
fn l10_no_packet_is_lost_while_an_agent_restarts() {
    if !inside("failing::l10_no_packet_is_lost_while_an_agent_restarts") {
        return;
    }
    let (mut site, bird) = started(&json!({}), "", "");
    let from = site.place(NODES_COUNT + 1).unwrap().clone();
    for ends in [false, true] {
        let loads = [FOUR, SIX].map(|address| Load::start(&from, address).unwrap());
        std::thread::sleep(CALM);
        for node in 1..=3 {
            match ends {
                true => site.end(node).unwrap(),
                false => site.kill(node).unwrap(),
            }
        }
        site.until("the router to notice", || {
            let said = bird.ask("show protocols").ok()?;
            (!said.contains("Established")).then_some(())
        });
        assert_eq!(paths(&bird, FOUR), 3, "kept");
        std::thread::sleep(CALM);
        site.start_all().unwrap();
        site.until("sessions that are up again", || {
            let said = bird.ask("show protocols").ok()?;
            // It never has fewer paths, neither before End-of-RIB nor after it.
            assert_eq!([paths(&bird, FOUR), paths(&bird, SIX)], [3; 2]);
            (said.matches("Established").count() == 3).then_some(())
        });
        std::thread::sleep(CALM);
        assert_eq!([paths(&bird, FOUR), paths(&bird, SIX)], [3; 2]);
        let sent = loads.map(Load::end);
        let counts = sent.each_ref().map(|sent| (sent.len(), lost(sent)));
        println!("ends={ends}: (sent, lost) of both families: {counts:?}");
        assert!(counts.iter().all(|(_, lost)| *lost == 0), "{counts:?}");
    }
}

/// With `externalTrafficPolicy: Local`, the route goes while the last endpoint of the
/// node still serves: no packet is lost.
#[test]
fn l10_a_route_goes_before_the_last_endpoint_does() {
    if !inside("failing::l10_a_route_goes_before_the_last_endpoint_does") {
        return;
    }
    let (site, bird) = started(&json!({}), "", "");
    let from = site.place(NODES_COUNT + 1).unwrap().clone();
    let load = Load::start(&from, FOUR).unwrap();
    std::thread::sleep(CALM);
    site.ready_on(&[2, 3]).unwrap();
    until_learnt(&site, &bird, 2);
    until_spread(&site, 2);
    site.ready_on(&[3]).unwrap();
    until_learnt(&site, &bird, 1);
    site.ready_on(&[1, 2, 3]).unwrap();
    until_learnt(&site, &bird, 3);
    until_spread(&site, 3);
    let sent = load.end();
    println!("sent {}, lost {}", sent.len(), lost(&sent));
    assert_eq!(lost(&sent), 0);
}

/// A node that is taken out: what routers keep for the next agent they forget, once
/// somebody says that there will be none.
#[test]
fn l10_cleanup_makes_routers_forget_a_node() {
    if !inside("failing::l10_cleanup_makes_routers_forget_a_node") {
        return;
    }
    let (mut site, bird) = started(&json!({}), "", "");
    let kubeconfig = site.kubeconfig();
    let words = ["cleanup", "--kubeconfig", &kubeconfig, "--node-name", "n2"];
    let refused = site.command(2, &words).unwrap();
    assert!(!refused.status.success(), "an agent runs");
    assert_eq!(paths(&bird, FOUR), 3);
    site.end(2).unwrap();
    site.until("the router to notice", || {
        let said = bird.ask("show protocols n2").ok()?;
        (!said.contains("Established")).then_some(())
    });
    assert_eq!([paths(&bird, FOUR), paths(&bird, SIX)], [3; 2], "kept");
    let dry = [&words[..], &["--dry-run"]].concat();
    let said = site.command(2, &dry).unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let line = "the BGP session with tor (192.0.2.4:179)";
    assert!(said.contains(&format!("would end {line}")), "{said}");
    let done = site.command(2, &words).unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    println!("{said}");
    assert!(done.status.success(), "{done:?}");
    assert!(said.contains(&format!("ended {line}")), "{said}");
    assert!(said.contains("removed table"), "{said}");
    until_learnt(&site, &bird, 2);
    until_spread(&site, 2);
}

/// Beside BFD too, where the router takes its end for the start of a graceful restart.
#[test]
fn l10_no_packet_is_lost_while_an_agent_restarts_beside_bfd() {
    if !inside("failing::l10_no_packet_is_lost_while_an_agent_restarts_beside_bfd") {
        return;
    }
    // Slow enough that no path is taken for broken where a machine is busy.
    let slow = json!({
        "transmitIntervalMilliseconds": 300, "receiveIntervalMilliseconds": 300,
        "detectMultiplier": 15,
    });
    let theirs = BFD
        .replace("100 ms", "300 ms")
        .replace("multiplier 5", "multiplier 15");
    let (mut site, bird) = started(&json!({"bfd": slow}), "bfd graceful;", &theirs);
    for ends in [true, false] {
        site.until("BFD on all paths", || {
            let said = bird.ask("show bfd sessions").ok()?;
            (said.matches(" Up ").count() == 3).then_some(())
        });
        let from = site.place(NODES_COUNT + 1).unwrap().clone();
        let load = Load::start(&from, FOUR).unwrap();
        match ends {
            true => site.end(1).unwrap(),
            false => site.kill(1).unwrap(),
        }
        site.until("the router to notice", || {
            let said = bird.ask("show bfd sessions").ok()?;
            (said.matches(" Up ").count() == 2).then_some(())
        });
        std::thread::sleep(CALM);
        assert_eq!(paths(&bird, FOUR), 3, "kept, ends={ends}");
        site.start(1).unwrap();
        site.until("BFD on all paths", || {
            let said = bird.ask("show bfd sessions").ok()?;
            assert_eq!(paths(&bird, FOUR), 3, "kept");
            (said.matches(" Up ").count() == 3).then_some(())
        });
        let sent = load.end();
        println!("ends={ends}: sent {}, lost {}", sent.len(), lost(&sent));
        assert_eq!(lost(&sent), 0);
    }
}
