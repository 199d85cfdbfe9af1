//! `portolan logs`.

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use http_body_util::BodyExt;

use super::{encoded, pods};
use crate::cli::LogsArgs;
use crate::connect::{Call, Session};
use crate::out;

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

/// The first of the pods that a Deployment, ReplicaSet or Service selects.
async fn pod_of(session: &Session, kind: &str, name: &str) -> Result<String> {
    let (object, _) = pods::selecting(session, kind, name).await?;
    let found = pods::selected(session, &object).await?;
    let Some(first) = found.first() else {
        bail!("error: no pods of {kind}/{name} found");
    };
    let first = first["metadata"]["name"].as_str().unwrap_or_default();
    if found.len() > 1 {
        let count = found.len();
        out::note(format_args!("Found {count} pods, using pod/{first}"));
    }
    Ok(first.to_owned())
}
