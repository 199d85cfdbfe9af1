//! The Service API as clients meet it: JSON over HTTP against real servers,
//! single-stack and dual-stack. The tables of the pure rules are not repeated
//! here; what counts is that create, replace and patch give the same answers.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../api/common.rs"]
#[expect(dead_code, reason = "shared with tests that use more of it")]
mod common;

mod addresses;
mod data;
mod endpoints;
mod families;
mod fields;
mod health;
mod manners;
mod patches;
mod ports;
mod types;
mod warnings;

use common::{Got, Lab, request};
use http::Method;
use serde_json::{Value, json};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const V4: &str = "10.96.0.0/16";
const V6: &str = "fd00:10:96::/112";

/// A cluster with these Service ranges, the primary family first.
async fn cluster(ranges: &[&str]) -> Lab {
    Lab::start_with(|config| {
        config.service_cidrs = ranges.iter().map(|range| range.parse().unwrap()).collect();
        config.advertise.push("[fd00:18::1]:6443".parse().unwrap());
        let nets = config.service_cidrs.clone();
        config
            .dns_ips
            .retain(|ip| nets.iter().any(|net| net.contains(ip)));
    })
    .await
}

fn service(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

/// A spec of a type with one port and these fields; null removes.
fn spec(service_type: &str, fields: &Value) -> Value {
    let mut spec = json!({"type": service_type, "ports": [{"port": 80}]});
    merge(&mut spec, fields);
    spec
}

fn merge(object: &mut Value, fields: &Value) {
    for (key, value) in fields.as_object().unwrap() {
        object[key] = value.clone();
    }
}

fn path(name: &str) -> String {
    format!("{SERVICES}/{name}")
}

async fn create(lab: &Lab, name: &str, spec: &Value) -> Value {
    lab.post(SERVICES, &service(name, spec)).await.expect(201)
}

async fn create_dry(lab: &Lab, name: &str, spec: &Value) -> Got {
    let path = format!("{SERVICES}?dryRun=All");
    lab.post(&path, &service(name, spec)).await
}

async fn replace(lab: &Lab, name: &str, spec: &Value) -> Got {
    lab.put(&path(name), &service(name, spec)).await
}

/// A merge patch of the spec.
async fn patch(lab: &Lab, name: &str, spec: &Value) -> Got {
    lab.merge(&path(name), &json!({"spec": spec})).await
}

async fn strategic(lab: &Lab, name: &str, spec: &Value) -> Got {
    let headers = [("content-type", "application/strategic-merge-patch+json")];
    let body = json!({"spec": spec});
    request(
        &lab.client,
        Method::PATCH,
        &path(name),
        Some(&body),
        &headers,
    )
    .await
}

async fn remove(lab: &Lab, name: &str) {
    lab.delete(&path(name)).await.expect(200);
}

/// The spec of the stored Service.
async fn stored(lab: &Lab, name: &str) -> Value {
    lab.get(&path(name)).await.expect(200)["spec"].clone()
}

/// The causes of an answer, one line each: `FieldValueInvalid spec.x: text`.
fn causes(status: &Value) -> Vec<String> {
    let causes = status["details"]["causes"].as_array();
    let line = |cause: &Value| {
        let text = |field: &str| cause[field].as_str().unwrap().to_owned();
        format!("{} {}: {}", text("reason"), text("field"), text("message"))
    };
    causes.map_or_else(Vec::new, |causes| causes.iter().map(line).collect())
}

/// Assert 422 with these causes, in their order.
#[track_caller]
fn refused(got: &Got, want: &[&str]) {
    let status = got.expect(422);
    assert_eq!(status["reason"], "Invalid");
    assert_eq!(causes(&status), want);
    let text = status["message"].as_str().unwrap();
    for line in want {
        let (_, line) = line.split_once(' ').unwrap();
        assert!(text.contains(line), "{text} lacks {line}");
    }
}

fn texts(value: &Value) -> Vec<String> {
    let texts = value.as_array().unwrap().iter();
    texts
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

/// The warnings of an answer, without code and agent.
fn warned(got: &Got) -> Vec<String> {
    let values = got.headers.get_all("warning").iter();
    values
        .map(|value| {
            let text = value.to_str().unwrap();
            let text = text.strip_prefix("299 - \"").unwrap();
            text.strip_suffix('"').unwrap().replace("\\\"", "\"")
        })
        .collect()
}
