use super::last_applied::LAST_APPLIED;
use super::*;
use crate::kinds::{deployment, service};

const NOW: &str = "2026-01-01T00:00:00Z";
const LATER: &str = "2026-01-01T00:00:09Z";

pub(super) fn writer(manager: &str) -> Writer<'_> {
    Writer {
        manager,
        subresource: "",
        now: NOW,
    }
}

pub(super) fn service_of(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"}, "spec": spec})
}

fn applied(live: Option<&Value>, config: &Value, manager: &str) -> Value {
    apply(&service::KIND, live, config, writer(manager), false).unwrap()
}

/// The fields of one manager.
pub(super) fn owned_by(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array();
    let entry = entries
        .into_iter()
        .flatten()
        .find(|entry| entry["manager"] == manager);
    entry.map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

#[test]
fn the_first_apply_owns_what_it_says() {
    let config = service_of(json!({"ports": [{"port": 80}], "selector": {"app": "web"}}));
    let object = applied(None, &config, "me");
    assert_eq!(object["spec"], config["spec"]);
    assert_eq!(
        object["metadata"]["managedFields"][0],
        json!({"manager": "me", "operation": "Apply", "apiVersion": "v1", "time": NOW,
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {
                "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}},
                "f:selector": {}}}})
    );
}

#[test]
fn the_same_again_changes_nothing() {
    let config = service_of(json!({"ports": [{"port": 80}], "selector": {"app": "web"}}));
    let object = applied(None, &config, "me");
    let later = Writer {
        now: LATER,
        ..writer("me")
    };
    let again = apply(&service::KIND, Some(&object), &config, later, false).unwrap();
    assert_eq!(again, object);
}

#[test]
fn what_is_no_longer_said_goes_unless_somebody_else_says_it() {
    let two = service_of(
        json!({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}], "sessionAffinity": "ClientIP"}),
    );
    let one = service_of(json!({"ports": [{"port": 80, "name": "a"}]}));
    let live = applied(None, &two, "me");
    let after = applied(Some(&live), &one, "me");
    assert_eq!(after["spec"], one["spec"]);
    // Shared: the second owner keeps it.
    let shared = applied(
        Some(&live),
        &service_of(json!({"sessionAffinity": "ClientIP"})),
        "you",
    );
    let after = applied(Some(&shared), &one, "me");
    assert_eq!(after["spec"]["sessionAffinity"], "ClientIP");
    assert_eq!(after["spec"]["ports"].as_array().unwrap().len(), 1);
    // What the server added to an element goes with the element.
    let mut live = live;
    live["spec"]["ports"][1]["nodePort"] = json!(30001);
    assert_eq!(applied(Some(&live), &one, "me")["spec"], one["spec"]);
}

#[test]
fn a_parent_goes_with_its_last_field() {
    let config = |spec: Value| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"}, "spec": spec});
    let probe = config(json!({"strategy": {"rollingUpdate": {"maxSurge": 1}}, "paused": true}));
    let live = apply(&deployment::KIND, None, &probe, writer("me"), false).unwrap();
    let without = config(json!({"paused": true}));
    let after = apply(
        &deployment::KIND,
        Some(&live),
        &without,
        writer("me"),
        false,
    )
    .unwrap();
    assert_eq!(after["spec"], json!({"paused": true}));
}

