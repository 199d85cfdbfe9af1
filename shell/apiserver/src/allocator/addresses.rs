//! ClusterIPs: taken by wish, picked otherwise (A2, A7).

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_api::kinds::service::is_headless;
use portolan_api::kinds::service_update::same_prefer_dual;
use portolan_api::value::{at, set, str_at, strings_at};
use portolan_api::{Cause, Status, meta};
use portolan_plan::allocate::{AddressRange, Refused};
use serde_json::{Value, json};

use super::books::Books;
use super::{Family, Reservation, invalid};
use crate::answer::Failure;

impl Books {
    /// Whether a Service may have `address`: it belongs to a range that gives
    /// addresses, and nobody has it.
    fn check(&self, address: IpAddr) -> Result<(), Out> {
        let mut covering = self.ranges.iter().filter(|range| range.covers(address));
        let Some(first) = covering.clone().next() else {
            return Err(Out::NoRange);
        };
        let used = self.used(address);
        // Overlapping ranges differ only in which addresses they leave out.
        match covering.find(|range| range.check(used, address) != Err(Refused::OutOfRange)) {
            None => Err(Out::NotUsable(first.net())),
            Some(range) => range.check(used, address).map_err(|_taken| Out::Taken),
        }
    }

    fn pick(&self, family: Family) -> Option<IpAddr> {
        self.giving(family)
            .find_map(|range| range.pick(self.used(range.net().addr()), seed()))
    }

    fn giving(&self, family: Family) -> impl Iterator<Item = &AddressRange> {
        self.ranges
            .iter()
            .filter(move |range| Family::of(range.net().addr()) == family)
    }

    fn ranges_text(&self, family: Family) -> String {
        let nets: Vec<String> = self
            .giving(family)
            .map(|range| range.net().to_string())
            .collect();
        nets.join(",")
    }
}

/// Why an address is not given.
enum Out {
    Taken,
    /// In no range.
    NoRange,
    /// The network's own address, or its broadcast address.
    NotUsable(IpNet),
}

/// A random start for the search in a band.
pub(super) fn seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1
}

impl Reservation {
    pub(super) fn take_addresses(
        &mut self,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        let wanted: Vec<String> = strings_at(service, "spec.clusterIPs")
            .into_iter()
            .map(str::to_owned)
            .collect();
        let headless = wanted.first().is_some_and(|first| first == "None");
        if str_at(service, "spec.type") == "ExternalName" || headless {
            return Ok(());
        }
        // How many addresses the Service keeps: a change of those is for
        // validation to refuse, whoever has the address that is wanted.
        let Some(kept) = kept(service, old) else {
            return Ok(());
        };
        let families: Vec<Family> = strings_at(service, "spec.ipFamilies")
            .into_iter()
            .filter_map(Family::parse)
            .collect();
        if meta::name(service).is_empty() && meta::generate_name(service).is_empty() {
            // Addresses are kept by the name of their Service.
            return Err(refuse(
                service,
                "failed to allocate IP: the Service has no name",
            ));
        }
        let mut addresses = Vec::new();
        for (index, family) in families.iter().enumerate() {
            match wanted
                .get(index)
                .map(String::as_str)
                .filter(|text| !text.is_empty())
            {
                Some(text) if index < kept => addresses.push(text.to_owned()),
                Some(text) => match text.parse::<IpAddr>() {
                    Ok(address) => {
                        self.take_address(service, address)?;
                        addresses.push(text.to_owned());
                    }
                    // Validation reports what is no address.
                    Err(_) => return Ok(()),
                },
                None => addresses.push(self.pick_address(*family)?.to_string()),
            }
        }
        // More addresses than families is for validation to report.
        addresses.extend(wanted.into_iter().skip(families.len()));
        if let Some(primary) = addresses.first() {
            set(service, "spec.clusterIP", primary.as_str());
            set(service, "spec.clusterIPs", json!(addresses));
        }
        Ok(())
    }

    fn take_address(&mut self, service: &Value, address: IpAddr) -> Result<(), Failure> {
        let mut books = self.allocator.books();
        let why = match books.check(address) {
            // A dry run looks at the range only, as Kubernetes' does.
            Ok(()) | Err(Out::Taken) if self.dry_run => return Ok(()),
            Ok(()) => {
                books.hold(address);
                self.addresses.push(address);
                return Ok(());
            }
            Err(Out::Taken) => "provided IP is already allocated".to_owned(),
            Err(Out::NotUsable(net)) => format!(
                "the provided IP ({address}) is not in the valid range. The range of valid IPs is {net}"
            ),
            Err(Out::NoRange) => format!(
                "the provided network does not match the current range. The range of valid IPs is {}",
                books.ranges_text(Family::of(address))
            ),
        };
        Err(refuse(
            service,
            &format!("failed to allocate IP {address}: {why}"),
        ))
    }

    fn pick_address(&mut self, family: Family) -> Result<IpAddr, Failure> {
        let mut books = self.allocator.books();
        let picked = if self.dry_run {
            // Kubernetes' stand-in for an address that is not taken.
            books.giving(family).next().map(|range| range.net().addr())
        } else {
            books.pick(family)
        };
        let Some(address) = picked else {
            return Err(Box::new(Status::internal(
                "failed to allocate a serviceIP: range is full",
            )));
        };
        if !self.dry_run {
            books.hold(address);
            self.addresses.push(address);
        }
        Ok(address)
    }
}

/// How many of its first addresses a Service keeps while others are allocated;
/// `None` where none is: only a new one, one that had none as ExternalName, and
/// one that becomes dual-stack get any.
fn kept(service: &Value, old: Option<&Value>) -> Option<usize> {
    let Some(old) = old else {
        return Some(0);
    };
    if str_at(old, "spec.type") == "ExternalName" {
        return Some(0);
    }
    let count = |object: &Value| strings_at(object, "spec.ipFamilies").len();
    let grows = count(old) == 1 && count(service) == 2;
    (grows && !is_headless(old) && !same_prefer_dual(service, old)).then_some(1)
}

fn refuse(service: &Value, detail: &str) -> Failure {
    let ips = at(service, "spec.clusterIPs");
    invalid(
        service,
        vec![Cause::invalid("spec.clusterIPs", ips, detail)],
    )
}
