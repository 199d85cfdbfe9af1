//! What the controller knows, and which decisions a piece of news touches.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use portolan_model::workloads::{
    BalancedService, BalancerNode, LabelledNamespace, Object, ObjectKey, Pool, ReadyNodes,
};
use portolan_plan::load_balancer::{Around, LoadBalancer, Places, is_ours, pool};
use portolan_plan::slices::SERVICE_NAME;
use portolan_plan::workloads::{Kind, Step, Store};
use serde_json::Value;

use super::super::absorb::{Seen, absorb};
use super::super::feed::{News, Report};

/// How long the status of a pool may lag behind.
pub(super) const SOON: Duration = Duration::from_millis(200);

/// One thing to decide about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// The addresses of a Service.
    Service(ObjectKey),
    /// The status of a pool.
    Pool(ObjectKey),
}

/// What the loop is told.
pub(super) enum Message {
    Service(News<BalancedService>),
    Node(News<BalancerNode>),
    Namespace(News<LabelledNamespace>),
    Slice(News<ReadyNodes>),
    /// News of AddressPools.
    Pool(News<Pool>),
    /// News of MetalLB's IPAddressPools.
    MetalPool(News<Pool>),
    Report(Report<Task>),
}

impl From<Report<Task>> for Message {
    fn from(report: Report<Task>) -> Self {
        Self::Report(report)
    }
}

/// Tasks, in any order.
pub(super) type Touched = BTreeSet<Task>;

/// All stores, and who has what.
pub(super) struct World {
    services: Store<BalancedService>,
    nodes: Store<BalancerNode>,
    namespaces: Store<LabelledNamespace>,
    slices: Store<ReadyNodes>,
    pools: Store<Pool>,
    metal_pools: Store<Pool>,
    balancer: LoadBalancer,
    /// Whether every Service has got what its status said at start.
    adopted: bool,
    /// Whether all are to be looked at in the order of their age before anything else.
    by_age: bool,
    /// Pools that came or changed since something was told about them.
    changed: BTreeSet<ObjectKey>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            services: Store::default(),
            nodes: Store::default(),
            namespaces: Store::default(),
            slices: Store::by(|slice| {
                let labels = slice.meta.labels.iter();
                let labels = labels.map(|(key, value)| (key.as_str(), value.as_str()));
                labels.filter(|(key, _)| *key == SERVICE_NAME).collect()
            }),
            pools: Store::default(),
            metal_pools: Store::default(),
            balancer: LoadBalancer::default(),
            adopted: false,
            by_age: true,
            changed: BTreeSet::new(),
        }
    }
}

impl World {
    /// Whether every kind has been listed once.
    pub(super) fn is_listed(&self) -> bool {
        self.services.is_listed()
            && self.nodes.is_listed()
            && self.namespaces.is_listed()
            && self.slices.is_listed()
            && self.pools.is_listed()
            && self.metal_pools.is_listed()
    }

    /// Takes news in. Answers with what has to be decided again.
    pub(super) fn take(&mut self, message: Message) -> Touched {
        let mut touched = Touched::new();
        match message {
            Message::Service(news) => {
                let seen = absorb(&mut self.services, news);
                let keys = seen.iter().filter_map(Seen::key);
                touched.extend(keys.cloned().map(Task::Service));
            }
            Message::Node(news) => {
                if !absorb(&mut self.nodes, news).is_empty() {
                    self.of_nodes(&mut touched);
                }
            }
            Message::Namespace(news) => {
                for seen in absorb(&mut self.namespaces, news) {
                    let name = seen.key().map_or("", |key| key.name.as_str());
                    let services = self.services.in_namespace(name);
                    touched.extend(services.filter(|s| is_ours(s)).map(|s| task(s)));
                }
            }
            Message::Slice(news) => {
                for seen in absorb(&mut self.slices, news) {
                    self.of_slice(seen.before.as_deref(), &mut touched);
                    self.of_slice(seen.now.as_ref(), &mut touched);
                }
            }
            Message::Pool(news) => {
                let seen = absorb(&mut self.pools, news);
                self.of_pools(seen, &mut touched);
            }
            Message::MetalPool(news) => {
                let seen = absorb(&mut self.metal_pools, news);
                self.of_pools(seen, &mut touched);
            }
            Message::Report(Report::Wrote(kind, object)) => {
                self.wrote(kind, &object, &mut touched);
            }
            Message::Report(_) => {}
        }
        touched
    }

    /// The server's answer to a write is news like any other, only earlier.
    fn wrote(&mut self, kind: Kind, object: &Value, touched: &mut Touched) {
        if kind == Kind::Service {
            let service = BalancedService::read(object);
            touched.insert(task(&service));
            self.services.wrote(service);
        } else if kind == Kind::AddressPool {
            let pool = Pool::read(object);
            self.pools.wrote(pool.clone());
            self.balancer.set_pool(pool);
        }
    }

    /// The Services that get the nodes' addresses.
    fn of_nodes(&self, touched: &mut Touched) {
        let services = self.services.all();
        let concerned = services.filter(|s| is_ours(s) && self.balancer.uses_nodes(s));
        touched.extend(concerned.map(|service| task(service)));
    }

