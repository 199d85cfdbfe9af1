//! Step 6 for load balancers: whether the network knows where the addresses are.
//!
//! Who may announce, and why others do not, is the plan's account; here it is only
//! asked whether anybody is left, and which object is to be changed if nobody is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use portolan_api::value::{list_at, str_at};
use portolan_model::workloads::{BalancedService, ObjectKey, Peer};
use portolan_plan::announce::{Account, Ground, LEFT_OUT, Mute, OnLinks, ToPeers, Unsaid, account};
use portolan_plan::load_balancer::{EXCLUDED, Unfit, is_ours};
use serde_json::json;

use super::case::{Case, is_ill, listed};
use super::finding::{Checked, Finding, Mend, Severity};

/// The state in which a peer is told of routes (RFC 4271).
const ESTABLISHED: &str = "Established";

/// Who announces load balancers' addresses, as far as it was read.
#[derive(Debug, Default)]
pub struct Announcers {
    /// What all Services have in common.
    pub ground: Ground,
    /// How many agents announce.
    pub agents: usize,
    /// The routers, with their statuses.
    pub peers: Vec<Peer>,
    /// The Services of load balancers.
    pub services: Vec<BalancedService>,
    /// Why it could not be read, if it could not.
    pub unread: Option<String>,
}

/// Why nobody announces an address, and where that is to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Silence {
    severity: Severity,
    object: String,
    namespace: String,
    field: &'static str,
    why: String,
    mend: Mend,
}

/// What is wrong with how a Service's addresses are announced.
pub(super) fn findings(case: &Case<'_>, before: &[Checked]) -> Vec<Finding> {
    let Some(announcers) = case.seen.announcers else {
        return Vec::new();
    };
    if let Some(why) = &announcers.unread {
        let message = format!("who announces its addresses is not known: {why}");
        return vec![case.finding(Severity::Note, "status.loadBalancer", message)];
    }
    let key = ObjectKey::new(case.namespace(), case.name());
    let mut services = announcers.services.iter();
    let service = services.find(|service| service.meta.key == key && is_ours(service));
    let Some(service) = service else {
        return Vec::new();
    };
    let look = Look {
        case,
        announcers,
        ill: is_ill(before),
    };
    let mut silent: Vec<(Silence, Vec<String>)> = Vec::new();
    let mut announced = 0;
    for address in &service.ingress {
        let found = look.address(service, *address);
        announced += usize::from(found.is_empty());
        for silence in found {
            let address = address.to_string();
            match silent.iter_mut().find(|(known, _)| *known == silence) {
                Some((_, addresses)) => addresses.push(address),
                None => silent.push((silence, vec![address])),
            }
        }
    }
    let findings = silent.into_iter().map(|(silence, addresses)| Finding {
        // It works for some, where another address is announced.
        severity: match announced {
            0 => silence.severity,
            _ => silence.severity.min(Severity::Warning),
        },
        object: silence.object,
        namespace: silence.namespace,
        field: silence.field.to_owned(),
        message: format!("nobody announces {}: {}", listed(&addresses), silence.why),
        mend: Some(silence.mend),
    });
    findings.collect()
}

struct Look<'a> {
    case: &'a Case<'a>,
    announcers: &'a Announcers,
    /// Whether an earlier step found a cause.
    ill: bool,
}

