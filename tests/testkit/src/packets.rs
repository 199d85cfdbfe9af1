//! Rules do to a packet what the trace says.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail, ensure};
use portolan_nft::interp::{self, Env, Learned, Outcome as Ran};
use portolan_nft::{CtState, CtStatus, Data, FibType, Key, Name, Ruleset, Tuple, Value};
use portolan_plan::{NodeView, Target};
use portolan_render::nft;
use portolan_why::{Candidate, Outcome, Packet, Trace};

/// The source port of every packet: no Service is likely to have it.
const EPHEMERAL: u16 = 51_234;

/// The world around the rules: one slot, and the node's addresses.
struct World<'v> {
    view: &'v NodeView,
    slot: u32,
    /// Among how many slots the rules drew.
    slots: Option<u32>,
}

impl Env for World<'_> {
    fn numgen(&mut self, _chain: &Name, modulus: u32) -> u32 {
        self.slots = Some(modulus);
        self.slot.checked_rem(modulus).unwrap_or_default()
    }

    fn fib(&self, address: IpAddr) -> FibType {
        if is_local(self.view, address) {
            FibType::Local
        } else {
            FibType::Unicast
        }
    }
}

fn is_local(view: &NodeView, address: IpAddr) -> bool {
    let loopback = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    view.is_node_address(address)
        || view.dns_addresses.contains(&address)
        || loopback.contains(&address)
}

/// Runs the traced packet through the rules, with every number the generator
/// can give, and compares. Each endpoint has as many numbers as its weight says.
pub fn check(ruleset: &Ruleset, view: &NodeView, trace: &Trace) -> Result<()> {
    let mut hits: BTreeMap<Target, u32> = BTreeMap::new();
    let (mut slot, mut slots) = (0, 1);
    while slot < slots {
        let (ran, drawn_of) = run(ruleset, view, &trace.packet, slot);
        slots = drawn_of.unwrap_or(1);
        let target = reached(trace, &ran);
        if let Some(candidate) = target {
            *hits.entry(candidate.target).or_default() += 1;
        }
        let compared = compare(view, trace, target, &ran).and_then(|()| {
            let other = (slot + 1) % slots;
            stays(ruleset, view, trace, (target, &ran, other))
        });
        if let Err(difference) = compared {
            bail!("{difference}\nslot {slot}\n{trace}\nbut the rules say {ran:?}");
        }
        slot += 1;
    }
    let total: u32 = trace.reachable().map(|one| u32::from(one.weight)).sum();
    for candidate in trace.reachable() {
        let hits = hits.get(&candidate.target).copied().unwrap_or(0);
        ensure!(
            hits * total == u32::from(candidate.weight) * slots,
            "{hits} of {slots} slots are of {candidate:?}\n{trace}"
        );
    }
    Ok(())
}

/// The endpoint that the rules led to, if it is one that they may lead to.
fn reached<'t>(trace: &'t Trace, ran: &Ran) -> Option<&'t Candidate> {
    let Ran::Accept(passed) = ran else {
        return None;
    };
    trace.reachable().find(|candidate| {
        let Target { address, port, .. } = candidate.target;
        (address, port) == (passed.packet.daddr, passed.packet.dport)
    })
}

/// What the rules learn of a packet is right, and leads the client's next one to
/// the same endpoint, whatever number the generator gives then (P13).
fn stays(
    ruleset: &Ruleset,
    view: &NodeView,
    trace: &Trace,
    (target, ran, other): (Option<&Candidate>, &Ran, u32),
) -> Result<()> {
    let Ran::Accept(passed) = ran else {
        return Ok(());
    };
    let (Some(seconds), Some(candidate)) = (trace.affinity, target) else {
        ensure!(passed.learned.is_empty(), "learnt for nothing");
        return Ok(());
    };
    let packet = &trace.packet;
    let key = Tuple::new(&[
        packet.source.into(),
        packet.destination.into(),
        Value::Proto(packet.protocol.number()),
        Value::Port(packet.port),
    ]);
    let Target { address, port, .. } = candidate.target;
    let data = Tuple::new(&[address.into(), Value::Port(port)]);
    let expected = Learned {
        set: nft::AFFINITY.into(),
        key: key.clone(),
        data: Data::Tuple(data.clone()),
        timeout_ms: Some(u64::from(seconds) * 1000),
    };
    ensure!(passed.learned == [expected], "learnt {:?}", passed.learned);
    let mut later = ruleset.clone();
    let family = passed.packet.family();
    let tables = later.tables.iter_mut();
    for (_, table) in tables.filter(|(id, _)| id.family == family) {
        if let Some(set) = table.sets.get_mut(nft::AFFINITY) {
            set.elements
                .insert(Key::Exact(key.clone()), Data::Tuple(data.clone()));
        }
    }
    let (again, _) = run(&later, view, packet, other);
    compare(view, trace, target, &again).context("the client's next connection")
}

/// What becomes of a packet, and among how many slots its was drawn.
fn run(ruleset: &Ruleset, view: &NodeView, packet: &Packet, slot: u32) -> (Ran, Option<u32>) {
    let first = interp::Packet {
        saddr: packet.source,
        daddr: packet.destination,
        proto: packet.protocol.number(),
        sport: EPHEMERAL,
        dport: packet.port,
        iif: packet.link.to_string(),
        oif: String::new(),
        mark: 0,
        ct_state: CtState::NEW,
        ct_mark: 0,
        ether: None,
        ct_status: CtStatus::default(),
    };
    let mut world = World {
        view,
        slot,
        slots: None,
    };
    let ran = if packet.from_node {
        interp::run_outgoing(ruleset, &first, &mut world)
    } else {
        interp::run_incoming(ruleset, &first, &mut world)
    };
    (ran, world.slots)
}

fn compare(view: &NodeView, trace: &Trace, target: Option<&Candidate>, ran: &Ran) -> Result<()> {
    match (&trace.outcome, ran) {
        (Outcome::Reject(_), Ran::Reject(..)) | (Outcome::Drop(_), Ran::Drop(_)) => Ok(()),
        (Outcome::Forward(_), Ran::Accept(passed)) => {
            let Some(Candidate {
                target,
                source: Ok(source),
                ..
            }) = target
            else {
                bail!("to none of its endpoints")
            };
            ensure!(passed.dnat, "not translated");
            ensure!(passed.packet.daddr == target.address, "to another address");
            ensure!(passed.packet.dport == target.port, "to another port");
            ensure!(!passed.notrack, "not tracked");
            ensure!(
                passed.masquerade.is_some() == source.is_masqueraded(),
                "masquerade: {source:?}"
            );
            let leaves = trace.packet.from_node || !is_local(view, target.address);
            ensure!(!leaves || passed.packet.mark == 0, "the mark stays");
            Ok(())
        }
        (Outcome::Here(_), Ran::Accept(passed)) => {
            ensure!(
                passed.notrack && !passed.dnat && passed.masquerade.is_none(),
                "not left alone"
            );
            Ok(())
        }
        (Outcome::Pass(_), Ran::Accept(passed)) => {
            ensure!(
                !passed.notrack && !passed.dnat && passed.masquerade.is_none(),
                "not left alone"
            );
            ensure!(passed.packet.mark == 0, "marked");
            Ok(())
        }
        (
            Outcome::Forward(_)
            | Outcome::Here(_)
            | Outcome::Pass(_)
            | Outcome::Reject(_)
            | Outcome::Drop(_),
            Ran::Accept(_) | Ran::Drop(_) | Ran::Reject(..),
        ) => bail!("another verdict"),
    }
}
