//! Rules for containers.

use super::quantity::{MESSAGE, Quantity};
use super::{invalid, names, not_negative, service};
use crate::cause::Cause;
use crate::value::{at, has, int_at, list_at, map_at, str_at};
use serde_json::Value;
use std::collections::BTreeSet;

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// One container of the list `list` of a pod spec.
pub(super) fn container(path: &str, container: &Value, volumes: &BTreeSet<&str>) -> Vec<Cause> {
    let mut causes = Vec::new();
    match str_at(container, "name") {
        "" => causes.push(Cause::required(format!("{path}.name"), "")),
        name => causes.extend(invalid(
            &format!("{path}.name"),
            &name.into(),
            names::dns1123_label(name),
        )),
    }
    let image = str_at(container, "image");
    if image.is_empty() {
        causes.push(Cause::required(format!("{path}.image"), ""));
    } else if image.trim() != image {
        let message = "must not have leading or trailing whitespace";
        causes.push(Cause::invalid(
            format!("{path}.image"),
            &image.into(),
            message,
        ));
    }
    match str_at(container, "imagePullPolicy") {
        "" => causes.push(Cause::required(format!("{path}.imagePullPolicy"), "")),
        policy if PULL_POLICIES.contains(&policy) => {}
        policy => {
            causes.push(Cause::not_supported(
                format!("{path}.imagePullPolicy"),
                &policy.into(),
                PULL_POLICIES,
            ));
        }
    }
    causes.extend(ports(path, container));
    causes.extend(env(path, container));
    causes.extend(mounts(path, container, volumes));
    causes.extend(resources(path, container));
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if has(container, name) {
            causes.extend(probe(
                &format!("{path}.{name}"),
                at(container, name),
                name != "readinessProbe",
            ));
        }
    }
    causes
}

fn ports(path: &str, container: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, port) in list_at(container, "ports").iter().enumerate() {
        let path = format!("{path}.ports[{index}]");
        let name = str_at(port, "name");
        if !name.is_empty() {
            causes.extend(invalid(
                &format!("{path}.name"),
                &name.into(),
                names::port_name(name),
            ));
            if !seen.insert(name) {
                causes.push(Cause::duplicate(format!("{path}.name"), &name.into()));
            }
        }
        match int_at(port, "containerPort").unwrap_or(0) {
            0 => causes.push(Cause::required(format!("{path}.containerPort"), "")),
            number => {
                causes.extend(invalid(
                    &format!("{path}.containerPort"),
                    &number.into(),
                    names::port_number(number),
                ));
            }
        }
        if let Some(number) = int_at(port, "hostPort").filter(|number| *number != 0) {
            causes.extend(invalid(
                &format!("{path}.hostPort"),
                &number.into(),
                names::port_number(number),
            ));
        }
        match str_at(port, "protocol") {
            "" => causes.push(Cause::required(format!("{path}.protocol"), "")),
            protocol if PROTOCOLS.contains(&protocol) => {}
            protocol => causes.push(Cause::not_supported(
                format!("{path}.protocol"),
                &protocol.into(),
                PROTOCOLS,
            )),
        }
    }
    causes
}

fn env(path: &str, container: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (index, variable) in list_at(container, "env").iter().enumerate() {
        let path = format!("{path}.env[{index}]");
        match str_at(variable, "name") {
            "" => causes.push(Cause::required(format!("{path}.name"), "")),
            name => causes.extend(invalid(
                &format!("{path}.name"),
                &name.into(),
                names::env_name(name),
            )),
        }
        let Some(from) = map_at(variable, "valueFrom") else {
            continue;
        };
        let path = format!("{path}.valueFrom");
        let sources = from.values().filter(|source| !source.is_null()).count();
        if !str_at(variable, "value").is_empty() {
            let message = "may not be specified when `value` is not empty";
            causes.push(Cause::invalid(&path, &"".into(), message));
        } else if sources == 0 {
            let message = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
            causes.push(Cause::invalid(&path, &"".into(), message));
        } else if sources > 1 {
            causes.push(Cause::invalid(
                &path,
                &"".into(),
                "may not have more than one field specified at a time",
            ));
        }
    }
    causes
}

fn mounts(path: &str, container: &Value, volumes: &BTreeSet<&str>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, mount) in list_at(container, "volumeMounts").iter().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        match str_at(mount, "name") {
            "" => causes.push(Cause::required(format!("{path}.name"), "")),
            name if volumes.contains(name) => {}
            name => causes.push(Cause::not_found(format!("{path}.name"), &name.into())),
        }
        match str_at(mount, "mountPath") {
            "" => causes.push(Cause::required(format!("{path}.mountPath"), "")),
            place if !seen.insert(place) => {
                causes.push(Cause::invalid(
                    format!("{path}.mountPath"),
                    &place.into(),
                    "must be unique",
                ));
            }
            _ => {}
        }
    }
    causes
}

fn resources(path: &str, container: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let path = format!("{path}.resources");
    let text = |value: &Value| match value.as_str() {
        Some(text) => text.to_owned(),
        None => value.to_string(),
    };
    for field in ["limits", "requests"] {
        for (name, value) in map_at(container, &format!("resources.{field}"))
            .into_iter()
            .flatten()
        {
            let path = format!("{path}.{field}[{name}]");
            match Quantity::parse(&text(value)) {
                None => causes.push(Cause::invalid(path, value, MESSAGE)),
                Some(quantity) if quantity.is_negative() => {
                    causes.push(Cause::invalid(
                        path,
                        value,
                        "must be greater than or equal to 0",
                    ));
                }
                Some(_) => {}
            }
        }
    }
    for (name, request) in map_at(container, "resources.requests")
        .into_iter()
        .flatten()
    {
        let limit = at(container, "resources.limits").get(name);
        let Some(limit) = limit.map(text) else {
            continue;
        };
        if Quantity::parse(&text(request)) > Quantity::parse(&limit)
            && Quantity::parse(&limit).is_some()
        {
            let message = format!("must be less than or equal to {name} limit of {limit}");
            causes.push(Cause::invalid(
                format!("{path}.requests"),
                &text(request).into(),
                &message,
            ));
        }
    }
    causes
}

fn probe(path: &str, probe: &Value, once: bool) -> Vec<Cause> {
    let mut causes = handler(path, probe);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        causes.extend(not_negative(&format!("{path}.{field}"), at(probe, field)));
    }
    let successes = at(probe, "successThreshold");
    if once && successes.as_i64().is_some_and(|count| count != 1) {
        causes.push(Cause::invalid(
            format!("{path}.successThreshold"),
            successes,
            "must be 1",
        ));
    }
    causes
}

/// Exactly one of exec, httpGet, tcpSocket, grpc.
fn handler(path: &str, probe: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut count = 0;
    for name in ["exec", "httpGet", "tcpSocket", "grpc"] {
        if !has(probe, name) {
            continue;
        }
        count += 1;
        let path = format!("{path}.{name}");
        if count > 1 {
            causes.push(Cause::forbidden(
                &path,
                "may not specify more than 1 handler type",
            ));
            continue;
        }
        let value = at(probe, name);
        match name {
            "exec" if list_at(value, "command").is_empty() => {
                causes.push(Cause::required(format!("{path}.command"), ""));
            }
            "exec" => {}
            _ => causes.extend(service::target_port(
                &format!("{path}.port"),
                at(value, "port"),
            )),
        }
    }
    if count == 0 {
        causes.push(Cause::required(path, "must specify a handler type"));
    }
    causes
}
