//! dnsperf against the echo and against the server, in turn.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Seek as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use portolan_agent::dns::Upstream;
use portolan_benches::figures::{figure, millis, percentile, say};
use portolan_render::zone;
use tokio::runtime::Runtime;

use crate::echo::Echo;
use crate::outside::{NAMES, Outside};
use crate::world::{self, SERVICES, Served};

/// Clients that dnsperf acts as, each with a socket of its own.
const CLIENTS: &str = "16";
/// Queries in flight.
const WINDOW: &str = "512";
/// The same where latencies are measured, dnsperf's own default: whenever the scheduler
/// kept dnsperf waiting, it sends as many at once to make up for it, and so many would
/// wait for each other.
const SMALL_WINDOW: &str = "100";
/// Names outside the cluster that pods look up, and their search list.
const OUTSIDE: [&str; 3] = ["www.example.com", "api.github.com", "registry-1.docker.io"];
const SEARCHED: [&str; 3] = [
    "default.svc.cluster.local",
    "svc.cluster.local",
    "cluster.local",
];

/// The questions, as files for dnsperf.
struct Questions {
    folder: tempfile::TempDir,
}

impl Questions {
    fn write() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (mut services, mut pods, mut walks) = (String::new(), String::new(), String::new());
        for turn in 0..SERVICES {
            // All of them, in an order in which neighbours are far from each other.
            let number = turn * 7919 % SERVICES;
            writeln!(services, "svc-{number}.default.svc.cluster.local A")?;
            let slot = turn % portolan_benches::cluster::ENDPOINTS;
            let pod =
                portolan_benches::cluster::endpoint_ip(portolan_model::Family::V4, number, slot, 0);
            let label = portolan_plan::dashed(pod);
            writeln!(pods, "{label}.default.pod.cluster.local A")?;
            let outside = OUTSIDE.get(turn % 3).copied().unwrap_or_default();
            let suffix = SEARCHED.get(turn / 3 % 3).copied().unwrap_or_default();
            let rtype = if turn % 2 == 0 { "A" } else { "AAAA" };
            writeln!(walks, "{outside}.{suffix} {rtype}")?;
        }
        let mut forwarded = String::new();
        for turn in 0..NAMES {
            let number = turn * 7919 % NAMES;
            writeln!(forwarded, "host-{number}.example.com A")?;
        }
        let files = [
            ("services", services),
            ("pods", pods),
            ("walks", walks),
            ("forwarded", forwarded),
        ];
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text)?;
        }
        Ok(Self { folder })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Measures everything under load.
pub(crate) fn run(runtime: &Runtime, seconds: u32, rounds: usize) -> Result<()> {
    world::loopback(runtime)?;
    let questions = Questions::write()?;
    let facts = world::facts()?;
    let plan = portolan_plan::node(&facts, &world::view(&facts));
    let zones = zone::image(&plan, 1);
    say(&format!(
        "{rounds} rounds of {seconds} s each: a bare echo, then the server with {} names",
        zones.iter().map(portolan_dns::Zone::len).sum::<usize>()
    ));
    let mut found: BTreeMap<&str, Vec<Run>> = BTreeMap::new();
    for _ in 0..rounds {
        let echo = Echo::start()?;
        let bare = dnsperf(echo.address, &questions.file("services"), seconds, &[])?;
        drop(echo);
        let served = Served::start(zones.clone())?;
        let ask = |name: &str, words: &[&str], code: &str| {
            let run = dnsperf(served.address, &questions.file(name), seconds, words)?;
            run.all(code).map(|()| run)
        };
        let these = [
            ("", ask("services", &[], "NOERROR")?),
            ("pods_", ask("pods", &[], "NOERROR")?),
            ("nxdomain_", ask("walks", &[], "NXDOMAIN")?),
            ("tcp_", ask("services", &["-m", "tcp"], "NOERROR")?),
            ("echo_", bare),
        ];
        drop(served);
        let forwarded = forwarded(zones.clone(), &questions, seconds)?;
        for (name, run) in these.into_iter().chain([("forwarded_", forwarded)]) {
            found.entry(name).or_default().push(run);
        }
    }
    let medians = |name: &str| {
        let runs = found.get(name).map_or(&[][..], Vec::as_slice);
        let of = |value: fn(&Run) -> f64| median(&runs.iter().map(value).collect::<Vec<_>>());
        (of(|run| run.qps), of(|run| run.cpu_us))
    };
    let (bare, _) = medians("echo_");
    let (services, _) = medians("");
    for name in ["echo_", "", "pods_", "nxdomain_", "forwarded_", "tcp_"] {
        let (qps, cpu_us) = medians(name);
        figure(&format!("{name}qps"), qps, "/s");
        figure(&format!("{name}cpu_us"), cpu_us, "us");
        if !["echo_", "tcp_"].contains(&name) {
            let name = if name.is_empty() { "qps_" } else { name };
            figure(&format!("{name}ratio_to_echo"), qps / bare, "");
        }
    }
    latency(zones, &questions, seconds, services / 2.0)
}

