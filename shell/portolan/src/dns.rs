//! `portolan dns`: the DNS server alone, and its configuration file.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use ipnet::IpNet;
use portolan_agent::dns::{
    Clients, Configured, Dial, DnsGuard, HandOver, KeepConfig, check_configuration,
};
use portolan_agent::names_alone::{NamesAlone, NamesConfig};
use portolan_api::dns_configuration::{self as file, Kubernetes, Pods};
use portolan_api::validate::names::dns1123_subdomain;
use portolan_plan::{NodeView, PodNames};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::agent::host_name;
use crate::cli::{DnsArgs, DnsCommand, ServeArgs};
use crate::out;
use crate::verbs::get::print_value;

/// The domain where nothing says another one.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// Runs one of the subcommands.
pub(crate) fn run(args: DnsArgs) -> Result<ExitCode> {
    match args.command {
        DnsCommand::Serve(args) => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?;
            runtime.block_on(serve(args))?;
            Ok(ExitCode::SUCCESS)
        }
        DnsCommand::Import(args) => import(&args.file),
        DnsCommand::Check(args) => check(&args.file),
    }
}

fn text_of(path: &Path) -> Result<String> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin()
            .read_to_string(&mut text)
            .context("read standard input")?;
    } else {
        text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    }
    Ok(text)
}

/// Prints what a Corefile means. What was left out is no error: it is listed.
fn import(path: &Path) -> Result<ExitCode> {
    let name = path.display();
    let imported = file::import(&text_of(path)?).map_err(|fault| anyhow!("{name}: {fault}"))?;
    let value = imported.configuration.to_value();
    file::read(&serde_json::to_string(&value)?)
        .with_context(|| format!("{name}: it means what the configuration does not allow"))?;
    print_value(&value, true)?;
    for left in &imported.not_converted {
        out::note(format_args!("{name}: not converted: {left}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn check(path: &Path) -> Result<ExitCode> {
    if path == Path::new("-") {
        file::read(&text_of(path)?)?;
    } else {
        check_configuration(path)?;
    }
    out::line(format_args!("{}: fine", path.display()));
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: ServeArgs) -> Result<()> {
    let kube = match &args.zone_from_kubeconfig {
        Some(path) => portolan_client::from_kubeconfig_file(path).await?,
        None => portolan_client::from_service_account()
            .context("give --zone-from-kubeconfig FILE, or run in a pod with a service account")?,
    };
    let configured = Configured::open(args.config.clone(), Dial::Own)?;
    let again = Arc::new(Notify::new());
    let places = configured.configuration().places.clone();
    let guard = guard(&args, configured.configuration().log_one_in);
    let mut view = NodeView {
        cluster_domain: CLUSTER_DOMAIN.into(),
        ..NodeView::default()
    };
    said(&configured.configuration().kubernetes, &mut view);
    if let Some(domain) = &args.cluster_domain {
        let name = domain.trim_end_matches('.').to_lowercase();
        if !dns1123_subdomain(&name).is_empty() {
            bail!("--cluster-domain: {domain:?} is not a DNS domain");
        }
        view.cluster_domain = name.as_str().into();
    }
    let hand_over = HandOver::usual();
    let hurry = hand_over.hurry.clone();
    let config = NamesConfig {
        view,
        kube,
        listen: args.listen,
        configured,
        again: Arc::clone(&again),
        guard,
        keep: keep(
            args.state_dir.as_ref(),
            args.zone_from_kubeconfig.as_deref(),
        )
        .await?,
        health: places.health,
        lameduck: places.lameduck,
        hand_over,
        ready: places.ready,
        metrics: places.metrics,
    };
    let domain = config.view.cluster_domain.clone();
    let names = NamesAlone::start(config)?;
    let listen: Vec<String> = names.addresses().iter().map(ToString::to_string).collect();
    tracing::info!(%domain, listen = listen.join(","), "portolan dns {} starts", env!("CARGO_PKG_VERSION"));
    let shutdown = CancellationToken::new();
    read_again_on_hup(again)?;
    stop_on_signals(shutdown.clone(), hurry)?;
    names.run(shutdown).await?;
    Ok(())
}

/// Stops on TERM, which lets another process take over, and at once on Ctrl-C or when
/// told twice.
pub(crate) fn stop_on_signals(stop: CancellationToken, hurry: CancellationToken) -> Result<()> {
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::spawn(async move {
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {
                stop.cancel();
                tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            }
        }
        hurry.cancel();
        stop.cancel();
    });
    Ok(())
}

/// Where names are kept, and for which cluster; nowhere without a directory.
pub(crate) async fn keep(
    directory: Option<&PathBuf>,
    kubeconfig: Option<&Path>,
) -> Result<Option<KeepConfig>> {
    let Some(directory) = directory.filter(|path| !path.as_os_str().is_empty()) else {
        return Ok(None);
    };
    Ok(Some(KeepConfig {
        directory: directory.clone(),
        cluster: portolan_client::server_url(kubeconfig).await?,
    }))
}

/// Who is answered, and what is told of it.
fn guard(args: &ServeArgs, log: Option<NonZeroU32>) -> DnsGuard {
    let clients = match args.allow.as_slice() {
        [] => Clients::Everybody,
        allowed => {
            let own = [
                IpAddr::from(Ipv4Addr::LOCALHOST),
                Ipv6Addr::LOCALHOST.into(),
            ];
            let own = own.map(IpNet::from);
            Clients::Within(allowed.iter().copied().chain(own).collect())
        }
    };
    let guard = DnsGuard {
        transfers: args.transfer.clone(),
        rate: args.rate_limit,
        log_one_in: args.log_one_in.or(log),
        // Whoever asks wants to tell replicas apart; without a name that is not to be.
        name: host_name().unwrap_or_default().trim().to_owned(),
        ..DnsGuard::default()
    };
    guard.clients.store(Arc::new(clients));
    guard
}

/// Notifies at each SIGHUP.
pub(crate) fn read_again_on_hup(again: Arc<Notify>) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            again.notify_one();
        }
    });
    Ok(())
}

/// What the file says of the cluster's names, in place of what the view has.
pub(crate) fn said(kubernetes: &Kubernetes, view: &mut NodeView) {
    if let Some(domain) = &kubernetes.domain {
        view.cluster_domain = domain.as_str().into();
    }
    if let Some(pods) = kubernetes.pods {
        view.pod_names = match pods {
            Pods::Disabled => PodNames::Disabled,
            Pods::Insecure => PodNames::Insecure,
            Pods::Verified => PodNames::Verified,
        };
    }
    if let Some(zonal) = kubernetes.zonal {
        view.zonal_names = zonal;
    }
    if let Some(ttl) = kubernetes.ttl {
        view.dns_ttl = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
    }
}
