//! `portolan describe`: one object with what belongs to it, in kubectl's layout.
//!
//! What belongs to an object (endpoints of a Service, pods of a node, events) is
//! gathered first; the pages are functions of values, so that they can be held
//! against kubectl's own.

mod cluster;
mod containers;
mod data;
mod network;
mod page;
mod pod;
mod workload;

use anyhow::{Result, bail};
use serde_json::Value;

use super::{encoded, manifests};
use crate::cli::DescribeArgs;
use crate::connect::{Call, Session, server_error};
use crate::out;
use crate::resources::{Resource, Resources};
use page::{Page, age, list, text};

/// What belongs to the object that is described.
#[derive(Default)]
struct Related {
    /// What happened to it; `None` with `--show-events=false`.
    events: Option<Vec<Value>>,
    /// EndpointSlices of a Service.
    slices: Vec<Value>,
    /// Pods in the same namespace, or on a node.
    pods: Vec<Value>,
    /// ReplicaSets in the namespace of a Deployment.
    replica_sets: Vec<Value>,
    /// The Lease of a node.
    lease: Option<Value>,
    /// For ages.
    now: jiff::Timestamp,
}

/// Runs the verb.
pub(crate) async fn run(args: DescribeArgs) -> Result<()> {
    let session = Session::open(&args.connection).await?;
    let resources = Resources::discover(&session).await?;
    let mut targets = resources.parse(&args.resources)?;
    for object in manifests::read_if_any(&args.filename)? {
        let name = text(&object["metadata"]["name"]).to_owned();
        targets.push((resources.of_manifest(&object)?.clone(), Some(name)));
    }
    if targets.is_empty() {
        bail!("error: You must specify the type of resource to describe.");
    }
    let mut first = true;
    for (resource, name) in targets {
        let (found, by_prefix) = objects(&session, &args, &resource, name.as_deref()).await?;
        for object in found {
            if !first && !by_prefix {
                out::line("\n");
            }
            first = false;
            let related = related(&session, &args, &resource, &object).await?;
            out::raw(describe(&resource, &object, &related).as_bytes());
            if by_prefix {
                out::line("");
            }
        }
    }
    if first {
        out::note(format_args!(
            "No resources found in {} namespace.",
            session.namespace
        ));
    }
    Ok(())
}

/// The object of that name; without one, those whose names begin so (then true); or
/// all that match.
async fn objects(
    session: &Session,
    args: &DescribeArgs,
    resource: &Resource,
    name: Option<&str>,
) -> Result<(Vec<Value>, bool)> {
    let namespace = (!args.all_namespaces).then_some(session.namespace.as_str());
    if let Some(name) = name {
        let path = resource.path(namespace, Some(name));
        let exact = session.try_call(&Call::get(&path)).await?;
        if exact.status < 400 {
            return Ok((vec![exact.body], false));
        }
        let all = items(session, &resource.path(namespace, None)).await;
        let named: Vec<Value> = all
            .into_iter()
            .filter(|o| text(&o["metadata"]["name"]).starts_with(name))
            .collect();
        if exact.status != 404 || named.is_empty() {
            return Err(server_error(&exact));
        }
        return Ok((with_type(named, resource), true));
    }
    let mut path = resource.path(namespace, None);
    if let Some(selector) = &args.selector {
        path.push_str(&format!("?labelSelector={}", encoded(selector)));
    }
    let list_of = session.call(&Call::get(&path)).await?.body;
    let all = list(&list_of["items"]).to_vec();
    Ok((with_type(all, resource), false))
}

/// The members of a list do not say their type themselves.
fn with_type(mut objects: Vec<Value>, resource: &Resource) -> Vec<Value> {
    for object in &mut objects {
        object["apiVersion"] = resource.api_version().into();
        object["kind"] = resource.kind.clone().into();
    }
    objects
}

/// A list that may be missing: what cannot be read is not shown.
async fn items(session: &Session, path: &str) -> Vec<Value> {
    match session.try_call(&Call::get(path)).await {
        Ok(answer) if answer.status < 400 => list(&answer.body["items"]).to_vec(),
        Ok(_) | Err(_) => Vec::new(),
    }
}

