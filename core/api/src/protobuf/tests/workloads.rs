//! Deployments and Pods.

use super::{core, decoded, deployment, int, meta, metadata, text};
use k8s_pb::apimachinery::pkg::api::resource::Quantity;
use serde_json::json;
use std::collections::BTreeMap;

#[test]
fn a_deployment_keeps_the_zero_replicas_that_were_asked_for() {
    let expected = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "labels": {"app": "d"}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "d"}},
            "template": {
                "metadata": {"labels": {"app": "d"}},
                "spec": {"containers": [{"name": "nginx", "image": "nginx", "resources": {}}]},
            },
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": 0},
            },
        },
        "status": {},
    });
    assert_eq!(decoded("apps/v1", "Deployment", &deployment()), expected);
}

fn container() -> core::Container {
    let quantity = |number| Quantity {
        string: text(number),
    };
    core::Container {
        name: text("c"),
        env: vec![core::EnvVar {
            name: text("E"),
            value: text(""),
            value_from: Some(core::EnvVarSource {
                config_map_key_ref: Some(core::ConfigMapKeySelector {
                    local_object_reference: Some(core::LocalObjectReference { name: text("c") }),
                    key: text("k"),
                    optional: Some(false),
                }),
                ..core::EnvVarSource::default()
            }),
        }],
        resources: Some(core::ResourceRequirements {
            requests: BTreeMap::from([("cpu".to_owned(), quantity("100m"))]),
            ..core::ResourceRequirements::default()
        }),
        readiness_probe: Some(core::Probe {
            handler: Some(core::ProbeHandler {
                tcp_socket: Some(core::TcpSocketAction {
                    port: int(80),
                    host: text(""),
                }),
                ..core::ProbeHandler::default()
            }),
            initial_delay_seconds: Some(0),
            period_seconds: Some(10),
            ..core::Probe::default()
        }),
        ..core::Container::default()
    }
}

#[test]
fn parts_that_json_has_in_line_are_in_line() {
    let pod = core::Pod {
        metadata: Some(metadata("p")),
        spec: Some(core::PodSpec {
            volumes: vec![core::Volume {
                name: text("v"),
                volume_source: Some(core::VolumeSource {
                    secret: Some(core::SecretVolumeSource {
                        secret_name: text("s"),
                        default_mode: Some(0),
                        ..core::SecretVolumeSource::default()
                    }),
                    ..core::VolumeSource::default()
                }),
            }],
            containers: vec![container()],
            termination_grace_period_seconds: Some(0),
            enable_service_links: Some(false),
            host_aliases: vec![core::HostAlias {
                ip: text("192.0.2.1"),
                hostnames: vec!["h".to_owned()],
            }],
            security_context: Some(core::PodSecurityContext {
                run_as_user: Some(0),
                supplemental_groups: vec![0, 5, -1],
                ..core::PodSecurityContext::default()
            }),
            ..core::PodSpec::default()
        }),
        status: None,
    };
    let expected = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {
            "volumes": [{"name": "v", "secret": {"secretName": "s", "defaultMode": 0}}],
            "containers": [{
                "name": "c",
                "env": [{
                    "name": "E",
                    "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k", "optional": false}},
                }],
                "resources": {"requests": {"cpu": "100m"}},
                "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 10},
            }],
            "terminationGracePeriodSeconds": 0,
            "enableServiceLinks": false,
            "hostAliases": [{"ip": "192.0.2.1", "hostnames": ["h"]}],
            "securityContext": {"runAsUser": 0, "supplementalGroups": [0, 5, -1]},
        },
    });
    assert_eq!(decoded("v1", "Pod", &pod), expected);
}

#[test]
fn owners_times_and_managed_fields() {
    let pod = core::Pod {
        metadata: Some(meta::ObjectMeta {
            owner_references: vec![meta::OwnerReference {
                api_version: text("apps/v1"),
                kind: text("ReplicaSet"),
                name: text("r"),
                uid: text("u"),
                controller: Some(true),
                block_owner_deletion: Some(false),
            }],
            managed_fields: vec![meta::ManagedFieldsEntry {
                manager: text("kubectl"),
                time: Some(meta::Time {
                    seconds: Some(1_700_000_000),
                    nanos: Some(5),
                }),
                fields_v1: Some(meta::FieldsV1 {
                    raw: Some(br#"{"f:spec":{}}"#.to_vec()),
                }),
                ..meta::ManagedFieldsEntry::default()
            }],
            deletion_grace_period_seconds: Some(0),
            ..metadata("p")
        }),
        ..core::Pod::default()
    };
    let expected = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "p",
            "deletionGracePeriodSeconds": 0,
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u",
                "controller": true, "blockOwnerDeletion": false,
            }],
            "managedFields": [{
                "manager": "kubectl",
                "time": "2023-11-14T22:13:20Z",
                "fieldsV1": {"f:spec": {}},
            }],
        },
    });
    assert_eq!(decoded("v1", "Pod", &pod), expected);
}
