//! The text format of scenarios: one file tells one story.
//!
//! ```text
//! Prose that says what is shown.
//! rules: P5 P6
//!
//! -- node --
//! node-1 zone=a
//! -- given --
//! service   default/web  ClusterIP=10.96.0.20  http=80→8080/tcp
//! slice     default/web  10.244.1.7@node-1 ready  10.244.2.7@node-2 terminating
//! -- then --
//! delete slice default/web
//! -- trace 10.244.1.9 → 10.96.0.20:80/tcp --
//! …
//! -- resolve web.default.svc.cluster.local A --
//! …
//! -- nft --
//! …
//! ```
//!
//! What stands before `trace`, `resolve` and `nft` sections is given; what is in
//! them is expected, and [`Scenario::blessed`] writes it anew. A trace that
//! starts with `node` instead of an address is one of the node's own packets.
//! Each `then` is a later round of changes.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use portolan_dns::{Data, Lookup, Name, Record, Rtype, Zones};
use portolan_model::{Change, Protocol};
use portolan_plan::{LinkName, NodeView};
use portolan_why::{Packet, trace};

use crate::packets;
use crate::rig::Rig;

mod given;

/// A scenario file, read.
#[derive(Debug, Clone)]
pub struct Scenario {
    prelude: String,
    sections: Vec<Section>,
    /// The node's view before its Node object is seen.
    pub view: NodeView,
    /// Rounds of changes; within the first one the order is free.
    pub rounds: Vec<Vec<Change>>,
}

#[derive(Debug, Clone)]
struct Section {
    title: String,
    body: String,
}

impl Scenario {
    /// Reads a scenario.
    pub fn parse(text: &str) -> Result<Self> {
        let mut prelude = String::new();
        let mut sections: Vec<Section> = Vec::new();
        for line in text.lines() {
            let title = line
                .strip_prefix("-- ")
                .and_then(|rest| rest.strip_suffix(" --"));
            match (title, sections.last_mut()) {
                (Some(title), _) => sections.push(Section {
                    title: title.into(),
                    body: String::new(),
                }),
                (None, Some(section)) => writeln!(section.body, "{line}")?,
                (None, None) => writeln!(prelude, "{line}")?,
            }
        }
        let mut scenario = Self {
            prelude,
            sections,
            view: NodeView::default(),
            rounds: Vec::new(),
        };
        scenario.understand()?;
        Ok(scenario)
    }

    fn understand(&mut self) -> Result<()> {
        let mut reader = given::Reader::default();
        for Section { title, body } in &self.sections {
            match title.split_whitespace().next() {
                Some("node") => reader.node(body)?,
                Some("given" | "then") => self.rounds.push(reader.round(body)?),
                Some("trace" | "resolve" | "nft") => {}
                _ => bail!("unknown section {title:?}"),
            }
        }
        self.view = reader.view;
        Ok(())
    }

    /// The file with its expected parts as they are in this rig.
    pub fn blessed(&self, rig: &Rig) -> Result<String> {
        let mut text = self.prelude.clone();
        for Section { title, body } in &self.sections {
            writeln!(text, "-- {title} --")?;
            let (kind, rest) = title.split_once(' ').unwrap_or((title, ""));
            match kind {
                "trace" => text.push_str(&traced(rig, rest).with_context(|| title.clone())?),
                "resolve" => {
                    text.push_str(&resolved(&rig.zones, rest).with_context(|| title.clone())?)
                }
                "nft" => text.push_str(&rig.ruleset.text()),
                _ => text.push_str(body),
            }
            if !text.ends_with('\n') {
                text.push('\n');
            }
        }
        Ok(text)
    }
}

/// The trace of a packet, without the line that repeats it; the rules are held
/// to it at once.
fn traced(rig: &Rig, text: &str) -> Result<String> {
    let packet = packet(&rig.plan.view, text)?;
    let trace = trace(&rig.cluster, &rig.plan, &rig.plan.view, packet);
    packets::check(&rig.ruleset, &rig.plan.view, &trace)?;
    let shown = trace.to_string();
    Ok(shown
        .split_once('\n')
        .map(|(_, rest)| rest.to_owned())
        .unwrap_or_default())
}

/// `10.244.1.9 → 10.96.0.20:80/tcp`, `10.244.1.9 on cni0 → …` or `node → …`.
fn packet(view: &NodeView, text: &str) -> Result<Packet> {
    let (source, destination) = text.split_once(" → ").context("no arrow")?;
    let (place, protocol) = destination.rsplit_once('/').context("no protocol")?;
    let place: SocketAddr = place.parse().with_context(|| place.to_owned())?;
    let protocol = Protocol::parse(&protocol.to_uppercase()).context("unknown protocol")?;
    let (source, link) = match source.split_once(" on ") {
        Some((source, link)) => (source, LinkName::new(link).context("no link's name")?),
        None => (source, LinkName::NONE),
    };
    let from_node = source == "node";
    let own = |address: &&std::net::IpAddr| address.is_ipv4() == place.is_ipv4();
    let source = match from_node {
        true => *view
            .node_addresses
            .iter()
            .find(own)
            .context("the node has no such address")?,
        false => source.parse().with_context(|| source.to_owned())?,
    };
    Ok(Packet {
        source,
        destination: place.ip(),
        protocol,
        port: place.port(),
        from_node,
        link,
    })
}

/// What is known about `NAME TYPE`.
fn resolved(zones: &Zones, text: &str) -> Result<String> {
    let (name, rtype) = text.split_once(' ').context("no type")?;
    let rtype = match rtype {
        "A" => Rtype::A,
        "AAAA" => Rtype::AAAA,
        "SRV" => Rtype::SRV,
        "TXT" => Rtype::TXT,
        "CNAME" => Rtype::CNAME,
        "PTR" => Rtype::PTR,
        other => bail!("unknown type {other:?}"),
    };
    Ok(match zones.lookup(&Name::parse(name)?, rtype) {
        Lookup::Outside => "not in our zones\n".into(),
        Lookup::NoName => "NXDOMAIN\n".into(),
        Lookup::NoData => "NODATA\n".into(),
        Lookup::Records(mut records) => {
            records.sort();
            records
                .iter()
                .map(|record| format!("{}\n", show(record)))
                .collect()
        }
    })
}

fn show(record: &Record) -> String {
    match &record.data {
        Data::A(address) => address.to_string(),
        Data::Aaaa(address) => address.to_string(),
        Data::Srv {
            priority,
            weight,
            port,
            target,
        } => format!("{priority} {weight} {port} {target}"),
        Data::Ptr(name) | Data::Cname(name) | Data::Ns(name) => name.to_string(),
        Data::Txt(texts) => texts
            .iter()
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .collect(),
    }
}
