//! A pod that runs and is not ready: which probe fails, and why.

use portolan_api::lean::{self, IntOrString};

use super::case::{Case, Maker, replace};
use super::finding::Mend;
use super::pods::Trouble;

/// The first container whose probe fails.
pub(super) fn failing(case: &Case<'_>, pod: &lean::Pod) -> Option<Trouble> {
    for (index, container) in pod.spec.containers.iter().enumerate() {
        let mut statuses = pod.status.container_statuses.iter();
        let status = statuses.find(|status| status.name == container.name);
        if status.is_none_or(|status| status.ready) {
            continue;
        }
        let said = said_by(case, pod);
        // Until it has started nothing else is probed.
        let starting = said.is_some_and(|said| said.starts_with("Startup"));
        let probes = [
            ("startupProbe", &container.startup_probe, "startup"),
            ("readinessProbe", &container.readiness_probe, "readiness"),
        ];
        let asked = probes.into_iter().filter(|(_, probe, _)| probe.is_some());
        let mut asked = asked.filter(|(_, _, word)| *word == "readiness" || starting);
        if let Some((field, Some(probe), word)) = asked.next() {
            let seen = Failing {
                pod,
                container,
                index,
                field,
                word,
                said,
            };
            return Some(seen.trouble(probe));
        }
    }
    None
}

/// What the kubelet last said of a failed probe of the pod.
fn said_by<'a>(case: &Case<'a>, pod: &lean::Pod) -> Option<&'a str> {
    let of_pod = case.seen.events.iter().filter(|event| {
        let about = &event.involved_object;
        event.reason == "Unhealthy"
            && about.uid == pod.metadata.uid
            && about.name == pod.metadata.name
            && !event.message.starts_with("Liveness")
    });
    let last = of_pod.max_by_key(|event| event.last_timestamp.as_deref());
    last.map(|event| event.message.as_str())
}

/// A probe that fails.
struct Failing<'a> {
    pod: &'a lean::Pod,
    container: &'a lean::Container,
    index: usize,
    field: &'static str,
    word: &'static str,
    said: Option<&'a str>,
}

impl Failing<'_> {
    fn trouble(&self, probe: &lean::Probe) -> Trouble {
        let (what, leaf, port) = self.asks(probe);
        let said = self
            .said
            .map(|said| format!(" ({said})"))
            .unwrap_or_default();
        let message = format!(
            "the {} probe of container {} in pod/{} never passes: {what}{said}",
            self.word, self.container.name, self.pod.metadata.name
        );
        let maker = Maker::of(self.pod);
        let place = format!("containers[{}].{}", self.index, self.field);
        if let Some((action, wanted)) =
            port.and_then(|(action, port)| Some((action, self.better_port(port)?)))
        {
            return self.wrong_port(maker, (&place, action), (message, wanted));
        }
        let field = if leaf.is_empty() {
            place
        } else {
            format!("{place}.{leaf}")
        };
        let field = maker.field(&field);
        let edit = if maker.is_pod() {
            "and make the pod anew".to_owned()
        } else {
            format!(
                "with kubectl edit {} -n {}",
                maker.words(),
                self.pod.metadata.namespace
            )
        };
        let text = format!("make the program pass it, or correct {field} {edit}");
        Trouble {
            object: maker.object,
            field,
            message,
            mend: Mend {
                text,
                command: None,
            },
        }
    }

    /// What the probe asks, the field that says so, and the port's field and value.
    fn asks<'p>(
        &self,
        probe: &'p lean::Probe,
    ) -> (
        String,
        &'static str,
        Option<(&'static str, &'p IntOrString)>,
    ) {
        let at = |port: &Option<IntOrString>| match port {
            Some(IntOrString::Int(number)) => format!("port {number}"),
            Some(IntOrString::String(name)) => format!("port {name:?}"),
            None => "no port".to_owned(),
        };
        let of =
            |action, asked: &'p lean::ProbePort| asked.port.as_ref().map(|port| (action, port));
        if let Some(asked) = &probe.http_get {
            let path = if asked.path.is_empty() {
                "/"
            } else {
                &asked.path
            };
            let what = format!("GET {path} at {}", at(&asked.port));
            return (what, "httpGet.path", of("httpGet", asked));
        }
        if let Some(asked) = &probe.tcp_socket {
            let what = format!("a connection to {}", at(&asked.port));
            return (what, "tcpSocket.port", of("tcpSocket", asked));
        }
        if let Some(asked) = &probe.grpc {
            let what = format!("the gRPC health service at {}", at(&asked.port));
            return (what, "grpc.port", of("grpc", asked));
        }
        let command = probe.exec.as_ref().map(|exec| exec.command.join(" "));
        let what = format!("the command `{}`", command.unwrap_or_default());
        (what, "exec.command", None)
    }

    /// The one port that the container lists, if the probe asks at another.
    fn better_port(&self, asked: &IntOrString) -> Option<u16> {
        let ports = &self.container.ports;
        let lists = |port: &lean::ContainerPort| match asked {
            IntOrString::Int(number) => i32::from(port.container_port) == *number,
            IntOrString::String(name) => port.name == *name,
        };
        match ports.as_slice() {
            [one] if !lists(one) => Some(one.container_port),
            _ => None,
        }
    }

    fn wrong_port(
        &self,
        maker: Maker,
        (place, action): (&str, &str),
        (message, wanted): (String, u16),
    ) -> Trouble {
        let field = maker.field(&format!("{place}.{action}.port"));
        let message = format!("{message}; the container lists only port {wanted}");
        let pointer = maker.field(&format!(
            "containers/{}/{}/{action}/port",
            self.index, self.field
        ));
        let pointer = format!("/{}", pointer.replace('.', "/"));
        let namespace = &self.pod.metadata.namespace;
        let command =
            (!maker.is_pod()).then(|| replace(&maker.words(), namespace, &pointer, &wanted.into()));
        let text = match &command {
            Some(_) => format!("probe port {wanted}"),
            None => format!("make the pod anew with a probe of port {wanted}"),
        };
        Trouble {
            object: maker.object,
            field,
            message,
            mend: Mend { text, command },
        }
    }
}
