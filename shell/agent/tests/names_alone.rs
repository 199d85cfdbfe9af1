//! The server of names alone against the embedded API server, asked by `dig`
//! (bind9-dnsutils).

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portolan_agent::dns::{Configured, Dial, DnsGuard, HandOver, KeepConfig};
use portolan_agent::names_alone::{NamesAlone, NamesAloneError, NamesConfig};
use portolan_apiserver::{Config, Server};
use portolan_client::{
    Client, Deletion, ENDPOINT_SLICES, PODS, SERVICES, Target, Writer, from_kubeconfig_text,
};
use portolan_plan::NodeView;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(30);
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

struct Bed {
    client: Client,
    /// A client of a server that does not answer.
    nobody: Client,
    stop: CancellationToken,
    server: JoinHandle<()>,
    dir: tempfile::TempDir,
}

impl Bed {
    async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let config = Config {
            data_dir: dir.path().join("data"),
            ..Config::default()
        };
        let server = Server::open(config).await?;
        let listener = tokio::net::TcpListener::bind(LOOPBACK).await?;
        let kubeconfig = server.client_config(&format!("https://{}", listener.local_addr()?));
        let nowhere = server.client_config("https://127.0.0.1:1");
        let stop = CancellationToken::new();
        let ended = stop.clone();
        let serving = tokio::spawn(async move {
            let result = server.serve(listener, ended).await;
            assert!(result.is_ok(), "{result:?}");
        });
        Ok(Self {
            client: from_kubeconfig_text(&kubeconfig).await?,
            nobody: from_kubeconfig_text(&nowhere).await?,
            stop,
            server: serving,
            dir,
        })
    }

    fn names(&self, configuration: &str) -> Result<NamesAlone> {
        self.names_of(&self.client, configuration, None)
    }

    /// Names of another server, and a place where they are kept.
    fn names_of(
        &self,
        kube: &Client,
        configuration: &str,
        keep: Option<&KeepConfig>,
    ) -> Result<NamesAlone> {
        let path = self.dir.path().join("dns.yaml");
        let head = "apiVersion: dns.portolan.dev/v1alpha1\nkind: DNSConfiguration\n";
        std::fs::write(&path, format!("{head}{configuration}"))?;
        let config = || -> Result<NamesConfig> {
            let configured = Configured::open(Some(path.clone()), Dial::Own)?;
            let zonal = configured.configuration().kubernetes.zonal;
            Ok(NamesConfig {
                view: NodeView {
                    cluster_domain: "cluster.local".into(),
                    zonal_names: zonal.unwrap_or(false),
                    ..NodeView::default()
                },
                kube: kube.clone(),
                listen: vec![LOOPBACK],
                configured,
                again: Arc::new(Notify::new()),
                guard: DnsGuard::default(),
                keep: keep.cloned(),
                health: Some(LOOPBACK),
                lameduck: Duration::ZERO,
                hand_over: HandOver::default(),
                ready: Some(LOOPBACK),
                metrics: Some(LOOPBACK),
            })
        };
        // The port that is free for UDP may be taken for TCP.
        let mut started = NamesAlone::start(config()?);
        for _ in 0..9 {
            if started.is_err() {
                started = NamesAlone::start(config()?);
            }
        }
        Ok(started?)
    }
}

async fn dig(server: SocketAddr, words: &str) -> Result<String> {
    let mut command = tokio::process::Command::new("dig");
    command
        .arg(format!("@{}", server.ip()))
        .args(["-p", &server.port().to_string(), "+tries=1", "+timeout=10"])
        .args(words.split_whitespace());
    let output = command.output().await.context("dig, of bind9-dnsutils")?;
    Ok(String::from_utf8(output.stdout)?)
}

