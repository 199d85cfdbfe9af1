//! Several nodes and a client on one bridge, each in a network namespace; and an agent
//! that elects who answers for an address among the nodes, with its heartbeats on UDP.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use portolan_announce::election::{Agents, Config, Key, Output, leader};
use portolan_kernel::link::{LinkIndex, Links, VethEnd};
use portolan_kernel::netns::NetNs;

use crate::answerer::Answerer;

/// The port of heartbeats here.
const PORT: u16 = 7946;

/// A bridge with `nodes` namespaces on it, and one more for the client, which is the
/// last. Each has 192.0.2.(n + 1) and 2001:db8::(n + 1), and a link with the address
/// 02:00:00:00:00:(n + 1).
pub struct Segment {
    /// The namespaces, and the link of each.
    pub places: Vec<(NetNs, LinkIndex)>,
    /// Where the bridge is.
    bridge: NetNs,
}

impl Segment {
    /// Makes them.
    ///
    /// # Errors
    /// If the kernel refuses any of it.
    pub fn new(nodes: u8) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let bridge = NetNs::create()?;
            let middle = Links::open(&bridge)?;
            let master = middle.add_bridge("bridge").await?;
            let mut places = Vec::new();
            for n in 1..=nodes + 1 {
                let ns = NetNs::create()?;
                let links = Links::open(&ns)?;
                let end = VethEnd {
                    name: "link",
                    mac: Some(mac(n)),
                };
                let name = format!("port{n}");
                let port = VethEnd {
                    name: &name,
                    mac: None,
                };
                let link = links.add_veth(end, port, &middle, None).await?;
                let port = middle.index(&name).await?;
                middle.set_master(port, Some(master)).await?;
                for address in [format!("192.0.2.{n}/24"), format!("2001:db8::{n}/64")] {
                    links.add_address(link, address.parse()?).await?;
                }
                places.push((ns, link));
            }
            Ok(Self { places, bridge })
        })
    }

    /// Puts the caller's own namespace on the bridge too, as number `n`.
    ///
    /// # Errors
    /// If the kernel refuses any of it.
    pub async fn join(&self, n: u8) -> Result<()> {
        let (middle, links) = (Links::open(&self.bridge)?, Links::open(&NetNs::current()?)?);
        let name = format!("port{n}");
        let end = VethEnd {
            name: "link",
            mac: Some(mac(n)),
        };
        let port = VethEnd {
            name: &name,
            mac: None,
        };
        let link = links.add_veth(end, port, &middle, None).await?;
        let (port, master) = (middle.index(&name).await?, middle.index("bridge").await?);
        middle.set_master(port, Some(master)).await?;
        for address in [format!("192.0.2.{n}/24"), format!("2001:db8::{n}/64")] {
            links.add_address(link, address.parse()?).await?;
        }
        links.set_up(links.index("lo").await?, true).await?;
        Ok(())
    }

    /// The client's namespace.
    ///
    /// # Errors
    /// Never: there always is one.
    pub fn client(&self) -> Result<&NetNs> {
        let last = self.places.last().context("a client")?;
        Ok(&last.0)
    }

    /// Puts the cable of a place, counted from one, into the bridge or pulls it out.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn plug(&self, n: u8, plugged: bool) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let middle = Links::open(&self.bridge)?;
            let port = middle.index(&format!("port{n}")).await?;
            middle.set_up(port, plugged).await?;
            Ok(())
        })
    }

    /// A place, counted from one: its namespace and its link.
    ///
    /// # Errors
    /// If there is none of this number.
    pub fn place(&self, n: u8) -> Result<&(NetNs, LinkIndex)> {
        let place = self.places.get(usize::from(n).wrapping_sub(1));
        place.with_context(|| format!("there is no place {n}"))
    }

    /// The number of the client's place.
    ///
    /// # Errors
    /// Never: there always is one.
    pub fn client_number(&self) -> Result<u8> {
        Ok(u8::try_from(self.places.len())?)
    }

    /// Makes the client's kernel look for an address.
    ///
    /// # Errors
    /// If a socket is refused.
    pub fn look_for(&self, address: IpAddr) -> Result<()> {
        self.client()?.run(|| {
            let any: SocketAddr = match address {
                IpAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
                IpAddr::V6(_) => ([0_u16; 8], 0).into(),
            };
            UdpSocket::bind(any)?.send_to(b"x", (address, 9))
        })??;
        Ok(())
    }

    /// What `ip` says at the client's.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn ip(&self, words: &[&str]) -> Result<String> {
        let output = self
            .client()?
            .run(|| Command::new("ip").args(words).output())??;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What a program says at the client's.
    ///
    /// # Errors
    /// If it cannot be started. That it fails is no error.
    pub fn at_client(&self, words: &[&str]) -> Result<String> {
        let (program, args) = words.split_first().context("a program")?;
        let started = self
            .client()?
            .run(|| Command::new(program).args(args).output())?;
        let output = started.with_context(|| format!("start {program}"))?;
        let text = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The link-layer address that the client's kernel knows for an address.
    ///
    /// # Errors
    /// If `ip` cannot be started.
    pub fn known(&self, address: IpAddr) -> Result<Option<String>> {
        let said = self.ip(&["neigh", "show", "to", &address.to_string()])?;
        let mut words = said.split_whitespace();
        let found = words.any(|word| word == "lladdr");
        Ok(words.next().filter(|_| found).map(str::to_owned))
    }
}

