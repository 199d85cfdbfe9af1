//! Pods of this node whose network was made before the API server knows it.
//!
//! A pod has its addresses from the moment when its network is made; the API tells
//! them when the first container runs, or later. Whoever makes networks may tell them
//! at once, so that the pod's policies are there before its first process. Such word
//! is united with what the API tells of the same pod, and forgotten when the API tells
//! those addresses itself, when the pod is gone, or when its network is.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;

use crate::fact::Pod;
use crate::key::PodKey;

/// A pod's `metadata.uid`, by its digest: it tells pods of one name apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uid(u128);

impl Uid {
    /// That of nobody in particular.
    pub const UNKNOWN: Self = Self(0);

    /// The digest (FNV-1a) of a uid; [`Uid::UNKNOWN`] of an empty text.
    pub fn of(text: &str) -> Self {
        const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        if text.is_empty() {
            return Self::UNKNOWN;
        }
        let step = |hash: u128, byte: u8| (hash ^ u128::from(byte)).wrapping_mul(PRIME);
        Self(text.bytes().fold(BASIS, step))
    }

    /// Whether both may be of the same pod.
    fn fits(self, other: Self) -> bool {
        self == other || self == Self::UNKNOWN || other == Self::UNKNOWN
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The network that was made for a pod of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Whose.
    pub pod: PodKey,
    /// Which of the pods that may have that name.
    pub uid: Uid,
    /// Its addresses, of the primary family first.
    pub addresses: Vec<IpAddr>,
}

/// What was told of networks, and what the API says of pods that it matters for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Attached {
    told: OrdMap<PodKey, Attachment>,
    /// The API's word on pods without all addresses that they have, or will have.
    pods: OrdMap<PodKey, Arc<Pod>>,
}

impl Attached {
    pub(crate) fn tell(&mut self, attachment: Attachment) {
        self.told.insert(attachment.pod.clone(), attachment);
    }

    /// Forgets a network, unless it is another pod's of this name.
    pub(crate) fn forget(&mut self, key: &PodKey, uid: Uid) {
        if self.told.get(key).is_some_and(|told| told.uid.fits(uid)) {
            self.told.remove(key);
        }
    }

