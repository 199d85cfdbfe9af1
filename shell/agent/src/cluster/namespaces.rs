//! Deleting namespaces: everything in one is told to go, kind by kind, until
//! nothing is left; then the namespace itself may go.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use portolan_api::value::{list_at, set};
use portolan_client::{
    Backoff, Client, Deletion, Event, NAMESPACES, Params, PatchBody, RequestError, Resource,
    Served, Target, Writer, discover, watch,
};
use portolan_model::workloads::{Namespace, Object};
use portolan_plan::workloads::{Content, NamespaceStep, namespace};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ClusterConfig;

/// Watches namespaces and deletes the content of those that are to go.
pub(super) async fn run(client: Client, config: ClusterConfig, shutdown: CancellationToken) {
    let mut events = watch::<Value>(client.clone(), NAMESPACES.clone(), Params::all());
    let mut busy: BTreeSet<String> = BTreeSet::new();
    let mut deletions: JoinSet<String> = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(done) = deletions.join_next() => {
                if let Ok(name) = done {
                    busy.remove(&name);
                }
            }
            event = events.next() => match event {
                Some(Event::InitItem(object) | Event::Upsert(object)) => {
                    let found = Namespace::read(&object);
                    let name = found.meta.key.name.clone();
                    if found.meta.deleting && !found.finalizers.is_empty() && busy.insert(name) {
                        deletions.spawn(delete(client.clone(), config.clone(), found));
                    }
                }
                Some(Event::Init | Event::InitDone { .. } | Event::Delete(_)) => {}
                None => return,
            }
        }
    }
}

/// Empties a namespace and lets it go. Answers with its name.
async fn delete(client: Client, config: ClusterConfig, found: Namespace) -> String {
    let name = found.meta.key.name.clone();
    let emptier = Emptier {
        writer: Writer::new(client, "namespace-controller"),
        name: name.clone(),
        found,
    };
    let mut retry = Backoff::new(config.retry.0, Duration::from_secs(30));
    let mut asked = 0;
    loop {
        match emptier.round(asked).await {
            Ok(None) => return name,
            Ok(Some(again)) => {
                retry.reset();
                asked += 1;
                tokio::time::sleep(again).await;
            }
            Err(error) if error.is_not_found() => return name,
            Err(error) => {
                tracing::warn!(namespace = name, %error, message = error.message(), "cannot empty the namespace");
                tokio::time::sleep(retry.next_delay()).await;
            }
        }
    }
}

struct Emptier {
    writer: Writer,
    name: String,
    found: Namespace,
}

impl Emptier {
    /// Tells everything to go and looks at what is left. Answers with how long
    /// to wait, or none when the namespace may go.
    async fn round(&self, asked: u32) -> Result<Option<Duration>, RequestError> {
        let served = discover(self.writer.client()).await?;
        let mut left = Vec::new();
        for kind in served
            .iter()
            .filter(|s| s.resource.namespaced && s.can(&["list", "delete"]))
        {
            let content = self.content(&kind.resource).await?;
            if content.objects > 0 {
                self.tell_to_go(kind).await?;
                left.push(self.content(&kind.resource).await?);
            }
        }
        match namespace(&self.found, &left, asked) {
            NamespaceStep::Nothing => Ok(None),
            NamespaceStep::Wait {
                remaining,
                held,
                again,
            } => {
                self.explain(&remaining, &held).await?;
                Ok(Some(again))
            }
            NamespaceStep::Finalize(others) => {
                self.finalize(&others).await?;
                Ok(None)
            }
        }
    }

    async fn content(&self, resource: &Resource) -> Result<Content, RequestError> {
        let target = Target::all(resource, Some(&self.name));
        let mut content = Content {
            kind: format!("{}.{}", resource.plural, resource.group),
            ..Content::default()
        };
        let list = match self.writer.list_metadata(target).await {
            Ok(list) => list,
            // A kind may vanish between discovery and now.
            Err(error) if error.is_not_found() => return Ok(content),
            Err(error) => return Err(error),
        };
        for object in list_at(&list, "items") {
            content.objects += 1;
            for finalizer in portolan_api::meta::finalizers(object) {
                *content.finalizers.entry(finalizer.to_owned()).or_default() += 1;
            }
        }
        Ok(content)
    }

    async fn tell_to_go(&self, kind: &Served) -> Result<(), RequestError> {
        let resource = &kind.resource;
        let all = Target::all(resource, Some(&self.name));
        if kind.can(&["deletecollection"]) {
            return match self.writer.delete(all, &Deletion::default()).await {
                Err(error) if !error.is_not_found() => Err(error),
                Ok(_) | Err(_) => Ok(()),
            };
        }
        let list = self.writer.list_metadata(all).await?;
        for object in list_at(&list, "items") {
            let name = portolan_api::meta::name(object);
            let one = Target::one(resource, Some(&self.name), name);
            match self.writer.delete(one, &Deletion::default()).await {
                Err(error) if !error.is_not_found() => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Says in the namespace's status what it waits for.
    async fn explain(&self, remaining: &str, held: &str) -> Result<(), RequestError> {
        let now = jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string();
        let condition = |kind: &str, holds: bool, reason: &str, message: &str| {
            json!({
                "type": kind,
                "status": if holds { "True" } else { "False" },
                "reason": reason,
                "message": message,
                "lastTransitionTime": now,
            })
        };
        let finalizers = if held.is_empty() {
            condition(
                "NamespaceFinalizersRemaining",
                false,
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            )
        } else {
            condition(
                "NamespaceFinalizersRemaining",
                true,
                "SomeFinalizersRemain",
                held,
            )
        };
        let content = condition(
            "NamespaceContentRemaining",
            true,
            "SomeResourcesRemain",
            remaining,
        );
        let body = json!({"status": {"conditions": [content, finalizers]}});
        let target = Target::one(&NAMESPACES, None, &self.name).subresource("status");
        self.writer
            .patch(target, PatchBody::Strategic(&body))
            .await
            .map(|_| ())
    }

    /// Takes our finalizer off; the server removes the namespace with the last one.
    async fn finalize(&self, others: &[String]) -> Result<(), RequestError> {
        let target = Target::one(&NAMESPACES, None, &self.name);
        let mut object = self.writer.get(target).await?;
        set(&mut object, "spec.finalizers", json!(others));
        match self
            .writer
            .replace(target.subresource("finalize"), &object)
            .await
        {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}
