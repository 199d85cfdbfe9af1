//! The reference: every name and record of a cluster in one flat list, made by plain
//! loops after version 1.1.0 of the Kubernetes DNS specification, and searched from
//! its beginning for every question. It shares nothing with the server but the facts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use portolan_model::{Endpoint, Fact, Publication, Service, Slice};
use portolan_plan::{NodeView, PodNames};

/// The types that are asked for.
pub(crate) const TYPES: [&str; 10] = [
    "A", "AAAA", "SRV", "PTR", "CNAME", "TXT", "SOA", "NS", "MX", "ANY",
];
/// The longest chain of aliases that is followed.
const MOST_ALIASES: usize = 8;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    pub(crate) owner: String,
    pub(crate) ttl: u32,
    pub(crate) rtype: &'static str,
    pub(crate) data: String,
}

impl Line {
    pub(crate) fn text(&self) -> String {
        format!("{} {} {} {}", self.owner, self.ttl, self.rtype, self.data)
    }
}

/// What the answer to a question must be. `soa` is the zone whose SOA record says for
/// how long an empty answer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The name is somebody else's.
    Elsewhere,
    /// It does not exist.
    NoName { soa: String },
    /// It exists and has no such record.
    NoData { soa: String },
    /// These records; with `outside` they end with an alias to a name elsewhere.
    Records {
        lines: BTreeSet<String>,
        outside: bool,
    },
}

/// All that is known of the names of a cluster.
pub(crate) struct Reference {
    domain: String,
    ttl: u32,
    /// The tops of the zones that answer for all names below them.
    pub(crate) origins: Vec<String>,
    /// The addresses of ranges that are a part of such a zone, by their reverse names.
    pub(crate) single: BTreeSet<String>,
    /// Names that exist whether they have records or not.
    pub(crate) bare: Vec<String>,
    pub(crate) lines: Vec<Line>,
    /// What a headless Service's name would stand for without the endpoints of other
    /// zones, by Service and zone, where zones have names.
    pub(crate) parts: BTreeMap<String, BTreeMap<String, Vec<Line>>>,
    /// The names below which every label that spells an address has that address.
    pub(crate) spelling: Vec<String>,
}

/// An address as one label.
fn label_of(address: IpAddr) -> String {
    let dashes = match address {
        IpAddr::V4(v4) => v4.to_string().replace('.', "-"),
        IpAddr::V6(v6) => v6.to_string().replace(':', "-"),
    };
    // No label ends in a dash.
    if dashes.ends_with('-') {
        dashes + "0"
    } else {
        dashes
    }
}

/// The name under which an address is looked up (RFC 1035 §3.5, RFC 3596 §2.5).
pub(crate) fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let digits = format!("{:032x}", u128::from(v6));
            let turned: Vec<String> = digits.chars().rev().map(String::from).collect();
            turned.join(".") + ".ip6.arpa"
        }
    }
}

/// The tops of the zones of a range: as many labels as cover its prefix. Of one that
/// ends within the last label there are single addresses instead.
fn origins_of(range: IpNet) -> (Vec<String>, Vec<String>) {
    let (bits, all) = match range {
        IpNet::V4(_) => (8, 4),
        IpNet::V6(_) => (4, 32),
    };
    let labels = range.prefix_len().div_ceil(bits);
    let parts = range.subnets(labels * bits).unwrap();
    let of = |part: IpNet| {
        let whole = reverse(part.network());
        let above = whole.splitn(usize::from(all - labels) + 1, '.').last();
        above.unwrap().to_owned()
    };
    let tops = parts.map(of).collect();
    if labels == all {
        (Vec::new(), tops)
    } else {
        (tops, Vec::new())
    }
}

fn is_below(name: &str, top: &str) -> bool {
    name == top || name.ends_with(&format!(".{top}"))
}

fn rtype_of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "A" } else { "AAAA" }
}

