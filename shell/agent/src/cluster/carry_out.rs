//! Carries a step out: the only place where controllers write.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::join_all;
use portolan_client::{
    ADDRESS_POOLS, CONTROLLER_REVISIONS, Client, DAEMON_SETS, DEPLOYMENTS, Deletion,
    ENDPOINT_SLICES, ENDPOINTS, IP_ADDRESS_POOLS, NODES, PODS, PatchBody, REPLICA_SETS, Recorder,
    Regarding, RequestError, Resource, SERVICES, STATEFUL_SETS, Severity, Target, Writer,
};
use portolan_plan::workloads::{Action, Blame, Kind, Step, Tell, Write};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::feed::Report;

/// Pods created at once at first; doubles as long as all goes well, so that a
/// template that the server refuses costs one request, not five hundred.
const FIRST_BATCH: usize = 1;

/// Where a kind lives.
fn resource(kind: Kind) -> &'static Resource {
    match kind {
        Kind::Pod => &PODS,
        Kind::ReplicaSet => &REPLICA_SETS,
        Kind::Deployment => &DEPLOYMENTS,
        Kind::StatefulSet => &STATEFUL_SETS,
        Kind::DaemonSet => &DAEMON_SETS,
        Kind::ControllerRevision => &CONTROLLER_REVISIONS,
        Kind::EndpointSlice => &ENDPOINT_SLICES,
        Kind::Endpoints => &ENDPOINTS,
        Kind::Service => &SERVICES,
        Kind::Node => &NODES,
        Kind::AddressPool => &ADDRESS_POOLS,
        Kind::IpAddressPool => &IP_ADDRESS_POOLS,
    }
}

/// Recorders, each under the name of a component, by the kind that it tells about.
#[derive(Clone)]
pub(super) struct Recorders {
    by_kind: Arc<BTreeMap<Kind, Recorder>>,
}

