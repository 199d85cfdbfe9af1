//! From a task to a step: gathers the facts, asks `plan`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use portolan_model::workloads::{
    ControllerRevision, Meta, Node, ObjectKey, Pod, ReplicaSet, Service, Slice,
};
use portolan_plan::endpoints::{endpoints, endpoints_of_deleted};
use portolan_plan::slices::{
    Backing, CONTROLLER, MANAGED_BY, MIRRORING, SERVICE_NAME, by_cpu, cpus, mirror, slices,
};
use portolan_plan::workloads::{
    Action, Step, Usage, daemon_set, deployment, lost_pods, node, replica_set, schedule,
    stateful_set,
};

use super::world::{Task, World};

/// What is to be done about a task now.
pub(super) fn decide(world: &mut World, task: &Task, now: Timestamp) -> Step {
    match task {
        Task::Slices(key) => of_slices(world, task, key),
        Task::Endpoints(key) => of_endpoints(world, task, key),
        Task::Mirror(key) => of_mirror(world, key),
        Task::Schedule(key) => of_schedule(world, key),
        Task::ReplicaSet(key) => of_replica_set(world, key, now),
        Task::Deployment(key) => of_deployment(world, key, now),
        Task::StatefulSet(key) => of_stateful_set(world, key, now),
        Task::DaemonSet(key) => of_daemon_set(world, key, now),
        Task::Node(name) => of_node(world, name, now),
        Task::LostPods(name) => of_lost_pods(world, name),
    }
}

fn node_of<'a>(world: &'a World, name: &str) -> Option<&'a Node> {
    world
        .nodes
        .get(&ObjectKey::new("", name))
        .map(AsRef::as_ref)
}

/// Asks a controller of endpoints with what stands behind a Service.
fn with_backing(
    world: &mut World,
    task: &Task,
    service: &Service,
    ask: impl FnOnce(&World, &Backing<'_>) -> Step,
) -> Step {
    let known = world
        .triggers
        .get(task)
        .map(|(written, _)| written.clone())
        .unwrap_or_default();
    let pods = world.selected(service);
    let (trigger, pending) = known.since(service, &pods);
    let cpus = by_cpu(service)
        .then(|| cpus(world.nodes.all().map(AsRef::as_ref)))
        .flatten();
    let backing = Backing {
        service,
        pods: &pods,
        node: &|name| node_of(world, name),
        trigger,
        cpus: cpus.as_ref(),
    };
    let step = ask(world, &backing);
    world.triggers.insert(task.clone(), (known, pending));
    step
}

fn of_slices(world: &mut World, task: &Task, key: &ObjectKey) -> Step {
    let Some(service) = world.services.get(key).cloned() else {
        return Step::default();
    };
    with_backing(world, task, &service, |world, backing| {
        let existing: Vec<&Slice> = world
            .slices
            .controlled_by(&service.meta.uid)
            .map(AsRef::as_ref)
            .filter(|slice| is_managed_by(slice, CONTROLLER))
            .collect();
        slices(backing, &existing)
    })
}

fn is_managed_by(slice: &Slice, controller: &str) -> bool {
    slice
        .meta
        .labels
        .get(MANAGED_BY)
        .is_some_and(|by| by == controller)
}

fn of_endpoints(world: &mut World, task: &Task, key: &ObjectKey) -> Step {
    let existing = world.endpoints.get(key).cloned();
    let existing = existing.as_deref().filter(|known| !known.meta.deleting);
    let Some(service) = world.services.get(key).cloned() else {
        return existing.map_or_else(Step::default, |existing| {
            endpoints_of_deleted(existing, world.departed.contains(key))
        });
    };
    with_backing(world, task, &service, |_, backing| {
        endpoints(backing, existing)
    })
}

fn of_mirror(world: &World, key: &ObjectKey) -> Step {
    let mirrored: Vec<&Slice> = world
        .slices
        .labelled(&key.namespace, SERVICE_NAME, &key.name)
        .map(AsRef::as_ref)
        .filter(|slice| is_managed_by(slice, MIRRORING))
        .collect();
    mirror(
        world.endpoints.get(key).map(AsRef::as_ref),
        world.services.get(key).map(AsRef::as_ref),
        &mirrored,
    )
}

fn of_schedule(world: &mut World, key: &ObjectKey) -> Step {
    let Some(pod) = world.pods.get(key).cloned() else {
        return Step::default();
    };
    if world
        .assumed
        .get(key)
        .is_some_and(|(uid, _)| *uid == pod.meta.uid)
    {
        return Step::default();
    }
    let assumed: Vec<Pod> = world
        .assumed
        .iter()
        .filter_map(|(key, (_, node))| {
            let mut pod = world.pods.get(key)?.as_ref().clone();
            pod.node.clone_from(node);
            Some(pod)
        })
        .collect();
    let placed = world
        .pods
        .all()
        .map(AsRef::as_ref)
        .filter(|pod| !world.assumed.contains_key(&pod.meta.key));
    let usage = Usage::of(placed.chain(&assumed));
    let step = schedule(&pod, world.nodes.all().map(AsRef::as_ref), &usage);
    for write in &step.writes {
        if let Action::Bind { uid, node } = &write.action {
            world
                .assumed
                .insert(key.clone(), (uid.clone(), node.clone()));
        }
    }
    step
}

fn of_replica_set(world: &World, key: &ObjectKey, now: Timestamp) -> Step {
    let Some(set) = world.sets.get(key) else {
        return Step::default();
    };
    let pods = own_pods(world, &set.meta);
    let blame = world.blames.get(&set.meta.uid);
    replica_set(set, &pods, &crowd(world, set), blame, now)
}

/// The pods of a workload's namespace that it controls or that nobody does.
fn own_pods<'a>(world: &'a World, owner: &'a Meta) -> Vec<&'a Pod> {
    let orphans = world
        .pods
        .controlled_by("")
        .filter(|pod| pod.meta.key.namespace == owner.key.namespace);
    world
        .pods
        .controlled_by(&owner.uid)
        .chain(orphans)
        .map(AsRef::as_ref)
        .collect()
}

fn of_stateful_set(world: &World, key: &ObjectKey, now: Timestamp) -> Step {
    let Some(set) = world.stateful_sets.get(key) else {
        return Step::default();
    };
    let pods = own_pods(world, &set.meta);
    stateful_set(set, &revisions(world, key), &pods, now)
}

fn of_daemon_set(world: &World, key: &ObjectKey, now: Timestamp) -> Step {
    let Some(set) = world.daemon_sets.get(key) else {
        return Step::default();
    };
    let pods = own_pods(world, &set.meta);
    let nodes: Vec<&Node> = world.nodes.all().map(AsRef::as_ref).collect();
    daemon_set(set, &revisions(world, key), &pods, &nodes, now)
}

fn revisions<'a>(world: &'a World, key: &ObjectKey) -> Vec<&'a ControllerRevision> {
    world
        .revisions
        .in_namespace(&key.namespace)
        .map(AsRef::as_ref)
        .collect()
}

