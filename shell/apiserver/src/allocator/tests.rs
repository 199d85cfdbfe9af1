use serde_json::json;

use super::*;

fn dual() -> Allocator {
    let nets = ["10.96.0.0/16", "fd00:10:96::/112"].map(|net| net.parse().unwrap());
    Allocator::new(&nets, 30_000..=32_767)
}

fn single() -> Allocator {
    Allocator::new(&["10.96.0.0/16".parse().unwrap()], 30_000..=32_767)
}

fn service(spec: Value) -> Value {
    let mut service = json!({"metadata": {"name": "web"}, "spec": {"type": "ClusterIP"}});
    for (key, value) in spec.as_object().unwrap() {
        service["spec"][key] = value.clone();
    }
    service
}

fn assigned(allocator: &Allocator, spec: Value) -> Result<Value, String> {
    let mut service = service(spec);
    match allocator.assign(&mut service, None, false) {
        Ok(reservation) => {
            reservation.commit(&service, None);
            Ok(service)
        }
        Err(status) => Err(status.message),
    }
}

#[test]
fn s21_s24_policies_and_families() {
    let families = |allocator: &Allocator, spec: Value| {
        assigned(allocator, spec).map(|service| {
            let ips = addresses_of(&service).len();
            (
                service["spec"]["ipFamilyPolicy"].clone(),
                service["spec"]["ipFamilies"].clone(),
                ips,
            )
        })
    };
    let (v4, both) = (json!(["IPv4"]), json!(["IPv4", "IPv6"]));
    let ok =
        |policy: &str, families: &Value, ips: usize| Ok((json!(policy), families.clone(), ips));
    assert_eq!(families(&dual(), json!({})), ok("SingleStack", &v4, 1));
    let prefer = json!({"ipFamilyPolicy": "PreferDualStack"});
    assert_eq!(
        families(&dual(), prefer.clone()),
        ok("PreferDualStack", &both, 2)
    );
    assert_eq!(families(&single(), prefer), ok("PreferDualStack", &v4, 1));
    let require = json!({"ipFamilyPolicy": "RequireDualStack"});
    assert!(
        families(&single(), require)
            .unwrap_err()
            .contains("this cluster is not configured for dual-stack services")
    );
    let six = json!({"ipFamilies": ["IPv6"]});
    assert_eq!(
        families(&dual(), six.clone()),
        ok("SingleStack", &json!(["IPv6"]), 1)
    );
    assert!(
        families(&single(), six)
            .unwrap_err()
            .contains("not configured on this cluster")
    );
    let bare = json!({"clusterIP": "None"});
    assert_eq!(families(&single(), bare), ok("RequireDualStack", &both, 0));
    let headless = json!({"clusterIP": "None", "selector": {"a": "b"}});
    assert_eq!(families(&single(), headless), ok("SingleStack", &v4, 0));
    let two = json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4", "IPv6"]});
    assert!(
        families(&dual(), two)
            .unwrap_err()
            .contains("when multiple IP families are specified")
    );
}

#[test]
fn a7_conflicts_and_ranges() {
    let allocator = dual();
    assert!(assigned(&allocator, json!({"clusterIP": "10.96.5.5"})).is_ok());
    let taken = assigned(&allocator, json!({"clusterIP": "10.96.5.5"})).unwrap_err();
    assert!(taken.contains("spec.clusterIPs: Invalid value"), "{taken}");
    assert!(
        taken.contains("provided IP is already allocated"),
        "{taken}"
    );
    let outside = assigned(&allocator, json!({"clusterIP": "10.97.0.1"})).unwrap_err();
    assert!(
        outside.contains("The range of valid IPs is 10.96.0.0/16"),
        "{outside}"
    );
    let port = |number: u16| json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": number}]});
    assert!(assigned(&allocator, port(30_080)).is_ok());
    let taken = assigned(&allocator, port(30_080)).unwrap_err();
    assert!(
        taken.contains(
            "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"
        ),
        "{taken}"
    );
    let outside = assigned(&allocator, port(29_999)).unwrap_err();
    assert!(
        outside.contains("The range of valid ports is 30000-32767"),
        "{outside}"
    );
}

