//! Defaults of pods and pod templates, as kube-apiserver fills them in.
//!
//! A template is not defaulted wholly like a Pod: the host
//! ports of a hostNetwork pod, requests from limits and `enableServiceLinks`
//! are filled in Pods only.

use crate::value::{
    at, bool_at, has, list_at, list_at_mut, set, set_default, set_default_text, str_at,
};
use serde_json::{Value, json};

/// The lists of containers of a pod spec.
pub(crate) const CONTAINER_LISTS: &[&str] =
    &["initContainers", "containers", "ephemeralContainers"];

/// File mode of projected files: 0644.
const FILE_MODE: i64 = 0o644;

/// A Pod's own spec.
pub fn pod(object: &mut Value) {
    if !at(object, "spec").is_object() {
        set(object, "spec", json!({}));
    }
    set_default(object, "spec.enableServiceLinks", true);
    let host_network = bool_at(object, "spec.hostNetwork");
    for list in ["containers", "initContainers"] {
        for container in list_at_mut(object, &format!("spec.{list}")) {
            requests_from_limits(container);
            if host_network {
                host_ports(container);
            }
        }
    }
    // The old name of the field is kept beside the new one.
    let account = match str_at(object, "spec.serviceAccountName") {
        "" => str_at(object, "spec.serviceAccount"),
        name => name,
    };
    if !account.is_empty() {
        let account = account.to_owned();
        set(object, "spec.serviceAccountName", account.as_str());
        set(object, "spec.serviceAccount", account);
    }
    if let Some(spec) = object.get_mut("spec") {
        pod_spec(spec);
    }
}

/// The template of a workload.
pub fn template(template: &mut Value) {
    if !at(template, "spec").is_object() {
        set(template, "spec", json!({}));
    }
    if let Some(spec) = template.get_mut("spec") {
        pod_spec(spec);
    }
}

/// What Pods and templates share.
pub fn pod_spec(spec: &mut Value) {
    set_default_text(spec, "restartPolicy", "Always");
    set_default_text(spec, "dnsPolicy", "ClusterFirst");
    set_default_text(spec, "schedulerName", "default-scheduler");
    set_default(spec, "securityContext", json!({}));
    set_default(spec, "terminationGracePeriodSeconds", 30);
    for list in CONTAINER_LISTS {
        for container in list_at_mut(spec, list) {
            self::container(container);
        }
    }
    for volume in list_at_mut(spec, "volumes") {
        self::volume(volume);
    }
}

fn container(container: &mut Value) {
    let policy = pull_policy(str_at(container, "image"));
    set_default_text(container, "imagePullPolicy", policy);
    set_default_text(container, "terminationMessagePath", "/dev/termination-log");
    set_default_text(container, "terminationMessagePolicy", "File");
    set_default(container, "resources", json!({}));
    for port in list_at_mut(container, "ports") {
        set_default_text(port, "protocol", "TCP");
    }
    for variable in list_at_mut(container, "env") {
        if has(variable, "valueFrom.fieldRef") {
            set_default_text(variable, "valueFrom.fieldRef.apiVersion", "v1");
        }
        if has(variable, "valueFrom.resourceFieldRef") {
            set_default(variable, "valueFrom.resourceFieldRef.divisor", "0");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe).filter(|probe| probe.is_object()) {
            self::probe(probe);
        }
    }
    for hook in ["lifecycle.postStart", "lifecycle.preStop"] {
        if has(container, &format!("{hook}.httpGet")) {
            set_default_text(container, &format!("{hook}.httpGet.path"), "/");
            set_default_text(container, &format!("{hook}.httpGet.scheme"), "HTTP");
        }
    }
}

/// `Always` for the tag `latest` or no tag, else `IfNotPresent`.
fn pull_policy(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

fn probe(probe: &mut Value) {
    for (field, number) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        if at(probe, field).as_i64().unwrap_or(0) == 0 {
            set(probe, field, number);
        }
    }
    if has(probe, "httpGet") {
        set_default_text(probe, "httpGet.path", "/");
        set_default_text(probe, "httpGet.scheme", "HTTP");
    }
    if has(probe, "grpc") {
        set_default(probe, "grpc.service", "");
    }
}

