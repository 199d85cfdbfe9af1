//! Deleting namespaces: everything in one is told to go, kind by kind, until
//! nothing is left; then the namespace itself may go.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use portolan_api::value::{list_at, set};
use portolan_client::{
    Backoff, Client, Deletion, Event, NAMESPACES, PODS, Params, PatchBody, RequestError, Resource,
    Served, Target, Writer, discover, watch,
};
use portolan_model::workloads::{Namespace, Object};
use portolan_plan::workloads::{Content, Emptying, NamespaceStep, namespace, namespace_status};
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
                        deletions.spawn(delete(client.clone(), config.clone(), found.meta.key.name));
                    }
                }
                Some(Event::Init | Event::InitDone { .. } | Event::Delete(_)) => {}
                None => return,
            }
        }
    }
}

/// Empties a namespace and lets it go. Answers with its name.
async fn delete(client: Client, config: ClusterConfig, name: String) -> String {
    let emptier = Emptier {
        writer: Writer::new(client, "namespace-controller"),
        name: name.clone(),
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
}

impl Emptier {
    /// Tells everything to go and looks at what is left. Answers with how long
    /// to wait, or none when the namespace may go.
    async fn round(&self, asked: u32) -> Result<Option<Duration>, RequestError> {
        let now = self.writer.get(self.target()).await?;
        let emptying = self.empty(asked).await;
        match namespace(&Namespace::read(&now), &emptying, jiff::Timestamp::now()) {
            NamespaceStep::Nothing => Ok(None),
            NamespaceStep::Wait { conditions, again } => {
                if let Some(conditions) = conditions {
                    let status = namespace_status(&conditions);
                    let target = self.target().subresource("status");
                    self.writer
                        .patch(target, PatchBody::Strategic(&status))
                        .await?;
                }
                Ok(Some(again))
            }
            NamespaceStep::Finalize(others) => {
                self.finalize(now, &others).await?;
                Ok(None)
            }
        }
    }

    fn target(&self) -> Target<'_> {
        Target::one(&NAMESPACES, None, &self.name)
    }

    /// Tells everything to go: pods first, the rest when they are gone.
    async fn empty(&self, asked: u32) -> Emptying {
        let mut emptying = Emptying {
            asked,
            ..Emptying::default()
        };
        let served = match discover(self.writer.client()).await {
            Ok(served) => served,
            Err(error) => {
                emptying.discovery = Some(error.message());
                return emptying;
            }
        };
        let (pods, others): (Vec<Served>, Vec<Served>) = served
            .into_iter()
            .filter(|s| s.resource.namespaced && s.can(&["list", "delete"]))
            .partition(|s| s.resource == PODS);
        for kinds in [pods, others] {
            for kind in kinds {
                match self.empty_of(&kind).await {
                    Ok(content) => emptying.left.push(content),
                    Err(error) => emptying.failures.push(error.message()),
                }
            }
            if emptying.left.iter().any(|content| content.objects > 0) {
                break;
            }
        }
        emptying
    }

    /// Tells the objects of a kind to go, and counts what is left.
    async fn empty_of(&self, kind: &Served) -> Result<Content, RequestError> {
        let content = self.content(&kind.resource).await?;
        if content.objects == 0 {
            return Ok(content);
        }
        self.tell_to_go(kind).await?;
        self.content(&kind.resource).await
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

    /// Takes our finalizer off; the server removes the namespace with the last one.
    async fn finalize(&self, mut object: Value, others: &[String]) -> Result<(), RequestError> {
        set(&mut object, "spec.finalizers", json!(others));
        match self
            .writer
            .replace(self.target().subresource("finalize"), &object)
            .await
        {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}
