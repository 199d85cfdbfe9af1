//! Events on the pods whose policies deny something.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Client;
use portolan_client::{Recorder, Regarding, Severity};
use portolan_model::PodKey;
use serde_json::Value;
use tokio::time::Instant;

use super::join::Told;

/// Why the event is there.
const REASON: &str = "PolicyDropped";
/// The same words about the same pod are counted up no more often.
const AGAIN: Duration = Duration::from_secs(10);
/// A pod is told so many different things at once…
const BURST: u32 = 10;
/// …and another after so long.
const REFILL: Duration = Duration::from_secs(30);
/// So many pods are remembered.
const PODS: usize = 1024;

/// What was told about one pod.
struct Pod {
    uid: String,
    /// When each thing was last told.
    told: BTreeMap<String, Instant>,
    /// From when on it has the whole burst again.
    full: Instant,
}

/// Tells pods.
pub(super) struct Events {
    client: Client,
    recorder: Recorder,
    pods: BTreeMap<PodKey, Pod>,
}

impl Events {
    pub(super) fn new(client: Client, node: &str) -> Self {
        Self {
            recorder: Recorder::new(client.clone(), "portolan-agent", node),
            client,
            pods: BTreeMap::new(),
        }
    }

    /// Tells each flow's pod of it, unless it was just told.
    pub(super) async fn tell(&mut self, told: &[Told]) {
        for one in told {
            if let Some(key) = one.pod() {
                self.one(key, one.message()).await;
            }
        }
    }

    async fn one(&mut self, key: &PodKey, message: String) {
        let now = Instant::now();
        if !self.pods.contains_key(key) {
            let Some(uid) = self.uid(key).await else {
                return;
            };
            if self.pods.len() >= PODS {
                self.pods.clear();
            }
            let pod = Pod {
                uid,
                told: BTreeMap::new(),
                full: now,
            };
            self.pods.insert(key.clone(), pod);
        }
        let Some(pod) = self.pods.get_mut(key) else {
            return;
        };
        if !pod.may_be_told(&message, now) {
            return;
        }
        let about = Regarding {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid: pod.uid.clone(),
            field_path: String::new(),
        };
        self.recorder
            .tell(&about, Severity::Warning, REASON, &message);
    }

    /// The uid by which `kubectl describe` finds a pod's events; facts do not have it.
    async fn uid(&self, key: &PodKey) -> Option<String> {
        let path = format!("/api/v1/namespaces/{}/pods/{}", key.namespace, key.name);
        let request = http::Request::get(path).body(Vec::new()).ok()?;
        let pod: Value = match self.client.request(request).await {
            Ok(pod) => pod,
            Err(error) => {
                tracing::debug!(pod = %key, %error, "the pod is not told what its policies deny");
                return None;
            }
        };
        Some(pod["metadata"]["uid"].as_str()?.to_owned())
    }
}

impl Pod {
    fn may_be_told(&mut self, message: &str, now: Instant) -> bool {
        self.told
            .retain(|_, last| now.duration_since(*last) < AGAIN);
        if self.told.contains_key(message) {
            return false;
        }
        let full = self.full.max(now);
        if full.duration_since(now) > REFILL * (BURST - 1) {
            return false;
        }
        self.full = full + REFILL;
        self.told.insert(message.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_not_told_the_same_at_once_nor_too_much() {
        let now = Instant::now();
        let mut pod = Pod {
            uid: String::new(),
            told: BTreeMap::new(),
            full: now,
        };
        assert!(pod.may_be_told("a", now));
        assert!(!pod.may_be_told("a", now + AGAIN / 2));
        assert!(pod.may_be_told("a", now + AGAIN));
        let told = (0..30).filter(|number| pod.may_be_told(&number.to_string(), now + AGAIN));
        assert_eq!(told.count(), BURST as usize - 2);
        let later = now + AGAIN + REFILL;
        assert!(pod.may_be_told("later", later));
        assert!(!pod.may_be_told("and more", later));
    }
}
