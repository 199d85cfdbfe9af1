//! What a round of planning changes in the image, at the cost of what it
//! touched.

use std::collections::{BTreeMap, BTreeSet};

use portolan_model::Family;
use portolan_nft::{Batch, Chain, Data, Key, Name, Op};
use portolan_plan::{NodePlan, Touched};

use super::elements::{Element, of_decision, of_external, of_hairpin, of_outlying, of_owner};
use super::{affinity, base, shapes, table, table_id};

/// How a set whose elements come and go with Services keeps them. (Those of
/// ranges of a single field hold what the view says and change with it alone.)
fn shape(set: &str) -> portolan_nft::Shape {
    match set {
        table::ALLOWED => portolan_nft::Shape::Boxes,
        _ => portolan_nft::Shape::Points,
    }
}

/// The batch that leads from the image before to the image of `plan`.
///
/// The whole batch is one transaction; within it nothing is ever named before
/// it exists: chains come before the elements that lead to them and go after
/// them, and an element whose data changes goes before it comes again.
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
    let Changes { removed, added } = changes(plan, touched);
    for ((family, set), keys) in removed {
        batch.push(
            &table_id(family),
            Op::DeleteElements {
                set: set.into(),
                shape: shape(set),
                keys,
            },
        );
    }
    for ((family, set), elements) in added {
        batch.push(
            &table_id(family),
            Op::AddElements {
                set: set.into(),
                shape: shape(set),
                elements,
            },
        );
    }
    for shape in &gone {
        delete_chain(&mut batch, shape.family, shapes::name(*shape));
    }
    for timeout in timeouts_gone {
        for (name, _) in affinity::of_timeout(timeout) {
            delete_chain(&mut batch, timeout.0, name);
        }
    }
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

#[derive(Default)]
struct Changes {
    removed: BTreeMap<(Family, &'static str), Vec<Key>>,
    added: BTreeMap<(Family, &'static str), Vec<(Key, Data)>>,
}

impl Changes {
    /// Takes in what one key contributed before and contributes now.
    fn take(&mut self, before: Vec<Element>, after: Vec<Element>) {
        let place = |element: &Element| (element.family, element.set, element.key.clone());
        let mut old: BTreeMap<_, _> = before
            .into_iter()
            .map(|element| (place(&element), element.data))
            .collect();
        for element in after {
            let place = place(&element);
            match old.remove(&place) {
                Some(data) if data == element.data => continue,
                Some(_) => self.remove(place),
                None => {}
            }
            let Element {
                family,
                set,
                key,
                data,
            } = element;
            self.added
                .entry((family, set))
                .or_default()
                .push((key, data));
        }
        for place in old.into_keys() {
            self.remove(place);
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

    fn remove(&mut self, (family, set, key): (Family, &'static str, Key)) {
        self.removed.entry((family, set)).or_default().push(key);
    }
}

fn changes(plan: &NodePlan, touched: &Touched) -> Changes {
    let mut changes = Changes::default();
    for (frontend, before) in &touched.frontends {
        let elements = |decision: &_| of_decision(*frontend, decision);
        let before = before.as_deref().map(elements).unwrap_or_default();
        let after = plan
            .frontends
            .get(frontend)
            .map(|decision| elements(decision))
            .unwrap_or_default();
        changes.take(before, after);
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
