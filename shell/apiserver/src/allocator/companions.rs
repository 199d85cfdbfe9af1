//! The IPAddress objects that go with a Service (A5).

use std::net::IpAddr;

use portolan_api::meta;
use portolan_plan::allocate::repair::Parent;
use serde_json::{Value, json};

use super::{Allocator, LeanAddress, addresses_of};
use crate::store::{Change, Condition, Key, Write};

pub(crate) const LABEL_FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
pub(crate) const LABEL_MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
/// The value of the label on IPAddresses that this server makes.
pub(crate) const MANAGED_BY: &str = "ipallocator.k8s.io";

impl Allocator {
    /// What must be written together with a Service: an IPAddress for each
    /// address that `new` has and `old` had not, and the removal of those of
    /// addresses that it gives up. `now` is the time as objects carry it.
    pub(crate) fn companions(
        &self,
        new: Option<&Value>,
        old: Option<&Value>,
        now: &str,
    ) -> Vec<Write> {
        let before = old.map(addresses_of).unwrap_or_default();
        let after = new.map(addresses_of).unwrap_or_default();
        let mut writes = Vec::new();
        if let Some(service) = new {
            let gained = after.iter().filter(|address| !before.contains(address));
            writes.extend(gained.map(|address| Write {
                key: self.address_key(*address),
                condition: Condition::Absent,
                change: Change::Put(ip_address(*address, service, now)),
                namespace: None,
            }));
        }
        if let Some(service) = old {
            let lost = before.iter().filter(|address| !after.contains(address));
            writes.extend(lost.filter_map(|address| self.removal(*address, service)));
        }
        writes
    }

    /// The removal of the IPAddress of a Service, unless it is somebody else's.
    fn removal(&self, address: IpAddr, service: &Value) -> Option<Write> {
        let key = self.address_key(address);
        let stored = self.cache.get(&key)?;
        let own = Parent::service(meta::namespace(service), meta::name(service));
        (LeanAddress::of(&stored.json).parent() == own).then(|| Write {
            key,
            condition: Condition::Revision(stored.revision),
            change: Change::Delete,
            namespace: None,
        })
    }

    /// Where the IPAddress of an address is.
    pub(crate) fn address_key(&self, address: IpAddr) -> Key {
        Key::new(self.places.addresses, "", &address.to_string())
    }
}

/// The IPAddress of an address of `service`.
pub(crate) fn ip_address(address: IpAddr, service: &Value, now: &str) -> Value {
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": address.to_string(),
            "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": now,
            "labels": {LABEL_FAMILY: family, LABEL_MANAGED_BY: MANAGED_BY},
        },
        "spec": {"parentRef": {
            "resource": "services",
            "namespace": meta::namespace(service),
            "name": meta::name(service),
        }},
    })
}
