//! Deployment, ReplicaSet, StatefulSet, DaemonSet: how many, and how they change.

use serde_json::Value;

use super::Related;
use super::page::{Page, list, plain, selector, text, time};
use super::pod::{controller, template};

/// A Deployment, with the ReplicaSets of its revisions.
pub(super) fn deployment(page: &mut Page, deployment: &Value, related: &Related) {
    let (metadata, spec, status) = parts(deployment);
    page.field(0, "Name", text(&metadata["name"]));
    page.field(0, "Namespace", text(&metadata["namespace"]));
    page.field(0, "CreationTimestamp", time(&metadata["creationTimestamp"]));
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(&metadata["annotations"]);
    page.field(0, "Selector", selector(&spec["selector"]));
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    page.field(
        0,
        "Replicas",
        format_args!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            plain(&spec["replicas"]),
            count("updatedReplicas"),
            count("replicas"),
            count("availableReplicas"),
            count("unavailableReplicas")
        ),
    );
    page.field(0, "StrategyType", text(&spec["strategy"]["type"]));
    let min_ready = spec["minReadySeconds"].as_i64().unwrap_or(0);
    page.field(0, "MinReadySeconds", min_ready);
    let rolling = &spec["strategy"]["rollingUpdate"];
    if rolling.is_object() {
        let (gone, more) = (
            plain(&rolling["maxUnavailable"]),
            plain(&rolling["maxSurge"]),
        );
        let limits = format!("{gone} max unavailable, {more} max surge");
        page.field(0, "RollingUpdateStrategy", limits);
    }
    template(page, &spec["template"]);
    conditions(page, status);
    revisions(page, deployment, related);
    page.events(related);
}

/// Which ReplicaSet is the current one, and which older ones still have pods.
fn revisions(page: &mut Page, deployment: &Value, related: &Related) {
    let revision =
        |o: &Value| o["metadata"]["annotations"]["deployment.kubernetes.io/revision"].clone();
    let owned = related
        .replica_sets
        .iter()
        .filter(|r| owned_by(r, deployment));
    let (mut new, mut old): (Vec<&Value>, Vec<&Value>) =
        owned.partition(|r| revision(r) == revision(deployment));
    if new.is_empty() && old.is_empty() {
        return;
    }
    for sets in [&mut new, &mut old] {
        sets.sort_by_key(|r| text(&r["metadata"]["creationTimestamp"]));
    }
    let shown = |sets: &[&Value]| {
        let sets: Vec<String> = sets
            .iter()
            .map(|r| {
                let (name, total) = (
                    text(&r["metadata"]["name"]),
                    plain(&r["status"]["replicas"]),
                );
                let wanted = plain(&r["spec"]["replicas"]);
                format!("{name} ({total}/{wanted} replicas created)")
            })
            .collect();
        super::page::or_none(sets.join(", "))
    };
    page.field(0, "OldReplicaSets", shown(&old));
    page.field(0, "NewReplicaSet", shown(&new));
}

/// A ReplicaSet.
pub(super) fn replica_set(page: &mut Page, set: &Value, related: &Related) {
    let (metadata, spec, status) = parts(set);
    page.field(0, "Name", text(&metadata["name"]));
    page.field(0, "Namespace", text(&metadata["namespace"]));
    page.field(0, "Selector", selector(&spec["selector"]));
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(&metadata["annotations"]);
    page.field_if(0, "Controlled By", &controller(set));
    let (current, desired) = (plain(&status["replicas"]), plain(&spec["replicas"]));
    page.field(
        0,
        "Replicas",
        format_args!("{current} current / {desired} desired"),
    );
    pods_status(page, set, related);
    template(page, &spec["template"]);
    conditions(page, status);
    page.events(related);
}

/// A StatefulSet.
pub(super) fn stateful_set(page: &mut Page, set: &Value, related: &Related) {
    let (metadata, spec, status) = parts(set);
    page.field(0, "Name", text(&metadata["name"]));
    page.field(0, "Namespace", text(&metadata["namespace"]));
    page.field(0, "CreationTimestamp", time(&metadata["creationTimestamp"]));
    page.field(0, "Selector", selector(&spec["selector"]));
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(&metadata["annotations"]);
    let (desired, total) = (plain(&spec["replicas"]), plain(&status["replicas"]));
    page.field(
        0,
        "Replicas",
        format_args!("{desired} desired | {total} total"),
    );
    let strategy = &spec["updateStrategy"];
    page.field(0, "Update Strategy", text(&strategy["type"]));
    if let Some(partition) = strategy["rollingUpdate"]["partition"].as_i64() {
        page.field(1, "Partition", partition);
    }
    pods_status(page, set, related);
    template(page, &spec["template"]);
    let claims = list(&spec["volumeClaimTemplates"]);
    if claims.is_empty() {
        page.field(0, "Volume Claims", "<none>");
    } else {
        page.line(0, "Volume Claims:");
    }
    for claim in claims {
        page.field(1, "Name", text(&claim["metadata"]["name"]));
    }
    page.events(related);
}

/// A DaemonSet.
pub(super) fn daemon_set(page: &mut Page, set: &Value, related: &Related) {
    let (metadata, spec, status) = parts(set);
    page.field(0, "Name", text(&metadata["name"]));
    page.field(0, "Namespace", text(&metadata["namespace"]));
    page.field(0, "Selector", selector(&spec["selector"]));
    let nodes = selector(&spec["template"]["spec"]["nodeSelector"]);
    page.field(0, "Node-Selector", nodes);
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(&metadata["annotations"]);
    for (label, field) in [
        (
            "Desired Number of Nodes Scheduled",
            "desiredNumberScheduled",
        ),
        (
            "Current Number of Nodes Scheduled",
            "currentNumberScheduled",
        ),
        (
            "Number of Nodes Scheduled with Up-to-date Pods",
            "updatedNumberScheduled",
        ),
        (
            "Number of Nodes Scheduled with Available Pods",
            "numberAvailable",
        ),
        ("Number of Nodes Misscheduled", "numberMisscheduled"),
    ] {
        let count = status[field].as_i64().unwrap_or(0);
        page.line(0, format_args!("{label}: {count}"));
    }
    pods_status(page, set, related);
    template(page, &spec["template"]);
    page.events(related);
}

fn parts(object: &Value) -> (&Value, &Value, &Value) {
    (&object["metadata"], &object["spec"], &object["status"])
}

fn owned_by(object: &Value, owner: &Value) -> bool {
    list(&object["metadata"]["ownerReferences"])
        .iter()
        .any(|o| o["controller"] == true && o["uid"] == owner["metadata"]["uid"])
}

fn pods_status(page: &mut Page, set: &Value, related: &Related) {
    let in_phase = |phase: &str| {
        let owned = related.pods.iter().filter(|p| owned_by(p, set));
        owned.filter(|p| p["status"]["phase"] == phase).count()
    };
    page.field(
        0,
        "Pods Status",
        format_args!(
            "{} Running / {} Waiting / {} Succeeded / {} Failed",
            in_phase("Running"),
            in_phase("Pending"),
            in_phase("Succeeded"),
            in_phase("Failed")
        ),
    );
}

fn conditions(page: &mut Page, status: &Value) {
    let conditions = list(&status["conditions"]);
    if conditions.is_empty() {
        return;
    }
    page.line(0, "Conditions:");
    page.line(1, "Type\tStatus\tReason");
    page.line(1, "----\t------\t------");
    for c in conditions {
        let (kind, status, reason) = (text(&c["type"]), text(&c["status"]), text(&c["reason"]));
        page.line(1, format_args!("{kind} \t{status}\t{reason}"));
    }
}
