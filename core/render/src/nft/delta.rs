//! What a round of planning changes in the image, at the cost of what it
//! touched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use portolan_model::Family;
use portolan_nft::order::{Lookups, SetChange, SetChanges};
use portolan_nft::{Batch, Chain, Name, Op, Set, SetData, Shape};
use portolan_plan::{Decision, NodePlan, NodeView, Touched};

use super::elements::{Element, of_external, of_hairpin, of_outlying, of_owner, unlike};
use super::{affinity, base, policy, shapes, table, table_id};

/// The sets of the table, whose declarations do not depend on the view.
struct Sets {
    lookups: Lookups,
    /// How each keeps its keys, and whether it leads on.
    kinds: BTreeMap<Name, (Shape, bool)>,
}

/// The same on every run and in both families, so it is made once.
static SETS: LazyLock<Sets> = LazyLock::new(|| {
    let table = table::table(&NodeView::default(), Family::V4);
    let kind = |set: &Set| (set.shape(), set.data == SetData::Verdict);
    let sets = table.sets.iter();
    Sets {
        lookups: Lookups::of(&table),
        kinds: sets.map(|(name, set)| (name.clone(), kind(set))).collect(),
    }
});

/// How a set keeps its keys.
pub(super) fn shape(set: &str) -> Shape {
    SETS.kinds
        .get(set)
        .map_or(Shape::Points, |(shape, _)| *shape)
}

/// The batch that leads from the image before to the image of `plan`.
///
/// Nothing is ever named before it exists: chains come before the elements that
/// lead to them and go after them, and an element whose data changes goes before it
/// comes again. Elements come and go in an order in which a batch that is too large
/// for one transaction may be cut ([`portolan_nft::order`]).
pub fn delta(plan: &NodePlan, touched: &Touched) -> Batch {
    let mut batch = Batch::new();
    let (came, gone) = comings(&touched.shapes, |shape| plan.shapes.contains_key(shape));
    let (timeouts_came, timeouts_gone) = comings(&touched.timeouts, |timeout| {
        plan.timeouts.contains_key(timeout)
    });
    if let Some(before) = &touched.view {
        let kept = |view| {
            let shapes = plan.shapes.keys().copied();
            let timeouts = plan.timeouts.keys().copied();
            base(
                view,
                shapes.filter(|shape| !came.contains(shape)),
                timeouts.filter(|timeout| !timeouts_came.contains(timeout)),
            )
        };
        batch.extend(portolan_nft::diff(&kept(before), &kept(&plan.view)));
    }
    for shape in &came {
        let chain = shapes::chain(&plan.view, *shape);
        add_chain(&mut batch, shape.family, shapes::name(*shape), chain);
    }
    for timeout in timeouts_came {
        for (name, chain) in affinity::of_timeout(timeout) {
            add_chain(&mut batch, timeout.0, name, chain);
        }
    }
    let mut elements = Vec::new();
    for (family, changes) in changes(plan, touched).0 {
        let changes = changes
            .into_iter()
            .map(|(set, change)| (set.into(), change));
        let mut changes = SetChanges::new(table_id(family), &SETS.lookups, changes);
        changes.asked_come(&mut batch);
        changes.leading_come(&mut batch);
        elements.push(changes);
    }
    for changes in elements {
        changes.go(&mut batch);
    }
    for shape in &gone {
        delete_chain(&mut batch, shape.family, shapes::name(*shape));
    }
    for timeout in timeouts_gone {
        for (name, _) in affinity::of_timeout(timeout) {
            delete_chain(&mut batch, timeout.0, name);
        }
    }
    let before = touched.view.as_ref().unwrap_or(&plan.view);
    let views: (&NodeView, &NodeView) = (before, &plan.view);
    batch.extend(policy::delta(views, &plan.policies, &touched.policies));
    batch
}

fn add_chain(batch: &mut Batch, family: Family, chain: Name, content: Chain) {
    let table = table_id(family);
    let new = Op::AddChain {
        chain: chain.clone(),
        base: None,
        comment: None,
    };
    batch.push(&table, new);
    for rule in content.rules {
        let chain = chain.clone();
        batch.push(&table, Op::AddRule { chain, rule });
    }
}

