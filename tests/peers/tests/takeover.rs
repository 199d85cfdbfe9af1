//! Three nodes on one bridge, and a client whose kernel looks for an address.

use std::net::IpAddr;

use portolan_announce::l2::Mac;
use portolan_peers::segment::{Agent, Segment, mac};
use portolan_peers::{inside, until};

/// Lets all agents look at everything.
fn step(agents: &mut [Agent]) {
    for agent in agents {
        agent.step().expect("its sockets");
    }
}

/// The one that answers for an address, if it is one.
fn owner(agents: &[Agent], address: IpAddr) -> Option<u8> {
    let mut owners = agents.iter().filter(|agent| agent.owns(address));
    let first = owners.next()?.number;
    owners.next().is_none().then_some(first)
}

#[test]
fn l8_a_dead_leader_is_replaced_and_one_answers() {
    if !inside("l8_a_dead_leader_is_replaced_and_one_answers") {
        return;
    }
    let segment = Segment::new(3).unwrap();
    let addresses: [IpAddr; 2] =
        ["192.0.2.100", "2001:db8::100"].map(|address| address.parse().unwrap());
    let mut agents: Vec<Agent> = (1..=3)
        .map(|n| Agent::start(&segment, n, 3, &addresses).unwrap())
        .collect();
    for address in addresses {
        // Whoever leads is found by the client.
        let first = until("a leader that the client knows", || {
            step(&mut agents);
            segment.look_for(address).unwrap();
            let owner = owner(&agents, address)?;
            let known = segment.known(address).unwrap()?;
            (known == Mac(mac(owner)).to_string()).then_some(owner)
        });
        // It dies: nothing is said any more.
        agents.retain(|agent| agent.number != first);
        let next = until("another leader that the client knows", || {
            step(&mut agents);
            let owner = owner(&agents, address)?;
            let known = segment.known(address).unwrap()?;
            (known == Mac(mac(owner)).to_string()).then_some(owner)
        });
        assert_ne!(next, first);
        // Asked anew, the client hears the same one: nobody else answers.
        for _ in 0..3 {
            segment.ip(&["neigh", "flush", "all"]).unwrap();
            until("an answer of the owner", || {
                step(&mut agents);
                segment.look_for(address).unwrap();
                let known = segment.known(address).unwrap()?;
                let owner = owner(&agents, address)?;
                (known == Mac(mac(owner)).to_string()).then_some(())
            });
        }
        // It returns, and leads again what it led before.
        agents.push(Agent::start(&segment, first, 3, &addresses).unwrap());
        until("the first leader again", || {
            step(&mut agents);
            segment.look_for(address).unwrap();
            let known = segment.known(address).unwrap()?;
            let back = owner(&agents, address) == Some(first);
            (back && known == Mac(mac(first)).to_string()).then_some(())
        });
    }
}
