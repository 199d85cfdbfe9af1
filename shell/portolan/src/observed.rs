//! The cluster as the API server tells it at one moment, for commands that
//! explain: the same intake and the same plan as the agent's.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use portolan_agent::replies;
use portolan_api::lean;
use portolan_model::{Change, Cluster, Fact, Kind, Problem, intake};
use portolan_plan::{NodePlan, NodeView};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::connect::{Call, Session};

/// What the server holds.
pub(crate) struct Observed {
    /// The facts.
    pub(crate) cluster: Cluster,
    /// What could not be used.
    pub(crate) problems: Vec<Problem>,
    /// All pods.
    pub(crate) pods: Vec<lean::Pod>,
    /// All nodes, as objects.
    pub(crate) nodes: Vec<lean::Node>,
    /// All Services, as objects.
    pub(crate) services: Vec<lean::Service>,
    /// All EndpointSlices, as objects.
    pub(crate) slices: Vec<lean::EndpointSlice>,
    /// What nodes say of the way back of clients' connections; empty where they may not be
    /// read.
    reply_paths: Vec<Value>,
    /// Why NetworkPolicies could not be read; the cluster has none of them then.
    pub(crate) policies_unread: Option<String>,
}

impl Observed {
    /// Lists everything that decisions need.
    pub(crate) async fn read(session: &Session) -> Result<Self> {
        let mut problems = Vec::new();
        let mut cluster = Cluster::default();
        let services: Vec<lean::Service> = list(session, "/api/v1/services").await?;
        let slices: Vec<lean::EndpointSlice> =
            list(session, "/apis/discovery.k8s.io/v1/endpointslices").await?;
        let nodes: Vec<lean::Node> = list(session, "/api/v1/nodes").await?;
        let namespaces: Vec<lean::Namespace> = list(session, "/api/v1/namespaces").await?;
        let mut keep = |(fact, found): (Option<Fact>, Vec<Problem>)| {
            problems.extend(found);
            fact
        };
        let facts = services.iter().filter_map(|o| {
            let (fact, found) = intake::service(o);
            keep((Some(Fact::Service(fact.into())), found))
        });
        cluster.apply(Change::Replace(Kind::Service, facts.collect()));
        let facts = slices.iter().filter_map(|o| {
            let (fact, found) = intake::slice(o);
            keep((fact.map(|f| Fact::Slice(f.into())), found))
        });
        cluster.apply(Change::Replace(Kind::Slice, facts.collect()));
        let facts = nodes.iter().filter_map(|o| {
            let (fact, found) = intake::node(o);
            keep((Some(Fact::Node(fact.into())), found))
        });
        cluster.apply(Change::Replace(Kind::Node, facts.collect()));
        let facts = namespaces
            .iter()
            .map(|o| Fact::Namespace(intake::namespace(o)));
        cluster.apply(Change::Replace(Kind::Namespace, facts.collect()));
        let facts = service_cidrs(session).await?.into_iter().map(|o| {
            let (fact, found) = intake::service_cidr(&o);
            problems.extend(found);
            Fact::ServiceCidr(fact.into())
        });
        cluster.apply(Change::Replace(Kind::ServiceCidr, facts.collect()));
        let pods = read_pods(session, &mut cluster).await?;
        let reply_paths = reply_paths(session).await?;
        let policies_unread = read_policies(session, &mut cluster, &mut problems).await?;
        Ok(Self {
            cluster,
            problems,
            pods,
            reply_paths,
            policies_unread,
            nodes,
            services,
            slices,
        })
    }

    /// The plan of one node.
    pub(crate) fn plan(&self, node: &str) -> NodePlan {
        let pod_cidrs = self.nodes.iter().flat_map(|node| &node.spec.pod_cidrs);
        let view = NodeView {
            node: node.into(),
            cluster_pod_cidrs: pod_cidrs.filter_map(|net| net.parse().ok()).collect(),
            dns_addresses: self.dns_addresses(),
            replies: replies::seen_in(&self.reply_paths, node).map(Arc::new),
            ..NodeView::default()
        };
        portolan_plan::node(&self.cluster, &view.observed(&self.cluster))
    }

