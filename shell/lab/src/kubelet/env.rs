//! A container's environment: variables of Services, `envFrom`, `env`, and the
//! fields of the pod that may be referred to. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    Resource,
    api::core::v1::{Container, EnvVarSource, Pod, Service},
};

use super::resources;
use crate::container::{DEFAULT_PATH, files::expand};

/// ConfigMaps and Secrets that a pod refers to, by kind and name.
pub(super) type Sources = BTreeMap<(&'static str, String), BTreeMap<String, Vec<u8>>>;

/// What the node knows of a pod besides its object.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) hostname: String,
    pub(super) node_name: String,
    pub(super) pod_ips: Vec<IpAddr>,
    pub(super) host_ips: Vec<IpAddr>,
}

/// The variables that tell of Services, as kubelet's `envvars` makes them.
pub(super) fn of_services<'a>(
    services: impl IntoIterator<Item = &'a Service>,
) -> BTreeMap<String, String> {
    let mut vars = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.clone().unwrap_or_default();
        let Some(spec) = &service.spec else { continue };
        let ip = spec
            .cluster_ip
            .as_deref()
            .and_then(|ip| ip.parse::<IpAddr>().ok());
        let (Some(ip), Some(ports)) = (ip, &spec.ports) else {
            continue;
        };
        let upper = |text: &str| text.to_uppercase().replace('-', "_");
        let prefix = upper(&name);
        vars.insert(format!("{prefix}_SERVICE_HOST"), ip.to_string());
        for (index, port) in ports.iter().enumerate() {
            let number = port.port.to_string();
            if index == 0 {
                vars.insert(format!("{prefix}_SERVICE_PORT"), number.clone());
            }
            if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                vars.insert(
                    format!("{prefix}_SERVICE_PORT_{}", upper(port_name)),
                    number.clone(),
                );
            }
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let low = protocol.to_lowercase();
            let at = match ip {
                IpAddr::V4(ip) => format!("{ip}:{number}"),
                IpAddr::V6(ip) => format!("[{ip}]:{number}"),
            };
            let url = format!("{low}://{at}");
            if index == 0 {
                vars.insert(format!("{prefix}_PORT"), url.clone());
            }
            let link = format!("{prefix}_PORT_{number}_{protocol}");
            vars.insert(format!("{link}_PROTO"), low);
            vars.insert(format!("{link}_PORT"), number);
            vars.insert(format!("{link}_ADDR"), ip.to_string());
            vars.insert(link, url);
        }
    }
    vars
}

/// A field that `fieldRef` names.
pub(super) fn field(path: &str, pod: &Pod, facts: &Facts) -> Result<String, String> {
    let meta = &pod.metadata;
    let join = |ips: &[IpAddr]| {
        ips.iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(",")
    };
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    let spec = pod.spec.as_ref();
    let entry = |map: &Option<BTreeMap<String, String>>, rest: &str| {
        let key = rest.trim_start_matches("['").trim_end_matches("']");
        map.as_ref()
            .and_then(|map| map.get(key))
            .cloned()
            .unwrap_or_default()
    };
    let all = |map: &Option<BTreeMap<String, String>>| {
        let pairs = map
            .iter()
            .flatten()
            .map(|(key, value)| format!("{key}={value:?}"));
        pairs.collect::<Vec<_>>().join("\n")
    };
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => all(&meta.labels),
        "metadata.annotations" => all(&meta.annotations),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => spec
            .and_then(|spec| spec.service_account_name.clone())
            .unwrap_or_else(|| "default".to_owned()),
        "status.podIP" => first(&facts.pod_ips),
        "status.podIPs" => join(&facts.pod_ips),
        "status.hostIP" => first(&facts.host_ips),
        "status.hostIPs" => join(&facts.host_ips),
        _ => {
            if let Some(rest) = path.strip_prefix("metadata.labels") {
                entry(&meta.labels, rest)
            } else if let Some(rest) = path.strip_prefix("metadata.annotations") {
                entry(&meta.annotations, rest)
            } else {
                return Err(format!("unsupported fieldPath: {path}"));
            }
        }
    })
}

