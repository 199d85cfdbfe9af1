//! kube's client and runtime against the embedded API server: reflector,
//! controller, finalizer, server-side apply, leader election, exec, port-forward.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::api::{
    ApiResource, AttachParams, DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams,
    PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Discovery, ResourceExt};
use portolan_conformance::Lab;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SOON: Duration = Duration::from_secs(30);

async fn client(lab: &Lab) -> Result<Client> {
    let read = Kubeconfig::read_from(lab.kubeconfig())?;
    let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn configmap(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some([("value".to_owned(), value.to_owned())].into()),
        ..ConfigMap::default()
    }
}

/// Waits until `holds`, or fails.
async fn until(what: &str, holds: impl Fn() -> bool) -> Result<()> {
    tokio::time::timeout(SOON, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .with_context(|| what.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reflector_follows_creates_changes_and_deletes() -> Result<()> {
    let lab = Lab::start(1, &[])?;
    let api: Api<ConfigMap> = Api::namespaced(client(&lab).await?, "default");
    for streaming in [false, true] {
        let (reader, writer) = reflector::store();
        let config = watcher::Config::default();
        let config = if streaming {
            config.streaming_lists()
        } else {
            config
        };
        let stream = watcher(api.clone(), config)
            .reflect(writer)
            .applied_objects();
        let task = tokio::spawn(async move {
            let mut stream = Box::pin(stream);
            while let Ok(Some(_)) = stream.try_next().await {}
        });
        let names = || {
            reader
                .state()
                .iter()
                .map(|c| c.name_any())
                .collect::<BTreeSet<_>>()
        };
        let value = |name: &str| {
            let state = reader.state();
            let found = state.iter().find(|c| c.name_any() == name)?;
            found.data.as_ref()?.get("value").cloned()
        };
        api.create(&PostParams::default(), &configmap("one", "1"))
            .await?;
        api.create(&PostParams::default(), &configmap("two", "1"))
            .await?;
        until("both are seen", || {
            names().is_superset(&["one".into(), "two".into()].into())
        })
        .await?;
        let patch = Patch::Merge(json!({"data": {"value": "2"}}));
        api.patch("one", &PatchParams::default(), &patch).await?;
        until("the change is seen", || {
            value("one").as_deref() == Some("2")
        })
        .await?;
        api.delete("one", &DeleteParams::default()).await?;
        api.delete("two", &DeleteParams::default()).await?;
        until("both are gone", || {
            names().is_disjoint(&["one".into(), "two".into()].into())
        })
        .await?;
        task.abort();
    }
    Ok(())
}

/// Copies `value` into an annotation: the smallest controller.
async fn reconcile(
    object: Arc<ConfigMap>,
    api: Arc<Api<ConfigMap>>,
) -> Result<Action, kube::Error> {
    let value = object
        .data
        .as_ref()
        .and_then(|d| d.get("value"))
        .cloned()
        .unwrap_or_default();
    if object.annotations().get("seen") != Some(&value) {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {"seen": value}}}));
        api.patch(&object.name_any(), &PatchParams::default(), &patch)
            .await?;
    }
    Ok(Action::await_change())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_converges() -> Result<()> {
    let lab = Lab::start(1, &[])?;
    let api: Api<ConfigMap> = Api::namespaced(client(&lab).await?, "default");
    let controller = Controller::new(api.clone(), watcher::Config::default()).run(
        reconcile,
        |_, _: &kube::Error, _| Action::requeue(Duration::from_millis(100)),
        Arc::new(api.clone()),
    );
    let task = tokio::spawn(controller.for_each(|_| std::future::ready(())));
    for number in 0..20 {
        api.create(
            &PostParams::default(),
            &configmap(&format!("c{number}"), &number.to_string()),
        )
        .await?;
    }
    let end = tokio::time::Instant::now() + SOON;
    loop {
        let seen = api.list(&Default::default()).await?;
        let done = seen
            .items
            .iter()
            .filter(|c| c.name_any().starts_with('c'))
            .filter(|c| {
                c.data.as_ref().and_then(|d| d.get("value")) == c.annotations().get("seen")
                    && c.data.is_some()
            });
        if done.count() == 20 {
            break;
        }
        anyhow::ensure!(
            tokio::time::Instant::now() < end,
            "the controller did not converge"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    task.abort();
    Ok(())
}

/// Everything below shares a lab.
#[tokio::test(flavor = "multi_thread")]
async fn applies_elects_finalizes_and_reaches_into_pods() -> Result<()> {
    let lab = Lab::start(1, &[])?;
    let client = client(&lab).await?;
    discovered(&client).await.context("discovery")?;
    applied(&client).await.context("server-side apply")?;
    elected(&client).await.context("leader election")?;
    finalized(&client).await.context("finalizer")?;
    reached(&client).await.context("exec and port-forward")
}

async fn discovered(client: &Client) -> Result<()> {
    let found = Discovery::new(client.clone()).run_aggregated().await?;
    let kinds: BTreeSet<String> = found
        .groups()
        .flat_map(|g| g.recommended_resources())
        .map(|(resource, _)| format!("{}/{}", resource.api_version, resource.kind))
        .collect();
    for kind in [
        "v1/Service",
        "apps/v1/Deployment",
        "discovery.k8s.io/v1/EndpointSlice",
    ] {
        anyhow::ensure!(kinds.contains(kind), "{kind} in {kinds:?}");
    }
    let slow = Discovery::new(client.clone()).run().await?;
    anyhow::ensure!(slow.has_group("apps"), "the group apps, group by group");
    Ok(())
}

/// Ownership and conflicts, typed and untyped.
async fn applied(client: &Client) -> Result<()> {
    let api: Api<Service> = Api::namespaced(client.clone(), "default");
    let service = |target: u16| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "applied"},
            "spec": {"selector": {"a": "b"}, "ports": [{"port": 80, "protocol": "TCP", "targetPort": target}]}})
    };
    let apply = |manager: &str, target: u16, force: bool| {
        let params = PatchParams {
            force,
            ..PatchParams::apply(manager)
        };
        let api = api.clone();
        async move {
            api.patch("applied", &params, &Patch::Apply(service(target)))
                .await
        }
    };
    let made = apply("one", 8080, false).await?;
    let managers = made.metadata.managed_fields.unwrap_or_default();
    anyhow::ensure!(managers.len() == 1 && managers[0].manager.as_deref() == Some("one"));
    let again = apply("one", 8080, false).await?;
    anyhow::ensure!(again.metadata.resource_version == made.metadata.resource_version);
    match apply("two", 9090, false).await {
        Err(kube::Error::Api(status)) => {
            anyhow::ensure!(
                status.code == 409 && status.reason == "Conflict",
                "{status:?}"
            );
            anyhow::ensure!(
                status.message.contains("conflict with \"one\""),
                "{status:?}"
            );
        }
        other => anyhow::bail!("a conflict was expected: {other:?}"),
    }
    apply("two", 9090, true).await?;
    let resource = ApiResource::erase::<Service>(&());
    let untyped: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
    let held = untyped.get("applied").await?;
    anyhow::ensure!(held.data["spec"]["ports"][0]["targetPort"] == Value::from(9090));
    api.delete("applied", &DeleteParams::default()).await?;
    Ok(())
}

