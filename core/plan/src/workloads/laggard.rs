//! Controllers that know pods and revisions only through a lagging watch and
//! the answers to their own writes.

use std::sync::Arc;

use portolan_model::workloads::{
    ControllerRevision, DaemonSet, Node, Object, ObjectKey, Pod, StatefulSet,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::testbed::{Server, key_of};
use super::{Action, Kind, Step, Store, daemon_set, stateful_set};

/// A server, and what one controller knows of it.
pub(crate) struct Laggard {
    pub(crate) server: Server,
    pods: Store<Pod>,
    revisions: Store<ControllerRevision>,
    /// How much of the server's log the watch has shown.
    delivered: usize,
}

impl Laggard {
    pub(crate) fn new(server: Server) -> Self {
        let mut laggard = Self {
            server,
            pods: Store::default(),
            revisions: Store::default(),
            delivered: 0,
        };
        laggard.relist();
        laggard
    }

    pub(crate) fn known_pods(&self) -> Vec<Arc<Pod>> {
        self.pods.all().cloned().collect()
    }

    pub(crate) fn known_revisions(&self) -> Vec<Arc<ControllerRevision>> {
        self.revisions.all().cloned().collect()
    }

    /// Carries a step out as the server allows: a name that is taken stops it.
    pub(crate) fn carry_out(&mut self, step: &Step) {
        for write in &step.writes {
            let here =
                |key: &ObjectKey| self.server.objects.contains_key(&(write.kind, key.clone()));
            if let Action::Delete { uid, .. } = &write.action {
                if here(&write.key) {
                    self.server.write(write);
                }
                if write.kind == Kind::Pod {
                    self.pods.told_to_go(&write.key, uid);
                } else {
                    self.revisions.told_to_go(&write.key, uid);
                }
                continue;
            }
            if matches!(&write.action, Action::Create(body) if here(&key_of(body))) {
                return;
            }
            let Some(answer) = self.server.write(write) else {
                return;
            };
            if write.kind == Kind::Pod {
                self.pods.wrote(Pod::read(&answer));
            } else if write.kind == Kind::ControllerRevision {
                self.revisions.wrote(ControllerRevision::read(&answer));
            }
        }
    }

    /// The watch shows so many changes.
    pub(crate) fn deliver(&mut self, count: usize) {
        for _ in 0..count {
            let Some((kind, object, gone)) = self.server.log.get(self.delivered) else {
                return;
            };
            self.delivered += 1;
            if *kind == Kind::Pod {
                show(&mut self.pods, object, *gone);
            } else if *kind == Kind::ControllerRevision {
                show(&mut self.revisions, object, *gone);
            }
        }
    }

    /// The watch breaks and lists again.
    pub(crate) fn relist(&mut self) {
        let last = self.server.log.last();
        let version = last.map_or(0, |(_, object, _)| Pod::read(object).meta.version);
        self.pods.replace(self.server.pods(), version);
        let revisions = self.server.all(Kind::ControllerRevision);
        self.revisions.replace(revisions, version);
        self.delivered = self.server.log.len();
    }
}

fn show<T: Object>(store: &mut Store<T>, object: &Value, gone: bool) {
    let object = T::read(object);
    if gone {
        store.saw_end(&object);
    } else {
        store.saw(object);
    }
}

/// What happens to a controller whose watch lags.
#[derive(Clone, Debug)]
enum Happening {
    Watch(usize),
    Relist,
    Act,
    Ready(usize, bool),
    Kill(usize),
    Reap,
    Image(u8),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (1usize..5).prop_map(Happening::Watch),
        1 => Just(Happening::Relist),
        6 => Just(Happening::Act),
        4 => (0usize..5, prop::bool::weighted(0.8)).prop_map(|(n, r)| Happening::Ready(n, r)),
        1 => (0usize..5).prop_map(Happening::Kill),
        3 => Just(Happening::Reap),
        1 => (1u8..4).prop_map(Happening::Image),
    ]
}

/// A StatefulSet or DaemonSet of three.
fn bed(kind: Kind) -> Laggard {
    let mut server = Server::default();
    server.put(
        kind,
        json!({
            "metadata": {"name": "web", "namespace": "a", "uid": "set", "generation": 1},
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "v1"}]},
                },
                "updateStrategy": {"type": "RollingUpdate"},
            },
        }),
    );
    for name in ["n1", "n2", "n3"] {
        server.put(Kind::Node, json!({"metadata": {"name": name}}));
    }
    Laggard::new(server)
}

