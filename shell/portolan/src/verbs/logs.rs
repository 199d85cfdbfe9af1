//! `portolan logs`.

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use http_body_util::BodyExt;
use serde_json::Value;

use super::encoded;
use crate::cli::LogsArgs;
use crate::connect::{Call, Session};
use crate::out;
use crate::resources::Resources;

/// Runs the verb.
pub(crate) async fn run(args: LogsArgs) -> Result<()> {
    let session = Session::open(&args.connection).await?;
    let pod = match args.target.split_once('/') {
        None => args.target.clone(),
        Some(("pod" | "pods" | "po", name)) => name.to_owned(),
        Some((kind, name)) => pod_of(&session, kind, name).await?,
    };
    let mut path = format!("/api/v1/namespaces/{}/pods/{pod}/log", session.namespace);
    let mut separator = '?';
    let mut option = |key: &str, value: String| {
        path.push_str(&format!("{separator}{key}={value}"));
        separator = '&';
    };
    if let Some(container) = &args.container {
        option("container", encoded(container));
    }
    for (key, on) in [
        ("follow", args.follow),
        ("previous", args.previous),
        ("timestamps", args.timestamps),
    ] {
        if on {
            option(key, "true".to_owned());
        }
    }
    if args.tail >= 0 {
        option("tailLines", args.tail.to_string());
    }
    let call = Call {
        accept: "*/*",
        ..Call::get(&path)
    };
    let mut stream = session.stream(&call).await?.into_data_stream();
    while let Some(part) = stream.next().await {
        out::raw(&part.context("the log broke off")?);
    }
    Ok(())
}

/// The first pod that the selector of a Deployment, ReplicaSet or Service matches.
async fn pod_of(session: &Session, kind: &str, name: &str) -> Result<String> {
    let resources = Resources::discover(session).await?;
    let resource = resources.find(kind)?;
    let object = session
        .call(&Call::get(
            &resource.path(Some(&session.namespace), Some(name)),
        ))
        .await?
        .body;
    let selector = &object["spec"]["selector"];
    let labels = selector.get("matchLabels").unwrap_or(selector);
    let text: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    let path = format!(
        "/api/v1/namespaces/{}/pods?labelSelector={}",
        session.namespace,
        encoded(&text.join(","))
    );
    let list = session.call(&Call::get(&path)).await?.body;
    let mut names: Vec<&str> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|p| p["metadata"]["name"].as_str())
        .collect();
    names.sort_unstable();
    if names.len() > 1 {
        out::note(format_args!(
            "Found {} pods, using pod/{}",
            names.len(),
            names.first().unwrap_or(&"")
        ));
    }
    match names.first() {
        Some(first) if !Value::is_null(labels) => Ok((*first).to_owned()),
        _ => bail!("error: no pods of {kind}/{name} found"),
    }
}
