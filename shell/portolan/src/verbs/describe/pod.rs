//! Pods, and the pod templates of whatever makes them.

use serde_json::Value;

use super::Related;
use super::containers::containers;
use super::page::{Page, list, plain, sorted, text, time};

/// A pod: where it is, what runs in it, and what happened to it.
pub(super) fn pod(page: &mut Page, pod: &Value, related: &Related) {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    head(page, pod);
    page.field(0, "IP", text(&status["podIP"]));
    let ips = list(&status["podIPs"]);
    if ips.is_empty() {
        page.field(0, "IPs", "<none>");
    } else {
        page.line(0, "IPs:");
    }
    for ip in ips {
        page.field(1, "IP", text(&ip["ip"]));
    }
    page.field_if(0, "Controlled By", &controller(pod));
    for (label, field, statuses) in [
        ("Init Containers", "initContainers", "initContainerStatuses"),
        ("Containers", "containers", "containerStatuses"),
    ] {
        if field == "containers" || !list(&spec[field]).is_empty() {
            containers(
                page,
                label,
                (&spec[field], Some(&status[statuses])),
                Some(pod),
            );
        }
    }
    let gates = list(&spec["readinessGates"]);
    if !gates.is_empty() {
        page.line(0, "Readiness Gates:");
        page.line(1, "Type\tStatus");
    }
    let conditions = list(&status["conditions"]);
    for gate in gates {
        let kind = &gate["conditionType"];
        let held = conditions.iter().find(|c| c["type"] == *kind);
        let status = held.map_or("<none>", |c| text(&c["status"]));
        page.line(1, format_args!("{} \t{status} ", text(kind)));
    }
    if !conditions.is_empty() {
        page.line(0, "Conditions:");
        page.line(1, "Type\tStatus");
    }
    for condition in conditions {
        let (kind, status) = (text(&condition["type"]), text(&condition["status"]));
        page.line(1, format_args!("{kind} \t{status} "));
    }
    volumes(page, "", &spec["volumes"]);
    page.field(0, "QoS Class", text(&status["qosClass"]));
    page.labels(0, "Node-Selectors", &spec["nodeSelector"]);
    tolerations(page, 0, &spec["tolerations"]);
    page.events(related);
}

