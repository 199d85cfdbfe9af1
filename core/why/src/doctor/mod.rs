//! What is wrong with a Service: the checklist that every guide walks.
//!
//! ```text
//! selector → pods → endpoints → ports → policy → access → address → names → affinity → kernel
//! ```
//!
//! Values in, findings out. Objects are read as the API server holds them, as
//! labels, ports and probes are nothing that an agent keeps; what becomes of
//! packets is read from the plan of each node and never decided again here.
//! A step whose cause was found by an earlier one says so and adds no finding:
//! one mistake is one finding.
//!
//! [`STEPS`] is the whole list, in its order; a check that comes later is a row of it.

mod access;
mod address;
mod affinity;
mod announced;
mod case;
mod endpoints;
mod finding;
mod json;
mod kernel;
#[cfg(test)]
mod laws;
mod names;
mod near;
mod pods;
mod policy;
mod ports;
mod probe;
mod selector;
#[cfg(test)]
mod testbed;
#[cfg(test)]
mod tests;

use portolan_api::lean;
use portolan_model::{Cluster, Problem};
use portolan_plan::NodePlan;

pub use announced::Announcers;
pub use finding::{Checked, Checkup, Finding, Mark, Mend, Severity, Step};
pub use near::nearest;

use case::Case;

/// All that a checkup looks at.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The pods of all namespaces.
    pub pods: &'a [lean::Pod],
    /// The Services of all namespaces.
    pub services: &'a [lean::Service],
    /// The EndpointSlices of all namespaces.
    pub slices: &'a [lean::EndpointSlice],
    /// The Deployments of all namespaces.
    pub deployments: &'a [lean::Deployment],
    /// The events of all namespaces.
    pub events: &'a [lean::Event],
    /// The facts that plans are made of.
    pub cluster: &'a Cluster,
    /// Why NetworkPolicies could not be read, if they could not.
    pub policies_unread: Option<&'a str>,
    /// What could not be used of the objects.
    pub problems: &'a [Problem],
    /// The plan of each node.
    pub plans: &'a [NodePlan],
    /// Who announces load balancers' addresses; none where there are none.
    pub announcers: Option<&'a Announcers>,
    /// What each node says of its kernel.
    pub kernels: &'a [Kernel],
    /// The cluster's domain, without a trailing dot.
    pub domain: &'a str,
}

/// A connection that was tried, to a port of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The port of the pod.
    pub knock: Knock,
    /// What came of it.
    pub answer: Answer,
}

/// A TCP port of a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Knock {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The port.
    pub port: u16,
}

/// What came of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Something accepted it.
    Accepted,
    /// Nothing listens there; the words of who tried.
    Refused(String),
    /// It could not be tried, or nobody can tell; why.
    Unknown(String),
}

/// What a node says of its kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The node.
    pub node: String,
    /// What it says.
    pub state: KernelState,
}

/// Whether a kernel holds the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelState {
    /// The node's agent says so, and when it was last sure (RFC 3339).
    Holds(String),
    /// The node's agent says that the kernel refuses, or that it is not ready.
    Fails(String),
    /// The node's agent does not answer; the words of who asked.
    Silent(String),
    /// Nobody could ask; why.
    NotAsked(String),
}

/// One row of the checklist: what it looks at, given what was found before it.
type Check = fn(&Case<'_>, &[Checked]) -> Checked;

/// The checklist, in the order in which a packet would meet its subjects.
const STEPS: [Check; 10] = [
    selector::check,
    pods::check,
    endpoints::check,
    ports::check,
    policy::check,
    access::check,
    address::check,
    names::check,
    affinity::check,
    kernel::check,
];

/// Examines one Service.
pub fn examine(seen: &Seen<'_>, service: &lean::Service, attempts: &[Attempt]) -> Checkup {
    let case = Case::new(seen, service, attempts);
    let mut steps = Vec::with_capacity(STEPS.len());
    for check in STEPS {
        let checked = check(&case, &steps);
        steps.push(checked);
    }
    Checkup {
        namespace: service.metadata.namespace.clone(),
        name: service.metadata.name.clone(),
        title: address::title(service),
        steps,
    }
}

/// The ports of pods at which a connection would tell more than the objects do.
pub fn worth_trying(seen: &Seen<'_>, service: &lean::Service) -> Vec<Knock> {
    ports::worth_trying(&Case::new(seen, service, &[]))
}
