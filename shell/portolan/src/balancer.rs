//! `portolan lb`: load balancers' addresses, their pools, why a Service has none, and
//! from where they are announced.
//!
//! What is printed is what the API server has, and what `plan` makes of it: the same
//! functions that decide.

mod announced;

use std::collections::BTreeSet;

use anyhow::{Result, anyhow, bail};
use portolan_model::workloads::{BalancedService, BalancerNode, Object, Pool, ReadyNodes};
use portolan_plan::load_balancer::{
    CLASS, CONDITION, LoadBalancer, NODES_CLASS, Places, fitness, is_ours,
};
use portolan_why::doctor::Announcers;
use serde_json::{Value, json};

use crate::cli::{
    BalancerArgs, BalancerCommand, BalancerStatusArgs, BalancerViewArgs, ExplainArgs, ReportOutput,
};
use crate::connect::{Call, Session};
use crate::out;
use crate::verbs::get::print_value;

const OWN_POOLS: &str = "/apis/portolan.dev/v1alpha1/addresspools";
const METAL_POOLS: &str = "/apis/metallb.io/v1beta1/ipaddresspools";

/// Runs the verb.
pub(crate) async fn run(args: BalancerArgs) -> Result<()> {
    match args.command {
        BalancerCommand::Status(args) => status(args).await,
        BalancerCommand::Pools(args) => show_pools(args).await,
        BalancerCommand::Bgp(args) => show_sessions(args).await,
        BalancerCommand::Explain(args) => explain(args).await,
    }
}

/// All objects of a kind; none where it is not served.
async fn list(session: &Session, path: &str) -> Result<Vec<Value>> {
    let answer = session.try_call(&Call::get(path)).await?;
    match answer.status {
        404 => Ok(Vec::new()),
        200..=299 => Ok(answer.body["items"].as_array().cloned().unwrap_or_default()),
        _ => Err(crate::connect::server_error(&answer)),
    }
}

async fn pools(session: &Session) -> Result<Vec<Pool>> {
    let mut pools = Vec::new();
    for path in [OWN_POOLS, METAL_POOLS] {
        pools.extend(list(session, path).await?.iter().map(Pool::read));
    }
    Ok(pools)
}

/// All that the doctor asks about announcing.
pub(crate) async fn announcers(session: &Session) -> Result<Announcers> {
    let pools = pools(session).await?;
    let services = list(session, "/api/v1/services").await?;
    let services = services.iter().map(BalancedService::read);
    let services = services.filter(|service| service.wanted).collect();
    Ok(announced::World::read(session)
        .await?
        .announcers(&pools, services))
}

/// A table, or the same as JSON or YAML.
fn print(head: &[&str], rows: &[Vec<String>], output: Option<ReportOutput>) -> Result<()> {
    let Some(output) = output else {
        let head: Vec<String> = head.iter().map(|title| (*title).to_owned()).collect();
        out::raw(out::table(&head, rows).as_bytes());
        return Ok(());
    };
    let objects: Vec<Value> = rows
        .iter()
        .map(|row| {
            let named = head.iter().zip(row);
            let fields = named.map(|(title, cell)| (title.to_lowercase(), cell.as_str().into()));
            Value::Object(fields.collect())
        })
        .collect();
    print_value(&json!(objects), output == ReportOutput::Yaml)
}

async fn status(args: BalancerStatusArgs) -> Result<()> {
    let BalancerStatusArgs {
        view: args,
        all_namespaces,
    } = args;
    let session = Session::open(&args.connection).await?;
    let path = match &args.connection.namespace {
        Some(namespace) if !all_namespaces => format!("/api/v1/namespaces/{namespace}/services"),
        Some(_) | None => "/api/v1/services".to_owned(),
    };
    let pools = pools(&session).await?;
    let services = list(&session, &path).await?;
    let services = services.iter().map(BalancedService::read);
    let rows: Vec<Vec<String>> = services
        .filter(|service| service.wanted)
        .map(|service| {
            let key = &service.meta.key;
            vec![
                key.namespace.clone(),
                key.name.clone(),
                addresses(&service),
                origin(&service, &pools),
                why(&service),
            ]
        })
        .collect();
    print(
        &["NAMESPACE", "NAME", "ADDRESS", "FROM", "WHY"],
        &rows,
        args.output,
    )
}

/// As in EXTERNAL-IP.
fn addresses(service: &BalancedService) -> String {
    if service.ingress.is_empty() {
        return "<pending>".to_owned();
    }
    let texts: Vec<String> = service.ingress.iter().map(ToString::to_string).collect();
    texts.join(",")
}

/// Where the addresses of a Service come from, or would.
fn origin(service: &BalancedService, pools: &[Pool]) -> String {
    if !is_ours(service) {
        return match &service.class {
            Some(class) => format!("class {class}"),
            None => "<none>".to_owned(),
        };
    }
    if pools.is_empty() || service.class.as_deref() == Some(NODES_CLASS) {
        return "nodes".to_owned();
    }
    let of: BTreeSet<&str> = service
        .ingress
        .iter()
        .flat_map(|address| pools.iter().filter(|pool| pool.covers(*address)))
        .map(Pool::name)
        .collect();
    let names: Vec<&str> = of.into_iter().collect();
    match names.is_empty() {
        true => "pools".to_owned(),
        false => format!("pool {}", names.join(",")),
    }
}

/// What the controller says of a Service.
fn why(service: &BalancedService) -> String {
    match service.condition(CONDITION) {
        Some(condition) => condition.message.clone(),
        None if is_ours(service) => {
            "nobody has looked at it: does an agent run with --load-balancer?".to_owned()
        }
        None => String::new(),
    }
}