    /// Only where the endpoints are decides about anything, and only for Local.
    fn of_slice(&self, slice: Option<&ReadyNodes>, touched: &mut Touched) {
        let Some(slice) = slice else { return };
        let Some(name) = slice.meta.labels.get(SERVICE_NAME) else {
            return;
        };
        let key = ObjectKey::new(&slice.meta.key.namespace, name);
        let service = self.services.get(&key);
        if service.is_some_and(|service| is_ours(service) && service.local) {
            touched.insert(Task::Service(key));
        }
    }

    fn of_pools(&mut self, seen: Vec<Seen<Pool>>, touched: &mut Touched) {
        if seen.is_empty() {
            return;
        }
        let by_nodes = self.balancer.is_by_nodes();
        for one in seen {
            let Some(key) = one.key().cloned() else {
                continue;
            };
            let services = match one.now {
                Some(pool) => {
                    let same = one.before.is_some_and(|before| before.gives_as(&pool));
                    if !same {
                        self.changed.insert(key.clone());
                    }
                    self.balancer.set_pool(pool)
                }
                None => {
                    self.changed.remove(&key);
                    self.balancer.remove_pool(&key)
                }
            };
            touched.extend(services.into_iter().map(Task::Service));
        }
        if by_nodes != self.balancer.is_by_nodes() {
            self.by_age = true;
            let services = self.services.all().filter(|service| is_ours(service));
            touched.extend(services.map(|service| task(service)));
        }
        // Pools may overlap others.
        let pools = self.pools.all().chain(self.metal_pools.all());
        touched.extend(pools.map(|pool| Task::Pool(pool.meta.key.clone())));
    }

    /// What is to be done about a task now, and what else has to be decided.
    pub(super) fn decide(&mut self, task: &Task, now: Timestamp) -> (Step, Touched) {
        if !self.adopted {
            self.adopt(now);
        }
        if self.by_age {
            self.give_by_age(now);
        }
        match task {
            Task::Pool(key) => {
                let changed = self.changed.remove(key);
                let step = pool(&self.balancer, key, changed, now);
                (step, Touched::new())
            }
            Task::Service(key) => {
                let turn = match self.services.get(key).cloned() {
                    Some(service) => self.with(&service, now, |balancer, around| {
                        balancer.converge(&service, around)
                    }),
                    None => self.balancer.forget(key),
                };
                let services = turn.woken.into_iter().map(Task::Service);
                let touched = services.chain(turn.pools.into_iter().map(Task::Pool));
                (turn.step, touched.collect())
            }
        }
    }

    /// Everybody has what the status says, the oldest first (L7).
    fn adopt(&mut self, now: Timestamp) {
        self.adopted = true;
        for service in self.oldest_first() {
            if !service.ingress.is_empty() {
                self.with(&service, now, |balancer, around| {
                    balancer.adopt(&service, around);
                });
            }
        }
    }

    /// When all are given something at once, who came first is first. What is written
    /// comes later: each of them is to be decided about anyway.
    fn give_by_age(&mut self, now: Timestamp) {
        self.by_age = false;
        for service in self.oldest_first() {
            self.with(&service, now, |balancer, around| {
                balancer.converge(&service, around);
            });
        }
    }

    fn oldest_first(&self) -> Vec<Arc<BalancedService>> {
        let services = self.services.all().filter(|service| is_ours(service));
        let mut services: Vec<Arc<BalancedService>> = services.cloned().collect();
        services.sort_by_key(|service| service.meta.created);
        services
    }

    /// Asks with all that an answer about a Service depends on.
    fn with<T>(
        &mut self,
        service: &BalancedService,
        now: Timestamp,
        ask: impl FnOnce(&mut LoadBalancer, &Around<'_>) -> T,
    ) -> T {
        let key = &service.meta.key;
        // Nodes cost as much as there are, and pools' Services do not ask for them.
        let by_nodes = is_ours(service) && self.balancer.uses_nodes(service);
        let nodes = self.nodes.all().map(AsRef::as_ref);
        let nodes: Vec<&BalancerNode> = nodes.filter(|_| by_nodes).collect();
        let slices = self
            .slices
            .labelled(&key.namespace, SERVICE_NAME, &key.name);
        let ready_on = slices.flat_map(|slice| slice.nodes.iter().map(String::as_str));
        let servers = self.slices.labelled("default", SERVICE_NAME, "kubernetes");
        let servers: BTreeSet<(IpAddr, u16)> = servers
            .flat_map(|slice| slice.api_servers.iter().copied())
            .collect();
        let no_labels = BTreeMap::new();
        let namespace = self.namespaces.get(&ObjectKey::new("", &key.namespace));
        let around = Around {
            places: Places {
                nodes: &nodes,
                ready_on: &ready_on.collect(),
                api_servers: &servers,
            },
            namespace: namespace.map_or(&no_labels, |namespace| &namespace.meta.labels),
            now,
        };
        ask(&mut self.balancer, &around)
    }
}

fn task(service: &BalancedService) -> Task {
    Task::Service(service.meta.key.clone())
}
