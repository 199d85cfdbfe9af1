//! `portolan agent`: the node's loop against any cluster.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use ipnet::IpNet;
use portolan_agent::announce::{self, AnnounceConfig, AnnounceTold};
use portolan_agent::cluster::ClusterConfig;
use portolan_agent::cluster::load_balancer::{self, Election};
use portolan_agent::dns::{Configured, Dial, DnsGuard, DnsTold, HandOver, SharedFront, Upstream};
use portolan_agent::gate_socket;
use portolan_agent::node::{self, Gate, HEALTHZ, METRICS, NodeConfig};
use portolan_api::validate::names::dns1123_subdomain;
use portolan_dns::Name;
use portolan_kernel::netns::NetNs;
use portolan_plan::{Detector, LinkName, NodeView};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cli::{AgentArgs, Established, LocalMode, no_host_bits, node_ports, overlap};
use crate::dns;

/// Shorter keys of heartbeats are guessed.
const SHORTEST_KEY: usize = 16;

/// What was typed, checked: nothing of the world was looked at but the host name.
#[derive(Debug, PartialEq)]
struct Settings {
    given: NodeView,
    healthz: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
}

/// Runs until TERM or Ctrl-C; what is in the kernel stays there.
pub(crate) fn run(args: AgentArgs) -> Result<ExitCode> {
    let settings = resolve(&args, host_name)?;
    portolan_kernel::memory::share_one_heap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work(args, settings))?;
    Ok(ExitCode::SUCCESS)
}

async fn work(args: AgentArgs, settings: Settings) -> Result<()> {
    let kube = match &args.kubeconfig {
        Some(path) => portolan_client::from_kubeconfig_file(path).await,
        None => portolan_client::from_service_account(),
    };
    let kube = kube.map_err(|error| match &args.kubeconfig {
        Some(_) => anyhow!(error),
        None => {
            anyhow!(error).context("give --kubeconfig FILE, or run in a pod with a service account")
        }
    })?;
    let mut settings = settings;
    let shutdown = CancellationToken::new();
    let outside = names(&args, &mut settings, &shutdown)?;
    tell(&args, &settings);
    let name = settings.given.node.to_string();
    let gate = Gate::default();
    let socket = args.cni_socket.as_deref();
    let _socket = socket.map(|path| gate_socket::serve(path, gate.clone()));
    let _socket = _socket.transpose()?;
    let config = NodeConfig {
        given: settings.given,
        netns: NetNs::current()?,
        kube,
        policies: args.network_policy,
        gate,
        policy_log: args.policy_log,
        cluster_dns: args.serve_dns,
        upstream: outside.upstream,
        front: outside.front,
        dns_told: outside.told,
        announce_told: args.announce.then(AnnounceTold::default),
        completed_search: outside.completed_search,
        dns_guard: DnsGuard {
            transfers: args.dns_transfer.clone(),
            rate: args.dns_rate_limit,
            log_one_in: args.dns_log_one_in.or(outside.log_one_in),
            name,
            ..DnsGuard::default()
        },
        dns_allowed: args.dns_allow.clone(),
        dns_keep: dns::keep(
            Some(&args.state_dir).filter(|_| args.serve_dns),
            args.kubeconfig.as_deref(),
        )
        .await?,
        dns_hand_over: HandOver::usual(),
        healthz: settings.healthz,
        metrics: settings.metrics,
        reply_path: args.reply_path(),
        replace_kube_proxy: args.replace_kube_proxy,
    };
    dns::stop_on_signals(shutdown.clone(), config.dns_hand_over.hurry.clone())?;
    let balancer = args
        .load_balancer
        .then(|| balance(&args, &config, shutdown.clone()));
    let announcer = args
        .announce
        .then(|| announcer(&args, &config, shutdown.clone()));
    let announcer = announcer.transpose()?;
    let ended = node::run(config, shutdown.clone()).await;
    shutdown.cancel();
    for beside in [balancer, announcer].into_iter().flatten() {
        beside.await?;
    }
    Ok(ended?)
}

