//! What an update does to what a Service has been allocated (S20–S22, S30),
//! as pure decisions around the server's allocation.
//!
//! The order of a write is: the kind's `defaults`; `prepare_create` or
//! `prepare_update`, which calls `update` and [`normalize`]; then
//! [`init_families`]; then the server's allocation of an address per entry of
//! `ipFamilies` and of node ports where [`needs_node_port`] and
//! [`needs_health_check_node_port`]; then validation.

use super::service::is_headless;
use crate::cause::Cause;
use crate::validate::{address, service_ips};
use crate::value::{
    at, copy, has, int_at, list_at, list_at_mut, map_at, remove, set, str_at, strings_at,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Whether the type has cluster addresses (`None` included).
pub fn needs_cluster_ip(object: &Value) -> bool {
    matches!(
        str_at(object, "spec.type"),
        "ClusterIP" | "NodePort" | "LoadBalancer"
    )
}

/// Whether its ports get node ports.
pub fn needs_node_port(object: &Value) -> bool {
    match str_at(object, "spec.type") {
        "NodePort" => true,
        "LoadBalancer" => at(object, "spec.allocateLoadBalancerNodePorts") != &Value::Bool(false),
        _ => false,
    }
}

/// Whether the type may have node ports.
fn has_node_ports(object: &Value) -> bool {
    matches!(str_at(object, "spec.type"), "NodePort" | "LoadBalancer")
}

/// Whether it has a health check node port (S16).
pub fn needs_health_check_node_port(object: &Value) -> bool {
    str_at(object, "spec.type") == "LoadBalancer"
        && str_at(object, "spec.externalTrafficPolicy") == "Local"
}

/// What an update takes from the old object, and what it drops of it.
pub(crate) fn update(object: &mut Value, old: &Value) {
    keep_allocated(object, old);
    normalize(object, Some(old));
    drop_secondary(object, old);
    drop_type_dependent(object, old);
}

/// S30: fills what the client left out from the old object, where both need it.
pub fn keep_allocated(object: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && needs_cluster_ip(object) {
        if str_at(object, "spec.clusterIP").is_empty() {
            copy(old, object, "spec.clusterIP");
        }
        let same = str_at(object, "spec.clusterIP") == str_at(old, "spec.clusterIP");
        // Also under another `clusterIP`: `normalize` then sees that one as the
        // only change.
        if list_at(object, "spec.clusterIPs").is_empty() {
            copy(old, object, "spec.clusterIPs");
        }
        // Families too, since a headless Service has no address
        // to infer them from.
        if same && list_at(object, "spec.ipFamilies").is_empty() {
            copy(old, object, "spec.ipFamilies");
        }
    }
    if needs_node_port(old) && needs_node_port(object) {
        keep_node_ports(object, old);
    }
    if needs_health_check_node_port(old)
        && needs_health_check_node_port(object)
        && int_at(object, "spec.healthCheckNodePort").unwrap_or(0) == 0
    {
        copy(old, object, "spec.healthCheckNodePort");
    }
}

/// Node ports go with the port's name, unless another port has taken them.
fn keep_node_ports(object: &mut Value, old: &Value) {
    let used = |object: &Value| -> BTreeSet<i64> {
        list_at(object, "spec.ports")
            .iter()
            .filter_map(node_port)
            .collect()
    };
    let mut taken: BTreeSet<i64> = used(object).intersection(&used(old)).copied().collect();
    let by_name: BTreeMap<&str, i64> = list_at(old, "spec.ports")
        .iter()
        .filter_map(|port| Some((str_at(port, "name"), node_port(port)?)))
        .collect();
    for port in list_at_mut(object, "spec.ports") {
        if node_port(port).is_some() {
            continue;
        }
        if let Some(number) = by_name.get(str_at(port, "name"))
            && taken.insert(*number)
        {
            set(port, "nodePort", *number);
        }
    }
}

fn node_port(port: &Value) -> Option<i64> {
    int_at(port, "nodePort").filter(|number| *number != 0)
}

/// Makes `clusterIP` and `clusterIPs` agree, for clients that know only one.
pub fn normalize(object: &mut Value, old: Option<&Value>) {
    let ip = str_at(object, "spec.clusterIP").to_owned();
    let Some(old) = old else {
        if !ip.is_empty() && list_at(object, "spec.clusterIPs").is_empty() {
            set(object, "spec.clusterIPs", json!([ip]));
        }
        return;
    };
    let old_ip = str_at(old, "spec.clusterIP");
    if ip == old_ip {
        if list_at(object, "spec.clusterIPs").is_empty() {
            copy(old, object, "spec.clusterIPs");
        }
        return;
    }
    let same = strings_at(object, "spec.clusterIPs") == strings_at(old, "spec.clusterIPs");
    match (same, ip.is_empty()) {
        (true, true) => drop(remove(object, "spec.clusterIPs")),
        (true, false) => set(object, "spec.clusterIPs", json!([ip])),
        (false, _) => {}
    }
}

/// Decides `ipFamilyPolicy` and `ipFamilies` (S20–S26).
///
/// `cluster` are the families of the cluster's Service ranges, the primary one
/// first.
pub fn init_families(
    object: &mut Value,
    old: Option<&Value>,
    cluster: &[&str],
) -> Result<(), Vec<Cause>> {
    if str_at(object, "spec.type") == "ExternalName"
        || old.is_some_and(|old| same_prefer_dual(object, old))
    {
        return Ok(());
    }
    if !has(object, "spec.ipFamilyPolicy") {
        let policy = policy(object, old);
        set(object, "spec.ipFamilyPolicy", policy);
    }
    fail(service_ips::cluster_ips(object))?;
    let mut causes = Vec::new();
    if let Some(old) = old {
        drop_secondary(object, old);
        causes.extend(released_secondary(object, old));
    }
    causes.extend(single_stack(object));
    causes.extend(infer_families(object, cluster));
    fail(causes)?;
    if is_headless(object)
        && map_at(object, "spec.selector").is_none_or(|selector| selector.is_empty())
    {
        complete_families(object, cluster, true);
        return Ok(());
    }
    fail(configured(object, cluster))?;
    complete_families(object, cluster, cluster.len() == 2);
    Ok(())
}

fn fail(causes: Vec<Cause>) -> Result<(), Vec<Cause>> {
    match causes.is_empty() {
        true => Ok(()),
        false => Err(causes),
    }
}

/// S25: an update that leaves a PreferDualStack Service's addresses alone does
/// not change its families, whatever the cluster has become.
pub fn same_prefer_dual(object: &Value, old: &Value) -> bool {
    let prefers = |object: &Value| str_at(object, "spec.ipFamilyPolicy") == "PreferDualStack";
    let same = |path: &str| strings_at(object, path) == strings_at(old, path);
    str_at(object, "spec.type") == str_at(old, "spec.type")
        && needs_cluster_ip(object)
        && prefers(object)
        && (prefers(old) || !has(old, "spec.ipFamilyPolicy"))
        && same("spec.clusterIPs")
        && same("spec.ipFamilies")
}

/// S21.
fn policy(object: &Value, old: Option<&Value>) -> Value {
    match old.map(|old| at(old, "spec.ipFamilyPolicy")) {
        Some(policy) if !policy.is_null() => policy.clone(),
        Some(_) | None => {
            let no_selector =
                map_at(object, "spec.selector").is_none_or(|selector| selector.is_empty());
            match str_at(object, "spec.clusterIP") == "None" && no_selector {
                true => "RequireDualStack".into(),
                false => "SingleStack".into(),
            }
        }
    }
}

/// S22: setting SingleStack, with unchanged lists, drops the second entries.
fn drop_secondary(object: &mut Value, old: &Value) {
    if str_at(object, "spec.ipFamilyPolicy") != "SingleStack" {
        return;
    }
    for path in ["spec.clusterIPs", "spec.ipFamilies"] {
        let list = strings_at(object, path);
        if list.len() > 1 && list == strings_at(old, path) {
            let first = json!([list[0]]);
            set(object, path, first);
        }
    }
}

/// S22: without SingleStack the second entries may not go.
fn released_secondary(object: &Value, old: &Value) -> Vec<Cause> {
    let policy = at(object, "spec.ipFamilyPolicy");
    if policy == "SingleStack" {
        return Vec::new();
    }
    [
        ("spec.clusterIPs", "cluster IP"),
        ("spec.ipFamilies", "IP family"),
    ]
    .into_iter()
    .filter(|(path, _)| (1..list_at(old, path).len()).contains(&list_at(object, path).len()))
    .map(|(_, what)| {
        let message = format!("must be 'SingleStack' to release the secondary {what}");
        Cause::invalid("spec.ipFamilyPolicy", policy, &message)
    })
    .collect()
}

/// S23.
fn single_stack(object: &Value) -> Vec<Cause> {
    if str_at(object, "spec.ipFamilyPolicy") != "SingleStack" {
        return Vec::new();
    }
    [
        ("spec.clusterIPs", "cluster IPs"),
        ("spec.ipFamilies", "IP families"),
    ]
    .into_iter()
    .filter(|(path, _)| list_at(object, path).len() == 2)
    .map(|(_, what)| {
        let message = format!(
            "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
        );
        Cause::invalid(
            "spec.ipFamilyPolicy",
            at(object, "spec.ipFamilyPolicy"),
            &message,
        )
    })
    .collect()
}

/// Families of addresses that the client gave without families.
fn infer_families(object: &mut Value, cluster: &[&str]) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut families: Vec<String> = owned(object, "spec.ipFamilies");
    for (index, ip) in strings_at(object, "spec.clusterIPs")
        .into_iter()
        .enumerate()
    {
        let Some(family) = address::family(ip) else {
            break;
        };
        if index < families.len() {
            continue;
        }
        match cluster.contains(&family) {
            true => families.push(family.to_owned()),
            false => causes.push(Cause::invalid(
                format!("spec.clusterIPs[{index}]"),
                at(object, "spec.clusterIPs"),
                &format!("{family} is not configured on this cluster"),
            )),
        }
    }
    if !families.is_empty() {
        set(object, "spec.ipFamilies", families);
    }
    causes
}

