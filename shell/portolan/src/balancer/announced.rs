//! From where addresses are announced, and how sessions with routers are doing.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Result;
use jiff::Timestamp;
use portolan_announce::election::leader;
use portolan_api::table::human_duration;
use portolan_api::value::{int_at, list_at, str_at};
use portolan_model::workloads::{
    BalancedService, BalancerNode, BgpAnnouncement, CommunityNames, L2Announcement, Object,
    ObjectKey, Peer, Pool, SPEAKER, Speaker,
};
use portolan_plan::announce::{Account, Facts, Ground, Mute, OnLinks, ToPeers, account};
use portolan_why::doctor::Announcers;
use serde_json::Value;

use super::{list, ready_on};
use crate::connect::Session;

const NODES: &str = "/api/v1/nodes";
const OWN: &str = "/apis/portolan.dev/v1alpha1";
const METAL: &str = "/apis/metallb.io/v1beta1";
/// The state in which peers are told of routes (RFC 4271).
const ESTABLISHED: &str = "Established";
/// Clocks differ: an agent whose Lease ended so lately may well be there.
const TOLERANCE: i64 = 30;

/// All that decides who announces what.
pub(super) struct World {
    nodes: Vec<BalancerNode>,
    speakers: Vec<Speaker>,
    l2: Vec<L2Announcement>,
    bgp: Vec<BgpAnnouncement>,
    peers: Vec<Peer>,
    communities: Vec<CommunityNames>,
}

impl World {
    /// As the API server has it.
    pub(super) async fn read(session: &Session) -> Result<Self> {
        let leases = format!("/apis/coordination.k8s.io/v1/leases?labelSelector={SPEAKER}")
            .replace("=portolan.dev/", "=portolan.dev%2F");
        let now = Timestamp::now();
        let mut speakers: Vec<Speaker> = all(session, &[&leases]).await?;
        speakers.retain(|one| !one.node.is_empty() && is_fresh(one, now));
        let peers = "/apis/metallb.io/v1beta2/bgppeers";
        Ok(Self {
            nodes: all(session, &[NODES]).await?,
            speakers,
            l2: all(
                session,
                &[
                    &format!("{OWN}/l2announcements"),
                    &format!("{METAL}/l2advertisements"),
                ],
            )
            .await?,
            bgp: all(
                session,
                &[
                    &format!("{OWN}/bgpannouncements"),
                    &format!("{METAL}/bgpadvertisements"),
                ],
            )
            .await?,
            peers: all(session, &[&format!("{OWN}/bgppeers"), peers]).await?,
            communities: all(session, &[&format!("{METAL}/communities")]).await?,
        })
    }

    fn ground(&self, pools: &[Pool]) -> Ground {
        Ground::of(&Facts {
            nodes: self.nodes.iter().collect(),
            speakers: self.speakers.iter().collect(),
            pools: pools.iter().collect(),
            l2: self.l2.iter().collect(),
            bgp: self.bgp.iter().collect(),
            peers: self.peers.iter().collect(),
            communities: self.communities.iter().collect(),
            ..Facts::default()
        })
    }
}

impl World {
    /// The same, as the doctor wants it.
    pub(super) fn announcers(self, pools: &[Pool], services: Vec<BalancedService>) -> Announcers {
        Announcers {
            ground: self.ground(pools),
            agents: self.speakers.len(),
            peers: self.peers,
            services,
            unread: None,
        }
    }
}

/// All objects of kinds that are read as one.
async fn all<T: Object>(session: &Session, paths: &[&str]) -> Result<Vec<T>> {
    let mut found = Vec::new();
    for path in paths {
        found.extend(list(session, path).await?.iter().map(T::read));
    }
    Ok(found)
}

fn is_fresh(speaker: &Speaker, now: Timestamp) -> bool {
    let seconds = i64::try_from(speaker.seconds).unwrap_or(i64::MAX);
    let renewed = speaker.renewed.parse::<Timestamp>();
    renewed.is_ok_and(|renewed| {
        let age = now.as_second() - renewed.as_second();
        age <= seconds.saturating_add(TOLERANCE)
    })
}

