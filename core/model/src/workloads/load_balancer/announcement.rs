//! Announcements: which addresses are told to whom.

use std::collections::BTreeSet;

use portolan_api::value::{at, int_at, strings_at};
use serde_json::Value;

use super::super::Meta;
use super::super::meta::object;
use super::scope::texts;
use super::{Community, Scope};

/// An L2Announcement, or an L2Advertisement of MetalLB: addresses for which one node
/// of a link answers. Ours are of the cluster, MetalLB's live in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct L2Announcement {
    /// What every object has.
    pub meta: Meta,
    /// Which addresses, and from which nodes.
    pub scope: Scope,
    /// Only on these links; on every one that can be used without any.
    pub interfaces: BTreeSet<String>,
    /// `status` as it was last written.
    pub status: Value,
}

object!(L2Announcement, read_l2);

fn read_l2(object: &Value) -> L2Announcement {
    let meta = Meta::of(object);
    L2Announcement {
        scope: Scope::of(&meta.key.namespace, at(object, "spec")),
        interfaces: texts(object, "spec.interfaces").into_iter().collect(),
        status: at(object, "status").clone(),
        meta,
    }
}

/// A BGPAnnouncement, or a BGPAdvertisement of MetalLB: addresses that routers are told
/// of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BgpAnnouncement {
    /// What every object has.
    pub meta: Meta,
    /// Which addresses, and from which nodes.
    pub scope: Scope,
    /// Only to the peers with these names; to all without any.
    pub peers: BTreeSet<String>,
    /// The length of IPv4 prefixes, and that of IPv6 ones, where they are shorter than
    /// an address.
    pub lengths: [Option<u8>; 2],
    /// LOCAL_PREF, for peers of the same AS.
    pub local_pref: Option<u32>,
    /// Communities; MetalLB's may be names that Community objects explain.
    pub communities: BTreeSet<Community>,
    /// `status` as it was last written.
    pub status: Value,
}

object!(BgpAnnouncement, read_bgp);

fn read_bgp(object: &Value) -> BgpAnnouncement {
    let meta = Meta::of(object);
    let spec = at(object, "spec");
    let own = meta.key.namespace.is_empty();
    let length = |field| int_at(spec, field).and_then(|number| u8::try_from(number).ok());
    let preference = int_at(spec, "localPref").and_then(|number| u32::try_from(number).ok());
    let communities = strings_at(spec, "communities").into_iter();
    BgpAnnouncement {
        scope: Scope::of(&meta.key.namespace, spec),
        peers: texts(spec, "peers").into_iter().collect(),
        lengths: [length("aggregationLength"), length("aggregationLengthV6")],
        // To MetalLB, 0 is no preference.
        local_pref: preference.filter(|number| own || *number > 0),
        communities: communities.map(Community::parse).collect(),
        status: at(object, "status").clone(),
        meta,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::super::super::Object;
    use super::super::Pool;
    use super::*;

    fn labels(key: &str, value: &str) -> BTreeMap<String, String> {
        [(key.to_owned(), value.to_owned())].into()
    }

    #[test]
    fn l8_announcements_of_both_kinds_are_read() {
        let own = L2Announcement::read(&json!({
            "metadata": {"name": "lan"},
            "spec": {
                "pools": ["home"], "poolSelector": {"matchLabels": {"lan": "yes"}},
                "nodeSelector": {"matchLabels": {"rack": "a"}},
                "serviceSelector": {"matchLabels": {"app": "web"}},
                "interfaces": ["eth0"],
            },
        }));
        let pool = |name: &str, namespace: &str, lan: &str| {
            Pool::read(&json!({"metadata": {
                "name": name, "namespace": namespace, "labels": {"lan": lan},
            }}))
        };
        assert!(own.scope.takes_pool(&pool("home", "", "no")));
        assert!(
            own.scope
                .takes_pool(&pool("other", "metallb-system", "yes"))
        );
        assert!(!own.scope.takes_pool(&pool("other", "", "no")));
        assert!(own.scope.takes_node(&labels("rack", "a")));
        assert!(!own.scope.takes_node(&labels("rack", "b")));
        assert!(!own.scope.takes_service(&BTreeMap::new()));
        assert!(own.interfaces.contains("eth0"));
        let metal = L2Announcement::read(&json!({
            "metadata": {"name": "all", "namespace": "metallb-system"},
            "spec": {"nodeSelectors": [
                {"matchLabels": {"rack": "a"}}, {"matchLabels": {"rack": "b"}},
            ]},
        }));
        assert!(
            metal
                .scope
                .takes_pool(&pool("other", "metallb-system", "no"))
        );
        assert!(!metal.scope.takes_pool(&pool("home", "", "no")));
        assert!(metal.scope.takes_node(&labels("rack", "b")));
        assert!(!metal.scope.takes_node(&labels("rack", "c")));
    }

    #[test]
    fn l10_routes_attributes_are_read() {
        let spec = json!({
            "aggregationLength": 24, "localPref": 0, "peers": ["tor"],
            "communities": ["64512:100", "large:64512:1:2", "no-export", "vpn"],
        });
        let read = |namespace: &str| {
            BgpAnnouncement::read(
                &json!({"metadata": {"name": "x", "namespace": namespace}, "spec": spec}),
            )
        };
        let own = read("");
        assert_eq!(own.lengths, [Some(24), None]);
        assert_eq!(own.local_pref, Some(0));
        assert_eq!(read("metallb-system").local_pref, None);
        let wanted = [
            Community::Standard(0xfc00_0064),
            Community::Standard(0xffff_ff01),
            Community::Large([64512, 1, 2]),
            Community::Named("vpn".to_owned()),
        ];
        assert_eq!(own.communities, wanted.into());
    }
}
