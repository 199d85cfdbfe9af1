//! The nftables image: one table per family, `portolan`.
//!
//! The number of rules depends on how many different *shapes* of forwards are
//! in use (see [`portolan_plan::Shape`]) and not on how many Services there
//! are: a verdict map leads from a frontend to the chain of its shape, which
//! looks the frontend and a random slot up in one endpoint map. So an endpoint
//! that comes or goes is a handful of elements.
//!
//! A packet's way through the table (`-300` and so on are hook priorities):
//!
//! ```text
//!  prerouting, output
//!   -300 raw       to or from a DNS address: notrack, and nothing below sees it
//!   -120 refuse    new, to a frontend without endpoints: reject or drop
//!   -110 nat       @services, @nodeports ──goto──► n5-unless-pod: mark, dnat
//!    -90 leftover  new, still to a cluster address: reject; to a free one: drop
//!  input, forward, output
//!      0 filter    invalid, from an endpoint or to a Service: drop
//!  postrouting
//!    100 nat       our mark: clear it, masquerade; an endpoint to itself: masquerade
//! ```
//!
//! The translation comes before the usual -100, so that we decide before
//! others; refusals are in filter hooks, because nat chains are entered only
//! once something needs connection tracking.

mod affinity;
mod delta;
mod elements;
mod shapes;
mod strays;
mod table;

use std::net::IpAddr;

use portolan_model::Family;
use portolan_nft::{Field, Key, Ruleset, TableId};
use portolan_plan::{NodePlan, NodeView};

pub use affinity::{AFFINITY, memories, remembered};
pub use delta::delta;

/// The name of our table in each family; no other table is ever touched.
pub const TABLE: &str = "portolan";

/// The tables of both families, whether they are there or not.
pub fn tables() -> [TableId; 2] {
    Family::BOTH.map(table_id)
}

/// The set of the places where names are answered.
pub const ANSWERED: &str = table::DNS;

/// The address that an element of [`ANSWERED`] says.
pub fn answered(table: &TableId, key: &Key) -> Option<IpAddr> {
    let fields = [Field::Daddr, Field::L4Proto, Field::Dport];
    let values = key.first().values(table.family, &fields)?;
    values.first()?.addr()
}

/// The whole image of a plan.
pub fn image(plan: &NodePlan) -> Ruleset {
    let mut ruleset = base(
        &plan.view,
        plan.shapes.keys().copied(),
        plan.timeouts.keys().copied(),
    );
    let mut put = |element: elements::Element| {
        let table = ruleset.tables.get_mut(&table_id(element.family));
        if let Some(set) = table.and_then(|table| table.sets.get_mut(element.set)) {
            set.elements.insert(element.key, element.data);
        }
    };
    for (frontend, decision) in &plan.frontends {
        elements::of_decision(*frontend, decision)
            .into_iter()
            .for_each(&mut put);
    }
    for (address, owner) in &plan.owners {
        put(elements::of_owner(*address, owner));
    }
    for address in plan.hairpins.keys() {
        put(elements::of_hairpin(*address));
    }
    for address in plan.externals.keys() {
        put(elements::of_external(*address));
    }
    for endpoint in plan.outlying.keys() {
        put(elements::of_outlying(*endpoint));
    }
    ruleset
}

/// What does not depend on any Service, and the chains of these shapes and
/// timeouts.
fn base(
    view: &NodeView,
    shapes: impl Iterator<Item = portolan_plan::Shape>,
    timeouts: impl Iterator<Item = (Family, u32)>,
) -> Ruleset {
    let mut ruleset = Ruleset::new();
    for family in Family::BOTH {
        ruleset
            .tables
            .insert(table_id(family), table::table(view, family));
    }
    for shape in shapes {
        if let Some(table) = ruleset.tables.get_mut(&table_id(shape.family)) {
            table
                .chains
                .insert(shapes::name(shape), shapes::chain(view, shape));
        }
    }
    for timeout in timeouts {
        if let Some(table) = ruleset.tables.get_mut(&table_id(timeout.0)) {
            table.chains.extend(affinity::of_timeout(timeout));
        }
    }
    ruleset
}

fn table_id(family: Family) -> TableId {
    TableId::new(nft_family(family), TABLE)
}

fn nft_family(family: Family) -> portolan_nft::Family {
    match family {
        Family::V4 => portolan_nft::Family::Ip,
        Family::V6 => portolan_nft::Family::Ip6,
    }
}

fn family_of(address: IpAddr) -> Family {
    Family::of(address)
}