async fn show_pools(args: BalancerViewArgs) -> Result<()> {
    let session = Session::open(&args.connection).await?;
    let mut balancer = LoadBalancer::default();
    let pools = pools(&session).await?;
    for pool in &pools {
        balancer.set_pool(pool.clone());
    }
    let services = list(&session, "/api/v1/services").await?;
    let used: BTreeSet<_> = services
        .iter()
        .map(BalancedService::read)
        .filter(is_ours)
        .flat_map(|service| service.ingress)
        .collect();
    let rows: Vec<Vec<String>> = pools
        .iter()
        .map(|pool| {
            let spans: Vec<String> = pool.spans.iter().map(ToString::to_string).collect();
            let total = balancer.size(&pool.meta.key);
            let used = used.iter().filter(|address| pool.covers(**address)).count();
            let free = total.saturating_sub(used as u128);
            vec![
                pool.meta.key.to_string(),
                spans.join(","),
                used.to_string(),
                free.to_string(),
                if pool.auto_assign { "yes" } else { "no" }.to_owned(),
                pool.faults.join("; "),
            ]
        })
        .collect();
    print(
        &["NAME", "ADDRESSES", "USED", "FREE", "AUTO", "FAULTS"],
        &rows,
        args.output,
    )
}

async fn show_sessions(args: BalancerViewArgs) -> Result<()> {
    let session = Session::open(&args.connection).await?;
    let pools = pools(&session).await?;
    let rows = announced::sessions(&session, &pools).await?;
    print(
        &[
            "PEER",
            "ADDRESS",
            "ASN",
            "NODE",
            "STATE",
            "SINCE",
            "BFD",
            "PREFIXES",
            "LAST ERROR",
        ],
        &rows,
        args.output,
    )
}

async fn explain(args: ExplainArgs) -> Result<()> {
    let session = Session::open(&args.connection).await?;
    let name = match args.service.split_once('/') {
        None => args.service.as_str(),
        Some(("svc" | "service" | "services", name)) => name,
        Some((kind, _)) => bail!("error: {kind} is no kind with load balancers: say svc/NAME"),
    };
    let namespace = &session.namespace;
    let path = format!("/api/v1/namespaces/{namespace}/services/{name}");
    let service = BalancedService::read(&session.call(&Call::get(&path)).await?.body);
    if !service.wanted {
        return Err(anyhow!(
            "error: service {namespace}/{name} is not of type LoadBalancer"
        ));
    }
    let pools = pools(&session).await?;
    let mut rows: Vec<(&str, String)> =
        vec![("class", class(&service)), ("asks for", asked(&service))];
    rows.push(("from", origin(&service, &pools)));
    rows.push(("address", addresses(&service)));
    rows.push(("why", why(&service)));
    if is_ours(&service) {
        let by_nodes = pools.is_empty() || service.class.as_deref() == Some(NODES_CLASS);
        if by_nodes {
            rows.extend(nodes(&session, &service).await?);
        } else if !service.ingress.is_empty() {
            rows.extend(announced::explain(&session, &service, &pools).await?);
        }
    }
    out::line(format_args!("service/{name} in namespace {namespace}"));
    let cells: Vec<Vec<String>> = rows
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(title, text)| vec![format!("  {title}"), text])
        .collect();
    out::raw(out::table(&[], &cells).as_bytes());
    Ok(())
}

/// Whose the Service is (L1).
fn class(service: &BalancedService) -> String {
    match service.class.as_deref() {
        None => "none: ours".to_owned(),
        Some(class @ (CLASS | NODES_CLASS)) => format!("{class}: ours"),
        Some(class) => format!("{class}: somebody else's"),
    }
}

fn asked(service: &BalancedService) -> String {
    let asked = &service.asked;
    let mut words: Vec<String> = asked.addresses.iter().map(ToString::to_string).collect();
    words.extend(asked.pool.iter().map(|pool| format!("pool {pool}")));
    words.extend(
        asked
            .sharing
            .iter()
            .map(|key| format!("sharing under the key {key:?}")),
    );
    words.extend(asked.fault.clone());
    words.join(", ")
}

/// Which nodes stand in for a Service, a row each.
async fn nodes(
    session: &Session,
    service: &BalancedService,
) -> Result<Vec<(&'static str, String)>> {
    let nodes = list(session, "/api/v1/nodes").await?;
    let nodes: Vec<BalancerNode> = nodes.iter().map(BalancerNode::read).collect();
    let ready = ready_on(session, service).await?;
    let places = Places {
        nodes: &nodes.iter().collect::<Vec<_>>(),
        ready_on: &ready.iter().map(String::as_str).collect(),
        api_servers: &BTreeSet::new(),
    };
    let judged = fitness(service, &places).into_iter().enumerate();
    let rows = judged.map(|(at, (node, judged))| {
        let title = if at == 0 { "nodes" } else { "" };
        let name = &node.meta.key.name;
        match judged {
            Ok(()) => (title, format!("\u{2713} {name}")),
            Err(why) => (title, format!("\u{2717} {name}: {why}")),
        }
    });
    Ok(rows.collect())
}

/// The nodes of a Service's ready endpoints.
async fn ready_on(session: &Session, service: &BalancedService) -> Result<BTreeSet<String>> {
    let key = &service.meta.key;
    let path = format!(
        "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{}",
        key.namespace, key.name
    );
    let slices = list(session, &path).await?;
    let slices = slices.iter().map(ReadyNodes::read);
    Ok(slices.flat_map(|slice| slice.nodes).collect())
}
