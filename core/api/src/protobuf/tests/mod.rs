//! Bodies that k8s-pb writes, which knows nothing of our table. As Go does, they
//! spell out the zeros of fields that are no pointers.

mod faults;
mod objects;
mod workloads;

use super::decode;
use crate::fields;
use k8s_pb::api::apps::v1 as apps;
use k8s_pb::api::core::v1 as core;
use k8s_pb::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_pb::apimachinery::pkg::runtime::{TypeMeta, Unknown};
use k8s_pb::apimachinery::pkg::util::intstr::IntOrString;
use prost::Message;
use serde_json::Value;
use std::collections::BTreeMap;

fn body(api_version: &str, kind: &str, message: &impl Message) -> Vec<u8> {
    let unknown = Unknown {
        type_meta: Some(TypeMeta {
            api_version: text(api_version),
            kind: text(kind),
        }),
        raw: Some(message.encode_to_vec()),
        content_encoding: text(""),
        content_type: text(""),
    };
    [b"k8s\0".as_slice(), &unknown.encode_to_vec()].concat()
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "every text of a message is optional"
)]
fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// Metadata with all that Go sends of it.
fn metadata(name: &str) -> meta::ObjectMeta {
    meta::ObjectMeta {
        name: text(name),
        generate_name: text(""),
        namespace: text(""),
        self_link: text(""),
        uid: text(""),
        resource_version: text(""),
        generation: Some(0),
        creation_timestamp: Some(meta::Time::default()),
        ..meta::ObjectMeta::default()
    }
}

/// Decodes, and checks that each field is one of the kind and of its type.
fn decoded(api_version: &str, kind: &str, message: &impl Message) -> Value {
    let object = decode(&body(api_version, kind, message)).unwrap();
    if let Some(kind) = crate::kinds::by_api_version(api_version, kind) {
        assert_eq!(fields::unknown(kind, &object), Vec::<String>::new());
        assert_eq!(fields::mistyped(kind, &object), None);
    }
    object
}

fn int(number: i32) -> Option<IntOrString> {
    Some(IntOrString {
        r#type: Some(0),
        int_val: Some(number),
        str_val: text(""),
    })
}

fn word(word: &str) -> Option<IntOrString> {
    Some(IntOrString {
        r#type: Some(1),
        int_val: Some(0),
        str_val: text(word),
    })
}

/// What `kubectl create deployment d --image=nginx --replicas=0` sends.
fn deployment() -> apps::Deployment {
    let container = core::Container {
        name: text("nginx"),
        image: text("nginx"),
        working_dir: text(""),
        resources: Some(core::ResourceRequirements::default()),
        termination_message_path: text(""),
        image_pull_policy: text(""),
        stdin: Some(false),
        tty: Some(false),
        ..core::Container::default()
    };
    apps::Deployment {
        metadata: Some(meta::ObjectMeta {
            labels: map(&[("app", "d")]),
            ..metadata("d")
        }),
        spec: Some(apps::DeploymentSpec {
            replicas: Some(0),
            selector: Some(meta::LabelSelector {
                match_labels: map(&[("app", "d")]),
                match_expressions: Vec::new(),
            }),
            template: Some(core::PodTemplateSpec {
                metadata: Some(meta::ObjectMeta {
                    labels: map(&[("app", "d")]),
                    ..metadata("")
                }),
                spec: Some(core::PodSpec {
                    containers: vec![container],
                    restart_policy: text(""),
                    host_network: Some(false),
                    hostname: text(""),
                    ..core::PodSpec::default()
                }),
            }),
            strategy: Some(apps::DeploymentStrategy {
                r#type: text("RollingUpdate"),
                rolling_update: Some(apps::RollingUpdateDeployment {
                    max_unavailable: word("25%"),
                    max_surge: int(0),
                }),
            }),
            min_ready_seconds: Some(0),
            paused: Some(false),
            ..apps::DeploymentSpec::default()
        }),
        status: Some(apps::DeploymentStatus {
            observed_generation: Some(0),
            replicas: Some(0),
            ..apps::DeploymentStatus::default()
        }),
    }
}
