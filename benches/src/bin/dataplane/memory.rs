//! What a Service and an endpoint cost in memory: facts, plan and names, as an agent
//! keeps them. Measured in processes of their own, with few and many endpoints.

use std::env;
use std::process::Command;

use anyhow::{Context as _, Result};
use portolan_benches::cluster;
use portolan_benches::figures::{figure, memory_mb, say};
use portolan_model::{Cluster, Family};
use portolan_render::zone;
use serde_json::json;
use std::net::IpAddr;

/// What such a process is to build: Services and endpoints of each.
const STATE: &str = "PORTOLAN_BENCH_STATE";
const SERVICES: usize = 10_000;
const FEW: usize = 1;
const MANY: usize = 9;

/// Measures, unless this process is one of those that are measured.
pub(crate) fn run() -> Result<()> {
    say("bytes per Service and per endpoint");
    let few = measured(FEW)?;
    let many = measured(MANY)?;
    let services = SERVICES as f64;
    let endpoint = (many - few) / services / (MANY - FEW) as f64;
    figure("state_per_endpoint_bytes", endpoint, "bytes");
    let service = few / services - endpoint * FEW as f64;
    figure("state_per_service_bytes", service, "bytes");
    Ok(())
}

/// What a process of its own says.
fn measured(endpoints: usize) -> Result<f64> {
    let output = Command::new(env::current_exe()?)
        .env(STATE, endpoints.to_string())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    text.trim().parse().context("bytes of a state")
}

/// The work of a process that is measured; none if this is not one.
pub(crate) fn child() -> Option<Result<f64>> {
    let endpoints = env::var(STATE).ok()?.parse().ok()?;
    Some(build(endpoints))
}

/// Builds the state object by object, and says how many bytes it takes.
fn build(endpoints: usize) -> Result<f64> {
    let pid = std::process::id();
    let mut facts = Cluster::default();
    // Everything that is there once is there.
    add(&mut facts, SERVICES, endpoints)?;
    let before = memory_mb(pid)?;
    for number in 0..SERVICES {
        add(&mut facts, number, endpoints)?;
    }
    let plan = portolan_plan::node(&facts, &cluster::view(&facts));
    let zones = zone::image(&plan, 1);
    let bytes = (memory_mb(pid)? - before) * 1e6;
    drop((facts, plan, zones));
    Ok(bytes)
}

fn add(facts: &mut Cluster, number: usize, endpoints: usize) -> Result<()> {
    let service = cluster::service(Family::V4, number);
    facts.apply(cluster::service_change(service)?);
    // Two numbers for each Service, so that many endpoints are all different.
    let address = |slot| cluster::endpoint_ip(Family::V4, number * 2, slot, 0);
    let addresses: Vec<IpAddr> = (0..endpoints).map(address).collect();
    let ports = json!([{"name": "", "port": 8080, "protocol": "TCP"}]);
    let slice = cluster::slice_with(Family::V4, number, &addresses, ports);
    facts.apply(cluster::slice_change(&serde_json::to_vec(&slice)?)?);
    Ok(())
}
