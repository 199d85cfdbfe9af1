//! Which Services lead to a pod, without a look at all Services.
//!
//! A selector asks for all of its labels, so one of them is enough to find its
//! Service by: the cost of a pod's change is that of the Services that share
//! one of its labels, however many there are beside them.

use std::collections::BTreeMap;

use portolan_model::workloads::Service;

use crate::workloads::Store;

/// The Services, found by the pods that they select.
pub fn services_by_selector() -> Store<Service> {
    Store::by(|service| {
        let selector = service.selector.iter().flatten();
        selector
            .take(1)
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect()
    })
}

/// The Services of a namespace that lead to pods with these labels.
/// `services` comes from [`services_by_selector`].
pub fn selecting<'a>(
    services: &'a Store<Service>,
    namespace: &'a str,
    labels: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = &'a Service> {
    labels
        .iter()
        .flat_map(|(key, value)| services.labelled(namespace, key, value))
        .map(AsRef::as_ref)
        .filter(|service| service.selects(labels))
}

#[cfg(test)]
mod tests {
    use portolan_model::workloads::{Object, ObjectKey};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
        prop::collection::btree_map("[abc]", "[xy]", 0..4)
    }

    proptest! {
        /// After any Services came, changed their selectors and went, the index
        /// answers what a scan of all Services does, each once.
        #[test]
        fn e5_the_index_of_selectors_answers_what_a_scan_does(
            news in prop::collection::vec((0..4usize, 0..6usize, labels(), any::<bool>()), 1..40),
            pods in prop::collection::vec((0..2usize, labels()), 1..8),
        ) {
            let mut services = services_by_selector();
            services.replace(Vec::new(), 1);
            for (version, (kind, name, selector, other)) in news.into_iter().enumerate() {
                let external = if kind == 1 { "ExternalName" } else { "ClusterIP" };
                let service = Service::read(&json!({
                    "metadata": {
                        "namespace": if other { "n1" } else { "n0" },
                        "name": format!("s{name}"), "uid": format!("u{name}"),
                        "resourceVersion": (version + 2).to_string(),
                    },
                    "spec": {"type": external, "selector": selector},
                }));
                if kind == 0 {
                    services.saw_end(&service);
                } else {
                    services.saw(service);
                }
            }
            for (namespace, labels) in &pods {
                let namespace = format!("n{namespace}");
                let mut found: Vec<&ObjectKey> = selecting(&services, &namespace, labels)
                    .map(|service| &service.meta.key)
                    .collect();
                found.sort();
                let scanned: Vec<&ObjectKey> = services
                    .in_namespace(&namespace)
                    .filter(|service| service.selects(labels))
                    .map(|service| &service.meta.key)
                    .collect();
                prop_assert_eq!(found, scanned);
            }
        }
    }
}
