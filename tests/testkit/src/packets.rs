//! Rules do to a packet what the trace says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail, ensure};
use portolan_nft::interp::{self, Env, Learned, Outcome as Ran};
use portolan_nft::{CtState, CtStatus, Data, FibType, Hook, Key, Name, Ruleset, Tuple, Value};
use portolan_plan::{NodeView, Target};
use portolan_render::nft;
use portolan_why::{Candidate, Outcome, Packet, Trace};

/// The source port of every packet: no Service is likely to have it.
const EPHEMERAL: u16 = 51_234;

/// The world around the rules: one slot, and the node's addresses.
struct World<'v> {
    view: &'v NodeView,
    slot: u32,
}

impl Env for World<'_> {
    fn numgen(&mut self, _chain: &Name, modulus: u32) -> u32 {
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
/// can give, and compares.
pub fn check(ruleset: &Ruleset, view: &NodeView, trace: &Trace) -> Result<()> {
    let usable: Vec<_> = trace
        .endpoints
        .iter()
        .filter(|candidate| candidate.source.is_ok())
        .collect();
    for slot in 0..usable.len().max(1) {
        let target = usable.get(slot).copied();
        let ran = run(ruleset, view, &trace.packet, (slot, target));
        let compared = compare(view, trace, target, &ran).and_then(|()| {
            let other = (slot + 1) % usable.len().max(1);
            stays(ruleset, view, trace, (target, &ran, other))
        });
        let Err(difference) = compared else {
            continue;
        };
        bail!("{difference}\nslot {slot}\n{trace}\nbut the rules say {ran:?}");
    }
    Ok(())
}

/// What the rules learn of a packet is right, and leads the client's next one to
/// the same endpoint, whatever number the generator gives then (P13).
fn stays(
    ruleset: &Ruleset,
    view: &NodeView,
    trace: &Trace,
    (target, ran, other): (Option<&Candidate>, &Ran, usize),
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
    let again = run(&later, view, packet, (other, target));
    compare(view, trace, target, &again).context("the client's next connection")
}

fn run(
    ruleset: &Ruleset,
    view: &NodeView,
    packet: &Packet,
    (slot, target): (usize, Option<&Candidate>),
) -> Ran {
    let first = interp::Packet {
        saddr: packet.source,
        daddr: packet.destination,
        proto: packet.protocol.number(),
        sport: EPHEMERAL,
        dport: packet.port,
        iif: if packet.from_node {
            String::new()
        } else {
            "eth0".into()
        },
        oif: String::new(),
        mark: 0,
        ct_state: CtState::NEW,
        ct_status: CtStatus::default(),
    };
    let destination = target.map_or(packet.destination, |candidate| candidate.target.address);
    let hooks: &[Hook] = match (packet.from_node, is_local(view, destination)) {
        (true, _) => &[Hook::Output, Hook::Postrouting],
        (false, true) => &[Hook::Prerouting, Hook::Input],
        (false, false) => &[Hook::Prerouting, Hook::Forward, Hook::Postrouting],
    };
    let mut world = World {
        view,
        slot: u32::try_from(slot).unwrap_or(u32::MAX),
    };
    interp::run(ruleset, &first, hooks, &mut world)
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
                bail!("no target")
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