impl Look<'_> {
    /// Why an address is announced in no way; nothing if it is in one.
    fn address(&self, service: &BalancedService, address: IpAddr) -> Vec<Silence> {
        let ready_on = self.ready_on();
        let account = account(&self.announcers.ground, service, address, &ready_on);
        if let Some(unsaid) = &account.unsaid {
            return self.unsaid(unsaid).into_iter().collect();
        }
        if self.announcers.agents == 0 {
            let text = "run the agents with --announce (docs/load-balancer.md), unless somebody else routes the address to a node";
            let why = "no agent runs with --announce";
            return vec![self.of_service(Severity::Warning, "status.loadBalancer", (why, text))];
        }
        let mut silences = Vec::new();
        for on in &account.l2 {
            if on.nodes.values().any(Result::is_ok) {
                return Vec::new();
            }
            silences.extend(self.on_links(&account, on));
        }
        for to in &account.bgp {
            match self.to_peers(to) {
                None => return Vec::new(),
                Some(found) => silences.extend(found),
            }
        }
        silences
    }

    /// The nodes of ready endpoints.
    fn ready_on(&self) -> BTreeSet<&str> {
        let endpoints = self.case.slices.iter().flat_map(|slice| &slice.endpoints);
        let ready = endpoints.filter(|one| one.conditions.ready != Some(false));
        ready.filter_map(|one| one.node_name.as_deref()).collect()
    }

    fn of_service(
        &self,
        severity: Severity,
        field: &'static str,
        (why, text): (&str, &str),
    ) -> Silence {
        Silence {
            severity,
            object: format!("service/{}", self.case.name()),
            namespace: self.case.namespace().to_owned(),
            field,
            why: why.to_owned(),
            mend: mend(text, None),
        }
    }

    fn unsaid(&self, unsaid: &Unsaid) -> Option<Silence> {
        let why = unsaid.to_string();
        match unsaid {
            Unsaid::OfNodes => None,
            Unsaid::NotInPool => {
                let text = "give a pool the address (spec.addresses), or wait until the Service has another one";
                Some(self.of_service(Severity::Fault, "status.loadBalancer", (&why, text)))
            }
            Unsaid::OtherServices(_) => {
                let text = "give the Service such labels, or change the serviceSelector";
                Some(self.of_service(Severity::Fault, "metadata.labels", (&why, text)))
            }
            Unsaid::NoAdvertisement(pool) => Some(Silence {
                severity: Severity::Fault,
                object: format!("ipaddresspool/{}", pool.name),
                namespace: pool.namespace.clone(),
                field: "metadata.name",
                why,
                mend: mend(
                    &format!(
                        "make an L2Advertisement with ipAddressPools: [{}] beside it",
                        pool.name
                    ),
                    None,
                ),
            }),
        }
    }

    /// Why nobody answers for an address on a link.
    fn on_links(&self, account: &Account, on: &OnLinks) -> Option<Silence> {
        let mutes: Vec<(&Arc<str>, &Mute)> = errors(&on.nodes).collect();
        let has = |wanted: &Mute| mutes.iter().any(|(_, mute)| *mute == wanted);
        let why = why(&mutes);
        let announcement = on.by.as_ref().map(|by| {
            let kind = match by.namespace.is_empty() {
                true => "l2announcement",
                false => "l2advertisement",
            };
            (kind, by)
        });
        match (announcement, &account.pool) {
            (Some((kind, by)), _) if has(&Mute::NoInterface) => {
                let names = self.interfaces();
                let command = by.namespace.is_empty().then(|| {
                    let patch = json!({"spec": {"interfaces": names}});
                    format!("kubectl patch {kind} {} --type=merge -p '{patch}'", by.name)
                });
                let text = format!("name interfaces that the nodes have: {}", listed(&names));
                Some(about((kind, by), "spec.interfaces", (why, &text), command))
            }
            (Some((kind, by)), _) if has(&Mute::NotSelected) => {
                let text = "select nodes that can announce, or mend those that are selected";
                Some(about((kind, by), "spec.nodeSelector", (why, text), None))
            }
            (None, Some(pool)) if has(&Mute::NoSubnet) => {
                let text = "give the pool addresses of the nodes' network, or tell a router of them (BGPPeer and BGPAnnouncement)";
                let pool = ("addresspool", pool);
                Some(about(pool, "spec.addresses", (why, text), None))
            }
            _ => self.of_nodes(&mutes, why),
        }
    }

    /// No node is fit.
    fn of_nodes(&self, mutes: &[(&Arc<str>, &Mute)], why: String) -> Option<Silence> {
        let local = mutes
            .iter()
            .any(|(_, mute)| **mute == Mute::Unfit(Unfit::NoEndpoint));
        if local && self.ill {
            return None;
        }
        let excluded = mutes
            .iter()
            .find(|(_, mute)| **mute == Mute::Unfit(Unfit::Excluded));
        if let Some((node, _)) = excluded {
            let field = "metadata.labels";
            let text = "take the label away from a node that may announce";
            let command = format!("kubectl label node {node} {EXCLUDED}-");
            let node = ObjectKey::new("", node.as_ref());
            return Some(about(("node", &node), field, (why, text), Some(command)));
        }
        let text = "mend the nodes, or where the Service's pods are: kubectl get nodes";
        Some(self.of_service(Severity::Fault, "status.loadBalancer", (&why, text)))
    }

    /// The links of nodes on which addresses may be answered for.
    fn interfaces(&self) -> Vec<String> {
        let links = self.announcers.ground.standing();
        let links = links.filter_map(|(_, standing)| standing.links.as_ref());
        let links = links.flatten().filter(|link| !link.addresses.is_empty());
        let of_pods = |name: &str| LEFT_OUT.iter().any(|start| name.starts_with(start));
        let usual = links.filter(|link| !of_pods(&link.name));
        let names: BTreeSet<String> = usual.map(|link| link.name.clone()).collect();
        names.into_iter().collect()
    }

    /// Why no router is told of a route; none if one is, as far as its status knows.
    fn to_peers(&self, to: &ToPeers) -> Option<Vec<Silence>> {
        let by = (
            match to.by.namespace.is_empty() {
                true => "bgpannouncement",
                false => "bgpadvertisement",
            },
            &to.by,
        );
        let wanted = to.nodes.iter();
        let wanted = wanted.filter_map(|(node, peers)| Some((node, peers.as_ref().ok()?)));
        let mut sessions = wanted.flat_map(|(node, peers)| peers.iter().map(move |p| (node, p)));
        let mut down: Vec<(&ObjectKey, Vec<String>)> = Vec::new();
        if sessions.clone().next().is_some() {
            let is_up = sessions.any(|(node, peer)| match self.down(node, peer) {
                None => true,
                Some(why) => {
                    match down.iter_mut().find(|(known, _)| *known == peer) {
                        Some((_, nodes)) => nodes.push(why),
                        None => down.push((peer, vec![why])),
                    }
                    false
                }
            });
            let silences = down.into_iter().map(|(peer, nodes)| {
                let why = format!("no session with its router is up: {}", nodes.join("; "));
                let text =
                    "mend the way to the router, or what it expects of the nodes: portolan lb bgp";
                about(("bgppeer", peer), "spec.peerAddress", (why, text), None)
            });
            return (!is_up).then(|| silences.collect());
        }
        let mutes: Vec<(&Arc<str>, &Mute)> = errors(&to.nodes).collect();
        let has = |wanted: &Mute| mutes.iter().any(|(_, mute)| *mute == wanted);
        let why = why(&mutes);
        let found = if has(&Mute::NoPeer) {
            let text =
                "make a BGPPeer for these nodes, or name one that is there: kubectl get bgppeers";
            Some(about(by, "spec.peers", (why, text), None))
        } else if has(&Mute::OtherFamily) {
            let text = "name the family in the families of the BGPPeer";
            Some(about(by, "spec.peers", (why, text), None))
        } else if has(&Mute::NotSelected) {
            let text = "select nodes that can announce, or mend those that are selected";
            Some(about(by, "spec.nodeSelector", (why, text), None))
        } else {
            self.of_nodes(&mutes, why)
        };
        Some(found.into_iter().collect())
    }

    /// Why a node tells a peer nothing: `node-1: Active (no connection)`. MetalLB's
    /// peers have no status, and count as up.
    fn down(&self, node: &str, peer: &ObjectKey) -> Option<String> {
        let peers = self.announcers.peers.iter();
        let mut own = peers.filter(|one| one.is_own());
        let of = own.find(|one| one.meta.key == *peer)?;
        let mut sessions = list_at(&of.status, "sessions").iter();
        let Some(session) = sessions.find(|one| str_at(one, "node") == node) else {
            return Some(format!("{node}: not told of yet"));
        };
        let (state, message) = (str_at(session, "state"), str_at(session, "message"));
        match (state, message) {
            (ESTABLISHED, _) => None,
            (_, "") => Some(format!("{node}: {state}")),
            _ => Some(format!("{node}: {state} ({message})")),
        }
    }
}