impl Reference {
    pub(crate) fn new(facts: &[Fact], view: &NodeView) -> Self {
        let domain = view.cluster_domain.to_lowercase();
        let mut ranges: Vec<IpNet> = view.service_cidrs.clone();
        ranges.extend(&view.cluster_pod_cidrs);
        for fact in facts {
            if let Fact::ServiceCidr(cidr) = fact {
                ranges.extend(&cidr.ranges);
            }
        }
        let (origins, single): (Vec<_>, Vec<_>) = ranges.into_iter().map(origins_of).unzip();
        let mut this = Self {
            origins: origins.concat(),
            single: single.concat().into_iter().collect(),
            bare: Vec::new(),
            lines: Vec::new(),
            spelling: Vec::new(),
            parts: BTreeMap::new(),
            ttl: view.dns_ttl,
            domain: domain.clone(),
        };
        this.origins.push(domain.clone());
        for name in ["svc", "pod", "ns.dns"] {
            this.bare.push(format!("{name}.{domain}"));
        }
        for address in &view.dns_addresses {
            this.address(&format!("ns.dns.{domain}"), *address);
        }
        this.line(&format!("dns-version.{domain}"), "TXT", "1.1.0".to_owned());
        this.lines.last_mut().unwrap().ttl = 28_800;
        for fact in facts {
            match fact {
                Fact::Service(service) => {
                    this.service(service, facts);
                    if view.zonal_names && service.publication == Publication::Headless {
                        this.part(service, facts);
                    }
                }
                Fact::Namespace(namespace) => this.namespace(&namespace.name, view.pod_names),
                Fact::Pod(pod) if view.pod_names == PodNames::Verified => {
                    if let Some(&address) = pod.addresses.first() {
                        let label = label_of(address);
                        let owner = format!("{label}.{}.pod.{domain}", pod.key.namespace);
                        this.address(&owner, address);
                    }
                }
                Fact::Pod(_)
                | Fact::Policy(_)
                | Fact::ClusterPolicy(_)
                | Fact::Slice(_)
                | Fact::Node(_)
                | Fact::ServiceCidr(_) => {}
            }
        }
        this.hide();
        this
    }

    /// The address of a Service has its name alone, though it is an endpoint's too.
    fn hide(&mut self) {
        let depth = |line: &Line| line.data.split('.').count();
        let lowest = 3 + self.domain.split('.').count();
        let is_own = |line: &Line| line.rtype == "PTR" && depth(line) == lowest;
        let own = self.lines.iter().filter(|line| is_own(line));
        let own: BTreeSet<String> = own.map(|line| line.owner.clone()).collect();
        let stays = |line: &Line| line.rtype != "PTR" || is_own(line) || !own.contains(&line.owner);
        self.lines.retain(stays);
    }

    /// The names of the zones of a headless Service.
    fn part(&mut self, service: &Service, facts: &[Fact]) {
        let key = &service.key;
        let name = format!("{}.{}.svc.{}", key.name, key.namespace, self.domain).to_lowercase();
        let mut parts = BTreeMap::new();
        for zone in super::worlds::ZONES {
            let own = endpoints(service, facts, Some(zone));
            if own.is_empty() {
                continue;
            }
            // The records of a Service that has these alone.
            let mut alone = Self {
                origins: Vec::new(),
                single: BTreeSet::new(),
                bare: Vec::new(),
                lines: Vec::new(),
                spelling: Vec::new(),
                parts: BTreeMap::new(),
                domain: self.domain.clone(),
                ttl: self.ttl,
            };
            alone.headless(&name, &own);
            alone.lines.retain(|line| line.owner == name);
            parts.insert(zone.to_lowercase(), alone.lines);
        }
        self.parts.insert(name, parts);
    }

    /// The records of a name of a zone, if it is one.
    fn zonal(&self, name: &str) -> Option<Vec<Line>> {
        let (zone, rest) = name.split_once('.')?;
        let (manner, rest) = rest.split_once("._zone.")?;
        let parts = self.parts.get(rest)?;
        let whole = || self.lines.iter().filter(|line| line.owner == rest).cloned();
        let lines = match (parts.get(zone), manner) {
            (Some(own), "pin" | "prefer") => own.clone(),
            (None, "pin") => Vec::new(),
            (None, "prefer") => whole().collect(),
            _ => return None,
        };
        let named = |line: Line| Line {
            owner: name.to_owned(),
            ..line
        };
        Some(lines.into_iter().map(named).collect())
    }

