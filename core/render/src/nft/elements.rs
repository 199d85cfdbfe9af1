//! What each decision contributes to the sets and maps.

use std::net::IpAddr;

use portolan_model::Family;
use portolan_nft::{Data, Key, Name, Tuple, Value, Verdict};
use portolan_plan::{Decision, Frontend, Lane, Owner, Place, Shape, Verdict as Decided};

use super::{family_of, shapes, table};

/// One element of one of our sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) family: Family,
    pub(super) set: &'static str,
    pub(super) key: Key,
    pub(super) data: Data,
}

/// The elements of a frontend's decision.
pub(super) fn of_decision(frontend: Frontend, decision: &Decision) -> Vec<Element> {
    let mut elements = Vec::new();
    for (lane, verdict) in frontend.lanes(decision) {
        of_verdict(frontend, lane, verdict, &mut elements);
    }
    elements
}

fn of_verdict(frontend: Frontend, lane: Lane, verdict: &Decided, elements: &mut Vec<Element>) {
    let family = frontend.family();
    let maps = shapes::maps(lane);
    let whole = key(frontend);
    let mut put = |set, key: &[Value], data| {
        elements.push(Element {
            family,
            set,
            key: Key::Exact(Tuple::new(key)),
            data,
        });
    };
    match verdict {
        Decided::Forward(forward) => {
            let width = forward.targets.len();
            let shape = Shape {
                family,
                lane,
                masquerade: forward.masquerade,
                width,
            };
            put(
                maps.chains,
                &whole,
                Data::Verdict(Verdict::Goto(shapes::name(shape))),
            );
            for (slot, target) in (0..).zip(&forward.targets) {
                let mut key = whole.clone();
                key.push(Value::Number(slot));
                let to = Tuple::new(&[target.address.into(), Value::Port(target.port)]);
                put(maps.endpoints, &key, Data::Tuple(to));
            }
        }
        Decided::Reject(_) => {
            put(
                maps.refusals,
                &whole,
                Data::Verdict(Verdict::Goto(Name::from(table::REFUSE))),
            );
        }
        Decided::Drop(_) => put(maps.refusals, &whole, Data::Verdict(Verdict::Drop)),
        Decided::Here(_) => {} // the DNS addresses are the table's own
    }
}

fn key(frontend: Frontend) -> Vec<Value> {
    let port = [
        Value::Proto(frontend.protocol.number()),
        Value::Port(frontend.port),
    ];
    match frontend.place {
        Place::ClusterIp(address) => [Value::from(address)].into_iter().chain(port).collect(),
        Place::NodePort(_) => port.into(),
    }
}

/// The element of an allocated cluster address: what is not translated on its
/// way to it is refused (P6), unless another proxy may still want it (P16).
pub(super) fn of_owner(address: IpAddr, owner: &Owner) -> Element {
    let verdict = match owner {
        Owner::Ours(_) => Verdict::Goto(Name::from(table::REFUSE)),
        Owner::OtherProxy(..) => Verdict::Accept,
    };
    Element {
        family: family_of(address),
        set: table::CLUSTER_IPS,
        key: Key::Exact(Tuple::new(&[address.into()])),
        data: Data::Verdict(verdict),
    }
}

/// The element of a local endpoint that may meet itself (P8).
pub(super) fn of_hairpin(address: IpAddr) -> Element {
    Element {
        family: family_of(address),
        set: table::HAIRPIN,
        key: Key::Exact(Tuple::new(&[address.into(), address.into()])),
        data: Data::None,
    }
}
