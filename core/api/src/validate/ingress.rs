//! Rules for Ingresses and IngressClasses.

use super::{immutable, invalid, names};
use crate::cause::Cause;
use crate::value::{at, has, int_at, list_at, str_at};
use serde_json::Value;

/// What a path of type Exact or Prefix must not contain, and not end with.
const BAD_SEQUENCES: &[&str] = &["//", "/./", "/../", "%2f", "%2F"];
const BAD_ENDS: &[&str] = &["/..", "/."];

/// Ingress.
pub fn ingress(object: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let backend = "spec.defaultBackend";
    if has(object, backend) {
        causes.extend(backend_causes(backend, at(object, backend)));
    } else if list_at(object, "spec.rules").is_empty() {
        let message = "either `defaultBackend` or `rules` must be specified";
        causes.push(Cause::invalid("spec", &Value::Array(Vec::new()), message));
    }
    for (index, rule) in list_at(object, "spec.rules").iter().enumerate() {
        let path = format!("spec.rules[{index}]");
        causes.extend(host(&format!("{path}.host"), str_at(rule, "host")));
        if has(rule, "http") {
            causes.extend(paths(&format!("{path}.http.paths"), rule));
        }
    }
    for (index, tls) in list_at(object, "spec.tls").iter().enumerate() {
        for (at_host, name) in list_at(tls, "hosts").iter().enumerate() {
            let path = format!("spec.tls[{index}].hosts[{at_host}]");
            causes.extend(host(&path, name.as_str().unwrap_or_default()));
        }
    }
    let class = str_at(object, "spec.ingressClassName");
    if !class.is_empty() {
        let messages = names::dns1123_subdomain(class);
        causes.extend(invalid("spec.ingressClassName", &class.into(), messages));
    }
    causes
}

fn host(path: &str, host: &str) -> Vec<Cause> {
    if host.is_empty() {
        return Vec::new();
    }
    let value = Value::from(host);
    if host.parse::<std::net::IpAddr>().is_ok() {
        let message = "must be a DNS name, not an IP address";
        return vec![Cause::invalid(path, &value, message)];
    }
    // A star stands for one whole label, the first.
    let rest = host.strip_prefix("*.").unwrap_or(host);
    invalid(path, &value, names::dns1123_subdomain(rest))
}

fn paths(path: &str, rule: &Value) -> Vec<Cause> {
    let paths = list_at(rule, "http.paths");
    if paths.is_empty() {
        return vec![Cause::required(path, "")];
    }
    let mut causes = Vec::new();
    for (index, one) in paths.iter().enumerate() {
        let path = format!("{path}[{index}]");
        causes.extend(path_causes(&path, one));
        causes.extend(backend_causes(
            &format!("{path}.backend"),
            at(one, "backend"),
        ));
    }
    causes
}

fn path_causes(path: &str, one: &Value) -> Vec<Cause> {
    let text = str_at(one, "path");
    let value = Value::from(text);
    let at_path = format!("{path}.path");
    let mut causes = Vec::new();
    match str_at(one, "pathType") {
        "" => {
            let message = "pathType must be specified";
            causes.push(Cause::required(format!("{path}.pathType"), message));
        }
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                causes.push(Cause::invalid(
                    at_path.as_str(),
                    &value,
                    "must be an absolute path",
                ));
            }
            for bad in BAD_SEQUENCES.iter().filter(|bad| text.contains(**bad)) {
                let message = format!("must not contain '{bad}'");
                causes.push(Cause::invalid(at_path.as_str(), &value, &message));
            }
            for bad in BAD_ENDS.iter().filter(|bad| text.ends_with(**bad)) {
                let message = format!("cannot end with '{bad}'");
                causes.push(Cause::invalid(at_path.as_str(), &value, &message));
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                causes.push(Cause::invalid(
                    at_path.as_str(),
                    &value,
                    "must be an absolute path",
                ));
            }
        }
        other => causes.push(Cause::not_supported(
            format!("{path}.pathType"),
            &other.into(),
            &["Exact", "ImplementationSpecific", "Prefix"],
        )),
    }
    causes
}

fn backend_causes(path: &str, backend: &Value) -> Vec<Cause> {
    let (service, resource) = (has(backend, "service"), has(backend, "resource"));
    match (service, resource) {
        (true, true) => {
            let message = "cannot set both resource and service backends";
            vec![Cause::invalid(path, &"".into(), message)]
        }
        (false, false) => vec![Cause::required(
            path,
            "resource or service backend is required",
        )],
        (false, true) => ["kind", "name"]
            .iter()
            .filter(|field| str_at(at(backend, "resource"), field).is_empty())
            .map(|field| Cause::required(format!("{path}.resource.{field}"), ""))
            .collect(),
        (true, false) => service_backend(&format!("{path}.service"), at(backend, "service")),
    }
}