/// Gives load balancers' addresses, whenever no other agent does.
fn balance(args: &AgentArgs, config: &NodeConfig, shutdown: CancellationToken) -> JoinHandle<()> {
    // Two agents of one node, as in an upgrade, are two candidates.
    let random = RandomState::new().build_hasher().finish();
    let identity = format!("{}_{random:016x}", config.given.node);
    let (kube, retry) = (config.kube.clone(), ClusterConfig::default().retry);
    let election = Election::new(
        kube.clone(),
        &args.leader_elect_resource_namespace,
        "portolan-load-balancer",
        identity,
    );
    tokio::spawn(election.lead(shutdown, move |stop| {
        load_balancer::run(kube.clone(), retry, stop)
    }))
}

/// Tells the network where load balancers' addresses are.
fn announcer(
    args: &AgentArgs,
    config: &NodeConfig,
    shutdown: CancellationToken,
) -> Result<JoinHandle<()>> {
    let announcer = AnnounceConfig {
        node: config.given.node.to_string(),
        netns: config.netns.clone(),
        client: config.kube.clone(),
        namespace: args.leader_elect_resource_namespace.clone(),
        heartbeat_port: args.heartbeat_port,
        heartbeat_key: heartbeat_key(args)?,
        told: config.announce_told.clone().unwrap_or_default(),
    };
    Ok(tokio::spawn(announce::run(announcer, shutdown)))
}

/// What seals heartbeats, without the line's end that editors add.
fn heartbeat_key(args: &AgentArgs) -> Result<Option<Vec<u8>>> {
    let Some(path) = &args.heartbeat_key_file else {
        return Ok(None);
    };
    let said = || format!("--heartbeat-key-file: {}", path.display());
    let key = std::fs::read(path).with_context(said)?;
    let key = key.trim_ascii_end();
    if key.len() < SHORTEST_KEY {
        bail!("{}: a key has {SHORTEST_KEY} bytes at least", said());
    }
    Ok(Some(key.to_vec()))
}

/// What the configuration file of names says.
#[derive(Default)]
struct Outside {
    /// Who answers other names.
    upstream: Option<Arc<dyn Upstream>>,
    /// What comes before the zones.
    front: SharedFront,
    /// What is counted of both.
    told: Option<DnsTold>,
    /// The rest of pods' search lists, if these are completed.
    completed_search: Option<Vec<Name>>,
    /// One of so many queries is logged.
    log_one_in: Option<NonZeroU32>,
}

/// Who answers for names outside the cluster, by the file; nobody if names are not
/// answered at all.
fn names(
    args: &AgentArgs,
    settings: &mut Settings,
    shutdown: &CancellationToken,
) -> Result<Outside> {
    if !args.serve_dns {
        return Ok(Outside::default());
    }
    let configured = Configured::open(args.dns_config.clone(), Dial::Own)?;
    dns::said(&configured.configuration().kubernetes, &mut settings.given);
    let outside = Outside {
        upstream: Some(configured.forwarder()),
        front: configured.front(),
        told: Some(configured.told()),
        completed_search: configured.search().map(<[Name]>::to_vec),
        log_one_in: configured.configuration().log_one_in,
    };
    let again = Arc::new(Notify::new());
    dns::read_again_on_hup(Arc::clone(&again))?;
    tokio::spawn(configured.follow(again, shutdown.clone()));
    Ok(outside)
}

/// What the flags amount to, in one line of the log.
fn tell(args: &AgentArgs, settings: &Settings) {
    let NodeView {
        node,
        cluster_pod_cidrs,
        detector,
        service_cidrs,
        masquerade_all,
        masquerade_bit,
        external_ips,
        cluster_domain,
        ..
    } = &settings.given;
    let server = args.kubeconfig.as_ref().map_or_else(
        || "service account".to_owned(),
        |path| path.display().to_string(),
    );
    tracing::info!(
        %node,
        kubeconfig = server,
        cluster_cidr = list(cluster_pod_cidrs),
        ?detector,
        service_cidr = list(service_cidrs),
        %cluster_domain,
        healthz = place(settings.healthz),
        metrics = place(settings.metrics),
        masquerade_all,
        masquerade_mark = format!("{masquerade_bit:#x}"),
        external_ips,
        serve_dns = args.serve_dns,
        load_balancer = args.load_balancer,
        announce = args.announce,
        "portolan {} starts",
        env!("CARGO_PKG_VERSION"),
    );
    if *detector == Detector::ClusterCidr && cluster_pod_cidrs.is_empty() {
        tracing::warn!(
            "without --cluster-cidr pods cannot be told from others: traffic from outside to cluster addresses is not masqueraded"
        );
    }
}

