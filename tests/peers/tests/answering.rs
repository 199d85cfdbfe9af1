//! Whole agents on one bridge: who answers for an address, whatever befalls them.
//!
//! What was measured is said, and nothing here depends on how fast it was.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use portolan_announce::l2::Mac;
use portolan_client::{EVENTS, LEASES, Target};
use portolan_peers::asker::Asker;
use portolan_peers::bed::{Agent, Bed, NS, inside, say};
use portolan_peers::dump::Dump;
use portolan_peers::flow::{Flow, Web};
use portolan_peers::segment::mac;
use portolan_peers::until;

const ADDRESSES: [&str; 2] = ["192.0.2.130", "2001:db8::1:130"];

fn addresses() -> [IpAddr; 2] {
    ADDRESSES.map(|address| address.parse().expect("an address"))
}

/// Takes the agent of a node out.
fn take(agents: &mut Vec<Agent>, node: u8) -> Agent {
    let at = agents.iter().position(|agent| agent.node == node);
    agents.swap_remove(at.expect("an agent of the node"))
}

/// Waits until this node alone answers.
fn alone(asker: &Asker, since: Duration, node: u8) {
    until(&format!("answers of n{node} alone"), || {
        (asker.alone(since) == Some(node)).then_some(())
    });
}

/// Waits until nobody answers.
fn nobody(asker: &Asker) {
    let since = asker.now();
    until("nobody's answer", || asker.nobody(since).then_some(()));
}

#[test]
fn l8_agents_that_start_together_agree_on_one() {
    if !inside("l8_agents_that_start_together_agree_on_one") {
        return;
    }
    let bed = Bed::new("l8_agents_that_start_together_agree_on_one", 3).unwrap();
    bed.service("web", &addresses()).unwrap();
    let [four, six] = addresses();
    let askers = [four, six].map(|address| (address, Asker::start(&bed.segment, address).unwrap()));
    // None of them has ever been there.
    let mut agents = bed.agents().unwrap();
    for (address, asker) in &askers {
        alone(asker, Duration::ZERO, bed.leader(*address, &[]));
        let together = asker.together(Duration::ZERO);
        say(&format!(
            "{address}: started together, two answered for {together:?}"
        ));
    }
    // One that is asked to end leaves nothing, and the next takes over.
    for (address, asker) in &askers {
        let first = bed.leader(*address, &[]);
        let since = asker.now();
        take(&mut agents, first).end().unwrap();
        bed.nothing_stays(first, *address);
        given_back(&bed, first);
        alone(asker, asker.now(), bed.leader(*address, &[first]));
        let (gap, together) = (asker.gap(since), asker.together(since));
        say(&format!(
            "{address}: asked to end, nobody answered for {gap:?}, two for {together:?}"
        ));
        let since = asker.now();
        agents.push(bed.agent(first).unwrap());
        alone(asker, since, first);
        let (gap, together) = (asker.gap(since), asker.together(since));
        say(&format!(
            "{address}: back, nobody answered for {gap:?}, two for {together:?}"
        ));
    }
    // When all are dead, nobody is left who answers, and nothing else is.
    agents.clear();
    for (address, asker) in &askers {
        nobody(asker);
        (1..=3).for_each(|node| bed.nothing_stays(node, *address));
    }
}

/// Waits until the Lease of a node says that nobody has it.
fn given_back(bed: &Bed, node: u8) {
    let name = format!("portolan-announcer-n{node}");
    until("a lease that is given back", || {
        let target = Target::one(&LEASES, Some("kube-system"), &name);
        let lease = bed.get(target).ok()?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        holder.is_empty().then_some(())
    });
}

/// A node that nobody has heard of takes what it leads, and nobody notices.
#[test]
fn l8_agents_that_join_later_take_over_in_their_turn() {
    if !inside("l8_agents_that_join_later_take_over_in_their_turn") {
        return;
    }
    let bed = Bed::new("l8_agents_that_join_later_take_over_in_their_turn", 3).unwrap();
    bed.service("web", &addresses()).unwrap();
    let [address, _] = addresses();
    let first = bed.leader(address, &[]);
    let next = bed.leader(address, &[first]);
    let last = bed.leader(address, &[first, next]);
    let asker = Asker::start(&bed.segment, address).unwrap();
    let mut agents = Vec::new();
    // In the order in which each takes it from the one before.
    for node in [last, next, first] {
        let since = asker.now();
        agents.push(bed.agent(node).unwrap());
        alone(&asker, since, node);
        let (gap, together) = (asker.gap(since), asker.together(since));
        say(&format!(
            "n{node} joins: nobody for {gap:?}, two for {together:?}"
        ));
    }
    for agent in agents {
        agent.end().unwrap();
    }
    nobody(&asker);
    // One is there already when two more come at once.
    let mut agents = vec![bed.agent(last).unwrap()];
    alone(&asker, asker.now(), last);
    let since = asker.now();
    agents.extend([first, next].map(|node| bed.agent(node).unwrap()));
    alone(&asker, since, first);
    let (gap, together) = (asker.gap(since), asker.together(since));
    say(&format!(
        "two join: nobody for {gap:?}, two for {together:?}"
    ));
}

