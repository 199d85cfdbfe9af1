//! A namespace that looks to programs as a pod does: the cluster's DNS server at its
//! address, and a resolv.conf with the search list and ndots:5 (D19).

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arc_swap::ArcSwap;
use portolan_agent::dns::{
    Dial, DnsConfig, DnsGuard, DnsServer, DnsSockets, ForwardSettings, Forwarder, RouteSettings,
    ServerSettings, Upstream,
};
use portolan_dns::{Data, Name, Record, Zone, Zones};
use portolan_kernel::link::Links;
use portolan_kernel::netns::NetNs;
use portolan_model::{Change, Cluster};
use portolan_plan::{NodeView, node};
use portolan_render::zone;
use portolan_testkit::build;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Where the cluster's names are answered.
const DNS: [&str; 2] = ["10.96.0.10", "fd00:10:96::a"];
/// Where somebody answers for all other names.
const OUTSIDE: &str = "127.0.0.1:53";
/// What a pod of the namespace `default` has.
const RESOLV_CONF: &str = "nameserver 10.96.0.10\n\
    search default.svc.cluster.local svc.cluster.local cluster.local\n\
    options ndots:5 timeout:20 attempts:1\n";

/// Shows a program another `/etc`: what is in the folder `$1` lies above the host's.
const DRESSED: &str =
    r#"mount -t overlay overlay -o "lowerdir=$1:/etc" /etc && shift && exec "$@""#;

pub(crate) struct Place {
    etc: TempDir,
    _servers: [Served; 2],
    /// In which the servers run.
    _runtime: tokio::runtime::Runtime,
}

/// A server and what it needs to live.
struct Served {
    _server: DnsServer,
    _ready: watch::Sender<bool>,
}

impl Place {
    pub(crate) fn new() -> Result<Self> {
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(links())?;
        let servers = {
            let _inside = runtime.enter();
            let outside = serve(&[OUTSIDE.parse()?], outside()?, None)?;
            let server = ServerSettings::plain(OUTSIDE.parse()?);
            let settings = ForwardSettings {
                routes: vec![RouteSettings::new(Name::root(), vec![server])],
                ..ForwardSettings::default()
            };
            let forwarder: Arc<dyn Upstream> = Arc::new(Forwarder::new(settings, Dial::Own));
            let at: Vec<SocketAddr> = addresses().map(|ip| (ip, 53).into()).collect();
            [outside, serve(&at, inside()?, Some(forwarder))?]
        };
        let place = Self {
            etc: TempDir::new()?,
            _servers: servers,
            _runtime: runtime,
        };
        place.file("resolv.conf", RESOLV_CONF)?;
        place.file("nsswitch.conf", "hosts: files dns\n")?;
        place.file("hosts", "127.0.0.1 localhost\n")?;
        Ok(place)
    }

    /// Writes a file that programs find in `/etc`.
    pub(crate) fn file(&self, name: &str, text: &str) -> Result<()> {
        let path = self.etc.path().join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(std::fs::write(path, text)?)
    }

    /// A program that sees these files, in a mount namespace of its own.
    pub(crate) fn command(&self, namespaces: &[&str], script: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(namespaces).args(["--mount", "--", "sh", "-c"]);
        command.arg(script).arg("sh").arg(self.etc.path());
        command
    }

    /// Runs a program and returns how it ended and all that it printed.
    pub(crate) fn run(&self, program: &Path, words: &str) -> Result<(i32, String)> {
        let mut command = self.command(&[], DRESSED);
        command.arg(program).args(words.split_whitespace());
        let output: Output = command
            .output()
            .context("unshare, of the package util-linux")?;
        let text = [output.stdout, output.stderr].concat();
        let code = output.status.code().context("ended by a signal")?;
        ensure!(
            code != 127,
            "{} is missing: cargo xtask setup",
            program.display()
        );
        Ok((code, String::from_utf8_lossy(&text).into_owned()))
    }
}

fn addresses() -> impl Iterator<Item = IpAddr> {
    DNS.iter().filter_map(|text| text.parse().ok())
}

