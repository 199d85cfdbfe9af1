//! The API server under load: creates, lists, watches, start and memory.
//!
//! The server is this program again, as a process of its own, so that its
//! memory and its start are its own too.

use std::env;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Bytes;
use portolan_apiserver::{Config, Server};
use portolan_benches::cluster;
use portolan_benches::figures::{figure, memory_mb, millis, peak_memory_mb, percentile, say};
use portolan_benches::http::{Connection, Target, finished};
use portolan_model::Family;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Where the server keeps its state: this program is the server then.
const SERVE: &str = "PORTOLAN_BENCH_SERVE";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
/// Requests in flight on one connection.
const IN_FLIGHT: usize = 64;
const IN_FLIGHT_OF_EIGHT: usize = 24;
/// Services, and as many EndpointSlices, for lists and memory.
const OBJECTS: usize = 10_000;
/// Of these, over one connection.
const ONE: usize = 4_000;
const ONE_AT_A_TIME: usize = 500;
const LISTS: usize = 11;
const WATCHERS: usize = 100;
const WRITES: usize = 300;
const WRITE_PAUSE: Duration = Duration::from_millis(10);
/// Objects of the file that is started from.
const MANY: usize = 100_000;
const STARTS: usize = 5;
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match env::var_os(SERVE) {
        Some(folder) => runtime.block_on(serve(folder.into())),
        None => runtime.block_on(measure()),
    }
}

/// The server: listens on a free port, writes a kubeconfig and says so.
async fn serve(folder: PathBuf) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let server = Server::open(Config {
        data_dir: folder.clone(),
        ..Config::default()
    })
    .await?;
    let kubeconfig = server.kubeconfig(&format!("https://{address}"));
    std::fs::write(folder.join("kubeconfig"), kubeconfig)?;
    let serving = tokio::spawn(server.serve(listener, CancellationToken::new()));
    let mut out = std::io::stdout();
    writeln!(out, "{address}")?;
    out.flush()?;
    Ok(serving.await??)
}

/// A server process; ends with this value.
struct Process {
    child: Child,
    target: Target,
    started: Duration,
}

