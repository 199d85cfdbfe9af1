//! Nodes, pods and clients out of the lab's own parts, with the rules of a plan.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use portolan_agent::node::{Flows, forget_clients};
use portolan_kernel::link::{Links, VethEnd};
use portolan_kernel::netns::NetNs;
use portolan_kernel::nft::Nft;
use portolan_kernel::route::{Route, RouteKind};
use portolan_kernel::sysctl;
use portolan_lab::addresses;
use portolan_lab::fabric::{BRIDGE, Fabric, NODE_DEVICE, NodeNet};
use portolan_lab::kubelet::PodNet;
use portolan_lab::pod_net::PodNets;
use portolan_model::{Change, Dirty, Family, Protocol};
use portolan_nft::{Ruleset, diff};
use portolan_plan::conntrack::Scope;
use portolan_plan::policy::Review;
use portolan_plan::{DNS_PORT, LinkName, NodeView, renode};
use portolan_render::nft as render;
use portolan_testkit::rig::Rig;

use crate::talk::{self, Seen};

/// How long any test may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// The first source port of clients. Each attempt has its own: a port that was
/// used before would meet what connection tracking remembers of it.
const FIRST_PORT: u16 = 32_768;

/// The ICMP errors of a test come as fast as its packets: none is held back.
const ERRORS: [(&str, &str); 2] = [
    ("net.ipv4.icmp_ratemask", "0"),
    ("net.ipv6.icmp.ratemask", "2"),
];

/// The stranger's number on the node network.
const STRANGER: u8 = 100;

/// A small cluster, its servers and its clients.
#[derive(Debug)]
pub struct World {
    /// The wire.
    pub fabric: Fabric,
    /// The nodes, in order.
    pub nodes: Vec<Node>,
    /// The pods, in the order in which they were asked for.
    pub pods: Vec<Pod>,
    /// Somebody outside who sends what is for Services to the first node.
    stranger: NetNs,
    /// Where somebody listens, by TCP and UDP alike.
    pub(crate) listening: BTreeSet<SocketAddr>,
    next_port: AtomicU16,
}

/// A node with rules.
#[derive(Debug)]
pub struct Node {
    /// Its network.
    pub net: NodeNet,
    /// What it knows, its plan, and its image.
    pub rig: Rig,
    nft: Nft,
    /// Who ends stale flows, as the node's agent does.
    flows: Option<Flows>,
}

/// A pod.
#[derive(Debug)]
pub struct Pod {
    /// The index of its node.
    pub node: usize,
    /// Its namespace and addresses.
    pub net: PodNet,
    /// The node's link to it.
    pub link: LinkName,
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// A pod, by index.
    Pod(usize),
    /// A node itself, by index.
    Node(usize),
    /// The lab's own namespace, which has no way to Services.
    Outside,
    /// Somebody outside who sends what is for Services to the first node.
    Stranger,
}

/// Runs a test's work on a runtime of its own, to its end or the deadline.
///
/// # Panics
/// If the work fails.
pub fn block_on(work: impl Future<Output = Result<()>>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let work = async {
        tokio::time::timeout(DEADLINE, work)
            .await
            .context("not in time")?
    };
    let done = runtime.expect("a runtime").block_on(work);
    done.unwrap_or_else(|error| panic!("{error:?}"));
}

/// The view that a lab's node has.
pub fn lab_view() -> NodeView {
    NodeView {
        cluster_pod_cidrs: addresses::all_pods().into(),
        service_cidrs: addresses::services().into(),
        ..NodeView::default()
    }
}

