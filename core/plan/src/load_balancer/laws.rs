//! Laws of the allocator, over random histories: no address is given twice or from
//! outside, nobody moves without need, and a restart changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portolan_model::workloads::{Object, Pool};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::is_ours;
use super::testbed::{Bed, dual, key, node, pool, service};

/// Something that happens.
#[derive(Clone, Debug)]
enum Happens {
    /// A Service is made or changed to this.
    Put(u8, Shape),
    Delete(u8),
    Pool(u8, Vec<&'static str>, bool),
    DropPool(u8),
    Ready(u8, bool),
    Restart,
}

#[derive(Clone, Debug)]
struct Shape {
    port: u16,
    udp: bool,
    stack: u8,
    sharing: Option<u8>,
    local: bool,
    asked: Option<&'static str>,
}

const RANGES: [&str; 6] = [
    "192.0.2.0/30",
    "192.0.2.2-192.0.2.5",
    "192.0.2.254-192.0.3.2",
    "2001:db8::/126",
    "2001:db8::2-2001:db8::5",
    "198.51.100.7",
];

fn shape() -> impl Strategy<Value = Shape> {
    (
        80u16..83,
        any::<bool>(),
        0u8..4,
        proptest::option::weighted(0.4, 0u8..2),
        proptest::bool::weighted(0.3),
        proptest::option::weighted(
            0.2,
            proptest::sample::select(vec!["192.0.2.3", "198.51.100.7", "203.0.113.1"]),
        ),
    )
        .prop_map(|(port, udp, stack, sharing, local, asked)| Shape {
            port,
            udp,
            stack,
            sharing,
            local,
            asked,
        })
}

fn happens() -> impl Strategy<Value = Happens> {
    let ranges = proptest::sample::subsequence(RANGES.to_vec(), 1..4);
    prop_oneof![
        6 => (0u8..9, shape()).prop_map(|(n, shape)| Happens::Put(n, shape)),
        2 => (0u8..9).prop_map(Happens::Delete),
        2 => (0u8..3, ranges, any::<bool>()).prop_map(|(n, ranges, buggy)| Happens::Pool(n, ranges, buggy)),
        1 => (0u8..3).prop_map(Happens::DropPool),
        1 => (0u8..2, any::<bool>()).prop_map(|(n, ready)| Happens::Ready(n, ready)),
        1 => Just(Happens::Restart),
    ]
}

fn object(n: u8, shape: &Shape, before: Option<&Value>) -> Value {
    let name = format!("s{n}");
    let mut object = match shape.stack {
        0 => dual(&name, "RequireDualStack"),
        1 => dual(&name, "PreferDualStack"),
        _ => service(&name),
    };
    if let Some(before) = before {
        object["status"] = before["status"].clone();
        object["metadata"]["finalizers"] = before["metadata"]["finalizers"].clone();
    }
    let protocol = if shape.udp { "UDP" } else { "TCP" };
    object["spec"]["ports"] = json!([{"port": shape.port, "protocol": protocol}]);
    object["spec"]["externalTrafficPolicy"] = if shape.local { "Local" } else { "Cluster" }.into();
    object["spec"]["selector"] = json!({"app": n % 3});
    if let Some(sharing) = shape.sharing {
        object["metadata"]["annotations"]["portolan.dev/allow-shared-ip"] =
            format!("k{sharing}").into();
    }
    if let Some(asked) = shape.asked {
        object["metadata"]["annotations"]["portolan.dev/load-balancer-ips"] = asked.into();
    }
    object
}

#[derive(Default)]
struct World {
    bed: Bed,
    pools: BTreeMap<u8, Value>,
}

impl World {
    fn start() -> Self {
        let mut world = Self::default();
        for n in 0..2 {
            world.ready(n, true);
            let name = format!("s{n}");
            world
                .bed
                .ready_on
                .insert(key(&name), [format!("n{n}")].into());
        }
        world
    }

    fn ready(&mut self, n: u8, ready: bool) {
        let mut object = node(
            &format!("n{n}"),
            &[
                ("InternalIP", &format!("172.18.0.{n}")),
                ("InternalIP", &format!("fd00::{n}")),
            ],
        );
        object["status"]["conditions"][0]["status"] = if ready { "True" } else { "False" }.into();
        self.bed.node(object);
    }

