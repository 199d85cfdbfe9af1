//! What is asked of which pod and container, checked as the API server checks.

use std::sync::Arc;

use http::StatusCode;
use portolan_api::value::{list_at, str_at};
use portolan_api::{Status, meta};
use serde_json::Value;

use super::Request;
use super::refused::Refused;
use crate::answer::Failure;
use crate::pods::{ContainerTarget, PodBackend, StreamError, Streams};

/// The parameters of exec and attach, of which some repeat.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    pub(super) container: String,
    pub(super) command: Vec<String>,
    pub(super) ports: Vec<String>,
    pub(super) streams: Streams,
}

impl Parameters {
    pub(super) fn read(query: &str) -> Self {
        let mut found = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            // One decoder for all parameters: that of every other request.
            let parsed = crate::request::Query::parse(pair);
            let key = pair.split_once('=').map_or(pair, |(key, _)| key);
            let (text, flag) = (parsed.text(key), parsed.flag(key));
            match key {
                "container" if found.container.is_empty() => text.clone_into(&mut found.container),
                "command" => found.command.push(text.to_owned()),
                // Clients repeat it, or separate by commas.
                "ports" => found.ports.extend(text.split(',').map(str::to_owned)),
                "stdin" => found.streams.stdin = flag,
                "stdout" => found.streams.stdout = flag,
                "stderr" => found.streams.stderr = flag,
                "tty" => found.streams.tty = flag,
                _ => {}
            }
        }
        found
    }

    /// The streams, as the kubelet reads them: a terminal carries the errors too.
    pub(super) fn checked_streams(&self) -> Result<Streams, Refused> {
        let mut streams = self.streams;
        streams.stderr &= !streams.tty;
        if streams.stdin || streams.stdout || streams.stderr {
            return Ok(streams);
        }
        Err(Refused::text(
            StatusCode::BAD_REQUEST,
            "you must specify at least 1 of stdin, stdout, stderr",
        ))
    }
}

/// The pod that a request names.
pub(super) fn named(request: &Request) -> Result<Value, Refused> {
    let asked = &request.asked;
    let key = asked.resource.key(&asked.namespace, &asked.name);
    match request.context.store.get(&key) {
        Some(stored) => Ok(stored.value()),
        None => Err(Status::not_found(&asked.resource.kind, &asked.name).into()),
    }
}

/// The node of a pod.
pub(super) fn node(pod: &Value) -> Result<String, Refused> {
    match str_at(pod, "spec.nodeName") {
        "" => Err(Refused::bad_request(format!(
            "pod {} does not have a host assigned",
            meta::name(pod)
        ))),
        node => Ok(node.to_owned()),
    }
}

/// The container that a request is about, in a pod that has been given to a node.
pub(super) fn target(pod: &Value, container: &str) -> Result<ContainerTarget, Refused> {
    let container = self::container(pod, container)?;
    let node = node(pod)?;
    // No container of such a pod runs: what the kubelet says then.
    if matches!(str_at(pod, "status.phase"), "Succeeded" | "Failed") {
        return Err(missing(&StreamError::NotFound(format!(
            "container not found ({container:?})"
        ))));
    }
    Ok(ContainerTarget {
        namespace: meta::namespace(pod).to_owned(),
        pod: meta::name(pod).to_owned(),
        uid: meta::uid(pod).to_owned(),
        node,
        container,
    })
}

/// The container asked for, or the only one.
pub(crate) fn container(pod: &Value, wanted: &str) -> Result<String, Failure> {
    let name = meta::name(pod);
    let names = |path: &str| -> Vec<String> {
        list_at(pod, path)
            .iter()
            .map(|container| str_at(container, "name").to_owned())
            .collect()
    };
    let containers = names("spec.containers");
    let all = || {
        [
            names("spec.initContainers"),
            names("spec.containers"),
            names("spec.ephemeralContainers"),
        ]
        .concat()
    };
    let message = match (wanted, containers.as_slice()) {
        ("", [only]) => return Ok(only.clone()),
        ("", []) => format!("a container name must be specified for pod {name}"),
        ("", _) => format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            all().join(" ")
        ),
        (wanted, _) if all().iter().any(|own| own == wanted) => return Ok(wanted.to_owned()),
        (wanted, _) => format!("container {wanted} is not valid for pod {name}"),
    };
    Err(Box::new(Status::bad_request(message)))
}

/// Whoever runs the pods.
pub(super) fn backend(request: &Request) -> Result<Arc<dyn PodBackend>, Refused> {
    request
        .context
        .pod_backend()
        .ok_or_else(|| Status::internal("this server runs no pods").into())
}

/// An error that comes before the connection, worded and coded like the
/// kubelet's.
pub(super) fn missing(error: &StreamError) -> Refused {
    let code = match error {
        StreamError::NotFound(_) | StreamError::Internal(_) | StreamError::Refused(_) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        StreamError::BadRequest(_) => StatusCode::BAD_REQUEST,
        StreamError::NotImplemented(_) => StatusCode::NOT_IMPLEMENTED,
    };
    Refused::text(code, &error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_repeat_and_are_decoded() {
        let query = "command=sh&command=-c&command=echo+a%26b&container=web&stdin=1&stdout=true&tty=false&ports=80,81&ports=90";
        let found = Parameters::read(query);
        assert_eq!(found.command, ["sh", "-c", "echo a&b"]);
        assert_eq!(found.container, "web");
        assert_eq!(found.ports, ["80", "81", "90"]);
        let streams = Streams {
            stdin: true,
            stdout: true,
            stderr: false,
            tty: false,
        };
        assert_eq!(found.streams, streams);
        let terminal = Parameters::read("stderr=1&stdout=1&tty=1");
        assert!(!terminal.checked_streams().unwrap().stderr);
        assert!(
            Parameters::read("stderr=1&tty=1")
                .checked_streams()
                .is_err()
        );
        assert!(Parameters::read("").checked_streams().is_err());
    }

    #[test]
    fn containers_are_found_as_kubernetes_finds_them() {
        let pod = json!({
            "metadata": {"name": "p"},
            "spec": {
                "initContainers": [{"name": "i"}],
                "containers": [{"name": "a"}, {"name": "b"}],
            },
        });
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        let message = |pod, wanted| container(pod, wanted).map_err(|status| status.message);
        assert_eq!(message(&one, ""), Ok("a".to_owned()));
        assert_eq!(message(&pod, "i"), Ok("i".to_owned()));
        assert_eq!(
            message(&pod, ""),
            Err("a container name must be specified for pod p, choose one of: [i a b]".to_owned())
        );
        assert_eq!(
            message(&pod, "x"),
            Err("container x is not valid for pod p".to_owned())
        );
    }
}
