//! The task: what others say and what the kernel says become [`Replies`], and the
//! word of this node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use jiff::Timestamp;
use portolan_api::value::str_at;
use portolan_client::{
    Client, Event, LEASES, Params, PatchBody, RequestError, Target, Writer, watch,
};
use portolan_kernel::link::{LinkError, Links};
use portolan_kernel::netns::NetNs;
use portolan_kernel::way::{Mark, NextHop, Way};
use portolan_model::Family;
use portolan_plan::{Neighbour, Replies};
use serde_json::{Value, json};
use tokio::sync::watch as seen;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::hand::Told;
use super::paths::{Obstacle, OwnLinks, path, takes_strangers};
use super::said::{KEY, Said, lease_name, node_of, said_in};
use super::{LEASE, LOOK, RENEW, ReplyPath};

/// Where the task works.
pub(super) struct Place {
    pub(super) node: String,
    pub(super) netns: NetNs,
    pub(super) kube: Client,
    pub(super) path: ReplyPath,
}

/// Another node.
struct Other {
    said: Said,
    /// The version of its Lease.
    version: String,
    /// When it was last seen to renew it; never where that was too long ago.
    renewed: Option<Instant>,
    /// Its number in marks, if there was one left.
    number: Option<u32>,
}

impl Other {
    fn is_alive(&self) -> bool {
        self.renewed.is_some_and(|at| at.elapsed() < LEASE)
    }
}

struct State {
    place: Place,
    links: Links,
    writer: Writer,
    others: BTreeMap<String, Other>,
    /// The ways that the kernel held at the last look.
    ways: Vec<Way>,
    own: OwnLinks,
    told: Told,
    /// What others were told, and when.
    published: Option<(Said, Instant)>,
    /// Whether the last word could not be said, which is told once.
    unsaid: bool,
    /// How it stands with each node, to say so when it changes.
    standing: BTreeMap<(String, Family), Option<Obstacle>>,
}

/// Works until the task is ended.
pub(super) async fn work(
    place: Place,
    found: seen::Sender<Option<Arc<Replies>>>,
    mut told: seen::Receiver<Told>,
) {
    let node = place.node.clone();
    let links = match Links::open(&place.netns) {
        Ok(links) => links,
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                node,
                error,
                "clients' addresses are not kept: no links can be read"
            );
            found.send_replace(Some(Arc::new(nothing(&place))));
            return;
        }
    };
    let params = Params {
        namespace: Some(place.path.namespace.clone()),
        labels: Some(KEY.to_owned()),
        fields: None,
        optional: true,
    };
    let mut leases = watch::<Value>(place.kube.clone(), LEASES.clone(), params);
    let mut state = State {
        writer: Writer::new(place.kube.clone(), "portolan-reply-path"),
        place,
        links,
        others: BTreeMap::new(),
        ways: Vec::new(),
        own: OwnLinks::default(),
        told: Told::default(),
        published: None,
        unsaid: false,
        standing: BTreeMap::new(),
    };
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut list, mut listed) = (BTreeSet::new(), false);
    loop {
        let news = tokio::select! {
            _ = look.tick() => true,
            Ok(()) = told.changed() => {
                state.told = told.borrow_and_update().clone();
                true
            }
            event = leases.next() => match event {
                None => return,
                Some(event) => state.hear(event, &mut list, &mut listed),
            }
        };
        if news && listed {
            state.turn(&found).await;
        }
    }
}

/// What is so where nobody takes part.
fn nothing(place: &Place) -> Replies {
    Replies {
        mask: place.path.mask,
        ..Replies::default()
    }
}

