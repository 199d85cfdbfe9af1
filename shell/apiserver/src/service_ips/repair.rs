//! Services and their IPAddresses are made to agree (A5).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use portolan_plan::allocate::cidrs::{ServiceCidr, cover};
use portolan_plan::allocate::repair::{
    AddressObject, Complaint, Parent, Repair, address_object, service_address,
};
use serde_json::Value;

use super::tell::{About, tell};
use crate::allocator::{
    Holdings, LABEL_FAMILY, LABEL_MANAGED_BY, LeanAddress, MANAGED_BY, address_of, ip_address,
};
use crate::context::Context;
use crate::rest::now;
use crate::store::{Change, Condition, Key, Next, ObjectName, Objects, Stored, Write, WriteError};

/// Reads on in the events of IPAddresses, to see what was done by hand.
pub(super) struct Follower {
    position: u64,
}

impl Follower {
    pub(super) fn new(context: &Context) -> Self {
        let places = context.allocator.places();
        Self {
            position: context.store.cache().snapshot(places.addresses).revision,
        }
    }

    /// Whether an IPAddress was changed, or deleted from under its Service.
    pub(super) fn saw_tampering(&mut self, context: &Context) -> bool {
        let cache = context.store.cache();
        let mut tampered = false;
        loop {
            match cache.after(context.allocator.places().addresses, self.position) {
                Next::Expired { oldest } => {
                    self.position = oldest;
                    tampered = true;
                }
                Next::Events { events, revision } => {
                    self.position = revision;
                    if events.is_empty() {
                        return tampered;
                    }
                    tampered |=
                        events
                            .iter()
                            .any(|event| match (&event.previous, &event.current) {
                                (Some(_), Some(_)) => true,
                                (Some(previous), None) => is_missed(context, &event.name, previous),
                                (None, _) => false,
                            });
                }
            }
        }
    }
}

/// Whether the Service of an IPAddress that is gone still has the address.
fn is_missed(context: &Context, name: &ObjectName, previous: &Stored) -> bool {
    let parent = LeanAddress::of(&previous.json).parent();
    let key = Key::new(
        context.allocator.places().services,
        &parent.namespace,
        &parent.name,
    );
    parent.is_service()
        && context.store.get(&key).is_some_and(|service| {
            let held = Holdings::of(&service.json).addresses;
            address_of(name).is_some_and(|address| held.contains(&address))
        })
}

/// Look at every Service and every IPAddress, and repair what is wrong.
pub(super) async fn pass(context: &Arc<Context>, now: Timestamp) {
    let looking = Arc::clone(context);
    // Reads the JSON of all of them: too long for a thread that serves.
    let found = tokio::task::spawn_blocking(move || look(&looking, now));
    match found.await {
        Ok(found) => mend(context, found).await,
        Err(error) => tracing::error!(%error, "cannot look at Services and IPAddresses"),
    }
}

/// What is wrong.
pub(super) fn look(context: &Arc<Context>, now: Timestamp) -> Vec<Fault> {
    Pass::new(context, now).look()
}

/// Repairs what is still wrong.
pub(super) async fn mend(context: &Context, found: Vec<Fault>) {
    for fault in found {
        repair(context, fault).await;
    }
}

/// What a pass looks at, as it was at its beginning.
struct Pass {
    context: Arc<Context>,
    cidrs: Vec<ServiceCidr>,
    held: BTreeMap<ObjectName, Vec<IpAddr>>,
    services: Objects,
    addresses: Objects,
    now: Timestamp,
}

/// Something that is wrong.
pub(super) struct Fault {
    address: IpAddr,
    /// The Service, or the IPAddress, that the event is about.
    about: Arc<Stored>,
    /// The version of the IPAddress that was looked at, if there is one.
    revision: Option<u64>,
    /// The Services that were looked at: the look and the repair are not one
    /// moment, and a Service that has changed between may be right by now.
    services: Vec<(ObjectName, Condition)>,
    repair: Repair,
}

impl Pass {
    fn new(context: &Arc<Context>, now: Timestamp) -> Self {
        let places = context.allocator.places();
        let cache = context.store.cache();
        let services = cache.snapshot(places.services).objects;
        let held = services
            .iter()
            .map(|(name, stored)| (name.clone(), Holdings::of(&stored.json).addresses));
        Self {
            cidrs: context.allocator.cidrs(),
            held: held.collect(),
            addresses: cache.snapshot(places.addresses).objects,
            services,
            now,
            context: Arc::clone(context),
        }
    }

