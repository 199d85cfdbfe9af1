//! Whatever objects say, there is an answer.

use proptest::prelude::*;
use serde_json::Value;

use super::testbed::Bed;
use super::{Mark, Severity};

/// Values that fields of objects may and may not have.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        prop_oneof![
            Just(""),
            Just("web"),
            Just("shop"),
            Just("Local"),
            Just("None"),
            Just("NodePort"),
            Just("LoadBalancer"),
            Just("ExternalName"),
            Just("UDP"),
            Just("http"),
            Just("IPv6"),
            Just("10.96.1.1"),
            Just("'; \"…"),
            Just("node-1"),
            Just("a.b.svc.cluster.local"),
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,4}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// All places of a value.
fn places(value: &Value, at: &str, into: &mut Vec<String>) {
    into.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, inner)| {
            places(
                inner,
                &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")),
                into,
            );
        }),
        Value::Array(list) => list.iter().enumerate().for_each(|(index, inner)| {
            places(inner, &format!("{at}/{index}"), into);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn objects(bed: &mut Bed) -> Vec<&mut Value> {
    let Bed {
        service,
        others,
        pods,
        slices,
        ..
    } = bed;
    std::iter::once(service)
        .chain(others)
        .chain(pods)
        .chain(slices)
        .collect()
}

proptest! {
    #[test]
    fn c17_arbitrary_objects_are_examined(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), value()), 0..6),
    ) {
        let mut bed = Bed::healthy();
        for (object, place, value) in changes {
            let mut all = objects(&mut bed);
            let index = object.index(all.len());
            let object = &mut all[index];
            let mut pointers = Vec::new();
            places(object, "", &mut pointers);
            let pointer = &pointers[place.index(pointers.len())];
            if let (Some(at), false) = (object.pointer_mut(pointer), pointer.is_empty()) {
                *at = value;
            }
        }
        // The Service itself must be one that a server would send.
        prop_assume!(serde_json::from_value::<portolan_api::lean::Service>(bed.service.clone()).is_ok());
        let checkup = bed.examine();
        prop_assert_eq!(checkup.steps.len(), super::STEPS.len());
        let told = |step: &super::Checked| step.mark() != Mark::Skipped || !step.summary.is_empty();
        prop_assert!(checkup.steps.iter().all(told));
        for finding in checkup.findings() {
            prop_assert!(!finding.message.is_empty() && !finding.object.is_empty());
            prop_assert!(finding.severity == Severity::Note || finding.mend.is_some());
        }
        prop_assert!(checkup.json()["steps"].is_array());
    }
}
