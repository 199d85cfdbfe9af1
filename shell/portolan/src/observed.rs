//! The cluster as the API server tells it at one moment, for commands that
//! explain: the same intake and the same plan as the agent's.

use std::net::IpAddr;

use anyhow::{Context, Result};
use portolan_api::lean;
use portolan_model::{Change, Cluster, Fact, Kind, Problem, intake};
use portolan_plan::{NodePlan, NodeView};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::connect::{Call, Session};

/// The ranges of the lab; the API does not tell them.
const SERVICE_CIDRS: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];
const CLUSTER_CIDRS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/48"];

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
        let pods = list(session, "/api/v1/pods").await?;
        Ok(Self {
            cluster,
            problems,
            pods,
            nodes,
        })
    }

    /// The plan of one node.
    pub(crate) fn plan(&self, node: &str) -> NodePlan {
        let ranges = |texts: [&str; 2]| texts.iter().filter_map(|t| t.parse().ok()).collect();
        let view = NodeView {
            node: node.into(),
            service_cidrs: ranges(SERVICE_CIDRS),
            cluster_pod_cidrs: ranges(CLUSTER_CIDRS),
            dns_addresses: self.dns_addresses(),
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

async fn list<T: DeserializeOwned>(session: &Session, path: &str) -> Result<Vec<T>> {
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
