//! Which pod a verb means by `web-1`, `deployment/web` or `service/web`, and
//! which of its containers.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::Value;

use super::{encoded, selector};
use crate::connect::{Call, Session};
use crate::out;
use crate::resources::Resources;

/// How often a waiting verb looks again.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Kubernetes' own answer to which container is meant when none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// What a server says to a request for a stream that asks for none.
const NO_UPGRADE: &str = "Upgrade request required";

/// A target as typed, looked up.
pub(crate) struct Target {
    /// The pod.
    pub(crate) pod: Value,
    /// The Service, when that was named.
    pub(crate) service: Option<Value>,
}

/// Looks a target up: a pod by name, or a pod behind something that selects
/// pods, for which it waits up to `limit`.
pub(crate) async fn target(session: &Session, word: &str, limit: Duration) -> Result<Target> {
    let (kind, name) = match word.split_once('/') {
        None | Some(("pod" | "pods" | "po", _)) => {
            let name = word.split_once('/').map_or(word, |(_, name)| name);
            let pod = get(session, name).await?;
            return Ok(Target { pod, service: None });
        }
        Some(parts) => parts,
    };
    let (selecting, kind) = selecting(session, kind, name).await?;
    let service = (kind == "Service").then(|| selecting.clone());
    let end = Instant::now() + limit;
    loop {
        let pods = selected(session, &selecting).await?;
        if let Some(pod) = pods.into_iter().find(is_running) {
            return Ok(Target { pod, service });
        }
        if Instant::now() >= end {
            bail!("error: timed out waiting for a running pod of {word}");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A pod of the session's namespace.
pub(crate) async fn get(session: &Session, name: &str) -> Result<Value> {
    let path = format!("/api/v1/namespaces/{}/pods/{name}", session.namespace);
    Ok(session.call(&Call::get(&path)).await?.body)
}

/// The object that selects pods, and its kind.
pub(crate) async fn selecting(
    session: &Session,
    kind: &str,
    name: &str,
) -> Result<(Value, String)> {
    let resources = Resources::discover(session).await?;
    let resource = resources.find(kind)?;
    let path = resource.path(Some(&session.namespace), Some(name));
    let object = session.call(&Call::get(&path)).await?.body;
    if selector::written(&object["spec"]["selector"]).is_empty() {
        bail!("error: {kind}/{name} selects no pods");
    }
    Ok((object, resource.kind.clone()))
}

/// The pods that an object selects: those that serve first, then by name.
pub(crate) async fn selected(session: &Session, object: &Value) -> Result<Vec<Value>> {
    let path = format!(
        "/api/v1/namespaces/{}/pods?labelSelector={}",
        session.namespace,
        encoded(&selector::written(&object["spec"]["selector"]))
    );
    let list = session.call(&Call::get(&path)).await?.body;
    let mut pods: Vec<Value> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    pods.sort_by_key(|p| {
        let name = p["metadata"]["name"].as_str().unwrap_or_default();
        (!is_ready(p), !is_running(p), name.to_owned())
    });
    Ok(pods)
}

fn is_running(pod: &Value) -> bool {
    pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
    is_running(pod) && conditions.into_iter().flatten().any(ready)
}

/// The name of the container that is meant.
pub(crate) fn container(pod: &Value, named: Option<&str>, quiet: bool) -> Result<String> {
    let names = |field: &str| -> Vec<String> {
        let containers = pod["spec"][field].as_array().into_iter().flatten();
        let names = containers.filter_map(|c| c["name"].as_str());
        names.map(str::to_owned).collect()
    };
    let (containers, init) = (names("containers"), names("initContainers"));
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    if let Some(default) = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str()
        && containers.iter().any(|c| c == default)
    {
        return Ok(default.to_owned());
    }
    let Some(first) = containers.first() else {
        bail!("error: pod {pod_name} has no containers");
    };
    if containers.len() + init.len() > 1 && !quiet {
        let init = init.iter().map(|c| format!("{c} (init)"));
        let all: Vec<String> = containers.iter().cloned().chain(init).collect();
        let all = all.join(", ");
        out::note(format_args!("Defaulted container {first:?} out of: {all}"));
    }
    Ok(first.clone())
}

/// kube's view of the pods of the session's namespace, for its streams.
pub(crate) fn api(session: &Session) -> Api<Pod> {
    Api::namespaced(session.client.clone(), &session.namespace)
}

/// Why a stream did not open: an upgrade that was refused says it only when the
/// same request is made without asking for one.
pub(crate) async fn refused(session: &Session, path: &str, error: kube::Error) -> anyhow::Error {
    match session.try_call(&Call::get(path)).await {
        Ok(answer) if answer.status >= 400 && answer.body["message"] != NO_UPGRADE => {
            crate::connect::server_error(&answer)
        }
        Ok(_) | Err(_) => anyhow::Error::new(error).context("error: unable to upgrade connection"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_is_the_one_named_the_annotated_or_the_first() {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&pod, None, true).unwrap(), "a");
        assert_eq!(container(&pod, Some("b"), true).unwrap(), "b");
        pod["metadata"]["annotations"] = json!({DEFAULT_CONTAINER: "b"});
        assert_eq!(container(&pod, None, true).unwrap(), "b");
    }
}
