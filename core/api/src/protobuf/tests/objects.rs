//! Objects without pods, and options.

use super::{core, decode, decoded, map, meta, metadata, text, word};
use k8s_pb::api::authentication::v1 as authentication;
use k8s_pb::api::coordination::v1 as coordination;
use serde_json::json;
use std::collections::BTreeMap;

#[test]
fn a_service_has_its_names_and_a_port_even_when_it_is_0() {
    let service = core::Service {
        metadata: Some(metadata("s")),
        spec: Some(core::ServiceSpec {
            ports: vec![core::ServicePort {
                name: text(""),
                protocol: text("TCP"),
                app_protocol: None,
                port: Some(0),
                target_port: word("http"),
                node_port: Some(0),
            }],
            cluster_ip: text("None"),
            cluster_ips: vec!["None".to_owned()],
            external_ips: vec!["192.0.2.1".to_owned()],
            load_balancer_ip: text(""),
            session_affinity: text(""),
            health_check_node_port: Some(0),
            publish_not_ready_addresses: Some(false),
            allocate_load_balancer_node_ports: Some(false),
            ip_families: vec!["IPv6".to_owned()],
            ..core::ServiceSpec::default()
        }),
        status: Some(core::ServiceStatus {
            load_balancer: Some(core::LoadBalancerStatus::default()),
            conditions: Vec::new(),
        }),
    };
    let expected = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s"},
        "spec": {
            "ports": [{"protocol": "TCP", "port": 0, "targetPort": "http"}],
            "clusterIP": "None",
            "clusterIPs": ["None"],
            "externalIPs": ["192.0.2.1"],
            "allocateLoadBalancerNodePorts": false,
            "ipFamilies": ["IPv6"],
        },
        "status": {"loadBalancer": {}},
    });
    assert_eq!(decoded("v1", "Service", &service), expected);
}

#[test]
fn data_of_config_maps_is_text_and_that_of_secrets_base64() {
    let config_map = core::ConfigMap {
        metadata: Some(metadata("c")),
        data: map(&[("a", "b"), ("empty", "")]),
        binary_data: BTreeMap::from([("raw".to_owned(), vec![0, 255])]),
        immutable: Some(false),
    };
    let expected = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c"},
        "data": {"a": "b", "empty": ""},
        "binaryData": {"raw": "AP8="},
        "immutable": false,
    });
    assert_eq!(decoded("v1", "ConfigMap", &config_map), expected);

    let secret = core::Secret {
        metadata: Some(metadata("s")),
        data: BTreeMap::from([
            ("a".to_owned(), b"b".to_vec()),
            ("empty".to_owned(), vec![]),
        ]),
        r#type: text("Opaque"),
        ..core::Secret::default()
    };
    let expected = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s"},
        "data": {"a": "Yg==", "empty": ""},
        "type": "Opaque",
    });
    assert_eq!(decoded("v1", "Secret", &secret), expected);
}

#[test]
fn a_nodes_pod_cidrs() {
    let node = core::Node {
        metadata: Some(metadata("n")),
        spec: Some(core::NodeSpec {
            pod_cidr: text("192.0.2.0/24"),
            pod_cid_rs: vec!["192.0.2.0/24".to_owned(), "2001:db8::/64".to_owned()],
            provider_id: text(""),
            unschedulable: Some(true),
            ..core::NodeSpec::default()
        }),
        status: Some(core::NodeStatus {
            daemon_endpoints: Some(core::NodeDaemonEndpoints {
                kubelet_endpoint: Some(core::DaemonEndpoint { port: Some(10250) }),
            }),
            ..core::NodeStatus::default()
        }),
    };
    let expected = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
        "spec": {
            "podCIDR": "192.0.2.0/24",
            "podCIDRs": ["192.0.2.0/24", "2001:db8::/64"],
            "unschedulable": true,
        },
        "status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}},
    });
    assert_eq!(decoded("v1", "Node", &node), expected);
}

const TIME: &str = "2023-11-14T22:13:20.120000Z";

fn micro_time() -> Option<meta::MicroTime> {
    Some(meta::MicroTime {
        seconds: Some(1_700_000_000),
        nanos: Some(120_000_999),
    })
}

#[test]
fn the_times_of_an_event() {
    let event = core::Event {
        metadata: Some(metadata("e")),
        involved_object: Some(core::ObjectReference {
            kind: text("Pod"),
            ..core::ObjectReference::default()
        }),
        source: Some(core::EventSource::default()),
        first_timestamp: Some(meta::Time {
            seconds: Some(0),
            nanos: Some(0),
        }),
        last_timestamp: Some(meta::Time::default()),
        event_time: micro_time(),
        count: Some(0),
        ..core::Event::default()
    };
    let expected = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod"}, "source": {},
        "firstTimestamp": "1970-01-01T00:00:00Z", "eventTime": TIME,
    });
    assert_eq!(decoded("v1", "Event", &event), expected);
}

#[test]
fn a_lease_without_a_holder() {
    let lease = coordination::Lease {
        metadata: Some(metadata("l")),
        spec: Some(coordination::LeaseSpec {
            holder_identity: text(""),
            lease_transitions: Some(0),
            renew_time: micro_time(),
            ..coordination::LeaseSpec::default()
        }),
    };
    let expected = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
        "spec": {"holderIdentity": "", "leaseTransitions": 0, "renewTime": TIME},
    });
    assert_eq!(decoded("coordination.k8s.io/v1", "Lease", &lease), expected);
}

#[test]
fn a_token_request() {
    let token = authentication::TokenRequest {
        metadata: Some(metadata("")),
        spec: Some(authentication::TokenRequestSpec {
            audiences: vec!["api".to_owned()],
            expiration_seconds: Some(600),
            bound_object_ref: None,
        }),
        status: Some(authentication::TokenRequestStatus {
            token: text(""),
            expiration_timestamp: Some(meta::Time::default()),
        }),
    };
    let expected = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
        "spec": {"audiences": ["api"], "expirationSeconds": 600}, "status": {},
    });
    assert_eq!(
        decoded("authentication.k8s.io/v1", "TokenRequest", &token),
        expected
    );
}

#[test]
fn delete_options_of_any_group() {
    let options = meta::DeleteOptions {
        grace_period_seconds: Some(0),
        preconditions: Some(meta::Preconditions {
            uid: text("u"),
            resource_version: None,
        }),
        propagation_policy: text("Background"),
        ..meta::DeleteOptions::default()
    };
    let expected = json!({
        "apiVersion": "apps/v1", "kind": "DeleteOptions",
        "gracePeriodSeconds": 0, "preconditions": {"uid": "u"}, "propagationPolicy": "Background",
    });
    assert_eq!(decoded("apps/v1", "DeleteOptions", &options), expected);
}

#[test]
fn a_namespace_as_kubectl_sends_it() {
    let bytes = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\x1b\x0a\x13\x0a\x03foo\x12\0\x1a\0\x22\0\x2a\0\x32\0\x38\0\x42\0\x12\0\x1a\x02\x0a\0\x1a\0\x22\0";
    let expected = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "foo"},
        "spec": {}, "status": {},
    });
    assert_eq!(decode(bytes), Ok(expected));
}