fn volume(volume: &mut Value) {
    let only_name = volume.as_object().is_some_and(|map| {
        map.iter()
            .all(|(key, value)| key == "name" || value.is_null())
    });
    if only_name {
        set(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if has(volume, source) {
            set_default(volume, &format!("{source}.defaultMode"), FILE_MODE);
        }
    }
    if has(volume, "hostPath") {
        set_default(volume, "hostPath.type", "");
    }
    for item in list_at_mut(volume, "downwardAPI.items") {
        downward_item(item);
    }
    for source in list_at_mut(volume, "projected.sources") {
        if has(source, "serviceAccountToken") {
            set_default(source, "serviceAccountToken.expirationSeconds", 3600);
        }
        for item in list_at_mut(source, "downwardAPI.items") {
            downward_item(item);
        }
    }
}

fn downward_item(item: &mut Value) {
    if has(item, "fieldRef") {
        set_default_text(item, "fieldRef.apiVersion", "v1");
    }
}

fn requests_from_limits(container: &mut Value) {
    let Some(limits) = at(container, "resources.limits").as_object().cloned() else {
        return;
    };
    for (name, limit) in limits {
        let requests = crate::value::map_mut(crate::value::place(container, "resources.requests"));
        requests.entry(name).or_insert(limit);
    }
}

fn host_ports(container: &mut Value) {
    for port in list_at_mut(container, "ports") {
        let number = at(port, "containerPort").clone();
        if at(port, "hostPort").as_i64().unwrap_or(0) == 0 {
            set(port, "hostPort", number);
        }
    }
}

/// The quality of service of a pod, for `status.qosClass`.
pub fn qos_class(spec: &Value) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for list in ["containers", "initContainers"] {
        for container in list_at(spec, list) {
            for resource in ["cpu", "memory"] {
                let limit = at(container, "resources.limits").get(resource);
                let request = at(container, "resources.requests").get(resource);
                any |= limit.is_some() || request.is_some();
                guaranteed &= limit.is_some() && (request.is_none() || request == limit);
            }
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimal_pod() {
        let mut object = json!({"spec": {"containers": [{"name": "a", "image": "nginx", "ports": [{"containerPort": 80}],
            "readinessProbe": {"httpGet": {"port": 80}}}], "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "x"}}]}});
        pod(&mut object);
        assert_eq!(
            object["spec"],
            json!({
                "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
                "securityContext": {}, "terminationGracePeriodSeconds": 30, "enableServiceLinks": true,
                "containers": [{
                    "name": "a", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "readinessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                        "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                }],
                "volumes": [{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "x", "defaultMode": 420}}],
            })
        );
    }

    #[test]
    fn templates_lack_what_only_pods_get() {
        let spec = json!({"hostNetwork": true, "containers": [{"name": "a", "image": "nginx:1.27",
            "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}}}]});
        let mut object = json!({"spec": spec.clone()});
        pod(&mut object);
        let container = &object["spec"]["containers"][0];
        assert_eq!(container["ports"][0]["hostPort"], 80);
        assert_eq!(container["resources"]["requests"], json!({"cpu": "1"}));
        assert_eq!(container["imagePullPolicy"], "IfNotPresent");
        let mut object = json!({"spec": spec});
        template(&mut object);
        let container = &object["spec"]["containers"][0];
        assert_eq!(container["ports"][0]["hostPort"], Value::Null);
        assert_eq!(container["resources"]["requests"], Value::Null);
        assert_eq!(object["spec"]["enableServiceLinks"], Value::Null);
    }

    #[test]
    fn pull_policies() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:00", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn quality_of_service() {
        let spec = |resources: Value| json!({"containers": [{"resources": resources}]});
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(qos_class(&spec(json!({}))), "BestEffort");
        assert_eq!(
            qos_class(&spec(json!({"limits": both, "requests": both}))),
            "Guaranteed"
        );
        assert_eq!(
            qos_class(&spec(json!({"requests": {"cpu": "1"}}))),
            "Burstable"
        );
    }
}
