//! Services and IPAddresses must name each other (A5); what is wrong where
//! they do not, and what is done about it.
//!
//! The server writes a Service and its IPAddresses in one transaction, so
//! something is wrong only after somebody changed an IPAddress by hand, or in
//! a file that an older program wrote.

use std::net::IpAddr;

/// Whom an IPAddress belongs to: `spec.parentRef`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parent {
    /// API group, empty for Services.
    pub group: String,
    /// Plural, `services` for Services.
    pub resource: String,
    /// Namespace of the parent.
    pub namespace: String,
    /// Name of the parent.
    pub name: String,
}

/// What matters of an IPAddress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressObject {
    /// Whom it belongs to.
    pub parent: Parent,
    /// Its labels are those that the server gives.
    pub labelled: bool,
    /// The label says that the server made it.
    pub managed: bool,
    /// Seconds since it was made.
    pub age: i64,
}

impl Parent {
    /// The parent reference of a Service.
    pub fn service(namespace: &str, name: &str) -> Self {
        Self {
            group: String::new(),
            resource: "services".to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Whether it names a Service.
    pub fn is_service(&self) -> bool {
        self.group.is_empty() && self.resource == "services"
    }
}

/// How long an IPAddress may be without its Service: the request that makes
/// both may take this long.
pub const ORPHAN_SECONDS: i64 = 60;

/// What to do about one object, with the event that tells why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// Make the IPAddress, or make it anew; the event is about the Service.
    Recreate(Option<Complaint>),
    /// Only tell: a person must decide.
    Tell(Complaint),
    /// Delete the IPAddress; the event is about it.
    Delete(Complaint),
}

/// The words of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// `reason`.
    pub reason: &'static str,
    /// `action`.
    pub action: &'static str,
    /// `message`.
    pub message: String,
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn of_service(reason: &'static str, message: String) -> Complaint {
    Complaint {
        reason,
        action: "ClusterIPAllocation",
        message,
    }
}

fn of_address(reason: &'static str, message: String) -> Complaint {
    Complaint {
        reason,
        action: "IPAddressAllocation",
        message,
    }
}

/// Look at one ClusterIP of the Service `own`. `covered`: a ServiceCIDR has
/// the address. `other_has_it` tells whether the Service that the IPAddress
/// names instead exists and has this address too.
pub fn service_address(
    own: &Parent,
    address: IpAddr,
    covered: bool,
    object: Option<&AddressObject>,
    other_has_it: impl FnOnce(&Parent) -> bool,
) -> Option<Repair> {
    let (kind, key) = (family(address), format!("{}/{}", own.namespace, own.name));
    if !covered {
        let message = format!(
            "Cluster IP [{kind}]: {address} is not within any configured Service CIDR; please recreate service"
        );
        return Some(Repair::Tell(of_service("ClusterIPOutOfRange", message)));
    }
    let Some(object) = object else {
        let message = format!("Cluster IP [{kind}]: {address} is not allocated; repairing");
        let complaint = of_service("ClusterIPNotAllocated", message);
        return Some(Repair::Recreate(Some(complaint)));
    };
    if object.parent == *own {
        return (!object.labelled).then_some(Repair::Recreate(None));
    }
    if object.parent.is_service() && other_has_it(&object.parent) {
        let message = format!(
            "Cluster IP [{kind}]:{address} was assigned to multiple services; please recreate service"
        );
        return Some(Repair::Tell(of_service(
            "ClusterIPAlreadyAllocated",
            message,
        )));
    }
    let message = format!(
        "the ClusterIP [{kind}]: {address} for Service {key} has a wrong reference; repairing"
    );
    let complaint = of_service("ClusterIPNotAllocated", message);
    Some(Repair::Recreate(Some(complaint)))
}

/// Look at one IPAddress. `service_has_it` is `None` where the Service that it
/// names does not exist, else whether that has the address.
pub fn address_object(
    address: IpAddr,
    object: &AddressObject,
    service_has_it: impl FnOnce(&Parent) -> Option<bool>,
) -> Option<Repair> {
    if !object.managed {
        return None;
    }
    let parent = &object.parent;
    if !parent.is_service() {
        let message = format!(
            "IPAddress {address} appears to have been modified, not referencing a Service {}/{}: cleaning up",
            parent.resource, parent.name
        );
        let complaint = of_address("IPAddressNotAllocated", message);
        return Some(Repair::Delete(complaint));
    }
    let (namespace, name) = (&parent.namespace, &parent.name);
    match service_has_it(parent) {
        Some(true) => None,
        Some(false) => {
            let message = format!(
                "IPAddress: {address} for Service {namespace}/{name} has a wrong reference; cleaning up"
            );
            let complaint = of_address("IPAddressWrongReference", message);
            Some(Repair::Delete(complaint))
        }
        None if object.age > ORPHAN_SECONDS => {
            let message = format!(
                "IPAddress: {address} for Service {namespace}/{name} appears to have leaked: cleaning up"
            );
            let complaint = of_address("IPAddressNotAllocated", message);
            Some(Repair::Delete(complaint))
        }
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Parent {
        Parent::service("default", "web")
    }

    fn object(parent: Parent) -> AddressObject {
        AddressObject {
            parent,
            labelled: true,
            managed: true,
            age: 5,
        }
    }

    fn reason(repair: Option<Repair>) -> (&'static str, &'static str) {
        match repair {
            None => ("", ""),
            Some(Repair::Recreate(complaint)) => (
                "recreate",
                complaint.map_or("", |complaint| complaint.reason),
            ),
            Some(Repair::Tell(complaint)) => ("tell", complaint.reason),
            Some(Repair::Delete(complaint)) => ("delete", complaint.reason),
        }
    }

    #[test]
    fn a5_a_service_without_its_ip_address_is_repaired() {
        let address = "10.96.0.9".parse().unwrap();
        let check = |covered: bool, object: Option<AddressObject>, other: bool| {
            let repair = service_address(&own(), address, covered, object.as_ref(), |_| other);
            reason(repair)
        };
        let gateway = Parent {
            group: "gateway.networking.k8s.io".to_owned(),
            resource: "gateways".to_owned(),
            ..own()
        };
        let mut unlabelled = object(own());
        unlabelled.labelled = false;
        let other = || Some(object(Parent::service("default", "old")));
        assert_eq!(check(true, Some(object(own())), false), ("", ""));
        assert_eq!(check(true, Some(unlabelled), false), ("recreate", ""));
        let missing = ("recreate", "ClusterIPNotAllocated");
        assert_eq!(check(true, None, false), missing);
        assert_eq!(check(true, Some(object(gateway)), true), missing);
        assert_eq!(check(true, other(), false), missing);
        let twice = ("tell", "ClusterIPAlreadyAllocated");
        assert_eq!(check(true, other(), true), twice);
        assert_eq!(check(false, None, false), ("tell", "ClusterIPOutOfRange"));
    }

    #[test]
    fn a5_an_orphan_is_deleted_after_a_minute() {
        let address = "10.96.0.9".parse().unwrap();
        let check = |object: &AddressObject, has: Option<bool>| {
            reason(address_object(address, object, |_| has))
        };
        let mut orphan = object(own());
        assert_eq!(check(&orphan, Some(true)), ("", ""));
        assert_eq!(check(&orphan, None), ("", ""));
        orphan.age = 61;
        assert_eq!(check(&orphan, None), ("delete", "IPAddressNotAllocated"));
        let wrong = ("delete", "IPAddressWrongReference");
        assert_eq!(check(&orphan, Some(false)), wrong);
        orphan.parent.resource = "gateways".to_owned();
        assert_eq!(check(&orphan, None), ("delete", "IPAddressNotAllocated"));
        orphan.managed = false;
        assert_eq!(check(&orphan, None), ("", ""));
    }
}
