//! Nodes and namespaces.

use serde_json::Value;

use super::Related;
use super::page::{Page, age, list, or_none, plain, sorted, text, time};

/// A node: its addresses, its pod ranges and the pods on it.
pub(super) fn node(page: &mut Page, node: &Value, related: &Related) {
    let (metadata, spec, status) = (&node["metadata"], &node["spec"], &node["status"]);
    page.field(0, "Name", text(&metadata["name"]));
    let roles: Vec<&str> = sorted(&metadata["labels"])
        .into_iter()
        .filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    page.field(0, "Roles", or_none(roles.join(",")));
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(&metadata["annotations"]);
    page.field(0, "CreationTimestamp", time(&metadata["creationTimestamp"]));
    taints(page, &spec["taints"]);
    page.field(0, "Unschedulable", spec["unschedulable"] == true);
    if let Some(lease) = &related.lease {
        page.line(0, "Lease:");
        for (label, field) in [("AcquireTime", "acquireTime"), ("RenewTime", "renewTime")] {
            if field == "acquireTime" {
                let holder = lease["spec"]["holderIdentity"].as_str();
                page.field(1, "HolderIdentity", holder.unwrap_or("<unset>"));
            }
            page.field(1, label, time(&lease["spec"][field]));
        }
    }
    conditions(page, status);
    page.line(0, "Addresses:");
    for address in list(&status["addresses"]) {
        page.field(1, text(&address["type"]), text(&address["address"]));
    }
    for (label, field) in [("Capacity", "capacity"), ("Allocatable", "allocatable")] {
        page.line(0, format_args!("{label}:"));
        for (name, quantity) in sorted(&status[field]) {
            page.field(1, name, plain(quantity));
        }
    }
    system(page, &status["nodeInfo"]);
    page.field_if(0, "PodCIDR", text(&spec["podCIDR"]));
    let ranges: Vec<&str> = list(&spec["podCIDRs"]).iter().map(text).collect();
    page.field_if(0, "PodCIDRs", &ranges.join(","));
    pods(page, related);
    page.events(related);
}

fn taints(page: &mut Page, taints: &Value) {
    let mut lines: Vec<String> = list(taints)
        .iter()
        .map(|t| match text(&t["value"]) {
            "" => format!("{}:{}", text(&t["key"]), text(&t["effect"])),
            value => format!("{}={value}:{}", text(&t["key"]), text(&t["effect"])),
        })
        .collect();
    lines.sort();
    if lines.is_empty() {
        page.field(0, "Taints", "<none>");
    }
    for (i, line) in lines.iter().enumerate() {
        let head = if i == 0 { "Taints:" } else { "" };
        page.line(0, format_args!("{head}\t{line}"));
    }
}

fn conditions(page: &mut Page, status: &Value) {
    let conditions = list(&status["conditions"]);
    if conditions.is_empty() {
        return;
    }
    page.line(0, "Conditions:");
    page.line(
        1,
        "Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage",
    );
    page.line(
        1,
        "----\t------\t-----------------\t------------------\t------\t-------",
    );
    for c in conditions {
        let row = [
            text(&c["type"]).to_owned(),
            text(&c["status"]).to_owned(),
            time(&c["lastHeartbeatTime"]),
            time(&c["lastTransitionTime"]),
            text(&c["reason"]).to_owned(),
            text(&c["message"]).to_owned(),
        ];
        page.line(1, row.join(" \t"));
    }
}

fn system(page: &mut Page, info: &Value) {
    page.line(0, "System Info:");
    for (label, field) in [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
    ] {
        page.field(1, label, text(&info[field]));
    }
}

/// The pods of the node with their addresses, where kubectl counts CPU and memory.
fn pods(page: &mut Page, related: &Related) {
    let ended = |p: &&Value| !["Succeeded", "Failed"].contains(&text(&p["status"]["phase"]));
    let pods: Vec<&Value> = related.pods.iter().filter(ended).collect();
    let count = pods.len();
    page.field(0, "Non-terminated Pods", format_args!("({count} in total)"));
    page.line(1, "Namespace\tName\tIP\tAge");
    page.line(1, "---------\t----\t--\t---");
    for pod in pods {
        let metadata = &pod["metadata"];
        let row = [
            text(&metadata["namespace"]).to_owned(),
            text(&metadata["name"]).to_owned(),
            or_none(text(&pod["status"]["podIP"]).to_owned()),
            age(&metadata["creationTimestamp"], related.now),
        ];
        page.line(1, row.join("\t"));
    }
}

/// A namespace.
pub(super) fn namespace(page: &mut Page, namespace: &Value) {
    page.metadata(namespace);
    page.field(0, "Status", text(&namespace["status"]["phase"]));
    page.conditions(list(&namespace["status"]["conditions"]));
}