impl World {
    /// Nodes with so many pods each, which serve at these ports, as the nodes do.
    ///
    /// # Errors
    /// If the kernel refuses any part.
    pub async fn new(pods_per_node: &[u8], ports: &[u16]) -> Result<Self> {
        let count = u8::try_from(pods_per_node.len())?;
        let fabric = Fabric::create(count).await?;
        let stranger = stranger(&fabric).await?;
        let mut world = Self {
            nodes: Vec::new(),
            pods: Vec::new(),
            stranger,
            listening: BTreeSet::new(),
            next_port: AtomicU16::new(FIRST_PORT),
            fabric,
        };
        for (index, (net, pods)) in world
            .fabric
            .nodes()
            .to_vec()
            .into_iter()
            .zip(pods_per_node)
            .enumerate()
        {
            sysctl::set_all(&net.netns, &ERRORS)?;
            world.listen(&net.netns, &net.ips, ports)?;
            let nets = PodNets::new(net.clone());
            for pod in 0..*pods {
                let uid = format!("pod-{index}-{pod}");
                let net = nets.attach(&uid).await?;
                let link = LinkName::new(&PodNets::device_of(&uid)).context("a link's name")?;
                sysctl::set_all(&net.netns, &ERRORS)?;
                world.listen(&net.netns, &net.ips, ports)?;
                world.pods.push(Pod {
                    node: index,
                    net,
                    link,
                });
            }
            let nft = Nft::open(&net.netns)?;
            let mut node = Node {
                rig: Rig::new(NodeView::default()),
                nft,
                flows: None,
                net,
            };
            let empty = Ruleset::new();
            node.nft.commit(&diff(&empty, &node.rig.ruleset))?;
            world.nodes.push(node);
        }
        world.look(&lab_view())?;
        Ok(world)
    }

    fn listen(&mut self, ns: &NetNs, ips: &[IpAddr], ports: &[u16]) -> Result<()> {
        for ip in ips {
            for port in ports {
                let at = SocketAddr::new(*ip, *port);
                talk::serve(ns, at)?;
                self.listening.insert(at);
            }
        }
        Ok(())
    }

    /// Every node answers names at these addresses, as the lab's agents do.
    ///
    /// # Errors
    /// If the addresses cannot be had.
    pub async fn answer_names(&mut self, addresses: &[IpAddr]) -> Result<()> {
        for node in &self.nodes {
            let device = node.net.links.index("lo").await?;
            for address in addresses {
                node.net
                    .links
                    .add_answering_address(device, (*address).into())
                    .await?;
                let at = SocketAddr::new(*address, DNS_PORT);
                talk::serve(&node.net.netns, at)?;
                self.listening.insert(at);
            }
        }
        Ok(())
    }

    /// Gives every node this view, except for its own name and addresses, and
    /// makes its rules anew.
    ///
    /// # Errors
    /// If the kernel refuses the rules or holds others than it was given.
    pub fn look(&mut self, view: &NodeView) -> Result<()> {
        for node in &mut self.nodes {
            let view = NodeView {
                node: node.net.name.as_str().into(),
                node_addresses: node.net.ips.clone(),
                node_pod_cidrs: node.net.pod_cidrs.clone(),
                ..view.clone()
            };
            let before = node.rig.ruleset.clone();
            node.rig.look(view)?;
            node.nft.commit(&diff(&before, &node.rig.ruleset))?;
            node.compare()?;
        }
        Ok(())
    }

    /// Every node learns of changes, plans again and commits the delta.
    ///
    /// # Errors
    /// If the kernel refuses a delta or holds something else afterwards.
    pub fn apply(&mut self, changes: &[Change]) -> Result<()> {
        for node in &mut self.nodes {
            node.apply(changes)?;
            node.compare()?;
        }
        Ok(())
    }

    /// How many clients the nodes remember.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn remembered(&mut self) -> Result<usize> {
        let mut count = 0;
        for node in &mut self.nodes {
            for (table, map) in render::memories() {
                count += node.nft.learned(&table, &map)?.len();
            }
        }
        Ok(count)
    }

    /// Every node ends stale flows from now on, beginning with those there are, as
    /// an agent does that starts.
    ///
    /// # Errors
    /// If there is no connection tracking.
    pub fn tend_flows(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            let flows = Flows::start(&node.net.netns, &node.net.name)?;
            let (scope, review) = (Scope::everything(), Review::everything());
            flows.order(scope, review, &node.rig.plan, &node.rig.cluster);
            node.flows = Some(flows);
        }
        Ok(())
    }

    /// No node ends stale flows any more.
    pub fn leave_flows(&mut self) {
        for node in &mut self.nodes {
            node.flows = None;
        }
    }

    /// Where a client sends from.
    pub fn namespace(&self, client: Client) -> &NetNs {
        match client {
            Client::Pod(pod) => &self.pods[pod].net.netns,
            Client::Node(node) => &self.nodes[node].net.netns,
            Client::Outside => self.fabric.outside(),
            Client::Stranger => &self.stranger,
        }
    }

    /// The client's address in a family.
    pub fn address(&self, client: Client, family: Family) -> IpAddr {
        let own = match client {
            Client::Pod(pod) => self.pods[pod].net.ips.clone(),
            Client::Node(node) => self.nodes[node].net.ips.clone(),
            Client::Outside => addresses::outside().map(|net| net.addr()).into(),
            Client::Stranger => Family::BOTH.map(stranger_ip).into(),
        };
        own.into_iter()
            .find(|ip| Family::of(*ip) == family)
            .expect("both families")
    }

    /// A port that no client had before.
    ///
    /// # Panics
    /// When there is none left.
    pub fn port(&self) -> u16 {
        let port = self.next_port.fetch_add(1, Ordering::Relaxed);
        assert!(port >= FIRST_PORT, "no source ports left");
        port
    }

    /// One attempt of a client.
    ///
    /// # Errors
    /// If it could not be made.
    pub async fn knock(
        &self,
        client: Client,
        protocol: Protocol,
        to: SocketAddr,
        patience: Duration,
    ) -> Result<Seen> {
        talk::knock(self.namespace(client), self.port(), protocol, to, patience).await
    }
}

