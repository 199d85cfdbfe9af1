//! What is counted of announcing: MetalLB's names and labels, so that its dashboards and
//! alerts carry over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

/// What is counted of one session.
#[derive(Clone, Copy, Debug, Default)]
struct Session {
    up: bool,
    updates: u64,
    prefixes: u64,
}

/// What is counted of one address.
#[derive(Clone, Copy, Debug, Default)]
struct Address {
    requests: u64,
}

/// What is counted of BFD with one peer.
#[derive(Clone, Copy, Debug, Default)]
struct Path {
    up: bool,
    ups: u64,
    downs: u64,
    packets_in: u64,
    packets_out: u64,
}

#[derive(Debug, Default)]
struct Counts {
    paths: BTreeMap<IpAddr, Path>,
    sessions: BTreeMap<SocketAddr, Session>,
    addresses: BTreeMap<IpAddr, Address>,
    /// The addresses that this node answers for.
    owned: BTreeSet<IpAddr>,
}

/// What is counted of announcing, to be told with everything else.
#[derive(Clone, Debug, Default)]
pub struct AnnounceTold {
    counts: Arc<Mutex<Counts>>,
}

impl AnnounceTold {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody asked who has an address, and was answered.
    pub(super) fn answered(&self, address: IpAddr) {
        self.counts().addresses.entry(address).or_default().requests += 1;
    }

    /// Whether this node answers for an address.
    pub(super) fn owns(&self, address: IpAddr, own: bool) {
        let mut counts = self.counts();
        match own {
            true => counts.owned.insert(address),
            false => counts.owned.remove(&address),
        };
    }

    /// A session is up or not, and its peer knows so many prefixes.
    pub(super) fn session(&self, peer: SocketAddr, up: bool, prefixes: usize) {
        let mut counts = self.counts();
        let session = counts.sessions.entry(peer).or_default();
        session.up = up;
        session.prefixes = prefixes.try_into().unwrap_or(u64::MAX);
    }

    /// An UPDATE was sent to a peer.
    pub(super) fn update(&self, peer: SocketAddr) {
        self.counts().sessions.entry(peer).or_default().updates += 1;
    }

    /// Whether BFD says that the path to a peer carries packets, when that changes.
    pub(super) fn path(&self, peer: IpAddr, up: bool) {
        let mut counts = self.counts();
        let path = counts.paths.entry(peer).or_default();
        path.ups += u64::from(up);
        path.downs += u64::from(path.up && !up);
        path.up = up;
    }

    /// A packet of BFD came in from a peer, or went out to it.
    pub(super) fn path_packet(&self, peer: IpAddr, is_in: bool) {
        let mut counts = self.counts();
        let path = counts.paths.entry(peer).or_default();
        match is_in {
            true => path.packets_in += 1,
            false => path.packets_out += 1,
        }
    }

    /// A path is no longer looked after.
    pub(super) fn path_ended(&self, peer: IpAddr) {
        self.counts().paths.remove(&peer);
    }

    /// A session is no longer wanted.
    pub(super) fn ended(&self, peer: SocketAddr) {
        self.counts().sessions.remove(&peer);
    }
}

