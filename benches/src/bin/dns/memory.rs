//! What a zone costs in memory beside the facts and the plan that it is made of, in a
//! process of its own.

use std::env;
use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context as _, Result};
use portolan_benches::cluster;
use portolan_benches::figures::{figure, memory_mb, say};
use portolan_model::{Cluster, Family};
use portolan_render::zone;
use serde_json::json;

/// Set for a process that is measured.
const ZONE: &str = "PORTOLAN_BENCH_ZONE";
/// Half of the Services have an address of their own, the other half is headless: each
/// of their pods has a name, and its address too.
const SERVICES: usize = 10_000;
const PODS: usize = 150_000;

/// Measures in another process.
pub(crate) fn run() -> Result<()> {
    say("the memory of a zone of 10 000 Services and 150 000 pods");
    let output = Command::new(env::current_exe()?).env(ZONE, "1").output()?;
    let text = String::from_utf8(output.stdout)?;
    let bytes: f64 = text.trim().parse().context("bytes of a zone")?;
    figure("zone_mb", bytes / 1e6, "MB");
    Ok(())
}

/// The work of a process that is measured; none if this is not one.
pub(crate) fn child() -> Option<Result<f64>> {
    env::var_os(ZONE)?;
    Some(build())
}

fn build() -> Result<f64> {
    portolan_kernel::memory::share_one_heap();
    let mut facts = Cluster::default();
    let headless = SERVICES / 2;
    let each = PODS / headless;
    for number in 0..SERVICES {
        let mut service = cluster::service(Family::V4, number);
        if number < headless {
            service["spec"]["clusterIP"] = json!("None");
            service["spec"]["clusterIPs"] = json!(["None"]);
            let address = |slot| {
                let index = number * each + slot;
                let per = cluster::ENDPOINTS;
                cluster::endpoint_ip(Family::V4, index / per, index % per, 0)
            };
            let addresses: Vec<IpAddr> = (0..each).map(address).collect();
            let ports = json!([{"name": "", "port": 8080, "protocol": "TCP"}]);
            let slice = cluster::slice_with(Family::V4, number, &addresses, ports);
            facts.apply(cluster::slice_change(&serde_json::to_vec(&slice)?)?);
        }
        facts.apply(cluster::service_change(service)?);
    }
    let plan = portolan_plan::node(&facts, &cluster::view(&facts));
    let pid = std::process::id();
    let before = memory_mb(pid)?;
    let zones = zone::image(&plan, 1);
    let after = memory_mb(pid)?;
    say(&format!(
        "{} names",
        zones.iter().map(portolan_dns::Zone::len).sum::<usize>()
    ));
    drop((facts, plan, zones));
    Ok((after - before) * 1e6)
}
