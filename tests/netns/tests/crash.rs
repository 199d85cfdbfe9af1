//! kill -9 and Ctrl-C: nothing acknowledged is lost, nothing is left behind.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use nix::sys::signal::{Signal, kill};
use portolan_conformance::Lab;
use portolan_netns::processes::{descendants, wait_until_gone};

const GONE: Duration = Duration::from_secs(20);
const WRITERS: usize = 8;

async fn configmaps(kubeconfig: &Path) -> Result<Api<ConfigMap>> {
    let read = Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    Ok(Api::namespaced(Client::try_from(config)?, "default"))
}

/// Creates ConfigMaps until the server goes away; notes each that was acknowledged.
async fn write_until_gone(
    api: Api<ConfigMap>,
    writer: usize,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
) {
    for number in 0..100_000 {
        let name = format!("w{writer}-{number}");
        let object = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            data: Some([("n".to_owned(), number.to_string())].into()),
            ..ConfigMap::default()
        };
        if api.create(&PostParams::default(), &object).await.is_err() {
            return;
        }
        if let Ok(mut names) = acknowledged.lock() {
            names.insert(name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_write_survives_kill_9() -> Result<()> {
    let mut lab = Lab::start(1, &[])?;
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    for round in 1..=3_usize {
        let api = configmaps(&lab.kubeconfig()).await?;
        let writers: Vec<_> = (0..WRITERS)
            .map(|w| {
                tokio::spawn(write_until_gone(
                    api.clone(),
                    round * 100 + w,
                    Arc::clone(&acknowledged),
                ))
            })
            .collect();
        let enough = round * 200;
        while acknowledged.lock().map(|n| n.len()).unwrap_or(enough) < enough {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        lab = lab.kill_and_restart(1, &[])?;
        for writer in writers {
            writer.await?;
        }
        let list = configmaps(&lab.kubeconfig())
            .await?
            .list(&ListParams::default())
            .await?;
        let held: BTreeSet<String> = list
            .items
            .into_iter()
            .filter_map(|c| c.metadata.name)
            .collect();
        let lost: Vec<String> = acknowledged
            .lock()
            .map(|names| names.difference(&held).cloned().collect())
            .unwrap_or_default();
        assert!(
            lost.is_empty(),
            "round {round}: acknowledged and lost: {lost:?}"
        );
    }
    assert!(lab.stop()?.success());
    Ok(())
}

/// What must be the same before, during and after a lab: the host's links, addresses, routes and rules.
fn host_network() -> Result<String> {
    let mut text = String::new();
    for words in [
        &["ip", "-o", "link"][..],
        &["ip", "-o", "addr"],
        &["ip", "route"],
        &["ip", "-6", "route"],
    ] {
        let (program, arguments) = words.split_first().context("a program")?;
        let out = Command::new(program)
            .args(arguments)
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .output()?;
        let shown = String::from_utf8_lossy(&out.stdout).into_owned();
        // Lifetimes of leases and router advertisements count down by themselves.
        let steady = shown.split_whitespace().filter(|w| !w.ends_with("sec"));
        text.push_str(&steady.collect::<Vec<_>>().join(" "));
        text.push('\n');
    }
    Ok(text)
}

fn start_with_pods() -> Result<Lab> {
    let lab = Lab::start(2, &[])?;
    lab.run("kubectl create deployment web --image=nginx --replicas=2")?;
    lab.run("kubectl rollout status deployment/web --timeout=60s")?;
    Ok(lab)
}

#[test]
fn kill_9_leaves_no_process_and_the_next_up_goes_on() -> Result<()> {
    let before = host_network()?;
    let lab = start_with_pods()?;
    assert_eq!(host_network()?, before, "the host's network during a lab");
    let family = descendants(lab.pid().as_raw());
    assert!(
        family.len() >= 5,
        "broker, init, lab and two pods: {family:?}"
    );
    let lab = lab.kill_and_restart(2, &[])?;
    wait_until_gone(&family, GONE)?;
    lab.run("kubectl rollout status deployment/web --timeout=60s")?;
    lab.until(
        Duration::from_secs(60),
        "kubectl get pods --no-headers -l app=web | grep -c '1/1 *Running'",
        |n| n.trim() == "2",
    )?;
    assert!(lab.stop()?.success());
    assert_eq!(host_network()?, before, "the host's network after a lab");
    Ok(())
}

#[test]
fn the_death_of_any_part_ends_all() -> Result<()> {
    let lab = start_with_pods()?;
    let family = descendants(lab.pid().as_raw());
    // The broker's only child is the lab's init.
    let init = family.get(1).context("the lab's init")?;
    kill(nix::unistd::Pid::from_raw(init.pid), Signal::SIGKILL)?;
    wait_until_gone(family.get(1..).unwrap_or_default(), GONE)?;
    Ok(())
}

#[test]
fn term_removes_everything_and_exits_with_0() -> Result<()> {
    let before = host_network()?;
    let lab = start_with_pods()?;
    let family = descendants(lab.pid().as_raw());
    let status = lab.stop()?;
    assert!(status.success(), "portolan up ended with {status}");
    wait_until_gone(&family, GONE)?;
    assert_eq!(host_network()?, before);
    Ok(())
}