fn owned(object: &Value, path: &str) -> Vec<String> {
    strings_at(object, path)
        .into_iter()
        .map(str::to_owned)
        .collect()
}

/// S24 and S26.
fn configured(object: &Value, cluster: &[&str]) -> Vec<Cause> {
    let mut causes = Vec::new();
    if str_at(object, "spec.ipFamilyPolicy") == "RequireDualStack" && cluster.len() < 2 {
        let message = "this cluster is not configured for dual-stack services";
        causes.push(Cause::invalid(
            "spec.ipFamilyPolicy",
            at(object, "spec.ipFamilyPolicy"),
            message,
        ));
    }
    for (index, family) in strings_at(object, "spec.ipFamilies")
        .into_iter()
        .enumerate()
    {
        if !cluster.contains(&family) {
            let path = format!("spec.ipFamilies[{index}]");
            causes.push(Cause::invalid(
                path,
                &family.into(),
                "not configured on this cluster",
            ));
        }
    }
    causes
}

/// The cluster's primary family when none is given, and the other one when the
/// policy wants two and they are to be had.
fn complete_families(object: &mut Value, cluster: &[&str], dual: bool) {
    let mut families = owned(object, "spec.ipFamilies");
    if families.is_empty() {
        families.extend(cluster.first().map(|family| (*family).to_owned()));
    }
    if dual && families.len() == 1 && str_at(object, "spec.ipFamilyPolicy") != "SingleStack" {
        let other = if families[0] == "IPv4" {
            "IPv6"
        } else {
            "IPv4"
        };
        families.push(other.to_owned());
    }
    set(object, "spec.ipFamilies", families);
}

