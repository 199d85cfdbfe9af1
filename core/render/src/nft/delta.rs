//! What a round of planning changes in the image, at the cost of what it
//! touched.

use std::collections::{BTreeMap, BTreeSet};

use portolan_model::Family;
use portolan_nft::{Batch, Data, Key, Op};
use portolan_plan::{NodePlan, Shape, Touched};

use super::elements::{Element, of_decision, of_hairpin, of_owner};
use super::{base, shapes, table_id};

/// Interval sets hold what the view says and change with it alone; every set
/// whose elements come and go with Services has exact keys.
const SHAPE: portolan_nft::Shape = portolan_nft::Shape::Points;

/// The batch that leads from the image before to the image of `plan`.
///
/// The whole batch is one transaction; within it nothing is ever named before
/// it exists: chains come before the elements that lead to them and go after
/// them, and an element whose data changes goes before it comes again.
pub fn delta(plan: &NodePlan, touched: &Touched) -> Batch {
    let mut batch = Batch::new();
    let (came, gone) = shape_changes(plan, touched);
    if let Some(before) = &touched.view {
        let kept = || {
            plan.shapes
                .keys()
                .copied()
                .filter(|shape| !came.contains(shape))
        };
        batch.extend(portolan_nft::diff(
            &base(before, kept()),
            &base(&plan.view, kept()),
        ));
    }
    for shape in &came {
        let table = table_id(shape.family);
        let chain = shapes::name(*shape);
        batch.push(
            &table,
            Op::AddChain {
                chain: chain.clone(),
                base: None,
                comment: None,
            },
        );
        for rule in shapes::chain(&plan.view, *shape).rules {
            batch.push(
                &table,
                Op::AddRule {
                    chain: chain.clone(),
                    rule,
                },
            );
        }
    }
    let Changes { removed, added } = changes(plan, touched);
    for ((family, set), keys) in removed {
        batch.push(
            &table_id(family),
            Op::DeleteElements {
                set: set.into(),
                shape: SHAPE,
                keys,
            },
        );
    }
    for ((family, set), elements) in added {
        batch.push(
            &table_id(family),
            Op::AddElements {
                set: set.into(),
                shape: SHAPE,
                elements,
            },
        );
    }
    for shape in &gone {
        let table = table_id(shape.family);
        let chain = shapes::name(*shape);
        batch.push(
            &table,
            Op::FlushChain {
                chain: chain.clone(),
            },
        );
        batch.push(&table, Op::DeleteChain { chain });
    }
    batch
}

fn shape_changes(plan: &NodePlan, touched: &Touched) -> (BTreeSet<Shape>, BTreeSet<Shape>) {
    let (mut came, mut gone) = (BTreeSet::new(), BTreeSet::new());
    for (shape, before) in &touched.shapes {
        match (before.is_some(), plan.shapes.contains_key(shape)) {
            (false, true) => came.insert(*shape),
            (true, false) => gone.insert(*shape),
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
    for (address, before) in &touched.hairpins {
        let before = before.map(|_| of_hairpin(*address));
        let after = plan.hairpins.get(address).map(|_| of_hairpin(*address));
        changes.take(before.into_iter().collect(), after.into_iter().collect());
    }
    changes
}