impl Recorders {
    pub(super) fn new(client: &Client, components: &[(Kind, &'static str)]) -> Self {
        let recorders = components.iter().map(|(kind, component)| {
            let recorder = Recorder::new(client.clone(), component, "");
            (*kind, recorder)
        });
        Self {
            by_kind: Arc::new(recorders.collect()),
        }
    }

    fn tell(&self, tell: &Tell, suffix: &str) {
        let (api_version, kind) = tell.about.kind.names();
        let regarding = Regarding {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: tell.about.key.namespace.clone(),
            name: tell.about.key.name.clone(),
            uid: tell.about.uid.clone(),
            field_path: String::new(),
        };
        let severity = if tell.warning {
            Severity::Warning
        } else {
            Severity::Normal
        };
        let Some(recorder) = self.by_kind.get(&tell.about.kind) else {
            return;
        };
        recorder.tell(
            &regarding,
            severity,
            tell.reason,
            &format!("{}{suffix}", tell.message),
        );
    }
}

/// What writing needs: `M` are the messages of the loop whose tasks are `T`.
pub(super) struct Hands<T, M> {
    pub(super) writer: Writer,
    pub(super) recorders: Recorders,
    pub(super) inbox: mpsc::Sender<M>,
    pub(super) tasks: PhantomData<fn(T)>,
}

impl<T, M> Clone for Hands<T, M> {
    fn clone(&self) -> Self {
        Self {
            writer: self.writer.clone(),
            recorders: self.recorders.clone(),
            inbox: self.inbox.clone(),
            tasks: PhantomData,
        }
    }
}

impl<T: Send + 'static, M: From<Report<T>> + Send + 'static> Hands<T, M> {
    /// Carries a task's step out in the background and reports when it is done.
    pub(super) fn carry_out(&self, task: T, step: Step) {
        let hands = self.clone();
        tokio::spawn(async move {
            let success = hands.run(&step).await;
            hands.send(Report::Done { task, success }).await;
        });
    }

    /// The loop ends before its writers do only when the process does.
    async fn send(&self, report: Report<T>) {
        if self.inbox.send(report.into()).await.is_err() {
            tracing::debug!("the controllers have stopped");
        }
    }

    async fn run(&self, step: &Step) -> bool {
        for tell in &step.tell {
            self.recorders.tell(tell, "");
        }
        let mut rest = step.writes.as_slice();
        let mut batch = FIRST_BATCH;
        while let Some(first) = rest.first() {
            let alike = rest
                .iter()
                .take_while(|write| is_independent(first, write))
                .count();
            let (now, later) = rest.split_at(alike.min(batch).max(1));
            if !join_all(now.iter().map(|write| self.write(write)))
                .await
                .into_iter()
                .all(|ok| ok)
            {
                return false;
            }
            batch = if later
                .first()
                .is_some_and(|next| is_independent(first, next))
            {
                batch * 2
            } else {
                FIRST_BATCH
            };
            rest = later;
        }
        true
    }

    /// One write, its answer, and its event. True if it need not be repeated.
    async fn write(&self, write: &Write) -> bool {
        match self.request(write).await {
            Ok(answer) => {
                let name = self.answered(write, answer).await;
                if let Some(tell) = &write.success {
                    self.recorders.tell(tell, &name);
                }
                true
            }
            Err(error) => self.refused(write, &error).await,
        }
    }

    async fn request(&self, write: &Write) -> Result<Value, RequestError> {
        let resource = resource(write.kind);
        let namespace = Some(write.key.namespace.as_str()).filter(|ns| !ns.is_empty());
        let one = Target::one(resource, namespace, &write.key.name);
        match &write.action {
            Action::Create(body) => {
                self.writer
                    .create(Target::all(resource, namespace), body)
                    .await
            }
            Action::Merge(body) => self.writer.patch(one, PatchBody::Merge(body)).await,
            Action::Strategic(body) => self.writer.patch(one, PatchBody::Strategic(body)).await,
            Action::MergeStatus(body) => {
                self.writer
                    .patch(one.subresource("status"), PatchBody::Merge(body))
                    .await
            }
            Action::StrategicStatus(body) => {
                self.writer
                    .patch(one.subresource("status"), PatchBody::Strategic(body))
                    .await
            }
            Action::Delete { uid, force } => {
                let deletion = Deletion {
                    uid: Some(uid.clone()),
                    grace_seconds: force.then_some(0),
                    ..Deletion::default()
                };
                self.writer.delete(one, &deletion).await
            }
            Action::Bind { uid, node } => {
                let body = json!({
                    "apiVersion": "v1",
                    "kind": "Binding",
                    "metadata": {
                        "name": write.key.name,
                        "namespace": write.key.namespace,
                        "uid": uid,
                    },
                    "target": {"apiVersion": "v1", "kind": "Node", "name": node},
                });
                self.writer.create(one.subresource("binding"), &body).await
            }
        }
    }

    /// Passes an answer on. Returns the name of a created object.
    async fn answered(&self, write: &Write, answer: Value) -> String {
        let mut name = String::new();
        let message = match &write.action {
            Action::Create(_) => {
                portolan_api::meta::name(&answer).clone_into(&mut name);
                Report::Wrote(write.kind, answer)
            }
            Action::Merge(_)
            | Action::Strategic(_)
            | Action::MergeStatus(_)
            | Action::StrategicStatus(_) => Report::Wrote(write.kind, answer),
            Action::Delete { uid, .. } => {
                Report::ToldToGo(write.kind, write.key.clone(), uid.clone())
            }
            Action::Bind { uid, node } => {
                Report::Bound(write.key.clone(), uid.clone(), Some(node.clone()))
            }
        };
        self.send(message).await;
        // A name that was known before is in the event already.
        if write.key.name.is_empty() {
            name
        } else {
            String::new()
        }
    }

    /// The server said no. True if there is no point in asking again.
    async fn refused(&self, write: &Write, error: &RequestError) -> bool {
        let settled = match &write.action {
            // What is gone, or is somebody else by now, need not be changed.
            Action::Delete { uid, .. } if error.is_not_found() || error.is_conflict() => {
                let gone = Report::ToldToGo(write.kind, write.key.clone(), uid.clone());
                self.send(gone).await;
                true
            }
            Action::Bind { uid, .. } => {
                let unbound = Report::Bound(write.key.clone(), uid.clone(), None);
                self.send(unbound).await;
                true
            }
            Action::Create(_) => error.is_namespace_terminating(),
            Action::Merge(_)
            | Action::Strategic(_)
            | Action::MergeStatus(_)
            | Action::StrategicStatus(_)
            | Action::Delete { .. } => error.is_not_found(),
        };
        if settled || error.is_conflict() {
            tracing::debug!(%error, message = error.message(), "write refused");
        } else {
            tracing::warn!(%error, message = error.message(), "write refused");
        }
        if let Some(tell) = write.failure.as_ref().filter(|_| !settled) {
            let message = error.message();
            self.recorders.tell(tell, &message);
            let blame = Blame {
                reason: tell.reason.to_owned(),
                message,
            };
            self.send(Report::Refused(tell.about.uid.clone(), blame))
                .await;
        }
        settled
    }
}

/// Whether two writes may go out at the same time: creations of pods, and
/// deletions.
fn is_independent(a: &Write, b: &Write) -> bool {
    a.kind == b.kind
        && match (&a.action, &b.action) {
            (Action::Create(_), Action::Create(_))
            | (Action::Delete { .. }, Action::Delete { .. }) => true,
            _ => std::ptr::eq(a, b),
        }
}
