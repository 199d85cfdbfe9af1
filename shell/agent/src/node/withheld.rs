//! Names that wait for the kernel: while it refuses, a Service's name stays what it was,
//! since its address still leads where it led.
//!
//! Names that stand for no address of the kernel's making (those of headless Services'
//! endpoints, aliases, namespaces, pods) never wait. Who changes into or out of a
//! Service with an address of its own waits with it. There is no end to the waiting but
//! the kernel's: a name that resolved earlier would lead nowhere, or to whoever had its
//! address before.

use std::collections::BTreeMap;
use std::sync::Arc;

use portolan_model::ServiceKey;
use portolan_plan::{Names, NodePlan, Touched};

/// What was planned and not published.
#[derive(Debug, Default)]
pub(super) struct Withheld {
    /// Services, and what is published of each.
    names: BTreeMap<ServiceKey, Option<Arc<Names>>>,
    /// The view has changed, on which all names depend: nothing at all is published.
    whole: bool,
}

/// What is to be published now.
#[derive(Debug)]
pub(super) enum Due<'a> {
    /// What the round touched.
    Round(&'a Touched),
    /// Some of it, or what waited too.
    These(Box<Touched>),
    /// Everything anew.
    All,
    /// Nothing.
    Nothing,
}

impl Withheld {
    /// Whether anything waits.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.whole
    }

    /// What of a round can be published, with what has waited if the kernel holds the
    /// plan; otherwise what needs the kernel waits.
    pub(super) fn sift<'a>(
        &mut self,
        plan: &NodePlan,
        touched: &'a Touched,
        holds: bool,
    ) -> Due<'a> {
        if holds {
            return self.release(touched);
        }
        self.whole |= touched.view.is_some();
        if self.whole {
            return Due::Nothing;
        }
        let mut ready = Touched {
            namespaces: touched.namespaces.clone(),
            pods: touched.pods.clone(),
            ..Touched::default()
        };
        for (key, before) in &touched.names {
            let after = plan.names.get(key);
            let waits = needs_kernel(before.as_ref()) || needs_kernel(after);
            if self.names.contains_key(key) {
                continue;
            }
            let place = if waits {
                &mut self.names
            } else {
                &mut ready.names
            };
            place.insert(key.clone(), before.clone());
        }
        Due::These(ready.into())
    }

    fn release<'a>(&mut self, touched: &'a Touched) -> Due<'a> {
        let Self { names, whole } = std::mem::take(self);
        if whole {
            return Due::All;
        }
        if names.is_empty() {
            return Due::Round(touched);
        }
        let mut ready = Touched {
            view: touched.view.clone(),
            names: touched.names.clone(),
            namespaces: touched.namespaces.clone(),
            pods: touched.pods.clone(),
            ..Touched::default()
        };
        // What is published is what was before the first change.
        ready.names.extend(names);
        Due::These(ready.into())
    }
}

fn needs_kernel(names: Option<&Arc<Names>>) -> bool {
    names.is_some_and(|names| matches!(**names, Names::Addresses { .. }))
}

#[cfg(test)]
mod tests {
    use portolan_model::{
        Affinity, Change, Cluster, Dirty, Fact, Namespace, Publication, Service, TrafficPolicy,
    };
    use portolan_plan::{NodeView, renode};
    use portolan_render::zone;

    use super::*;

    /// A node whose kernel takes changes or refuses them.
    struct Node {
        cluster: Cluster,
        view: NodeView,
        plan: NodePlan,
        zones: portolan_dns::Zones,
        withheld: Withheld,
    }

    impl Node {
        fn new() -> Self {
            let view = NodeView {
                cluster_domain: "cluster.local".into(),
                ..NodeView::default()
            };
            let plan = NodePlan::empty(view.clone());
            Self {
                cluster: Cluster::default(),
                zones: zone::image(&plan, 1),
                view,
                plan,
                withheld: Withheld::default(),
            }
        }

        fn round(&mut self, changes: Vec<Change>, holds: bool) {
            let mut dirty = Dirty::default();
            for change in changes {
                dirty.merge(self.cluster.apply(change));
            }
            let touched = renode(&mut self.plan, &self.cluster, &self.view, &dirty);
            match self.withheld.sift(&self.plan, &touched, holds) {
                Due::Round(touched) => zone::delta(&self.plan, touched, &mut self.zones),
                Due::These(touched) => zone::delta(&self.plan, &touched, &mut self.zones),
                Due::All => self.zones = zone::image(&self.plan, 9),
                Due::Nothing => {}
            }
        }