impl Process {
    fn start(folder: &Path) -> Result<Self> {
        let begin = Instant::now();
        let mut child = Command::new(env::current_exe()?)
            .env(SERVE, folder)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let out = child.stdout.take().context("the server's output")?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line)?;
        let started = begin.elapsed();
        let address: SocketAddr = line.trim().parse().context("the server did not start")?;
        let kubeconfig = std::fs::read_to_string(folder.join("kubeconfig"))?;
        Ok(Self {
            child,
            target: Target::new(&kubeconfig, address)?,
            started,
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

async fn measure() -> Result<()> {
    if let Some(folder) = memory_folder() {
        say("creates with a state file in memory: what fsync costs is the difference");
        let folder = tempfile::tempdir_in(folder)?;
        let server = Process::start(folder.path())?;
        creates(&server, "_no_fsync").await?;
    }
    let folder = tempfile::tempdir()?;
    say("creates with a state file on disk");
    let server = Process::start(folder.path())?;
    let next = creates(&server, "").await?;
    say("memory at 10 000 Services and 10 000 EndpointSlices");
    let connections = connect(&server.target, 8).await?;
    load(&connections, IN_FLIGHT, next..OBJECTS, service).await?;
    let took = load(&connections, IN_FLIGHT, 0..OBJECTS, slice).await?;
    figure(
        "slice_creates_per_s_8_connections",
        rate(OBJECTS, took),
        "1/s",
    );
    drop(connections);
    figure("rss_20000_mb", memory_mb(server.child.id())?, "MB");
    lists(&server).await?;
    watches(&server).await?;
    figure("peak_rss_mb", peak_memory_mb(server.child.id())?, "MB");
    fill(&server).await?;
    drop(server);
    starts(folder.path())
}

/// A folder that no disk is behind.
fn memory_folder() -> Option<&'static Path> {
    let folder = Path::new("/dev/shm");
    folder.is_dir().then_some(folder)
}

type Request = (&'static str, Bytes);

fn service(number: usize) -> Request {
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": format!("svc-{number}"), "labels": {"app": format!("app-{number}")}},
        "spec": {
            "selector": {"app": format!("app-{number}")},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    });
    (SERVICES, object.to_string().into())
}

fn slice(number: usize) -> Request {
    (
        SLICES,
        cluster::slice(Family::V4, number, 0).to_string().into(),
    )
}

fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

async fn connect(target: &Target, count: usize) -> Result<Vec<Connection>> {
    let connecting = (0..count).map(|number| {
        let target = target.clone();
        async move { target.connect(&format!("bench-{number}/1")).await }
    });
    try_join_all(connecting).await
}

/// Creates the objects of these numbers, so many in flight on each connection.
async fn load(
    connections: &[Connection],
    in_flight: usize,
    numbers: std::ops::Range<usize>,
    make: fn(usize) -> Request,
) -> Result<Duration> {
    let requests: Arc<Vec<Request>> = Arc::new(numbers.map(make).collect());
    let next = Arc::new(AtomicUsize::new(0));
    let begin = Instant::now();
    let workers = connections.iter().flat_map(|connection| {
        let (requests, next) = (&requests, &next);
        (0..in_flight).map(move |_| {
            let (connection, requests, next) =
                (connection.clone(), Arc::clone(requests), Arc::clone(next));
            tokio::spawn(async move {
                while let Some((path, body)) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    connection.call(Method::POST, path, body.clone()).await?;
                }
                anyhow::Ok(())
            })
        })
    });
    for worker in try_join_all(workers.collect::<Vec<_>>()).await? {
        worker?;
    }
    Ok(begin.elapsed())
}

/// Creates of Services; returns the next free number.
async fn creates(server: &Process, suffix: &str) -> Result<usize> {
    let mut next = 0;
    let mut run = async |connections: usize, in_flight: usize, count: usize| {
        let connections = connect(&server.target, connections).await?;
        let took = load(&connections, in_flight, next..next + count, service).await?;
        next += count;
        anyhow::Ok(rate(count, took))
    };
    let alone = run(1, 1, ONE_AT_A_TIME).await?;
    figure(&format!("creates_per_s_1_at_a_time{suffix}"), alone, "1/s");
    let one = run(1, IN_FLIGHT, ONE).await?;
    figure(&format!("creates_per_s_1_connection{suffix}"), one, "1/s");
    let eight = run(8, IN_FLIGHT_OF_EIGHT, OBJECTS - ONE - ONE_AT_A_TIME).await?;
    figure(
        &format!("creates_per_s_8_connections{suffix}"),
        eight,
        "1/s",
    );
    Ok(next)
}

async fn lists(server: &Process) -> Result<()> {
    say("lists of 10 000 Services");
    let connection = server.target.connect("bench/1").await?;
    for (name, gzip) in [("list_10000_ms", false), ("list_10000_gzip_ms", true)] {
        let mut samples = Vec::new();
        for _ in 0..LISTS {
            let begin = Instant::now();
            let answer = connection
                .send(Method::GET, "/api/v1/services", Bytes::new(), gzip)
                .await?;
            let body = finished(answer, "/api/v1/services").await?;
            samples.push(begin.elapsed());
            ensure!(body.len() > OBJECTS * 10, "a list of {} bytes", body.len());
        }
        figure(name, millis(percentile(&mut samples, 0.5)), "ms");
    }
    Ok(())
}

/// When each watcher got each event.
#[derive(Default)]
struct Arrivals {
    times: Mutex<Vec<Vec<Instant>>>,
    some: Notify,
}

async fn watches(server: &Process) -> Result<()> {
    say("a write, and 100 watchers on 100 connections");
    let arrivals = Arc::new(Arrivals::default());
    for number in 0..WATCHERS {
        let connection = server
            .target
            .connect(&format!("watcher-{number}/1"))
            .await?;
        let path = format!(
            "{SERVICES}?watch=true&resourceVersion=0&sendInitialEvents=false&resourceVersionMatch=NotOlderThan"
        );
        let answer = connection
            .send(Method::GET, &path, Bytes::new(), false)
            .await?;
        ensure!(answer.status() == 200, "{path}: {}", answer.status());
        let arrivals = Arc::clone(&arrivals);
        drop(tokio::spawn(async move {
            let mut body = answer.into_body();
            let mut seen = 0;
            let _connection = connection;
            while let Some(Ok(frame)) = body.frame().await {
                let lines = frame
                    .data_ref()
                    .map_or(0, |data| data.iter().filter(|byte| **byte == b'\n').count());
                arrivals.add(seen, lines);
                seen += lines;
            }
        }));
    }
    let connection = server.target.connect("writer/1").await?;
    let (mut sent, mut answered) = (Vec::new(), Vec::new());
    for turn in 0..WRITES {
        let path = format!("{SERVICES}/svc-{}", turn * 7919 % OBJECTS);
        let mut object: Value =
            serde_json::from_slice(&connection.call(Method::GET, &path, Bytes::new()).await?)?;
        object["metadata"]["annotations"] = json!({"turn": turn.to_string()});
        let body = Bytes::from(object.to_string());
        sent.push(Instant::now());
        connection.call(Method::PUT, &path, body).await?;
        answered.push(Instant::now());
        arrivals.wait(turn).await?;
        tokio::time::sleep(WRITE_PAUSE).await;
    }
    let times = arrivals
        .times
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    for (name, since) in [("watch", &answered), ("watch_with_write", &sent)] {
        let mut samples: Vec<Duration> = times
            .iter()
            .zip(since)
            .flat_map(|(times, since)| {
                times
                    .iter()
                    .map(|time| time.saturating_duration_since(*since))
            })
            .collect();
        for (share, rank) in [(0.5, "p50"), (0.99, "p99")] {
            let value = millis(percentile(&mut samples, share));
            figure(&format!("{name}_{rank}_ms"), value, "ms");
        }
    }
    Ok(())
}

impl Arrivals {
    fn add(&self, first: usize, count: usize) {
        let now = Instant::now();
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        for event in first..first + count {
            if times.len() <= event {
                times.resize_with(event + 1, Vec::new);
            }
            if let Some(times) = times.get_mut(event) {
                times.push(now);
            }
        }
        drop(times);
        self.some.notify_one();
    }