fn service_backend(path: &str, service: &Value) -> Vec<Cause> {
    let name = str_at(service, "name");
    let mut causes = match name {
        "" => vec![Cause::required(format!("{path}.name"), "")],
        _ => invalid(
            &format!("{path}.name"),
            &name.into(),
            names::dns1123_label(name),
        ),
    };
    let (port_name, number) = (str_at(service, "port.name"), int_at(service, "port.number"));
    let number = number.filter(|number| *number != 0);
    match (port_name, number) {
        ("", None) => {
            causes.push(Cause::required(path, "port name or number is required"));
        }
        ("", Some(number)) => {
            let messages = names::port_number(number);
            causes.extend(invalid(
                &format!("{path}.port.number"),
                &number.into(),
                messages,
            ));
        }
        (_, Some(_)) => {
            let message = "cannot set both port name & port number";
            causes.push(Cause::invalid(path, &"".into(), message));
        }
        (name, None) => {
            let messages = names::port_name(name);
            causes.extend(invalid(
                &format!("{path}.port.name"),
                &name.into(),
                messages,
            ));
        }
    }
    causes
}

/// IngressClass.
pub fn ingress_class(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let path = "spec.controller";
    let mut causes = Vec::new();
    let controller = str_at(object, path);
    if controller.len() > 250 {
        causes.push(Cause::too_long(path, 250));
    }
    let prefixed = controller.split_once('/').is_some_and(|(domain, rest)| {
        names::dns1123_subdomain(domain).is_empty() && !rest.is_empty()
    });
    if !controller.is_empty() && !prefixed {
        let message = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        causes.push(Cause::invalid(path, &controller.into(), message));
    }
    if has(object, "spec.parameters") {
        causes.extend(class_parameters(at(object, "spec.parameters")));
    }
    causes.extend(old.and_then(|old| immutable(path, at(object, path), at(old, path))));
    causes
}

fn class_parameters(parameters: &Value) -> Vec<Cause> {
    let path = "spec.parameters";
    let mut causes = Vec::new();
    for field in ["kind", "name"] {
        if str_at(parameters, field).is_empty() {
            let message = format!("{field} is required");
            causes.push(Cause::required(format!("{path}.{field}"), &message));
        }
    }
    let namespace = str_at(parameters, "namespace");
    match str_at(parameters, "scope") {
        "Cluster" if !namespace.is_empty() => {
            let message = "`parameters.scope` is set to 'Cluster'";
            causes.push(Cause::forbidden(format!("{path}.namespace"), message));
        }
        "Namespace" if namespace.is_empty() => {
            let message = "`parameters.scope` is set to 'Namespace'";
            causes.push(Cause::required(format!("{path}.namespace"), message));
        }
        "Cluster" | "Namespace" => {}
        other => causes.push(Cause::not_supported(
            format!("{path}.scope"),
            &other.into(),
            &["Cluster", "Namespace"],
        )),
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::ingress::{CLASS, KIND};
    use serde_json::json;

    fn lines(spec: Value) -> Vec<String> {
        let object = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
        let causes = KIND.validate_create(&object);
        causes.iter().map(Cause::to_string).collect()
    }

    fn path(path: Value) -> Value {
        let mut path = path;
        if path.get("backend").is_none() {
            path["backend"] = json!({"service": {"name": "web", "port": {"number": 80}}});
        }
        json!({"rules": [{"host": "a.example", "http": {"paths": [path]}}]})
    }

    #[test]
    fn ingresses() {
        let good = path(json!({"path": "/", "pathType": "Prefix"}));
        assert_eq!(lines(good), [""; 0]);
        let cases = [
            (
                json!({}),
                "spec: Invalid value: []: either `defaultBackend` or `rules` must be specified",
            ),
            (
                json!({"rules": [{"host": "1.2.3.4"}]}),
                "spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
            ),
            (
                path(json!({"path": "/"})),
                "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
            ),
            (
                path(json!({"path": "x", "pathType": "Exact"})),
                "spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path",
            ),
            (
                path(json!({"path": "/a//b", "pathType": "Prefix"})),
                "spec.rules[0].http.paths[0].path: Invalid value: \"/a//b\": must not contain '//'",
            ),
            (
                path(json!({"path": "/", "pathType": "Odd"})),
                "spec.rules[0].http.paths[0].pathType: Unsupported value: \"Odd\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
            ),
            (
                path(
                    json!({"path": "/", "pathType": "Exact", "backend": {"service": {"name": "web"}}}),
                ),
                "spec.rules[0].http.paths[0].backend.service: Required value: port name or number is required",
            ),
            (
                json!({"defaultBackend": {"service": {"name": "web", "port": {"number": 80, "name": "http"}}}}),
                "spec.defaultBackend.service: Invalid value: \"\": cannot set both port name & port number",
            ),
        ];
        for (spec, text) in cases {
            assert_eq!(lines(spec), [text]);
        }
        assert_eq!(
            lines(json!({"rules": [{"host": "*.example.com"}]})),
            [""; 0]
        );
    }

    #[test]
    fn classes() {
        let object = |controller: &str| json!({"metadata": {"name": "c", "resourceVersion": "1"}, "spec": {"controller": controller}});
        assert_eq!(CLASS.validate_create(&object("example.com/x")), []);
        let causes = CLASS.validate_create(&object("nginx"));
        assert!(causes[0].to_string().contains("domain-prefixed path"));
        let causes = CLASS.validate_update(&object("example.com/y"), &object("example.com/x"));
        assert!(causes[0].to_string().contains("field is immutable"));
    }
}