#[test]
fn conflicts_in_kubectls_words() {
    let config = |replicas: u8, paused: bool| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"}, "spec": {"replicas": replicas, "paused": paused}});
    let mut live = config(1, false);
    record(
        &deployment::KIND,
        None,
        &mut live,
        writer("kubectl-client-side-apply"),
    );
    let refused = apply(
        &deployment::KIND,
        Some(&live),
        &config(2, false),
        writer("me"),
        false,
    );
    assert_eq!(
        refused.unwrap_err().to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    let refused = apply(
        &deployment::KIND,
        Some(&live),
        &config(2, true),
        writer("me"),
        false,
    );
    assert_eq!(
        refused.unwrap_err().to_string(),
        "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n- .spec.paused\n- .spec.replicas"
    );
    let forced = apply(
        &deployment::KIND,
        Some(&live),
        &config(2, false),
        writer("me"),
        true,
    )
    .unwrap();
    assert_eq!(forced["spec"]["replicas"], 2);
    assert_eq!(
        owned_by(&forced, "kubectl-client-side-apply"),
        json!({"f:spec": {"f:paused": {}}})
    );
    // Who applies the value that is there shares it.
    let shared = apply(
        &deployment::KIND,
        Some(&live),
        &config(1, false),
        writer("me"),
        false,
    )
    .unwrap();
    assert_eq!(
        owned_by(&shared, "kubectl-client-side-apply"),
        owned_by(&live, "kubectl-client-side-apply")
    );
}

#[test]
fn updates_take_what_they_change_and_status_has_its_own_owner() {
    let mut live = service_of(json!({"ports": [{"port": 80}], "sessionAffinity": "None"}));
    record(&service::KIND, None, &mut live, writer("create"));
    let mut new = live.clone();
    new["spec"]["sessionAffinity"] = json!("ClientIP");
    new["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    record(&service::KIND, Some(&live), &mut new, writer("edit"));
    assert_eq!(
        owned_by(&new, "edit"),
        json!({"f:spec": {"f:sessionAffinity": {}}})
    );
    assert_eq!(
        owned_by(&new, "create")["f:spec"]["f:sessionAffinity"],
        Value::Null
    );
    let mut status = new.clone();
    status["status"]["loadBalancer"]["ingress"] = json!([{"ip": "192.0.2.2"}]);
    status["spec"]["sessionAffinity"] = json!("None");
    let door = Writer {
        subresource: "status",
        ..writer("lb")
    };
    record(&service::KIND, Some(&new), &mut status, door);
    assert_eq!(
        owned_by(&status, "lb"),
        json!({"f:status": {"f:loadBalancer": {"f:ingress": {}}}})
    );
    assert_eq!(
        status["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|entry| entry["subresource"] == "status")
            .count(),
        1
    );
}

#[test]
fn clients_may_forget_ownership_and_apply_begins_it_again() {
    let mut live = service_of(json!({"ports": [{"port": 80}]}));
    record(&service::KIND, None, &mut live, writer("create"));
    let mut reset = live.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    record(&service::KIND, Some(&live), &mut reset, writer("x"));
    assert!(reset["metadata"].get("managedFields").is_none());
    let mut edited = reset.clone();
    edited["spec"]["sessionAffinity"] = json!("ClientIP");
    record(&service::KIND, Some(&reset), &mut edited, writer("x"));
    assert!(
        edited["metadata"].get("managedFields").is_none(),
        "not tracked"
    );
    let config = service_of(json!({"sessionAffinity": "None"}));
    let refused = apply(&service::KIND, Some(&edited), &config, writer("me"), false).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .spec.sessionAffinity"
    );
    // Managed fields that cannot be read are as if they were not sent.
    let mut broken = live.clone();
    broken["metadata"]["managedFields"] = json!([{"operation": "Guess"}]);
    record(&service::KIND, Some(&live), &mut broken, writer("x"));
    assert_eq!(broken, live);
}

#[test]
fn kubectl_does_not_conflict_with_its_own_client_side_apply() {
    let config =
        |affinity: &str| service_of(json!({"ports": [{"port": 80}], "sessionAffinity": affinity}));
    let mut live = config("None");
    live["metadata"]["annotations"] = json!({LAST_APPLIED: config("None").to_string()});
    record(
        &service::KIND,
        None,
        &mut live,
        writer("kubectl-client-side-apply"),
    );
    let after = applied(Some(&live), &config("ClientIP"), "kubectl");
    assert_eq!(after["spec"]["sessionAffinity"], "ClientIP");
    apply(
        &service::KIND,
        Some(&live),
        &config("ClientIP"),
        writer("other"),
        false,
    )
    .unwrap_err();
}

#[test]
fn what_does_not_fit_the_schema_is_named() {
    let failure = |spec: Value| {
        apply(&service::KIND, None, &service_of(spec), writer("me"), false)
            .unwrap_err()
            .to_string()
    };
    let head = "failed to create typed patch object (default/web; /v1, Kind=Service): ";
    assert_eq!(
        failure(json!({"foo": 1})),
        format!("{head}.spec.foo: field not declared in schema")
    );
    assert_eq!(
        failure(json!({"ports": [{"port": 80}, {"port": 80, "protocol": "TCP"}]})),
        format!("{head}.spec.ports: duplicate entries for key [port=80,protocol=\"TCP\"]")
    );
    assert_eq!(
        failure(json!({"ports": [{"name": "a"}]})),
        format!(
            "{head}.spec.ports: element 0: associative list with keys has an element that omits key field \"port\" (and doesn't have default value)"
        )
    );
    let of_types = [
        (
            json!({"ports": [{"port": "x"}]}),
            ".spec.ports[port=\"x\",protocol=\"TCP\"].port: expected numeric (int or float), got string",
        ),
        (
            json!({"sessionAffinity": 3}),
            ".spec.sessionAffinity: expected string, got &value.valueUnstructured{Value:3}",
        ),
        (
            json!({"publishNotReadyAddresses": "yes"}),
            ".spec.publishNotReadyAddresses: expected boolean, got &{yes}",
        ),
        (
            json!({"ports": {"a": 1}}),
            ".spec.ports: expected list, got &{map[a:1]}",
        ),
        (
            json!({"selector": "a=b"}),
            ".spec.selector: expected map, got &{a=b}",
        ),
        (
            json!({"a": 1, "b": 2}),
            "errors:\n  .spec.a: field not declared in schema\n  .spec.b: field not declared in schema",
        ),
    ];
    for (spec, what) in of_types {
        assert_eq!(failure(spec), format!("{head}{what}"));
    }
}

#[test]
fn many_updaters_become_one() {
    let mut live = service_of(json!({"ports": [{"port": 80}]}));
    record(&service::KIND, None, &mut live, writer("create"));
    for number in 0..15 {
        let mut new = live.clone();
        new["metadata"]["annotations"][format!("a{number}")] = json!("x");
        let name = format!("m{number}");
        let now = format!("2026-01-01T00:01:{number:02}Z");
        record(
            &service::KIND,
            Some(&live),
            &mut new,
            Writer {
                now: &now,
                ..writer(&name)
            },
        );
        live = new;
    }
    let entries = live["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), MAX_MANAGERS);
    assert!(owned_by(&live, "ancient-changes")["f:metadata"]["f:annotations"]["f:a0"].is_object());
    assert!(owned_by(&live, "m14").is_object());
}

const MAX_MANAGERS: usize = 10;

#[test]
fn status_in_a_configuration_is_no_conflict_and_no_change() {
    let config = service_of(json!({"ports": [{"port": 80}]}));
    let mut live = applied(None, &config, "me");
    let before = live.clone();
    live["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    let door = Writer {
        subresource: "status",
        ..writer("lb")
    };
    record(&service::KIND, Some(&before), &mut live, door);
    let mut with_status = config.clone();
    with_status["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}});
    let later = Writer {
        now: LATER,
        ..writer("me")
    };
    let after = apply(&service::KIND, Some(&live), &with_status, later, false).unwrap();
    assert_eq!(after, live);
}

#[test]
fn the_first_apply_of_a_status_conflicts_with_what_was_before() {
    let mut live = service_of(json!({"ports": [{"port": 80}]}));
    live["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    let mut config = service_of(json!({}));
    config["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}});
    let door = Writer {
        subresource: "status",
        ..writer("lb")
    };
    let refused = apply(&service::KIND, Some(&live), &config, door, false).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" with subresource \"status\" using v1: .status.loadBalancer.ingress"
    );
}

#[test]
fn who_joins_without_a_change_has_no_time() {
    let config = service_of(json!({"ports": [{"port": 80}]}));
    let live = applied(None, &config, "me");
    let joined = applied(Some(&live), &config, "you");
    let entries = joined["metadata"]["managedFields"].as_array().unwrap();
    let yours = entries.iter().find(|entry| entry["manager"] == "you");
    assert_eq!(yours.unwrap().get("time"), None);
    // Less than before, but the object stays as it was: so does the time.
    let both = service_of(json!({"ports": [{"port": 80}], "sessionAffinity": "None"}));
    let live = applied(Some(&applied(None, &both, "me")), &both, "you");
    let later = Writer {
        now: LATER,
        ..writer("me")
    };
    let after = apply(&service::KIND, Some(&live), &config, later, false).unwrap();
    assert_eq!(after["spec"], live["spec"]);
    assert!(!after.to_string().contains(LATER));
}

#[test]
fn atomic_types_are_owned_as_one() {
    let config = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"spec": {"containers": [{"name": "a", "image": "i",
            "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}],
            "ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53}]}]}}}});
    let object = apply(&deployment::KIND, None, &config, writer("me"), false).unwrap();
    assert_eq!(
        owned_by(&object, "me"),
        json!({"f:spec": {"f:selector": {}, "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {
            ".": {}, "f:name": {}, "f:image": {},
            "f:env": {"k:{\"name\":\"X\"}": {".": {}, "f:name": {}, "f:valueFrom": {"f:configMapKeyRef": {}}}},
            "f:ports": {
                "k:{\"containerPort\":53,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}},
                "k:{\"containerPort\":53,\"protocol\":\"UDP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}}}}}}}})
    );
}

#[test]
fn kubectls_annotation_allows_only_what_is_still_so_and_follows() {
    let config =
        |affinity: &str| service_of(json!({"ports": [{"port": 80}], "sessionAffinity": affinity}));
    let mut live = config("None");
    live["metadata"]["annotations"] = json!({LAST_APPLIED: config("None").to_string()});
    record(
        &service::KIND,
        None,
        &mut live,
        writer("kubectl-client-side-apply"),
    );
    let mut edited = live.clone();
    edited["spec"]["sessionAffinity"] = json!("ClientIP");
    record(&service::KIND, Some(&live), &mut edited, writer("edit"));
    let refused = apply(
        &service::KIND,
        Some(&edited),
        &config("None"),
        writer("kubectl"),
        false,
    );
    assert_eq!(
        refused.unwrap_err().to_string(),
        "Apply failed with 1 conflict: conflict with \"edit\" using v1: .spec.sessionAffinity"
    );
    let after = applied(Some(&live), &config("ClientIP"), "kubectl");
    let annotation = &after["metadata"]["annotations"][LAST_APPLIED];
    let said: Value = serde_json::from_str(annotation.as_str().unwrap()).unwrap();
    assert_eq!(said, config("ClientIP"));
    assert!(annotation.as_str().unwrap().ends_with('\n'));
}

#[test]
fn an_empty_list_forgets_too_and_odd_entries_are_not_read() {
    let mut live = service_of(json!({"ports": [{"port": 80}]}));
    record(&service::KIND, None, &mut live, writer("create"));
    let mut reset = live.clone();
    reset["metadata"]["managedFields"] = json!([]);
    record(&service::KIND, Some(&live), &mut reset, writer("x"));
    assert!(reset["metadata"].get("managedFields").is_none());
    for missing in ["apiVersion", "fieldsType"] {
        let mut odd = live.clone();
        let entry = odd["metadata"]["managedFields"][0].as_object_mut();
        entry.unwrap().remove(missing);
        record(&service::KIND, Some(&live), &mut odd, writer("x"));
        assert_eq!(odd, live);
    }
}

#[test]
fn elements_given_twice_are_owned_as_one_and_replaced_by_one() {
    let config = |env: Value| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"template": {"spec": {"containers": [{"name": "a", "env": env}]}}}})
    };
    let env = |object: &Value| object["spec"]["template"]["spec"]["containers"][0]["env"].clone();
    let twice = json!([{"name": "X", "value": "1"}, {"name": "Y", "value": "1"}, {"name": "X", "value": "2"}]);
    let mut live = config(twice.clone());
    record(&deployment::KIND, None, &mut live, writer("maker"));
    let owned = owned_by(&live, "maker").to_string();
    assert!(owned.contains(r#""k:{\"name\":\"X\"}":{}"#), "{owned}");
    assert!(
        owned.contains(r#""k:{\"name\":\"Y\"}":{".":{},"f:name":{},"f:value":{}}"#),
        "{owned}"
    );
    let forced = |wanted: Value| {
        apply(
            &deployment::KIND,
            Some(&live),
            &config(wanted),
            writer("me"),
            true,
        )
        .unwrap()
    };
    // Another element leaves them alone.
    let other = forced(json!([{"name": "Z", "value": "3"}]));
    let mut with_other: Vec<Value> = env(&other).as_array().unwrap().clone();
    with_other.retain(|item| item["name"] != "Z");
    assert_eq!(with_other.len(), 3);
    assert_eq!(
        env(&forced(json!([{"name": "X", "value": "3"}]))),
        json!([{"name": "X", "value": "3"}, {"name": "Y", "value": "1"}])
    );
    let refused = apply(
        &deployment::KIND,
        Some(&live),
        &config(json!([{"name": "X", "value": "3"}])),
        writer("me"),
        false,
    );
    assert_eq!(
        refused.unwrap_err().to_string(),
        "Apply failed with 1 conflict: conflict with \"maker\" using apps/v1: .spec.template.spec.containers[name=\"a\"].env[name=\"X\"]"
    );
}

#[test]
fn a_status_door_does_not_own_what_it_does_not_change() {
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"}, "spec": {"paused": true}});
    let mut live = object.clone();
    record(&deployment::KIND, None, &mut live, writer("maker"));
    let mut new = live.clone();
    new["metadata"]["labels"] = json!({"a": "b"});
    new["metadata"]["annotations"] = json!({"a": "b"});
    new["status"] = json!({"replicas": 1});
    let door = Writer {
        subresource: "status",
        ..writer("controller")
    };
    record(&deployment::KIND, Some(&live), &mut new, door);
    assert_eq!(
        owned_by(&new, "controller"),
        json!({"f:metadata": {"f:annotations": {".": {}, "f:a": {}}}, "f:status": {"f:replicas": {}}})
    );
}
