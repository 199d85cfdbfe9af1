//! The image of the cluster's domain: names and their records.
//!
//! The names are those of the Kubernetes DNS specification, version 1.1.0. A
//! zone is a persistent map, so [`delta`] changes one in place at the cost of
//! what was touched, and publishing it is a clone of a few pointers.
//!
//! Addresses have names too (D12): those of Services and pods in zones of their
//! own, where an unknown address has none, and those of endpoints elsewhere in
//! the wide reverse zones, which leave what they do not know to others.

mod headless;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portolan_dns::{
    Data, Name, NameError, OutOfZone, Record, ReverseZone, Zone, Zones, reverse_zones,
};
use portolan_model::{ServiceKey, Text};
use portolan_plan::{
    NamedEndpoint, NamedPort, Names, NodePlan, NodeView, PodNames, Touched, dashed,
};

/// The version of the specification that we follow (D2), and its TTL.
const VERSION: (&str, u32) = ("1.1.0", 28_800);

/// How many labels a Service's name has before the domain: its own, its namespace's and
/// `svc`.
const SERVICE_LABELS: usize = 3;

/// The zones of a whole plan. Serial numbers start at the given one.
pub fn image(plan: &NodePlan, serial: u32) -> Zones {
    let mut zones = base(&plan.view, serial);
    let layout = Layout::of(&plan.view);
    for namespace in &plan.namespaces {
        layout.set_namespace(&mut zones, namespace, true);
    }
    for (key, names) in &plan.names {
        layout.change(&mut zones, key, None, Some(names));
    }
    for place in &plan.pods {
        layout.set_pod(&mut zones, place, true);
    }
    for zone in zones.iter_mut() {
        zone.set_serial(serial);
    }
    zones
}

/// Brings zones from what they were before to what `plan` says now.
pub fn delta(plan: &NodePlan, touched: &Touched, zones: &mut Zones) {
    if let Some(before) = &touched.view
        && frame(before) != frame(&plan.view)
    {
        let serial = zones.iter().map(Zone::serial).max().unwrap_or_default();
        *zones = image(plan, serial.wrapping_add(1));
        return;
    }
    let layout = Layout::of(&plan.view);
    let serials: Vec<u32> = zones.iter().map(Zone::serial).collect();
    for (namespace, existed) in &touched.namespaces {
        layout.set_namespace(zones, namespace, !existed);
    }
    for (key, before) in &touched.names {
        let after = plan.names.get(key);
        layout.change(zones, key, before.as_deref(), after.map(|names| &**names));
    }
    for (place, existed) in &touched.pods {
        layout.set_pod(zones, place, !existed);
    }
    // One step for a round: by one for each name they would be ahead of the clock, from
    // which they start, and go back at a restart (D17).
    for (zone, before) in zones.iter_mut().zip(serials) {
        if zone.serial() != before {
            zone.set_serial(before.wrapping_add(1));
        }
    }
}

/// What of a view the zones depend on as a whole.
fn frame(view: &NodeView) -> impl PartialEq + '_ {
    (
        &view.cluster_domain,
        &view.dns_addresses,
        &view.service_cidrs,
        &view.cluster_pod_cidrs,
        (view.pod_names, view.zonal_names, view.dns_ttl),
    )
}

/// What exists whatever Services there are.
fn base(view: &NodeView, serial: u32) -> Zones {
    let layout = Layout::of(view);
    let forward = Zone::new(layout.origin.clone(), view.dns_ttl, serial);
    let mut zones = Zones::new(layout.reverse_zones(view, serial).chain([forward]));
    for label in ["svc", "pod"] {
        put(&mut zones, layout.origin.child(label), &[]); // empty non-terminals (D6)
    }
    let (version, ttl) = VERSION;
    let text = Data::Txt(vec![version.as_bytes().to_vec()]);
    put(
        &mut zones,
        layout.origin.child("dns-version"),
        &[Record {
            ttl: Some(ttl),
            data: text,
        }],
    );
    let server = layout.origin.child("dns").and_then(|name| name.child("ns"));
    let addresses: Vec<Record> = view
        .dns_addresses
        .iter()
        .map(|address| Record::from(*address))
        .collect();
    put(&mut zones, server, &addresses);
    zones
}

/// Where names lie.
struct Layout {
    origin: Name,
    pods: PodNames,
    zonal: bool,
}

type Records = BTreeMap<Name, Vec<Record>>;
/// An address, and what it is called.
type Pointer = (IpAddr, Name);

