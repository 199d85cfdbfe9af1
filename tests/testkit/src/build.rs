//! Facts from API objects, so that tests go through intake as the agent does.

use anyhow::{Context, Result, ensure};
use portolan_api::lean;
use portolan_model::{Fact, Problem, intake};
use serde_json::{Value, json};

/// A Service object as a fact, with its problems.
pub fn service(object: &Value) -> Result<(Fact, Vec<Problem>)> {
    let object: lean::Service = lean::view(object).context("not a Service")?;
    let (service, problems) = intake::service(&object);
    Ok((Fact::Service(service.into()), problems))
}

/// An EndpointSlice object as a fact, with its problems.
pub fn slice(object: &Value) -> Result<(Option<Fact>, Vec<Problem>)> {
    let object: lean::EndpointSlice = lean::view(object).context("not an EndpointSlice")?;
    let (slice, problems) = intake::slice(&object);
    Ok((slice.map(|slice| Fact::Slice(slice.into())), problems))
}

/// A Node object as a fact, with its problems.
pub fn node(object: &Value) -> Result<(Fact, Vec<Problem>)> {
    let object: lean::Node = lean::view(object).context("not a Node")?;
    let (node, problems) = intake::node(&object);
    Ok((Fact::Node(node.into()), problems))
}

/// A Namespace as a fact.
pub fn namespace(name: &str) -> Result<Fact> {
    let object: lean::Namespace = lean::view(&json!({"metadata": {"name": name}}))?;
    Ok(Fact::Namespace(intake::namespace(&object)))
}

/// A ServiceCIDR of these ranges as a fact, with its problems.
pub fn service_cidr(name: &str, ranges: &[String]) -> Result<(Fact, Vec<Problem>)> {
    let object = json!({"metadata": {"name": name}, "spec": {"cidrs": ranges}});
    let object: lean::ServiceCidr = lean::view(&object).context("not a ServiceCIDR")?;
    let (cidr, problems) = intake::service_cidr(&object);
    Ok((Fact::ServiceCidr(cidr.into()), problems))
}

/// A Pod of `namespace/name` with an address and a phase as a fact, with its problems.
pub fn pod(name: &str, words: &[&str]) -> Result<(Fact, Vec<Problem>)> {
    let (namespace, name) = name.split_once('/').context("namespace/name")?;
    let object = json!({
        "metadata": {"namespace": namespace, "name": name},
        "status": {"podIP": words.first(), "phase": words.get(1).unwrap_or(&"Running")},
    });
    let object: lean::PodFacts = lean::view(&object).context("not a Pod")?;
    let (pod, problems) = intake::pod(&object);
    Ok((Fact::Pod(pod.into()), problems))
}

/// The fact of an object that has no problem.
pub fn good((fact, problems): (Fact, Vec<Problem>)) -> Result<Fact> {
    ensure!(problems.is_empty(), "{problems:?}");
    Ok(fact)
}