/// Gathers what belongs to the object.
async fn related(
    session: &Session,
    args: &DescribeArgs,
    resource: &Resource,
    object: &Value,
) -> Result<Related> {
    let metadata = &object["metadata"];
    let (name, namespace) = (text(&metadata["name"]), text(&metadata["namespace"]));
    let mut found = Related {
        now: jiff::Timestamp::now(),
        ..Related::default()
    };
    if args.show_events {
        found.events = Some(events(session, resource, object).await);
    }
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Service") => {
            let label = encoded(&format!("kubernetes.io/service-name={name}"));
            let path = format!(
                "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector={label}"
            );
            found.slices = items(session, &path).await;
        }
        ("", "Node") => {
            let field = encoded(&format!("spec.nodeName={name}"));
            found.pods = items(session, &format!("/api/v1/pods?fieldSelector={field}")).await;
            let lease =
                format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}");
            let answer = session.try_call(&Call::get(&lease)).await?;
            found.lease = (answer.status < 400).then_some(answer.body);
        }
        ("apps", "Deployment") => {
            let path = format!("/apis/apps/v1/namespaces/{namespace}/replicasets");
            found.replica_sets = items(session, &path).await;
        }
        ("apps", _) => found.pods = items(session, &pods).await,
        _ => {}
    }
    Ok(found)
}

/// The events about an object, oldest first.
async fn events(session: &Session, resource: &Resource, object: &Value) -> Vec<Value> {
    let metadata = &object["metadata"];
    let name = text(&metadata["name"]);
    // Events about nodes name the node instead of its uid, and lie in `default`.
    let uid = if resource.kind == "Node" {
        name
    } else {
        text(&metadata["uid"])
    };
    let wanted = [
        format!("involvedObject.name={name}"),
        format!("involvedObject.namespace={}", text(&metadata["namespace"])),
        format!("involvedObject.kind={}", resource.kind),
        format!("involvedObject.uid={uid}"),
    ];
    let scope = match text(&metadata["namespace"]) {
        "" => String::new(),
        namespace => format!("/namespaces/{namespace}"),
    };
    let path = format!(
        "/api/v1{scope}/events?fieldSelector={}",
        encoded(&wanted.join(","))
    );
    let mut events = items(session, &path).await;
    events.sort_by_key(|e| text(&e["lastTimestamp"]).to_owned());
    events
}

/// The page of an object.
fn describe(resource: &Resource, object: &Value, related: &Related) -> String {
    let mut page = Page::default();
    let p = &mut page;
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Service") => network::service(p, object, related),
        ("", "Pod") => pod::pod(p, object, related),
        ("", "Endpoints") => network::endpoints_object(p, object, related),
        ("", "Node") => cluster::node(p, object, related),
        ("", "Namespace") => cluster::namespace(p, object),
        ("", "ConfigMap") => data::config_map(p, object, related),
        ("", "Secret") => data::secret(p, object),
        ("", "ServiceAccount") => data::service_account(p, object, related),
        ("apps", "Deployment") => workload::deployment(p, object, related),
        ("apps", "ReplicaSet") => workload::replica_set(p, object, related),
        ("apps", "StatefulSet") => workload::stateful_set(p, object, related),
        ("apps", "DaemonSet") => workload::daemon_set(p, object, related),
        ("discovery.k8s.io", "EndpointSlice") => network::endpoint_slice(p, object, related),
        ("networking.k8s.io", "NetworkPolicy") => network::network_policy(p, object),
        ("networking.k8s.io", "IngressClass") => network::ingress_class(p, object, related),
        ("networking.k8s.io", "ServiceCIDR" | "IPAddress") => {
            network::addresses(p, object, related);
        }
        _ => data::anything(p, object, related),
    }
    page.render()
}

impl Page {
    /// The events of the object, as the last block of a page.
    fn events(&mut self, related: &Related) {
        let Some(events) = &related.events else {
            return;
        };
        if events.is_empty() {
            self.field(0, "Events", "<none>");
            return;
        }
        self.line(0, "Events:");
        self.line(1, "Type\tReason\tAge\tFrom\tMessage");
        self.line(1, "----\t------\t----\t----\t-------");
        for event in events {
            let first = if event["eventTime"].is_string() {
                age(&event["eventTime"], related.now)
            } else {
                age(&event["firstTimestamp"], related.now)
            };
            let count = event["count"].as_i64().unwrap_or(1);
            let when = if count > 1 {
                let last = age(&event["lastTimestamp"], related.now);
                format!("{last} (x{count} over {first})")
            } else {
                first
            };
            let from = match text(&event["source"]["component"]) {
                "" => text(&event["reportingComponent"]),
                component => component,
            };
            let message = text(&event["message"]).trim();
            let (kind, reason) = (text(&event["type"]), text(&event["reason"]));
            self.line(
                1,
                format_args!("{kind}\t{reason}\t{when}\t{from}\t{message}"),
            );
        }
    }
}