    fn count(&self, event: usize) -> usize {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.get(event).map_or(0, Vec::len)
    }

    /// Waits until every watcher has this event.
    async fn wait(&self, event: usize) -> Result<()> {
        let all = async {
            while self.count(event) < WATCHERS {
                self.some.notified().await;
            }
        };
        tokio::time::timeout(LIMIT, all)
            .await
            .context("a watcher missed an event")
    }
}

/// Makes the state file hold so many objects. A Service brings its IPAddress.
async fn fill(server: &Process) -> Result<()> {
    say("100 000 objects for a start");
    let connections = connect(&server.target, 8).await?;
    let more = (MANY - 3 * OBJECTS) / 3;
    load(
        &connections,
        IN_FLIGHT_OF_EIGHT,
        OBJECTS..OBJECTS + more,
        service,
    )
    .await?;
    let left = MANY - 3 * OBJECTS - 2 * more;
    load(
        &connections,
        IN_FLIGHT_OF_EIGHT,
        OBJECTS..OBJECTS + left,
        slice,
    )
    .await?;
    Ok(())
}

fn starts(folder: &Path) -> Result<()> {
    say("starts from 100 000 objects");
    let mut samples = Vec::new();
    let mut peak: f64 = 0.0;
    for _ in 0..STARTS {
        let server = Process::start(folder)?;
        samples.push(server.started);
        peak = peak.max(peak_memory_mb(server.child.id())?);
    }
    figure(
        "start_100000_s",
        percentile(&mut samples, 0.5).as_secs_f64(),
        "s",
    );
    figure("start_100000_peak_rss_mb", peak, "MB");
    Ok(())
}