fn act(world: &mut Laggard, kind: Kind) {
    world.server.seconds += 1;
    let (pods, revisions) = (world.known_pods(), world.known_revisions());
    let pods: Vec<&Pod> = pods.iter().map(AsRef::as_ref).collect();
    let revisions: Vec<&ControllerRevision> = revisions.iter().map(AsRef::as_ref).collect();
    let now = world.server.now();
    let step = if kind == Kind::StatefulSet {
        let set: StatefulSet = world.server.all(kind).remove(0);
        stateful_set(&set, &revisions, &pods, now)
    } else {
        let set: DaemonSet = world.server.all(kind).remove(0);
        let nodes: Vec<Node> = world.server.all(Kind::Node);
        let nodes: Vec<&Node> = nodes.iter().collect();
        daemon_set(&set, &revisions, &pods, &nodes, now)
    };
    world.carry_out(&step);
}

fn happen(world: &mut Laggard, kind: Kind, happening: &Happening) {
    let pods = world.server.active();
    match happening {
        Happening::Watch(count) => world.deliver(*count),
        Happening::Relist => world.relist(),
        Happening::Act => act(world, kind),
        Happening::Ready(n, ready) => {
            if let Some(pod) = pods.get(*n) {
                world.server.set_ready(&pod.meta.key, *ready);
            }
        }
        Happening::Kill(n) => {
            if let Some(pod) = pods.get(*n) {
                world.server.kill(&pod.meta.key);
            }
        }
        Happening::Reap => world.server.reap(),
        Happening::Image(n) => {
            let patch = json!({"spec": {"template": {"spec": {"containers": [
                {"name": "c", "image": format!("v{n}")}]}}}});
            let key = ObjectKey::new("a", "web");
            world.server.change(kind, &key, &patch, false);
        }
    }
}

/// The watch catches up and all pods become ready, until nothing changes.
fn settle(world: &mut Laggard, kind: Kind) {
    for _ in 0..200 {
        let before = world.server.log.len();
        world.deliver(usize::MAX);
        act(world, kind);
        for pod in world.server.active().iter().filter(|pod| !pod.ready) {
            world.server.set_ready(&pod.meta.key, true);
        }
        world.server.reap();
        if world.server.log.len() == before {
            return;
        }
    }
    panic!("it does not end: {:?}", world.server.objects);
}

/// Where pods are, or what they are called, and their image.
fn images(world: &Laggard, kind: Kind) -> Vec<(String, Value)> {
    let mut found: Vec<(String, Value)> = world
        .server
        .active()
        .iter()
        .map(|pod| {
            let object = &world.server.objects[&(Kind::Pod, pod.meta.key.clone())];
            let which = if kind == Kind::StatefulSet {
                pod.meta.key.name.clone()
            } else {
                pod.target_node().to_owned()
            };
            (which, object["spec"]["containers"][0]["image"].clone())
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// However late news arrives, no node ever has two pods of a DaemonSet, no
    /// revision is made twice, and in the end all is as the template says.
    #[test]
    fn lag_makes_nothing_twice_and_does_not_keep_it_from_ending(
        stateful in any::<bool>(),
        happenings in prop::collection::vec(happening(), 0..60),
    ) {
        let kind = if stateful { Kind::StatefulSet } else { Kind::DaemonSet };
        let mut world = bed(kind);
        for happening in happenings {
            happen(&mut world, kind, &happening);
            let places: Vec<String> =
                images(&world, kind).into_iter().map(|(place, _)| place).collect();
            let mut once = places.clone();
            once.dedup();
            prop_assert_eq!(places, once);
        }
        settle(&mut world, kind);
        let set = &world.server.objects[&(kind, ObjectKey::new("a", "web"))];
        let image = &set["spec"]["template"]["spec"]["containers"][0]["image"];
        let places = if stateful { ["web-0", "web-1", "web-2"] } else { ["n1", "n2", "n3"] };
        let wanted: Vec<(String, Value)> =
            places.iter().map(|place| ((*place).to_owned(), image.clone())).collect();
        prop_assert_eq!(images(&world, kind), wanted);
        let revisions: Vec<ControllerRevision> = world.server.all(Kind::ControllerRevision);
        for (i, one) in revisions.iter().enumerate() {
            for other in &revisions[i + 1..] {
                prop_assert_ne!(&one.data, &other.data);
            }
        }
    }
}
