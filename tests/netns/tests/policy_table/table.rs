//! The packets, and the table that they should make.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use portolan_model::{Direction, Family, Protocol};
use portolan_netns::facts::cluster_ip;
use portolan_netns::raw::Wire;
use portolan_netns::talk::PATIENCE;
use portolan_netns::world::{Client, World, lab_view};
use portolan_plan::{DNS_PORT, NodeView};
use portolan_testkit::reference::allowed;
use tokio::time::Instant;

use crate::steps::{People, Step};

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
const PORTS: [u16; 2] = [80, 81];
const PODS: usize = 9;
const NODES: usize = 3;

/// The first source port; each step has its own, so that none meets what connection
/// tracking remembers of another.
const FIRST_PORT: u16 = 20_000;

/// After so long without news, what should have come is sent again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long what must not come is waited for, once all has come that must. What comes
/// later is noticed in the next step.
const LATE: Duration = Duration::from_millis(20);

/// One cell of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    from: Client,
    /// None for who answers for names.
    to: Option<usize>,
    protocol: Protocol,
    family: Family,
    port: u16,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = |client| match client {
            Client::Pod(pod) => People::name(pod),
            Client::Node(node) => format!("node {}", node + 1),
            Client::Outside | Client::Stranger => "somebody".into(),
        };
        let to = self.to.map_or("names".into(), People::name);
        let Self {
            protocol,
            family,
            port,
            ..
        } = self;
        write!(f, "{} -> {to}:{port} {protocol} {family}", who(self.from))
    }
}

/// The town, and its ears.
pub(crate) struct Table {
    pub(crate) people: People,
    world: World,
    /// At every address of a pod or node, by protocol.
    wires: BTreeMap<(Client, Family, Protocol), Wire>,
    /// Where names are answered, on each node.
    names: BTreeMap<(usize, Family, Protocol), Wire>,
    /// Who is at an address.
    by_address: BTreeMap<IpAddr, Client>,
    /// What was open at each step, by its source port.
    opened: BTreeMap<u16, BTreeSet<Cell>>,
}

impl Table {
    /// Makes the town, without a policy.
    pub(crate) async fn make() -> Result<Self> {
        let mut world = World::new(&[3, 3, 3], &[]).await?;
        let answering = Family::BOTH.map(|family| cluster_ip(family, 200));
        world.answer_names(&answering).await?;
        world.look(&NodeView {
            dns_addresses: answering.into(),
            ..lab_view()
        })?;
        let people = People::of(&world);
        world.apply(&people.arrive())?;
        let clients = (0..PODS).map(Client::Pod);
        let clients = clients.chain((0..NODES).map(Client::Node));
        let (mut wires, mut names) = (BTreeMap::new(), BTreeMap::new());
        for (family, protocol) in kinds() {
            for client in clients.clone() {
                let address = world.address(client, family);
                let wire = Wire::tap(world.namespace(client), address, protocol)?;
                wires.insert((client, family, protocol), wire);
            }
            for node in 0..NODES {
                let ns = world.namespace(Client::Node(node));
                let wire = Wire::tap(ns, cluster_ip(family, 200), protocol)?;
                names.insert((node, family, protocol), wire);
            }
        }
        let keys = wires.keys();
        let by_address = keys.map(|(client, family, _)| (world.address(*client, *family), *client));
        let mut table = Self {
            people,
            by_address: by_address.collect(),
            world,
            wires,
            names,
            opened: BTreeMap::new(),
        };
        table.compare("nothing").await?;
        Ok(table)
    }

    /// Changes something, and compares the whole table.
    pub(crate) async fn step(&mut self, step: &Step) -> Result<()> {
        self.world.apply(&step.changes)?;
        self.compare(&format!("{}: {}", step.rules, step.what))
            .await
    }