    /// What the API says of a pod, if that is not what is to be believed.
    pub(crate) fn said(&self, key: &PodKey) -> Option<&Arc<Pod>> {
        self.pods.get(key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &PodKey> {
        self.pods.keys()
    }

    /// The API says this of a pod; what is to be believed of it.
    pub(crate) fn unite(&mut self, pod: Arc<Pod>) -> Arc<Pod> {
        let key = &pod.key;
        if pod.over || pod.host_network {
            self.forget(key, pod.uid);
        }
        if pod.over || pod.host_network || pod.node.is_none() {
            self.pods.remove(key);
            return pod;
        }
        let told = self.told.get(key).filter(|told| told.uid.fits(pod.uid));
        let Some(told) = told else {
            self.keep_if_waiting(&pod);
            return pod;
        };
        let addresses = told.addresses.iter().copied();
        let news: Vec<_> = addresses
            .filter(|own| !pod.addresses.contains(own))
            .collect();
        if news.is_empty() {
            self.told.remove(key);
            self.keep_if_waiting(&pod);
            return pod;
        }
        let mut united = (*pod).clone();
        united.addresses.extend(news);
        self.pods.insert(key.clone(), pod);
        Arc::new(united)
    }

    /// One without an address is known nowhere else.
    fn keep_if_waiting(&mut self, pod: &Arc<Pod>) {
        if pod.addresses.is_empty() {
            self.pods.insert(pod.key.clone(), Arc::clone(pod));
        } else {
            self.pods.remove(&pod.key);
        }
    }

    /// The API knows no such pod any more, which was this one if its object was known.
    pub(crate) fn gone(&mut self, key: &PodKey, uid: Option<Uid>) {
        self.pods.remove(key);
        if let Some(uid) = uid {
            self.forget(key, uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, Cluster, Fact, Key, Kind};

    fn said(uid: &str, addresses: &[&str]) -> Pod {
        Pod {
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            uid: Uid::of(uid),
            node: Some("n".into()),
            ..Pod::at(key(), None)
        }
    }

    fn key() -> PodKey {
        PodKey::new("ns", "web-0")
    }

    fn upsert(pod: Pod) -> Change {
        Change::Upsert(Fact::Pod(Arc::new(pod)))
    }

    fn attach(uid: &str, addresses: &[&str]) -> Change {
        Change::Attach(Attachment {
            pod: key(),
            uid: Uid::of(uid),
            addresses: said(uid, addresses).addresses,
        })
    }

    /// What is believed after these changes.
    fn believed(changes: impl IntoIterator<Item = Change>) -> Vec<String> {
        let mut cluster = Cluster::default();
        for change in changes {
            let before = cluster.pod(&key()).cloned();
            let dirty = cluster.apply(change);
            let same = before.as_ref() == cluster.pod(&key());
            assert_eq!(dirty.selected.is_empty(), same, "{dirty:?}");
        }
        let pod = cluster.pod(&key());
        let addresses = pod.into_iter().flat_map(|pod| &pod.addresses);
        addresses.map(ToString::to_string).collect()
    }

    #[test]
    fn n16_a_network_counts_before_the_api_knows_it() {
        let waiting = || upsert(said("a", &[]));
        let told = || attach("a", &["10.0.0.1", "fd00::1"]);
        let both = ["10.0.0.1", "fd00::1"];
        // Whoever comes first.
        assert_eq!(believed([waiting(), told()]), both);
        assert_eq!(believed([told(), waiting()]), both);
        assert!(believed([told()]).is_empty());
        // The API may learn of a pod before it is bound.
        let mut unbound = said("a", &[]);
        unbound.node = None;
        assert_eq!(believed([told(), upsert(unbound), waiting()]), both);
        // The API's word is added to, until it is complete.
        let part = upsert(said("a", &["10.0.0.1"]));
        assert_eq!(believed([told(), part]), both);
        let all = upsert(said("a", &both));
        let other = upsert(said("a", &["10.0.0.9"]));
        assert_eq!(believed([told(), all, other]), ["10.0.0.9"]);
        // An old address may still be told after a new network was made.
        let old = upsert(said("a", &["10.0.0.9"]));
        let new = attach("a", &["10.0.0.1"]);
        assert_eq!(believed([old, new]), ["10.0.0.9", "10.0.0.1"]);
    }

    #[test]
    fn n16_a_network_is_forgotten_with_its_pod() {
        let told = |uid| attach(uid, &["10.0.0.1"]);
        let waiting = |uid| upsert(said(uid, &[]));
        let gone = || Change::Delete(Key::Pod(key()));
        let none = Vec::<String>::new();
        assert_eq!(
            believed([waiting("a"), told("a"), gone(), waiting("a")]),
            none
        );
        let detached = |uid| Change::Detach(key(), Uid::of(uid));
        assert_eq!(believed([waiting("a"), told("a"), detached("a")]), none);
        assert_eq!(believed([waiting("a"), told("a"), detached("")]), none);
        let mut over = said("a", &[]);
        over.over = true;
        assert_eq!(believed([waiting("a"), told("a"), upsert(over)]), none);
        let relist = Change::Replace(Kind::Pod, Vec::new());
        assert_eq!(believed([waiting("a"), told("a"), relist]), none);
        // The next pod of this name has its network before the last one is gone.
        let next = [waiting("a"), told("b"), gone(), waiting("b")];
        assert_eq!(believed(next), ["10.0.0.1"]);
        assert_eq!(
            believed([waiting("b"), told("b"), detached("a")]),
            ["10.0.0.1"]
        );
    }
}
