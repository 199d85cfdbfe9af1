//! ClusterIPs: taken by wish, picked otherwise (A2, A7).

use std::net::IpAddr;

use portolan_api::value::{at, set, str_at, strings_at};
use portolan_api::{Cause, Status, meta};
use portolan_plan::allocate::Refused;
use serde_json::{Value, json};

use super::{Family, Pools, Reservation, addresses_of, invalid};
use crate::answer::Failure;

impl Pools {
    pub(super) fn take(&mut self, address: IpAddr) -> Result<(), Refused> {
        self.addresses
            .iter_mut()
            .find(|pool| pool.covers(address))
            .map_or(Err(Refused::OutOfRange), |pool| pool.take(address))
    }

    fn pick(&mut self, family: Family) -> Option<IpAddr> {
        self.addresses
            .iter_mut()
            .filter(|pool| Family::of(pool.net().addr()) == family)
            .find_map(|pool| pool.pick(seed()))
    }

    fn ranges(&self, family: Family) -> String {
        let nets: Vec<String> = self
            .addresses
            .iter()
            .map(|pool| pool.net())
            .filter(|net| Family::of(net.addr()) == family)
            .map(|net| net.to_string())
            .collect();
        nets.join(",")
    }
}

/// A random start for the search in a band.
pub(super) fn seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1
}

impl Reservation<'_> {
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
        let held = old.map(addresses_of).unwrap_or_default();
        let mut addresses = Vec::new();
        for (index, family) in families.iter().enumerate() {
            match wanted
                .get(index)
                .map(String::as_str)
                .filter(|text| !text.is_empty())
            {
                Some(text) => match text.parse::<IpAddr>() {
                    Ok(address) => {
                        self.take_address(service, address, &held)?;
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

    fn take_address(
        &mut self,
        service: &Value,
        address: IpAddr,
        held: &[IpAddr],
    ) -> Result<(), Failure> {
        if held.contains(&address) {
            return Ok(());
        }
        let mut pools = self.allocator.pools();
        match pools.take(address) {
            Ok(()) => {
                self.addresses.push(address);
                Ok(())
            }
            // A dry run looks at the range only, as Kubernetes' does.
            Err(Refused::Taken) if self.dry_run => Ok(()),
            Err(Refused::Taken) => Err(refuse(
                service,
                &format!("failed to allocate IP {address}: provided IP is already allocated"),
            )),
            Err(Refused::OutOfRange) => {
                let ranges = pools.ranges(Family::of(address));
                Err(refuse(
                    service,
                    &format!(
                        "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of valid IPs is {ranges}"
                    ),
                ))
            }
        }
    }

    fn pick_address(&mut self, family: Family) -> Result<IpAddr, Failure> {
        let mut pools = self.allocator.pools();
        let Some(address) = pools.pick(family) else {
            let message = format!(
                "failed to allocate a serviceIP: range is full: {}",
                pools.ranges(family)
            );
            return Err(Box::new(Status::internal(message)));
        };
        self.addresses.push(address);
        Ok(address)
    }
}

fn refuse(service: &Value, detail: &str) -> Failure {
    let ips = at(service, "spec.clusterIPs");
    invalid(
        service,
        vec![Cause::invalid("spec.clusterIPs", ips, detail)],
    )
}