/// The loopback with the server's addresses, and a link that is no loopback: some
/// resolvers ask nobody while there is none.
async fn links() -> Result<()> {
    let links = Links::open(&NetNs::current()?)?;
    let lo = links.index("lo").await?;
    links.set_up(lo, true).await?;
    for address in addresses() {
        links.add_address(lo, address.into()).await?;
    }
    let done = Command::new("ip")
        .args([
            "link", "add", "eth0", "type", "veth", "peer", "name", "eth1",
        ])
        .status()
        .context("ip, of the package iproute2")?;
    ensure!(done.success(), "ip link add: {done}");
    for name in ["eth0", "eth1"] {
        let link = links.index(name).await?;
        links.set_up(link, true).await?;
    }
    let eth0 = links.index("eth0").await?;
    links.add_address(eth0, "10.244.1.2/24".parse()?).await?;
    Ok(())
}

fn serve(at: &[SocketAddr], zones: Zones, upstream: Option<Arc<dyn Upstream>>) -> Result<Served> {
    let (ready, seen) = watch::channel(true);
    let config = DnsConfig {
        sockets: DnsSockets::bind(at)?,
        zones: Arc::new(ArcSwap::from_pointee(zones)),
        ready: seen,
        upstream,
        front: Default::default(),
        completion: None,
        guard: DnsGuard::default(),
        stats: Arc::default(),
    };
    Ok(Served {
        _server: DnsServer::start(config, &CancellationToken::new())?,
        _ready: ready,
    })
}

/// The world outside: two names, and no others.
fn outside() -> Result<Zones> {
    let mut zone = Zone::new(Name::root(), 30, 1);
    let address = |text: &str| text.parse::<IpAddr>().map(Record::from);
    let both = [address("192.0.2.7")?, address("2001:db8::7")?];
    zone.set(&Name::parse("www.example.com")?, &both)?;
    let pointer = Data::Ptr(Name::parse("www.example.com")?);
    zone.set(&Name::reverse("192.0.2.7".parse()?), &[pointer.into()])?;
    Ok(Zones::new([zone]))
}

/// The cluster's zones, from objects by the way of facts and plan.
fn inside() -> Result<Zones> {
    let mut cluster = Cluster::default();
    for namespace in ["default", "shop"] {
        cluster.apply(Change::Upsert(build::namespace(namespace)?));
    }
    for object in services() {
        let fact = build::good(build::service(&object)?)?;
        cluster.apply(Change::Upsert(fact));
    }
    let (slice, problems) = build::slice(&slice())?;
    ensure!(problems.is_empty(), "{problems:?}");
    cluster.apply(Change::Upsert(slice.context("a slice")?));
    let view = NodeView {
        cluster_pod_cidrs: vec!["10.244.0.0/16".parse()?],
        service_cidrs: vec!["10.96.0.0/16".parse()?, "fd00:10:96::/112".parse()?],
        dns_addresses: addresses().collect(),
        ..NodeView::default()
    };
    Ok(zone::image(&node(&cluster, &view), 1))
}

/// A Service of each kind.
fn services() -> Vec<Value> {
    let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    let addressed = |name: &str, ips: &[&str]| {
        json!({
            "metadata": {"namespace": "default", "name": name},
            "spec": {"type": "ClusterIP", "clusterIP": ips[0], "clusterIPs": ips, "ports": ports},
        })
    };
    let alias = |name: &str, target: &str| {
        json!({
            "metadata": {"namespace": "default", "name": name},
            "spec": {"type": "ExternalName", "externalName": target},
        })
    };
    let mut far = addressed("far", &["10.96.7.8"]);
    far["metadata"]["namespace"] = "shop".into();
    vec![
        addressed("web", &["10.96.7.1"]),
        addressed("both", &["10.96.7.2", "fd00:10:96::72"]),
        addressed("six", &["fd00:10:96::66"]),
        addressed("1st", &["10.96.7.9"]),
        far,
        alias("alias", "both.default.svc.cluster.local"),
        alias("out", "www.example.com"),
        json!({
            "metadata": {"namespace": "default", "name": "db"},
            "spec": {"clusterIP": "None", "clusterIPs": ["None"]},
        }),
    ]
}

/// Two pods behind the headless Service, one with a hostname.
fn slice() -> Value {
    json!({
        "metadata": {
            "namespace": "default", "name": "db-1",
            "labels": {"kubernetes.io/service-name": "db"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.244.1.3"], "hostname": "db-0", "conditions": {"ready": true}},
            {"addresses": ["10.244.1.4"], "conditions": {"ready": true}},
        ],
    })
}