impl State {
    /// Takes in what a Lease says; whether that is news.
    fn hear(&mut self, event: Event<Value>, list: &mut BTreeSet<String>, done: &mut bool) -> bool {
        match event {
            Event::Init => {
                list.clear();
                false
            }
            Event::InitItem(lease) => {
                list.extend(node_of(&lease));
                self.hear_lease(&lease);
                false
            }
            Event::InitDone { forbidden, .. } => {
                if forbidden {
                    let (node, namespace) = (&self.place.node, &self.place.path.namespace);
                    tracing::warn!(%node, namespace, "clients' addresses are not kept: Leases may not be read there; see deploy/client-address");
                }
                self.others.retain(|node, _| list.contains(node));
                *done = true;
                true
            }
            Event::Upsert(lease) => self.hear_lease(&lease),
            Event::Delete(lease) => {
                node_of(&lease).is_some_and(|node| self.others.remove(&node).is_some())
            }
        }
    }

    fn hear_lease(&mut self, lease: &Value) -> bool {
        let Some(node) = node_of(lease).filter(|node| *node != self.place.node) else {
            return false;
        };
        let version = str_at(lease, "metadata.resourceVersion").to_owned();
        let said = said_in(lease).unwrap_or_default();
        if let Some(other) = self.others.get_mut(&node) {
            if other.version == version {
                return false;
            }
            let news = !other.is_alive() || other.said != said;
            // By our own clock: those of other machines may differ.
            (other.version, other.renewed) = (version, Some(Instant::now()));
            other.said = said;
            return news;
        }
        let renewed = is_fresh(lease).then(Instant::now);
        let other = Other {
            said,
            version,
            renewed,
            number: None,
        };
        self.others.insert(node, other);
        true
    }

    /// Brings the kernel's ways, the loop and the own Lease to what is so.
    async fn turn(&mut self, found: &seen::Sender<Option<Arc<Replies>>>) {
        let replies = match self.look().await {
            Ok(replies) => replies,
            Err(error) => {
                let (node, error) = (&self.place.node, &error as &dyn std::error::Error);
                tracing::warn!(%node, error, "the way back of clients' connections");
                // At first only: what the rules hold goes on.
                let missing = found.borrow().is_none();
                if missing {
                    found.send_replace(Some(Arc::new(nothing(&self.place))));
                }
                return;
            }
        };
        found.send_if_modified(|before| {
            let same = before.as_deref() == Some(&replies);
            if !same {
                *before = Some(Arc::new(replies.clone()));
            }
            !same
        });
        let held = self.told.held.as_deref() == Some(&replies);
        if held && let Err(error) = self.forget().await {
            let (node, error) = (&self.place.node, &error as &dyn std::error::Error);
            tracing::warn!(%node, error, "an old way back stays");
        }
        let done = self.publish(held).await;
        let told_before = std::mem::replace(&mut self.unsaid, done.is_err());
        if let Err(error) = done
            && !told_before
        {
            let (node, message) = (&self.place.node, error.message());
            tracing::warn!(%node, %error, message, "other nodes are not told of the way back");
        }
    }

    /// What is so, with the ways to all neighbours in the kernel.
    async fn look(&mut self) -> Result<Replies, LinkError> {
        self.own = OwnLinks::read(&self.links).await?;
        self.ways = self.links.ways().await?;
        self.number();
        let has_default = self.links.route_destinations().await?;
        let has_default = has_default
            .iter()
            .any(|to| to.addr().is_ipv4() && to.prefix_len() == 0);
        let mut kept = Vec::new();
        let mut standing = BTreeMap::new();
        let others = self.others.iter();
        let asked: Vec<_> = others
            .map(|(node, other)| (node.clone(), other.said.clone(), other.is_alive()))
            .collect();
        for (node, said, alive) in asked {
            for family in Family::BOTH {
                if said.ranges_of(family).next().is_none() {
                    continue;
                }
                let way = path(&self.links, &self.own, (&said, family)).await?;
                let way = match way {
                    Ok(hop) => {
                        takes_strangers(&self.links, &self.own, (hop, has_default)).map(|()| hop)
                    }
                    Err(obstacle) => Err(obstacle),
                };
                let way = match way {
                    Ok(hop) => self.lead(&node, (family, hop)).await?,
                    Err(obstacle) => Err(obstacle),
                };
                let back = (family, self.place.node.clone());
                if way.is_ok() && alive && said.returns.contains(&back) {
                    kept.extend(said.ranges_of(family).copied());
                }
                standing.insert((node.clone(), family), way.err());
            }
        }
        self.tell(standing);
        Ok(self.replies(kept))
    }