/// The whole environment, in an order in which later references find earlier
/// variables. `Err` is the message of `CreateContainerConfigError`.
pub(super) fn of_container(
    pod: &Pod,
    container: &Container,
    facts: &Facts,
    services: &BTreeMap<String, String>,
    sources: &Sources,
) -> Result<Vec<(String, String)>, String> {
    let mut vars: BTreeMap<String, String> = BTreeMap::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.clone().unwrap_or_default();
        let (source, optional) = match (&from.config_map_ref, &from.secret_ref) {
            (Some(map), _) => (("configmap", map.name.clone()), map.optional),
            (None, Some(secret)) => (("secret", secret.name.clone()), secret.optional),
            (None, None) => continue,
        };
        match sources.get(&source) {
            Some(data) => {
                for (key, value) in data {
                    vars.insert(format!("{prefix}{key}"), text(value)?);
                }
            }
            None if optional == Some(true) => {}
            None => return Err(format!("{} {:?} not found", source.0, source.1)),
        }
    }
    let mut order: Vec<String> = vars.keys().cloned().collect();
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (Some(value), _) if !value.is_empty() => {
                let mut known = services.clone();
                known.extend(vars.clone());
                Some(expand(value, &known))
            }
            (_, Some(from)) => from_source(from, (pod, container), facts, sources)?,
            (Some(_) | None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            order.retain(|name| *name != var.name);
            order.push(var.name.clone());
            vars.insert(var.name.clone(), value);
        }
    }
    let base = [
        ("PATH", DEFAULT_PATH),
        ("HOSTNAME", &facts.hostname),
        ("HOME", "/root"),
        (
            "PORTOLAN_POD_NAME",
            pod.metadata.name.as_deref().unwrap_or_default(),
        ),
        (
            "PORTOLAN_POD_NAMESPACE",
            pod.metadata.namespace.as_deref().unwrap_or_default(),
        ),
        ("PORTOLAN_NODE_NAME", &facts.node_name),
    ];
    let base = base.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let services = services
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()));
    let mut all: Vec<(String, String)> = base.into_iter().chain(services).collect();
    all.retain(|(name, _)| !vars.contains_key(name));
    for name in order {
        if let Some(value) = vars.remove(&name) {
            all.push((name, value));
        }
    }
    Ok(all)
}

/// A value from elsewhere; `None` for what is optional and absent.
fn from_source(
    from: &EnvVarSource,
    (pod, container): (&Pod, &Container),
    facts: &Facts,
    sources: &Sources,
) -> Result<Option<String>, String> {
    if let Some(reference) = &from.field_ref {
        return field(&reference.field_path, pod, facts).map(Some);
    }
    if let Some(reference) = &from.resource_field_ref {
        return resources::value(reference, pod, Some(container)).map(Some);
    }
    let (kind, name, key, optional) = match (&from.config_map_key_ref, &from.secret_key_ref) {
        (Some(r), _) => ("configmap", &r.name, &r.key, r.optional),
        (None, Some(r)) => ("secret", &r.name, &r.key, r.optional),
        (None, None) => return Err("invalid valueFrom".to_owned()),
    };
    let data = sources.get(&(kind, name.clone()));
    match data.map(|data| data.get(key)) {
        Some(Some(value)) => text(value).map(Some),
        _ if optional == Some(true) => Ok(None),
        None => Err(format!("{kind} {name:?} not found")),
        Some(None) => Err(format!(
            "couldn't find key {key} in {} {}/{name}",
            kind_of(kind),
            pod.metadata.namespace.as_deref().unwrap_or_default()
        )),
    }
}

/// A variable's value, which must be text: the words are those with which
/// kubelet's call to its runtime fails.
fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_not_text| {
        "rpc error: code = Internal desc = grpc: error while marshaling: string field contains invalid UTF-8".to_owned()
    })
}

fn kind_of(kind: &str) -> &'static str {
    if kind == "configmap" {
        k8s_openapi::api::core::v1::ConfigMap::KIND
    } else {
        k8s_openapi::api::core::v1::Secret::KIND
    }
}