/// Queries per second for names outside the cluster whose answers are kept: each has
/// been asked for once before.
fn forwarded(zones: portolan_dns::Zones, questions: &Questions, seconds: u32) -> Result<Run> {
    let outside = Outside::start()?;
    let forwarder = outside.forwarder();
    let upstream = Arc::clone(&forwarder) as Arc<dyn Upstream>;
    let served = Served::start_with(zones, Some(upstream))?;
    let file = questions.file("forwarded");
    // Once through the file, no faster than questions to others may be under way.
    dnsperf(served.address, &file, 60, &["-n", "1", "-q", SMALL_WINDOW])?.all("NOERROR")?;
    let asked = forwarder.counts().misses;
    let run = dnsperf(served.address, &file, seconds, &[])?;
    run.all("NOERROR")?;
    let counts = forwarder.counts();
    ensure!(
        counts.misses == asked && counts.hits as f64 >= run.sent - run.lost,
        "not all of them were kept: {counts:?}"
    );
    Ok(run)
}

/// How long replies take at half of what the server can do, and how long those of
/// the echo at the same rate: what the machine adds to both.
fn latency(
    zones: portolan_dns::Zones,
    questions: &Questions,
    seconds: u32,
    rate: f64,
) -> Result<()> {
    let words = format!("{rate:.0}");
    let ask = |server: SocketAddr| {
        let run = dnsperf(
            server,
            &questions.file("services"),
            seconds,
            &["-Q", &words, "-q", SMALL_WINDOW, "-v"],
        )?;
        ensure!(
            run.qps > 0.9 * rate,
            "{:.0} queries per second in place of {words}",
            run.qps
        );
        Ok(run)
    };
    let echo = Echo::start()?;
    let bare = ask(echo.address)?;
    drop(echo);
    let served = Served::start(zones)?;
    let run = ask(served.address)?;
    run.all("NOERROR")?;
    for (prefix, mut samples) in [("echo_", bare.latencies), ("", run.latencies)] {
        ensure!(!samples.is_empty(), "dnsperf told no latencies");
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            let value = millis(percentile(&mut samples, share));
            figure(&format!("{prefix}{name}_half_load_ms"), value, "ms");
        }
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// What one run of dnsperf told.
struct Run {
    qps: f64,
    sent: f64,
    lost: f64,
    codes: String,
    /// Processor time of this process, the server's, per query in microseconds: what
    /// others on the machine do hardly changes it.
    cpu_us: f64,
    /// Of single queries, if it was asked to tell them.
    latencies: Vec<Duration>,
}

impl Run {
    /// Every reply had this code, and hardly any was lost.
    fn all(&self, code: &str) -> Result<()> {
        ensure!(
            self.codes.starts_with(code) && self.codes.contains("(100.00%)"),
            "expected {code} alone, found {}",
            self.codes
        );
        ensure!(
            self.lost * 1000.0 <= self.sent,
            "{} of {} queries were lost",
            self.lost,
            self.sent
        );
        Ok(())
    }
}

fn dnsperf(server: SocketAddr, file: &Path, seconds: u32, more: &[&str]) -> Result<Run> {
    // A file, since a pipe's reader would want a processor as often as there is a line.
    let mut said = tempfile::tempfile()?;
    let before = cpu()?;
    let output = Command::new("dnsperf")
        .stdout(said.try_clone()?)
        .args([
            "-s",
            &server.ip().to_string(),
            "-p",
            &server.port().to_string(),
        ])
        .arg("-d")
        .arg(file)
        .args(["-l", &seconds.to_string(), "-c", CLIENTS, "-q", WINDOW])
        .args(["-O", "suppress=timeout"])
        .args(more)
        .output()
        .context("start dnsperf, of the package of that name")?;
    let spent = cpu()? - before;
    let mut text = String::new();
    said.rewind()?;
    said.read_to_string(&mut text)?;
    ensure!(
        output.status.success(),
        "dnsperf failed: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let value = |label: &str| -> Result<&str> {
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(label));
        line.map(str::trim)
            .with_context(|| format!("no line {label:?} in {text}"))
    };
    let number = |label: &str| -> Result<f64> {
        let first = value(label)?.split_whitespace().next();
        first.unwrap_or_default().parse().context("a number")
    };
    let sent = number("Queries sent:")?;
    Ok(Run {
        qps: number("Queries per second:")?,
        sent,
        cpu_us: spent.as_secs_f64() * 1e6 / sent.max(1.0),
        lost: number("Queries lost:")?,
        codes: value("Response codes:")?.to_owned(),
        latencies: latencies(&text),
    })
}

/// Processor time of all threads of this process so far, the kernel's part included.
fn cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let parts = [usage.user_time(), usage.system_time()];
    let seconds = parts
        .iter()
        .map(|part| part.tv_sec() as f64 + part.tv_usec() as f64 / 1e6);
    Ok(Duration::from_secs_f64(seconds.sum()))
}

/// The times in lines such as `> NOERROR name A 0.000123`.
fn latencies(text: &str) -> Vec<Duration> {
    let lines = text.lines().filter(|line| line.starts_with("> "));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .map(Duration::from_secs_f64)
        .collect()
}