fn delete_chain(batch: &mut Batch, family: Family, chain: Name) {
    let table = table_id(family);
    let flush = Op::FlushChain {
        chain: chain.clone(),
    };
    batch.push(&table, flush);
    batch.push(&table, Op::DeleteChain { chain });
}

/// Which keys came into use and which went out of it.
fn comings<K: Ord + Copy>(
    touched: &BTreeMap<K, Option<u32>>,
    is_used: impl Fn(&K) -> bool,
) -> (BTreeSet<K>, BTreeSet<K>) {
    let (mut came, mut gone) = (BTreeSet::new(), BTreeSet::new());
    for (key, before) in touched {
        match (before.is_some(), is_used(key)) {
            (false, true) => came.insert(*key),
            (true, false) => gone.insert(*key),
            (true, true) | (false, false) => false,
        };
    }
    (came, gone)
}

/// What changes in each set of each family.
#[derive(Default)]
struct Changes(BTreeMap<Family, BTreeMap<&'static str, SetChange>>);

impl Changes {
    /// Takes in what one key contributed before and contributes now.
    fn take(&mut self, before: Vec<Element>, after: Vec<Element>) {
        let place = |element: &Element| (element.family, element.set, element.key.clone());
        let mut old: BTreeMap<_, _> = before
            .into_iter()
            .map(|element| (place(&element), element.data))
            .collect();
        for element in after {
            let there = old.remove(&place(&element));
            let Element {
                family,
                set,
                key,
                data,
            } = element;
            match there {
                Some(there) if there == data => {}
                Some(_) => self.of(family, set).replaced.push((key, data)),
                None => self.of(family, set).added.push((key, data)),
            }
        }
        for (family, set, key) in old.into_keys() {
            self.of(family, set).removed.push(key);
        }
    }

    /// Takes in what came into use and what went out of it.
    fn count<K: Ord + Copy>(
        &mut self,
        touched: &BTreeMap<K, Option<u32>>,
        is_used: impl Fn(&K) -> bool,
        element: impl Fn(K) -> Element,
    ) {
        let (came, gone) = comings(touched, is_used);
        let elements = |keys: BTreeSet<K>| keys.into_iter().map(&element).collect();
        self.take(elements(gone), elements(came));
    }

    fn of(&mut self, family: Family, set: &'static str) -> &mut SetChange {
        let sets = self.0.entry(family).or_default();
        sets.entry(set).or_insert_with(|| {
            let kind = SETS.kinds.get(set).copied();
            let (shape, leads_on) = kind.unwrap_or((Shape::Points, false));
            SetChange::new(shape, leads_on)
        })
    }
}

fn changes(plan: &NodePlan, touched: &Touched) -> Changes {
    let mut changes = Changes::default();
    for (frontend, before) in &touched.frontends {
        let (before, after) = (before.as_deref(), plan.frontends.get(frontend));
        let after = after.map(|after| &**after);
        let elements = |decision: Option<&Decision>, other| {
            decision.map(|decision| unlike(*frontend, decision, other))
        };
        let before_only = elements(before, after).unwrap_or_default();
        let after_only = elements(after, before).unwrap_or_default();
        changes.take(before_only, after_only);
    }
    for (address, before) in &touched.owners {
        let before = before.as_ref().map(|owner| of_owner(*address, owner));
        let after = plan
            .owners
            .get(address)
            .map(|owner| of_owner(*address, owner));
        changes.take(before.into_iter().collect(), after.into_iter().collect());
    }
    changes.count(
        &touched.hairpins,
        |address| plan.hairpins.contains_key(address),
        of_hairpin,
    );
    changes.count(
        &touched.externals,
        |address| plan.externals.contains_key(address),
        of_external,
    );
    changes.count(
        &touched.outlying,
        |endpoint| plan.outlying.contains_key(endpoint),
        of_outlying,
    );
    changes
}