/// From where each address of a Service is announced, a row each, and from where not.
pub(super) async fn explain(
    session: &Session,
    service: &BalancedService,
    pools: &[Pool],
) -> Result<Vec<(&'static str, String)>> {
    let world = World::read(session).await?;
    if world.speakers.is_empty() {
        let nobody = "by nobody: no agent announces; does one run with --announce?";
        return Ok(vec![("announced", nobody.to_owned())]);
    }
    let ground = world.ground(pools);
    let ready = ready_on(session, service).await?;
    let ready = ready.iter().map(String::as_str).collect();
    let mut rows = Vec::new();
    for address in &service.ingress {
        rows.extend(world.told(&account(&ground, service, *address, &ready)));
    }
    let titles = std::iter::once("announced").chain(std::iter::repeat(""));
    Ok(titles.zip(rows).collect())
}

impl World {
    /// An account, in lines.
    fn told(&self, account: &Account) -> Vec<String> {
        let address = account.address;
        let mut rows = Vec::new();
        if let Some(why) = &account.unsaid {
            rows.push(format!("{address}: by nobody: {why}"));
        }
        for on in &account.l2 {
            rows.push(answered(account, on));
            rows.extend(silent(&on.nodes));
        }
        for to in &account.bgp {
            rows.extend(self.routed(to));
            rows.extend(silent(&to.nodes));
        }
        rows
    }

    /// `192.0.2.240/32: told by node-1, node-2 to tor (announcement all)`, and of other
    /// nodes that should tell it, which session is not up.
    fn routed(&self, to: &ToPeers) -> Vec<String> {
        let (prefix, by) = (to.prefix, &to.by);
        let (mut nodes, mut down): (BTreeSet<&str>, Vec<String>) = Default::default();
        let mut peers: BTreeSet<String> = BTreeSet::new();
        let told = to
            .nodes
            .iter()
            .filter_map(|(node, to)| Some((node, to.as_ref().ok()?)));
        for (node, to) in told {
            for peer in to {
                match self.down(node, peer) {
                    Some(why) => down.push(format!("\u{2717} {node}: {why}")),
                    None => {
                        nodes.insert(node);
                        peers.insert(peer.to_string());
                    }
                }
            }
        }
        let first = if nodes.is_empty() {
            format!("{prefix}: told by nobody (announcement {by})")
        } else {
            let nodes: Vec<&str> = nodes.into_iter().collect();
            let peers: Vec<String> = peers.into_iter().collect();
            let (nodes, peers) = (nodes.join(", "), peers.join(", "));
            format!("{prefix}: told by {nodes} to {peers} (announcement {by})")
        };
        std::iter::once(first).chain(down).collect()
    }

    /// Why a node tells a peer nothing now, as far as the peer's status knows: MetalLB's
    /// have none.
    fn down(&self, node: &str, peer: &ObjectKey) -> Option<String> {
        let of = self.peers.iter().find(|one| one.meta.key == *peer)?;
        let mut sessions = list_at(&of.status, "sessions").iter();
        let session = sessions.find(|one| str_at(one, "node") == node);
        let (state, message) = match session {
            Some(one) => (str_at(one, "state"), str_at(one, "message")),
            None if of.is_own() => ("not told of yet", ""),
            None => return None,
        };
        let why = if message.is_empty() { "" } else { ": " };
        (state != ESTABLISHED)
            .then(|| format!("the session with {peer} is not up ({state}{why}{message})"))
    }
}

/// `192.0.2.240 is answered for by node-1 on eth0 (L2Announcement lan)`.
fn answered(account: &Account, on: &OnLinks) -> String {
    let address = account.address;
    let by = match &on.by {
        Some(by) => format!("announcement {by}"),
        None => "its subnet is there".to_owned(),
    };
    let fit = on.nodes.iter().filter(|(_, links)| links.is_ok());
    let fit: Vec<&str> = fit.map(|(node, _)| node.as_ref()).collect();
    let links = leader(address, fit.iter().copied())
        .and_then(|node| Some((node, on.nodes.get(node)?.as_ref().ok()?)));
    match links {
        None => format!("{address}: answered for by nobody ({by})"),
        Some((node, links)) => {
            let links: Vec<&str> = links.iter().map(AsRef::as_ref).collect();
            let links = links.join(",");
            let others = match fit.len() {
                1 => "nobody could follow".to_owned(),
                more => format!("{} could follow", more - 1),
            };
            format!("{address}: answered for by {node} on {links} ({by}; {others})")
        }
    }
}