/// Drops what the new type has no use for, where the client did not change it
/// (A8).
fn drop_type_dependent(object: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && !needs_cluster_ip(object) {
        if at(object, "spec.clusterIPs") == at(old, "spec.clusterIPs") {
            drop(remove(object, "spec.clusterIP"));
            drop(remove(object, "spec.clusterIPs"));
        }
        for path in ["spec.ipFamilies", "spec.ipFamilyPolicy"] {
            drop_if_same(object, old, path);
        }
    }
    // By the type alone: a LoadBalancer that stops having node ports allocated
    // keeps those that it has (A10).
    if has_node_ports(old) && !has_node_ports(object) {
        let ports = |object: &Value| -> BTreeSet<i64> {
            let ports = list_at(object, "spec.ports").iter();
            ports.filter_map(node_port).collect()
        };
        if ports(old).is_superset(&ports(object)) {
            for port in list_at_mut(object, "spec.ports") {
                drop(remove(port, "nodePort"));
            }
        }
    }
    if needs_health_check_node_port(old) && !needs_health_check_node_port(object) {
        drop_if_same(object, old, "spec.healthCheckNodePort");
    }
    let balanced = |object: &Value| str_at(object, "spec.type") == "LoadBalancer";
    if balanced(old) && !balanced(object) {
        drop_if_same(object, old, "spec.allocateLoadBalancerNodePorts");
        drop_if_same(object, old, "spec.loadBalancerClass");
    }
    let external = super::service::externally_accessible;
    if external(old) && !external(object) {
        drop_if_same(object, old, "spec.externalTrafficPolicy");
    }
}

