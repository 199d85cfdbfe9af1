//! `portolan delete`.

use std::time::Duration;

use anyhow::{Result, bail};
use http::Method;
use serde_json::{Value, json};

use super::{encoded, manifests};
use crate::cli::DeleteArgs;
use crate::connect::{Call, Session, server_error};
use crate::out;
use crate::resources::{Resource, Resources};

/// How often a waiting delete looks whether the object is gone.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One object to delete.
struct Target {
    resource: Resource,
    namespace: String,
    name: String,
}

/// Runs the verb.
pub(crate) async fn run(args: DeleteArgs) -> Result<()> {
    let session = Session::open(&args.connection).await?;
    let resources = Resources::discover(&session).await?;
    let mut targets = Vec::new();
    if !args.filename.is_empty() {
        for object in manifests::read(&args.filename)? {
            targets.push(Target {
                resource: resources.of_manifest(&object)?.clone(),
                namespace: object["metadata"]["namespace"]
                    .as_str()
                    .unwrap_or(&session.namespace)
                    .to_owned(),
                name: object["metadata"]["name"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
            });
        }
    }
    for (resource, name) in resources.parse(&args.resources)? {
        match name {
            Some(name) => targets.push(Target {
                resource,
                namespace: session.namespace.clone(),
                name,
            }),
            None if args.all || args.selector.is_some() => {
                targets.extend(matching(&session, &args, &resource).await?);
            }
            None => bail!("error: resource(s) were provided, but no name was specified"),
        }
    }
    if targets.is_empty() {
        bail!("error: you must provide one or more resources by argument or filename");
    }
    let mut uids = Vec::new();
    for target in &targets {
        uids.push(delete_one(&session, &args, target).await?);
    }
    if args.wait {
        for (target, uid) in targets.iter().zip(uids) {
            wait_until_gone(&session, target, &uid).await?;
        }
    }
    Ok(())
}

async fn matching(
    session: &Session,
    args: &DeleteArgs,
    resource: &Resource,
) -> Result<Vec<Target>> {
    let mut path = resource.path(Some(&session.namespace), None);
    if let Some(selector) = &args.selector {
        path.push_str(&format!("?labelSelector={}", encoded(selector)));
    }
    let list = session.call(&Call::get(&path)).await?.body;
    let names = list["items"].as_array().into_iter().flatten();
    Ok(names
        .map(|o| Target {
            resource: resource.clone(),
            namespace: o["metadata"]["namespace"]
                .as_str()
                .unwrap_or(&session.namespace)
                .to_owned(),
            name: o["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        })
        .collect())
}

/// Asks for the deletion; returns the uid of what is going, empty when nothing was there.
async fn delete_one(session: &Session, args: &DeleteArgs, target: &Target) -> Result<String> {
    let path = target
        .resource
        .path(Some(&target.namespace), Some(&target.name));
    let mut options = json!({"propagationPolicy": "Background"});
    if args.grace_period >= 0 {
        options["gracePeriodSeconds"] = json!(args.grace_period);
    }
    let held = session.try_call(&Call::get(&path)).await?;
    let uid = held.body["metadata"]["uid"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let answer = session
        .try_call(&Call::sending(
            Method::DELETE,
            &path,
            "application/json",
            &options,
        ))
        .await?;
    if answer.status == 404 && args.ignore_not_found {
        return Ok(String::new());
    }
    if answer.status >= 400 {
        return Err(server_error(&answer));
    }
    out::line(format_args!(
        "{} {:?} deleted",
        title(&target.resource),
        target.name
    ));
    Ok(uid)
}

/// `deployment.apps`, `service`: how kubectl names the type of what it deleted.
fn title(resource: &Resource) -> String {
    if resource.group.is_empty() {
        resource.singular.clone()
    } else {
        format!("{}.{}", resource.singular, resource.group)
    }
}

async fn wait_until_gone(session: &Session, target: &Target, uid: &str) -> Result<()> {
    let path = target
        .resource
        .path(Some(&target.namespace), Some(&target.name));
    loop {
        let answer = session.try_call(&Call::get(&path)).await?;
        let same = answer.body["metadata"]["uid"] == Value::String(uid.to_owned());
        if answer.status == 404 || (answer.status < 400 && !same) {
            return Ok(());
        }
        if answer.status >= 400 {
            return Err(server_error(&answer));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
