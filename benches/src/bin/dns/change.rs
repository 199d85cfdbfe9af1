//! From the text of a watch event to the answer that tells it: intake, plan, commit to
//! the kernel, zone, a datagram there and back, as the agent does them.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portolan_benches::cluster;
use portolan_benches::figures::{figure, millis, percentile, say};
use portolan_dns::{Name, Rtype, query};
use portolan_kernel::netns::NetNs;
use portolan_kernel::nft::Nft;
use portolan_model::Family;
use portolan_plan::renode;
use portolan_render::{nft, zone};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::world::{self, Served};

const CHANGES: usize = 2000;
/// The headless Services whose endpoints change.
const HEADLESS: usize = 500;

pub(crate) fn run(runtime: &Runtime) -> Result<()> {
    world::loopback(runtime)?;
    say(&format!(
        "{CHANGES} changed endpoints, each until an answer tells it"
    ));
    let mut facts = world::facts()?;
    for number in 0..HEADLESS {
        let mut service = cluster::service(Family::V4, number);
        service["spec"]["clusterIP"] = json!("None");
        service["spec"]["clusterIPs"] = json!(["None"]);
        facts.apply(cluster::service_change(service)?);
    }
    let view = world::view(&facts);
    let mut plan = portolan_plan::node(&facts, &view);
    let mut kernel = Nft::open(&NetNs::current()?)?;
    for batch in nft::start(&plan) {
        kernel.commit(&batch)?;
    }
    let mut zones = zone::image(&plan, 1);
    let served = Served::start(zones.clone())?;
    let client = UdpSocket::bind("127.0.0.1:0")?;
    client.set_read_timeout(Some(Duration::from_secs(10)))?;
    client.connect(served.address)?;
    let mut samples = Vec::with_capacity(CHANGES);
    for turn in 0..CHANGES {
        let number = turn % HEADLESS;
        let generation = turn / HEADLESS + 1;
        let event = serde_json::to_vec(&cluster::slice(Family::V4, number, generation))?;
        let label = portolan_plan::dashed(cluster::endpoint_ip(Family::V4, number, 0, generation));
        let name = Name::parse(&format!("{label}.svc-{number}.default.svc.cluster.local"))?;
        let asked = query(u16::try_from(turn % 65_536)?, &name, Rtype::A);
        let begin = Instant::now();
        let dirty = facts.apply(cluster::slice_change(&event)?);
        let touched = renode(&mut plan, &facts, &view, &dirty);
        kernel.commit(&nft::delta(&plan, &touched))?;
        zone::delta(&plan, &touched, &mut zones);
        served.zones.store(Arc::new(zones.clone()));
        client.send(&asked)?;
        let mut reply = [0; 512];
        let length = client.recv(&mut reply).context("an answer")?;
        samples.push(begin.elapsed());
        let answers = reply.get(6..8).filter(|_| length > 12);
        ensure!(answers == Some(&[0, 1]), "{name} is not answered yet");
    }
    figure(
        "change_visible_p50_ms",
        millis(percentile(&mut samples, 0.5)),
        "ms",
    );
    figure(
        "change_visible_p99_ms",
        millis(percentile(&mut samples, 0.99)),
        "ms",
    );
    Ok(())
}