    fn line(&mut self, owner: &str, rtype: &'static str, data: String) {
        let (owner, data, ttl) = (owner.to_lowercase(), data.to_lowercase(), self.ttl);
        self.lines.push(Line {
            owner,
            ttl,
            rtype,
            data,
        });
    }

    fn address(&mut self, owner: &str, address: IpAddr) {
        self.line(owner, rtype_of(address), address.to_string());
    }

    fn namespace(&mut self, name: &str, pods: PodNames) {
        self.bare.push(format!("{name}.svc.{}", self.domain));
        let own = format!("{name}.pod.{}", self.domain);
        match pods {
            PodNames::Disabled => {}
            PodNames::Verified => self.bare.push(own),
            PodNames::Insecure => {
                self.bare.push(own.clone());
                self.spelling.push(own);
            }
        }
    }

    fn service(&mut self, service: &Service, facts: &[Fact]) {
        let key = &service.key;
        let name = format!("{}.{}.svc.{}", key.name, key.namespace, self.domain);
        match &service.publication {
            Publication::ExternalName(target) => {
                let target = target.to_lowercase();
                self.line(&name, "CNAME", target.trim_end_matches('.').to_owned());
            }
            Publication::Headless => self.headless(&name, &endpoints(service, facts, None)),
            Publication::ClusterIp | Publication::NodePort | Publication::LoadBalancer => {
                let mut offers = Vec::new();
                for address in &service.cluster_ips {
                    self.address(&name, *address);
                    self.line(&reverse(*address), "PTR", name.clone());
                    for port in &service.ports {
                        let protocol = port.protocol.name();
                        offers.push((port.name.to_string(), protocol, port.port, name.clone()));
                    }
                }
                self.offers(&name, &offers);
            }
        }
    }

    fn headless(&mut self, name: &str, endpoints: &[(&Endpoint, Ports)]) {
        let mut offers = Vec::new();
        for (endpoint, ports) in endpoints {
            let label = match &endpoint.hostname {
                Some(hostname) => hostname.to_string(),
                None => label_of(endpoint.address),
            };
            let own = format!("{label}.{name}");
            self.address(name, endpoint.address);
            self.address(&own, endpoint.address);
            self.line(&reverse(endpoint.address), "PTR", own.clone());
            for (port_name, protocol, port) in ports {
                offers.push((port_name.clone(), *protocol, *port, own.clone()));
            }
        }
        self.offers(name, &offers);
    }

    /// The SRV records of a Service, below its name and, as CoreDNS has them, at it.
    fn offers(&mut self, name: &str, offers: &[(String, &str, u16, String)]) {
        let mut by_owner: BTreeMap<String, Vec<(u16, &str)>> = BTreeMap::new();
        for (port_name, protocol, port, target) in offers {
            let mut owners = vec![name.to_owned()];
            // A label has 63 octets at most (RFC 1035 section 2.3.4).
            if !port_name.is_empty() && port_name.len() < 63 {
                owners.push(format!("_{port_name}._{protocol}.{name}"));
            }
            for owner in owners {
                by_owner.entry(owner).or_default().push((*port, target));
            }
        }
        for (owner, all) in by_owner {
            let weight = (100 / all.len()).max(1);
            for (port, target) in all {
                self.line(&owner, "SRV", format!("0 {weight} {port} {target}"));
            }
        }
    }

    /// The SOA record that goes with an empty answer of a zone; its TTL and its minimum
    /// are those of the records (D16).
    pub(crate) fn soa(&self, zone: &str) -> String {
        let (ttl, domain) = (self.ttl, &self.domain);
        format!("{zone} {ttl} SOA ns.dns.{domain} hostmaster.{domain} {ttl}")
    }

