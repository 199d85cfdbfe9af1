//! What holds of every apply, whatever is there and whatever is applied.

use super::tests::{owned_by, service_of, writer};
use super::*;
use crate::kinds::service;
use proptest::prelude::*;

/// Configurations of a Service that fit together or do not.
fn config() -> impl Strategy<Value = Value> {
    let ports = proptest::collection::btree_map(80u16..84, 1u16..4, 0..4);
    let labels = proptest::option::of(proptest::collection::btree_map("[ab]", "[xy]", 0..3));
    let affinity = proptest::option::of(prop_oneof![Just("None"), Just("ClientIP")]);
    (ports, labels, affinity).prop_map(|(ports, labels, affinity)| {
        let ports: Vec<Value> = ports
            .iter()
            .map(|(port, target)| json!({"port": port, "targetPort": target}))
            .collect();
        let mut object = service_of(json!({"ports": ports}));
        if let Some(labels) = labels {
            object["metadata"]["labels"] = json!(labels);
        }
        if let Some(affinity) = affinity {
            object["spec"]["sessionAffinity"] = json!(affinity);
        }
        object
    })
}

/// What is said: without managed fields, empty lists and empty maps, ports in
/// the order of their numbers.
fn essence(object: &Value) -> Value {
    fn clean(value: &Value) -> Option<Value> {
        match value {
            Value::Object(map) => {
                let map: Map<String, Value> = map
                    .iter()
                    .filter_map(|(name, value)| Some((name.clone(), clean(value)?)))
                    .collect();
                (!map.is_empty()).then_some(Value::Object(map))
            }
            Value::Array(list) => {
                let mut list: Vec<Value> = list.iter().filter_map(clean).collect();
                list.sort_by_key(|port| port["port"].as_u64());
                (!list.is_empty()).then_some(Value::Array(list))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                Some(value.clone())
            }
        }
    }
    clean(&bare(object)).unwrap_or_default()
}

fn force(live: Option<&Value>, config: &Value, manager: &str) -> Value {
    apply(&service::KIND, live, config, writer(manager), true).unwrap()
}

proptest! {
    #[test]
    fn apply_is_idempotent(first in config(), second in config()) {
        let live = force(None, &first, "a");
        let once = force(Some(&live), &second, "b");
        prop_assert_eq!(&force(Some(&once), &second, "b"), &once);
    }

    #[test]
    fn the_only_owner_gets_exactly_what_it_says(first in config(), second in config()) {
        let live = force(None, &first, "a");
        let after = force(Some(&live), &second, "a");
        prop_assert_eq!(essence(&after), essence(&second));
    }

    #[test]
    fn who_forces_gets_it_and_without_force_nothing_of_others_changes(first in config(), second in config()) {
        let live = force(None, &first, "a");
        let forced = force(Some(&live), &second, "b");
        let wanted = fields_of(&service::KIND, &essence(&second)).unwrap();
        let there = fields_of(&service::KIND, &bare(&forced)).unwrap();
        prop_assert!(wanted.difference(&there).is_empty());
        match apply(&service::KIND, Some(&live), &second, writer("b"), false) {
            // Nobody lost a field.
            Ok(after) => prop_assert_eq!(owned_by(&after, "a"), owned_by(&live, "a")),
            Err(error) => prop_assert!(error.to_string().contains("conflict with \"a\"") || error.to_string().contains("conflicts with \"a\"")),
        }
    }

    #[test]
    fn apply_and_take_back_leaves_what_was(first in config(), second in config()) {
        let live = force(None, &first, "a");
        if let Ok(with) = apply(&service::KIND, Some(&live), &second, writer("b"), false) {
            let nothing = service_of(json!({}));
            let mut nothing = nothing;
            nothing.as_object_mut().unwrap().remove("spec");
            let back = force(Some(&with), &nothing, "b");
            prop_assert_eq!(essence(&back), essence(&live));
        }
    }

    #[test]
    fn the_fields_of_an_object_round_trip(object in config()) {
        let set = fields_of(&service::KIND, &object).unwrap();
        prop_assert_eq!(FieldSet::parse(&set.to_value()).unwrap(), set);
    }

    #[test]
    fn who_forces_ends_with_every_value_it_said(first in config(), second in config()) {
        let live = force(None, &first, "a");
        let forced = force(Some(&live), &second, "b");
        let place = Place::root(service::KIND.schema());
        let (said, there) = (bare(&second), bare(&forced));
        let difference = walk::compare(&place, Some(&said), Some(&there));
        prop_assert!(difference.modified.is_empty(), "{:?}", difference.modified);
        prop_assert!(difference.removed.difference(&FieldSet::parse(&json!({"f:metadata": {"f:labels": {}}, "f:spec": {"f:ports": {}}})).unwrap()).is_empty(), "{:?}", difference.removed);
    }

    #[test]
    fn disjoint_applies_commute(ports in config(), labels in proptest::collection::btree_map("[ab]", "[xy]", 1..3)) {
        let mut one = ports;
        one["metadata"].as_object_mut().unwrap().remove("labels");
        let mut other = service_of(json!({}));
        other.as_object_mut().unwrap().remove("spec");
        other["metadata"]["labels"] = json!(labels);
        let forth = force(Some(&force(None, &one, "a")), &other, "b");
        let back = force(Some(&force(None, &other, "b")), &one, "a");
        prop_assert_eq!(essence(&forth), essence(&back));
        prop_assert_eq!(owned_by(&forth, "a"), owned_by(&back, "a"));
        prop_assert_eq!(owned_by(&forth, "b"), owned_by(&back, "b"));
    }

    #[test]
    fn an_update_without_a_change_changes_no_owner(first in config(), second in config()) {
        let live = force(Some(&force(None, &first, "a")), &second, "b");
        let mut same = live.clone();
        record(&service::KIND, Some(&live), &mut same, writer("c"));
        prop_assert_eq!(same, live);
    }

    #[test]
    fn every_field_that_an_update_changes_is_its_own_alone(first in config(), second in config()) {
        let live = force(None, &first, "a");
        let mut new = second.clone();
        record(&service::KIND, Some(&live), &mut new, writer("c"));
        let mine = FieldSet::parse(&owned_by(&new, "c")).unwrap_or_default();
        let theirs = FieldSet::parse(&owned_by(&new, "a")).unwrap_or_default();
        prop_assert!(mine.intersection(&theirs).is_empty());
    }
}