/// The nodes that do not announce.
fn errors<T>(
    nodes: &BTreeMap<Arc<str>, Result<T, Mute>>,
) -> impl Iterator<Item = (&Arc<str>, &Mute)> {
    let nodes = nodes.iter();
    nodes.filter_map(|(node, said)| Some((node, said.as_ref().err()?)))
}

/// `node-1, node-2: not ready; node-3: …`.
fn why(mutes: &[(&Arc<str>, &Mute)]) -> String {
    let mut reasons: Vec<(&Mute, Vec<&str>)> = Vec::new();
    for (node, mute) in mutes {
        match reasons.iter_mut().find(|(known, _)| known == mute) {
            Some((_, nodes)) => nodes.push(node),
            None => reasons.push((mute, vec![node])),
        }
    }
    let words = reasons
        .iter()
        .map(|(mute, nodes)| format!("{}: {mute}", listed(nodes)));
    words.collect::<Vec<_>>().join("; ")
}

/// A silence because of an object of announcing.
fn about(
    (kind, key): (&str, &ObjectKey),
    field: &'static str,
    (why, text): (String, &str),
    command: Option<String>,
) -> Silence {
    Silence {
        severity: Severity::Fault,
        object: format!("{kind}/{}", key.name),
        namespace: key.namespace.clone(),
        field,
        why,
        mend: mend(text, command),
    }
}