    fn look(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (name, stored) in &self.services {
            for address in self.held.get(name).into_iter().flatten() {
                faults.extend(self.of_service(name, stored, *address));
            }
        }
        for (name, stored) in &self.addresses {
            faults.extend(address_of(name).and_then(|it| self.of_address(it, stored)));
        }
        faults
    }

    fn of_service(
        &self,
        name: &ObjectName,
        stored: &Arc<Stored>,
        address: IpAddr,
    ) -> Option<Fault> {
        let own = Parent::service(&name.namespace, &name.name);
        let key = self.context.allocator.address_key(address);
        let found = self.addresses.get(&key.name);
        let object = found.map(|found| self.object(address, found));
        let covered = cover(&self.cidrs, address);
        let repair = service_address(&own, address, covered, object.as_ref(), |other| {
            self.has(other, address) == Some(true)
        })?;
        let other = object.filter(|object| object.parent.is_service() && object.parent != own);
        let other = other.map(|object| self.seen(&object.parent));
        Some(Fault {
            address,
            about: Arc::clone(stored),
            revision: found.map(|found| found.revision),
            services: std::iter::once(self.seen(&own)).chain(other).collect(),
            repair,
        })
    }

    fn of_address(&self, address: IpAddr, stored: &Arc<Stored>) -> Option<Fault> {
        let object = self.object(address, stored);
        let repair = address_object(address, &object, |parent| self.has(parent, address))?;
        let parent = object.parent.is_service().then_some(&object.parent);
        Some(Fault {
            address,
            about: Arc::clone(stored),
            revision: Some(stored.revision),
            services: parent.map(|parent| self.seen(parent)).into_iter().collect(),
            repair,
        })
    }

    /// A Service as it was looked at.
    fn seen(&self, parent: &Parent) -> (ObjectName, Condition) {
        let name = ObjectName {
            namespace: parent.namespace.clone(),
            name: parent.name.clone(),
        };
        let condition = match self.services.get(&name) {
            Some(stored) => Condition::Revision(stored.revision),
            None => Condition::Absent,
        };
        (name, condition)
    }

    /// Whether a Service has an address; `None` where there is no such Service.
    fn has(&self, parent: &Parent, address: IpAddr) -> Option<bool> {
        let name = ObjectName {
            namespace: parent.namespace.clone(),
            name: parent.name.clone(),
        };
        Some(self.held.get(&name)?.contains(&address))
    }

    fn object(&self, address: IpAddr, stored: &Stored) -> AddressObject {
        let lean = LeanAddress::of(&stored.json);
        let labels = &lean.metadata.labels;
        let label = |name: &str| labels.get(name).and_then(Value::as_str);
        let managed = label(LABEL_MANAGED_BY) == Some(MANAGED_BY);
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let made = lean.metadata.creation_timestamp.parse::<Timestamp>();
        AddressObject {
            labelled: managed && label(LABEL_FAMILY) == Some(family),
            managed,
            age: made.map_or(0, |made| self.now.as_second() - made.as_second()),
            parent: lean.parent(),
        }
    }
}

async fn repair(context: &Context, fault: Fault) {
    let key = context.allocator.address_key(fault.address);
    let (complaint, change) = match fault.repair {
        Repair::Recreate(complaint) => {
            let object = ip_address(fault.address, &fault.about.value(), &now());
            (complaint, Some(Change::Put(object)))
        }
        Repair::Tell(complaint) => (Some(complaint), None),
        Repair::Delete(complaint) => (Some(complaint), Some(Change::Delete)),
    };
    let Some(change) = change else {
        complain(context, &fault.about, complaint).await;
        return;
    };
    let condition = fault
        .revision
        .map_or(Condition::Absent, Condition::Revision);
    let write = Write {
        key,
        condition,
        change,
        namespace: None,
    };
    let services = context.allocator.places().services;
    let kept = fault.services.into_iter().map(|(name, condition)| Write {
        key: Key::new(services, &name.namespace, &name.name),
        condition,
        change: Change::Keep,
        namespace: None,
    });
    let writes = std::iter::once(write).chain(kept).collect();
    match context.store.transact(writes, None).await {
        Ok(_) => complain(context, &fault.about, complaint).await,
        // Changed meanwhile: the next look sees how.
        Err(
            WriteError::Conflict | WriteError::Missing | WriteError::Exists | WriteError::Companion,
        ) => {}
        Err(error) => tracing::warn!(%error, "cannot repair an IPAddress"),
    }
}

async fn complain(context: &Context, about: &Arc<Stored>, complaint: Option<Complaint>) {
    if let Some(complaint) = complaint {
        tracing::warn!("{}", complaint.message);
        tell(context, &About::of(about), &complaint).await;
    }
}
