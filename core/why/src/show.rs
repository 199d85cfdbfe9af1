//! A trace as people read it.

use std::fmt;
use std::net::SocketAddr;

use portolan_model::Algorithm;
use portolan_plan::Place;

use crate::trace::{Candidate, Client, Outcome, Packet, Source, Trace};

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            destination,
            protocol,
            port,
            ..
        } = self;
        write!(
            f,
            "{source} → {}/{protocol}",
            SocketAddr::new(*destination, *port)
        )
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pod => "a pod",
            Self::Node => "the node itself",
            Self::Outside => "neither a pod nor this node",
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kept => "sees the client's address",
            Self::Returned => {
                "sees the client's address, and its node sends answers back through this one"
            }
            Self::NotReturned => {
                "sees the node's address, as answers would not come back through this node"
            }
            Self::NotAPod => "sees the node's address, as the client is no pod",
            Self::FromNode => "sees the node's address, as the node is the client",
            Self::Always => "sees the node's address, as for every client here",
            Self::Hairpin => "sees the node's address, as it is the client itself",
        })
    }
}

/// In one line: the verdict and its reason.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forward(selection) => write!(f, "forward to an endpoint that is {selection}"),
            Self::Reject(reason) => write!(f, "reject: {reason}"),
            Self::Drop(reason) => write!(f, "drop: {reason}"),
            Self::Here(reason) => write!(f, "deliver here: {reason}"),
            Self::Pass(Some(reason)) => write!(f, "pass on untouched: {reason}"),
            Self::Pass(None) => {
                f.write_str("pass on untouched: no Service has this address and port")
            }
        }
    }
}

/// Labelled lines, in the order of the packet's way.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(f, "packet", &format!("{} on {}", self.packet, self.node))?;
        line(f, "client", &self.client.to_string())?;
        if let Some(service) = self.service_line() {
            line(f, "service", &service)?;
        }
        let usable = self
            .endpoints
            .iter()
            .filter(|candidate| candidate.source.is_ok())
            .count();
        if !self.endpoints.is_empty() {
            line(
                f,
                "endpoints",
                &format!("{usable} of {} usable", self.endpoints.len()),
            )?;
        }
        let source = self.common_source();
        self.endpoint_lines(f, source.is_some())?;
        if let Some(source) = source {
            line(f, "source", &format!("the endpoint {source}"))?;
        }
        line(f, "verdict", &self.verdict_line(usable))
    }
}

fn line(f: &mut fmt::Formatter<'_>, label: &str, text: &str) -> fmt::Result {
    writeln!(f, "{}", format!("{label:<10} {text}").trim_end())
}

impl Trace {
    /// What all usable endpoints see, if it is the same.
    fn common_source(&self) -> Option<Source> {
        let mut sources = self
            .endpoints
            .iter()
            .filter_map(|candidate| candidate.source.as_ref().ok());
        let first = sources.next()?;
        sources.all(|source| source == first).then_some(*first)
    }

    fn endpoint_lines(&self, f: &mut fmt::Formatter<'_>, quiet: bool) -> fmt::Result {
        let rows: Vec<[String; 3]> = self
            .endpoints
            .iter()
            .map(|candidate| candidate.columns(quiet, self.is_weighted()))
            .collect();
        let width = |column: usize| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or_default()
        };
        let (first, second) = (width(0), width(1));
        for [place, who, note] in &rows {
            line(f, "", &format!("{place:<first$}  {who:<second$}  {note}"))?;
        }
        Ok(())
    }

    fn service_line(&self) -> Option<String> {
        let found = self.service.as_ref()?;
        let service = &found.service;
        let address = self.packet.destination;
        let Some(frontend) = found.frontend else {
            return Some(format!("{service} has the address {address}"));
        };
        let port = match &*found.port_name {
            "" => String::new(),
            name => format!(" port {name:?}"),
        };
        let place = SocketAddr::new(address, frontend.port);
        let kind = match frontend.place {
            Place::ClusterIp(_) => "ClusterIP",
            Place::External(_) => "external address",
            Place::NodePort(_) => "NodePort",
        };
        Some(format!(
            "{service}{port} at {kind} {place}/{}",
            frontend.protocol
        ))
    }

    /// Whether weights make a difference.
    fn is_weighted(&self) -> bool {
        let mut usable = self.endpoints.iter().filter(|one| one.source.is_ok());
        usable.any(|candidate| candidate.weight != 1)
    }

    /// How one of several endpoints is chosen.
    fn chance(&self) -> String {
        let weighted = self.is_weighted();
        match self.algorithm {
            Algorithm::Random if weighted => "each with the chance of its weight".to_owned(),
            Algorithm::Random => "each with the same chance".to_owned(),
            Algorithm::RoundRobin if weighted => {
                "in turn (round-robin), each as often as its weight".to_owned()
            }
            Algorithm::RoundRobin => "in turn (round-robin)".to_owned(),
            Algorithm::Maglev => {
                let chosen = self.reachable().next();
                let chosen = chosen.map(|candidate| candidate.target.to_string());
                format!(
                    "{} by the client's address (maglev)",
                    chosen.unwrap_or_default()
                )
            }
        }
    }

    fn verdict_line(&self, usable: usize) -> String {
        match &self.outcome {
            Outcome::Forward(selection) if usable == 1 => {
                format!("forward to the one endpoint that is {selection}")
            }
            Outcome::Forward(selection) => {
                let chance = match self.affinity {
                    None => self.chance(),
                    Some(seconds) => format!(
                        "the one that the client had in the last {seconds} s, else {}",
                        self.chance()
                    ),
                };
                format!("forward to one of {usable} endpoints that are {selection}, {chance}")
            }
            Outcome::Reject(_) | Outcome::Drop(_) | Outcome::Here(_) | Outcome::Pass(_) => {
                self.outcome.to_string()
            }
        }
    }
}

impl Candidate {
    /// Where, who, and what there is to say.
    fn columns(&self, quiet: bool, weighted: bool) -> [String; 3] {
        let mark = if self.source.is_ok() { '✓' } else { '✗' };
        let who = match (&self.pod, &self.node) {
            (Some(pod), Some(node)) => format!("{pod} on {node}"),
            (Some(pod), None) => pod.to_string(),
            (None, Some(node)) => format!("on {node}"),
            (None, None) => String::new(),
        };
        let note = match &self.source {
            Ok(_) if quiet => String::new(),
            Ok(source) => source.to_string(),
            Err(reason) => reason.to_string(),
        };
        let weight = (weighted && self.source.is_ok()).then(|| format!("weight {}", self.weight));
        let notes: Vec<String> = weight.into_iter().chain([note]).collect();
        let note = notes.join("  ").trim_end().to_owned();
        [format!("{mark} {}", self.target), who, note]
    }
}
