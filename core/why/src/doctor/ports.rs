//! Step 4: whether the Service's ports lead to ports of the pods.

use std::collections::BTreeSet;

use portolan_api::lean::{self, IntOrString};
use portolan_model::Protocol;
use serde_json::{Value, json};

use super::case::{Case, Kind, count, is_ill, listed};
use super::finding::{Checked, Finding, Severity, Step};
use super::near::nearest;
use super::{Answer, Knock};

/// At most so many pods are tried for one port: they run the same.
const TRIED: usize = 2;

/// One port of the Service, by its place in the list.
struct Port<'a> {
    index: usize,
    port: &'a lean::ServicePort,
    protocol: Protocol,
}

impl Port<'_> {
    fn field(&self, leaf: &str) -> String {
        format!("spec.ports[{}].{leaf}", self.index)
    }

    fn pointer(&self, leaf: &str) -> String {
        format!("/spec/ports/{}/{leaf}", self.index)
    }
}

pub(super) fn check(case: &Case<'_>, before: &[Checked]) -> Checked {
    let findings = match case.kind() {
        Kind::ExternalName => {
            return Checked::skipped(Step::Ports, "an external name translates none");
        }
        Kind::OnNodes => return Checked::skipped(Step::Ports, "each node answers itself"),
        Kind::Selecting if case.selected.is_empty() => {
            return Checked::skipped(Step::Ports, "no pod is selected");
        }
        Kind::Selecting => ports(case).flat_map(|port| of_port(case, &port)).collect(),
        Kind::Written if is_ill(before) => {
            return Checked::skipped(Step::Ports, "there is no endpoint");
        }
        Kind::Written => ports(case)
            .filter_map(|port| unlisted_in_slices(case, &port))
            .collect(),
    };
    Checked::ok(Step::Ports, summary(case)).with(findings)
}

/// `http 80/TCP → 8080 (a connection was accepted)`.
fn summary(case: &Case<'_>) -> String {
    let said = ports(case).map(|port| {
        let name = if port.port.name.is_empty() {
            String::new()
        } else {
            format!("{} ", port.port.name)
        };
        let protocol = port.protocol.to_string().to_uppercase();
        let head = format!(
            "{name}{}/{protocol} → {}",
            port.port.port,
            target(port.port)
        );
        match evidence(case, &port) {
            Some(evidence) => format!("{head} ({evidence})"),
            None => head,
        }
    });
    let said: Vec<String> = said.collect();
    if said.is_empty() {
        "the Service lists none".to_owned()
    } else {
        listed(&said)
    }
}

/// How it is known that something listens, if it is.
fn evidence(case: &Case<'_>, port: &Port<'_>) -> Option<&'static str> {
    let pods: Vec<(&lean::Pod, u16)> = case
        .ready()
        .filter_map(|pod| Some((pod, number(pod, port)?)))
        .collect();
    let accepted = |(pod, number): &(&lean::Pod, u16)| {
        matches!(answer(case, pod, *number), Some(Answer::Accepted))
    };
    if pods.iter().any(accepted) {
        return Some("a connection was accepted");
    }
    let probed = |(pod, number): &(&lean::Pod, u16)| is_probed(pod, *number);
    (port.protocol == Protocol::Tcp && pods.iter().any(probed))
        .then_some("a readiness probe passes there")
}

fn ports<'c>(case: &'c Case<'_>) -> impl Iterator<Item = Port<'c>> {
    let all = case.service.spec.ports.iter().enumerate();
    all.filter_map(|(index, port)| {
        let protocol = Protocol::parse(&port.protocol)?;
        Some(Port {
            index,
            port,
            protocol,
        })
    })
}

/// The number or name that a port leads to.
fn target(port: &lean::ServicePort) -> String {
    match &port.target_port {
        Some(IntOrString::String(name)) => name.clone(),
        Some(IntOrString::Int(number)) if *number != 0 => number.to_string(),
        Some(IntOrString::Int(_)) | None => port.port.to_string(),
    }
}

