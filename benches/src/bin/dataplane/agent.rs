//! A whole agent, a process of its own, against a real API server: its start,
//! changes, memory, and what it takes when nothing happens.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt as _;
use portolan_benches::api::Api;
use portolan_benches::cluster::{self, NODE};
use portolan_benches::figures::{figure, memory_mb, millis, peak_memory_mb, percentile, say};
use portolan_benches::still::{settle, wait_for_change};
use portolan_kernel::link::Links;
use portolan_kernel::netns::NetNs;
use portolan_kernel::nft::Nft;
use portolan_nft::{Batch, Op};

/// Changes that are waited for one by one.
const CHANGES: usize = 100;
/// Changes that come by the clock, at the smaller size.
const STORM_RATE: u32 = 1000;
const STORM_SECONDS: u32 = 10;
/// How long the agent is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(10);

/// One size.
pub(crate) async fn run(services: usize) -> Result<()> {
    let size = cluster::size(services);
    say(&format!(
        "whole agent, {size}: an API server with the objects, then an agent process against it"
    ));
    let here = NetNs::current()?;
    let links = Links::open(&here)?;
    links.set_up(links.index("lo").await?, true).await?;
    let folder = tempfile::tempdir()?;
    let api = Api::start(folder.path()).await?;
    api.fill(services).await?;
    let mut nft = Nft::open(&here)?;
    forget_others(&mut nft)?;
    let before = nft.generation()?;
    let agent = Agent::start(&api.kubeconfig)?;
    let begin = Instant::now();
    wait_for_change(&mut nft, before).await?;
    let (_, programmed) = settle(&mut nft).await?;
    let started = programmed.saturating_duration_since(begin);
    figure(&format!("agent_start_{size}_s"), started.as_secs_f64(), "s");
    figure(
        &format!("rss_listed_{size}_mb"),
        memory_mb(agent.0.id())?,
        "MB",
    );
    figure(
        &format!("rss_listed_peak_{size}_mb"),
        peak_memory_mb(agent.0.id())?,
        "MB",
    );
    changes(&api, &mut nft, services).await?;
    settle(&mut nft).await?;
    idle(&agent, &size).await?;
    if services == crate::SIZES[0] {
        storm(&api, &mut nft, services).await?;
    }
    let peak = peak_memory_mb(agent.0.id())?;
    figure(&format!("rss_{size}_mb"), peak, "MB");
    drop(agent);
    Ok(())
}

/// Takes away what the agent before this one has left: one that finds other
/// Services in the kernel compares whole images, and that is not what is measured.
fn forget_others(nft: &mut Nft) -> Result<()> {
    for id in portolan_render::nft::tables() {
        if nft.exists(&id)? {
            let mut batch = Batch::new();
            batch.push(&id, Op::DeleteTable);
            nft.commit(&batch)?;
        }
    }
    Ok(())
}

/// Changes one by one: from the start of the write to the kernel.
async fn changes(api: &Api, nft: &mut Nft, services: usize) -> Result<()> {
    let size = cluster::size(services);
    let mut changes = Vec::new();
    let mut generation = nft.generation()?;
    for turn in 0..CHANGES {
        let begin = Instant::now();
        api.change(turn, services).await?;
        generation = wait_for_change(nft, generation).await?;
        changes.push(begin.elapsed());
    }
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let value = millis(percentile(&mut changes, share));
        figure(&format!("agent_change_{size}_{name}_ms"), value, "ms");
    }
    Ok(())
}

/// What the agent takes when nothing happens.
async fn idle(agent: &Agent, size: &str) -> Result<()> {
    say(&format!("the agent at rest for {IDLE:?}, {size}"));
    let before = processor_time(agent.0.id())?;
    let begin = Instant::now();
    tokio::time::sleep(IDLE).await;
    let took = processor_time(agent.0.id())?.saturating_sub(before);
    let share = millis(took) / begin.elapsed().as_secs_f64();
    let name = match size {
        "10000x5" => "idle_cpu_ms_per_s".to_owned(),
        other => format!("idle_cpu_{other}_ms_per_s"),
    };
    figure(&name, share, "ms/s");
    Ok(())
}

/// Writes by the clock; then until the kernel is still. An agent that falls behind
/// goes on committing long after the last write.
async fn storm(api: &Api, nft: &mut Nft, services: usize) -> Result<()> {
    let total = STORM_RATE * STORM_SECONDS;
    say(&format!(
        "{STORM_RATE} writes per second to the API server for {STORM_SECONDS} s"
    ));
    let begin = tokio::time::Instant::now();
    let writes = (0..total).map(|turn| async move {
        tokio::time::sleep_until(begin + Duration::from_secs(1) * turn / STORM_RATE).await;
        api.change(CHANGES + turn as usize, services).await
    });
    let mut running = futures::stream::iter(writes).buffer_unordered(64);
    while let Some(done) = running.next().await {
        done?;
    }
    let written = Instant::now();
    let (_, last) = settle(nft).await?;
    let lag = last.saturating_duration_since(written);
    let whole = last.saturating_duration_since(begin.into_std());
    let rate = f64::from(total) / whole.as_secs_f64();
    figure("agent_sustained_changes_per_s", rate, "1/s");
    figure("agent_sustained_lag_ms", millis(lag), "ms");
    Ok(())
}

/// The time that all threads of a process have run.
fn processor_time(pid: u32) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // The first number is the time on a processor, in nanoseconds.
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let nanos = text.split_whitespace().next().context("schedstat")?;
        sum += Duration::from_nanos(nanos.parse()?);
    }
    Ok(sum)
}

/// An agent process; dropping it ends it.
struct Agent(Child);

impl Agent {
    fn start(kubeconfig: &Path) -> Result<Self> {
        let portolan = env::current_exe()?.with_file_name("portolan");
        let mut command = Command::new(&portolan);
        command
            .args(["agent", "--node-name", NODE, "--kubeconfig"])
            .arg(kubeconfig);
        for range in cluster::POD_CIDRS {
            command.args(["--cluster-cidr", range]);
        }
        for range in cluster::SERVICE_CIDRS {
            command.args(["--service-cidr", range]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| {
                format!(
                    "start {}: `cargo build --release` makes it",
                    portolan.display()
                )
            })?;
        Ok(Self(child))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.0.kill().is_ok() {
            // Its exit status is that of a kill and says nothing.
            drop(self.0.wait());
        }
    }
}
