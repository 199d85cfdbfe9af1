//! The facts that planes need, as one stream of changes to the model.
//!
//! Objects become facts page by page, so that a list of ten thousand Services
//! never exists as objects, and a relist arrives as one
//! [`Change::Replace`], which the cluster swaps in whole.

use std::sync::Arc;
use std::time::SystemTime;

use futures::StreamExt;
use kube::Client;
use portolan_api::lean;
use portolan_model::{Change, Fact, Family, Interner, Kind, Problem, intake};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::Resource;
use crate::resource::{ENDPOINT_SLICES, NAMESPACES, NODES, PODS, SERVICE_CIDRS, SERVICES};
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
    }
}

/// Watches these kinds of facts until `shutdown`, or until the receiver is dropped.
///
/// Each of them is announced by a [`Change::Replace`] first, kinds
/// that the server does not serve by an empty one.
pub fn facts(client: Client, kinds: &[Kind], shutdown: CancellationToken) -> mpsc::Receiver<Facts> {
    let (sender, receiver) = mpsc::channel(CHANNEL_DEPTH);
    for &kind in kinds {
        let feed = Feed {
            client: client.clone(),
            kind,
            sender: sender.clone(),
            shutdown: shutdown.clone(),
        };
        match kind {
            Kind::Service => feed.start(service),
            Kind::Slice => feed.start(slice),
            Kind::Node => feed.start(node),
            Kind::Namespace => feed.start(namespace),
            Kind::ServiceCidr => feed.start(service_cidr),
            Kind::Pod => feed.start(pod),
        }
    }
    receiver
}

/// When the last change of an object was asked for.
trait Triggered {
    /// The annotation of the EndpointSlice controller.
    fn triggered(&self) -> Option<SystemTime> {
        None
    }
}

impl Triggered for lean::Service {}
impl Triggered for lean::Node {}
impl Triggered for lean::Namespace {}
impl Triggered for lean::ServiceCidr {}
impl Triggered for lean::PodAddress {}

impl Triggered for lean::EndpointSlice {
    fn triggered(&self) -> Option<SystemTime> {
        let text = self.metadata.annotations.get(TRIGGER_TIME)?;
        text.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
    }
}

/// An object's fact and what is wrong with it.
type Taken = (Option<Fact>, Vec<Problem>);

fn service(object: &lean::Service) -> Taken {
    let (fact, problems) = intake::service(object);
    (Some(Fact::Service(Arc::new(fact))), problems)
}

fn slice(object: &lean::EndpointSlice) -> Taken {
    let (mut fact, problems) = intake::slice(object);
    // A pod's whole name only serves explanations, which read the API when asked;
    // an agent would keep one text per endpoint for nothing.
    for endpoint in fact.iter_mut().flat_map(|slice| &mut slice.endpoints) {
        endpoint.shorten();
    }
    (fact.map(|fact| Fact::Slice(Arc::new(fact))), problems)
}

fn node(object: &lean::Node) -> Taken {
    let (fact, problems) = intake::node(object);
    (Some(Fact::Node(Arc::new(fact))), problems)
}

fn namespace(object: &lean::Namespace) -> Taken {
    (Some(Fact::Namespace(intake::namespace(object))), Vec::new())
}

fn service_cidr(object: &lean::ServiceCidr) -> Taken {
    let (fact, problems) = intake::service_cidr(object);
    (Some(Fact::ServiceCidr(Arc::new(fact))), problems)
}

fn pod(object: &lean::PodAddress) -> Taken {
    let (fact, problems) = intake::pod(object);
    (Some(Fact::Pod(fact)), problems)
}

/// One kind's way into the stream.
struct Feed {
    client: Client,
    kind: Kind,
    sender: mpsc::Sender<Facts>,
    shutdown: CancellationToken,
}

impl Feed {
    fn start<T: Versioned + Triggered + Sync>(self, take: fn(&T) -> Taken) {
        tokio::spawn(async move {
            let shutdown = self.shutdown.clone();
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.run(take) => {}
            }
        });
    }

    async fn run<T: Versioned + Triggered + Sync>(self, take: fn(&T) -> Taken) {
        let params = Params {
            // Older agents' rights do not name it; the flag gives the ranges.
            optional: self.kind == Kind::ServiceCidr,
            ..Params::all()
        };
        let mut events = watch::<T>(self.client.clone(), resource(self.kind).clone(), params);
        let mut listed = Vec::new();
        let mut texts = Interner::default();
        let mut problems = Vec::new();
        let mut triggered = None;
        while let Some(event) = events.next().await {
            let change = match event {
                Event::Init => {
                    listed.clear();
                    problems.clear();
                    continue;
                }
                Event::InitItem(object) => {
                    let (mut fact, found) = take(&object);
                    if let Some(fact) = &mut fact {
                        fact.share(&mut texts);
                    }
                    listed.extend(fact);
                    problems.extend(found);
                    continue;
                }
                Event::InitDone { .. } => {
                    texts = Interner::default();
                    Change::Replace(self.kind, std::mem::take(&mut listed))
                }
                Event::Upsert(object) => {
                    let (fact, found) = take(&object);
                    problems.extend(found);
                    let Some(fact) = fact else { continue };
                    triggered = object.triggered().and_then(|at| {
                        if let Fact::Slice(slice) = &fact {
                            Some((slice.family, at))
                        } else {
                            None
                        }
                    });
                    Change::Upsert(fact)
                }
                Event::Delete(object) => match take(&object).0 {
                    Some(fact) => Change::Delete(fact.key()),
                    None => continue,
                },
            };
            let facts = Facts {
                change,
                problems: std::mem::take(&mut problems),
                triggered: triggered.take(),
            };
            if self.sender.send(facts).await.is_err() {
                return;
            }
        }
    }
}