#[test]
fn a12_a_failure_gives_everything_back() {
    let allocator = dual();
    let before = format!("{allocator:?}");
    let spec = json!({
        "type": "NodePort",
        "ipFamilyPolicy": "RequireDualStack",
        "ports": [{"port": 80, "nodePort": 31_000}, {"port": 81}, {"port": 82, "nodePort": 1}],
    });
    assert!(assigned(&allocator, spec).is_err());
    assert_eq!(format!("{allocator:?}"), before);
}

#[test]
fn a9_a_dry_run_consumes_nothing() {
    let allocator = dual();
    assert!(assigned(&allocator, json!({"clusterIP": "10.96.5.5"})).is_ok());
    let before = format!("{allocator:?}");
    let mut dry =
        service(json!({"type": "NodePort", "clusterIP": "10.96.5.5", "ports": [{"port": 80}]}));
    let reservation = allocator.assign(&mut dry, None, true).unwrap();
    assert!(
        dry["spec"]["ports"][0]["nodePort"].is_u64()
            || dry["spec"]["ports"][0]["nodePort"].is_i64()
    );
    reservation.commit(&dry, None);
    assert_eq!(format!("{allocator:?}"), before);
}

#[test]
fn a8_a_type_change_frees_and_deletion_frees_all() {
    let allocator = dual();
    let empty = format!("{allocator:?}");
    let spec = json!({
        "type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "ports": [{"port": 80, "protocol": "TCP"}, {"port": 80, "protocol": "UDP"}, {"port": 81}],
    });
    let old = assigned(&allocator, spec).unwrap();
    assert_eq!(
        ports_of(&old).len(),
        3,
        "one shared port, one more, one health check port"
    );
    let mut new = old.clone();
    new["spec"]["type"] = json!("ClusterIP");
    new["spec"]["externalTrafficPolicy"] = Value::Null;
    new["spec"]["healthCheckNodePort"] = Value::Null;
    for port in new["spec"]["ports"].as_array_mut().unwrap() {
        port["nodePort"] = Value::Null;
    }
    allocator
        .assign(&mut new, Some(&old), false)
        .unwrap()
        .commit(&new, Some(&old));
    assert_eq!(addresses_of(&new), addresses_of(&old));
    for port in ports_of(&old) {
        assert_eq!(allocator.pools().ports.take(port), Ok(()));
        allocator.pools().ports.release(port);
    }
    allocator.release(&new);
    assert_eq!(format!("{allocator:?}"), empty);
}

#[test]
fn s22_releasing_the_secondary_needs_single_stack() {
    let allocator = dual();
    let old = assigned(&allocator, json!({"ipFamilyPolicy": "RequireDualStack"})).unwrap();
    let mut new = old.clone();
    new["spec"]["clusterIPs"]
        .as_array_mut()
        .unwrap()
        .truncate(1);
    let error = allocator.assign(&mut new, Some(&old), false).unwrap_err();
    assert!(
        error
            .message
            .contains("must be 'SingleStack' to release the secondary cluster IP"),
        "{}",
        error.message
    );
}

#[test]
fn s16_a11_a_held_health_check_port_is_an_internal_error() {
    let allocator = dual();
    let spec = |port: i64| json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": port, "ports": [{"port": 80}]});
    assert!(assigned(&allocator, spec(31_500)).is_ok());
    for bad in [31_500, -1, 80] {
        let mut service = service(spec(bad));
        let error = allocator.assign(&mut service, None, false).unwrap_err();
        assert_eq!(error.code, 500, "{bad}");
    }
}

#[test]
fn stored_services_are_adopted_at_start() {
    let allocator = dual();
    let stored = service(
        json!({"type": "NodePort", "clusterIP": "10.96.7.7", "clusterIPs": ["10.96.7.7"], "ports": [{"port": 80, "nodePort": 30_100}]}),
    );
    assert!(allocator.adopt(&stored).is_empty());
    assert!(assigned(&allocator, json!({"clusterIP": "10.96.7.7"})).is_err());
    assert_eq!(allocator.adopt(&stored).len(), 2);
}