    /// What is added to an answer: the addresses of those that it names as servers.
    pub(crate) fn glue(&self, answers: &BTreeSet<String>) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for answer in answers {
            let words: Vec<&str> = answer.split(' ').collect();
            let target = match words[2] {
                "SRV" => words[6],
                "NS" => words[3],
                _ => continue,
            };
            for rtype in ["A", "AAAA"] {
                all.extend(self.of(target, rtype).iter().map(|line| line.text()));
            }
        }
        all
    }

    /// The zone of a name.
    fn zone(&self, name: &str) -> Option<String> {
        let around = self.origins.iter().filter(|top| is_below(name, top));
        if let Some(closest) = around.max_by_key(|top| top.len()) {
            return Some(closest.clone());
        }
        // Of a range that is a part of a zone, or in the same zone as one.
        let above = |single: &String| single.split_once('.').unwrap().1.to_owned();
        if let Some(single) = self.single.iter().find(|single| is_below(name, single)) {
            return Some(above(single));
        }
        // An address outside the ranges is known only if it has a name.
        if !self.lines.iter().any(|line| line.owner == name) {
            return None;
        }
        let mut parts = self.single.iter().map(above);
        if let Some(part) = parts.find(|top| is_below(name, top)) {
            return Some(part);
        }
        let wide = ["in-addr.arpa", "ip6.arpa"];
        let wide = wide.into_iter().find(|top| is_below(name, top))?;
        Some(wide.to_owned())
    }

    fn of(&self, name: &str, rtype: &str) -> Vec<Line> {
        let own = self.lines.iter().filter(|line| line.owner == name).cloned();
        let lines = own.chain(self.zonal(name).into_iter().flatten());
        lines.filter(|line| line.rtype == rtype).collect()
    }

    /// The address that a name spells as a pod's.
    fn spelled(&self, name: &str) -> Option<IpAddr> {
        let (label, above) = name.split_once('.')?;
        if !self.spelling.iter().any(|top| top == above) {
            return None;
        }
        let dots = label.matches('-').count() == 3 && !label.contains("--");
        if dots {
            label.replace('-', ".").parse().ok().map(IpAddr::V4)
        } else {
            label.replace('-', ":").parse().ok().map(IpAddr::V6)
        }
    }

    /// Whether a name exists: it was written down, or one below it was.
    fn exists(&self, name: &str, zone: &str) -> bool {
        let written = self.bare.iter().chain(self.lines.iter().map(|l| &l.owner));
        let mut below = written.filter(|other| is_below(other, name));
        name == zone
            || below.any(|other| self.zone(other).as_deref() == Some(zone))
            || self.zonal(name).is_some()
    }

    /// The answer to a question; `name` is lower-case without a final dot.
    pub(crate) fn answer(&self, name: &str, rtype: &str) -> Expected {
        let Some(zone) = self.zone(name) else {
            return Expected::Elsewhere;
        };
        let spelled = self.spelled(name);
        if spelled.is_none() && !self.exists(name, &zone) {
            return Expected::NoName { soa: zone };
        }
        let (ttl, domain) = (self.ttl, &self.domain);
        let authority = format!("ns.dns.{domain}");
        let one = match (rtype, spelled) {
            ("ANY", _) => format!("{name} {ttl} HINFO"),
            ("SOA", _) if name == zone => self.soa(&zone),
            ("NS", _) if name == zone => format!("{name} {ttl} NS {authority}"),
            (_, Some(address)) if rtype == rtype_of(address) => {
                format!("{name} {ttl} {rtype} {address}")
            }
            (_, Some(_)) => return Expected::NoData { soa: zone },
            _ => return self.records(name, rtype, zone),
        };
        Expected::Records {
            lines: [one].into(),
            outside: false,
        }
    }

    /// The records of a name that exists, or those at the end of its aliases.
    fn records(&self, name: &str, rtype: &str, soa: String) -> Expected {
        let mut chain: Vec<Line> = Vec::new();
        let mut at = name.to_owned();
        loop {
            let mut found = self.of(&at, rtype);
            if let (true, Some(address)) = (found.is_empty(), self.spelled(&at))
                && rtype == rtype_of(address)
            {
                let ttl = self.ttl;
                let mut lines: BTreeSet<String> = chain.iter().map(|line| line.text()).collect();
                lines.insert(format!("{at} {ttl} {rtype} {address}"));
                return Expected::Records {
                    lines,
                    outside: false,
                };
            }
            if found.is_empty() {
                match self.of(&at, "CNAME").first() {
                    Some(alias) if chain.len() < MOST_ALIASES => {
                        at = alias.data.clone();
                        chain.push(alias.clone());
                    }
                    // An alias to nothing, or to itself, is no answer at all.
                    _ => return Expected::NoData { soa },
                }
                if self.zone(&at).is_some() {
                    continue;
                }
                found = Vec::new();
            }
            let lines = chain.iter().chain(&found).map(|line| line.text());
            return Expected::Records {
                lines: lines.collect(),
                outside: found.is_empty(),
            };
        }
    }
}