/// Everything above the addresses.
fn head(page: &mut Page, pod: &Value) {
    let (metadata, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
    page.field(0, "Name", text(&metadata["name"]));
    page.field(0, "Namespace", text(&metadata["namespace"]));
    if let Some(priority) = spec["priority"].as_i64() {
        page.field(0, "Priority", priority);
    }
    page.field_if(0, "Priority Class Name", text(&spec["priorityClassName"]));
    page.field_if(0, "Runtime Class Name", text(&spec["runtimeClassName"]));
    page.field_if(0, "Service Account", text(&spec["serviceAccountName"]));
    match text(&spec["nodeName"]) {
        "" => page.field(0, "Node", "<none>"),
        node => page.field(
            0,
            "Node",
            format_args!("{node}/{}", text(&status["hostIP"])),
        ),
    }
    if status["startTime"].is_string() {
        page.field(0, "Start Time", time(&status["startTime"]));
    }
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(&metadata["annotations"]);
    let phase = text(&status["phase"]);
    let going =
        metadata["deletionTimestamp"].is_string() && !["Failed", "Succeeded"].contains(&phase);
    if going {
        let since = super::page::age(&metadata["deletionTimestamp"], jiff::Timestamp::now());
        page.field(0, "Status", format_args!("Terminating (lasts {since})"));
        let grace = plain(&metadata["deletionGracePeriodSeconds"]);
        page.field(0, "Termination Grace Period", format_args!("{grace}s"));
    } else {
        page.field(0, "Status", phase);
    }
    page.field_if(0, "Reason", text(&status["reason"]));
    page.field_if(0, "Message", text(&status["message"]));
}

/// `ReplicaSet/web-7c65b57496`, or nothing.
pub(super) fn controller(object: &Value) -> String {
    let owners = list(&object["metadata"]["ownerReferences"]);
    let found = owners.iter().find(|o| o["controller"] == true);
    found.map_or_else(String::new, |o| {
        format!("{}/{}", text(&o["kind"]), text(&o["name"]))
    })
}

/// The template of a Deployment, ReplicaSet, StatefulSet or DaemonSet.
pub(super) fn template(page: &mut Page, template: &Value) {
    let spec = &template["spec"];
    page.line(0, "Pod Template:");
    page.labels(1, "Labels", &template["metadata"]["labels"]);
    for (i, (key, value)) in sorted(&template["metadata"]["annotations"])
        .iter()
        .enumerate()
    {
        let head = if i == 0 { "Annotations:" } else { "" };
        page.line(1, format_args!("{head}\t{key}: {}", text(value)));
    }
    page.field_if(1, "Service Account", text(&spec["serviceAccountName"]));
    if !list(&spec["initContainers"]).is_empty() {
        containers(
            page,
            "  Init Containers",
            (&spec["initContainers"], None),
            None,
        );
    }
    containers(page, "  Containers", (&spec["containers"], None), None);
    volumes(page, "  ", &spec["volumes"]);
    page.field_if(1, "Priority Class Name", text(&spec["priorityClassName"]));
    page.labels(1, "Node-Selectors", &spec["nodeSelector"]);
    tolerations(page, 1, &spec["tolerations"]);
}

fn volumes(page: &mut Page, space: &str, volumes: &Value) {
    let volumes = list(volumes);
    if volumes.is_empty() {
        page.line(0, format_args!("{space}Volumes:\t<none>"));
        return;
    }
    page.line(0, format_args!("{space}Volumes:"));
    let indent = if space.is_empty() { "" } else { " " };
    for volume in volumes {
        page.line(1, format_args!("{indent}{}:", text(&volume["name"])));
        volume_source(page, volume);
    }
}

fn volume_source(page: &mut Page, volume: &Value) {
    let optional = |v: &Value| v["optional"] == true;
    if let Some(source) = volume.get("emptyDir") {
        let kind = "EmptyDir (a temporary directory that shares a pod's lifetime)";
        page.field(2, "Type", kind);
        page.field(2, "Medium", text(&source["medium"]));
        let limit = source["sizeLimit"].as_str().unwrap_or("<unset>");
        page.field(2, "SizeLimit", limit);
    } else if let Some(source) = volume.get("configMap") {
        page.field(2, "Type", "ConfigMap (a volume populated by a ConfigMap)");
        page.field(2, "Name", text(&source["name"]));
        page.field(2, "Optional", optional(source));
    } else if let Some(source) = volume.get("secret") {
        page.field(2, "Type", "Secret (a volume populated by a Secret)");
        page.field(2, "SecretName", text(&source["secretName"]));
        page.field(2, "Optional", optional(source));
    } else if let Some(source) = volume.get("hostPath") {
        page.field(2, "Type", "HostPath (bare host directory volume)");
        page.field(2, "Path", text(&source["path"]));
        let kind = source["type"].as_str().unwrap_or("<none>");
        page.field(2, "HostPathType", kind);
    } else if let Some(projected) = volume.get("projected") {
        let kind = "Projected (a volume that contains injected data from multiple sources)";
        page.field(2, "Type", kind);
        for source in list(&projected["sources"]) {
            projected_source(page, source);
        }
    } else {
        page.line(1, "<unknown>");
    }
}

fn projected_source(page: &mut Page, source: &Value) {
    for (label, field) in [("SecretName", "secret"), ("ConfigMapName", "configMap")] {
        if let Some(from) = source.get(field) {
            page.field(2, label, text(&from["name"]));
            page.field(2, "Optional", from["optional"] == true);
        }
    }
    if source.get("downwardAPI").is_some() {
        page.field(2, "DownwardAPI", true);
    }
    if let Some(token) = source.get("serviceAccountToken") {
        let seconds = plain(&token["expirationSeconds"]);
        page.field(2, "TokenExpirationSeconds", seconds);
    }
}

fn tolerations(page: &mut Page, level: usize, tolerations: &Value) {
    let mut lines: Vec<String> = list(tolerations).iter().map(toleration).collect();
    lines.sort();
    if lines.is_empty() {
        page.field(level, "Tolerations", "<none>");
    }
    for (i, line) in lines.iter().enumerate() {
        let head = if i == 0 { "Tolerations:" } else { "" };
        page.line(level, format_args!("{head}\t{line}"));
    }
}

/// `node.kubernetes.io/not-ready:NoExecute op=Exists for 300s`
fn toleration(toleration: &Value) -> String {
    let part = |field: &str| text(&toleration[field]);
    let mut line = part("key").to_owned();
    if !part("value").is_empty() {
        line.push_str(&format!("={}", part("value")));
    }
    if !part("effect").is_empty() {
        line.push_str(&format!(":{}", part("effect")));
    }
    if part("operator") == "Exists" && part("value").is_empty() {
        let space = if line.is_empty() { "" } else { " " };
        line.push_str(&format!("{space}op=Exists"));
    }
    if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
        line.push_str(&format!(" for {seconds}s"));
    }
    line
}
