//! Service: a stable address and name in front of pods.

use super::{
    AGE_COLUMN, BASE, Kind, NAME_COLUMN, NameRule, PROXY_VERBS, Write, column, connect, schema_of,
    service_update, status_of, wide,
};
use crate::value::{
    at, has, int_at, list_at, list_at_mut, remove, set, set_default, set_default_text, str_at,
    strings_at,
};
use crate::{meta, table, validate};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The seconds that a ClientIP affinity lasts by default (S10).
const AFFINITY_SECONDS: i64 = 10_800;

/// The row of the kinds table.
pub static KIND: Kind = Kind {
    kind: "Service",
    list_kind: "ServiceList",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    subresources: &[
        connect("proxy", "ServiceProxyOptions", PROXY_VERBS),
        status_of("", "v1", "Service"),
    ],
    definition: "io.k8s.api.core.v1.Service",
    schema: schema_of::<k8s_openapi::api::core::v1::Service>,
    columns: &[
        NAME_COLUMN,
        column("Type", "string", "How the Service is reached."),
        column("Cluster-IP", "string", "Its address inside the cluster."),
        column(
            "External-IP",
            "string",
            "Its addresses outside the cluster.",
        ),
        column("Port(s)", "string", "Its ports, and those of the nodes."),
        AGE_COLUMN,
        wide("Selector", "string", "Labels of its pods."),
    ],
    row,
    defaults,
    validate: validate::service::service,
    validate_status: validate::service::status,
    prepare,
    name_rule: NameRule::Label,
    fields,
    warnings: validate::service_warnings::service,
    create_on_update: true,
    delete_returns_object: true,
    ..BASE
};

/// Whether the Service is reached from outside (S15).
pub fn externally_accessible(object: &Value) -> bool {
    match str_at(object, "spec.type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !list_at(object, "spec.externalIPs").is_empty(),
        _ => false,
    }
}

/// Whether its only cluster address is `None`.
pub fn is_headless(object: &Value) -> bool {
    strings_at(object, "spec.clusterIPs") == ["None"]
}

fn defaults(object: &mut Value) {
    if !at(object, "spec").is_object() {
        set(object, "spec", json!({}));
    }
    // First, so that nobody becomes the manager of a field that is not there.
    drop_zeros(object);
    set_default_text(object, "spec.sessionAffinity", "None");
    match str_at(object, "spec.sessionAffinity") {
        "None" => drop(remove(object, "spec.sessionAffinityConfig")),
        "ClientIP" => set_default(
            object,
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            AFFINITY_SECONDS,
        ),
        _ => {}
    }
    set_default_text(object, "spec.type", "ClusterIP");
    for port in list_at_mut(object, "spec.ports") {
        set_default_text(port, "protocol", "TCP");
        let target = at(port, "targetPort");
        if target.is_null() || target.as_str() == Some("") || target.as_i64() == Some(0) {
            let number = at(port, "port").clone();
            set(port, "targetPort", number);
        }
    }
    if externally_accessible(object) {
        set_default_text(object, "spec.externalTrafficPolicy", "Cluster");
    }
    match str_at(object, "spec.type") {
        "ExternalName" => drop(remove(object, "spec.internalTrafficPolicy")),
        "ClusterIP" | "NodePort" | "LoadBalancer" => {
            set_default(object, "spec.internalTrafficPolicy", "Cluster");
        }
        _ => {}
    }
    if str_at(object, "spec.type") == "LoadBalancer" {
        set_default(object, "spec.allocateLoadBalancerNodePorts", true);
    }
    for ingress in list_at_mut(object, "status.loadBalancer.ingress") {
        if !str_at(ingress, "ip").is_empty() {
            set_default(ingress, "ipMode", "VIP");
        }
    }
}

fn prepare(object: &mut Value, old: Option<&Value>, write: Write) {
    match (write, old) {
        (Write::Create, _) | (_, None) => {
            service_update::normalize(object, None);
            drop_zeros(object);
            set(object, "status", json!({"loadBalancer": {}}));
        }
        (Write::Update, Some(old)) => {
            service_update::update(object, old);
            drop_zeros(object);
            if str_at(object, "spec.type") != "LoadBalancer" {
                set(object, "status.loadBalancer", json!({}));
            }
        }
        (Write::Status, Some(_)) => {}
    }
}

/// Zero and absent are one for ports of the node, and empty and absent for
/// lists that the allocation looks at.
fn drop_zeros(object: &mut Value) {
    for port in list_at_mut(object, "spec.ports") {
        if int_at(port, "nodePort") == Some(0) {
            drop(remove(port, "nodePort"));
        }
    }
    if int_at(object, "spec.healthCheckNodePort") == Some(0) {
        drop(remove(object, "spec.healthCheckNodePort"));
    }
    for path in [
        "spec.clusterIPs",
        "spec.ipFamilies",
        "spec.clusterIP",
        "spec.externalTrafficPolicy",
    ] {
        let value = at(object, path);
        let empty = value.as_array().is_some_and(Vec::is_empty) || value.as_str() == Some("");
        if empty {
            drop(remove(object, path));
        }
    }
}

