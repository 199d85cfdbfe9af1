//! The facts that planes need, as one stream of changes to the model.
//!
//! Objects become facts as they are read, so that a list of ten thousand Services
//! never exists as objects, and a relist arrives as one
//! [`Change::Replace`], which the cluster swaps in whole.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::SystemTime;

use futures::StreamExt;
use kube::Client;
use portolan_api::lean;
use portolan_model::{Change, Fact, Family, Interner, Kind, Problem, intake};
use serde::{Deserialize, Deserializer};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::Resource;
use crate::resource::{
    CLUSTER_NETWORK_POLICIES, ENDPOINT_SLICES, NAMESPACES, NETWORK_POLICIES, NODES, PODS,
    SERVICE_CIDRS, SERVICES,
};
use crate::watch::{Event, Params, Versioned, watch};

/// Changes buffered between the watches and the loop that plans.
const CHANNEL_DEPTH: usize = 1024;

/// The annotation that says when the change of a Service or pod was made that led
/// to a slice's last change.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// A change, and what could not be understood in its objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What changed.
    pub change: Change,
    /// What was wrong with it.
    pub problems: Vec<Problem>,
    /// The list is empty because the kind may not be read; it is tried again.
    pub forbidden: bool,
    /// When somebody asked for a change of endpoints, as its EndpointSlice says,
    /// and of which family they are. A list's are past and not told.
    pub triggered: Option<(Family, SystemTime)>,
}

/// What is listed and watched for a kind of fact: all that an agent must be allowed.
pub fn resource(kind: Kind) -> &'static Resource {
    match kind {
        Kind::Service => &SERVICES,
        Kind::Slice => &ENDPOINT_SLICES,
        Kind::Node => &NODES,
        Kind::Namespace => &NAMESPACES,
        Kind::ServiceCidr => &SERVICE_CIDRS,
        Kind::Pod => &PODS,
        Kind::Policy => &NETWORK_POLICIES,
        Kind::ClusterPolicy => &CLUSTER_NETWORK_POLICIES,
    }
}

/// What is watched, and what is kept of it.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// These kinds.
    pub kinds: Vec<Kind>,
    /// Of these, what may not be read counts as an empty list.
    pub optional: Vec<Kind>,
    /// The pods of this node alone; those of all nodes without a value.
    pub pods_of: Option<String>,
    /// The zones of endpoints are kept: only names may tell of them.
    pub zones: bool,
}

impl<const N: usize> From<&[Kind; N]> for Wanted {
    fn from(kinds: &[Kind; N]) -> Self {
        Self {
            kinds: kinds.to_vec(),
            ..Self::default()
        }
    }
}

/// Watches these facts until `shutdown`, or until the receiver is dropped.
///
/// Each of them is announced by a [`Change::Replace`] first, kinds
/// that the server does not serve by an empty one.
pub fn facts(
    client: Client,
    wanted: impl Into<Wanted>,
    shutdown: CancellationToken,
) -> mpsc::Receiver<Facts> {
    let (sender, receiver) = mpsc::channel(CHANNEL_DEPTH);
    let wanted = wanted.into();
    for &kind in &wanted.kinds {
        let of_node = wanted.pods_of.as_ref().filter(|_| kind == Kind::Pod);
        let feed = Feed {
            client: client.clone(),
            kind,
            fields: of_node.map(|node| format!("spec.nodeName={node}")),
            optional: kind == Kind::ServiceCidr || wanted.optional.contains(&kind),
            zones: wanted.zones,
            sender: sender.clone(),
            shutdown: shutdown.clone(),
        };
        match kind {
            Kind::Service => feed.start::<lean::Service>(),
            Kind::Slice => feed.start::<lean::EndpointSlice>(),
            Kind::Node => feed.start::<lean::Node>(),
            Kind::Namespace => feed.start::<lean::Namespace>(),
            Kind::ServiceCidr => feed.start::<lean::ServiceCidr>(),
            Kind::Pod => feed.start::<lean::PodFacts>(),
            Kind::Policy => feed.start::<lean::NetworkPolicy>(),
            Kind::ClusterPolicy => feed.start::<lean::ClusterNetworkPolicy>(),
        }
    }
    receiver
}

/// An object that becomes a fact.
trait Source: Versioned {
    /// Its fact, and what is wrong with it.
    fn fact(&self) -> (Option<Fact>, Vec<Problem>);

    /// When its last change was asked for; the annotation of the EndpointSlice
    /// controller.
    fn triggered(&self) -> Option<SystemTime> {
        None
    }
}

impl Source for lean::Service {
    fn fact(&self) -> (Option<Fact>, Vec<Problem>) {
        let (fact, problems) = intake::service(self);
        (Some(Fact::Service(Arc::new(fact))), problems)
    }
}

impl Source for lean::EndpointSlice {
    fn fact(&self) -> (Option<Fact>, Vec<Problem>) {
        let (mut fact, problems) = intake::slice(self);
        // A pod's whole name only serves explanations, which read the API when asked;
        // an agent would keep one text per endpoint for nothing.
        for endpoint in fact.iter_mut().flat_map(|slice| &mut slice.endpoints) {
            endpoint.shorten();
        }
        (fact.map(|fact| Fact::Slice(Arc::new(fact))), problems)
    }