impl Node {
    /// Learns of changes, plans again and commits the delta.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn apply(&mut self, changes: &[Change]) -> Result<()> {
        let rig = &mut self.rig;
        let mut dirty = Dirty::default();
        for change in changes {
            dirty.merge(rig.cluster.apply(change.clone()));
        }
        let view = rig.given_view.observed(&rig.cluster);
        let touched = renode(&mut rig.plan, &rig.cluster, &view, &dirty);
        let delta = render::delta(&rig.plan, &touched);
        self.nft.commit(&delta)?;
        if touched.may_forget(&rig.plan) {
            forget_clients(&mut self.nft, &rig.plan)?;
        }
        rig.ruleset = render::image(&rig.plan);
        if let Some(flows) = &self.flows {
            let scope = Scope::of(&rig.plan, &rig.cluster, &dirty, &touched);
            let review = Review::of(&rig.plan.policies, &touched.policies);
            flows.order(scope, review, &rig.plan, &rig.cluster);
        }
        Ok(())
    }

    /// Takes the node's rules away, or gives them back.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn hold_rules(&mut self, held: bool) -> Result<()> {
        let (empty, image) = (Ruleset::new(), &self.rig.ruleset);
        let change = if held {
            diff(&empty, image)
        } else {
            diff(image, &empty)
        };
        Ok(self.nft.commit(&change)?)
    }

    /// Whether the kernel holds the image.
    fn compare(&mut self) -> Result<()> {
        let image = &self.rig.ruleset;
        for (id, table) in &image.tables {
            let held = self.nft.read(id)?;
            ensure!(
                held.as_ref() == Some(table),
                "{}: the kernel does not hold\n{}",
                self.net.name,
                image.text()
            );
        }
        Ok(())
    }
}

fn stranger_ip(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(172, 18, 0, STRANGER).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x172, 0x18, 0, 0, 0, 0, STRANGER.into()).into(),
    }
}

/// Where load balancers' and external addresses are.
fn outer_addresses(family: Family) -> Result<ipnet::IpNet> {
    let range = match family {
        Family::V4 => "198.51.100.0/24",
        Family::V6 => "2001:db8:51::/64",
    };
    Ok(range.parse()?)
}

/// Plugs somebody into the node network.
async fn stranger(fabric: &Fabric) -> Result<NetNs> {
    let ns = NetNs::create()?;
    sysctl::set(&ns, "net.ipv6.conf.default.accept_dad", "0")?;
    let (links, outside) = (Links::open(&ns)?, fabric.outside_links());
    let here = VethEnd {
        name: "stranger",
        mac: None,
    };
    let there = VethEnd {
        name: NODE_DEVICE,
        mac: None,
    };
    let port = outside.add_veth(here, there, &links, None).await?;
    let bridge = outside.index(BRIDGE).await?;
    outside.set_master(port, Some(bridge)).await?;
    let device = links.index(NODE_DEVICE).await?;
    let pairs = addresses::outside()
        .into_iter()
        .zip(addresses::services())
        .zip(addresses::node(1));
    for ((network, services), node) in pairs {
        let own = stranger_ip(Family::of(network.addr()));
        let own = format!("{own}/{}", network.prefix_len()).parse()?;
        links.add_address(device, own).await?;
        let outer = outer_addresses(Family::of(node.addr()))?;
        for range in [services, outer] {
            links
                .replace_route(&Route::new(range, RouteKind::Via(node.addr())))
                .await?;
        }
    }
    Ok(ns)
}