fn fields(object: &Value) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        (
            "spec.clusterIP",
            str_at(object, "spec.clusterIP").to_owned(),
        ),
        ("spec.type", str_at(object, "spec.type").to_owned()),
    ])
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let cluster_ips = strings_at(object, "spec.clusterIPs");
    let cluster_ip = cluster_ips
        .first()
        .copied()
        .unwrap_or(str_at(object, "spec.clusterIP"));
    vec![
        meta::name(object).into(),
        str_at(object, "spec.type").into(),
        table::or_none(cluster_ip),
        external_ip(object).into(),
        ports(object),
        table::age(object, now),
        table::label_list(at(object, "spec.selector")),
    ]
}

fn external_ip(object: &Value) -> String {
    let external = strings_at(object, "spec.externalIPs").join(",");
    match str_at(object, "spec.type") {
        "ClusterIP" | "NodePort" => match external.is_empty() {
            true => "<none>".to_owned(),
            false => external,
        },
        "LoadBalancer" => {
            let ingress: BTreeSet<&str> = list_at(object, "status.loadBalancer.ingress")
                .iter()
                .map(|ingress| match str_at(ingress, "ip") {
                    "" => str_at(ingress, "hostname"),
                    ip => ip,
                })
                .filter(|text| !text.is_empty())
                .collect();
            let all: Vec<&str> = ingress
                .into_iter()
                .chain((!external.is_empty()).then_some(external.as_str()))
                .collect();
            match all.is_empty() {
                true => "<pending>".to_owned(),
                false => all.join(","),
            }
        }
        "ExternalName" => str_at(object, "spec.externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

/// `80/TCP,443:30443/TCP`.
fn ports(object: &Value) -> Value {
    let ports: Vec<String> = list_at(object, "spec.ports")
        .iter()
        .map(|port| {
            let number = int_at(port, "port").unwrap_or(0);
            let protocol = str_at(port, "protocol");
            match int_at(port, "nodePort").filter(|_| has(port, "nodePort")) {
                Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
                Some(_) | None => format!("{number}/{protocol}"),
            }
        })
        .collect();
    table::or_none(&ports.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaulted(spec: Value) -> Value {
        let mut object = json!({"spec": spec});
        defaults(&mut object);
        object["spec"].take()
    }

    #[test]
    fn s2_s7_s10_s17_defaults_of_a_plain_service() {
        assert_eq!(
            defaulted(json!({"ports": [{"port": 80}], "sessionAffinityConfig": {"clientIP": {}}})),
            json!({
                "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            })
        );
    }

    #[test]
    fn s13_s15_defaults_of_a_load_balancer() {
        let spec = defaulted(json!({"type": "LoadBalancer"}));
        assert_eq!(spec["allocateLoadBalancerNodePorts"], true);
        assert_eq!(spec["externalTrafficPolicy"], "Cluster");
        assert_eq!(defaulted(json!({}))["externalTrafficPolicy"], Value::Null);
        assert_eq!(
            defaulted(json!({"externalIPs": ["192.0.2.1"]}))["externalTrafficPolicy"],
            "Cluster"
        );
    }

    #[test]
    fn s10_client_ip_affinity_lasts_three_hours() {
        let spec = defaulted(json!({"sessionAffinity": "ClientIP"}));
        assert_eq!(
            spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"],
            10_800
        );
    }

    #[test]
    fn s17_an_external_name_has_no_internal_policy() {
        let spec = defaulted(json!({"type": "ExternalName", "internalTrafficPolicy": "Local"}));
        assert_eq!(spec["internalTrafficPolicy"], Value::Null);
    }

    #[test]
    fn cells() {
        let now = "2024-05-01T10:00:00Z".parse().unwrap();
        let cells = |spec: Value, status: Value| {
            let object = json!({
                "metadata": {"name": "web", "creationTimestamp": "2024-05-01T09:58:00Z"},
                "spec": spec, "status": status,
            });
            Value::Array(row(&object, now)[1..].to_vec())
        };
        assert_eq!(
            cells(
                json!({"type": "ClusterIP", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "selector": {"app": "web", "b": ""},
                    "ports": [{"port": 80, "protocol": "TCP"}]}),
                json!({})
            ),
            json!([
                "ClusterIP",
                "10.96.0.10",
                "<none>",
                "80/TCP",
                "2m",
                "app=web,b="
            ])
        );
        assert_eq!(
            cells(
                json!({"type": "LoadBalancer", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"],
                    "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "nodePort": 30053, "protocol": "UDP"}]}),
                json!({})
            ),
            json!([
                "LoadBalancer",
                "10.96.0.10",
                "<pending>",
                "80:30080/TCP,53:30053/UDP",
                "2m",
                "<none>"
            ])
        );
        assert_eq!(
            cells(
                json!({"type": "LoadBalancer", "clusterIP": "10.96.0.10", "ports": []}),
                json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}, {"hostname": "a.example"}, {"ip": "192.0.2.1"}]}})
            )[2],
            "192.0.2.1,192.0.2.2,a.example"
        );
        assert_eq!(
            cells(
                json!({"type": "ExternalName", "externalName": "db.example.com"}),
                json!({})
            ),
            json!([
                "ExternalName",
                "<none>",
                "db.example.com",
                "<none>",
                "2m",
                "<none>"
            ])
        );
    }
}