    fn dns_addresses(&self) -> Vec<IpAddr> {
        let key = portolan_model::ServiceKey::new("kube-system", "kube-dns");
        self.cluster
            .service(&key)
            .map(|s| s.cluster_ips.clone())
            .unwrap_or_default()
    }
}

/// All pods, as objects and as facts.
async fn read_pods(session: &Session, cluster: &mut Cluster) -> Result<Vec<lean::Pod>> {
    let objects: Vec<Value> = list(session, "/api/v1/pods").await?;
    let mut facts = Vec::new();
    let mut pods = Vec::new();
    for object in objects {
        let fact: lean::PodFacts = lean::view(&object).context("a Pod")?;
        facts.push(Fact::Pod(intake::pod(&fact).0.into()));
        pods.push(serde_json::from_value(object).context("a Pod")?);
    }
    cluster.apply(Change::Replace(Kind::Pod, facts));
    Ok(pods)
}

/// All NetworkPolicies and ClusterNetworkPolicies as facts; why not, where the server does not tell.
async fn read_policies(
    session: &Session,
    cluster: &mut Cluster,
    problems: &mut Vec<Problem>,
) -> Result<Option<String>> {
    let call = Call::get("/apis/networking.k8s.io/v1/networkpolicies");
    let answer = session.try_call(&call).await?;
    if answer.status >= 400 {
        let why = answer.body["message"].as_str().unwrap_or("no answer");
        return Ok(Some(why.to_owned()));
    }
    let mut facts = Vec::new();
    for item in answer.body["items"].as_array().into_iter().flatten() {
        let object: lean::NetworkPolicy = lean::view(item).context("a NetworkPolicy")?;
        let (fact, found) = intake::policy(&object);
        problems.extend(found);
        facts.push(Fact::Policy(fact.into()));
    }
    cluster.apply(Change::Replace(Kind::Policy, facts));
    // A cluster that does not know the kind has none.
    let call = Call::get("/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies");
    let answer = session.try_call(&call).await?;
    if answer.status == 403 {
        let why = answer.body["message"].as_str().unwrap_or("no answer");
        return Ok(Some(why.to_owned()));
    }
    let mut facts = Vec::new();
    for item in answer.body["items"].as_array().into_iter().flatten() {
        let object: lean::ClusterNetworkPolicy =
            lean::view(item).context("a ClusterNetworkPolicy")?;
        let (fact, found) = intake::cluster_policy(&object);
        problems.extend(found);
        facts.push(Fact::ClusterPolicy(fact.into()));
    }
    cluster.apply(Change::Replace(Kind::ClusterPolicy, facts));
    Ok(None)
}

/// All ServiceCIDRs; a server older than 1.33 has none.
async fn service_cidrs(session: &Session) -> Result<Vec<lean::ServiceCidr>> {
    let call = Call::get("/apis/networking.k8s.io/v1/servicecidrs");
    let answer = session.try_call(&call).await?;
    let items = answer.body["items"].as_array().into_iter().flatten();
    let cidrs = items.map(|item| lean::view(item).context("a ServiceCIDR"));
    cidrs.collect()
}

/// The Leases by which nodes tell each other of the way back.
async fn reply_paths(session: &Session) -> Result<Vec<Value>> {
    let leases = "/apis/coordination.k8s.io/v1/leases?labelSelector=";
    let answer = session
        .try_call(&Call::get(&format!("{leases}{}", replies::LABEL)))
        .await?;
    let items = answer.body["items"].as_array().into_iter().flatten();
    Ok(items.cloned().collect())
}

/// Lists one kind.
pub(crate) async fn list<T: DeserializeOwned>(session: &Session, path: &str) -> Result<Vec<T>> {
    let mut answer = session.call(&Call::get(path)).await?.body;
    let items = answer["items"].take();
    let items = if let Value::Array(items) = items {
        items
    } else {
        Vec::new()
    };
    items
        .into_iter()
        .map(|i| serde_json::from_value(i).with_context(|| format!("an object of {path}")))
        .collect()
}
