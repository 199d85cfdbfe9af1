//! A trace as programs read it.

use serde_json::{Value, json};

use crate::trace::{Candidate, Outcome, Trace};

impl Trace {
    /// The trace as one JSON object; absent values are null.
    pub fn json(&self) -> Value {
        let packet = &self.packet;
        let (verdict, reason) = match &self.outcome {
            Outcome::Forward(selection) => ("forward", Some(selection.to_string())),
            Outcome::Reject(reason) => ("reject", Some(reason.to_string())),
            Outcome::Drop(reason) => ("drop", Some(reason.to_string())),
            Outcome::Here(reason) => ("here", Some(reason.to_string())),
            Outcome::Pass(reason) => ("pass", reason.as_ref().map(ToString::to_string)),
        };
        let forwarded = matches!(self.outcome, Outcome::Forward(_));
        let service = self.service.as_ref().map(|found| {
            json!({
                "namespace": &*found.service.namespace,
                "name": &*found.service.name,
                "port": &*found.port_name,
                "frontend": found.frontend.map(|frontend| frontend.to_string()),
            })
        });
        json!({
            "node": &*self.node,
            "packet": {
                "source": packet.source.to_string(),
                "destination": packet.destination.to_string(),
                "protocol": packet.protocol.name(),
                "port": packet.port,
                "fromNode": packet.from_node,
            },
            "client": self.client.to_string(),
            "service": service,
            "algorithm": forwarded.then(|| self.algorithm.to_string()),
            "endpoints": self.endpoints.iter().map(candidate).collect::<Vec<_>>(),
            "verdict": verdict,
            "reason": reason,
        })
    }
}

fn candidate(candidate: &Candidate) -> Value {
    let (masqueraded, reason) = match &candidate.source {
        Ok(source) => (Some(source.is_masqueraded()), source.to_string()),
        Err(reason) => (None, reason.to_string()),
    };
    json!({
        "address": candidate.target.address.to_string(),
        "port": candidate.target.port,
        "pod": candidate.pod.as_deref(),
        "node": candidate.node.as_deref(),
        "usable": candidate.source.is_ok(),
        "weight": candidate.source.is_ok().then_some(candidate.weight),
        "reachable": candidate.drawn,
        "masqueraded": masqueraded,
        "reason": reason,
    })
}