fn place(at: Option<SocketAddr>) -> String {
    at.map_or_else(|| "off".to_owned(), |at| at.to_string())
}

fn list(ranges: &[IpNet]) -> String {
    let texts: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    texts.join(",")
}

/// Checks what was typed; every error names the flag.
fn resolve(args: &AgentArgs, host_name: impl Fn() -> Result<String>) -> Result<Settings> {
    let node = node_name(args.node_name.as_deref(), host_name)?;
    let domain = args.cluster_domain.trim_end_matches('.');
    if !dns1123_subdomain(domain).is_empty() {
        bail!(
            "--cluster-domain: {:?} is not a DNS domain",
            args.cluster_domain
        );
    }
    let cuts = args.network_policy && args.established == Established::Cut;
    let given = NodeView {
        node: node.as_str().into(),
        cluster_pod_cidrs: ranges("--cluster-cidr", &args.cluster_cidr)?,
        detector: detector(args)?,
        service_cidrs: ranges("--service-cidr", &args.service_cidr)?,
        node_ports: node_ports(&args.nodeport_addresses)
            .map_err(|error| anyhow!("--nodeport-addresses: {error}"))?,
        external_ips: args.external_ips,
        masquerade_all: args.masquerade_all,
        masquerade_bit: 1 << args.masquerade_bit,
        algorithm: args.lb_algorithm,
        cluster_domain: domain.into(),
        pod_names: args.dns_pods.into(),
        dns_ttl: args.dns_ttl,
        dns_addresses: args.cluster_dns.clone(),
        close_unknown_pods: args.close_unknown_pods,
        cut_bit: cuts.then_some(1 << args.established_mark_bit),
        policy_deny: args.policy_deny.into(),
        ..NodeView::default()
    };
    cluster_dns(args)?;
    args.client_ip(&given)?;
    for pods in &given.cluster_pod_cidrs {
        if let Some(services) = given.service_cidrs.iter().find(|net| overlap(pods, net)) {
            bail!("--cluster-cidr {pods} and --service-cidr {services} overlap");
        }
    }
    let healthz = args.healthz_bind_address.at(HEALTHZ.port());
    let metrics = args.metrics_bind_address.at(METRICS.port());
    if let (Some(one), Some(other)) = (healthz, metrics)
        && one.port() == other.port()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
    {
        bail!("--healthz-bind-address {one} and --metrics-bind-address {other} are the same place");
    }
    Ok(Settings {
        given,
        healthz,
        metrics,
    })
}

/// Whether names can be answered at the addresses of `--cluster-dns`.
fn cluster_dns(args: &AgentArgs) -> Result<()> {
    let all = &args.cluster_dns;
    if !all.is_empty() && !args.serve_dns {
        bail!("--cluster-dns goes with --serve-dns");
    }
    for (place, address) in all.iter().enumerate() {
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            bail!("--cluster-dns: {address} is no address for pods to ask");
        }
        let mut before = all.iter().take(place);
        if before.any(|other| other.is_ipv4() == address.is_ipv4()) {
            bail!("--cluster-dns: {address} is the second address of its family");
        }
    }
    Ok(())
}

/// The mode and the one flag that goes with it.
fn detector(args: &AgentArgs) -> Result<Detector> {
    const BRIDGE: &str = "--pod-bridge-interface";
    const PREFIX: &str = "--pod-interface-name-prefix";
    let mode = args.detect_local_mode;
    let named = |flag: &str, name: &Option<String>, wanted: bool| match name {
        Some(_) if !wanted => bail!("{flag} goes with another --detect-local-mode"),
        None if wanted => bail!("this --detect-local-mode needs {flag}"),
        None => Ok(None),
        Some(name) => match LinkName::new(name) {
            Some(link) => Ok(Some(link)),
            None => bail!(
                "{flag}: {name:?} is not the name of a link (at most {} bytes)",
                LinkName::LONGEST
            ),
        },
    };
    let bridge = named(
        BRIDGE,
        &args.pod_bridge_interface,
        mode == LocalMode::BridgeInterface,
    )?;
    let prefix = named(
        PREFIX,
        &args.pod_interface_name_prefix,
        mode == LocalMode::InterfaceNamePrefix,
    )?;
    Ok(match mode {
        LocalMode::ClusterCidr => Detector::ClusterCidr,
        LocalMode::NodeCidr => Detector::NodeCidr,
        LocalMode::BridgeInterface => Detector::Bridge(bridge.unwrap_or_default()),
        LocalMode::InterfaceNamePrefix => Detector::Prefix(prefix.unwrap_or_default()),
    })
}