fn mend(text: &str, command: Option<String>) -> Mend {
    Mend {
        text: text.to_owned(),
        command,
    }
}

#[cfg(test)]
mod tests {
    use portolan_model::workloads::{
        BalancerNode, BgpAnnouncement, L2Announcement, Object, Pool, Speaker,
    };
    use portolan_plan::announce::Facts;
    use serde_json::Value;

    use super::super::testbed::Bed;
    use super::*;

    /// A load balancer's Service on three nodes in 172.18.0.0/24, and what is said of
    /// announcing it.
    #[derive(Default)]
    struct Told {
        pools: Vec<Value>,
        l2: Vec<Value>,
        bgp: Vec<Value>,
        peers: Vec<Value>,
        /// Of all nodes.
        labels: BTreeMap<&'static str, &'static str>,
        /// Whether no agent announces.
        silent: bool,
    }

    fn object(name: &str, spec: Value) -> Value {
        json!({"metadata": {"name": name}, "spec": spec})
    }

    fn read<T: Object>(objects: &[Value]) -> Vec<T> {
        objects.iter().map(T::read).collect()
    }

    impl Told {
        fn pool(range: &str) -> Self {
            Self {
                pools: vec![object("home", json!({"addresses": [range]}))],
                ..Self::default()
            }
        }

        /// What the doctor finds, as `severity object field: message (mend)`.
        fn finds(&self, addresses: &[&str]) -> Vec<String> {
            let mut bed = Bed::healthy();
            bed.service["spec"]["type"] = "LoadBalancer".into();
            let ingress = addresses.iter().map(|ip| json!({"ip": ip}));
            let ingress: Vec<Value> = ingress.collect();
            bed.service["status"] = json!({"loadBalancer": {"ingress": ingress}});
            let names = ["node-1", "node-2", "node-3"];
            let nodes = names.map(|name| {
                json!({
                    "metadata": {"name": name, "labels": self.labels},
                    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
                })
            });
            let speakers = names.iter().enumerate().map(|(at, name)| {
                let own = format!("172.18.0.{}/24", at + 2);
                let links = json!([
                    {"name": "eth0", "addresses": [own]},
                    {"name": "veth1", "addresses": ["169.254.1.1/32"]},
                ]);
                let links = links.to_string();
                json!({
                    "metadata": {"name": name, "annotations": {"portolan.dev/links": links}},
                    "spec": {"holderIdentity": name},
                })
            });
            let speakers: Vec<Value> = speakers.filter(|_| !self.silent).collect();
            let (nodes, speakers): (Vec<BalancerNode>, Vec<Speaker>) =
                (read(&nodes), read(&speakers));
            let pools: Vec<Pool> = read(&self.pools);
            let l2: Vec<L2Announcement> = read(&self.l2);
            let bgp: Vec<BgpAnnouncement> = read(&self.bgp);
            let peers: Vec<Peer> = read(&self.peers);
            let ground = Ground::of(&Facts {
                nodes: nodes.iter().collect(),
                speakers: speakers.iter().collect(),
                pools: pools.iter().collect(),
                l2: l2.iter().collect(),
                bgp: bgp.iter().collect(),
                peers: peers.iter().collect(),
                ..Facts::default()
            });
            let services = read(std::slice::from_ref(&bed.service));
            bed.announcers = Some(Arc::new(Announcers {
                ground,
                agents: speakers.len(),
                peers,
                services,
                unread: None,
            }));
            let checkup = bed.examine();
            let told = checkup.findings().map(|finding| {
                let (severity, object) = (finding.severity.name(), &finding.object);
                let mend = finding.mend.as_ref().expect("what mends it");
                let command = mend.command.as_deref().unwrap_or(&mend.text);
                format!(
                    "{severity} {object} {}: {} ({command})",
                    finding.field, finding.message
                )
            });
            told.collect()
        }
    }