    fn triggered(&self) -> Option<SystemTime> {
        let text = self.metadata.annotations.get(TRIGGER_TIME)?;
        text.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
    }
}

impl Source for lean::Node {
    fn fact(&self) -> (Option<Fact>, Vec<Problem>) {
        let (fact, problems) = intake::node(self);
        (Some(Fact::Node(Arc::new(fact))), problems)
    }
}

impl Source for lean::Namespace {
    fn fact(&self) -> (Option<Fact>, Vec<Problem>) {
        (Some(Fact::Namespace(intake::namespace(self))), Vec::new())
    }
}

impl Source for lean::ServiceCidr {
    fn fact(&self) -> (Option<Fact>, Vec<Problem>) {
        let (fact, problems) = intake::service_cidr(self);
        (Some(Fact::ServiceCidr(Arc::new(fact))), problems)
    }
}

impl Source for lean::NetworkPolicy {
    fn fact(&self) -> (Option<Fact>, Vec<Problem>) {
        let (fact, problems) = intake::policy(self);
        (Some(Fact::Policy(Arc::new(fact))), problems)
    }
}

impl Source for lean::ClusterNetworkPolicy {
    fn fact(&self) -> (Option<Fact>, Vec<Problem>) {
        let (fact, problems) = intake::cluster_policy(self);
        (Some(Fact::ClusterPolicy(Arc::new(fact))), problems)
    }
}

impl Source for lean::PodFacts {
    fn fact(&self) -> (Option<Fact>, Vec<Problem>) {
        let (fact, problems) = intake::pod(self);
        (Some(Fact::Pod(Arc::new(fact))), problems)
    }
}

/// What an object gives. It becomes that while it is read, so that no two objects are
/// held at the same time: facts would lie scattered among what is left of objects,
/// and memory that was used once stays with the process.
#[derive(Clone)]
struct Known<S> {
    fact: Option<Fact>,
    problems: Vec<Problem>,
    triggered: Option<SystemTime>,
    version: String,
    of: PhantomData<fn() -> S>,
}

impl<'de, S: Source> Deserialize<'de> for Known<S> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        let object = S::deserialize(reader)?;
        let (fact, problems) = object.fact();
        Ok(Self {
            fact,
            problems,
            triggered: object.triggered(),
            version: object.resource_version().unwrap_or_default().to_owned(),
            of: PhantomData,
        })
    }
}

impl<S: Source> Versioned for Known<S> {
    fn resource_version(&self) -> Option<&str> {
        Some(self.version.as_str()).filter(|version| !version.is_empty())
    }
}

/// Nobody else has the slice yet, so it is changed where it lies.
fn forget_zones(fact: Option<&mut Fact>) {
    if let Some(Fact::Slice(slice)) = fact {
        Arc::make_mut(slice).forget_zones();
    }
}

/// One kind's way into the stream.
struct Feed {
    client: Client,
    kind: Kind,
    /// Only objects with these fields.
    fields: Option<String>,
    /// As an older agent's rights do not name ServiceCIDRs; the flag gives the ranges.
    optional: bool,
    zones: bool,
    sender: mpsc::Sender<Facts>,
    shutdown: CancellationToken,
}

impl Feed {
    fn start<S: Source>(self) {
        tokio::spawn(async move {
            let shutdown = self.shutdown.clone();
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.run::<S>() => {}
            }
        });
    }

    async fn run<S: Source>(self) {
        let params = Params {
            optional: self.optional,
            fields: self.fields.clone(),
            ..Params::all()
        };
        let resource = resource(self.kind).clone();
        let mut events = watch::<Known<S>>(self.client.clone(), resource, params);
        let mut listed = Vec::new();
        // Of the strings that repeat in a list one copy is kept from the start.
        let mut texts = Interner::default();
        let mut problems = Vec::new();
        let mut triggered = None;
        let mut refused = false;
        while let Some(mut event) = events.next().await {
            if let Event::InitItem(known) | Event::Upsert(known) = &mut event
                && !self.zones
            {
                forget_zones(known.fact.as_mut());
            }
            let change = match event {
                Event::Init => {
                    listed.clear();
                    problems.clear();
                    continue;
                }
                Event::InitItem(known) => {
                    listed.extend(known.fact.map(|mut fact| {
                        fact.share(&mut texts);
                        fact
                    }));
                    problems.extend(known.problems);
                    continue;
                }
                Event::InitDone { forbidden, .. } => {
                    refused = forbidden;
                    texts = Interner::default();
                    Change::Replace(self.kind, std::mem::take(&mut listed))
                }
                Event::Upsert(known) => {
                    problems.extend(known.problems);
                    let Some(fact) = known.fact else { continue };
                    triggered = known.triggered.and_then(|at| {
                        if let Fact::Slice(slice) = &fact {
                            Some((slice.family, at))
                        } else {
                            None
                        }
                    });
                    Change::Upsert(fact)
                }
                Event::Delete(known) => match known.fact {
                    Some(fact) => Change::Delete(fact.key()),
                    None => continue,
                },
            };
            let facts = Facts {
                change,
                problems: std::mem::take(&mut problems),
                forbidden: std::mem::take(&mut refused),
                triggered: triggered.take(),
            };
            if self.sender.send(facts).await.is_err() {
                return;
            }
        }
    }
}
