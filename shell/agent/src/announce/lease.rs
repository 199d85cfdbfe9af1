//! The Lease by which the others know that this node announces, and where.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use portolan_api::value::{int_at, set, str_at};
use portolan_client::{Client, LEASES, RequestError, Target, Writer};
use portolan_model::workloads::{HEARTBEATS_AT, LINKS, SPEAKER};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::COMPONENT;
use super::survey::Found;

/// For how long an agent that is silent counts as there.
pub(super) const LEASE_DURATION: Duration = Duration::from_secs(30);
/// How often the Lease is renewed.
const RENEWAL: Duration = Duration::from_secs(10);
/// How soon a write that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The name of a node's Lease.
pub(super) fn name(node: &str) -> String {
    format!("portolan-announcer-{node}")
}

/// Who holds the Lease of a node.
pub(super) struct Holder {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) node: String,
    pub(super) heartbeats_at: SocketAddr,
    /// Set once the Lease is written.
    pub(super) written: watch::Sender<bool>,
}

impl Holder {
    /// Renews the Lease until `shutdown`, and gives it back.
    pub(super) async fn hold(
        self,
        mut links: watch::Receiver<Vec<Found>>,
        shutdown: CancellationToken,
    ) {
        let writer = Writer::new(self.client.clone(), COMPONENT);
        loop {
            let found = links.borrow_and_update().clone();
            let pause = match self.write(&writer, &found, &self.node).await {
                Ok(()) => {
                    self.written.send_replace(true);
                    RENEWAL
                }
                Err(error) => {
                    let message = error.message();
                    tracing::warn!(%error, message, "the lease of this announcer was not renewed");
                    AGAIN
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                Ok(()) = links.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        let given_back = self.write(&writer, &[], "");
        match tokio::time::timeout(AGAIN, given_back).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the lease was not given back"),
            Err(_late) => tracing::debug!("the lease was not given back in time"),
        }
    }

    async fn write(
        &self,
        writer: &Writer,
        links: &[Found],
        holder: &str,
    ) -> Result<(), RequestError> {
        let name = name(&self.node);
        let target = Target::one(&LEASES, Some(&self.namespace), &name);
        match writer.get(target).await {
            Ok(lease) => {
                let body = self.body(&lease, links, holder);
                writer.replace(target, &body).await.map(drop)
            }
            Err(error) if error.is_not_found() => {
                let all = Target::all(&LEASES, Some(&self.namespace));
                let lease = json!({"metadata": {"name": name}});
                let body = self.body(&lease, links, holder);
                writer.create(all, &body).await.map(drop)
            }
            Err(error) => Err(error),
        }
    }

    /// The Lease as it is to be.
    fn body(&self, lease: &Value, links: &[Found], holder: &str) -> Value {
        let links = links.iter().map(|link| {
            let addresses = link.addresses.iter().map(ToString::to_string);
            json!({"name": link.name, "addresses": addresses.collect::<Vec<_>>()})
        });
        let links = Value::from(links.collect::<Vec<_>>()).to_string();
        let now = Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
            .to_string();
        let mut body = lease.clone();
        set(&mut body, "apiVersion", "coordination.k8s.io/v1");
        set(&mut body, "kind", "Lease");
        // Keys with dots in them are no paths.
        let put = |body: &mut Value, field: &str, key: &str, value: String| {
            let map = portolan_api::value::place(body, field);
            if !map.is_object() {
                *map = json!({});
            }
            map[key] = value.into();
        };
        put(&mut body, "metadata.labels", SPEAKER, "true".to_owned());
        put(&mut body, "metadata.annotations", LINKS, links);
        let at = self.heartbeats_at.to_string();
        put(&mut body, "metadata.annotations", HEARTBEATS_AT, at);
        if str_at(lease, "spec.holderIdentity") != holder && !holder.is_empty() {
            let count = int_at(lease, "spec.leaseTransitions").unwrap_or(-1);
            set(&mut body, "spec.leaseTransitions", count + 1);
            set(&mut body, "spec.acquireTime", now.as_str());
        }
        set(&mut body, "spec.holderIdentity", holder);
        let seconds = i64::try_from(LEASE_DURATION.as_secs()).unwrap_or(i64::MAX);
        set(&mut body, "spec.leaseDurationSeconds", seconds);
        set(&mut body, "spec.renewTime", now);
        body
    }
}