impl Layout {
    fn of(view: &NodeView) -> Self {
        Self {
            origin: Name::parse(&view.cluster_domain).unwrap_or_else(|_| Name::root()),
            pods: view.pod_names,
            zonal: view.zonal_names,
        }
    }

    /// The zones in which addresses have names: those of the cluster's ranges,
    /// and for addresses elsewhere the whole of both families.
    fn reverse_zones(&self, view: &NodeView, serial: u32) -> impl Iterator<Item = Zone> {
        let everything = [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Ipv6Addr::UNSPECIFIED.into(),
        ];
        let everything = everything.into_iter().flat_map(|any| reverse_zones(any, 0));
        let below = |labels: &[&str]| {
            let labels = labels.iter().map(|label| label.as_bytes());
            Name::from_labels(labels.chain(self.origin.labels()))
                .unwrap_or_else(|_| self.origin.clone())
        };
        let authority = (below(&["ns", "dns"]), below(&["hostmaster"]));
        let ttl = view.dns_ttl;
        let zone = move |origin| Zone::with_authority(origin, ttl, serial, authority.clone());
        let wide: Vec<Zone> = everything
            .map(|wide| zone(wide.origin).falling_through())
            .collect();
        let own = own_reverse_zones(view).into_iter();
        wide.into_iter()
            .chain(own.map(move |(origin, labels)| match labels {
                None => zone(origin),
                Some(labels) => zone(origin).answering_below(labels),
            }))
    }

    /// Whether an address is called by the name of a Service, not by one below it.
    fn is_service(&self, record: &Record) -> bool {
        let Data::Ptr(target) = &record.data else {
            return false;
        };
        let above = |name: &Name| name.labels().count();
        target.is_within(&self.origin) && above(target) == above(&self.origin) + SERVICE_LABELS
    }

    fn namespace(&self, namespace: &str) -> Result<Name, NameError> {
        self.origin.child("svc")?.child(namespace)
    }

    /// Where the names of a namespace's pods lie.
    fn pods_of(&self, namespace: &str) -> Result<Name, NameError> {
        self.origin.child("pod")?.child(namespace)
    }

    fn set_namespace(&self, zones: &mut Zones, namespace: &str, exists: bool) {
        let (services, pods) = (self.namespace(namespace), self.pods_of(namespace));
        if !exists {
            take(zones, services.ok().as_ref());
            take(zones, pods.ok().as_ref());
            return;
        }
        put(zones, services, &[]);
        match (self.pods, pods) {
            (PodNames::Verified, pods) => put(zones, pods, &[]),
            (PodNames::Insecure, Ok(pods)) => {
                if let Some(zone) = zones.zone_of_mut(&pods) {
                    ignore(zone.set_spelling(&pods));
                }
            }
            (PodNames::Disabled, _) | (PodNames::Insecure, Err(_)) => {}
        }
    }

    /// The name of a pod by its address (D15).
    fn set_pod(&self, zones: &mut Zones, (namespace, address): &(Text, IpAddr), exists: bool) {
        if self.pods != PodNames::Verified {
            return;
        }
        let name = self
            .pods_of(namespace)
            .and_then(|pods| pods.child(dashed(*address)));
        if exists {
            put(zones, name, &[Record::from(*address)]);
        } else {
            take(zones, name.ok().as_ref());
        }
    }

    /// Replaces the names of one Service.
    fn change(
        &self,
        zones: &mut Zones,
        key: &ServiceKey,
        before: Option<&Names>,
        after: Option<&Names>,
    ) {
        if let (Some(Names::Endpoints { all: old, .. }), Some(Names::Endpoints { all: new, .. })) =
            (before, after)
            && headless::amend(self, zones, key, (old, new))
        {
            if self.zonal {
                self.part(zones, key, before, after);
            }
            return;
        }
        let records = |names| self.records(key, names).unwrap_or_default();
        let new = after.map(records).unwrap_or_default();
        for name in before.map(records).unwrap_or_default().keys() {
            if !new.contains_key(name) {
                take(zones, Some(name));
            }
        }
        for (name, records) in new {
            put(zones, Ok(name), &records);
        }
        if self.zonal {
            self.part(zones, key, before, after);
        }
        self.rename(zones, key, before, after);
    }

