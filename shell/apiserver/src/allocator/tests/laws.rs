//! The laws of allocation: nothing is handed out twice, nothing leaks, whatever
//! requests come in whatever order, and a crash after any transaction changes
//! nothing.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Small, so that they run full.
const CIDRS: &[&str] = &["10.96.0.0/28", "fd00::/124"];
const PORTS: RangeInclusive<u16> = 30_000..=30_011;
const NAMES: u8 = 12;

/// What a client wants of a Service.
#[derive(Debug, Clone)]
struct Wish {
    kind: &'static str,
    dual: bool,
    /// A chosen last byte of the IPv4 address.
    address: Option<u8>,
    /// Chosen (or not) node ports, one for each Service port.
    ports: Vec<Option<u16>>,
    local: bool,
}

#[derive(Debug, Clone)]
enum Step {
    /// A request comes so far that its Service could be stored.
    Begin(u8, Wish),
    DryRun(u8, Wish),
    /// A request that waits is stored, or its client is gone.
    End(prop::sample::Index, bool),
    Delete(u8),
    /// Somebody makes or deletes an IPAddress.
    Stranger(u8),
}

fn wish() -> impl Strategy<Value = Wish> {
    let kind = prop::sample::select(vec![
        "ClusterIP",
        "NodePort",
        "LoadBalancer",
        "ExternalName",
    ]);
    let address = prop::option::weighted(0.4, 0_u8..18);
    let port = prop::option::weighted(0.4, 29_999_u16..30_014);
    let ports = prop::collection::vec(port, 1..4);
    (kind, any::<bool>(), address, ports, any::<bool>()).prop_map(
        |(kind, dual, address, ports, local)| Wish {
            kind,
            dual,
            address,
            ports,
            local,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES;
    prop_oneof![
        5 => (name.clone(), wish()).prop_map(|(name, wish)| Step::Begin(name, wish)),
        1 => (name.clone(), wish()).prop_map(|(name, wish)| Step::DryRun(name, wish)),
        5 => (any::<prop::sample::Index>(), prop::bool::weighted(0.8))
            .prop_map(|(index, store)| Step::End(index, store)),
        2 => name.prop_map(Step::Delete),
        1 => (1_u8..15).prop_map(Step::Stranger),
    ]
}

impl Wish {
    fn service(&self, name: &str) -> Value {
        let ports: Vec<Value> = self
            .ports
            .iter()
            .enumerate()
            .map(|(index, node_port)| {
                let mut port = json!({"port": 80 + index, "protocol": "TCP"});
                if self.kind == "NodePort" || self.kind == "LoadBalancer" {
                    port["nodePort"] = json!(node_port);
                }
                port
            })
            .collect();
        let mut spec = json!({"type": self.kind, "ports": ports});
        if self.kind == "ExternalName" {
            spec = json!({"type": self.kind, "externalName": "a.b"});
        } else {
            if self.dual {
                spec["ipFamilyPolicy"] = json!("RequireDualStack");
            }
            if let Some(address) = self.address {
                spec["clusterIP"] = json!(format!("10.96.0.{address}"));
                spec["clusterIPs"] = json!([spec["clusterIP"]]);
            }
        }
        if self.kind == "LoadBalancer" && self.local {
            spec["externalTrafficPolicy"] = json!("Local");
        }
        service(name, spec)
    }
}

/// A request between its allocation and the store.
struct Waiting {
    new: Value,
    old: Option<Value>,
    reservation: Reservation,
}

struct World {
    cluster: Cluster,
    waiting: Vec<Waiting>,
    stored: BTreeMap<String, Value>,
    strangers: BTreeSet<String>,
}

impl World {
    async fn step(&mut self, step: Step) {
        match step {
            Step::Begin(name, wish) => self.begin(name, &wish, false),
            Step::DryRun(name, wish) => self.begin(name, &wish, true),
            Step::End(index, store) => {
                if !self.waiting.is_empty() {
                    let waiting = self.waiting.swap_remove(index.index(self.waiting.len()));
                    if store {
                        self.end(waiting).await;
                    }
                }
            }
            Step::Delete(name) => {
                if let Some(old) = self.stored.remove(&format!("s{name}")) {
                    self.cluster.write(None, Some(&old), None).await.unwrap();
                }
            }
            Step::Stranger(last) => self.stranger(&format!("10.96.0.{last}")).await,
        }
        self.check(&self.cluster);
    }

    fn begin(&mut self, name: u8, wish: &Wish, dry_run: bool) {
        let name = format!("s{name}");
        let mut new = wish.service(&name);
        let old = self.stored.get(&name).cloned();
        if let Some(old) = &old
            && wish.address.is_none()
            && wish.kind != "ExternalName"
        {
            new["spec"]["clusterIP"] = old["spec"]["clusterIP"].clone();
        }
        let assigned = self
            .cluster
            .allocator
            .assign(&mut new, old.as_ref(), dry_run);
        match assigned {
            Ok(reservation) if !dry_run => self.waiting.push(Waiting {
                new,
                old,
                reservation,
            }),
            // The reservation of a dry run, and a refusal, leave nothing.
            Ok(_) | Err(_) => {}
        }
    }

    async fn end(&mut self, waiting: Waiting) {
        let name = portolan_api::meta::name(&waiting.new).to_owned();
        if self.stored.get(&name) != waiting.old.as_ref() {
            // The store would refuse: the Service has another version.
            return;
        }
        if addresses_changed_hands(&waiting) {
            // Validation would refuse: addresses may not change once set.
            return;
        }
        let written = self
            .cluster
            .write(
                Some(&waiting.new),
                waiting.old.as_ref(),
                Some(waiting.reservation),
            )
            .await;
        match written {
            Ok(_) => {
                self.stored.insert(name, waiting.new);
            }
            // A stranger took the address meanwhile.
            Err(WriteError::Companion) => {}
            Err(error) => panic!("{error}"),
        }
    }

    async fn stranger(&mut self, address: &str) {
        let key = self.cluster.allocator.address_key(address.parse().unwrap());
        let store = &self.cluster.store;
        match store.get(&key) {
            None => {
                let object = json!({"metadata": {"name": address}});
                store.create(key, object, None).await.unwrap();
                self.strangers.insert(address.to_owned());
            }
            Some(stored) if self.strangers.remove(address) => {
                store.remove(key, stored.revision).await.unwrap();
            }
            Some(_) => {}
        }
    }

    /// Books and objects are what the stored Services say, and no more.
    fn check(&self, cluster: &Cluster) {
        let mut addresses: BTreeMap<String, &str> = BTreeMap::new();
        let mut ports: BTreeMap<u16, &str> = BTreeMap::new();
        for (name, service) in &self.stored {
            for address in addresses_of(service) {
                let twice = addresses.insert(address.to_string(), name);
                assert_eq!(twice, None, "{address} was handed out twice");
            }
            for port in ports_of(service) {
                assert_eq!(
                    ports.insert(port, name),
                    None,
                    "{port} was handed out twice"
                );
            }
        }
        let objects = cluster
            .store
            .cache()
            .snapshot(cluster.allocator.places.addresses);
        let found: BTreeMap<String, Value> = objects
            .objects
            .iter()
            .map(|(name, stored)| (name.name.clone(), stored.value()))
            .collect();
        for (address, name) in &addresses {
            assert_eq!(found[address]["spec"]["parentRef"]["name"], **name);
        }
        let expected: BTreeSet<&String> = addresses.keys().chain(&self.strangers).collect();
        assert!(found.keys().eq(expected), "{found:?}");
        let held = |ports: bool| -> BTreeSet<String> {
            let waiting = self.waiting.iter().map(|waiting| &waiting.reservation);
            waiting
                .flat_map(|it| match ports {
                    true => it.ports.iter().map(u16::to_string).collect::<Vec<_>>(),
                    false => it.addresses.iter().map(IpAddr::to_string).collect(),
                })
                .collect()
        };
        let own = std::ptr::eq(cluster, &self.cluster);
        let all = |known: BTreeSet<String>, ports: bool| match own {
            true => known.union(&held(ports)).count(),
            // A restarted server knows nothing of requests.
            false => known.len(),
        };
        let figures = cluster.allocator.figures();
        let used: usize = figures.ranges.iter().map(|(_, used)| used).sum();
        let known = addresses.keys().chain(&self.strangers).cloned().collect();
        assert_eq!(used, all(known, false), "addresses leak");
        let known = ports.keys().map(u16::to_string).collect();
        assert_eq!(figures.ports, all(known, true), "ports leak");
    }

    /// What a server finds that starts from the file as it is now.
    fn crash(&self) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        std::fs::copy(self.cluster._dir.path().join("state.redb"), &path).unwrap();
        let store = Store::open(&path, crate::context::collections()).unwrap();
        let nets: Vec<IpNet> = CIDRS.iter().map(|net| net.parse().unwrap()).collect();
        let allocator = Allocator::new(&nets, PORTS, &store).unwrap();
        let restarted = Cluster {
            _dir: dir,
            store,
            allocator,
        };
        self.check(&restarted);
    }
}

fn addresses_changed_hands(waiting: &Waiting) -> bool {
    let Some(old) = &waiting.old else {
        return false;
    };
    match (
        addresses_of(old).first(),
        addresses_of(&waiting.new).first(),
    ) {
        (Some(before), Some(after)) => before != after,
        (Some(_), None) | (None, _) => false,
    }
}

fn run(steps: Vec<Step>, crash: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World {
            cluster: Cluster::with_ports(CIDRS, PORTS).await,
            waiting: Vec::new(),
            stored: BTreeMap::new(),
            strangers: BTreeSet::new(),
        };
        for step in steps {
            world.step(step).await;
            if crash {
                world.crash();
            }
        }
        world.waiting.clear();
        world.check(&world.cluster);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a12_nothing_is_handed_out_twice_and_nothing_leaks(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        run(steps, false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn a5_a_crash_after_any_transaction_leaves_the_books_right(
        steps in prop::collection::vec(step(), 1..30)
    ) {
        run(steps, true);
    }
}
