//! Pod: containers that share a network.

use super::pod_status::PodSummary;
use super::{
    AGE_COLUMN, BASE, Generation, Kind, NAME_COLUMN, PROXY_VERBS, Subresource, Write, column,
    connect, schema_of, status_of, wide,
};
use crate::value::{
    at, bool_at, copy, has, int_at, list_at, place, set, set_default, set_default_text, str_at,
};
use crate::{defaults, meta, table, validate};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The row of the kinds table.
pub static KIND: Kind = Kind {
    kind: "Pod",
    list_kind: "PodList",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    subresources: &[
        connect("attach", "PodAttachOptions", &["create", "get"]),
        Subresource {
            name: "binding",
            group: "",
            version: "v1",
            kind: "Binding",
            verbs: &["create"],
        },
        Subresource {
            name: "eviction",
            group: "policy",
            version: "v1",
            kind: "Eviction",
            verbs: &["create"],
        },
        connect("exec", "PodExecOptions", &["create", "get"]),
        Subresource {
            name: "log",
            group: "",
            version: "v1",
            kind: "Pod",
            verbs: &["get"],
        },
        connect("portforward", "PodPortForwardOptions", &["create", "get"]),
        connect("proxy", "PodProxyOptions", PROXY_VERBS),
        status_of("", "v1", "Pod"),
    ],
    definition: "io.k8s.api.core.v1.Pod",
    schema: |generator| {
        schema_of::<k8s_openapi::api::core::v1::Pod>(generator);
        schema_of::<k8s_openapi::api::core::v1::Binding>(generator);
        schema_of::<k8s_openapi::api::policy::v1::Eviction>(generator);
    },
    columns: &[
        NAME_COLUMN,
        column("Ready", "string", "Containers that are ready, of all."),
        column("Status", "string", "What the pod does or why it does not."),
        column(
            "Restarts",
            "string",
            "How often containers were started again.",
        ),
        AGE_COLUMN,
        wide("IP", "string", "Its first address."),
        wide("Node", "string", "The node it is bound to."),
        wide(
            "Nominated Node",
            "string",
            "The node it may get after preemption.",
        ),
        wide(
            "Readiness Gates",
            "string",
            "Readiness gates that are passed, of all.",
        ),
    ],
    row,
    defaults: defaults::pod,
    validate: validate::pod::pod,
    prepare,
    generation: Generation::Spec,
    fields,
    delete_returns_object: true,
    grace_period: Some(grace_period),
    ..BASE
};

/// The grace period of a deletion that names none. A pod that is bound to no
/// node, or has ended, goes at once.
fn grace_period(object: &Value) -> i64 {
    let ended = matches!(str_at(object, "status.phase"), "Succeeded" | "Failed");
    match str_at(object, "spec.nodeName").is_empty() || ended {
        true => 0,
        false => int_at(object, "spec.terminationGracePeriodSeconds")
            .unwrap_or(30)
            .max(0),
    }
}

fn prepare(object: &mut Value, old: Option<&Value>, write: Write) {
    match (write, old) {
        (Write::Create, _) | (_, None) => {
            admit(object);
            let qos = defaults::qos_class(at(object, "spec"));
            set(
                object,
                "status",
                json!({"phase": "Pending", "qosClass": qos}),
            );
        }
        (Write::Update, Some(_)) => {}
        (Write::Status, Some(old)) => {
            copy(old, object, "metadata.ownerReferences");
            set_default(object, "status", json!({}));
            copy(old, object, "status.qosClass");
        }
    }
}

