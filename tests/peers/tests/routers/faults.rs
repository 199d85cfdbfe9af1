//! What goes wrong with a session, and how that is told: an event and the status of the
//! peer, and `portolan lb bgp`.

use std::time::Duration;

use portolan_client::{BGP_PEERS, SECRETS, Target};
use portolan_peers::bird::Bird;
use portolan_peers::inside;
use serde_json::{Value, json};

use super::site::{FOUR, NODES_COUNT, Site};
use super::speaker::Fake;
use super::table::{paths, route};

/// A BIRD that speaks with n1 alone.
fn bird(site: &Site, words: &str, more: &str) -> Bird {
    let text = format!(
        "{more}
        protocol bgp n1 {{
            local 192.0.2.4 as 64513; neighbor 192.0.2.1 as 64512; passive;
            error wait time 1, 2; connect delay time 1;
            {words}
        }}"
    );
    Bird::start(site.place(NODES_COUNT + 1).expect("the router"), &text).expect("BIRD")
}

/// A site where only n1 speaks with the router.
fn one(peer: &Value) -> Site {
    let mut site = Site::new().expect("a site");
    let mut spec = peer.clone();
    spec["nodeSelector"] = json!({"matchLabels": {"rack": "a"}});
    site.peer("tor", &spec).expect("a peer");
    site.announcement("all", &json!({}))
        .expect("an announcement");
    site.start(1).expect("an agent");
    site
}

/// Waits until a fault is told everywhere: as an event with this reason, in the status
/// and by `portolan lb bgp`, with these words.
fn until_told(site: &Site, reason: &str, words: &str) {
    site.until("an event", || {
        let events = site.events(reason);
        events
            .iter()
            .any(|text| text.starts_with("node n1: ") && text.contains(words))
            .then_some(())
    });
    let entry = site.until("a status", || {
        let entry = site.session("tor", 1)?;
        let last = entry["lastError"].as_str()?;
        last.contains(words).then_some(entry)
    });
    assert!(entry["lastErrorTime"].is_string(), "{entry}");
    // Between attempts, other faults may be the last ones for a while.
    let said = site.until("lb bgp", || {
        let said = site.command(1, &["lb", "bgp"]).ok()?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        (said.contains(words) && said.contains(" ago)")).then_some(said)
    });
    println!("{said}");
}

fn ready(site: &Site) -> Value {
    let peer = site.get(Target::one(&BGP_PEERS, None, "tor"));
    let conditions = peer.expect("a peer")["status"]["conditions"].clone();
    conditions[0].clone()
}

fn is_up(site: &Site) -> Option<()> {
    let entry = site.session("tor", 1)?;
    (entry["state"] == "Established").then_some(())
}

const IMPORT: &str = "ipv4 { import all; export none; };";

#[test]
fn l10_a_wrong_as_is_told_by_either_end() {
    if !inside("faults::l10_a_wrong_as_is_told_by_either_end") {
        return;
    }
    let site = one(&json!({"localASN": 64_999}));
    let first = bird(&site, IMPORT, "");
    until_told(&site, "WrongASN", "does not expect AS 64999 (localASN)");
    site.until("a condition", || {
        (ready(&site)["reason"] == "SessionsDown").then_some(())
    });
    let message = ready(&site)["message"].clone();
    assert!(
        message
            .as_str()
            .unwrap()
            .starts_with("0 of 1 sessions: n1: "),
        "{message}"
    );
    let target = Target::one(&BGP_PEERS, None, "tor");
    // A router that expects no one AS leaves it to us to say.
    drop(first);
    let text = "protocol bgp n1 {
        local 192.0.2.4 as 64513; neighbor 192.0.2.1 external; passive;
        error wait time 1, 2; connect delay time 1;
        ipv4 { import all; export none; };
    }";
    let _second = Bird::start(site.place(NODES_COUNT + 1).unwrap(), text).unwrap();
    let spec = json!({"spec": {"localASN": 64_512, "peerASN": 64_777}});
    site.patch(target, &spec).unwrap();
    until_told(
        &site,
        "WrongASN",
        "192.0.2.4:179 is AS 64513, and peerASN says 64777",
    );
    site.patch(target, &json!({"spec": {"peerASN": 64_513}}))
        .unwrap();
    site.until("a session", || is_up(&site));
    site.until("a condition", || {
        (ready(&site)["status"] == "True").then_some(())
    });
    // The same fault again and again is one event.
    let events = site.events("WrongASN");
    assert!(events.len() <= 2, "{events:?}");
}

#[test]
fn l10_a_wrong_password_is_told() {
    if !inside("faults::l10_a_wrong_password_is_told") {
        return;
    }
    let secret = |text: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bgp"},
            "stringData": {"password": text},
        })
    };
    let named = json!({"name": "bgp", "namespace": "default"});
    let site = one(&json!({"passwordSecret": named}));
    let _bird = bird(&site, &format!("password \"right\"; {IMPORT}"), "");
    until_told(&site, "PasswordUnknown", "secret default/bgp");
    site.create(&SECRETS, Some("default"), &secret("wrong"))
        .unwrap();
    until_told(
        &site,
        "PeerUnreachable",
        "is its password for this node the same?",
    );
    let target = Target::one(&SECRETS, Some("default"), "bgp");
    site.patch(target, &secret("right")).unwrap();
    site.until("a session", || is_up(&site));
}

