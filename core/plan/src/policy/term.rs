//! Who a rule of a policy is about, and where to look for which of them a pod meets.

use portolan_model::{Block, Cluster, LabelSelector, Labels, Pod, PolicyPeer, Text};

/// One kind of peer, with its namespaces told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Term {
    /// Pods (N6).
    Pods {
        /// In which namespaces.
        within: Within,
        /// Which of them.
        pods: LabelSelector,
    },
    /// A range of addresses (N8).
    Block(Block),
}

/// Namespaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Within {
    /// This one.
    Namespace(Text),
    /// Those with such labels.
    Labels(LabelSelector),
}

/// Where a term is kept, so that a pod finds those that may be about it: in a
/// namespace, behind a label, or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Anchor {
    namespace: Option<Text>,
    label: Option<(Text, Text)>,
}

impl Term {
    /// What a policy of a namespace means by a peer.
    pub(super) fn of(peer: &PolicyPeer, namespace: &Text) -> Self {
        match peer {
            PolicyPeer::Block(block) => Self::Block(block.clone()),
            PolicyPeer::Pods { namespaces, pods } => Self::Pods {
                within: namespaces
                    .clone()
                    .map_or_else(|| Within::Namespace(namespace.clone()), Within::Labels),
                pods: pods.clone(),
            },
        }
    }

    /// All pods there are.
    pub(super) fn every_pod() -> Self {
        Self::Pods {
            within: Within::Labels(LabelSelector::default()),
            pods: LabelSelector::default(),
        }
    }

    /// Whether it is about this pod, as a pod.
    pub(super) fn selects(&self, cluster: &Cluster, pod: &Pod) -> bool {
        match self {
            Self::Block(_) => false,
            Self::Pods { within, pods } => {
                within.has(cluster, &pod.key.namespace) && pods.matches(&pod.labels)
            }
        }
    }

    /// The pods that it is about, found by the label that they must have, or by
    /// their namespaces.
    pub(super) fn members<'c>(&self, cluster: &'c Cluster) -> Vec<&'c Pod> {
        let Self::Pods { within, pods } = self else {
            return Vec::new();
        };
        let mut found: Vec<&Pod> = Vec::new();
        match (within, pods.anchor()) {
            (Within::Namespace(namespace), None) => {
                found.extend(cluster.pods_of(namespace).map(|pod| &**pod));
            }
            (Within::Labels(selector), None) if selector.requirements().is_empty() => {
                found.extend(cluster.pods().map(|pod| &**pod));
            }
            (Within::Labels(_), None) => {
                for namespace in cluster.namespaces() {
                    if within.has(cluster, namespace) {
                        found.extend(cluster.pods_of(namespace).map(|pod| &**pod));
                    }
                }
            }
            (_, Some((key, values))) => {
                for value in values {
                    let label = (key.clone(), value.clone());
                    let there = cluster.pods_labelled(&label, within.only());
                    found.extend(there.map(|pod| &**pod));
                }
            }
        }
        found.retain(|pod| !pod.host_network && self.selects(cluster, pod));
        found
    }

    /// Where it is kept; nowhere if it is about no pods.
    pub(super) fn anchors(&self) -> Vec<Anchor> {
        let Self::Pods { within, pods } = self else {
            return Vec::new();
        };
        let namespace = within.only().cloned();
        match pods.anchor() {
            None => vec![Anchor {
                namespace,
                label: None,
            }],
            Some((key, values)) => {
                let at = values.iter().map(|value| Anchor {
                    namespace: namespace.clone(),
                    label: Some((key.clone(), value.clone())),
                });
                at.collect()
            }
        }
    }
}

impl Within {
    fn has(&self, cluster: &Cluster, namespace: &Text) -> bool {
        match self {
            Self::Namespace(own) => own == namespace,
            // What asks nothing need not know them (N6).
            Self::Labels(selector) if selector.requirements().is_empty() => true,
            Self::Labels(selector) => {
                let labels = cluster.labels_of(namespace);
                labels.is_some_and(|labels| selector.matches(labels))
            }
        }
    }

    /// The only namespace that it can be.
    fn only(&self) -> Option<&Text> {
        match self {
            Self::Namespace(own) => Some(own),
            Self::Labels(_) => None,
        }
    }
}

/// Where the terms are kept that may be about a pod with these labels.
pub(super) fn anchors_of(namespace: &Text, labels: &Labels) -> impl Iterator<Item = Anchor> {
    let labels = labels.iter().cloned().map(Some).collect::<Vec<_>>();
    let namespace = namespace.clone();
    labels.into_iter().chain([None]).flat_map(move |label| {
        [Some(namespace.clone()), None].map(|namespace| Anchor {
            namespace,
            label: label.clone(),
        })
    })
}