#[test]
fn l8_new_connections_go_on_after_a_leaders_death() {
    if !inside("l8_new_connections_go_on_after_a_leaders_death") {
        return;
    }
    let bed = Bed::new("l8_new_connections_go_on_after_a_leaders_death", 3).unwrap();
    bed.service("web", &addresses()).unwrap();
    let mut agents = bed.agents().unwrap();
    for address in addresses() {
        let first = bed.leader(address, &[]);
        let next = bed.leader(address, &[first]);
        let _servers = (1..=3).map(|node| Web::start(&bed.segment, node, address).unwrap());
        let _servers: Vec<Web> = _servers.collect();
        // Its leader does not die, so it stays where it is.
        let other = (131..=u8::MAX).map(|host| IpAddr::from([192, 0, 2, host]));
        let mut other = other.filter(|other| bed.leader(*other, &[]) != first);
        let other = other.next().unwrap();
        let name = format!("beside-{first}-{}", address.is_ipv4());
        bed.service(&name, &[other]).unwrap();
        let asker = Asker::start(&bed.segment, other).unwrap();
        let stays = bed.leader(other, &[]);
        alone(&asker, Duration::ZERO, stays);
        let unmoved = asker.now();

        let patience = Duration::from_millis(40);
        let flow = Flow::start(&bed.segment, address, patience).unwrap();
        until("connections to the leader", || {
            (flow.served(Duration::ZERO, 50) == Some(first)).then_some(())
        });
        let dump = Dump::start(&bed.segment, "arp or icmp6").unwrap();
        let since = flow.now();
        // The node dies: its cable, and its agent.
        bed.segment.plug(first, false).unwrap();
        take(&mut agents, first).die();
        until("connections to the next node", || {
            (flow.served(since, 50) == Some(next)).then_some(())
        });
        say(&format!(
            "{address}: n{first} died, no new connection for {:?}",
            flow.gap(since)
        ));
        announced(&dump, address, next);
        one_answers(&bed, address, next);

        // The old leader is back, and only what it had moves.
        bed.segment.plug(first, true).unwrap();
        let since = flow.now();
        agents.push(bed.agent(first).unwrap());
        until("connections to the node that is back", || {
            (flow.served(since, 50) == Some(first)).then_some(())
        });
        say(&format!(
            "{address}: n{first} is back, no new connection for {:?}",
            flow.gap(since)
        ));
        one_answers(&bed, address, first);
        // A node that is busy for long may be given up for a moment.
        alone(&asker, asker.now(), stays);
        let moved = asker.heard(unmoved);
        let moved = moved.iter().filter(|one| one.node != stays).count();
        say(&format!(
            "{other}: {moved} answers of another node than n{stays}"
        ));
    }
    let events = bed.get(Target::all(&EVENTS, NS)).unwrap();
    let events = events["items"].as_array().unwrap();
    let assigned = events.iter().filter(|one| one["reason"] == "nodeAssigned");
    let said = assigned.filter_map(|one| one["message"].as_str());
    let said: Vec<&str> = said.collect();
    assert!(!said.is_empty());
    assert!(
        said.iter()
            .all(|one| one.ends_with("with protocol \"layer2\"")),
        "{said:?}"
    );
}

/// The node has said to all, again and again, that the address is its own.
fn announced(dump: &Dump, address: IpAddr, node: u8) {
    let own = Mac(mac(node)).to_string();
    // A gratuitous ARP is a question or an answer of its own, to everybody; an
    // advertisement that nobody asked for goes to all nodes.
    let news: Vec<String> = match address {
        IpAddr::V4(_) => vec![
            format!("Request who-has {address} (Broadcast) tell {address}"),
            format!("Request who-has {address} tell {address}"),
            format!("Reply {address} is-at {own}"),
        ],
        IpAddr::V6(_) => vec![format!(
            "> ff02::1: ICMP6, neighbor advertisement, tgt is {address}"
        )],
    };
    until("announcements that are repeated", || {
        let lines = dump.lines();
        let of = lines.iter().filter(|line| {
            let source = line.split(" > ").next().unwrap_or_default();
            source.ends_with(&own) && news.iter().any(|one| line.contains(one))
        });
        // IPv4 is announced in two forms each time, IPv6 in one.
        let wanted = if address.is_ipv4() { 6 } else { 3 };
        (of.count() >= wanted).then_some(())
    });
}