#[test]
fn l10_a_peer_that_is_not_there_is_told() {
    if !inside("faults::l10_a_peer_that_is_not_there_is_told") {
        return;
    }
    let site = one(&json!({}));
    until_told(
        &site,
        "PeerUnreachable",
        "no connection to 192.0.2.4:179: connection refused",
    );
    let bird = bird(&site, IMPORT, "");
    site.until("a session", || is_up(&site));
    // It is frozen: the hold time runs out.
    bird.signal(nix::sys::signal::Signal::SIGSTOP).unwrap();
    until_told(
        &site,
        "HoldTimerExpired",
        "nothing was heard from 192.0.2.4:179",
    );
    bird.signal(nix::sys::signal::Signal::SIGCONT).unwrap();
    site.until("a session", || is_up(&site));
    site.until("good news", || {
        (!site.events("SessionUp").is_empty()).then_some(())
    });
    // The router's operator resets it, and shuts it down.
    bird.ask("restart n1").unwrap();
    site.until("a session that is over", || {
        let known = ["SessionReset", "SessionClosed"];
        known
            .iter()
            .any(|one| !site.events(one).is_empty())
            .then_some(())
    });
    site.until("a session", || is_up(&site));
}

#[test]
fn l10_limits_of_prefixes_protect_both_ends() {
    if !inside("faults::l10_limits_of_prefixes_protect_both_ends") {
        return;
    }
    let site = one(&json!({"maxPrefixes": 3}));
    let routes: String = (0..4)
        .map(|n| format!("route 203.0.113.{n}/32 blackhole;"))
        .collect();
    let more = format!("protocol static {{ ipv4; {routes} }}");
    let first = bird(&site, "ipv4 { import all; export all; };", &more);
    until_told(
        &site,
        "PrefixLimit",
        "announces more than 3 prefixes (maxPrefixes)",
    );
    drop(first);
    // Its own limit: it takes none of ours.
    let words = "ipv4 { import all; import limit 0 action disable; export none; };";
    let _second = bird(&site, words, "");
    until_told(&site, "PrefixLimit", "it takes no more prefixes");
}

/// No route that a peer tells reaches the node's kernel.
#[test]
fn l10_no_route_is_accepted() {
    if !inside("faults::l10_no_route_is_accepted") {
        return;
    }
    let site = one(&json!({}));
    let more = "protocol static { ipv4; route 203.0.113.0/24 blackhole; }";
    let bird = bird(&site, "ipv4 { import all; export all; };", more);
    site.until("a path", || (paths(&bird, FOUR) == 1).then_some(()));
    site.until("a session", || is_up(&site));
    let show = |table: &[&str]| {
        let mut command = std::process::Command::new("ip");
        command.args(table);
        let output = site.place(1).unwrap().run(|| command.output());
        String::from_utf8_lossy(&output.unwrap().unwrap().stdout).into_owned()
    };
    let routes = show(&["route", "show", "table", "all"]);
    assert!(routes.contains("192.0.2.0/24"), "{routes}");
    assert!(!routes.contains("203.0.113."), "{routes}");
    assert!(
        bird.ask("show route export n1")
            .unwrap()
            .contains("203.0.113.0/24")
    );
}

/// An UPDATE whose attributes make no sense costs its routes, not the session (RFC 7606).
#[test]
fn l10_a_malformed_update_does_not_end_the_session() {
    if !inside("faults::l10_a_malformed_update_does_not_end_the_session") {
        return;
    }
    let site = one(&json!({}));
    let fake = Fake::listen(site.place(NODES_COUNT + 1).unwrap()).unwrap();
    let mut session = fake.accept().unwrap();
    session.open(64_513, 9).unwrap();
    site.until("a session", || is_up(&site));
    session.send_malformed().unwrap();
    // It goes on for longer than the hold time, and hears keepalives.
    let heard = session.keepalives(Duration::from_secs(12)).unwrap();
    assert!(heard >= 3, "{heard}");
    assert!(is_up(&site).is_some());
    assert!(site.log(1).contains("malformed UPDATE"), "{}", site.log(1));
}

/// An agent that died says nothing any more; what it wrote last does not stay.
#[test]
fn l10_a_dead_agents_session_is_not_shown_as_up() {
    if !inside("faults::l10_a_dead_agents_session_is_not_shown_as_up") {
        return;
    }
    let mut site = one(&json!({"gracefulRestart": {"enabled": false}}));
    let bird = bird(&site, IMPORT, "");
    site.until("a session", || is_up(&site));
    site.start(2).unwrap();
    site.until("the other agent", || {
        site.log(2).contains("agents that announce").then_some(())
    });
    site.kill(1).unwrap();
    site.until("a status that says so", || {
        let entry = site.session("tor", 1)?;
        (entry["state"] == "Unknown" && entry["prefixes"] == 0).then_some(())
    });
    assert!(!route(&bird, FOUR).contains("BGP.next_hop"));
    let said = site.command(2, &["lb", "bgp"]).unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    println!("{said}");
    assert!(!said.contains("Established"), "{said}");
    // It is back, and so is what it says.
    site.start(1).unwrap();
    site.until("a session", || is_up(&site));
}