/// One metric, whose name and help these are, with a row for each label.
fn rows(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    kind: MetricType,
    rows: impl Iterator<Item = ([(&'static str, String); 1], u64)>,
) -> fmt::Result {
    let counts = matches!(kind, MetricType::Counter);
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in rows {
        let mut row = family.encode_family(&labels)?;
        match counts {
            true => {
                row.encode_counter::<prometheus_client::encoding::NoLabelSet, u64, u64>(
                    &value, None,
                )?;
            }
            false => row.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))?,
        }
    }
    Ok(())
}

/// A counter of BFD: its name, its help and what it counts.
type Counter = (&'static str, &'static str, fn(&Path) -> u64);

/// What is counted of BFD.
fn paths(encoder: &mut DescriptorEncoder<'_>, paths: &BTreeMap<IpAddr, Path>) -> fmt::Result {
    let of = |of: fn(&Path) -> u64| {
        let paths = paths.iter();
        paths.map(move |(peer, path)| ([("peer", peer.to_string())], of(path)))
    };
    rows(
        encoder,
        (
            "metallb_bfd_session_up",
            "BFD session state (1 is up, 0 is down)",
        ),
        MetricType::Gauge,
        of(|path| path.up.into()),
    )?;
    // Their names do not end as the encoder ends those of counters.
    let counters: [Counter; 4] = [
        (
            "metallb_bfd_session_up_events",
            "Number of BFD session up events",
            |path| path.ups,
        ),
        (
            "metallb_bfd_session_down_events",
            "Number of BFD session down events",
            |path| path.downs,
        ),
        (
            "metallb_bfd_control_packet_input",
            "Number of received BFD control packets",
            |path| path.packets_in,
        ),
        (
            "metallb_bfd_control_packet_output",
            "Number of sent BFD control packets",
            |path| path.packets_out,
        ),
    ];
    for (name, help, value) in counters {
        rows(encoder, (name, help), MetricType::Unknown, of(value))?;
    }
    Ok(())
}

impl Collector for AnnounceTold {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counts = self.counts();
        let sessions = |of: fn(&Session) -> u64| {
            let sessions = counts.sessions.iter();
            sessions.map(move |(peer, session)| ([("peer", peer.to_string())], of(session)))
        };
        rows(
            &mut encoder,
            (
                "metallb_bgp_session_up",
                "BGP session state (1 is up, 0 is down)",
            ),
            MetricType::Gauge,
            sessions(|session| session.up.into()),
        )?;
        rows(
            &mut encoder,
            (
                "metallb_bgp_announced_prefixes_total",
                "Number of prefixes currently being advertised on the BGP session",
            ),
            MetricType::Gauge,
            sessions(|session| session.prefixes),
        )?;
        // The encoder adds _total.
        rows(
            &mut encoder,
            ("metallb_bgp_updates", "Number of BGP UPDATE messages sent"),
            MetricType::Counter,
            sessions(|session| session.updates),
        )?;
        paths(&mut encoder, &counts.paths)?;
        let owned = counts.owned.iter().map(|ip| ([("ip", ip.to_string())], 1));
        rows(
            &mut encoder,
            (
                "metallb_speaker_announced",
                "Addresses that this node answers ARP and NDP for",
            ),
            MetricType::Gauge,
            owned,
        )?;
        // Counters whose names do not end as the encoder ends those of counters. Whoever
        // asks is answered.
        for about in [
            (
                "metallb_layer2_requests_received",
                "Number of layer2 requests received for owned IPs",
            ),
            (
                "metallb_layer2_responses_sent",
                "Number of layer2 responses sent for owned IPs in response to requests",
            ),
        ] {
            let asked = counts.addresses.iter();
            let asked = asked.map(|(ip, counts)| ([("ip", ip.to_string())], counts.requests));
            rows(&mut encoder, about, MetricType::Unknown, asked)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn metallbs_names_are_told() {
        let told = AnnounceTold::default();
        let peer: SocketAddr = "192.0.2.3:179".parse().unwrap();
        told.session(peer, true, 3);
        told.update(peer);
        let ip = "192.0.2.130".parse().unwrap();
        told.owns(ip, true);
        told.answered(ip);
        for up in [false, true, false, true] {
            told.path(peer.ip(), up);
        }
        told.path_packet(peer.ip(), true);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(told.clone()));
        let text = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text
        };
        for line in [
            "metallb_bgp_session_up{peer=\"192.0.2.3:179\"} 1",
            "metallb_bgp_announced_prefixes_total{peer=\"192.0.2.3:179\"} 3",
            "metallb_bgp_updates_total{peer=\"192.0.2.3:179\"} 1",
            "metallb_speaker_announced{ip=\"192.0.2.130\"} 1",
            "metallb_layer2_requests_received{ip=\"192.0.2.130\"} 1",
            "metallb_layer2_responses_sent{ip=\"192.0.2.130\"} 1",
            "metallb_bfd_session_up{peer=\"192.0.2.3\"} 1",
            "metallb_bfd_session_up_events{peer=\"192.0.2.3\"} 2",
            "metallb_bfd_session_down_events{peer=\"192.0.2.3\"} 1",
            "metallb_bfd_control_packet_input{peer=\"192.0.2.3\"} 1",
            "metallb_bfd_control_packet_output{peer=\"192.0.2.3\"} 0",
        ] {
            assert!(text().contains(line), "{line}:\n{}", text());
        }
        told.ended(peer);
        told.path_ended(peer.ip());
        told.owns(ip, false);
        assert!(!text().contains("session_up{"), "{}", text());
        assert!(!text().contains("announced{"), "{}", text());
    }
}