/// Waits until one node answers, as other people's programs and a look at the link say.
fn one_answers(bed: &Bed, address: IpAddr, node: u8) {
    until(&format!("n{node} as the only one that answers"), || {
        let answered = answered(bed, address);
        (answered == BTreeSet::from([Mac(mac(node)).to_string()])).then_some(())
    });
    let url = match address {
        IpAddr::V4(_) => format!("http://{address}/"),
        IpAddr::V6(_) => format!("http://[{address}]/"),
    };
    until("curl's answer of the same node", || {
        let words = ["curl", "-sS", "--max-time", "30", &url];
        let said = bed.segment.at_client(&words).expect("curl");
        (said == format!("n{node}")).then_some(())
    });
}

/// Asks several times, and says from which link-layer addresses answers came.
fn answered(bed: &Bed, address: IpAddr) -> BTreeSet<String> {
    let text = address.to_string();
    let (filter, words) = match address {
        IpAddr::V4(_) => (
            format!("arp[6:2] = 2 and src host {text}"),
            vec!["arping", "-b", "-c", "5", "-w", "30", "-I", "link", &text],
        ),
        IpAddr::V6(_) => (
            "icmp6 and ip6[40] = 136".to_owned(),
            vec!["ndisc6", "-m", "-r", "3", "-w", "1000", &text, "link"],
        ),
    };
    let dump = Dump::start(&bed.segment, &filter).expect("tcpdump");
    let said = bed.segment.at_client(&words).expect("an asker");
    let said = said.to_lowercase();
    // What the asker took for the answer, and what came to this client on the link.
    let macs = (1..=bed.nodes).map(|node| Mac(mac(node)).to_string());
    let mut answered: BTreeSet<String> = macs.filter(|mac| said.contains(mac)).collect();
    if answered.is_empty() {
        return answered;
    }
    let to_us = Mac(mac(bed.segment.client_number().expect("a client"))).to_string();
    let sources = until("an answer on the link", || {
        let lines = dump.lines();
        let of = lines.iter().filter(|line| line.contains(&text));
        let frames = of.filter_map(|line| {
            let (source, rest) = line.split_once(" > ")?;
            let source = source.split_whitespace().last()?;
            rest.starts_with(&to_us).then(|| source.to_owned())
        });
        let frames: BTreeSet<String> = frames.collect();
        (!frames.is_empty()).then_some(frames)
    });
    answered.extend(sources);
    answered
}

/// A node that is cut off, one that stood still, and agents that are killed: when all is
/// well again, one answers.
#[test]
fn l8_a_segment_that_parted_has_one_answer_again() {
    if !inside("l8_a_segment_that_parted_has_one_answer_again") {
        return;
    }
    for nodes in [2, 3] {
        let bed = Bed::new("l8_a_segment_that_parted_has_one_answer_again", nodes).unwrap();
        bed.service("web", &addresses()).unwrap();
        let mut agents = bed.agents().unwrap();
        let [address, _] = addresses();
        let asker = Asker::start(&bed.segment, address).unwrap();
        let first = bed.leader(address, &[]);
        let next = bed.leader(address, &[first]);
        alone(&asker, Duration::ZERO, first);
        let told = |what: &str, since: Duration| {
            let (gap, together) = (asker.gap(since), asker.together(since));
            say(&format!(
                "{nodes} nodes, {what}: nobody for {gap:?}, two for {together:?}"
            ));
        };

        let since = asker.now();
        bed.segment.plug(first, false).unwrap();
        alone(&asker, since, next);
        told("cut off", since);
        // Of two, both go on; the one that answered alone hears the other again.
        let since = asker.now();
        bed.segment.plug(first, true).unwrap();
        until("answers of the first", || {
            asker
                .heard(since)
                .iter()
                .any(|one| one.node == first)
                .then_some(())
        });
        alone(&asker, asker.now(), first);
        told("plugged in", since);

        let since = asker.now();
        let frozen = agents.iter().position(|agent| agent.node == first).unwrap();
        agents[frozen].freeze(true).unwrap();
        alone(&asker, since, next);
        told("stopped", since);
        let since = asker.now();
        agents[frozen].freeze(false).unwrap();
        until("answers of the first", || {
            asker
                .heard(since)
                .iter()
                .any(|one| one.node == first)
                .then_some(())
        });
        alone(&asker, asker.now(), first);
        told("goes on", since);

        let since = asker.now();
        take(&mut agents, first).die();
        agents.push(bed.agent(first).unwrap());
        until("answers of the next", || {
            let heard = asker.heard(since);
            heard.iter().any(|one| one.node == next).then_some(())
        });
        alone(&asker, asker.now(), first);
        told("killed and started", since);
        // All at once, with the Leases of the last time.
        agents.clear();
        nobody(&asker);
        let since = asker.now();
        agents = bed.agents().unwrap();
        alone(&asker, since, first);
        told("all killed and started", since);
        drop(agents);
    }
}
