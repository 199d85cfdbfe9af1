//! The containers of a pod or of a pod template.

use serde_json::Value;

use super::page::{Page, list, or_none, plain, sorted, text, time};

/// Each container: what it runs and, in a pod, how it is.
pub(super) fn containers(
    page: &mut Page,
    label: &str,
    (containers, statuses): (&Value, Option<&Value>),
    pod: Option<&Value>,
) {
    let containers = list(containers);
    let none = if containers.is_empty() { " <none>" } else { "" };
    page.line(0, format_args!("{label}:{none}"));
    // The names in a template are indented by one more space.
    let indent = if label.starts_with(' ') { " " } else { "" };
    for container in containers {
        page.line(1, format_args!("{indent}{}:", text(&container["name"])));
        let known = statuses.map(list).unwrap_or_default();
        let status = known.iter().find(|s| s["name"] == container["name"]);
        one(page, container, status, pod);
    }
}

fn one(page: &mut Page, container: &Value, status: Option<&Value>, pod: Option<&Value>) {
    if let Some(status) = status {
        page.field(2, "Container ID", text(&status["containerID"]));
    }
    page.field(2, "Image", text(&container["image"]));
    if let Some(status) = status {
        page.field(2, "Image ID", text(&status["imageID"]));
    }
    for (label, field) in [("Port", "containerPort"), ("Host Port", "hostPort")] {
        let ports = ports(container, field);
        let plural = if ports.contains(',') { "s" } else { "" };
        page.line(2, format_args!("{label}{plural}:\t{}", or_none(ports)));
    }
    for (label, field) in [("Command", "command"), ("Args", "args")] {
        let words = list(&container[field]);
        if !words.is_empty() {
            page.line(2, format_args!("{label}:"));
        }
        for line in words.iter().flat_map(|w| text(w).split('\n')) {
            page.line(3, line);
        }
    }
    if let Some(status) = status {
        state(page, "State", &status["state"]);
        if status["lastState"]["terminated"].is_object() {
            state(page, "Last State", &status["lastState"]);
        }
        let ready = if status["ready"] == true {
            "True"
        } else {
            "False"
        };
        page.field(2, "Ready", ready);
        page.field(2, "Restart Count", plain(&status["restartCount"]));
    }
    for (label, field) in [("Limits", "limits"), ("Requests", "requests")] {
        let quantities = sorted(&container["resources"][field]);
        if !quantities.is_empty() {
            page.line(2, format_args!("{label}:"));
        }
        for (name, quantity) in quantities {
            page.field(3, name, plain(quantity));
        }
    }
    for (label, field) in [
        ("Liveness", "livenessProbe"),
        ("Readiness", "readinessProbe"),
        ("Startup", "startupProbe"),
    ] {
        if container[field].is_object() {
            page.field(2, label, probe(&container[field]));
        }
    }
    environment(page, container, pod);
    mounts(page, container);
}

fn ports(container: &Value, field: &str) -> String {
    let shown: Vec<String> = list(&container["ports"])
        .iter()
        .map(|p| {
            let number = p[field].as_i64().unwrap_or(0);
            let protocol = p["protocol"].as_str().unwrap_or("TCP");
            match text(&p["name"]) {
                "" => format!("{number}/{protocol}"),
                name => format!("{number}/{protocol} ({name})"),
            }
        })
        .collect();
    shown.join(", ")
}

fn state(page: &mut Page, label: &str, state: &Value) {
    if let Some(running) = state.get("running") {
        page.field(2, label, "Running");
        page.field(3, "Started", time(&running["startedAt"]));
    } else if let Some(ended) = state.get("terminated") {
        page.field(2, label, "Terminated");
        page.field_if(3, "Reason", text(&ended["reason"]));
        page.field_if(3, "Message", text(&ended["message"]));
        page.field(3, "Exit Code", plain(&ended["exitCode"]));
        if let Some(signal) = ended["signal"].as_i64().filter(|s| *s > 0) {
            page.field(3, "Signal", signal);
        }
        page.field(3, "Started", time(&ended["startedAt"]));
        page.field(3, "Finished", time(&ended["finishedAt"]));
    } else {
        page.field(2, label, "Waiting");
        page.field_if(3, "Reason", text(&state["waiting"]["reason"]));
    }
}