/// The ports that a pod's containers list, with the containers' names. Init
/// containers that stay count (KEP-753).
fn listed_by(pod: &lean::Pod) -> impl Iterator<Item = (&str, &lean::ContainerPort)> {
    let sidecars = pod.spec.init_containers.iter();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let all = pod.spec.containers.iter().chain(sidecars);
    all.flat_map(|container| {
        container
            .ports
            .iter()
            .map(|port| (container.name.as_str(), port))
    })
}

fn speaks(port: &lean::ContainerPort, protocol: Protocol) -> bool {
    Protocol::parse(&port.protocol) == Some(protocol)
}

/// The number that a port has at a pod; none where no container lists its name.
fn number(pod: &lean::Pod, port: &Port<'_>) -> Option<u16> {
    match &port.port.target_port {
        Some(IntOrString::String(name)) => listed_by(pod)
            .find(|(_, listed)| listed.name == *name && speaks(listed, port.protocol))
            .map(|(_, listed)| listed.container_port),
        Some(IntOrString::Int(number)) if *number != 0 => u16::try_from(*number).ok(),
        Some(IntOrString::Int(_)) | None => Some(port.port.port),
    }
}

fn answer<'a>(case: &Case<'a>, pod: &lean::Pod, port: u16) -> Option<&'a Answer> {
    let knock = knock(pod, port);
    let attempt = case
        .attempts
        .iter()
        .find(|attempt| attempt.knock == knock)?;
    Some(&attempt.answer)
}

fn knock(pod: &lean::Pod, port: u16) -> Knock {
    Knock {
        namespace: pod.metadata.namespace.clone(),
        pod: pod.metadata.name.clone(),
        port,
    }
}

/// Whether a pod is ready because a probe got through to this very port.
fn is_probed(pod: &lean::Pod, number: u16) -> bool {
    let probed = |container: &lean::Container| {
        let probe = container.readiness_probe.as_ref()?;
        let at = probe
            .http_get
            .as_ref()
            .or(probe.tcp_socket.as_ref())
            .or(probe.grpc.as_ref())?;
        match at.port.as_ref()? {
            IntOrString::Int(port) => u16::try_from(*port).ok(),
            IntOrString::String(name) => {
                let mut ports = container.ports.iter();
                ports
                    .find(|port| port.name == *name)
                    .map(|port| port.container_port)
            }
        }
    };
    pod.is_ready()
        && pod
            .spec
            .containers
            .iter()
            .any(|c| probed(c) == Some(number))
}

/// Where trying a connection would tell something.
pub(super) fn worth_trying(case: &Case<'_>) -> Vec<Knock> {
    let mut knocks = BTreeSet::new();
    if case.kind() != Kind::Selecting {
        return Vec::new();
    }
    for port in ports(case).filter(|port| port.protocol == Protocol::Tcp) {
        let pods = case
            .ready()
            .filter_map(|pod| Some((pod, number(pod, &port)?)));
        let unknown = pods.filter(|(pod, number)| *number != 0 && !is_probed(pod, *number));
        knocks.extend(unknown.take(TRIED).map(|(pod, number)| knock(pod, number)));
    }
    knocks.into_iter().collect()
}

fn of_port(case: &Case<'_>, port: &Port<'_>) -> Vec<Finding> {
    match &port.port.target_port {
        Some(IntOrString::String(name)) => match unnamed(case, port, name) {
            Some(finding) => vec![finding],
            None => refused(case, port).into_iter().collect(),
        },
        Some(IntOrString::Int(_)) | None => refused(case, port)
            .or_else(|| unlisted(case, port))
            .into_iter()
            .collect(),
    }
}

