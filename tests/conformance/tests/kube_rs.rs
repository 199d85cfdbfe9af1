//! kube's reflector and controller runtime against the embedded API server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, ResourceExt};
use portolan_conformance::Lab;
use serde_json::json;

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
