//! StatefulSets, DaemonSets, and Endpoints that somebody writes.

use anyhow::{Context, Result};
use portolan_client::{
    CONTROLLER_REVISIONS, DAEMON_SETS, DEPLOYMENTS, ENDPOINT_SLICES, ENDPOINTS, NODES, PODS,
    REPLICA_SETS, SERVICES, STATEFUL_SETS,
};
use serde_json::{Value, json};

use crate::bed::{Bed, deployment};
use crate::{NS, number, ready_endpoints, rolled_out};

fn stateful_set(replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "serviceName": "web",
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "one"}]},
            },
        },
    })
}

fn headless() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 5432}]},
    })
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn names(objects: &[Value]) -> Vec<&str> {
    let mut names: Vec<&str> = objects
        .iter()
        .filter_map(|object| object["metadata"]["name"].as_str())
        .collect();
    names.sort();
    names
}

fn all_run(pods: &[Value], image: &str) -> bool {
    pods.iter().all(|pod| {
        pod["spec"]["containers"][0]["image"] == image
            && pod["metadata"]["deletionTimestamp"].is_null()
    })
}

/// What `kubectl rollout status` waits for.
fn stateful_rolled_out(all: &[Value], replicas: i64) -> bool {
    all.iter().all(|set| {
        number(set, "/status/observedGeneration") >= number(set, "/metadata/generation")
            && number(set, "/status/readyReplicas") == replicas
            && number(set, "/status/updatedReplicas") == replicas
            && set["status"]["currentRevision"] == set["status"]["updateRevision"]
    })
}

fn daemons_rolled_out(all: &[Value], nodes: i64) -> bool {
    all.iter().all(|set| {
        number(set, "/status/observedGeneration") >= number(set, "/metadata/generation")
            && number(set, "/status/desiredNumberScheduled") == nodes
            && number(set, "/status/updatedNumberScheduled") == nodes
            && number(set, "/status/numberAvailable") == nodes
    })
}

