//! A probe of a container's spec, defaults applied and ports resolved.

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::Kind;

/// What to ask, how often, and how many answers make a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// What to ask.
    pub handler: Handler,
    /// `initialDelaySeconds`
    pub initial_delay: Duration,
    /// `periodSeconds`
    pub period: Duration,
    /// `timeoutSeconds`
    pub timeout: Duration,
    /// `successThreshold`
    pub success_threshold: i32,
    /// `failureThreshold`
    pub failure_threshold: i32,
    /// `terminationGracePeriodSeconds` of the probe itself.
    pub grace: Option<Duration>,
}

/// How to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handler {
    /// A status from 200 to 399 is success.
    Http {
        /// Whether to speak TLS; no certificate is verified.
        https: bool,
        /// Host instead of the pod's address.
        host: Option<String>,
        /// The port.
        port: u16,
        /// Path and query.
        path: String,
        /// Headers besides the usual ones.
        headers: Vec<(String, String)>,
    },
    /// A connection is success.
    Tcp {
        /// Host instead of the pod's address.
        host: Option<String>,
        /// The port.
        port: u16,
    },
    /// Exit code 0 is success.
    Exec {
        /// What to run in the container.
        command: Vec<String>,
    },
    /// `grpc.health.v1.Health/Check` answering SERVING is success.
    Grpc {
        /// The port.
        port: u16,
        /// Whose health.
        service: String,
    },
    /// Never succeeds: the spec asks for something that cannot be.
    Impossible {
        /// What.
        message: String,
    },
}

impl Spec {
    /// The probe of that kind that `container` has, if any.
    pub fn of(container: &Container, kind: Kind) -> Option<Self> {
        let probe = match kind {
            Kind::Startup => container.startup_probe.as_ref(),
            Kind::Readiness => container.readiness_probe.as_ref(),
            Kind::Liveness => container.liveness_probe.as_ref(),
        }?;
        let seconds = |value: Option<i32>, default: u64| {
            let given = value.and_then(|value| u64::try_from(value).ok());
            Duration::from_secs(given.filter(|value| *value > 0).unwrap_or(default))
        };
        let threshold =
            |value: Option<i32>, default: i32| value.filter(|n| *n > 0).unwrap_or(default);
        let grace = probe.termination_grace_period_seconds;
        Some(Self {
            handler: Handler::of(container, probe),
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            success_threshold: threshold(probe.success_threshold, 1),
            failure_threshold: threshold(probe.failure_threshold, 3),
            grace: grace
                .and_then(|s| u64::try_from(s).ok())
                .map(Duration::from_secs),
        })
    }
}

impl Handler {
    fn of(container: &Container, probe: &Probe) -> Self {
        if let Some(get) = &probe.http_get {
            return Self::http(container, get);
        }
        if let Some(tcp) = &probe.tcp_socket {
            return match port(container, &tcp.port) {
                Ok(port) => Self::Tcp {
                    host: tcp.host.clone(),
                    port,
                },
                Err(message) => Self::Impossible { message },
            };
        }
        if let Some(grpc) = &probe.grpc {
            return match port(container, &IntOrString::Int(grpc.port)) {
                Ok(port) => Self::Grpc {
                    port,
                    service: grpc.service.clone().unwrap_or_default(),
                },
                Err(message) => Self::Impossible { message },
            };
        }
        match &probe.exec {
            Some(exec) => Self::Exec {
                command: exec.command.clone().unwrap_or_default(),
            },
            None => Self::Impossible {
                message: "missing probe handler".to_owned(),
            },
        }
    }

    /// The request of an `httpGet`, of a probe or a `preStop` hook.
    pub fn http(container: &Container, get: &HTTPGetAction) -> Self {
        let port = match port(container, &get.port) {
            Ok(port) => port,
            Err(message) => return Self::Impossible { message },
        };
        let path = get.path.clone().unwrap_or_default();
        let headers = get.http_headers.iter().flatten();
        Self::Http {
            https: get.scheme.as_deref() == Some("HTTPS"),
            host: get.host.clone().filter(|host| !host.is_empty()),
            port,
            path: if path.starts_with('/') {
                path
            } else {
                format!("/{path}")
            },
            headers: headers.map(|h| (h.name.clone(), h.value.clone())).collect(),
        }
    }
}

/// A port given by number, or by the name of one that the container declares.
fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let declared = |name: &str| {
        let mut ports = container.ports.iter().flatten();
        ports
            .find(|port| port.name.as_deref() == Some(name))
            .map(|port| port.container_port)
    };
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => declared(name).or_else(|| name.parse().ok()),
    };
    match (number.map(u16::try_from), port) {
        (Some(Ok(number)), _) if number > 0 => Ok(number),
        (None, IntOrString::String(name)) => Err(format!(
            "couldn't find port {name:?} in container {:?}",
            container.name
        )),
        (Some(_) | None, _) => Err(format!("invalid port number: {number:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(yaml: &str) -> Container {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn defaults_are_those_of_the_api() {
        let container = container("{name: web, readinessProbe: {httpGet: {port: 80}}}");
        let spec = Spec::of(&container, Kind::Readiness).unwrap();
        assert_eq!(
            spec,
            Spec {
                handler: Handler::Http {
                    https: false,
                    host: None,
                    port: 80,
                    path: "/".into(),
                    headers: vec![],
                },
                initial_delay: Duration::ZERO,
                period: Duration::from_secs(10),
                timeout: Duration::from_secs(1),
                success_threshold: 1,
                failure_threshold: 3,
                grace: None,
            }
        );
        assert_eq!(Spec::of(&container, Kind::Liveness), None);
    }

    #[test]
    fn ports_are_found_by_name() {
        let text = "{name: web, ports: [{name: http, containerPort: 8080}], \
                     livenessProbe: {tcpSocket: {port: PORT}, periodSeconds: 1}}";
        for (port, handler) in [
            (
                "http",
                Handler::Tcp {
                    host: None,
                    port: 8080,
                },
            ),
            (
                "9",
                Handler::Tcp {
                    host: None,
                    port: 9,
                },
            ),
            (
                "\"81\"",
                Handler::Tcp {
                    host: None,
                    port: 81,
                },
            ),
            (
                "metrics",
                Handler::Impossible {
                    message: "couldn't find port \"metrics\" in container \"web\"".into(),
                },
            ),
            (
                "70000",
                Handler::Impossible {
                    message: "invalid port number: Some(70000)".into(),
                },
            ),
        ] {
            let spec = Spec::of(&container(&text.replace("PORT", port)), Kind::Liveness).unwrap();
            assert_eq!(spec.handler, handler, "{port}");
        }
    }
}