fn probe(probe: &Value) -> String {
    let number = |field: &str| probe[field].as_i64().unwrap_or(0);
    let attributes = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds"),
        number("timeoutSeconds"),
        number("periodSeconds"),
        number("successThreshold"),
        number("failureThreshold"),
    );
    let how = if let Some(exec) = probe.get("exec") {
        let words: Vec<&str> = list(&exec["command"]).iter().map(text).collect();
        format!("exec [{}]", words.join(" "))
    } else if let Some(get) = probe.get("httpGet") {
        let scheme = text(&get["scheme"]).to_lowercase();
        let (host, path) = (text(&get["host"]), text(&get["path"]));
        format!("http-get {scheme}://{host}:{}{path}", plain(&get["port"]))
    } else if let Some(tcp) = probe.get("tcpSocket") {
        format!("tcp-socket {}:{}", text(&tcp["host"]), plain(&tcp["port"]))
    } else if let Some(grpc) = probe.get("grpc") {
        format!(
            "grpc <pod>:{} {}",
            plain(&grpc["port"]),
            text(&grpc["service"])
        )
    } else {
        "unknown".to_owned()
    };
    format!("{how} {attributes}")
}

fn environment(page: &mut Page, container: &Value, pod: Option<&Value>) {
    let sources = list(&container["envFrom"]);
    if !sources.is_empty() {
        page.line(2, "Environment Variables from:");
    }
    for source in sources {
        let (from, of) = match source.get("configMapRef") {
            Some(of) => ("ConfigMap", of),
            None => ("Secret", &source["secretRef"]),
        };
        let prefix = match text(&source["prefix"]) {
            "" => String::new(),
            prefix => format!(" with prefix '{prefix}'"),
        };
        let (name, optional) = (text(&of["name"]), of["optional"] == true);
        page.line(
            3,
            format_args!("{name}\t{from}{prefix}\tOptional: {optional}"),
        );
    }
    let variables = list(&container["env"]);
    if variables.is_empty() {
        page.field(2, "Environment", "<none>");
        return;
    }
    page.line(2, "Environment:");
    for variable in variables {
        let name = text(&variable["name"]);
        let from = &variable["valueFrom"];
        if !from.is_object() {
            for (i, line) in text(&variable["value"]).split('\n').enumerate() {
                let head = if i == 0 {
                    format!("{name}:")
                } else {
                    String::new()
                };
                page.line(3, format_args!("{head}\t{line}"));
            }
        } else {
            page.field(3, name, value_from(from, pod));
        }
    }
}

/// Where a variable's value comes from, and for the pod's own fields the value.
fn value_from(from: &Value, pod: Option<&Value>) -> String {
    if let Some(field) = from.get("fieldRef") {
        let path = text(&field["fieldPath"]);
        let version = field["apiVersion"].as_str().unwrap_or("v1");
        let value = pod.map(|p| pod_field(p, path)).unwrap_or_default();
        return format!("{value} ({version}:{path})");
    }
    for (kind, field, of) in [
        ("secret", "secretKeyRef", "in"),
        ("config map", "configMapKeyRef", "of"),
    ] {
        if let Some(key) = from.get(field) {
            let (name, key, optional) = (
                text(&key["name"]),
                text(&key["key"]),
                key["optional"] == true,
            );
            return format!("<set to the key '{key}' {of} {kind} '{name}'>\tOptional: {optional}");
        }
    }
    let resource = &from["resourceFieldRef"];
    format!(" ({})", text(&resource["resource"]))
}

/// `metadata.labels['app']`, `status.podIP`: a field as the downward API names it.
fn pod_field(pod: &Value, path: &str) -> String {
    if let Some((map, rest)) = path.split_once("['") {
        let key = rest.trim_end_matches("']");
        let found = map.split('.').fold(pod, |at, part| &at[part]);
        return text(&found[key]).to_owned();
    }
    let found = path.split('.').fold(pod, |at, part| &at[part]);
    text(found).to_owned()
}

fn mounts(page: &mut Page, container: &Value) {
    let mut mounts: Vec<&Value> = list(&container["volumeMounts"]).iter().collect();
    if mounts.is_empty() {
        page.field(2, "Mounts", "<none>");
        return;
    }
    page.line(2, "Mounts:");
    mounts.sort_by_key(|m| text(&m["mountPath"]));
    for mount in mounts {
        let mut flags = if mount["readOnly"] == true {
            "ro"
        } else {
            "rw"
        }
        .to_owned();
        if !text(&mount["subPath"]).is_empty() {
            flags.push_str(&format!(",path={:?}", text(&mount["subPath"])));
        }
        let (path, name) = (text(&mount["mountPath"]), text(&mount["name"]));
        page.line(3, format_args!("{path} from {name} ({flags})"));
    }
}
