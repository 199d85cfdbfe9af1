//! From a task to a step: gathers the facts, asks `plan`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use portolan_model::workloads::{Node, ObjectKey, Pod, ReplicaSet, Service, Slice};
use portolan_plan::endpoints::{endpoints, endpoints_of_deleted};
use portolan_plan::slices::{Backing, CONTROLLER, MANAGED_BY, slices};
use portolan_plan::workloads::{
    Action, Step, Usage, deployment, lost_pods, node, replica_set, schedule,
};

use super::world::{Task, World};

/// What is to be done about a task now.
pub(super) fn decide(world: &mut World, task: &Task, now: Timestamp) -> Step {
    match task {
        Task::Slices(key) => of_slices(world, key),
        Task::Endpoints(key) => of_endpoints(world, key),
        Task::Schedule(key) => of_schedule(world, key),
        Task::ReplicaSet(key) => of_replica_set(world, key, now),
        Task::Deployment(key) => of_deployment(world, key, now),
        Task::Node(name) => of_node(world, name, now),
        Task::LostPods(name) => of_lost_pods(world, name),
    }
}

/// The writes of a task are on the server.
pub(super) fn succeeded(world: &mut World, task: &Task) {
    if let Task::Slices(key) = task
        && let Some((written, pending)) = world.triggers.get_mut(key)
    {
        written.clone_from(pending);
    }
}

/// The pods that a Service selects, ended ones left out.
fn selected<'a>(world: &'a World, service: &Service) -> Vec<&'a Pod> {
    world
        .pods
        .in_namespace(&service.meta.key.namespace)
        .map(AsRef::as_ref)
        .filter(|pod| !pod.is_finished() && service.selects(&pod.meta.labels))
        .collect()
}

fn node_of<'a>(world: &'a World, name: &str) -> Option<&'a Node> {
    world
        .nodes
        .get(&ObjectKey::new("", name))
        .map(AsRef::as_ref)
}

fn of_slices(world: &mut World, key: &ObjectKey) -> Step {
    let Some(service) = world.services.get(key).cloned() else {
        return Step::default();
    };
    let pods = selected(world, &service);
    let known = world
        .triggers
        .get(key)
        .map(|(written, _)| written.clone())
        .unwrap_or_default();
    let (trigger, pending) = known.since(&service, &pods);
    let existing: Vec<&Slice> = world
        .slices
        .controlled_by(&service.meta.uid)
        .map(AsRef::as_ref)
        .filter(|slice| {
            slice
                .meta
                .labels
                .get(MANAGED_BY)
                .is_some_and(|by| by == CONTROLLER)
        })
        .collect();
    let backing = Backing {
        service: &service,
        pods: &pods,
        node: &|name| node_of(world, name),
        trigger,
    };
    let step = slices(&backing, &existing);
    world.triggers.insert(key.clone(), (known, pending));
    step
}

fn of_endpoints(world: &World, key: &ObjectKey) -> Step {
    let existing = world.endpoints.get(key).map(AsRef::as_ref);
    let Some(service) = world.services.get(key) else {
        return match existing {
            Some(existing) if !existing.meta.deleting => endpoints_of_deleted(existing),
            Some(_) | None => Step::default(),
        };
    };
    let pods = selected(world, service);
    let backing = Backing {
        service,
        pods: &pods,
        node: &|name| node_of(world, name),
        trigger: None,
    };
    endpoints(
        &backing,
        existing.filter(|existing| !existing.meta.deleting),
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
    let orphans = world
        .pods
        .controlled_by("")
        .filter(|pod| pod.meta.key.namespace == key.namespace);
    let pods: Vec<&Pod> = world
        .pods
        .controlled_by(&set.meta.uid)
        .chain(orphans)
        .map(AsRef::as_ref)
        .collect();
    replica_set(set, &pods, &crowd(world, set), now)
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
    deployment(wanted, &sets, &has_pods, now)
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
