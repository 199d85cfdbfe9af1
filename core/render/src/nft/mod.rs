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
mod denied;
mod elements;
mod policy;
mod replies;
mod shapes;
mod strays;
mod table;

use std::collections::BTreeMap;
use std::net::IpAddr;

use portolan_model::Family;
use portolan_nft::{Batch, Chain, Field, Key, Outline, Ruleset, Table, TableId};
use portolan_plan::{NodePlan, NodeView};

pub use denied::DENIED;

pub use affinity::{AFFINITY, memories, remembered};
pub use delta::delta;

/// The name of our table in each family; no other table is ever touched.
pub const TABLE: &str = "portolan";

/// How many elements a batch of a start has at most: some hundred kilobytes.
const AT_ONCE: usize = 4096;

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

/// The layout of the table: which sets, maps and chains there are and what they
/// mean. Counted up with each release that changes that.
pub const LAYOUT: u32 = 1;

/// The beginning of the name of an empty chain that says which layout a table has.
/// It survives that a listing is loaded again, which comments in netlink need not.
const LAYOUT_CHAIN: &str = "layout-";

/// Which layout a table has; none of one that does not say it.
pub fn layout(table: &Table) -> Option<u32> {
    let names = table.chains.keys();
    let mut numbers = names.filter_map(|name| name.strip_prefix(LAYOUT_CHAIN)?.parse().ok());
    numbers.next()
}

/// The whole image of a plan.
pub fn image(plan: &NodePlan) -> Ruleset {
    let mut ruleset = frame(plan);
    for element in of_services(plan) {
        let table = ruleset.tables.get_mut(&table_id(element.family));
        if let Some(set) = table.and_then(|table| table.sets.get_mut(element.set)) {
            set.elements.insert(element.key, element.data);
        }
    }
    ruleset
}

/// The image's tables in outline: enough to know whether the kernel holds it, in
/// memory that does not grow with the Services.
pub fn outlines(plan: &NodePlan) -> BTreeMap<TableId, Outline> {
    let tables = frame(plan).tables.into_iter();
    let mut outlines: BTreeMap<_, _> = tables.map(|(id, table)| (id, Outline::of(table))).collect();
    let ids = Family::BOTH.map(|family| (family, table_id(family)));
    for element in of_services(plan) {
        let id = ids.iter().find(|(family, _)| *family == element.family);
        if let Some(outline) = id.and_then(|(_, id)| outlines.get_mut(id)) {
            outline.add(element.set, &element.key, &element.data);
        }
    }
    outlines
}

/// The batches that make the image where there is none of our tables, one after
/// another, so that none is large. No packet meets a rule before the last one.
pub fn start(plan: &NodePlan) -> impl Iterator<Item = Batch> + '_ {
    let whole = frame(plan);
    let mut unhooked = whole.clone();
    let tables = unhooked.tables.values_mut();
    for chain in tables.flat_map(|table| table.chains.values_mut()) {
        if chain.base.is_some() {
            chain.rules.clear();
        }
    }
    let first = portolan_nft::diff(&Ruleset::new(), &unhooked);
    let last = portolan_nft::diff(&unhooked, &whole);
    let mut elements = of_services(plan).peekable();
    let between = std::iter::from_fn(move || {
        elements.peek()?;
        let mut sets: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for element in elements.by_ref().take(AT_ONCE) {
            let set = sets.entry((element.family, element.set)).or_default();
            set.push((element.key, element.data));
        }
        let mut batch = Batch::new();
        for ((family, set), elements) in sets {
            batch.add_elements(&table_id(family), &set.into(), delta::shape(set), elements);
        }
        Some(batch)
    });
    std::iter::once(first)
        .chain(between)
        .chain(std::iter::once(last))
}

/// What is there without any Service, with the chains that are in use, and all that
/// policies are made of.
fn frame(plan: &NodePlan) -> Ruleset {
    let mut ruleset = base(
        &plan.view,
        plan.shapes.keys().copied(),
        plan.timeouts.keys().copied(),
    );
    policy::put(&plan.view, &plan.policies, &mut ruleset);
    ruleset
}

/// Every element that Services contribute, one by one.
fn of_services(plan: &NodePlan) -> impl Iterator<Item = elements::Element> + '_ {
    let frontends = plan.frontends.iter();
    let owners = plan.owners.iter();
    frontends
        .flat_map(|(frontend, decision)| elements::of_decision(*frontend, decision))
        .chain(owners.map(|(address, owner)| elements::of_owner(*address, owner)))
        .chain(plan.hairpins.keys().copied().map(elements::of_hairpin))
        .chain(plan.externals.keys().copied().map(elements::of_external))
        .chain(plan.outlying.keys().copied().map(elements::of_outlying))
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
        let mut table = table::table(view, family);
        let mark = format!("{LAYOUT_CHAIN}{LAYOUT}").into();
        table.chains.insert(mark, Chain::regular([]));
        ruleset.tables.insert(table_id(family), table);
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