    async fn compare(&mut self, what: &str) -> Result<()> {
        let port = FIRST_PORT + u16::try_from(self.opened.len())?;
        let cells = self.cells();
        let open = cells.iter().copied().filter(|cell| self.is_open(cell));
        let open: BTreeSet<Cell> = open.collect();
        self.opened.insert(port, open.clone());
        for cell in &cells {
            self.knock(cell, port)?;
        }
        let (mut arrived, mut answered) = (BTreeSet::new(), BTreeSet::new());
        let end = Instant::now() + PATIENCE;
        let mut again = Instant::now() + AGAIN;
        loop {
            let news = self.listen(port, &mut arrived, &mut answered)?;
            // Nobody listens, so what arrives by TCP is answered with a reset.
            let missing = open.iter().filter(|cell| {
                let silent = cell.protocol == Protocol::Tcp && !answered.contains(*cell);
                !arrived.contains(*cell) || silent
            });
            let missing: Vec<Cell> = missing.copied().collect();
            let now = Instant::now();
            if missing.is_empty() || now > end {
                break;
            }
            if news {
                again = now + AGAIN;
            } else if now > again {
                again = now + AGAIN;
                for cell in &missing {
                    self.knock(cell, port)?;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(LATE).await;
        self.listen(port, &mut arrived, &mut answered)?;
        let differing = cells.iter().filter_map(|cell| {
            let (wanted, is) = (open.contains(cell), arrived.contains(cell));
            let text = match (wanted, is) {
                (true, false) => "is closed, and should be open",
                (false, true) => "is open, and should be closed",
                (true, true) if cell.protocol == Protocol::Tcp && !answered.contains(cell) => {
                    "has no answer"
                }
                // What is denied is denied in silence (N18).
                (false, false) if answered.contains(cell) => "is refused, and should be silent",
                (true, true) | (false, false) => return None,
            };
            Some(format!("{cell} {text}"))
        });
        let differing: Vec<String> = differing.collect();
        ensure!(
            differing.is_empty(),
            "{what}: {} of {} cells differ\n{}",
            differing.len(),
            cells.len(),
            differing.join("\n")
        );
        Ok(())
    }

    fn cells(&self) -> Vec<Cell> {
        let pods = (0..PODS).map(Client::Pod);
        let everybody = pods.clone().chain((0..NODES).map(Client::Node));
        let to_pods = everybody.flat_map(|from| {
            let all = (0..PODS).flat_map(|to| PORTS.map(|port| (Some(to), port)));
            all.map(move |(to, port)| (from, to, port))
        });
        let to_names = pods.map(|from| (from, None, DNS_PORT));
        let ways: Vec<_> = to_pods.chain(to_names).collect();
        let cells = kinds().flat_map(|(family, protocol)| {
            ways.iter().map(move |(from, to, port)| Cell {
                from: *from,
                to: *to,
                protocol,
                family,
                port: *port,
            })
        });
        // Nobody would answer for names by SCTP, with policies or without.
        cells
            .filter(|cell| cell.to.is_some() || cell.protocol != Protocol::Sctp)
            .collect()
    }

    fn address(&self, cell: &Cell) -> IpAddr {
        let pod = cell.to.map(Client::Pod);
        pod.map_or(cluster_ip(cell.family, 200), |pod| {
            self.world.address(pod, cell.family)
        })
    }

    /// What the evaluator in plain words says.
    fn is_open(&self, cell: &Cell) -> bool {
        let from = self.world.address(cell.from, cell.family);
        let to = self.address(cell);
        let at = Some((cell.protocol, cell.port));
        let says = |node: usize, direction, ends| {
            let rig = &self.world.nodes[node].rig;
            allowed(&rig.cluster, &rig.plan.view, direction, ends, at)
        };
        let out = match cell.from {
            Client::Pod(pod) => says(People::node(pod), Direction::Egress, (from, to)),
            Client::Node(_) | Client::Outside | Client::Stranger => true,
        };
        let into = cell.to.is_none_or(|to_pod| {
            let node = People::node(to_pod);
            // A pod's own node always reaches it (N12).
            cell.from == Client::Node(node) || says(node, Direction::Ingress, (to, from))
        });
        out && into
    }

    fn knock(&self, cell: &Cell, port: u16) -> Result<()> {
        let Some(wire) = self.wires.get(&(cell.from, cell.family, cell.protocol)) else {
            bail!("nobody at {cell}");
        };
        wire.begin(port, SocketAddr::new(self.address(cell), cell.port))
    }

    /// Takes in what has come by now: which cells arrived, and which were answered.
    /// Whether anything had come.
    fn listen(
        &self,
        port: u16,
        arrived: &mut BTreeSet<Cell>,
        answered: &mut BTreeSet<Cell>,
    ) -> Result<bool> {
        let before = (arrived.len(), answered.len());
        let pods = self.wires.iter();
        let heard = pods.map(|((me, family, protocol), wire)| {
            let to = pod(*me).map(Some);
            ((Some(*me), to), (*family, *protocol), wire)
        });
        let names = self.names.iter();
        let names = names
            .map(|((_, family, protocol), wire)| ((None, Some(None)), (*family, *protocol), wire));
        for ((me, to), (family, protocol), wire) in heard.chain(names) {
            let cell = |from, to, port| Cell {
                from,
                to,
                protocol,
                family,
                port,
            };
            for came in wire.come()? {
                // Somebody else is who would answer for names.
                let other = self.by_address.get(&came.from.ip()).copied();
                match (came.begins, other, to, me) {
                    (true, Some(other), Some(to), _) => {
                        let cell = cell(other, to, came.port);
                        if came.from.port() == port {
                            arrived.insert(cell);
                        } else if let Some(open) = self.opened.get(&came.from.port()) {
                            ensure!(open.contains(&cell), "{cell} was open in an earlier step");
                        }
                    }
                    (false, other, _, Some(me)) if came.port == port => {
                        let to = other.and_then(pod);
                        answered.insert(cell(me, to, came.from.port()));
                    }
                    _ => {}
                }
            }
        }
        Ok(before != (arrived.len(), answered.len()))
    }
}

fn pod(client: Client) -> Option<usize> {
    match client {
        Client::Pod(pod) => Some(pod),
        Client::Node(_) | Client::Outside | Client::Stranger => None,
    }
}

fn kinds() -> impl Iterator<Item = (Family, Protocol)> {
    let families = Family::BOTH.into_iter();
    families.flat_map(|family| PROTOCOLS.map(|protocol| (family, protocol)))
}