    fn replies(&self, mut kept: Vec<ipnet::IpNet>) -> Replies {
        let own = self.own.said();
        let own = own.iter().flat_map(|link| link.addresses.iter().copied());
        let others = self
            .others
            .values()
            .flat_map(|other| other.said.addresses());
        let own = own.chain(self.told.addresses.iter().copied());
        let nodes: BTreeSet<_> = own.chain(others).collect();
        kept.sort();
        kept.dedup();
        let neighbours = self.others.values().filter_map(|other| {
            Some(Neighbour {
                number: other.number?,
                ethers: other.said.ethers(),
            })
        });
        Replies {
            mask: self.place.path.mask,
            nodes: nodes.into_iter().collect(),
            kept,
            neighbours: neighbours.collect(),
        }
    }

    /// Gives numbers to nodes that have none: those of the ways that are there, else
    /// the lowest that is free.
    fn number(&mut self) {
        let mask = self.place.path.mask;
        let mut free: BTreeSet<u32> = (1..=Replies::room(mask).min(u16::MAX.into())).collect();
        for number in self.others.values().filter_map(|other| other.number) {
            free.remove(&number);
        }
        let ours = |way: &&Way| way.mark == Some(mark(mask, way.number.into()));
        for way in self.ways.iter().filter(ours) {
            let number = u32::from(way.number);
            let of = self.others.values_mut().find(|other| {
                let mut addresses = other.said.addresses();
                way.next
                    .is_some_and(|next| addresses.any(|address| address == next.address))
            });
            if let Some(other) = of
                && other.number.is_none()
                && free.remove(&number)
            {
                other.number = Some(number);
            }
        }
        // What stands in the kernel yet is somebody's connections.
        let held = self.ways.iter().map(|way| u32::from(way.number));
        let fresh: Vec<u32> = {
            let held: BTreeSet<u32> = held.collect();
            free.difference(&held).copied().collect()
        };
        let mut fresh = fresh.into_iter();
        for other in self.others.values_mut() {
            if other.number.is_none() && !other.said.links.is_empty() {
                other.number = fresh.next();
            }
        }
    }

    /// Leads packets with a node's mark there.
    async fn lead(
        &mut self,
        node: &str,
        (family, hop): (Family, NextHop),
    ) -> Result<Result<NextHop, Obstacle>, LinkError> {
        let number = self.others.get(node).and_then(|other| other.number);
        let number = number.and_then(|number| u16::try_from(number).ok());
        let Some(number) = number else {
            return Ok(Err(Obstacle::NoNumber));
        };
        let way = Way {
            ipv6: family == Family::V6,
            number,
            mark: Some(mark(self.place.path.mask, number.into())),
            next: Some(hop),
        };
        if !self.ways.contains(&way) {
            self.links.add_way(&way).await?;
        }
        Ok(Ok(hop))
    }

    /// Takes ways away to which no rule of nftables leads any more.
    async fn forget(&self) -> Result<(), LinkError> {
        let numbers: BTreeSet<_> = self.others.values().filter_map(|o| o.number).collect();
        let mask = self.place.path.mask;
        let is_used = |way: &Way| {
            let number = u32::from(way.number);
            numbers.contains(&number) && way.mark == Some(mark(mask, number))
        };
        for way in self.ways.iter().filter(|way| !is_used(way)) {
            self.links.del_way(way).await?;
        }
        Ok(())
    }