/// Asks until the answer is right.
async fn until(server: SocketAddr, words: &str, right: impl Fn(&str) -> bool) -> Result<String> {
    let end = Instant::now() + DEADLINE;
    loop {
        let output = dig(server, words).await?;
        if right(&output) {
            return Ok(output);
        }
        ensure!(Instant::now() < end, "{words}: {output}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The code and the body at a path.
async fn get(at: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = tokio::net::TcpStream::connect(at).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let (head, body) = text.split_once("\r\n\r\n").context("a head")?;
    let code = head.split(' ').nth(1).context("a code")?.parse()?;
    Ok((code, body.to_owned()))
}

/// Health, readiness and counters are where CoreDNS has them.
async fn told(places: &[(&str, SocketAddr)]) -> Result<()> {
    let place = |what: &str| {
        let found = places.iter().find(|(name, _)| *name == what);
        found.map(|(_, at)| *at).context("a place")
    };
    assert_eq!(
        get(place("health")?, "/health").await?,
        (200, "OK".to_owned())
    );
    assert_eq!(
        get(place("ready")?, "/ready").await?,
        (200, "OK".to_owned())
    );
    assert_eq!(get(place("ready")?, "/health").await?.0, 404);
    let (_, metrics) = get(place("metrics")?, "/metrics").await?;
    for line in [
        "coredns_dns_requests_total{",
        "coredns_cache_entries{server=\"dns://:53\",type=\"success\",zones=\".\",view=\"\"} 0",
        "coredns_cache_hits_total{server=\"dns://:53\",type=\"denial\",zones=\".\",view=\"\"} 0\n",
        "coredns_cache_requests_total{server=\"dns://:53\",zones=\".\",view=\"\"} ",
        "coredns_forward_max_concurrent_rejects_total 0\n",
        "coredns_forward_healthcheck_broken_total 0\n",
        "coredns_hosts_entries 2",
        "coredns_hosts_reload_timestamp_seconds ",
        "coredns_reload_failed_total 0\n",
        "coredns_autopath_success_total{server=\"dns://:53\"} 0\n",
        "coredns_build_info{",
        "process_resident_memory_bytes ",
        "# EOF\n",
    ] {
        assert!(metrics.contains(line), "{line}{metrics}");
    }
    // Nothing is told twice.
    let names: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("# TYPE"))
        .collect();
    let once: std::collections::BTreeSet<&&str> = names.iter().collect();
    assert_eq!(names.len(), once.len(), "{metrics}");
    Ok(())
}

/// A headless Service with an endpoint in each of two zones.
async fn headless(writer: &Writer) -> Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"},
        "spec": {"clusterIP": "None", "ports": [{"name": "pg", "port": 5432}]},
    });
    writer
        .create(Target::all(&SERVICES, Some("default")), &service)
        .await?;
    let endpoint = |address: &str, zone: &str| json!({"addresses": [address], "zone": zone});
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "db-1",
            "labels": {"kubernetes.io/service-name": "db", "service.kubernetes.io/headless": ""},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "pg", "port": 5432, "protocol": "TCP"}],
        "endpoints": [endpoint("192.0.2.11", "west-a"), endpoint("192.0.2.12", "west-b")],
    });
    writer
        .create(Target::all(&ENDPOINT_SLICES, Some("default")), &slice)
        .await?;
    Ok(())
}

