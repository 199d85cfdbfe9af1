//! What each decision contributes to the sets and maps.

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_model::Family;
use portolan_nft::{Data, Key, Name, Tuple, Value, Verdict};
use portolan_plan::{Decision, Frontend, Lane, Outlying, Owner, Place, Verdict as Decided};

use super::{affinity, family_of, shapes, table};

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
    unlike(frontend, decision, None)
}

/// The same, but not the slots that another decision has as well: a table of slots
/// by client is large, and a change of an endpoint is few of them.
pub(super) fn unlike(
    frontend: Frontend,
    decision: &Decision,
    other: Option<&Decision>,
) -> Vec<Element> {
    let mut elements = Vec::new();
    for (lane, verdict) in frontend.lanes(decision) {
        let mut others = other.into_iter().flat_map(|other| frontend.lanes(other));
        let same_lane = others.find(|(found, _)| *found == lane);
        let verdicts = (verdict, same_lane.map(|(_, verdict)| verdict));
        of_verdict(frontend, lane, verdicts, &mut elements);
    }
    if let Some(seconds) = decision.affinity() {
        let chain = affinity::learner(frontend.protocol, seconds);
        elements.push(Element {
            family: frontend.family(),
            set: affinity::learners(frontend.place),
            key: Key::Exact(Tuple::new(&key(frontend))),
            data: Data::Verdict(Verdict::Goto(chain)),
        });
    }
    if let Some(sources) = &decision.sources {
        of_sources(frontend, sources, &mut elements);
    }
    elements
}

/// Who may come to a frontend (P9).
fn of_sources(frontend: Frontend, sources: &[IpNet], elements: &mut Vec<Element>) {
    let family = frontend.family();
    let whole = key(frontend);
    let mut put = |set, key| {
        elements.push(Element {
            family,
            set,
            key,
            data: Data::None,
        });
    };
    put(table::LIMITED, Key::Exact(Tuple::new(&whole)));
    for range in sources {
        let [first, last] = [range.network(), range.broadcast()].map(|end| {
            let mut key = whole.clone();
            key.push(end.into());
            Tuple::new(&key)
        });
        put(table::ALLOWED, Key::range(first, last));
    }
}

/// The element of an outer address in use.
pub(super) fn of_external(address: IpAddr) -> Element {
    Element {
        family: family_of(address),
        set: table::EXTERNAL_IPS,
        key: Key::Exact(Tuple::new(&[address.into()])),
        data: Data::None,
    }
}

fn of_verdict(
    frontend: Frontend,
    lane: Lane,
    (verdict, other): (&Decided, Option<&Decided>),
    elements: &mut Vec<Element>,
) {
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
            let shape = forward.shape(frontend, lane);
            put(
                maps.chains,
                &whole,
                Data::Verdict(Verdict::Goto(shapes::name(shape))),
            );
            if lane == Lane::NodePort {
                put(table::OPEN_NODE_PORTS, &whole, Data::None);
            }
            let other = other.and_then(|other| match other {
                Decided::Forward(forward) => Some(forward),
                Decided::Reject(_) | Decided::Drop(_) | Decided::Here(_) => None,
            });
            for (slot, target) in (0..).zip(forward.slots()) {
                if other.is_some_and(|other| other.at(slot as usize) == Some(target)) {
                    continue;
                }
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
        Place::ClusterIp(address) | Place::External(address) => {
            [Value::from(address)].into_iter().chain(port).collect()
        }
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

/// The element of an endpoint that is no pod, by which its stray answers are known.
pub(super) fn of_outlying(endpoint: Outlying) -> Element {
    let Outlying {
        address,
        protocol,
        port,
    } = endpoint;
    let key = [
        address.into(),
        Value::Proto(protocol.number()),
        Value::Port(port),
    ];
    Element {
        family: family_of(address),
        set: table::OUTLYING,
        key: Key::Exact(Tuple::new(&key)),
        data: Data::None,
    }
}