/// Hostnames of ready endpoints of the Service.
fn hostnames(slices: &[Value]) -> Vec<String> {
    let mut names: Vec<String> = slices
        .iter()
        .filter(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == "web")
        .filter_map(|s| s["endpoints"].as_array())
        .flatten()
        .filter(|e| e["conditions"]["ready"] == true)
        .filter_map(|e| e["hostname"].as_str().map(str::to_owned))
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn e8_pods_of_a_stateful_set_have_names_that_stay() -> Result<()> {
    let bed = Bed::start(2).await?;
    bed.create(&SERVICES, NS, &headless()).await?;
    bed.create(&STATEFUL_SETS, NS, &stateful_set(3)).await?;
    let three = ["web-0", "web-1", "web-2"];
    let slices = bed
        .until("three names", &ENDPOINT_SLICES, NS, |all| {
            hostnames(all) == three
        })
        .await?;
    assert!(
        slices
            .iter()
            .any(|s| { s["metadata"]["labels"]["service.kubernetes.io/headless"] == "" })
    );
    let pods = bed.list(&PODS, NS).await?;
    assert_eq!(names(&pods), three);
    let first = pods
        .iter()
        .find(|pod| pod["metadata"]["name"] == "web-0")
        .context("web-0")?;
    let uid = first["metadata"]["uid"].clone();
    bed.delete(&PODS, NS, "web-0").await?;
    bed.until("web-0 made anew", &PODS, NS, |all| {
        names(all) == three && all.iter().all(|pod| pod["metadata"]["uid"] != uid)
    })
    .await?;
    bed.until("three names", &ENDPOINT_SLICES, NS, |all| {
        hostnames(all) == three
    })
    .await?;
    let created = bed.events_when("SuccessfulCreate").await?;
    assert_eq!(
        created[0]["message"],
        "create Pod web-0 in StatefulSet web successful"
    );
    assert_eq!(created[0]["source"]["component"], "statefulset-controller");
    bed.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_rolls_scales_and_goes_with_its_pods() -> Result<()> {
    let bed = Bed::start(1).await?;
    bed.create(&STATEFUL_SETS, NS, &stateful_set(2)).await?;
    bed.until("two pods", &STATEFUL_SETS, NS, |all| {
        stateful_rolled_out(all, 2)
    })
    .await?;
    bed.patch(&STATEFUL_SETS, NS, "web", &image("two")).await?;
    bed.until("the new image", &PODS, NS, |all| {
        all.len() == 2 && all_run(all, "two")
    })
    .await?;
    bed.until("the rollout", &STATEFUL_SETS, NS, |all| {
        stateful_rolled_out(all, 2)
    })
    .await?;
    let revisions = bed.list(&CONTROLLER_REVISIONS, NS).await?;
    let mut numbers: Vec<i64> = revisions.iter().map(|r| number(r, "/revision")).collect();
    numbers.sort();
    assert_eq!(numbers, [1, 2]);
    // What `kubectl rollout undo` sends.
    let first = revisions
        .iter()
        .find(|r| number(r, "/revision") == 1)
        .context("the first revision")?;
    bed.patch(&STATEFUL_SETS, NS, "web", &first["data"]).await?;
    bed.until("the old image", &PODS, NS, |all| {
        all.len() == 2 && all_run(all, "one")
    })
    .await?;
    bed.until("the third revision", &CONTROLLER_REVISIONS, NS, |all| {
        all.len() == 2 && all.iter().any(|r| number(r, "/revision") == 3)
    })
    .await?;
    let size = json!({"spec": {"replicas": 1}});
    bed.patch(&STATEFUL_SETS, NS, "web", &size).await?;
    bed.until("one pod", &PODS, NS, |all| names(all) == ["web-0"])
        .await?;
    bed.delete(&STATEFUL_SETS, NS, "web").await?;
    bed.until("no pods", &PODS, NS, |all| all.is_empty())
        .await?;
    bed.until("no revisions", &CONTROLLER_REVISIONS, NS, |all| {
        all.is_empty()
    })
    .await?;
    bed.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn controllers_that_die_in_the_middle_of_a_rollout_go_on_where_they_were() -> Result<()> {
    let mut bed = Bed::start(2).await?;
    bed.create(&STATEFUL_SETS, NS, &stateful_set(3)).await?;
    bed.create(&DEPLOYMENTS, NS, &deployment("free", 6)).await?;
    // Every further pod with the new image is a moment to die at.
    let of = |pods: &[Value], image: &str| {
        pods.iter()
            .filter(|pod| pod["spec"]["containers"][0]["image"] == image)
            .count()
    };
    for seen in [1, 3, 6, 8] {
        bed.until("more pods", &PODS, NS, |all| of(all, "one") >= seen)
            .await?;
        bed.restart_controllers();
    }
    bed.patch(&STATEFUL_SETS, NS, "web", &image("two")).await?;
    let free = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "free", "image": "two"}]}}}});
    bed.patch(&DEPLOYMENTS, NS, "free", &free).await?;
    for seen in [1, 2, 4, 7] {
        bed.until("more new pods", &PODS, NS, |all| of(all, "two") >= seen)
            .await?;
        bed.restart_controllers();
    }
    bed.until("nine pods, all new", &PODS, NS, |all| {
        all.len() == 9 && all_run(all, "two")
    })
    .await?;
    bed.until("the rollout", &STATEFUL_SETS, NS, |all| {
        stateful_rolled_out(all, 3)
    })
    .await?;
    bed.until("the rollout", &DEPLOYMENTS, NS, |all| {
        all.iter().all(rolled_out)
    })
    .await?;
    assert_eq!(
        bed.list(&REPLICA_SETS, NS).await?.len(),
        2,
        "none made twice"
    );
    assert_eq!(bed.list(&CONTROLLER_REVISIONS, NS).await?.len(), 2);
    bed.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_has_a_pod_on_every_node() -> Result<()> {
    let bed = Bed::start(2).await?;
    let set = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "one"}]},
            },
        },
    });
    bed.create(&DAEMON_SETS, NS, &set).await?;
    bed.until("two pods", &DAEMON_SETS, NS, |all| {
        daemons_rolled_out(all, 2)
    })
    .await?;
    bed.node("node-3").await?;
    bed.until("a third", &DAEMON_SETS, NS, |all| {
        daemons_rolled_out(all, 3)
    })
    .await?;
    let pods = bed.list(&PODS, NS).await?;
    let mut nodes: Vec<&str> = pods
        .iter()
        .filter_map(|pod| pod["spec"]["nodeName"].as_str())
        .collect();
    nodes.sort();
    assert_eq!(nodes, ["node-1", "node-2", "node-3"]);
    let cordon = json!({"spec": {"unschedulable": true}});
    bed.patch(&NODES, "", "node-2", &cordon).await?;
    bed.patch(&DAEMON_SETS, NS, "web", &image("two")).await?;
    bed.until("the new image", &PODS, NS, |all| {
        all.len() == 3 && all_run(all, "two")
    })
    .await?;
    bed.until("the rollout", &DAEMON_SETS, NS, |all| {
        daemons_rolled_out(all, 3)
    })
    .await?;
    let created = bed.events_when("SuccessfulCreate").await?;
    assert_eq!(created[0]["source"]["component"], "daemonset-controller");
    let scheduled = bed.events_when("Scheduled").await?;
    assert!(scheduled.len() >= 3, "bound by the scheduler");
    bed.delete(&DAEMON_SETS, NS, "web").await?;
    bed.until("no pods", &PODS, NS, |all| all.is_empty())
        .await?;
    bed.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn e17_endpoints_written_by_hand_are_mirrored() -> Result<()> {
    let bed = Bed::start(1).await?;
    // Endpoints may come before their Service.
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "web", "labels": {"team": "x"}},
        "subsets": [{
            "addresses": [{"ip": "192.0.2.7"}],
            "ports": [{"port": 5432}],
        }],
    });
    bed.create(&ENDPOINTS, NS, &endpoints).await?;
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"ports": [{"port": 5432}]},
    });
    bed.create(&SERVICES, NS, &service).await?;
    let slices = bed
        .until("a mirrored slice", &ENDPOINT_SLICES, NS, |all| {
            ready_endpoints(all) == 1
        })
        .await?;
    let slice = slices
        .iter()
        .find(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == "web")
        .context("the slice")?;
    let labels = &slice["metadata"]["labels"];
    assert_eq!(
        labels["endpointslice.kubernetes.io/managed-by"],
        "endpointslicemirroring-controller.k8s.io"
    );
    assert_eq!(labels["team"], "x");
    assert_eq!(
        slice["ports"],
        json!([{"name": "", "port": 5432, "protocol": "TCP"}])
    );
    let more = json!({"subsets": [{
        "addresses": [{"ip": "192.0.2.7"}, {"ip": "192.0.2.8"}], "ports": [{"port": 5432}]}]});
    bed.patch(&ENDPOINTS, NS, "web", &more).await?;
    bed.until("two endpoints", &ENDPOINT_SLICES, NS, |all| {
        ready_endpoints(all) == 2
    })
    .await?;
    bed.delete(&SERVICES, NS, "web").await?;
    bed.until("no Endpoints", &ENDPOINTS, NS, |all| {
        !all.iter().any(|e| e["metadata"]["name"] == "web")
    })
    .await?;
    bed.until("no slices", &ENDPOINT_SLICES, NS, |all| {
        !all.iter()
            .any(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == "web")
    })
    .await?;
    bed.stop().await
}
