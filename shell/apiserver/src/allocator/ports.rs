//! NodePorts and health check ports (A7, A8, A10, A11).
//!
//! On create one node port serves several protocols of one Service where the
//! Service port number is the same too; otherwise a second use is "already
//! allocated". On update every entry stands for itself.

use std::collections::{BTreeMap, BTreeSet};

use portolan_api::kinds::service_update::needs_health_check_node_port;
use portolan_api::value::{at, bool_at, int_at, list_at, list_at_mut, set, str_at};
use portolan_api::{Cause, Status};
use portolan_plan::allocate::Refused;
use serde_json::{Value, json};

use super::addresses::seed;
use super::{Reservation, invalid, ports_of};
use crate::answer::{self, Failure};

impl Reservation {
    pub(super) fn take_ports(
        &mut self,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        if !matches!(str_at(service, "spec.type"), "NodePort" | "LoadBalancer") {
            return Ok(());
        }
        match old {
            None => self.take_first_ports(service),
            Some(old) => self.take_changed_ports(service, old),
        }
    }

    /// The ports of a new Service: entries of one Service port number share.
    fn take_first_ports(&mut self, service: &mut Value) -> Result<(), Failure> {
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
                    self.take_port(service, index, requested)?;
                    requested
                }
            };
            by_port.entry(port).or_insert(node_port);
            set_node_port(service, index, node_port);
        }
        Ok(())
    }

    /// The ports of a changed Service. Kubernetes shares nothing here: what has
    /// no port gets one of its own, and only a protocol may repeat one.
    fn take_changed_ports(&mut self, service: &mut Value, old: &Value) -> Result<(), Failure> {
        let mut held = node_ports_of(old);
        let may_pick = picks_ports(service);
        let mut seen = BTreeSet::new();
        for index in 0..list_at(service, "spec.ports").len() {
            let (_, wanted) = numbers(service, index);
            if wanted == 0 && !may_pick {
                continue;
            }
            let node_port = match wanted {
                0 => self.pick_port()?,
                wanted if held.contains(&wanted) => wanted,
                wanted => {
                    self.take_port(service, index, wanted)?;
                    held.push(wanted);
                    wanted
                }
            };
            let protocol = protocol(service, index);
            if !seen.insert((protocol.clone(), node_port)) {
                let message = format!("duplicate nodePort: {{{protocol} {node_port}}}");
                return Err(answer::unknown_error(message));
            }
            set_node_port(service, index, node_port);
        }
        Ok(())
    }

    fn take_port(&mut self, service: &Value, index: usize, port: i64) -> Result<(), Failure> {
        let Err(refused) = self.reserve_port(port) else {
            return Ok(());
        };
        let field = format!("spec.ports[{index}].nodePort");
        let cause = Cause::invalid(field, &json!(port), &self.why(refused));
        Err(invalid(service, vec![cause]))
    }

    fn reserve_port(&mut self, port: i64) -> Result<(), Refused> {
        let number = u16::try_from(port);
        if self.dry_run {
            // A dry run looks at who has it, not at the range, as Kubernetes' does.
            let Ok(port) = number else {
                return Ok(());
            };
            if self.ports.contains(&port) || self.allocator.books().ports.holders(port.into()) > 0 {
                return Err(Refused::Taken);
            }
            self.ports.push(port);
            return Ok(());
        }
        let port = number.map_err(|_too_large| Refused::OutOfRange)?;
        let mut books = self.allocator.books();
        self.allocator.ports.check(&books.ports, port)?;
        books.hold_port(port);
        self.ports.push(port);
        Ok(())
    }

    fn pick_port(&mut self) -> Result<i64, Failure> {
        if self.dry_run {
            // Kubernetes' stand-ins for ports that are not taken.
            let last = self.ports.iter().max().map_or(32_768, |port| *port);
            let port = last.saturating_add(1);
            self.ports.push(port);
            return Ok(i64::from(port));
        }
        let mut books = self.allocator.books();
        let Some(port) = self.allocator.ports.pick(&books.ports, seed()) else {
            return Err(Box::new(Status::internal(
                "failed to allocate a nodePort: range is full",
            )));
        };
        books.hold_port(port);
        self.ports.push(port);
        Ok(i64::from(port))
    }

    fn why(&self, refused: Refused) -> String {
        why(refused, &self.allocator.ports.range())
    }

    /// S16: a LoadBalancer with externalTrafficPolicy Local has one.
    pub(super) fn take_health_port(
        &mut self,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        let needed = needs_health_check_node_port(service);
        let wanted = int_at(service, "spec.healthCheckNodePort").unwrap_or(0);
        // What had one keeps it: validation refuses another.
        if !needed || old.is_some_and(needs_health_check_node_port) {
            return Ok(());
        }
        if wanted == 0 {
            let port = self.pick_port()?;
            set(service, "spec.healthCheckNodePort", port);
            return Ok(());
        }
        self.reserve_port(wanted).map_err(|refused| {
            let why = self.why(refused);
            let message =
                format!("failed to allocate requested HealthCheck NodePort {wanted}: {why}");
            Box::new(Status::internal(message)) as Failure
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

fn protocol(service: &Value, index: usize) -> String {
    let entry = list_at(service, "spec.ports").get(index);
    entry.map_or_else(String::new, |entry| str_at(entry, "protocol").to_owned())
}

fn set_node_port(service: &mut Value, index: usize, node_port: i64) {
    if let Some(entry) = list_at_mut(service, "spec.ports").get_mut(index) {
        set(entry, "nodePort", node_port);
    }
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
