//! The definitions of the project's own kinds and of ClusterNetworkPolicies: the
//! manifests that real clusters apply, and that the embedded server has from its first
//! moment.

use serde_json::Value;

use crate::yaml::{self, YamlError};

/// The manifests of `deploy/crds`, one definition each.
const MANIFESTS: &[&str] = &[
    include_str!("../../../deploy/crds/address-pools.yaml"),
    include_str!("../../../deploy/crds/l2-announcements.yaml"),
    include_str!("../../../deploy/crds/bgp-peers.yaml"),
    include_str!("../../../deploy/crds/bgp-announcements.yaml"),
    include_str!("../../../deploy/crds/cluster-network-policies.yaml"),
];

/// The CustomResourceDefinitions of the project's own kinds, and of
/// ClusterNetworkPolicies.
///
/// # Errors
/// Never: tests read all manifests.
pub fn definitions() -> Result<Vec<Value>, YamlError> {
    let mut all = Vec::with_capacity(MANIFESTS.len());
    for manifest in MANIFESTS {
        all.extend(yaml::parse(manifest)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cause;
    use crate::custom::{rules, versions};
    use crate::kinds::custom_resource_definition::KIND;
    use crate::value::{set, str_at};
    use crate::{GROUP, Kind, meta};
    use serde_json::json;

    /// None of the own definitions has a rule: they must fit servers that know none.
    struct NoRules;

    impl rules::Engine for NoRules {
        fn compile(&self, text: &str) -> Result<Box<dyn rules::Program>, String> {
            Err(format!("a rule: {text}"))
        }
    }

    fn definition(kind: &str) -> Value {
        let mut all = definitions().unwrap().into_iter();
        all.find(|one| str_at(one, "spec.names.kind") == kind)
            .unwrap()
    }

    fn served(kind: &str) -> Kind {
        let mut object = definition(kind);
        KIND.default(&mut object);
        KIND.prepare_create(&mut object);
        let names = object["spec"]["names"].clone();
        set(&mut object, "status.acceptedNames", names);
        let kinds: Vec<Kind> = versions(&object)
            .iter()
            .filter_map(|version| version.kind(&NoRules))
            .collect();
        kinds.into_iter().next().unwrap()
    }

    fn faults(kind: &str, spec: Value) -> Vec<String> {
        let kind = served(kind);
        let mut object = json!({
            "apiVersion": "portolan.dev/v1alpha1", "kind": kind.kind,
            "metadata": {"name": "one"}, "spec": spec,
        });
        kind.default(&mut object);
        kind.prepare_create(&mut object);
        kind.validate_create(&object)
            .iter()
            .map(Cause::to_string)
            .collect()
    }

    #[test]
    fn every_definition_is_one_that_a_server_takes() {
        let all = definitions().unwrap();
        assert_eq!(all.len(), MANIFESTS.len());
        for mut object in all {
            let others = str_at(&object, "spec.names.kind") == "ClusterNetworkPolicy";
            assert!(others || str_at(&object, "spec.group") == GROUP);
            KIND.default(&mut object);
            KIND.prepare_create(&mut object);
            let faults = KIND.validate_create(&object);
            assert!(faults.is_empty(), "{}: {faults:?}", meta::name(&object));
        }
    }

    #[test]
    fn pools_are_validated() {
        let ranges = json!([
            "192.0.2.0/28",
            "192.0.2.32-192.0.2.40",
            "2001:db8::/120",
            "192.0.2.50"
        ]);
        assert_eq!(faults("AddressPool", json!({"addresses": ranges})), [""; 0]);
        let cases = [
            (json!({}), "spec.addresses: Required value"),
            (json!({"addresses": []}), "spec.addresses: Invalid value"),
            (
                json!({"addresses": ["home"]}),
                "spec.addresses[0]: Invalid value: \"home\"",
            ),
            (
                json!({"addresses": ["192.0.2.0/28"], "priority": -1}),
                "spec.priority: Invalid value: -1",
            ),
            (
                json!({"addresses": ["192.0.2.0/28"], "serviceSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}),
                "spec.serviceSelector.matchExpressions[0].operator: Unsupported value: \"Near\"",
            ),
        ];
        for (spec, text) in cases {
            let found = faults("AddressPool", spec);
            assert!(found.len() == 1 && found[0].starts_with(text), "{found:?}");
        }
    }

    #[test]
    fn peers_and_announcements_are_validated() {
        let peer =
            json!({"localASN": 64512, "peerASN": 4200000000u32, "peerAddress": "fe80::1%eth0"});
        assert_eq!(faults("BGPPeer", peer), [""; 0]);
        let found = faults(
            "BGPPeer",
            json!({"localASN": 0, "peerASN": 1, "peerAddress": "router"}),
        );
        assert_eq!(found.len(), 2, "{found:?}");
        let communities = json!({"communities": ["64512:1", "large:1:2:3", "no-export"]});
        assert_eq!(faults("BGPAnnouncement", communities), [""; 0]);
        let found = faults(
            "BGPAnnouncement",
            json!({"communities": ["all"], "aggregationLength": 33}),
        );
        assert_eq!(found.len(), 2, "{found:?}");
        let found = faults("L2Announcement", json!({"interfaces": "eth0"}));
        assert_eq!(found.len(), 1, "{found:?}");
    }
}