/// Name, protocol and number of an endpoint's ports.
type Ports = Vec<(String, &'static str, u16)>;

/// The endpoints that a headless Service's names speak of: the ready ones of all its
/// slices, or of those in a zone. Two that are alike in name, address and ports are one.
fn endpoints<'a>(
    service: &Service,
    facts: &'a [Fact],
    zone: Option<&str>,
) -> Vec<(&'a Endpoint, Ports)> {
    let mut all: Vec<(&Endpoint, Ports)> = Vec::new();
    for slice in facts.iter().filter_map(slice_of) {
        if slice.service != service.key {
            continue;
        }
        let mut ports = Ports::new();
        for port in &slice.ports {
            if let Some(number) = port.port {
                ports.push((port.name.to_string(), port.protocol.name(), number));
            }
        }
        for endpoint in slice.endpoints.iter().filter(|one| one.conditions.ready) {
            let here = slice.zone_of(endpoint).map(|zone| &**zone);
            if zone.is_some() && here != zone {
                continue;
            }
            let same = |other: &(&Endpoint, Ports)| {
                other.0.address == endpoint.address
                    && other.0.hostname == endpoint.hostname
                    && other.1 == ports
            };
            if !all.iter().any(same) {
                all.push((endpoint, ports.clone()));
            }
        }
    }
    all
}

pub(crate) fn slice_of(fact: &Fact) -> Option<&Slice> {
    if let Fact::Slice(slice) = fact {
        Some(slice)
    } else {
        None
    }
}

/// Whether the addresses of a name lead back to it: a Service's with an address of its
/// own, and an endpoint's below a headless one. Those of a headless Service lead to
/// its endpoints' names, and pods' by address to none (version 1.1.0, §2.3 and §2.4).
pub(crate) fn leads_back(facts: &[Fact], view: &NodeView, name: &str) -> bool {
    let domain = view.cluster_domain.to_lowercase();
    facts.iter().any(|fact| {
        let Fact::Service(service) = fact else {
            return false;
        };
        let own = format!(
            "{}.{}.svc.{domain}",
            service.key.name, service.key.namespace
        );
        match service.publication {
            Publication::ExternalName(_) => false,
            Publication::Headless => {
                let label = name.strip_suffix(&format!(".{own}"));
                label.is_some_and(|label| !label.starts_with('_'))
            }
            Publication::ClusterIp | Publication::NodePort | Publication::LoadBalancer => {
                name == own
            }
        }
    })
}

/// Whether a name is that of a Service with an address of its own.
pub(crate) fn is_service(facts: &[Fact], view: &NodeView, name: &str) -> bool {
    let domain = view.cluster_domain.to_lowercase();
    facts.iter().any(|fact| {
        let Fact::Service(service) = fact else {
            return false;
        };
        let (own, namespace) = (&service.key.name, &service.key.namespace);
        !service.cluster_ips.is_empty() && name == format!("{own}.{namespace}.svc.{domain}")
    })
}