    /// Replaces the names of the zones of one headless Service.
    fn part(
        &self,
        zones: &mut Zones,
        key: &ServiceKey,
        before: Option<&Names>,
        after: Option<&Names>,
    ) {
        let service = self.namespace(&key.namespace);
        let Ok(service) = service.and_then(|name| name.child(key.name.as_bytes())) else {
            return;
        };
        let parts = match (before, after) {
            (_, Some(Names::Endpoints { all, by_zone })) => {
                Some(Some(parts(&service, all, by_zone)))
            }
            (Some(Names::Endpoints { .. }), _) => Some(None),
            (Some(Names::Addresses { .. } | Names::Alias(_)) | None, _) => None,
        };
        if let (Some(parts), Some(zone)) = (parts, zones.zone_of_mut(&service)) {
            ignore(zone.set_parts(&service, parts.as_ref()));
        }
    }

    /// Replaces what the addresses of one Service are called. An address may have
    /// names by other Services as well, which stay.
    fn rename(
        &self,
        zones: &mut Zones,
        key: &ServiceKey,
        before: Option<&Names>,
        after: Option<&Names>,
    ) {
        let pointers = |names| self.pointers(key, names).unwrap_or_default();
        let before = before.map(pointers).unwrap_or_default();
        let after = after.map(pointers).unwrap_or_default();
        repoint(self, zones, &before, &after);
    }

    /// What the addresses of one Service are called: its own by the Service's
    /// name, those of a headless one's endpoints by theirs.
    fn pointers(&self, key: &ServiceKey, names: &Names) -> Result<BTreeSet<Pointer>, NameError> {
        let service = self.namespace(&key.namespace)?.child(key.name.as_bytes())?;
        match names {
            Names::Alias(_) => Ok(BTreeSet::new()),
            Names::Addresses { addresses, .. } => Ok(addresses
                .iter()
                .map(|address| (*address, service.clone()))
                .collect()),
            Names::Endpoints { all, .. } => Ok(all
                .iter()
                .filter_map(|one| Some((one.address, service.child(one.label.as_bytes()).ok()?)))
                .collect()),
        }
    }

    /// All names of one Service.
    fn records(&self, key: &ServiceKey, names: &Names) -> Result<Records, NameError> {
        let service = self.namespace(&key.namespace)?.child(key.name.as_bytes())?;
        match names {
            Names::Alias(target) => {
                let target = Name::parse(target)?;
                Ok(Records::from([(service, vec![Data::Cname(target).into()])]))
            }
            Names::Addresses { addresses, ports } => Ok(of_addresses(service, addresses, ports)),
            Names::Endpoints { all, .. } => Ok(of_endpoints(service, all)),
        }
    }
}

/// Brings what addresses are called from one set of names to another. An address that
/// is a Service's has that name alone, as for CoreDNS; names that it has as an
/// endpoint's come back when the Service goes.
fn repoint(
    layout: &Layout,
    zones: &mut Zones,
    before: &BTreeSet<Pointer>,
    after: &BTreeSet<Pointer>,
) {
    let changed: BTreeSet<IpAddr> = before
        .symmetric_difference(after)
        .map(|(address, _)| *address)
        .collect();
    for address in changed {
        let of = |pair: &&Pointer| pair.0 == address;
        let record = |(_, name): &Pointer| Record::from(Data::Ptr(name.clone()));
        let name = Name::reverse(address);
        let Some(zone) = zones.zone_of_mut(&name) else {
            continue;
        };
        let mut records = zone.get(&name).unwrap_or_default();
        records.extend_from_slice(zone.shadowed(&name));
        let old: Vec<Record> = before.iter().filter(of).map(record).collect();
        records.retain(|known| !old.contains(known));
        records.extend(after.iter().filter(of).map(record));
        let (mut own, mut others): (Vec<Record>, Vec<Record>) = records
            .into_iter()
            .partition(|known| layout.is_service(known));
        if own.is_empty() {
            std::mem::swap(&mut own, &mut others);
        }
        zone.shadow(&name, others);
        ignore(if own.is_empty() {
            zone.remove(&name)
        } else {
            zone.set(&name, &own)
        });
    }
}

/// The reverse zones of the cluster's ranges, each with the labels for which it answers
/// if these are not all. What lies in a zone that answers for all needs none of its own.
fn own_reverse_zones(view: &NodeView) -> BTreeMap<Name, Option<BTreeSet<String>>> {
    let ranges = view.service_cidrs.iter().chain(&view.cluster_pod_cidrs);
    let all = ranges.flat_map(|range| reverse_zones(range.network(), range.prefix_len()));
    let (mut whole, mut parts) = (BTreeSet::new(), BTreeMap::<Name, BTreeSet<String>>::new());
    for ReverseZone { origin, labels } in all {
        match labels {
            None => drop(whole.insert(origin)),
            Some(labels) => parts.entry(origin).or_default().extend(labels),
        }
    }
    parts.retain(|origin, _| !whole.iter().any(|around| origin.is_within(around)));
    let parts = parts
        .into_iter()
        .map(|(origin, labels)| (origin, Some(labels)));
    let whole = whole.into_iter().map(|origin| (origin, None));
    whole.chain(parts).collect()
}