/// A named port that some pods do not list.
fn unnamed(case: &Case<'_>, port: &Port<'_>, name: &str) -> Option<Finding> {
    let without: Vec<&lean::Pod> = case
        .selected
        .iter()
        .copied()
        .filter(|pod| number(pod, port).is_none())
        .collect();
    let first = without.first()?;
    let severity = if without.len() == case.selected.len() {
        Severity::Fault
    } else {
        Severity::Warning
    };
    let of = match (without.len(), case.selected.len()) {
        (1, 1) => format!("pod/{}", first.metadata.name),
        (some, all) if some == all => format!("the {}", count(all, "pod")),
        (some, all) => format!("{some} of the {}", count(all, "pod")),
    };
    let protocol = port.protocol.to_string().to_uppercase();
    let head = format!("no container of {of} has a port named {name:?} for {protocol}");
    if let Some((container, other)) = listed_by(first).find(|(_, listed)| listed.name == name) {
        let spoken = if other.protocol.is_empty() {
            "TCP"
        } else {
            &other.protocol
        };
        let message = format!(
            "{head}; container {container} names {spoken} port {} so",
            other.container_port
        );
        let command = case.replace(&port.pointer("protocol"), &json!(spoken));
        let finding = case.finding(severity, port.field("protocol"), message);
        return Some(finding.mended(format!("make the Service's port {spoken}"), Some(command)));
    }
    let (rest, pointed) = meant_by(first, port, name);
    let message = format!("{head}; {rest}");
    let finding = case.finding(severity, port.field("targetPort"), message);
    Some(match pointed {
        Some(target) => {
            let command = case.replace(&port.pointer("targetPort"), &target);
            let text = format!(
                "lead to {}",
                target
                    .as_str()
                    .map_or_else(|| format!("the number {target}"), str::to_owned)
            );
            finding.mended(text, Some(command))
        }
        None => finding.mended(
            "lead to a number, or give the container's port that name",
            None,
        ),
    })
}

/// What a pod has in place of a named port, and the target that was meant, if
/// only one can be.
fn meant_by(pod: &lean::Pod, port: &Port<'_>, name: &str) -> (String, Option<Value>) {
    let fitting: Vec<(&str, &lean::ContainerPort)> = listed_by(pod)
        .filter(|(_, listed)| speaks(listed, port.protocol))
        .collect();
    let named = fitting.iter().filter(|(_, listed)| !listed.name.is_empty());
    let named: Vec<(&str, &lean::ContainerPort)> = named.copied().collect();
    let names = named.iter().map(|(_, listed)| listed.name.as_str());
    let meant = nearest(name, names).or(match named.as_slice() {
        [(_, only)] => Some(only.name.as_str()),
        _ => None,
    });
    if let Some((container, listed)) = named
        .iter()
        .find(|(_, listed)| Some(listed.name.as_str()) == meant)
    {
        let number = listed.container_port;
        let said = format!(
            "container {container} names its port {number} {:?}",
            listed.name
        );
        return (said, Some(json!(listed.name)));
    }
    match fitting.as_slice() {
        [(container, only)] => {
            let number = only.container_port;
            let said = format!("container {container} lists port {number} without a name");
            (said, Some(json!(number)))
        }
        _ => (ports_of(pod), None),
    }
}

/// What a pod's containers list, in words.
fn ports_of(pod: &lean::Pod) -> String {
    let ports: Vec<String> = listed_by(pod)
        .map(|(container, port)| {
            let spoken = if port.protocol.is_empty() {
                "TCP"
            } else {
                &port.protocol
            };
            let name = if port.name.is_empty() {
                String::new()
            } else {
                format!(" {:?}", port.name)
            };
            format!(
                "container {container} lists port {}/{spoken}{name}",
                port.container_port
            )
        })
        .collect();
    if ports.is_empty() {
        "no container lists a port".to_owned()
    } else {
        listed(&ports)
    }
}

