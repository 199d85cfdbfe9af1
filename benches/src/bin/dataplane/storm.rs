//! Many changes: a thousand per second for half a minute, and a rolling update.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portolan_benches::cluster;
use portolan_benches::figures::{figure, millis, percentile, say};
use portolan_kernel::netns::NetNs;
use portolan_model::Family;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};

use crate::kernel::{PARTS, Programmed};

/// The size at which changes come.
const SERVICES: usize = 50_000;
/// How many changes come per second.
const RATE: u32 = 1000;
const SECONDS: u32 = 30;
/// Lag at the end is compared with lag at the start over so much of the time.
const EDGE: Duration = Duration::from_secs(5);

/// The pods that are replaced one by one, and the Services that all of them serve.
const PODS: usize = 100;
const FRONTS: usize = 50;

/// Both.
pub(crate) fn run() -> Result<()> {
    let mut node = Programmed::new(&NetNs::create()?, cluster::facts(Family::V4, SERVICES)?)?;
    sustained(&mut node)?;
    rolling(&mut node)
}

/// Changes that come by the clock, whether or not those before are done: what is
/// waiting is taken in one round, as the agent does.
fn sustained(node: &mut Programmed) -> Result<()> {
    let size = cluster::size(SERVICES);
    say(&format!(
        "{RATE} changes per second for {SECONDS} s, {size}"
    ));
    let total = RATE * SECONDS;
    let texts: Vec<Vec<u8>> = (0..total as usize)
        .map(|turn| {
            let number = turn * 7919 % SERVICES;
            let slice = cluster::slice(Family::V4, number, turn / SERVICES + 1);
            serde_json::to_vec(&slice)
        })
        .collect::<Result<_, _>>()?;
    let due = |change: u32| Duration::from_secs(1) * change / RATE;
    let (mut first, mut last, mut all) = (Vec::new(), Vec::new(), Vec::new());
    let mut done = 0;
    let mut busy = Duration::ZERO;
    let begin = Instant::now();
    while done < total {
        if let Some(wait) = due(done).checked_sub(begin.elapsed()) {
            std::thread::sleep(wait);
        }
        let start = begin.elapsed();
        let waiting = (done..total).take_while(|change| due(*change) <= start);
        let until = waiting.last().map_or(done, |last| last + 1);
        let these = texts.get(done as usize..until as usize).unwrap_or_default();
        if these.is_empty() {
            continue;
        }
        node.take(these.iter().map(Vec::as_slice))?;
        let now = begin.elapsed();
        busy += now - start;
        for change in done..until {
            let lag = now.saturating_sub(due(change));
            all.push(lag);
            if due(change) < EDGE {
                first.push(lag);
            } else if due(change) + EDGE >= due(total) {
                last.push(lag);
            }
        }
        done = until;
    }
    let took = begin.elapsed().as_secs_f64();
    figure("sustained_changes_per_s", f64::from(done) / took, "1/s");
    for (name, samples) in [
        ("", &mut all),
        ("_first_5_s", &mut first),
        ("_last_5_s", &mut last),
    ] {
        let lag = millis(percentile(samples, 0.99));
        figure(&format!("sustained_lag{name}_p99_ms"), lag, "ms");
    }
    figure(
        "sustained_busy_share",
        busy.as_secs_f64() / took,
        "of one core",
    );
    Ok(())
}

/// A hundred pods behind fifty Services, replaced one by one: each replacement is a
/// change of fifty slices with a hundred endpoints each, taken in one round.
fn rolling(node: &mut Programmed) -> Result<()> {
    say(&format!(
        "rolling update of {PODS} pods behind {FRONTS} Services"
    ));
    let texts = |turn: usize| -> Result<Vec<Vec<u8>>> {
        // The first `turn` pods are new ones, with addresses of their own.
        let addresses: Vec<IpAddr> = (0..PODS)
            .map(|pod| {
                let [third, last] = [u8::from(pod < turn), pod as u8 + 1].map(|octet| octet);
                IpAddr::V4(Ipv4Addr::new(10, 247, 250 + third, last))
            })
            .collect();
        let ports = json!([{"name": "", "port": 8080, "protocol": "TCP"}]);
        (0..FRONTS)
            .map(|number| {
                let slice = cluster::slice_with(Family::V4, number, &addresses, ports.clone());
                Ok(serde_json::to_vec(&slice)?)
            })
            .collect()
    };
    node.take(texts(0)?.iter().map(Vec::as_slice))?;
    let mut steps = Vec::new();
    let mut parts: [Vec<Duration>; 4] = Default::default();
    for turn in 1..=PODS {
        let texts = texts(turn)?;
        let begin = Instant::now();
        let taken = node.take(texts.iter().map(Vec::as_slice))?;
        steps.push(begin.elapsed());
        for (part, took) in parts.iter_mut().zip(taken.parts) {
            part.push(took);
        }
    }
    ensure!(steps.len() == PODS, "every pod was replaced");
    let whole: Duration = steps.iter().sum();
    figure("rolling_100_pods_50_services_s", whole.as_secs_f64(), "s");
    figure(
        "rolling_step_p50_ms",
        millis(percentile(&mut steps, 0.5)),
        "ms",
    );
    figure(
        "rolling_step_p99_ms",
        millis(percentile(&mut steps, 0.99)),
        "ms",
    );
    for (name, part) in PARTS.iter().zip(&mut parts) {
        let took = millis(percentile(part, 0.5));
        figure(&format!("rolling_step_{name}_p50_ms"), took, "ms");
    }
    Ok(())
}