/// The nodes that do not, and why.
fn silent<T>(nodes: &std::collections::BTreeMap<Arc<str>, Result<T, Mute>>) -> Vec<String> {
    let silent = nodes.iter().filter_map(|(node, said)| match said {
        Ok(_) => None,
        Err(why) => Some(format!("\u{2717} {node}: {why}")),
    });
    silent.collect()
}

/// The rows of `portolan lb bgp`: peer, address, AS number, node, state, since when,
/// BFD, prefixes, what was last the matter.
pub(super) async fn sessions(session: &Session, pools: &[Pool]) -> Result<Vec<Vec<String>>> {
    let world = World::read(session).await?;
    let ground = world.ground(pools);
    let now = Timestamp::now();
    let mut rows = Vec::new();
    for peer in &world.peers {
        rows.extend(of_peer(peer, &world.speakers, &ground, now));
    }
    Ok(rows)
}

fn of_peer(peer: &Peer, speakers: &[Speaker], ground: &Ground, now: Timestamp) -> Vec<Vec<String>> {
    let key = &peer.meta.key;
    let address = peer.address.map_or_else(String::new, |ip| ip.to_string());
    let row = |cells: [String; 6]| {
        let first = [key.to_string(), address.clone(), peer.peer_as.to_string()];
        first.into_iter().chain(cells).collect::<Vec<String>>()
    };
    let nobody = |why: String| {
        let [node, state, rest] = ["<none>", "<none>", ""].map(str::to_owned);
        vec![row([node, state, rest.clone(), rest.clone(), rest, why])]
    };
    if !peer.faults.is_empty() {
        return nobody(peer.faults.join("; "));
    }
    let nodes: Vec<&str> = ground.nodes_of(key).collect();
    if nodes.is_empty() {
        return nobody("no node has the labels that it asks for".to_owned());
    }
    let known = list_at(&peer.status, "sessions");
    let rows = nodes.into_iter().map(|node| {
        let entry = known.iter().find(|one| str_at(one, "node") == node);
        // What an agent wrote that is gone may not be so any more.
        let entry = entry.filter(|_| speakers.iter().any(|one| one.node == node));
        row(of_node(node, entry, peer, now))
    });
    rows.collect()
}