/// Leader election as controllers do it: the Lease's version decides who wins.
async fn elected(client: &Client) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "default");
    let lease = |holder: &str, version: Option<String>| {
        let now = "2026-01-01T00:00:00.000000Z";
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "leader", "resourceVersion": version},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "acquireTime": now, "renewTime": now}})
    };
    let made: Lease = serde_json::from_value(lease("one", None))?;
    let made = leases.create(&PostParams::default(), &made).await?;
    let version = made.metadata.resource_version.clone();
    // All want to follow from the same version: one gets it.
    let tries = (0..8).map(|n| {
        let (leases, version) = (leases.clone(), version.clone());
        async move {
            let wanted: Lease = serde_json::from_value(lease(&format!("next-{n}"), version))?;
            let params = PostParams::default();
            anyhow::Ok(leases.replace("leader", &params, &wanted).await)
        }
    });
    let mut won = 0;
    for outcome in futures::future::try_join_all(tries).await? {
        match outcome {
            Ok(_) => won += 1,
            Err(kube::Error::Api(status)) => anyhow::ensure!(status.code == 409, "{status:?}"),
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::ensure!(won == 1, "{won} of 8 lead");
    leases.delete("leader", &DeleteParams::default()).await?;
    Ok(())
}

/// A finalizer holds an object back until its cleanup is done.
async fn finalized(client: &Client) -> Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    api.create(&PostParams::default(), &configmap("held", "1"))
        .await?;
    let step = |expected: &'static str| {
        let api = api.clone();
        async move {
            let object = Arc::new(api.get("held").await?);
            finalizer(&api, "example.com/hold", object, |event| async move {
                let seen = match event {
                    Event::Apply(_) => "apply",
                    Event::Cleanup(_) => "cleanup",
                };
                if seen == expected {
                    Ok(Action::await_change())
                } else {
                    Err(std::io::Error::other(format!("{seen}, not {expected}")))
                }
            })
            .await?;
            anyhow::Ok(())
        }
    };
    step("apply").await?;
    anyhow::ensure!(api.get("held").await?.finalizers() == ["example.com/hold"]);
    api.delete("held", &DeleteParams::default()).await?;
    anyhow::ensure!(api.get("held").await?.metadata.deletion_timestamp.is_some());
    step("cleanup").await?;
    anyhow::ensure!(api.get_opt("held").await?.is_none(), "it is gone");
    Ok(())
}

/// A pod that serves, a command in it, and a port of it.
async fn reached(client: &Client) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let pod: Pod = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "serve"},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [
            {"name": "c", "image": "nginx:1.27", "ports": [{"containerPort": 80}],
             "readinessProbe": {"httpGet": {"path": "/healthz", "port": 80}, "periodSeconds": 1}}]}
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let running = await_condition(pods.clone(), "serve", conditions::is_pod_running());
    tokio::time::timeout(SOON, running).await??;
    let params = AttachParams {
        stdin: true,
        ..AttachParams::default()
    };
    let mut process = pods
        .exec(
            "serve",
            ["sh", "-c", "read line; echo got $line; exit 3"],
            &params,
        )
        .await?;
    let status = process.take_status().context("a status")?;
    let mut stdin = process.stdin().context("stdin")?;
    stdin.write_all(b"hello\n").await?;
    let mut said = String::new();
    process
        .stdout()
        .context("stdout")?
        .read_to_string(&mut said)
        .await?;
    anyhow::ensure!(said == "got hello\n", "{said:?}");
    let status = status.await.context("a status is sent")?;
    anyhow::ensure!(
        status.reason.as_deref() == Some("NonZeroExitCode"),
        "{status:?}"
    );
    drop(stdin);
    process.join().await?;
    let mut forwarder = pods.portforward("serve", &[80]).await?;
    let mut stream = forwarder.take_stream(80).context("the port")?;
    stream
        .write_all(b"GET /hostname HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await??;
    anyhow::ensure!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("serve"),
        "{answer}"
    );
    drop(stream);
    forwarder.abort();
    pods.delete("serve", &DeleteParams::default()).await?;
    Ok(())
}