    const WEB: &str = "172.18.0.240";
    const ALL: &str = "node-1, node-2 and node-3";

    #[test]
    fn c17_an_address_that_is_announced_is_well() {
        let mut told = Told::pool("172.18.0.240/28");
        assert_eq!(told.finds(&[WEB]), [""; 0]);
        told.l2 = vec![object("lan", json!({"interfaces": ["eth0", "eth7"]}))];
        assert_eq!(told.finds(&[WEB]), [""; 0]);
        // Without a pool, addresses are the nodes' own.
        assert_eq!(Told::default().finds(&["172.18.0.2"]), [""; 0]);
    }

    #[test]
    fn c17_nobody_announces() {
        let mut told = Told::pool("172.18.0.240/28");
        told.silent = true;
        assert_eq!(
            told.finds(&[WEB]),
            [format!(
                "warning service/web status.loadBalancer: nobody announces {WEB}: no agent runs with --announce (run the agents with --announce (docs/load-balancer.md), unless somebody else routes the address to a node)"
            )]
        );
    }

    #[test]
    fn c17_a_pool_in_another_network() {
        let told = Told::pool("192.0.2.0/24");
        let found = told.finds(&["192.0.2.1", "192.0.2.2"]);
        let wanted = format!(
            "fault addresspool/home spec.addresses: nobody announces 192.0.2.1 and 192.0.2.2: {ALL}: no link has a subnet with this address (give the pool addresses of the nodes' network, or tell a router of them (BGPPeer and BGPAnnouncement))"
        );
        assert_eq!(found, [wanted]);
    }

    #[test]
    fn c17_the_wrong_interface_or_no_node() {
        let mut told = Told::pool("172.18.0.240/28");
        told.l2 = vec![object("lan", json!({"interfaces": ["eth7"]}))];
        let found = told.finds(&[WEB]);
        let command = r#"kubectl patch l2announcement lan --type=merge -p '{"spec":{"interfaces":["eth0"]}}'"#;
        let wanted = format!(
            "fault l2announcement/lan spec.interfaces: nobody announces {WEB}: {ALL}: none of the announcement's interfaces ({command})"
        );
        assert_eq!(found, [wanted]);
        told.l2 = vec![object(
            "lan",
            json!({"nodeSelector": {"matchLabels": {"rack": "x"}}}),
        )];
        let found = told.finds(&[WEB]);
        assert!(
            found[0].starts_with("fault l2announcement/lan spec.nodeSelector: "),
            "{found:?}"
        );
    }

    #[test]
    fn c17_no_router_is_told() {
        let mut told = Told::pool("172.18.0.240/28");
        told.bgp = vec![object("all", json!({}))];
        let found = told.finds(&[WEB]);
        assert!(
            found[0].starts_with("fault bgpannouncement/all spec.peers: "),
            "{found:?}"
        );
        let spec = json!({"localASN": 1, "peerASN": 2, "peerAddress": "172.18.0.1"});
        let mut peer = object("tor", spec);
        let session = |node: &str, state: &str| json!({"node": node, "state": state, "message": "no connection"});
        let sessions = ["node-1", "node-2", "node-3"].map(|node| session(node, "Active"));
        peer["status"] = json!({"sessions": sessions});
        told.peers = vec![peer.clone()];
        let found = told.finds(&[WEB]);
        let start = format!(
            "fault bgppeer/tor spec.peerAddress: nobody announces {WEB}: no session with its router is up: node-1: Active (no connection); "
        );
        assert!(found[0].starts_with(&start), "{found:?}");
        // One node is enough.
        peer["status"]["sessions"][1]["state"] = ESTABLISHED.into();
        told.peers = vec![peer];
        assert_eq!(told.finds(&[WEB]), [""; 0]);
    }

    #[test]
    fn c17_one_address_of_two_is_announced() {
        let mut told = Told::pool("172.18.0.240/28");
        let far = object("far", json!({"addresses": ["192.0.2.0/24"]}));
        told.pools.push(far);
        let found = told.finds(&[WEB, "192.0.2.1"]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("warning addresspool/far spec.addresses: "),
            "{found:?}"
        );
    }
}
