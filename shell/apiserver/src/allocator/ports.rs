//! NodePorts and health check ports (A7, A8, A10, A11).
//!
//! One node port may serve several protocols of one Service where the Service
//! port number is the same too; otherwise a second use is "already allocated".

use std::collections::BTreeMap;

use portolan_api::value::{at, bool_at, int_at, list_at, list_at_mut, set, str_at};
use portolan_api::{Cause, Status};
use portolan_plan::allocate::Refused;
use serde_json::{Value, json};

use super::addresses::seed;
use super::{Reservation, invalid, ports_of};
use crate::answer::Failure;

impl Reservation<'_> {
    pub(super) fn take_ports(
        &mut self,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        if !matches!(str_at(service, "spec.type"), "NodePort" | "LoadBalancer") {
            return Ok(());
        }
        let held = old.map(node_ports_of).unwrap_or_default();
        let may_pick = picks_ports(service);
        // Service port number → its node port in this Service.
        let mut by_port: BTreeMap<i64, i64> = BTreeMap::new();
        for index in 0..list_at(service, "spec.ports").len() {
            let (port, wanted) = numbers(service, index);
            if wanted == 0 && !may_pick {
                continue;
            }
            let requested = match wanted {
                0 => requested_for(service, port),
                wanted => wanted,
            };
            let shared = by_port.get(&port).copied();
            let node_port = match (shared, requested) {
                (Some(shared), requested) if requested == 0 || requested == shared => shared,
                (_, 0) => self.pick_port()?,
                (_, requested) => {
                    self.take_port(service, index, requested, &held)?;
                    requested
                }
            };
            by_port.entry(port).or_insert(node_port);
            if let Some(entry) = list_at_mut(service, "spec.ports").get_mut(index) {
                set(entry, "nodePort", node_port);
            }
        }
        Ok(())
    }

    fn take_port(
        &mut self,
        service: &Value,
        index: usize,
        port: i64,
        held: &[i64],
    ) -> Result<(), Failure> {
        if held.contains(&port) {
            return Ok(());
        }
        let mut pools = self.allocator.pools();
        let refused = match u16::try_from(port) {
            Ok(port) => pools.ports.take(port).map(|()| self.ports.push(port)),
            Err(_) => Err(Refused::OutOfRange),
        };
        let Err(refused) = refused else {
            return Ok(());
        };
        let range = pools.ports.range();
        let field = format!("spec.ports[{index}].nodePort");
        let cause = Cause::invalid(field, &json!(port), &why(refused, &range));
        Err(invalid(service, vec![cause]))
    }

    fn pick_port(&mut self) -> Result<i64, Failure> {
        let picked = self.allocator.pools().ports.pick(seed());
        let Some(port) = picked else {
            return Err(Box::new(Status::internal(
                "failed to allocate a nodePort: range is full",
            )));
        };
        self.ports.push(port);
        Ok(i64::from(port))
    }

    /// S16: a LoadBalancer with externalTrafficPolicy Local has one.
    pub(super) fn take_health_port(
        &mut self,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        let needed = str_at(service, "spec.type") == "LoadBalancer"
            && str_at(service, "spec.externalTrafficPolicy") == "Local";
        let wanted = int_at(service, "spec.healthCheckNodePort").unwrap_or(0);
        if !needed || old.is_some_and(|old| health_port_of(old) == wanted && wanted != 0) {
            return Ok(());
        }
        if wanted == 0 {
            let port = self.pick_port()?;
            set(service, "spec.healthCheckNodePort", port);
            return Ok(());
        }
        let mut pools = self.allocator.pools();
        let refused = match u16::try_from(wanted) {
            Ok(port) => pools.ports.take(port).map(|()| self.ports.push(port)),
            Err(_) => Err(Refused::OutOfRange),
        };
        refused.map_err(|refused| {
            let why = why(refused, &pools.ports.range());
            let message =
                format!("failed to allocate requested HealthCheck NodePort {wanted}: {why}");
            Box::new(Status::internal(message))
        })
    }
}

fn why(refused: Refused, range: &std::ops::RangeInclusive<u16>) -> String {
    match refused {
        Refused::Taken => "provided port is already allocated".to_owned(),
        Refused::OutOfRange => format!(
            "provided port is not in the valid range. The range of valid ports is {}-{}",
            range.start(),
            range.end()
        ),
    }
}

/// S13: a LoadBalancer may go without node ports.
fn picks_ports(service: &Value) -> bool {
    str_at(service, "spec.type") != "LoadBalancer"
        || at(service, "spec.allocateLoadBalancerNodePorts").is_null()
        || bool_at(service, "spec.allocateLoadBalancerNodePorts")
}

fn numbers(service: &Value, index: usize) -> (i64, i64) {
    let entry = list_at(service, "spec.ports").get(index);
    let number = |field: &str| entry.and_then(|entry| int_at(entry, field)).unwrap_or(0);
    (number("port"), number("nodePort"))
}

/// The node port that any entry with this Service port asks for.
fn requested_for(service: &Value, port: i64) -> i64 {
    list_at(service, "spec.ports")
        .iter()
        .filter(|entry| int_at(entry, "port") == Some(port))
        .find_map(|entry| int_at(entry, "nodePort").filter(|port| *port != 0))
        .unwrap_or(0)
}

fn node_ports_of(service: &Value) -> Vec<i64> {
    let health = health_port_of(service);
    ports_of(service)
        .into_iter()
        .map(i64::from)
        .filter(|port| *port != health)
        .collect()
}

fn health_port_of(service: &Value) -> i64 {
    int_at(service, "spec.healthCheckNodePort").unwrap_or(0)
}
