//! The addresses of load balancers, against the embedded API server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use portolan_agent::cluster::load_balancer::Election;
use portolan_client::{ADDRESS_POOLS, IP_ADDRESS_POOLS, LEASES, Resource, SERVICES};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::NS;
use super::bed::Bed;

fn balanced(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"type": "LoadBalancer", "selector": {"app": name}, "ports": [{"port": 80}]}})
}

fn pool(name: &str, range: &str) -> Value {
    json!({"apiVersion": "portolan.dev/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": name}, "spec": {"addresses": [range]}})
}

fn named<'a>(all: &'a [Value], name: &str) -> &'a Value {
    let found = all.iter().find(|one| one["metadata"]["name"] == name);
    found.unwrap_or(&Value::Null)
}

/// What EXTERNAL-IP shows.
fn addresses(service: &Value) -> Vec<&str> {
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array();
    let ips = ingress.into_iter().flatten().map(|one| one["ip"].as_str());
    ips.flatten().collect()
}

/// The reason in the condition of the Service.
fn why(service: &Value) -> &str {
    let conditions = service["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let found = conditions.find(|one| one["type"] == "portolan.dev/AddressAssigned");
    found.and_then(|one| one["message"].as_str()).unwrap_or("")
}

async fn until_has(bed: &Bed, name: &str, wanted: &[&str]) -> Result<Value> {
    let all = bed
        .until(&format!("{wanted:?} for {name}"), &SERVICES, NS, |all| {
            addresses(named(all, name)) == wanted
        })
        .await?;
    Ok(named(&all, name).clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn l2_l3_l7_from_the_nodes_to_a_pool_and_over_a_restart() -> Result<()> {
    let mut bed = Bed::start(2).await?;
    for (node, address) in [("node-1", "172.18.0.2"), ("node-2", "172.18.0.3")] {
        bed.addresses(node, &[address]).await?;
    }
    bed.create(&SERVICES, NS, &balanced("web")).await?;
    let service = until_has(&bed, "web", &["172.18.0.2", "172.18.0.3"]).await?;
    let finalizers = &service["metadata"]["finalizers"];
    assert_eq!(
        finalizers,
        &json!(["service.kubernetes.io/load-balancer-cleanup"])
    );
    assert_eq!(
        service["status"]["loadBalancer"]["ingress"][0]["ipMode"],
        "VIP"
    );
    let told = bed.events_when("IPAllocated").await?;
    assert_eq!(told[0]["source"]["component"], "portolan-load-balancer");
    bed.create(&ADDRESS_POOLS, "", &pool("lab", "192.0.2.0/31"))
        .await?;
    until_has(&bed, "web", &["192.0.2.0"]).await?;
    bed.until("the status of the pool", &ADDRESS_POOLS, "", |all| {
        let status = &named(all, "lab")["status"];
        status["used"] == 1 && status["free"] == 1
    })
    .await?;
    bed.restart_controllers();
    // Its name comes first, and the other one has its address all the same.
    bed.create(&SERVICES, NS, &balanced("a")).await?;
    until_has(&bed, "a", &["192.0.2.1"]).await?;
    bed.create(&SERVICES, NS, &balanced("late")).await?;
    bed.until("the reason", &SERVICES, NS, |all| {
        why(named(all, "late")) == "pool lab exhausted: 2 of 2 used"
    })
    .await?;
    until_has(&bed, "web", &["192.0.2.0"]).await?;
    // Deleted for good, and who waited is next.
    bed.delete(&SERVICES, NS, "web").await?;
    bed.until("the end of web", &SERVICES, NS, |all| {
        named(all, "web").is_null()
    })
    .await?;
    until_has(&bed, "late", &["192.0.2.0"]).await?;
    let cluster_ip = json!({"spec": {"type": "ClusterIP"}});
    bed.patch(&SERVICES, NS, "late", &cluster_ip).await?;
    bed.until("all of it gone", &SERVICES, NS, |all| {
        let late = named(all, "late");
        addresses(late).is_empty()
            && late["metadata"]["finalizers"]
                .as_array()
                .is_none_or(Vec::is_empty)
            && why(late).is_empty()
    })
    .await?;
    bed.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_l12_the_second_service_on_a_port_waits_and_says_for_whom() -> Result<()> {
    let bed = Bed::start(1).await?;
    bed.addresses("node-1", &["172.18.0.2"]).await?;
    bed.create(&SERVICES, NS, &balanced("first")).await?;
    until_has(&bed, "first", &["172.18.0.2"]).await?;
    bed.create(&SERVICES, NS, &balanced("second")).await?;
    let told = bed.events_when("AllocationFailed").await?;
    assert_eq!(told[0]["involvedObject"]["name"], "second");
    assert_eq!(
        told[0]["message"],
        "Failed to allocate IP for \"default/second\": port 80/TCP on node-1 taken by default/first"
    );
    bed.delete(&SERVICES, NS, "first").await?;
    until_has(&bed, "second", &["172.18.0.2"]).await?;
    bed.stop().await
}

/// MetalLB's definition, as far as it matters here.
fn metal_definition() -> Value {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "ipaddresspools.metallb.io"},
        "spec": {
            "group": "metallb.io", "scope": "Namespaced",
            "names": {"plural": "ipaddresspools", "kind": "IPAddressPool"},
            "versions": [{"name": "v1beta1", "served": true, "storage": true, "schema": {
                "openAPIV3Schema": {"type": "object", "properties": {"spec": open}}}}],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn l6_l7_pools_and_annotations_of_metallb_are_read() -> Result<()> {
    let mut bed = Bed::start(1).await?;
    bed.addresses("node-1", &["172.18.0.2"]).await?;
    let mut asks = balanced("asks");
    asks["metadata"]["annotations"] = json!({"metallb.io/loadBalancerIPs": "198.51.100.9"});
    bed.create(&SERVICES, NS, &asks).await?;
    until_has(&bed, "asks", &["172.18.0.2"]).await?;
    let definition = Resource {
        group: "apiextensions.k8s.io".into(),
        version: "v1".into(),
        plural: "customresourcedefinitions".into(),
        kind: "CustomResourceDefinition".into(),
        namespaced: false,
    };
    bed.create(&definition, "", &metal_definition()).await?;
    bed.until("the kind", &definition, "", |all| {
        let known = &named(all, "ipaddresspools.metallb.io")["status"]["conditions"];
        let known = known.as_array().into_iter().flatten();
        known
            .into_iter()
            .any(|c| c["type"] == "Established" && c["status"] == "True")
    })
    .await?;
    let pool = json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": {"name": "first"},
        "spec": {"addresses": ["198.51.100.0/28", "home"]},
    });
    bed.create(&IP_ADDRESS_POOLS, NS, &pool).await?;
    // It would find the kind by itself, but looks for it ever more seldom.
    bed.restart_controllers();
    until_has(&bed, "asks", &["198.51.100.9"]).await?;
    let told = bed.events_when("InvalidRange").await?;
    assert_eq!(told[0]["involvedObject"]["kind"], "IPAddressPool");
    assert_eq!(told[0]["message"], "\"home\" is no IP address");
    bed.stop().await
}

/// One candidate, which counts itself while it leads.
fn candidate(
    bed: &Bed,
    name: &str,
    leads: &'static AtomicUsize,
    stop: CancellationToken,
) -> tokio::task::JoinHandle<()> {
    let mut election = Election::new(bed.client().clone(), NS, "balancer", name.to_owned());
    election.lease_duration = Duration::from_secs(2);
    election.renew_deadline = Duration::from_secs(1);
    election.retry_period = Duration::from_millis(50);
    tokio::spawn(election.lead(stop, move |end| async move {
        leads.fetch_add(1, Ordering::SeqCst);
        end.cancelled().await;
        leads.fetch_sub(1, Ordering::SeqCst);
    }))
}

async fn until_holds(bed: &Bed, wanted: impl Fn(&str) -> bool) -> Result<String> {
    let holder = |all: &[Value]| {
        let lease = named(all, "balancer");
        lease["spec"]["holderIdentity"]
            .as_str()
            .unwrap_or("")
            .to_owned()
    };
    let all = bed
        .until("a holder of the lease", &LEASES, NS, |all| {
            wanted(&holder(all))
        })
        .await?;
    Ok(holder(&all))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_leads_and_another_takes_over() -> Result<()> {
    static LEADERS: AtomicUsize = AtomicUsize::new(0);
    let bed = Bed::start(0).await?;
    let stops = [CancellationToken::new(), CancellationToken::new()];
    let mut tasks = Vec::new();
    for (name, stop) in ["one", "two"].into_iter().zip(&stops) {
        tasks.push(candidate(&bed, name, &LEADERS, stop.clone()));
    }
    let first = until_holds(&bed, |holder| !holder.is_empty()).await?;
    assert!(LEADERS.load(Ordering::SeqCst) <= 1);
    // One that ends gives the lease back.
    stops[usize::from(first == "two")].cancel();
    let second = until_holds(&bed, |holder| !holder.is_empty() && holder != first).await?;
    assert_ne!(first, second);
    assert!(LEADERS.load(Ordering::SeqCst) <= 1);
    // One that is silent loses it when its time is over.
    let other = tasks.remove(usize::from(second == "two"));
    other.abort();
    let stop = CancellationToken::new();
    let third = candidate(&bed, "three", &LEADERS, stop.clone());
    until_holds(&bed, |holder| holder == "three").await?;
    for stop in stops.iter().chain([&stop]) {
        stop.cancel();
    }
    third.await.context("the last candidate")?;
    bed.stop().await
}