/// The link-layer address of a place, counted from one.
#[must_use]
pub const fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

/// One node's agent.
pub struct Agent {
    /// Its number, counted from one.
    pub number: u8,
    agents: Agents,
    answerer: Answerer,
    addresses: Vec<IpAddr>,
    others: Vec<SocketAddr>,
    socket: UdpSocket,
    start: Instant,
}

impl Agent {
    /// The agent of node `number` of so many.
    ///
    /// # Errors
    /// If a socket is refused.
    pub fn start(segment: &Segment, number: u8, nodes: u8, addresses: &[IpAddr]) -> Result<Self> {
        let place = segment.places.get(usize::from(number - 1));
        let (ns, link) = place.context("a node")?;
        let own = SocketAddr::from(([192, 0, 2, number], PORT));
        let socket = ns.run(|| UdpSocket::bind(own))??;
        socket.set_nonblocking(true)?;
        let names: BTreeSet<String> = (1..=nodes).map(|n| format!("n{n}")).collect();
        let epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let incarnation = u64::try_from(epoch.as_millis())?;
        let config = Config {
            key: Some(Key::new(b"of these nodes")),
            ..Config::new(format!("n{number}"), 1, incarnation)
        };
        let start = Instant::now();
        let members = names.iter().map(String::as_str);
        let others = (1..=nodes).filter(|n| *n != number);
        Ok(Self {
            number,
            agents: Agents::new(config, members, Duration::ZERO),
            answerer: Answerer::start(ns, *link, mac(number))?,
            addresses: addresses.to_vec(),
            others: others.map(|n| ([192, 0, 2, n], PORT).into()).collect(),
            socket,
            start,
        })
    }

    /// Looks at everything once.
    ///
    /// # Errors
    /// If a socket fails.
    pub fn step(&mut self) -> Result<()> {
        let mut buffer = [0; 2048];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    self.agents.receive(bytes, self.start.elapsed())?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        for output in self.agents.tick(self.start.elapsed()) {
            if let Output::Send(bytes) = output {
                for other in &self.others {
                    self.socket.send_to(&bytes, other)?;
                }
            }
        }
        let own = format!("n{}", self.number);
        for address in self.addresses.clone() {
            let leads = leader(address, self.agents.alive()) == Some(&own);
            if leads && self.agents.serving() {
                self.answerer.own(address)?;
            } else {
                self.answerer.link.release(address);
            }
        }
        self.answerer.step()?;
        Ok(())
    }

    /// Whether it answers for an address.
    #[must_use]
    pub fn owns(&self, address: IpAddr) -> bool {
        self.answerer.link.owns(address)
    }
}
