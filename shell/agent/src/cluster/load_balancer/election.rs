//! Which of many agents runs a controller: the one that holds a Lease.
//!
//! As client-go does it, with its times: the holder renews every two seconds and
//! gives up when it could not for ten; others take the Lease when it has not changed
//! for as long as it says, by their own clocks.

use std::future::Future;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use portolan_api::value::{at, int_at, set, str_at};
use portolan_client::{Client, LEASES, RequestError, Target, Writer};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// A place that one of many candidates has.
#[derive(Clone)]
pub struct Election {
    /// The API server.
    pub client: Client,
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub name: String,
    /// Who asks for it: a name that no other candidate has.
    pub identity: String,
    /// For how long a holder that is silent keeps it.
    pub lease_duration: Duration,
    /// For how long a holder tries to renew it before it gives up.
    pub renew_deadline: Duration,
    /// How often it is asked for, or renewed.
    pub retry_period: Duration,
}

impl Election {
    /// An election with the times that Kubernetes' own controllers have.
    pub fn new(client: Client, namespace: &str, name: &str, identity: String) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity,
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }

    /// Runs `work` whenever this candidate holds the Lease, until `shutdown`. `work`
    /// must end when its token is cancelled, which is before anybody else can begin.
    pub async fn lead<W, F>(self, shutdown: CancellationToken, work: W)
    where
        W: Fn(CancellationToken) -> F,
        F: Future<Output = ()>,
    {
        let mut candidate = Candidate {
            writer: Writer::new(self.client.clone(), "portolan-election"),
            election: self,
            seen: None,
        };
        while !shutdown.is_cancelled() {
            if candidate.ask().await {
                let election = &candidate.election;
                tracing::info!(lease = election.name, identity = election.identity, "leads");
                let stop = shutdown.child_token();
                tokio::join!(work(stop.clone()), candidate.stay(&stop));
                if shutdown.is_cancelled() {
                    candidate.leave().await;
                }
            }
            let pause = candidate.election.retry_period;
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

struct Candidate {
    writer: Writer,
    election: Election,
    /// The version of the Lease that was seen last, and since when.
    seen: Option<(String, Instant)>,
}

impl Candidate {
    /// Asks for the Lease. Whether we have it.
    async fn ask(&mut self) -> bool {
        match self.hold(&self.election.identity.clone()).await {
            Ok(held) => held,
            Err(error) => {
                let message = error.message();
                tracing::debug!(%error, message, "the lease was not asked for");
                false
            }
        }
    }

    /// Renews the Lease until `stop`; cancels it when that fails for too long.
    async fn stay(&mut self, stop: &CancellationToken) {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.election.retry_period) => {}
            }
            let deadline = self
                .election
                .renew_deadline
                .saturating_sub(renewed.elapsed());
            if let Ok(true) = tokio::time::timeout(deadline, self.ask()).await {
                renewed = Instant::now();
            }
            if renewed.elapsed() >= self.election.renew_deadline {
                tracing::warn!(
                    lease = self.election.name,
                    "leads no longer: the lease is lost"
                );
                stop.cancel();
            }
        }
    }

    /// Gives the Lease back, so that others need not wait for its end.
    async fn leave(&mut self) {
        let patience = self.election.retry_period;
        match tokio::time::timeout(patience, self.hold("")).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the lease was not given back"),
            Err(_late) => tracing::debug!("the lease was not given back in time"),
        }
    }

    /// Makes `holder` the holder of the Lease, if it may be had. Whether it is.
    async fn hold(&mut self, holder: &str) -> Result<bool, RequestError> {
        let (namespace, name) = (self.election.namespace.clone(), self.election.name.clone());
        let target = Target::one(&LEASES, Some(&namespace), &name);
        let mut lease = match self.writer.get(target).await {
            Ok(lease) => lease,
            Err(error) if error.is_not_found() => {
                let all = Target::all(&LEASES, Some(&namespace));
                let body = self.body(&json!({"metadata": {"name": name}}), holder);
                return settled(self.writer.create(all, &body).await);
            }
            Err(error) => return Err(error),
        };
        if !self.may_take(&lease) {
            return Ok(false);
        }
        lease = self.body(&lease, holder);
        settled(self.writer.replace(target, &lease).await)
    }

    /// Whether nobody else holds a Lease, or nobody who is alive.
    fn may_take(&mut self, lease: &Value) -> bool {
        let holder = str_at(lease, "spec.holderIdentity");
        let version = str_at(lease, "metadata.resourceVersion");
        let since = match &self.seen {
            Some((seen, since)) if seen == version => *since,
            Some(_) | None => Instant::now(),
        };
        self.seen = Some((version.to_owned(), since));
        let promised = int_at(lease, "spec.leaseDurationSeconds").unwrap_or(0);
        let promised = Duration::from_secs(u64::try_from(promised).unwrap_or(0));
        holder.is_empty() || holder == self.election.identity || since.elapsed() >= promised
    }

    /// The Lease with this holder.
    fn body(&self, lease: &Value, holder: &str) -> Value {
        let now = Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
            .to_string();
        // Others wait for whole seconds, and for one at least.
        let seconds = self.election.lease_duration.as_secs_f64().ceil().max(1.0);
        let mut body = lease.clone();
        set(&mut body, "apiVersion", "coordination.k8s.io/v1");
        set(&mut body, "kind", "Lease");
        let before = str_at(lease, "spec.holderIdentity");
        if holder.is_empty() {
            // Given back: who comes next counts.
        } else if before != holder {
            let count = int_at(lease, "spec.leaseTransitions").unwrap_or(-1);
            set(&mut body, "spec.leaseTransitions", count + 1);
            set(&mut body, "spec.acquireTime", now.as_str());
        } else if at(lease, "spec.acquireTime").is_null() {
            set(&mut body, "spec.acquireTime", now.as_str());
        }
        set(&mut body, "spec.holderIdentity", holder);
        set(&mut body, "spec.leaseDurationSeconds", seconds as i64);
        set(&mut body, "spec.renewTime", now);
        body
    }
}

/// Whether a write went through; somebody else was quicker otherwise.
fn settled(answer: Result<Value, RequestError>) -> Result<bool, RequestError> {
    match answer {
        Ok(_) => Ok(true),
        Err(error) if error.is_conflict() || error.is_already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}