/// A Service with addresses of its own (D3, D7).
fn of_addresses(service: Name, addresses: &[IpAddr], ports: &[NamedPort]) -> Records {
    let mut offers = Offers::default();
    for port in ports {
        for _ in addresses {
            offers.add(&service, port, &service);
        }
    }
    let mut records = offers.records();
    let own = records.entry(service).or_default();
    own.extend(addresses.iter().map(|address| Record::from(*address)));
    records
}

/// A Service that is its endpoints (D8–D10).
fn of_endpoints<'e>(
    service: Name,
    endpoints: impl IntoIterator<Item = &'e NamedEndpoint>,
) -> Records {
    let mut offers = Offers::default();
    let mut addresses = Records::new();
    for endpoint in endpoints {
        let own = service.child(endpoint.label.as_bytes()).ok();
        if let Some(own) = &own {
            for port in endpoint.ports.iter() {
                offers.add(&service, port, own);
            }
        }
        for name in [Some(service.clone()), own].into_iter().flatten() {
            addresses
                .entry(name)
                .or_default()
                .push(endpoint.address.into());
        }
    }
    let mut records = offers.records();
    for (name, mut found) in addresses {
        found.sort_unstable();
        found.dedup();
        records.entry(name).or_default().extend(found);
    }
    records
}

/// What the Service's name would stand for in each zone if it had no other endpoints:
/// weights share 100 among those of the zone alone, as CoreDNS has it.
fn parts(
    service: &Name,
    all: &[NamedEndpoint],
    by_zone: &BTreeMap<Text, Vec<u32>>,
) -> BTreeMap<Vec<u8>, Vec<Record>> {
    let one = |(zone, places): (&Text, &Vec<u32>)| {
        let own = places.iter().filter_map(|place| all.get(*place as usize));
        let mut records = of_endpoints(service.clone(), own);
        let records = records.remove(service).unwrap_or_default();
        (zone.as_bytes().to_vec(), records)
    };
    by_zone.iter().map(one).collect()
}

/// Who offers what: SRV records in the making, by owner name.
#[derive(Default)]
struct Offers {
    by_owner: BTreeMap<Name, Vec<(u16, Name)>>,
}

impl Offers {
    /// A host offers a port: under the port's own name, if it has one that can be a
    /// label (with the underscore, 63 letters are one too many), and under the
    /// Service's.
    fn add(&mut self, service: &Name, port: &NamedPort, host: &Name) {
        let owner = || {
            let protocol = service.child(format!("_{}", port.protocol)).ok()?;
            protocol.child(format!("_{}", port.name)).ok()
        };
        let own = owner().filter(|_| !port.name.is_empty());
        for owner in [own, Some(service.clone())].into_iter().flatten() {
            let offers = self.by_owner.entry(owner).or_default();
            offers.push((port.port, host.clone()));
        }
    }

    /// The weight shares 100 among the offers; it counts them before
    /// duplicates go, as CoreDNS does.
    fn records(self) -> Records {
        let mut records = Records::new();
        for (owner, mut offers) in self.by_owner {
            let weight = weight(offers.len());
            offers.sort_unstable();
            offers.dedup();
            let srv = |(port, target)| {
                Record::from(Data::Srv {
                    priority: 0,
                    weight,
                    port,
                    target,
                })
            };
            records.insert(owner, offers.into_iter().map(srv).collect());
        }
        records
    }
}

/// The weight of each of so many offers.
fn weight(offers: usize) -> u16 {
    let weight = 100_usize.checked_div(offers).unwrap_or(100).max(1);
    u16::try_from(weight).unwrap_or(100)
}

/// A name that cannot exist, because it is too long, is not in the zone.
fn put(zones: &mut Zones, name: Result<Name, NameError>, records: &[Record]) {
    let Ok(name) = name else { return };
    if let Some(zone) = zones.zone_of_mut(&name) {
        ignore(zone.set(&name, records));
    }
}

fn take(zones: &mut Zones, name: Option<&Name>) {
    let Some(name) = name else { return };
    if let Some(zone) = zones.zone_of_mut(name) {
        ignore(zone.remove(name));
    }
}

/// The zone was chosen by the name, so the name is in it.
fn ignore(result: Result<bool, OutOfZone>) {
    drop(result);
}