/// What follows from a pod's namespace, the zones of endpoints, and the address of the
/// cluster's DNS.
#[tokio::test(flavor = "multi_thread")]
async fn d17_d19_search_lists_zones_and_the_servers_own_name() -> Result<()> {
    let bed = Bed::start().await?;
    let writer = Writer::new(bed.client.clone(), "test");
    let resolv_conf = bed.dir.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "search corp.example\n")?;
    let names = bed.names(&format!(
        "kubernetes: {{zonal: true}}\nautopath: {{resolvConf: {}}}\nforward: []\n",
        resolv_conf.display()
    ))?;
    let server = *names.addresses().first().context("an address")?;
    let places = names.places().to_vec();
    let stop = CancellationToken::new();
    let running = tokio::spawn(names.run(stop.clone()));

    // Who asks is this pod.
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"},
        "spec": {"containers": [{"name": "one", "image": "busybox"}]},
    });
    let pods = Target::all(&PODS, Some("default"));
    writer.create(pods, &pod).await?;
    let status = json!({"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]});
    let target = Target::one(&PODS, Some("default"), "client");
    writer.patch_status(target, &status).await?;
    until(
        server,
        "+short kubernetes.default.default.svc.cluster.local",
        |out| out == "kubernetes.default.svc.cluster.local.\n10.96.0.1\n",
    )
    .await?;
    let unknown = dig(server, "nope.default.svc.cluster.local").await?;
    assert!(unknown.contains("status: NXDOMAIN,"), "{unknown}");

    headless(&writer).await?;
    until(
        server,
        "+short west-b.pin._zone.db.default.svc.cluster.local",
        |out| out == "192.0.2.12\n",
    )
    .await?;
    let place = places.iter().find(|(name, _)| *name == "metrics");
    let (_, metrics) = get(place.context("a place")?.1, "/metrics").await?;
    for line in [
        "coredns_kubernetes_dns_programming_duration_seconds_count{service_kind=\"headless_with_selector\"} 1\n",
        "coredns_autopath_success_total{server=\"dns://:53\"} ",
    ] {
        assert!(metrics.contains(line), "{line}{metrics}");
    }

    // The API server has the Service kube-dns from the start.
    until(server, "+short ns.dns.cluster.local", |out| {
        out == "10.96.0.10\n"
    })
    .await?;
    let glue = dig(server, "cluster.local NS").await?;
    assert!(glue.contains("10.96.0.10"), "{glue}");
    stop.cancel();
    tokio::time::timeout(DEADLINE, running).await???;
    bed.stop.cancel();
    tokio::time::timeout(DEADLINE, bed.server).await??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_d5_d22_names_are_answered_without_a_data_plane() -> Result<()> {
    let bed = Bed::start().await?;
    let writer = Writer::new(bed.client.clone(), "test");
    let names = bed.names(
        "forward: []\nhosts: {entries: [{address: 192.0.2.9, names: [db.example.com]}]}\n",
    )?;
    let server = *names.addresses().first().context("an address")?;
    let places = names.places().to_vec();
    let stop = CancellationToken::new();
    let running = tokio::spawn(names.run(stop.clone()));

    until(
        server,
        "+short kubernetes.default.svc.cluster.local",
        |out| out.trim() == "10.96.0.1",
    )
    .await?;
    let service = |name: &str, spec| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    let web = service(
        "web",
        json!({"clusterIP": "10.96.7.7", "ports": [{"name": "http", "port": 80}]}),
    );
    writer
        .create(Target::all(&SERVICES, Some("default")), &web)
        .await?;
    until(server, "+short web.default.svc.cluster.local", |out| {
        out == "10.96.7.7\n"
    })
    .await?;
    let reverse = dig(server, "+short -x 10.96.7.7").await?;
    assert_eq!(reverse, "web.default.svc.cluster.local.\n");
    let port = dig(
        server,
        "+tcp +short _http._tcp.web.default.svc.cluster.local SRV",
    )
    .await?;
    assert_eq!(port, "0 100 80 web.default.svc.cluster.local.\n");
    let out = service(
        "out",
        json!({"type": "ExternalName", "externalName": "db.example.com"}),
    );
    writer
        .create(Target::all(&SERVICES, Some("default")), &out)
        .await?;
    until(server, "+short out.default.svc.cluster.local", |out| {
        out == "db.example.com.\n192.0.2.9\n"
    })
    .await?;
    let outside = dig(server, "www.example.org").await?;
    assert!(outside.contains("status: NXDOMAIN,"), "{outside}");

    told(&places).await?;
    let target = Target::one(&SERVICES, Some("default"), "web");
    writer.delete(target, &Deletion::default()).await?;
    until(server, "web.default.svc.cluster.local", |out| {
        out.contains("status: NXDOMAIN,")
    })
    .await?;
    stop.cancel();
    tokio::time::timeout(DEADLINE, running).await???;
    bed.stop.cancel();
    tokio::time::timeout(DEADLINE, bed.server).await??;
    Ok(())
}

/// A server of names that runs, and how it is ended.
struct Running {
    server: SocketAddr,
    metrics: SocketAddr,
    ready: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<Result<(), NamesAloneError>>,
}

impl Running {
    fn new(names: NamesAlone) -> Result<Self> {
        let server = *names.addresses().first().context("an address")?;
        let places = names.places().to_vec();
        let place = |what: &str| {
            let found = places.iter().find(|(name, _)| *name == what);
            found.map(|(_, at)| *at).context("a place")
        };
        let stop = CancellationToken::new();
        Ok(Self {
            server,
            metrics: place("metrics")?,
            ready: place("ready")?,
            task: tokio::spawn(names.run(stop.clone())),
            stop,
        })
    }

    async fn shows(&self, line: &str) -> Result<bool> {
        let (_, metrics) = get(self.metrics, "/metrics").await?;
        Ok(metrics.lines().any(|shown| shown == line))
    }

    async fn end(self) -> Result<()> {
        self.stop.cancel();
        Ok(tokio::time::timeout(DEADLINE, self.task).await???)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d20_names_that_were_kept_are_answered_while_the_api_server_is_away() -> Result<()> {
    let bed = Bed::start().await?;
    let writer = Writer::new(bed.client.clone(), "test");
    let keep = KeepConfig {
        directory: bed.dir.path().join("state"),
        cluster: "the cluster".to_owned(),
    };
    let web = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"clusterIP": "10.96.7.7", "ports": [{"port": 80}]}});
    let services = Target::all(&SERVICES, Some("default"));
    writer.create(services, &web).await?;
    let asked = "+short web.default.svc.cluster.local";
    let right = |out: &str| out == "10.96.7.7\n";
    let live = |keep| bed.names_of(&bed.client, "forward: []\n", keep);
    let away = |keep| bed.names_of(&bed.nobody, "forward: []\n", keep);

    // The first one keeps at its end what it was told of.
    let first = Running::new(live(Some(&keep))?)?;
    until(first.server, asked, right).await?;
    assert!(first.shows("portolan_dns_answers_kept_names 0").await?);
    first.end().await?;

    // The next one is told nothing, answers at once and says so.
    let next = Running::new(away(Some(&keep))?)?;
    assert!(right(&dig(next.server, asked).await?));
    let unknown = dig(next.server, "nope.default.svc.cluster.local").await?;
    assert!(unknown.contains("status: NXDOMAIN,"), "{unknown}");
    assert_eq!(get(next.ready, "/ready").await?.0, 200);
    assert!(next.shows("portolan_dns_answers_kept_names 1").await?);
    next.end().await?;

    // What it did not know of, it did not keep; what has gone since goes at once.
    let target = Target::one(&SERVICES, Some("default"), "web");
    writer.delete(target, &Deletion::default()).await?;
    let last = Running::new(live(Some(&keep))?)?;
    until(last.server, "web.default.svc.cluster.local", |out| {
        out.contains("status: NXDOMAIN,")
    })
    .await?;
    assert!(last.shows("portolan_dns_answers_kept_names 0").await?);
    last.end().await?;

    // A damaged file, and one of another cluster, are as none: queries wait.
    let file = keep.directory.join("names");
    let whole = std::fs::read(&file)?;
    std::fs::write(&file, whole.get(..whole.len() / 2).context("half of it")?)?;
    let damaged = Running::new(away(Some(&keep))?)?;
    assert_ne!(get(damaged.ready, "/ready").await?.0, 200);
    damaged.end().await?;
    std::fs::write(&file, whole)?;
    let other = KeepConfig {
        cluster: "another".to_owned(),
        ..keep.clone()
    };
    let foreign = Running::new(away(Some(&other))?)?;
    assert_ne!(get(foreign.ready, "/ready").await?.0, 200);
    foreign.end().await?;
    bed.stop.cancel();
    tokio::time::timeout(DEADLINE, bed.server).await??;
    Ok(())
}
