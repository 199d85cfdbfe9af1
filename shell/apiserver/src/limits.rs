//! How much one client may ask at a time, so that none starves the rest.
//!
//! A flow is what one program does as one user. Each flow has its own places
//! and waits for one in its own queue; all flows together share the places of
//! the server, for which they wait in the order of their coming. A flow never
//! has more requests in that common queue than it has places, so the wait of
//! everybody else is bounded whatever it sends.
//!
//! Watches, followed logs and streams last: they are counted on their own and
//! take no place from requests that end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use http::header::USER_AGENT;
use portolan_api::Status;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::answer::Failure;
use crate::metrics::Lasting;

/// Requests at work at a time: Kubernetes' 400 readers and 200 writers.
const PLACES: usize = 600;
/// Of these, for one flow.
const PLACES_PER_FLOW: usize = 100;
/// Requests of one flow that may wait for a place.
const QUEUE_PER_FLOW: usize = 1_000;
/// Watches and streams of one flow.
const LASTING_PER_FLOW: usize = 2_000;
/// How long a request may wait: Kubernetes' own request timeout.
const WAIT: Duration = Duration::from_secs(60);
/// Flows that are remembered; those at rest are forgotten first.
const FLOWS: usize = 1_024;
/// A user agent is cut here: it is a client's word.
const AGENT_BYTES: usize = 64;

/// Who asks, for the purpose of fairness.
type FlowName = (String, String);

/// The places of one flow.
#[derive(Debug)]
struct Flow {
    places: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    lasting: Arc<Semaphore>,
}

impl Flow {
    fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(PLACES_PER_FLOW)),
            queue: Arc::new(Semaphore::new(QUEUE_PER_FLOW + PLACES_PER_FLOW)),
            lasting: Arc::new(Semaphore::new(LASTING_PER_FLOW)),
        }
    }

    fn rests(&self) -> bool {
        self.queue.available_permits() == QUEUE_PER_FLOW + PLACES_PER_FLOW
            && self.lasting.available_permits() == LASTING_PER_FLOW
    }
}

/// All flows.
#[derive(Debug)]
pub(crate) struct Limits {
    places: Arc<Semaphore>,
    flows: Mutex<BTreeMap<FlowName, Arc<Flow>>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(PLACES)),
            flows: Mutex::default(),
        }
    }
}

/// The right to be at work; given back when dropped.
#[derive(Debug)]
#[expect(dead_code, reason = "held for its drop")]
pub(crate) struct Place(Vec<OwnedSemaphorePermit>, Option<Lasting>);

impl Place {
    /// A place that is counted as open while it lasts.
    pub(crate) fn counted(self, lasting: Lasting) -> Self {
        Self(self.0, Some(lasting))
    }
}

impl Limits {
    /// Wait for a place for a request that ends.
    pub(crate) async fn enter(&self, user: &str, headers: &HeaderMap) -> Result<Place, Failure> {
        let flow = self.flow(user, headers);
        let queued = Arc::clone(&flow.queue)
            .try_acquire_owned()
            .map_err(|_full| too_many())?;
        let waiting = async {
            let own = Arc::clone(&flow.places).acquire_owned().await.ok()?;
            let common = Arc::clone(&self.places).acquire_owned().await.ok()?;
            Some(Place(vec![queued, own, common], None))
        };
        match tokio::time::timeout(WAIT, waiting).await {
            Ok(Some(place)) => Ok(place),
            Ok(None) | Err(_) => Err(too_many()),
        }
    }

    /// A place for a request that lasts.
    pub(crate) fn stay(&self, user: &str, headers: &HeaderMap) -> Result<Place, Failure> {
        let flow = self.flow(user, headers);
        let place = Arc::clone(&flow.lasting)
            .try_acquire_owned()
            .map_err(|_full| too_many())?;
        Ok(Place(vec![place], None))
    }

    fn flow(&self, user: &str, headers: &HeaderMap) -> Arc<Flow> {
        let name = (user.to_owned(), agent(headers));
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flow) = flows.get(&name) {
            return Arc::clone(flow);
        }
        if flows.len() >= FLOWS {
            flows.retain(|_, flow| !flow.rests());
        }
        // Whoever makes up agents faster than flows come to rest shares one.
        let name = if flows.len() >= FLOWS {
            (user.to_owned(), String::new())
        } else {
            name
        };
        Arc::clone(flows.entry(name).or_insert_with(|| Arc::new(Flow::new())))
    }
}

/// The program that asks: `kubectl/v1.32.4` of `kubectl/v1.32.4 (linux/amd64) …`.
fn agent(headers: &HeaderMap) -> String {
    let agent = headers
        .get(USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let word = agent.split_whitespace().next().unwrap_or_default();
    word.chars().take(AGENT_BYTES).collect()
}

fn too_many() -> Failure {
    Box::new(Status::too_many_requests(
        "too many requests, please try again later",
        1,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn from(agent: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static(agent))])
    }

    #[tokio::test]
    async fn a_greedy_program_waits_and_the_others_do_not() {
        let limits = Limits::default();
        let (greedy, modest) = (from("greedy/1 (x)"), from("modest/1"));
        let mut held = Vec::new();
        for _ in 0..PLACES_PER_FLOW {
            held.push(limits.enter("u", &greedy).await.unwrap());
        }
        let mut waiting = Vec::new();
        for _ in 0..QUEUE_PER_FLOW {
            let mut one = Box::pin(limits.enter("u", &greedy));
            assert!(futures::poll!(one.as_mut()).is_pending());
            waiting.push(one);
        }
        let refused = limits.enter("u", &greedy).await.unwrap_err();
        assert_eq!((refused.code, refused.reason), (429, "TooManyRequests"));
        assert_eq!(refused.details.retry_after_seconds, 1);
        assert!(limits.enter("u", &modest).await.is_ok());
        assert!(limits.enter("v", &greedy).await.is_ok());
        held.clear();
        for one in waiting {
            one.await.unwrap();
        }
        assert!(limits.enter("u", &greedy).await.is_ok());
    }

    #[tokio::test]
    async fn watches_do_not_take_the_places_of_requests() {
        let limits = Limits::default();
        let agent = from("a/1");
        let held: Vec<Place> = (0..LASTING_PER_FLOW)
            .map(|_| limits.stay("u", &agent).unwrap())
            .collect();
        assert_eq!(limits.stay("u", &agent).unwrap_err().code, 429);
        assert!(limits.enter("u", &agent).await.is_ok());
        drop(held);
        assert!(limits.stay("u", &agent).is_ok());
    }
}