/// A port at which a connection was refused.
fn refused(case: &Case<'_>, port: &Port<'_>) -> Option<Finding> {
    let ready: Vec<&lean::Pod> = case.ready().collect();
    let tried = ready.iter().filter_map(|pod| {
        let number = number(pod, port)?;
        Some((*pod, number, answer(case, pod, number)?))
    });
    let tried: Vec<(&lean::Pod, u16, &Answer)> = tried.collect();
    let (pod, number, words) = tried
        .iter()
        .find_map(|(pod, number, answer)| match answer {
            Answer::Refused(words) => Some((pod, *number, words)),
            Answer::Accepted | Answer::Unknown(_) => None,
        })?;
    let elsewhere = tried
        .iter()
        .any(|(_, _, answer)| **answer == Answer::Accepted);
    let severity = if elsewhere {
        Severity::Warning
    } else {
        Severity::Fault
    };
    let others: Vec<u16> = listed_by(pod)
        .filter(|(_, listed)| speaks(listed, port.protocol) && listed.container_port != number)
        .map(|(_, listed)| listed.container_port)
        .collect();
    let lists_it = listed_by(pod).any(|(_, listed)| listed.container_port == number);
    let head = format!(
        "nothing listens at port {number} of pod/{}: {words}",
        pod.metadata.name
    );
    let listen =
        format!("make the program listen at port {number} of every address, not only of 127.0.0.1");
    let field = port.field("targetPort");
    if lists_it {
        let message = format!("{head}, although a container lists that port");
        return Some(case.finding(severity, field, message).mended(listen, None));
    }
    let message = format!("{head}; {}", ports_of(pod));
    let finding = case.finding(severity, field, message);
    Some(match others.as_slice() {
        [only] => {
            let command = case.replace(&port.pointer("targetPort"), &json!(only));
            finding.mended(format!("lead to port {only}"), Some(command))
        }
        _ => finding.mended(
            format!("lead to the port at which the program listens, or {listen}"),
            None,
        ),
    })
}

/// A number that no container lists, and of which nothing better is known.
fn unlisted(case: &Case<'_>, port: &Port<'_>) -> Option<Finding> {
    let first = *case.selected.first()?;
    let number = number(first, port)?;
    // Lists are only information: without any there is nothing to compare with.
    if listed_by(first).next().is_none() || evidence(case, port).is_some() {
        return None;
    }
    let mut listed = listed_by(first);
    if listed.any(|(_, listed)| listed.container_port == number && speaks(listed, port.protocol)) {
        return None;
    }
    let protocol = port.protocol.to_string().to_uppercase();
    let untried = case
        .ready()
        .find_map(|pod| match answer(case, pod, number) {
            Some(Answer::Unknown(why)) => Some(format!("a connection could not be tried: {why}")),
            _ => None,
        });
    let untried = untried.unwrap_or_else(|| "no connection was tried".to_owned());
    let message = format!(
        "no container of pod/{} lists port {number}/{protocol}; {}; it may listen there all the same, {untried}",
        first.metadata.name,
        ports_of(first)
    );
    let others: Vec<u16> = listed_by(first)
        .filter(|(_, l)| speaks(l, port.protocol))
        .map(|(_, l)| l.container_port)
        .collect();
    let finding = case.finding(Severity::Warning, port.field("targetPort"), message);
    Some(match others.as_slice() {
        [only] => {
            let command = case.replace(&port.pointer("targetPort"), &json!(only));
            finding.mended(format!("lead to port {only}"), Some(command))
        }
        _ => finding.mended("lead to the port at which the program listens", None),
    })
}

/// A port whose name none of the written EndpointSlices has: endpoints are
/// found by the port's name, not by its number.
fn unlisted_in_slices(case: &Case<'_>, port: &Port<'_>) -> Option<Finding> {
    if case.slices.iter().all(|slice| slice.endpoints.is_empty()) {
        return None;
    }
    let fits = |listed: &&lean::EndpointPort| {
        listed.name.as_deref().unwrap_or_default() == port.port.name
            && Protocol::parse(listed.protocol.as_deref().unwrap_or_default())
                == Some(port.protocol)
    };
    let all: Vec<&lean::EndpointPort> = case.slices.iter().flat_map(|slice| &slice.ports).collect();
    if all.iter().any(fits) {
        return None;
    }
    let have = all.iter().map(|listed| {
        let number = listed
            .port
            .map_or_else(|| "any".to_owned(), |port| port.to_string());
        format!(
            "{:?} ({number}/{})",
            listed.name.as_deref().unwrap_or_default(),
            listed.protocol.as_deref().unwrap_or("TCP")
        )
    });
    let mut have: Vec<String> = have.collect();
    have.sort();
    have.dedup();
    let protocol = port.protocol.to_string().to_uppercase();
    let message = format!(
        "no EndpointSlice has a port named {:?} for {protocol}; the names there are {}",
        port.port.name,
        listed(&have)
    );
    let text = "give the port the same name in the Service and in the EndpointSlice (or Endpoints)";
    let finding = case.finding(Severity::Fault, port.field("name"), message);
    Some(finding.mended(text, None))
}
