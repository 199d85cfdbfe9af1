//! Packets through a Service against straight to the pod, with few and many
//! Services present.
//!
//! Both ways cross the same namespaces and the same hooks. Rounds alternate, and the
//! ratio is the median of the ratios of neighbouring rounds: what the machine does
//! beside hits both.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use portolan_benches::cluster;
use portolan_benches::figures::{alternate, figure, median, percentile, say};
use portolan_benches::talk::{self, Caller, Seen};
use portolan_benches::wires::{self, Wires};
use portolan_kernel::netns::NetNs;
use portolan_model::{Cluster, Family};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::kernel::Programmed;

/// How many Services are present.
const PRESENT: [usize; 3] = [10, 10_000, 50_000];
/// At this size figures carry no size in their name.
const PLAIN: usize = 10_000;

const ROUNDS: usize = 40;
const CONNECTS: u64 = 200;
const STREAM_ROUNDS: usize = 16;
const STREAM_TIME: Duration = Duration::from_millis(80);
const DATAGRAM_ROUNDS: usize = 30;
const DATAGRAMS: u64 = 4000;

/// The ports of the Service; those of the pod are `talk`'s.
const CONNECT: u16 = 80;
const SINK: u16 = 81;
const DATAGRAM: u16 = 82;

/// Every size in both families.
pub(crate) fn run(runtime: &Runtime) -> Result<()> {
    for services in PRESENT {
        for family in Family::BOTH {
            say(&format!("packets, {family}, {services} Services present"));
            let wires = runtime.block_on(Wires::lay())?;
            let node = Programmed::new(&wires.node, with_pod(family, services)?)?;
            let seen = talk::serve(&wires.pod)?;
            measure(&wires.client, family, services, &seen)?;
            drop(node);
        }
    }
    Ok(())
}

/// So many Services, the first of which leads to the pod.
fn with_pod(family: Family, services: usize) -> Result<Cluster> {
    let mut facts = cluster::facts(family, services)?;
    let port = |name: &str, port: u16, protocol: &str| json!({"name": name, "port": port, "protocol": protocol});
    let front = json!([
        port("connect", CONNECT, "TCP"),
        port("sink", SINK, "TCP"),
        port("datagrams", DATAGRAM, "UDP"),
    ]);
    let back = json!([
        port("connect", talk::CONNECT, "TCP"),
        port("sink", talk::SINK, "TCP"),
        port("datagrams", talk::DATAGRAMS, "UDP"),
    ]);
    facts.apply(cluster::service_change(cluster::service_with(
        family, 0, front,
    ))?);
    let slice = cluster::slice_with(family, 0, &wires::pods(family), back);
    facts.apply(cluster::slice_change(&serde_json::to_vec(&slice)?)?);
    Ok(facts)
}

/// Two ways to the pod, each with client addresses of its own: the same client port
/// on both would be one tuple behind the translation.
struct Ways {
    pod: std::net::IpAddr,
    service: std::net::IpAddr,
    straight: Caller,
    through: Caller,
}

impl Ways {
    fn new(family: Family) -> Result<Self> {
        let clients = wires::clients(family);
        let (some, others) = clients.split_at(clients.len() / 2);
        Ok(Self {
            pod: *wires::pods(family).first().context("a pod")?,
            service: cluster::service_ip(family, 0),
            straight: Caller::new(some),
            through: Caller::new(others),
        })
    }

    /// Where a pod's port and a Service's port are.
    fn ends(&self, pod: u16, service: u16) -> (SocketAddr, SocketAddr) {
        (
            SocketAddr::new(self.pod, pod),
            SocketAddr::new(self.service, service),
        )
    }
}

fn measure(client: &NetNs, family: Family, services: usize, seen: &Seen) -> Result<()> {
    let mut ways = Ways::new(family)?;
    client.run(move || {
        connects(&mut ways, family, services, seen)?;
        streams(&mut ways, family, services)?;
        datagrams(&mut ways, family, services, seen)
    })?
}

fn connects(ways: &mut Ways, family: Family, services: usize, seen: &Seen) -> Result<()> {
    let (pod, service) = ways.ends(talk::CONNECT, CONNECT);
    let (mut straight, mut through) = (Vec::new(), Vec::new());
    let rate = |took: &[Duration]| {
        let sum: Duration = took.iter().sum();
        took.len() as f64 / sum.as_secs_f64()
    };
    let ratio = alternate(
        ROUNDS,
        || {
            let took = ways.straight.connect(pod, CONNECTS, seen)?;
            straight.extend(&took);
            Ok(rate(&took))
        },
        || {
            let took = ways.through.connect(service, CONNECTS, seen)?;
            through.extend(&took);
            Ok(rate(&took))
        },
    )?;
    let six = suffix(family);
    figure(&format!("connect_ratio{six}_{services}"), ratio, "x");
    for (way, samples) in [("straight", &mut straight), ("service", &mut through)] {
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            let value = percentile(samples, share).as_secs_f64() * 1e6;
            figure(
                &format!("connect_{way}{six}_{services}_{name}_us"),
                value,
                "us",
            );
        }
    }
    Ok(())
}

fn streams(ways: &mut Ways, family: Family, services: usize) -> Result<()> {
    let (pod, service) = ways.ends(talk::SINK, SINK);
    let mut straight = ways.straight.open(pod)?;
    let mut through = ways.through.open(service)?;
    let mut rates = Vec::new();
    let ratio = alternate(
        STREAM_ROUNDS,
        || talk::write(&mut straight, STREAM_TIME),
        || {
            let rate = talk::write(&mut through, STREAM_TIME)?;
            rates.push(rate);
            Ok(rate)
        },
    )?;
    tell("throughput", family, services, ratio);
    let gigabits = median(&mut rates) * 8.0 / 1e9;
    let name = format!("throughput_service{}_{services}_gbit_s", suffix(family));
    figure(&name, gigabits, "Gbit/s");
    Ok(())
}

fn datagrams(ways: &mut Ways, family: Family, services: usize, seen: &Seen) -> Result<()> {
    let (pod, service) = ways.ends(talk::DATAGRAMS, DATAGRAM);
    let straight = ways.straight.datagrams(pod)?;
    let through = ways.through.datagrams(service)?;
    let mut rates = Vec::new();
    let ratio = alternate(
        DATAGRAM_ROUNDS,
        || talk::send(&straight, DATAGRAMS, seen),
        || {
            let rate = talk::send(&through, DATAGRAMS, seen)?;
            rates.push(rate);
            Ok(rate)
        },
    )?;
    tell("udp_pps", family, services, ratio);
    let name = format!("udp_service{}_{services}_pps", suffix(family));
    figure(&name, median(&mut rates), "1/s");
    Ok(())
}

fn suffix(family: Family) -> &'static str {
    match family {
        Family::V4 => "",
        Family::V6 => "_v6",
    }
}

fn tell(what: &str, family: Family, services: usize, ratio: f64) {
    let six = suffix(family);
    if services == PLAIN {
        figure(&format!("{what}_ratio{six}"), ratio, "x");
    } else {
        figure(&format!("{what}_ratio{six}_{services}"), ratio, "x");
    }
}
