//! The controllers against the embedded API server, with kubelets that run
//! nothing: they make pods ready at once and let deleted pods go.

mod bed;
mod load_balancer;
mod owners;
mod workloads;

use std::time::Duration;

use anyhow::Result;
use bed::{Bed, deployment, service};
use portolan_agent::cluster::ClusterConfig;
use portolan_client::{
    DEPLOYMENTS, ENDPOINT_SLICES, ENDPOINTS, LEASES, NAMESPACES, NODES, PODS, REPLICA_SETS,
    SERVICES,
};
use portolan_plan::workloads::NodeTimes;
use serde_json::{Value, json};

pub(crate) const NS: &str = "default";

pub(crate) fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// What `kubectl rollout status` waits for.
pub(crate) fn rolled_out(deployment: &Value) -> bool {
    let wanted = number(deployment, "/spec/replicas");
    number(deployment, "/status/observedGeneration") >= number(deployment, "/metadata/generation")
        && number(deployment, "/status/updatedReplicas") == wanted
        && number(deployment, "/status/replicas") == wanted
        && number(deployment, "/status/availableReplicas") == wanted
}

pub(crate) fn ready_endpoints(slices: &[Value]) -> usize {
    slices
        .iter()
        .filter(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == "web")
        .filter_map(|s| s["endpoints"].as_array())
        .flatten()
        .filter(|e| e["conditions"]["ready"] == true)
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_a_deployment_becomes_pods_on_all_nodes_and_endpoints() -> Result<()> {
    let bed = Bed::start(3).await?;
    bed.create(&SERVICES, NS, &service("web")).await?;
    bed.create(&DEPLOYMENTS, NS, &deployment("web", 6)).await?;
    bed.until("the rollout", &DEPLOYMENTS, NS, |all| {
        all.iter().all(rolled_out)
    })
    .await?;
    let slices = bed
        .until("six endpoints", &ENDPOINT_SLICES, NS, |all| {
            ready_endpoints(all) == 6
        })
        .await?;
    let slice = slices
        .iter()
        .find(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == "web")
        .cloned()
        .unwrap_or_default();
    assert_eq!(
        slice["ports"],
        json!([{"name": "", "port": 8080, "protocol": "TCP"}])
    );
    assert!(
        slice["metadata"]["name"]
            .as_str()
            .is_some_and(|n| n.starts_with("web-")),
        "{slice}"
    );
    let pods = bed.list(&PODS, NS).await?;
    for node in ["node-1", "node-2", "node-3"] {
        let here = pods
            .iter()
            .filter(|p| p["spec"]["nodeName"] == node)
            .count();
        assert_eq!(here, 2, "{node}");
    }
    bed.until("Endpoints", &ENDPOINTS, NS, |all| {
        all.iter().any(|e| {
            e["metadata"]["name"] == "web"
                && e["metadata"]["annotations"]["endpoints.kubernetes.io/last-change-trigger-time"]
                    .is_string()
                && e["subsets"][0]["addresses"].as_array().map(Vec::len) == Some(6)
        })
    })
    .await?;
    let mut told = Vec::new();
    for event in bed.events_when("ScalingReplicaSet").await? {
        told.push(event["message"].as_str().unwrap_or("").to_owned());
    }
    assert!(
        told[0].starts_with("Scaled up replica set web-"),
        "{told:?}"
    );
    assert!(told[0].ends_with(" from 0 to 6"), "{told:?}");
    let created = bed.events_when("SuccessfulCreate").await?;
    let message = created[0]["message"].as_str().unwrap_or("");
    assert!(message.starts_with("Created pod: web-"), "{message}");
    bed.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn e6_a_rolling_update_never_leaves_the_service_without_enough_endpoints() -> Result<()> {
    let bed = Bed::start(2).await?;
    bed.create(&SERVICES, NS, &service("web")).await?;
    bed.create(&DEPLOYMENTS, NS, &deployment("web", 4)).await?;
    bed.until("four endpoints", &ENDPOINT_SLICES, NS, |all| {
        ready_endpoints(all) == 4
    })
    .await?;
    bed.until("the rollout", &DEPLOYMENTS, NS, |all| {
        all.iter().all(rolled_out)
    })
    .await?;
    let image = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "web", "image": "two"}]}}}});
    bed.patch(&DEPLOYMENTS, NS, "web", &image).await?;
    let mut fewest = usize::MAX;
    bed.until("the new rollout", &PODS, NS, |pods| {
        let ready = |p: &&Value| {
            p["metadata"]["deletionTimestamp"].is_null()
                && p["status"]["conditions"].as_array().is_some_and(|c| {
                    c.iter()
                        .any(|c| c["type"] == "Ready" && c["status"] == "True")
                })
        };
        fewest = fewest.min(pods.iter().filter(ready).count());
        pods.len() == 4
            && pods
                .iter()
                .all(|p| p["spec"]["containers"][0]["image"] == "two")
    })
    .await?;
    // 25 % of 4 may be unavailable.
    assert!(fewest >= 3, "{fewest}");
    bed.until("the rollout", &DEPLOYMENTS, NS, |all| {
        all.iter().all(rolled_out)
    })
    .await?;
    bed.until("four endpoints", &ENDPOINT_SLICES, NS, |all| {
        ready_endpoints(all) == 4
    })
    .await?;
    assert_eq!(
        bed.list(&REPLICA_SETS, NS).await?.len(),
        2,
        "one kept for a rollback"
    );
    bed.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn e6_a_pod_that_is_not_ready_leaves_the_slice_fast() -> Result<()> {
    let bed = Bed::start(1).await?;
    bed.create(&SERVICES, NS, &service("web")).await?;
    bed.create(&DEPLOYMENTS, NS, &deployment("web", 3)).await?;
    bed.until("three endpoints", &ENDPOINT_SLICES, NS, |all| {
        ready_endpoints(all) == 3
    })
    .await?;
    let pods = bed.list(&PODS, NS).await?;
    let name = pods[0]["metadata"]["name"]
        .as_str()
        .unwrap_or("")
        .to_owned();
    let took = bed
        .time_to(
            &ENDPOINT_SLICES,
            |slice| {
                slice["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
                    && ready_endpoints(std::slice::from_ref(slice)) == 2
            },
            async { bed.set_ready(NS, &name, false).await },
        )
        .await?;
    // Milliseconds in practice; the bound only tells a batching delay.
    assert!(took < Duration::from_millis(500), "{took:?}");
    tracing::info!(?took, "pod not ready → slice");
    bed.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn e13_what_a_deleted_owner_leaves_is_collected() -> Result<()> {
    let bed = Bed::start(1).await?;
    bed.create(&SERVICES, NS, &service("web")).await?;
    bed.create(&DEPLOYMENTS, NS, &deployment("web", 2)).await?;
    bed.until("two endpoints", &ENDPOINT_SLICES, NS, |all| {
        ready_endpoints(all) == 2
    })
    .await?;
    bed.delete(&DEPLOYMENTS, NS, "web").await?;
    bed.until("no ReplicaSets", &REPLICA_SETS, NS, |all| all.is_empty())
        .await?;
    bed.until("no pods", &PODS, NS, |all| all.is_empty())
        .await?;
    bed.until("an empty slice", &ENDPOINT_SLICES, NS, |all| {
        ready_endpoints(all) == 0
    })
    .await?;
    bed.delete(&SERVICES, NS, "web").await?;
    let of_web = |all: &[Value]| {
        all.iter()
            .any(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == "web")
    };
    bed.until("no slices", &ENDPOINT_SLICES, NS, |all| !of_web(all))
        .await?;
    bed.until("no Endpoints", &ENDPOINTS, NS, |all| {
        !all.iter().any(|e| e["metadata"]["name"] == "web")
    })
    .await?;
    bed.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn foreground_and_orphan_deletion_do_as_they_are_told() -> Result<()> {
    let bed = Bed::start(1).await?;
    for name in ["front", "loose"] {
        bed.create(&DEPLOYMENTS, NS, &deployment(name, 1)).await?;
    }
    bed.until("both", &DEPLOYMENTS, NS, |all| all.iter().all(rolled_out))
        .await?;
    bed.delete_as(
        &DEPLOYMENTS,
        NS,
        "loose",
        portolan_client::Propagation::Orphan,
    )
    .await?;
    bed.delete_as(
        &DEPLOYMENTS,
        NS,
        "front",
        portolan_client::Propagation::Foreground,
    )
    .await?;
    bed.until("no Deployments", &DEPLOYMENTS, NS, |all| all.is_empty())
        .await?;
    let sets = bed.list(&REPLICA_SETS, NS).await?;
    assert_eq!(sets.len(), 1, "the orphan stays, the other went first");
    assert!(
        sets[0]["metadata"]["ownerReferences"]
            .as_array()
            .is_none_or(Vec::is_empty)
    );
    assert_eq!(bed.list(&PODS, NS).await?.len(), 1);
    bed.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_with_everything_in_it() -> Result<()> {
    let bed = Bed::start(1).await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    bed.create(&NAMESPACES, "", &namespace).await?;
    bed.create(&SERVICES, "shop", &service("web")).await?;
    bed.create(&DEPLOYMENTS, "shop", &deployment("web", 2))
        .await?;
    bed.until("two endpoints", &ENDPOINT_SLICES, "shop", |all| {
        ready_endpoints(all) == 2
    })
    .await?;
    bed.delete(&NAMESPACES, "", "shop").await?;
    bed.until("the namespace gone", &NAMESPACES, "", |all| {
        !all.iter().any(|n| n["metadata"]["name"] == "shop")
    })
    .await?;
    for kind in [
        &PODS,
        &SERVICES,
        &DEPLOYMENTS,
        &REPLICA_SETS,
        &ENDPOINTS,
        &ENDPOINT_SLICES,
    ] {
        assert_eq!(bed.list(kind, "shop").await?.len(), 0, "{kind}");
    }
    bed.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_keeps_all_else_until_its_pods_are_gone() -> Result<()> {
    let bed = Bed::start(1).await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    bed.create(&NAMESPACES, "", &namespace).await?;
    bed.create(&SERVICES, "shop", &service("web")).await?;
    let held = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "held", "finalizers": ["example.com/hold"]},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    bed.create(&PODS, "shop", &held).await?;
    bed.delete(&NAMESPACES, "", "shop").await?;
    bed.until("what it waits for", &NAMESPACES, "", |all| {
        let conditions = all
            .iter()
            .filter(|n| n["metadata"]["name"] == "shop")
            .filter_map(|n| n["status"]["conditions"].as_array())
            .flatten();
        let told: Vec<&str> = conditions.filter_map(|c| c["message"].as_str()).collect();
        told.contains(&"Some resources are remaining: pods. has 1 resource instances")
            && told.contains(
                &"Some content in the namespace has finalizers remaining: \
                  example.com/hold in 1 resource instances",
            )
    })
    .await?;
    assert_eq!(
        bed.list(&SERVICES, "shop").await?.len(),
        1,
        "not yet told to go"
    );
    let release = json!({"metadata": {"finalizers": null}});
    bed.patch(&PODS, "shop", "held", &release).await?;
    bed.until("the namespace gone", &NAMESPACES, "", |all| {
        !all.iter().any(|n| n["metadata"]["name"] == "shop")
    })
    .await?;
    bed.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fits_nowhere_says_why_and_is_placed_when_it_fits() -> Result<()> {
    let bed = Bed::start(2).await?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "picky"},
        "spec": {"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "c", "image": "i"}]},
    });
    bed.create(&PODS, NS, &pod).await?;
    bed.until("the reason", &PODS, NS, |all| {
        all.iter().any(|p| {
            p["status"]["conditions"].as_array().into_iter().flatten().any(|c| {
                c["reason"] == "Unschedulable"
                    && c["message"].as_str().is_some_and(|m| {
                        m.starts_with("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.")
                    })
            })
        })
    })
    .await?;
    let told = bed.events_when("FailedScheduling").await?;
    assert_eq!(told[0]["type"], "Warning");
    let label = json!({"metadata": {"labels": {"disk": "ssd"}}});
    bed.patch(&NODES, "", "node-2", &label).await?;
    bed.until("its node", &PODS, NS, |all| {
        all.iter().all(|p| p["spec"]["nodeName"] == "node-2")
    })
    .await?;
    bed.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn e6_pods_of_a_silent_node_leave_the_service_and_are_replaced() -> Result<()> {
    let behaviour = ClusterConfig {
        node_times: NodeTimes {
            grace: Duration::from_millis(1500),
            eviction: Duration::from_millis(1500),
        },
        ..ClusterConfig::default()
    };
    let bed = Bed::start_with(2, behaviour).await?;
    bed.create(&SERVICES, NS, &service("web")).await?;
    bed.create(&DEPLOYMENTS, NS, &deployment("web", 2)).await?;
    bed.until("two endpoints", &ENDPOINT_SLICES, NS, |all| {
        ready_endpoints(all) == 2
    })
    .await?;
    // From now on node-1 has a lease, and nobody renews it.
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "node-1"},
        "spec": {"holderIdentity": "node-1", "renewTime": "2026-01-01T00:00:00.000000Z"},
    });
    bed.create(&LEASES, "kube-node-lease", &lease).await?;
    bed.until("one endpoint", &ENDPOINT_SLICES, NS, |all| {
        ready_endpoints(all) == 1
    })
    .await?;
    bed.until("the node lost", &NODES, "", |all| {
        all.iter().any(|n| {
            n["metadata"]["name"] == "node-1"
                && n["status"]["conditions"].as_array().is_some_and(|c| {
                    c.iter()
                        .any(|c| c["type"] == "Ready" && c["status"] == "Unknown")
                })
        })
    })
    .await?;
    bed.until("both pods on the other node", &PODS, NS, |all| {
        all.len() == 2 && all.iter().all(|p| p["spec"]["nodeName"] == "node-2")
    })
    .await?;
    bed.until("two endpoints", &ENDPOINT_SLICES, NS, |all| {
        ready_endpoints(all) == 2
    })
    .await?;
    bed.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn e11_pods_of_a_node_that_is_no_more_are_removed() -> Result<()> {
    let behaviour = ClusterConfig {
        orphan_grace: Duration::from_millis(200),
        ..ClusterConfig::default()
    };
    let bed = Bed::start_with(2, behaviour).await?;
    bed.create(&DEPLOYMENTS, NS, &deployment("web", 2)).await?;
    bed.until("the rollout", &DEPLOYMENTS, NS, |all| {
        all.iter().all(rolled_out)
    })
    .await?;
    bed.delete(&NODES, "", "node-1").await?;
    bed.until("both pods on the other node", &PODS, NS, |all| {
        all.len() == 2 && all.iter().all(|p| p["spec"]["nodeName"] == "node-2")
    })
    .await?;
    bed.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_scaling_up_and_down_in_haste_never_makes_a_pod_too_many() -> Result<()> {
    let bed = Bed::start(3).await?;
    bed.create(&SERVICES, NS, &service("web")).await?;
    bed.create(&DEPLOYMENTS, NS, &deployment("web", 40)).await?;
    let mut most = 0;
    bed.until("forty endpoints", &ENDPOINT_SLICES, NS, |all| {
        ready_endpoints(all) == 40
    })
    .await?;
    most = most.max(bed.list(&PODS, NS).await?.len());
    for replicas in [5, 30, 3] {
        let size = json!({"spec": {"replicas": replicas}});
        bed.patch(&DEPLOYMENTS, NS, "web", &size).await?;
        tokio::task::yield_now().await;
    }
    bed.until("three pods", &PODS, NS, |all| {
        let alive = |p: &&Value| p["metadata"]["deletionTimestamp"].is_null();
        most = most.max(all.iter().filter(alive).count());
        all.len() == 3
    })
    .await?;
    bed.until("three endpoints", &ENDPOINT_SLICES, NS, |all| {
        ready_endpoints(all) == 3
    })
    .await?;
    bed.until("the rollout", &DEPLOYMENTS, NS, |all| {
        all.iter().all(rolled_out)
    })
    .await?;
    assert_eq!(most, 40);
    let created = bed.list(&portolan_client::EVENTS, NS).await?;
    let created = created
        .iter()
        .filter(|e| e["reason"] == "SuccessfulCreate")
        .count();
    assert!(created <= 40 + 27, "{created}");
    bed.stop().await
}