fn drop_if_same(object: &mut Value, old: &Value, path: &str) {
    if at(object, path) == at(old, path) {
        drop(remove(object, path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUAL: &[&str] = &["IPv4", "IPv6"];

    fn families(spec: Value, old: Option<Value>, cluster: &[&str]) -> Result<Value, Vec<String>> {
        let mut object = json!({"spec": spec});
        let old = old.map(|spec| json!({"spec": spec}));
        match init_families(&mut object, old.as_ref(), cluster) {
            Ok(()) => Ok(json!([
                object["spec"]["ipFamilyPolicy"],
                object["spec"]["ipFamilies"]
            ])),
            Err(causes) => Err(causes.iter().map(Cause::to_string).collect()),
        }
    }

    #[test]
    fn s21_policy_defaults() {
        let cases = [
            (
                json!({"type": "ClusterIP"}),
                json!(["SingleStack", ["IPv4"]]),
            ),
            (
                json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]}),
                json!(["RequireDualStack", ["IPv4", "IPv6"]]),
            ),
            (
                json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}}),
                json!(["SingleStack", ["IPv4"]]),
            ),
            (
                json!({"type": "ClusterIP", "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]}),
                json!(["PreferDualStack", ["IPv6", "IPv4"]]),
            ),
            (
                json!({"type": "ClusterIP", "clusterIP": "fd00::5", "clusterIPs": ["fd00::5"]}),
                json!(["SingleStack", ["IPv6"]]),
            ),
        ];
        for (spec, want) in cases {
            assert_eq!(families(spec, None, DUAL), Ok(want));
        }
        let old = json!({"type": "ClusterIP", "ipFamilyPolicy": "PreferDualStack"});
        let new = json!({"type": "ClusterIP"});
        assert_eq!(
            families(new, Some(old), DUAL),
            Ok(json!(["PreferDualStack", ["IPv4", "IPv6"]]))
        );
    }

    #[test]
    fn s22_releasing_the_secondary_address() {
        let old = json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"],
            "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"});
        let mut single = old.clone();
        single["ipFamilyPolicy"] = json!("SingleStack");
        assert_eq!(
            families(single, Some(old.clone()), DUAL),
            Ok(json!(["SingleStack", ["IPv4"]]))
        );
        let mut less = old.clone();
        less["clusterIPs"] = json!(["10.0.0.1"]);
        assert_eq!(
            families(less, Some(old), DUAL),
            Err(vec!["spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be 'SingleStack' to release the secondary cluster IP".to_owned()])
        );
    }

    #[test]
    fn s23_single_stack_takes_no_second_family() {
        let spec = json!({"type": "ClusterIP", "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4", "IPv6"]});
        assert_eq!(
            families(spec, None, DUAL),
            Err(vec!["spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified".to_owned()])
        );
    }

    #[test]
    fn s24_s26_single_stack_clusters() {
        let spec = |policy: &str| json!({"type": "ClusterIP", "ipFamilyPolicy": policy});
        assert_eq!(
            families(spec("PreferDualStack"), None, &["IPv4"]),
            Ok(json!(["PreferDualStack", ["IPv4"]]))
        );
        let refused = families(spec("RequireDualStack"), None, &["IPv4"]).unwrap_err();
        assert!(
            refused[0].ends_with("this cluster is not configured for dual-stack services"),
            "{refused:?}"
        );
        let refused = families(
            json!({"type": "ClusterIP", "ipFamilies": ["IPv6"]}),
            None,
            &["IPv4"],
        )
        .unwrap_err();
        assert_eq!(
            refused,
            ["spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"]
        );
    }

    #[test]
    fn s25_prefer_dual_stack_is_left_alone() {
        let spec = json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "PreferDualStack"});
        assert_eq!(
            families(spec.clone(), Some(spec), DUAL),
            Ok(json!(["PreferDualStack", ["IPv4"]]))
        );
    }

    #[test]
    fn s30_an_update_keeps_what_was_allocated() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ports": [{"name": "a", "port": 80, "nodePort": 30080}, {"name": "b", "port": 81, "nodePort": 30081}]}});
        let mut new = json!({"spec": {"type": "NodePort",
            "ports": [{"name": "a", "port": 8080}, {"name": "c", "port": 82, "nodePort": 30081}, {"name": "b", "port": 81}]}});
        keep_allocated(&mut new, &old);
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.0.0.1"]));
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30080);
        assert_eq!(
            new["spec"]["ports"][2]["nodePort"],
            Value::Null,
            "taken by c"
        );
    }

    #[test]
    fn s30_headless_services_stay_headless() {
        let old = json!({"spec": {"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "ipFamilies": ["IPv6"]}});
        let mut new = json!({"spec": {"type": "ClusterIP"}});
        keep_allocated(&mut new, &old);
        assert_eq!(new["spec"]["clusterIP"], "None");
        assert_eq!(new["spec"]["ipFamilies"], json!(["IPv6"]));
    }

    #[test]
    fn a8_a_type_change_drops_what_the_new_type_has_no_use_for() {
        let old = json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 30001, "allocateLoadBalancerNodePorts": true, "loadBalancerClass": "a/b",
            "ports": [{"port": 80, "nodePort": 30080}]}});
        let mut new = old.clone();
        new["spec"]["type"] = json!("ExternalName");
        drop_type_dependent(&mut new, &old);
        assert_eq!(
            new["spec"],
            json!({"type": "ExternalName", "ports": [{"port": 80}]})
        );
    }

    #[test]
    fn a8_a10_node_ports_go_with_the_type_only_and_not_when_one_is_new() {
        let spec = |service_type: &str, allocate: bool, port: i64| {
            json!({"spec": {"type": service_type, "allocateLoadBalancerNodePorts": allocate,
                "ports": [{"port": 80, "nodePort": port}]}})
        };
        let old = spec("LoadBalancer", true, 30080);
        for (new, want) in [
            (spec("LoadBalancer", false, 30080), json!(30080)),
            (spec("ClusterIP", true, 30080), Value::Null),
            (spec("ClusterIP", true, 30081), json!(30081)),
        ] {
            let mut object = new;
            drop_type_dependent(&mut object, &old);
            assert_eq!(object["spec"]["ports"][0]["nodePort"], want);
        }
    }

    #[test]
    fn s19_normalize_makes_singular_and_plural_agree() {
        let mut new = json!({"spec": {"clusterIP": "10.0.0.9"}});
        normalize(&mut new, None);
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.0.0.9"]));
        let old = json!({"spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}});
        let mut new = json!({"spec": {"clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.1"]}});
        normalize(&mut new, Some(&old));
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.0.0.9"]));
    }
}
