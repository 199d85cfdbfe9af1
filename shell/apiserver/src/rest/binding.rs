//! `pods/NAME/binding`: the scheduler puts a pod on a node.
//!
//! The node name is the one part of a pod's spec that changes, and only here:
//! the kind's own update rules would refuse it.

use http::StatusCode;
use portolan_api::value::{list_at, set, str_at};
use portolan_api::{Cause, Status, meta};
use serde_json::{Value, json};

use super::change::TRIES;
use super::create::now;
use super::{Call, decode, refused};
use crate::answer::{self, Answer, Failure};
use crate::store::WriteError;

pub(super) async fn bind(call: &Call) -> Result<Answer, Failure> {
    let (binding, _) = decode::BINDING.read(call)?;
    decode::BINDING.check_name(call, &binding)?;
    let kind = &call.asked.resource.kind;
    let name = &call.asked.name;
    let node = str_at(&binding, "target.name");
    if node.is_empty() {
        let cause = Cause::required("target.name", "");
        return Err(Box::new(Status::invalid_kind(
            "",
            "Binding",
            name,
            &[cause],
        )));
    }
    for _ in 0..TRIES {
        let stored = call.current()?;
        let mut pod = stored.value();
        check(call, &pod, meta::uid(&binding))?;
        if call.dry_run()? {
            return Ok(success());
        }
        set(&mut pod, "spec.nodeName", node);
        mark_scheduled(&mut pod);
        let written = call
            .context
            .store
            .replace(call.key(), pod, stored.revision)
            .await;
        match written {
            Ok(_) => return Ok(success()),
            Err(WriteError::Conflict) => {}
            Err(error) => return Err(refused(call, error)),
        }
    }
    Err(Box::new(Status::conflict(kind, name)))
}

fn success() -> Answer {
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "code": 201,
    });
    answer::json(StatusCode::CREATED, &status)
}

fn check(call: &Call, pod: &Value, uid: &str) -> Result<(), Failure> {
    let kind = &call.asked.resource.kind;
    let name = &call.asked.name;
    let found = meta::uid(pod);
    if !uid.is_empty() && uid != found {
        let status = Status::precondition(kind, name, "UID", uid, found);
        return Err(Box::new(status));
    }
    let node = str_at(pod, "spec.nodeName");
    let cause = if meta::deletion_timestamp(pod).is_some() {
        format!("pod {name} is being deleted, cannot be assigned to a host")
    } else if !node.is_empty() {
        format!("pod {name} is already assigned to node {node:?}")
    } else {
        return Ok(());
    };
    Err(Box::new(Status::conflict_because(kind, name, &cause)))
}

fn mark_scheduled(pod: &mut Value) {
    let condition = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": now(),
    });
    let mut conditions: Vec<Value> = list_at(pod, "status.conditions")
        .iter()
        .filter(|condition| str_at(condition, "type") != "PodScheduled")
        .cloned()
        .collect();
    conditions.push(condition);
    set(pod, "status.conditions", conditions);
}