        /// The data of a Service's name; none if it does not exist.
        fn is(&self, name: &str) -> Option<String> {
            let name = format!("{name}.x.svc.cluster.local");
            let name = portolan_dns::Name::parse(&name).unwrap();
            let found = self.zones.iter().find_map(|zone| zone.get(&name))?;
            Some(format!("{:?}", found.first().map(|first| &first.data)))
        }

        /// The kernel holds all: so do the names.
        fn holds_all(&mut self) {
            self.round(Vec::new(), true);
            assert!(self.withheld.is_empty());
            assert!(self.zones == zone::image(&self.plan, 1));
        }
    }

    fn service(name: &str, publication: Publication, addresses: &[&str]) -> Change {
        let service = Service {
            key: ServiceKey::new("x", name),
            publication,
            cluster_ips: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            ports: Vec::new(),
            internal_policy: TrafficPolicy::Cluster,
            external_policy: TrafficPolicy::Cluster,
            affinity: Affinity::None,
            other_proxy: None,
            outer: None,
            spread: None,
        };
        Change::Upsert(Fact::Service(service.into()))
    }

    fn at(name: &str, address: &str) -> Change {
        service(name, Publication::ClusterIp, &[address])
    }

    fn alias(name: &str, target: &str) -> Change {
        service(name, Publication::ExternalName(target.into()), &[])
    }

    fn gone(name: &str) -> Change {
        let key = ServiceKey::new("x", name);
        Change::Delete(portolan_model::Key::Service(key))
    }

    #[test]
    fn d3_a_name_waits_for_the_kernel_that_refuses_its_address() {
        let mut node = Node::new();
        node.round(vec![at("old", "10.96.0.1"), at("same", "10.96.0.2")], true);
        let (old, same) = (node.is("old"), node.is("same"));
        assert!(old.is_some() && same.is_some());
        // Whatever changes meanwhile: the address leads where it led.
        node.round(vec![at("new", "10.96.0.3"), at("old", "10.96.0.4")], false);
        node.round(vec![gone("old"), gone("same")], false);
        node.round(vec![at("same", "10.96.0.5")], false);
        assert_eq!(node.is("new"), None);
        assert_eq!((node.is("old"), node.is("same")), (old, same.clone()));
        node.round(vec![at("last", "10.96.0.6")], true);
        assert!(node.is("new").is_some() && node.is("last").is_some());
        assert_eq!(node.is("old"), None);
        assert!(node.is("same").is_some_and(|now| Some(now) != same));
        node.holds_all();
    }

    #[test]
    fn d13_a_name_that_needs_no_kernel_waits_for_none() {
        let mut node = Node::new();
        let namespace = Namespace {
            name: "y".into(),
            labels: Default::default(),
        };
        let changes = vec![
            alias("out", "example.com"),
            at("web", "10.96.0.3"),
            Change::Upsert(Fact::Namespace(namespace)),
        ];
        node.round(changes, false);
        assert!(node.is("out").is_some_and(|to| to.contains("example.com")));
        let y = portolan_dns::Name::parse("y.svc.cluster.local").unwrap();
        assert!(node.zones.iter().any(|zone| zone.get(&y).is_some()));
        // One that had no address, and gets one, is an alias until that works; one that
        // had an address keeps it.
        node.round(vec![at("out", "10.96.0.4")], false);
        node.round(vec![alias("web", "example.org")], false);
        assert!(node.is("out").is_some_and(|to| to.contains("example.com")));
        assert_eq!(node.is("web"), None, "it never had a name");
        // What has waited goes with the kernel, not before, even if it need not any more.
        node.round(vec![alias("out", "example.net")], false);
        assert!(node.is("out").is_some_and(|to| to.contains("example.com")));
        node.holds_all();
        assert!(node.is("out").is_some_and(|to| to.contains("example.net")));
        assert!(node.is("web").is_some_and(|to| to.contains("example.org")));
    }

    #[test]
    fn d12_a_change_of_the_view_waits_and_brings_all() {
        let mut node = Node::new();
        node.round(vec![at("web", "10.96.0.3")], true);
        node.view.service_cidrs = vec!["10.96.0.0/16".parse().unwrap()];
        node.round(Vec::new(), false);
        let zones = node.zones.clone();
        node.round(vec![at("two", "10.96.0.4"), alias("out", "a.b")], false);
        assert!(node.zones == zones, "nothing of what is not of one piece");
        node.holds_all();
        assert!(node.is("two").is_some() && node.is("out").is_some());
    }
}
