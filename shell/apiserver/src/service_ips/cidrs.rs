//! ServiceCIDRs: the default one, their finalizer and their condition (A6).

use ipnet::IpNet;
use portolan_api::meta;
use portolan_api::value::{list_at, set, str_at, strings_at};
use portolan_plan::allocate::cidrs::DEFAULT;
use serde_json::{Value, json};

use crate::OpenError;
use crate::context::Context;
use crate::rest::now;
use crate::store::{Change, Condition, Key, Stored, Write, WriteError};

/// Keeps a ServiceCIDR while addresses need it.
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const READY: &str = "Kubernetes Service CIDR is ready";
const BLOCKED: &str = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";

fn key(context: &Context, name: &str) -> Key {
    Key::new(context.allocator.places().cidrs, "", name)
}

/// Make the default ServiceCIDR of the configured ranges. One that is there
/// may grow from one family to two; other ranges are refused, since Services
/// have addresses of the old ones.
pub(super) async fn ensure_default(context: &Context) -> Result<(), OpenError> {
    let wanted: Vec<String> = context
        .config
        .service_cidrs
        .iter()
        .map(IpNet::to_string)
        .collect();
    let key = key(context, DEFAULT);
    let Some(stored) = context.store.get(&key) else {
        let object = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {
                "name": DEFAULT,
                "uid": uuid::Uuid::new_v4().to_string(),
                "creationTimestamp": now(),
                "generation": 1,
                "finalizers": [FINALIZER],
            },
            "spec": {"cidrs": wanted},
            "status": {"conditions": [ready("True", "", READY)]},
        });
        let made = context.store.create(key, object, None).await;
        return made.map(drop).map_err(|error| refused(&error));
    };
    let mut value = stored.value();
    let found: Vec<&str> = strings_at(&value, "spec.cidrs");
    if found == wanted || stored.deleting {
        return Ok(());
    }
    let grows = matches!((&found[..], &wanted[..]), ([one], [first, _]) if one == first);
    if !grows {
        return Err(OpenError::Config(format!(
            "the state in {} was made with --service-cidr {}, not {}: start with the same ranges (a second family may be added), or with another --data-dir",
            context.config.data_dir.display(),
            found.join(","),
            wanted.join(","),
        )));
    }
    let generation = meta::generation(&value) + 1;
    set(&mut value, "spec.cidrs", json!(wanted));
    meta::set_generation(&mut value, generation);
    let replaced = context.store.replace(key, value, stored.revision).await;
    replaced.map(drop).map_err(|error| refused(&error))
}

fn refused(error: &WriteError) -> OpenError {
    OpenError::Bootstrap {
        what: format!("the ServiceCIDR {DEFAULT}"),
        why: error.to_string(),
    }
}

fn ready(status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": "Ready",
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": now(),
    })
}

/// Look at all ServiceCIDRs, and bring finalizers and conditions up to date.
pub(super) async fn look(context: &Context) {
    let snapshot = context
        .store
        .cache()
        .snapshot(context.allocator.places().cidrs);
    for (name, stored) in &snapshot.objects {
        let looked = if stored.deleting {
            end(context, &name.name, stored).await
        } else {
            keep(context, &name.name, stored).await
        };
        match looked {
            // Somebody was faster; the change brings us back.
            Ok(()) | Err(WriteError::Conflict | WriteError::Missing | WriteError::Companion) => {}
            Err(error) => {
                tracing::warn!(name = name.name, %error, "cannot update a ServiceCIDR");
            }
        }
    }
}

/// A ServiceCIDR that stays has the finalizer, and is ready.
async fn keep(context: &Context, name: &str, stored: &Stored) -> Result<(), WriteError> {
    let mut value = stored.value();
    let mut finalizers = meta::finalizers(&value);
    let guarded = finalizers.contains(&FINALIZER);
    let is_ready = condition(&value) == Some("True");
    if guarded && is_ready {
        return Ok(());
    }
    if !guarded {
        finalizers.push(FINALIZER);
        let finalizers: Vec<String> = finalizers.into_iter().map(str::to_owned).collect();
        set(&mut value, "metadata.finalizers", json!(finalizers));
    }
    if !is_ready {
        set_condition(&mut value, ready("True", "", READY));
    }
    let written = context
        .store
        .replace(key(context, name), value, stored.revision)
        .await;
    written.map(drop)
}

/// A ServiceCIDR that is being deleted goes when no address needs it.
async fn end(context: &Context, name: &str, stored: &Stored) -> Result<(), WriteError> {
    let mut value = stored.value();
    if !meta::finalizers(&value).contains(&FINALIZER) {
        return Ok(());
    }
    if !context.allocator.may_end(name) {
        if condition(&value) == Some("False") {
            return Ok(());
        }
        set_condition(&mut value, ready("False", "Terminating", BLOCKED));
        let written = context
            .store
            .replace(key(context, name), value, stored.revision)
            .await;
        return written.map(drop);
    }
    let others: Vec<String> = meta::finalizers(&value)
        .into_iter()
        .filter(|finalizer| *finalizer != FINALIZER)
        .map(str::to_owned)
        .collect();
    let change = if others.is_empty() {
        Change::Delete
    } else {
        set(&mut value, "metadata.finalizers", json!(others));
        Change::Put(value)
    };
    let write = Write {
        key: key(context, name),
        condition: Condition::Revision(stored.revision),
        change,
        namespace: None,
    };
    context.store.write(write).await?;
    if name == DEFAULT {
        // As in a cluster: the default one comes back from the flags.
        if let Err(error) = ensure_default(context).await {
            tracing::warn!(%error, "cannot make the default ServiceCIDR again");
        }
    }
    Ok(())
}

/// The status of the condition Ready.
fn condition(value: &Value) -> Option<&str> {
    list_at(value, "status.conditions")
        .iter()
        .find(|condition| str_at(condition, "type") == "Ready")
        .map(|condition| str_at(condition, "status"))
}

fn set_condition(value: &mut Value, condition: Value) {
    let mut conditions: Vec<Value> = list_at(value, "status.conditions")
        .iter()
        .filter(|other| str_at(other, "type") != "Ready")
        .cloned()
        .collect();
    conditions.push(condition);
    set(value, "status.conditions", Value::Array(conditions));
}