/// The flag, the environment or the host name; in lower case, as kubelets register.
fn node_name(given: Option<&str>, host_name: impl Fn() -> Result<String>) -> Result<String> {
    let name = match given {
        Some(name) => name.to_owned(),
        None => host_name().context("give --node-name or NODE_NAME")?,
    };
    let name = name.trim().to_lowercase();
    if !dns1123_subdomain(&name).is_empty() {
        bail!("--node-name, NODE_NAME or the host name: {name:?} is not the name of a node");
    }
    Ok(name)
}

pub(crate) fn host_name() -> Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.context("read the host name")
}

fn ranges(flag: &str, typed: &[IpNet]) -> Result<Vec<IpNet>> {
    for net in typed {
        no_host_bits(net).map_err(|error| anyhow!("{flag}: {error}"))?;
    }
    Ok(typed.to_vec())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use portolan_model::Algorithm;
    use portolan_plan::PodNames;

    use super::*;
    use crate::cli::{Cli, Command};

    fn typed(flags: &[&str]) -> Result<Settings> {
        let words = ["portolan", "agent"].iter().chain(flags);
        let Command::Agent(args) = Cli::try_parse_from(words)?.command else {
            bail!("another verb");
        };
        resolve(&args, || Ok("Worker-7\n".to_owned()))
    }

    fn refused(flags: &[&str], words: &[&str]) {
        let error = format!("{:#}", typed(flags).expect_err("refused"));
        for word in words {
            assert!(error.contains(word), "{word:?} in {error:?}");
        }
    }

    #[test]
    fn without_flags_it_is_as_kube_proxy_without_flags() {
        let settings = typed(&["--node-name", "n"]).unwrap();
        let expected = NodeView {
            node: "n".into(),
            masquerade_bit: 0x4000,
            cut_bit: Some(0x2000_0000),
            ..NodeView::default()
        };
        assert_eq!(settings.given, expected);
        assert_eq!(settings.healthz, Some("0.0.0.0:10256".parse().unwrap()));
        assert_eq!(settings.metrics, Some("127.0.0.1:10249".parse().unwrap()));
    }

    #[test]
    fn the_usual_algorithm_is_named_as_for_ipvs_or_ours() {
        let algorithm = |flags: &[&str]| typed(flags).unwrap().given.algorithm;
        assert_eq!(algorithm(&["--lb-algorithm", "maglev"]), Algorithm::Maglev);
        assert_eq!(algorithm(&["--ipvs-scheduler=rr"]), Algorithm::RoundRobin);
        refused(
            &["--lb-algorithm=least-connections"],
            &["--lb-algorithm", "eBPF plane", "round-robin"],
        );
    }

    #[test]
    fn the_node_is_called_as_its_kubelet_calls_it() {
        let name = |flags: &[&str]| typed(flags).unwrap().given.node.to_string();
        assert_eq!(name(&["--node-name", " Node-A.Example "]), "node-a.example");
        assert_eq!(name(&["--hostname-override=b"]), "b");
        if std::env::var_os("NODE_NAME").is_none() {
            assert_eq!(name(&[]), "worker-7");
        }
        refused(&["--node-name", "a_b"], &["--node-name", "a_b"]);
        refused(&["--node-name="], &["--node-name"]);
    }

    #[test]
    fn p7_p19_switches_reach_the_view() {
        let flags = [
            "--node-name=n",
            "--masquerade-all",
            "--iptables-masquerade-bit=0",
            "--external-ips=false",
            "--cluster-cidr=10.244.0.0/16,fd00:10:244::/48",
            "--service-cidr=10.96.0.0/12",
            "--cluster-domain=cluster.example.",
            "--dns-pods=verified",
            "--dns-ttl=0",
        ];
        let given = typed(&flags).unwrap().given;
        assert!(given.masquerade_all && !given.external_ips);
        assert_eq!(given.masquerade_bit, 1);
        assert_eq!(given.cluster_pod_cidrs.len(), 2);
        assert_eq!(given.service_cidrs, ["10.96.0.0/12".parse().unwrap()]);
        assert_eq!(&*given.cluster_domain, "cluster.example");
        assert_eq!((given.pod_names, given.dns_ttl), (PodNames::Verified, 0));
        let flags = [
            "--node-name=n",
            "--serve-dns",
            "--cluster-dns=10.96.0.10,fd00:10:96::a",
        ];
        assert_eq!(typed(&flags).unwrap().given.dns_addresses.len(), 2);
        refused(&["--cluster-dns=10.96.0.10"], &["--serve-dns"]);
        for wrong in [
            "127.0.0.1",
            "0.0.0.0",
            "ff02::1",
            "10.96.0.10,10.96.0.11",
            "a",
        ] {
            let flag = format!("--cluster-dns={wrong}");
            refused(&["--serve-dns", &flag], &["--cluster-dns"]);
        }
        refused(&["--dns-pods=some"], &["--dns-pods", "insecure"]);
        refused(&["--dns-ttl=3601"], &["--dns-ttl", "3600"]);
    }

    #[test]
    fn p7_a_detector_has_the_flag_that_it_needs() {
        let link = |name| LinkName::new(name).unwrap();
        let found = |flags: &[&str]| {
            let all: Vec<&str> = ["--node-name=n"].iter().chain(flags).copied().collect();
            typed(&all).unwrap().given.detector
        };
        assert_eq!(found(&["--detect-local-mode=NodeCIDR"]), Detector::NodeCidr);
        assert_eq!(
            found(&[
                "--detect-local-mode=BridgeInterface",
                "--pod-bridge-interface=cni0"
            ]),
            Detector::Bridge(link("cni0"))
        );
        assert_eq!(
            found(&[
                "--detect-local-mode=InterfaceNamePrefix",
                "--pod-interface-name-prefix=veth"
            ]),
            Detector::Prefix(link("veth"))
        );
        refused(
            &["--detect-local-mode=BridgeInterface"],
            &["--pod-bridge-interface"],
        );
        refused(
            &["--detect-local-mode=InterfaceNamePrefix"],
            &["--pod-interface-name-prefix"],
        );
        refused(
            &["--pod-bridge-interface=cni0"],
            &["--pod-bridge-interface", "--detect-local-mode"],
        );
        refused(
            &[
                "--detect-local-mode=BridgeInterface",
                "--pod-bridge-interface=a-name-too-long-for-a-link",
            ],
            &["--pod-bridge-interface", "15 bytes"],
        );
        refused(
            &["--detect-local-mode=Magic"],
            &["--detect-local-mode", "NodeCIDR"],
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_the_flags_name() {
        refused(
            &["--cluster-cidr=10.244.1.0/16"],
            &["--cluster-cidr", "10.244.0.0/16"],
        );
        refused(&["--service-cidr=10.96.0.1/16"], &["--service-cidr"]);
        refused(
            &["--cluster-cidr=10.0.0.0/8", "--service-cidr=10.96.0.0/16"],
            &["--cluster-cidr 10.0.0.0/8", "--service-cidr 10.96.0.0/16"],
        );
        refused(&["--masquerade-bit=32"], &["--masquerade-bit"]);
        refused(
            &["--preserve-client-ip"],
            &["--preserve-client-ip", "--cluster-cidr"],
        );
        let mask = "--preserve-client-ip-mask";
        let given = ["--preserve-client-ip", "--cluster-cidr=10.244.0.0/16"];
        for (value, names) in [("0xf000", "--masquerade-bit"), ("0xf0f", "adjacent")] {
            refused(
                &[given[0], given[1], &format!("{mask}={value}")],
                &[mask, names],
            );
        }
        refused(
            &["--healthz-bind-address=localhost"],
            &["--healthz-bind-address"],
        );
        refused(
            &[
                "--healthz-bind-address=0.0.0.0:99",
                "--metrics-bind-address=127.0.0.1:99",
            ],
            &["--healthz-bind-address", "--metrics-bind-address"],
        );
        refused(&["--cluster-domain=a..b"], &["--cluster-domain"]);
    }

    #[test]
    fn p15_where_health_is_answered() {
        let at = |text: &str| {
            typed(&["--node-name=n", &format!("--healthz-bind-address={text}")])
                .unwrap()
                .healthz
        };
        assert_eq!(at(""), None);
        assert_eq!(at("127.0.0.1"), Some("127.0.0.1:10256".parse().unwrap()));
        assert_eq!(at("[::1]:99"), Some("[::1]:99".parse().unwrap()));
    }
}