/// What admission adds to every new pod: the service account, tolerations of
/// nodes that are away for a moment, and a priority.
fn admit(object: &mut Value) {
    set_default_text(object, "spec.serviceAccountName", "default");
    let account = str_at(object, "spec.serviceAccountName").to_owned();
    set(object, "spec.serviceAccount", account);
    set_default(object, "spec.priority", 0);
    set_default_text(object, "spec.preemptionPolicy", "PreemptLowerPriority");
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let tolerated = list_at(object, "spec.tolerations")
            .iter()
            .any(|toleration| {
                let all = str_at(toleration, "key").is_empty()
                    && str_at(toleration, "operator") == "Exists";
                (all || str_at(toleration, "key") == key)
                    && matches!(str_at(toleration, "effect"), "" | "NoExecute")
            });
        if tolerated {
            continue;
        }
        let toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
        let list = place(object, "spec.tolerations");
        match list.as_array_mut() {
            Some(list) => list.push(toleration),
            None => *list = json!([toleration]),
        }
    }
}

fn fields(object: &Value) -> BTreeMap<&'static str, String> {
    let mut fields: BTreeMap<&'static str, String> = [
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ]
    .into_iter()
    .map(|path| (path, str_at(object, path).to_owned()))
    .collect();
    fields.insert(
        "spec.hostNetwork",
        bool_at(object, "spec.hostNetwork").to_string(),
    );
    fields
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let summary = PodSummary::of(object);
    let restarts = match &summary.last_restart {
        Some(time) if summary.restarts > 0 => {
            format!("{} ({} ago)", summary.restarts, table::since(time, now))
        }
        Some(_) | None => summary.restarts.to_string(),
    };
    let ip = list_at(object, "status.podIPs")
        .first()
        .map_or("", |ip| str_at(ip, "ip"));
    vec![
        meta::name(object).into(),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.status.into(),
        restarts.into(),
        table::age(object, now),
        table::or_none(ip),
        table::or_none(str_at(object, "spec.nodeName")),
        table::or_none(str_at(object, "status.nominatedNodeName")),
        readiness_gates(object).into(),
    ]
}

fn readiness_gates(object: &Value) -> String {
    if !has(object, "spec.readinessGates") {
        return "<none>".to_owned();
    }
    let gates = list_at(object, "spec.readinessGates");
    let passed = gates
        .iter()
        .filter(|gate| {
            list_at(object, "status.conditions")
                .iter()
                .any(|condition| {
                    str_at(condition, "type") == str_at(gate, "conditionType")
                        && str_at(condition, "status") == "True"
                })
        })
        .count();
    format!("{passed}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_pods_are_pending_and_admitted() {
        let mut object = json!({"metadata": {"name": "a", "uid": "x"}, "spec": {"containers": [{"name": "a", "image": "b"}]}, "status": {"phase": "Running"}});
        (KIND.defaults)(&mut object);
        KIND.prepare_create(&mut object);
        assert_eq!(
            object["status"],
            json!({"phase": "Pending", "qosClass": "BestEffort"})
        );
        assert_eq!(object["metadata"], json!({"name": "a", "generation": 1}));
        assert_eq!(object["spec"]["serviceAccountName"], "default");
        assert_eq!(object["spec"]["tolerations"].as_array().unwrap().len(), 2);
        assert_eq!(object["apiVersion"], "v1");
    }

    #[test]
    fn status_updates_leave_the_rest() {
        let old = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "uid": "1", "labels": {"a": "b"}}, "spec": {"nodeName": "n"}, "status": {"phase": "Pending", "qosClass": "BestEffort"}});
        let mut new = old.clone();
        new["spec"]["nodeName"] = json!("other");
        new["metadata"]["uid"] = json!("2");
        new["status"] = json!({"phase": "Running"});
        KIND.prepare_status(&mut new, &old);
        let mut want = old.clone();
        want["status"]["phase"] = json!("Running");
        assert_eq!(new, want);
    }

    #[test]
    fn grace_periods() {
        let pod = |node: &str, phase: &str| json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": 5}, "status": {"phase": phase}});
        assert_eq!(grace_period(&pod("n", "Running")), 5);
        assert_eq!(grace_period(&pod("", "Pending")), 0);
        assert_eq!(grace_period(&pod("n", "Failed")), 0);
    }
}