/// Which ConfigMaps and Secrets a container's environment refers to.
pub(super) fn references(container: &Container) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    for from in container.env_from.iter().flatten() {
        all.extend(
            from.config_map_ref
                .iter()
                .map(|r| ("configmap", r.name.clone())),
        );
        all.extend(from.secret_ref.iter().map(|r| ("secret", r.name.clone())));
    }
    for from in container
        .env
        .iter()
        .flatten()
        .filter_map(|var| var.value_from.as_ref())
    {
        all.extend(
            from.config_map_key_ref
                .iter()
                .map(|r| ("configmap", r.name.clone())),
        );
        all.extend(
            from.secret_key_ref
                .iter()
                .map(|r| ("secret", r.name.clone())),
        );
    }
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> T {
        serde_saphyr::from_str(text).unwrap()
    }

    #[test]
    fn c18_services_appear_as_variables() {
        let services: Vec<Service> = yaml(
            "- {metadata: {name: my-web}, spec: {clusterIP: 10.96.5.6, ports: [{name: http-api, port: 80}, {port: 53, protocol: UDP}]}}\n\
             - {metadata: {name: headless}, spec: {clusterIP: None, ports: [{port: 80}]}}\n\
             - {metadata: {name: six}, spec: {clusterIP: 'fd00::1', ports: [{port: 80}]}}\n",
        );
        let vars = of_services(&services);
        let text: Vec<String> = vars
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            text,
            [
                "MY_WEB_PORT=tcp://10.96.5.6:80",
                "MY_WEB_PORT_53_UDP=udp://10.96.5.6:53",
                "MY_WEB_PORT_53_UDP_ADDR=10.96.5.6",
                "MY_WEB_PORT_53_UDP_PORT=53",
                "MY_WEB_PORT_53_UDP_PROTO=udp",
                "MY_WEB_PORT_80_TCP=tcp://10.96.5.6:80",
                "MY_WEB_PORT_80_TCP_ADDR=10.96.5.6",
                "MY_WEB_PORT_80_TCP_PORT=80",
                "MY_WEB_PORT_80_TCP_PROTO=tcp",
                "MY_WEB_SERVICE_HOST=10.96.5.6",
                "MY_WEB_SERVICE_PORT=80",
                "MY_WEB_SERVICE_PORT_HTTP_API=80",
                "SIX_PORT=tcp://[fd00::1]:80",
                "SIX_PORT_80_TCP=tcp://[fd00::1]:80",
                "SIX_PORT_80_TCP_ADDR=fd00::1",
                "SIX_PORT_80_TCP_PORT=80",
                "SIX_PORT_80_TCP_PROTO=tcp",
                "SIX_SERVICE_HOST=fd00::1",
                "SIX_SERVICE_PORT=80",
            ]
        );
    }

    #[test]
    fn variables_come_in_order_and_refer_to_earlier_ones() {
        let pod: Pod = yaml(
            "{metadata: {name: web-0, namespace: shop, labels: {app: web}}, spec: {containers: []}}",
        );
        let facts = Facts {
            hostname: "web-0".into(),
            node_name: "node-1".into(),
            pod_ips: vec!["10.244.1.5".parse().unwrap(), "fd00::5".parse().unwrap()],
            host_ips: vec!["172.18.0.2".parse().unwrap()],
        };
        let container: Container = yaml(
            "name: web\n\
             envFrom: [{prefix: C_, configMapRef: {name: conf}}, {configMapRef: {name: none, optional: true}}]\n\
             env:\n\
             - {name: A, value: one}\n\
             - {name: B, value: '$(A)-$(LATER)-$(WEB_SERVICE_HOST)-$(C_k)'}\n\
             - {name: LATER, value: x}\n\
             - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}\n\
             - {name: IPS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}\n\
             - {name: APP, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['app']\"}}}\n\
             - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}\n\
             - {name: K, valueFrom: {configMapKeyRef: {name: conf, key: k}}}\n\
             - {name: GONE, valueFrom: {configMapKeyRef: {name: conf, key: gone, optional: true}}}\n\
             - {name: HOSTNAME, value: other}\n",
        );
        let services = BTreeMap::from([("WEB_SERVICE_HOST".to_owned(), "10.96.0.9".to_owned())]);
        let conf = BTreeMap::from([("k".to_owned(), b"v".to_vec())]);
        let sources = Sources::from([(("configmap", "conf".to_owned()), conf)]);
        let env = of_container(&pod, &container, &facts, &services, &sources).unwrap();
        let text: Vec<String> = env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            text[1..],
            [
                "HOME=/root",
                "PORTOLAN_POD_NAME=web-0",
                "PORTOLAN_POD_NAMESPACE=shop",
                "PORTOLAN_NODE_NAME=node-1",
                "WEB_SERVICE_HOST=10.96.0.9",
                "C_k=v",
                "A=one",
                "B=one-$(LATER)-10.96.0.9-v",
                "LATER=x",
                "IP=10.244.1.5",
                "IPS=10.244.1.5,fd00::5",
                "APP=web",
                "NODE=node-1",
                "K=v",
                "HOSTNAME=other",
            ]
        );
        assert_eq!(
            references(&container),
            [
                ("configmap", "conf".to_owned()),
                ("configmap", "none".to_owned())
            ]
        );
        let none = Sources::new();
        let missing = of_container(&pod, &container, &facts, &services, &none).unwrap_err();
        assert_eq!(missing, "configmap \"conf\" not found");
    }
}