    /// Says in the log how it stands with each node, when that changes.
    fn tell(&mut self, standing: BTreeMap<(String, Family), Option<Obstacle>>) {
        for (at, obstacle) in &standing {
            if self.standing.get(at) == Some(obstacle) {
                continue;
            }
            let (node, (other, family)) = (&self.place.node, at);
            match obstacle {
                None => tracing::info!(%node, other, %family, "answers can go back there"),
                Some(obstacle) => {
                    tracing::warn!(%node, other, %family, %obstacle, "clients' addresses are not kept to and from there");
                }
            }
        }
        self.standing = standing;
    }

    /// Tells the others, if there is news or the Lease is to be renewed. `held` says
    /// whether nftables holds all that is known.
    async fn publish(&mut self, held: bool) -> Result<(), RequestError> {
        let said = Said {
            links: self.own.said(),
            ranges: self.told.ranges.clone(),
            returns: match (&self.published, held) {
                (_, true) => {
                    let back = self.standing.iter().filter(|(_, why)| why.is_none());
                    back.map(|((node, family), _)| (*family, node.clone()))
                        .collect()
                }
                // What was said holds until the rules say otherwise, but for those who
                // cannot be reached now.
                (Some((before, _)), false) => before
                    .returns
                    .iter()
                    .filter(|(family, node)| {
                        self.standing.get(&(node.clone(), *family)) == Some(&None)
                    })
                    .cloned()
                    .collect(),
                // Before the first word of this process that of an earlier one stands.
                (None, false) => return Ok(()),
            },
        };
        if let Some((before, at)) = &self.published
            && *before == said
            && at.elapsed() < RENEW
        {
            return Ok(());
        }
        write(&self.writer, &self.place, &said).await?;
        self.published = Some((said, Instant::now()));
        Ok(())
    }
}

fn mark(mask: u32, number: u32) -> Mark {
    Mark {
        value: Replies::mark(mask, number),
        mask,
    }
}

/// Whether a Lease that is seen for the first time was renewed a moment ago. Where
/// clocks differ, its next renewal tells.
pub(super) fn is_fresh(lease: &Value) -> bool {
    let renewed = str_at(lease, "spec.renewTime").parse::<Timestamp>();
    renewed.is_ok_and(|at| {
        let age = Timestamp::now().duration_since(at);
        age.unsigned_abs() < LEASE
    })
}

/// Writes the node's Lease.
async fn write(writer: &Writer, place: &Place, said: &Said) -> Result<(), RequestError> {
    let (name, namespace) = (lease_name(&place.node), Some(place.path.namespace.as_str()));
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ");
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "labels": {KEY: ""}, "annotations": {KEY: said.text()}},
        "spec": {
            "holderIdentity": place.node,
            "leaseDurationSeconds": LEASE.as_secs(),
            "renewTime": now.to_string(),
        },
    });
    let target = Target::one(&LEASES, namespace, &name);
    match writer.patch(target, PatchBody::Merge(&lease)).await {
        Err(error) if error.is_not_found() => {
            let all = Target::all(&LEASES, namespace);
            writer.create(all, &lease).await.map(drop)
        }
        other => other.map(drop),
    }
}

/// Where clients do not keep their addresses (any more): takes back the word of an
/// earlier agent that kept them, and then its ways.
pub(super) async fn leave(place: Place) {
    let node = &place.node;
    let links = match Links::open(&place.netns) {
        Ok(links) => links,
        Err(_) => return,
    };
    let ways = match links.ways().await {
        Ok(ways) if !ways.is_empty() => ways,
        Ok(_) | Err(_) => return,
    };
    let writer = Writer::new(place.kube.clone(), "portolan-reply-path");
    let (name, namespace) = (lease_name(node), Some(place.path.namespace.as_str()));
    let target = Target::one(&LEASES, namespace, &name);
    match writer.delete(target, &Default::default()).await {
        Ok(_) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => {
            let message = error.message();
            tracing::warn!(%node, %error, message, "other nodes rely on the way back until its Lease ends");
        }
    }
    // Connections that came by them go on until others have heard.
    tokio::time::sleep(LOOK).await;
    for way in ways {
        if let Err(error) = links.del_way(&way).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(%node, error, "an old way back stays");
        }
    }
}