/// Node, state, since when, BFD, prefixes, what was last the matter.
fn of_node(node: &str, entry: Option<&Value>, peer: &Peer, now: Timestamp) -> [String; 6] {
    let Some(entry) = entry else {
        let why = match peer.is_own() {
            true => "no agent tells: does one run there with --announce?",
            false => "MetalLB's peers have no status: see their events, and the agent's metrics",
        };
        let [state, rest, why] = ["<unknown>", "", why].map(str::to_owned);
        return [
            node.to_owned(),
            state,
            rest.clone(),
            rest.clone(),
            rest,
            why,
        ];
    };
    let age = |field: &str| {
        let since = str_at(entry, field).parse::<Timestamp>();
        since.map_or_else(
            |_error| String::new(),
            |since| human_duration(now.as_second() - since.as_second()),
        )
    };
    let last = match str_at(entry, "lastError") {
        "" => str_at(entry, "message").to_owned(),
        last => format!("{last} ({} ago)", age("lastErrorTime")),
    };
    let prefixes = int_at(entry, "prefixes").unwrap_or(0);
    [
        node.to_owned(),
        str_at(entry, "state").to_owned(),
        age("since"),
        str_at(entry, "bfd").to_owned(),
        prefixes.to_string(),
        last,
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, ready: &str) -> BalancerNode {
        BalancerNode::read(&json!({
            "metadata": {"name": name},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
    }

    fn speaker(name: &str) -> Speaker {
        Speaker::read(&json!({
            "metadata": {"name": name, "annotations": {
                "portolan.dev/links": r#"[{"name": "eth0", "addresses": ["192.0.2.1/24"]}]"#,
            }},
            "spec": {
                "holderIdentity": name, "leaseDurationSeconds": 30,
                "renewTime": "2026-01-02T03:04:05.000000Z",
            },
        }))
    }

    fn world() -> World {
        World {
            nodes: vec![node("n1", "True"), node("n2", "False"), node("n3", "True")],
            speakers: ["n1", "n2", "n3"].map(speaker).into(),
            l2: Vec::new(),
            bgp: Vec::new(),
            peers: Vec::new(),
            communities: Vec::new(),
        }
    }

    fn lines(world: &World) -> Vec<String> {
        let pool = Pool::read(&json!({
            "metadata": {"name": "home"}, "spec": {"addresses": ["192.0.2.128/25"]},
        }));
        let service = BalancedService::read(&json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"type": "LoadBalancer"},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.130"}]}},
        }));
        let ground = world.ground(&[pool]);
        let address = service.ingress[0];
        world.told(&account(&ground, &service, address, &BTreeSet::new()))
    }

    #[test]
    fn l8_it_is_said_who_answers_and_who_does_not() {
        let lines = lines(&world());
        let leads = leader("192.0.2.130".parse().unwrap(), ["n1", "n3"]).unwrap();
        assert_eq!(
            lines,
            [
                format!(
                    "192.0.2.130: answered for by {leads} on eth0 (its subnet is there; 1 could follow)"
                ),
                "\u{2717} n2: not ready".to_owned(),
            ]
        );
    }

    #[test]
    fn l10_it_is_said_who_tells_whom() {
        let mut world = world();
        world.bgp.push(BgpAnnouncement::read(
            &json!({"metadata": {"name": "all"}, "spec": {}}),
        ));
        world.peers.push(Peer::read(&json!({
            "metadata": {"name": "tor"},
            "spec": {"localASN": 1, "peerASN": 2, "peerAddress": "192.0.2.254"},
            "status": {"sessions": [
                {"node": "n1", "state": "Established"},
                {"node": "n3", "state": "Active", "message": "no connection"},
            ]},
        })));
        assert_eq!(
            lines(&world),
            [
                "192.0.2.130/32: told by n1 to tor (announcement all)",
                "\u{2717} n3: the session with tor is not up (Active: no connection)",
                "\u{2717} n2: not ready",
            ]
        );
        world.peers[0].status = Value::Null;
        let why = "the session with tor is not up (not told of yet)";
        assert_eq!(
            lines(&world),
            [
                "192.0.2.130/32: told by nobody (announcement all)".to_owned(),
                format!("\u{2717} n1: {why}"),
                format!("\u{2717} n3: {why}"),
                "\u{2717} n2: not ready".to_owned(),
            ]
        );
    }

    #[test]
    fn l10_sessions_are_shown_for_every_node_that_should_have_one() {
        let world = world();
        let ground = |peer: &Peer| {
            Ground::of(&Facts {
                nodes: world.nodes.iter().collect(),
                peers: vec![peer],
                ..Facts::default()
            })
        };
        let mut object = json!({
            "metadata": {"name": "tor"},
            "spec": {
                "localASN": 1, "peerASN": 2, "peerAddress": "192.0.2.254",
            },
            "status": {"sessions": [
                {
                    "node": "n1", "state": "Established", "prefixes": 3,
                    "since": "2026-01-02T03:02:05Z",
                },
                {
                    "node": "n2", "state": "Active", "bfd": "Down",
                    "lastError": "no connection", "lastErrorTime": "2026-01-02T03:04:00Z",
                },
            ]},
        });
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let peer = Peer::read(&object);
        let rows = |speakers: &[Speaker]| {
            let rows = of_peer(&peer, speakers, &ground(&peer), now);
            let rows = rows.iter().map(|row| row.join("|"));
            rows.collect::<Vec<String>>()
        };
        let unknown = "no agent tells: does one run there with --announce?";
        let gone = |node: u8| format!("tor|192.0.2.254|2|n{node}|<unknown>||||{unknown}");
        assert_eq!(
            rows(&world.speakers),
            [
                "tor|192.0.2.254|2|n1|Established|2m||3|".to_owned(),
                "tor|192.0.2.254|2|n2|Active||Down|0|no connection (5s ago)".to_owned(),
                gone(3),
            ]
        );
        // What an agent that is gone wrote last counts for nothing.
        assert_eq!(rows(&world.speakers[1..])[0], gone(1));
        object["spec"]["peerAddress"] = "tor".into();
        let peer = Peer::read(&object);
        let rows = of_peer(&peer, &world.speakers, &ground(&peer), now);
        let why = "peerAddress: \"tor\" is no IP address";
        assert_eq!(
            rows,
            [["tor", "", "2", "<none>", "<none>", "", "", "", why]]
        );
    }

    #[test]
    fn a_lease_that_ran_out_does_not_count() {
        let one = speaker("n1");
        let at = |text: &str| text.parse().unwrap();
        assert!(is_fresh(&one, at("2026-01-02T03:05:00Z")));
        assert!(!is_fresh(&one, at("2026-01-02T03:06:00Z")));
    }
}