/// Pods per node of the whole workload: of all ReplicaSets of one Deployment.
fn crowd<'a>(world: &'a World, set: &ReplicaSet) -> BTreeMap<&'a str, usize> {
    let mut crowd = BTreeMap::new();
    let mut count = |uid: &str| {
        let pods = world.pods.controlled_by(uid);
        for pod in pods.filter(|pod| pod.is_active() && !pod.node.is_empty()) {
            *crowd.entry(pod.node.as_str()).or_default() += 1;
        }
    };
    match &set.meta.controller {
        Some(owner) => world
            .sets
            .controlled_by(&owner.uid)
            .for_each(|sibling| count(&sibling.meta.uid)),
        None => count(&set.meta.uid),
    }
    crowd
}

fn of_deployment(world: &World, key: &ObjectKey, now: Timestamp) -> Step {
    let Some(wanted) = world.deployments.get(key) else {
        return Step::default();
    };
    let sets: Vec<&ReplicaSet> = world
        .sets
        .in_namespace(&key.namespace)
        .map(AsRef::as_ref)
        .collect();
    let has_pods = |uid: &str| world.pods.controlled_by(uid).any(|pod| !pod.is_finished());
    let blame = world.blames.get(&wanted.meta.uid);
    deployment(wanted, &sets, &has_pods, blame, now)
}

fn of_node(world: &World, name: &str, now: Timestamp) -> Step {
    let key = ObjectKey::new("", name);
    let (Some(known), Some(heard)) = (world.nodes.get(&key), world.heard(name)) else {
        return Step::default();
    };
    let silent_for = Instant::now().saturating_duration_since(heard);
    let pods = world
        .pods
        .all()
        .map(AsRef::as_ref)
        .filter(|pod| pod.node == name);
    let mut step = node(known, pods, silent_for, &world.config.node_times, now);
    if step
        .again
        .is_some_and(|again| again < Duration::from_millis(10))
    {
        step.again = Some(Duration::from_millis(10));
    }
    step
}

fn of_lost_pods(world: &World, name: &str) -> Step {
    if node_of(world, name).is_some() {
        return Step::default();
    }
    lost_pods(
        world
            .pods
            .all()
            .map(AsRef::as_ref)
            .filter(|pod| pod.node == name),
    )
}
