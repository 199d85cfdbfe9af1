//! The Node object and its heartbeat.

use std::{net::IpAddr, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{KubeletConfig, status::seconds};

/// How often the Lease is renewed, as kubelet does.
const RENEW: Duration = Duration::from_secs(10);
/// How long a Lease speaks for the node.
const LEASE_SECONDS: i32 = 40;
/// The Node's status is written again after so many renewals: 5 min.
const STATUS_EVERY: u32 = 30;
/// Pause after a failed write.
const RETRY: Duration = Duration::from_secs(1);
/// Where node Leases live.
const LEASES: &str = "kube-node-lease";
/// The Kubernetes version whose behaviour this pod manager follows; no newer
/// than the embedded API server's, as the version skew policy asks.
const KUBELET_VERSION: &str = "v1.36.0";
/// Pods per node, kubelet's default.
const MAX_PODS: u32 = 110;

/// What the machine says about itself, read once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) cpus: usize,
    pub(super) memory_kib: u64,
    pub(super) kernel: String,
    pub(super) os_image: String,
    pub(super) boot_id: String,
    pub(super) machine_id: String,
}

impl Machine {
    pub(super) fn read() -> Self {
        let text = |path: &str| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.trim().to_owned()
        };
        let memory = text("/proc/meminfo");
        let memory = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"));
        let memory = memory.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
        let release = text("/etc/os-release");
        let os = release
            .lines()
            .find_map(|line| line.strip_prefix("PRETTY_NAME="));
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_kib: memory.unwrap_or_default(),
            kernel: text("/proc/sys/kernel/osrelease"),
            os_image: os.unwrap_or("Linux").trim_matches('"').to_owned(),
            boot_id: text("/proc/sys/kernel/random/boot_id"),
            machine_id: text("/etc/machine-id"),
        }
    }
}

/// Keeps the Node and its Lease alive for as long as it is polled.
pub(super) async fn keep(config: KubeletConfig) {
    let machine = Machine::read();
    let mut renewals = 0;
    loop {
        let mut done = Ok(());
        if renewals % STATUS_EVERY == 0 {
            done = register(&config, &machine).await;
        }
        if done.is_ok() {
            done = renew(&config.client, &config.node_name).await;
        }
        match done {
            Ok(()) => {
                renewals += 1;
                tokio::time::sleep(RENEW).await;
            }
            Err(error) => {
                tracing::warn!(node = config.node_name, %error, "node not registered yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Creates the Node or brings it up to date.
async fn register(config: &KubeletConfig, machine: &Machine) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(config.client.clone());
    let name = &config.node_name;
    let old = match nodes.get_opt(name).await? {
        Some(node) => node,
        None => {
            let node = serde_json::from_value(object(config)).map_err(kube::Error::SerdeError)?;
            nodes.create(&PostParams::default(), &node).await?
        }
    };
    let apply = PatchParams::default();
    nodes
        .patch(name, &apply, &Patch::Merge(object(config)))
        .await?;
    let status = json!({ "status": status(config, machine, &old, Timestamp::now()) });
    nodes
        .patch_status(name, &apply, &Patch::Merge(status))
        .await?;
    Ok(())
}

/// Metadata and spec.
fn object(config: &KubeletConfig) -> Value {
    let name = &config.node_name;
    let cidrs: Vec<String> = config.pod_cidrs.iter().map(ToString::to_string).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/arch": architecture(),
                "kubernetes.io/os": "linux",
                "beta.kubernetes.io/arch": architecture(),
                "beta.kubernetes.io/os": "linux",
            },
        },
        "spec": { "podCIDR": cidrs.first(), "podCIDRs": cidrs },
    })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What `kubectl get nodes -o wide` and the scheduler read.
fn status(config: &KubeletConfig, machine: &Machine, old: &Node, now: Timestamp) -> Value {
    let ip = |ip: &IpAddr| json!({ "type": "InternalIP", "address": ip.to_string() });
    let mut addresses: Vec<Value> = config.node_ips.iter().map(ip).collect();
    addresses.push(json!({ "type": "Hostname", "address": config.node_name }));
    let resources = json!({
        "cpu": machine.cpus.to_string(),
        "memory": format!("{}Ki", machine.memory_kib),
        "pods": MAX_PODS.to_string(),
    });
    json!({
        "addresses": addresses,
        "capacity": resources,
        "allocatable": resources,
        "conditions": conditions(old, now),
        "daemonEndpoints": { "kubeletEndpoint": { "Port": 0 } },
        "nodeInfo": {
            "architecture": architecture(),
            "bootID": machine.boot_id,
            "containerRuntimeVersion": concat!("portolan://", env!("CARGO_PKG_VERSION")),
            "kernelVersion": machine.kernel,
            "kubeProxyVersion": "",
            "kubeletVersion": KUBELET_VERSION,
            "machineID": machine.machine_id,
            "operatingSystem": "linux",
            "osImage": machine.os_image,
            "systemUUID": machine.machine_id,
        },
    })
}

/// All is well; transition times move only where the old object says otherwise.
fn conditions(old: &Node, now: Timestamp) -> Vec<Value> {
    let before = old
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    [
        (
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        (
            "DiskPressure",
            "False",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        ),
        (
            "PIDPressure",
            "False",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
        (
            "Ready",
            "True",
            "KubeletReady",
            "kubelet is posting ready status",
        ),
    ]
    .into_iter()
    .map(|(kind, status, reason, message)| {
        let same = before
            .into_iter()
            .flatten()
            .find(|c| c.type_ == kind && c.status == status);
        let since = same.and_then(|c| c.last_transition_time.clone());
        json!({
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": seconds(now),
            "lastTransitionTime": since.unwrap_or_else(|| seconds(now)),
        })
    })
    .collect()
}

/// Renews the Lease, or makes it.
async fn renew(client: &Client, node: &str) -> Result<(), kube::Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASES);
    let now = Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
        .to_string();
    let spec = json!({
        "holderIdentity": node,
        "leaseDurationSeconds": LEASE_SECONDS,
        "renewTime": now,
    });
    let patch = Patch::Merge(json!({ "spec": spec }));
    match leases.patch(node, &PatchParams::default(), &patch).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": { "name": node, "namespace": LEASES },
                "spec": spec,
            });
            let lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
            leases.create(&PostParams::default(), &lease).await?;
            Ok(())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let old: Node = serde_json::from_value(json!({
            "metadata": {},
            "status": { "conditions": [
                { "type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z" },
                { "type": "DiskPressure", "status": "Unknown", "lastTransitionTime": "2020-01-01T00:00:00Z" },
            ] },
        }))
        .unwrap();
        let all = conditions(&old, "2026-01-01T00:00:00.9Z".parse().unwrap());
        let of = |kind: &str| {
            let found = all.iter().find(|c| c["type"] == kind).unwrap();
            found["lastTransitionTime"].as_str().unwrap().to_owned()
        };
        assert_eq!(of("Ready"), "2020-01-01T00:00:00Z");
        assert_eq!(of("DiskPressure"), "2026-01-01T00:00:00Z");
        assert_eq!(of("PIDPressure"), "2026-01-01T00:00:00Z");
    }

    #[test]
    fn the_machine_describes_itself() {
        let machine = Machine::read();
        assert!(machine.cpus > 0 && machine.memory_kib > 0 && !machine.kernel.is_empty());
    }
}