    fn happen(&mut self, what: &Happens) {
        match what {
            Happens::Put(n, shape) => {
                let before = self.bed.services.get(&key(&format!("s{n}"))).cloned();
                self.bed.put(object(*n, shape, before.as_ref()));
            }
            Happens::Delete(n) => self.bed.delete(&format!("s{n}")),
            Happens::Pool(n, ranges, buggy) => {
                let mut object = pool(&format!("p{n}"), ranges);
                object["spec"]["avoidBuggyIPs"] = (*buggy).into();
                self.pools.insert(*n, object.clone());
                self.bed.pool(&object);
            }
            Happens::DropPool(n) => {
                self.pools.remove(n);
                self.bed.drop_pool(&format!("p{n}"));
            }
            Happens::Ready(n, ready) => self.ready(*n, *ready),
            Happens::Restart => {
                let pools: Vec<Value> = self.pools.values().cloned().collect();
                self.bed.restart(&pools);
            }
        }
    }

    /// What every Service has.
    fn given(&self) -> BTreeMap<String, Vec<IpAddr>> {
        let names = self.bed.services.keys().map(|key| key.name.clone());
        names
            .map(|name| {
                let has = self
                    .bed
                    .has(&name)
                    .iter()
                    .map(|ip| ip.parse().unwrap())
                    .collect();
                (name, has)
            })
            .collect()
    }

    /// Nothing is from outside, and nobody has what is another's.
    fn check(&self) {
        let pools: Vec<Pool> = self.pools.values().map(Pool::read).collect();
        let mut ports = BTreeMap::new();
        let mut tenants: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
        for (name, has) in self.given() {
            let service = self.bed.read(&key(&name));
            assert!(is_ours(&service));
            for address in has {
                if pools.is_empty() {
                    assert!(
                        address.to_string().starts_with("172.18.0.")
                            || address.to_string().starts_with("fd00::")
                    );
                } else {
                    assert!(
                        pools.iter().any(|pool| pool.covers(address)),
                        "{address} of {name}"
                    );
                    tenants.entry(address).or_default().push(name.clone());
                }
                for port in &service.ports {
                    let other = ports.insert((address, *port), name.clone());
                    assert_eq!(other, None, "{port} of {address}, and {name}");
                }
            }
        }
        for (address, names) in tenants {
            let keys: BTreeSet<Option<String>> = names
                .iter()
                .map(|name| self.bed.read(&key(name)).asked.sharing)
                .collect();
            assert!(
                names.len() == 1 || (keys.len() == 1 && !keys.contains(&None)),
                "{address}: {names:?}"
            );
        }
        for (key, object) in &self.pools {
            let own = portolan_model::workloads::ObjectKey::new("", format!("p{key}"));
            let stock = self.bed.balancer.pools.stock(&own).unwrap();
            let used: BTreeSet<IpAddr> = self
                .given()
                .into_values()
                .flatten()
                .filter(|ip| Pool::read(object).covers(*ip))
                .collect();
            let counted: u128 = portolan_model::Family::BOTH
                .iter()
                .map(|f| stock.count(*f).0)
                .sum();
            assert_eq!(used.len() as u128, counted, "{own}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn l5_l6_l7_l12_nothing_is_given_twice_or_from_outside(history in proptest::collection::vec(happens(), 1..40)) {
        let mut world = World::start();
        for what in &history {
            world.happen(what);
            world.check();
        }
    }

    #[test]
    fn l7_a_restart_moves_nobody(history in proptest::collection::vec(happens(), 1..40)) {
        let mut world = World::start();
        for what in &history {
            world.happen(what);
        }
        let before = world.given();
        world.happen(&Happens::Restart);
        for (name, had) in before {
            let has = world.given().remove(&name).unwrap();
            prop_assert!(had.iter().all(|address| has.contains(address)), "{} had {:?}, has {:?}", name, had, has);
        }
    }

    #[test]
    fn l7_a_change_of_one_service_moves_no_other(
        history in proptest::collection::vec(happens(), 1..30), n in 0u8..9, shape in shape(),
    ) {
        let mut world = World::start();
        for what in &history {
            world.happen(what);
        }
        let before = world.given();
        world.happen(&Happens::Put(n, shape));
        let after = world.given();
        for (name, had) in before {
            if name != format!("s{n}") {
                let has = &after[&name];
                prop_assert!(had.iter().all(|address| has.contains(address)), "{} had {:?}, has {:?}", name, had, has);
            }
        }
    }

    /// What somebody waits for may be told otherwise at a second look, since others came
    /// after the first one; who has what is settled.
    #[test]
    fn a_settled_world_has_nothing_to_write(history in proptest::collection::vec(happens(), 1..30)) {
        let mut world = World::start();
        for what in &history {
            world.happen(what);
        }
        let before = world.given();
        world.bed.look(world.bed.services.keys().cloned().collect());
        prop_assert_eq!(world.given(), before);
        let (services, told) = (world.bed.services.clone(), world.bed.told.len());
        world.bed.look(world.bed.services.keys().cloned().collect());
        prop_assert_eq!(&world.bed.services, &services);
        prop_assert_eq!(world.bed.told.len(), told);
    }
}
