//! Routers that nodes speak BGP with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use portolan_api::value::{at, bool_at, has, int_at, str_at};
use serde_json::Value;

use super::super::meta::object;
use super::super::{Meta, ObjectKey, Selector};
use super::scope::{any_selects, selectors, texts};
use crate::Family;

/// The port of BGP.
const PORT: u16 = 179;
/// For how long a peer is asked to keep routes where nothing else is said: seconds.
const RESTART_TIME: u16 = 120;

/// A password of TCP-MD5.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// It is written in the object.
    Written(String),
    /// It is in this Secret, under `password`.
    Secret(ObjectKey),
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Written(_) => f.write_str("Password(…)"),
            Self::Secret(key) => write!(f, "Password({key})"),
        }
    }
}

/// How soon BFD finds out that a path is broken (RFC 5880).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bfd {
    /// How often packets are sent.
    pub transmit: Duration,
    /// How often the peer may send.
    pub receive: Duration,
    /// How many packets may be missed.
    pub multiplier: u8,
    /// The lowest TTL that packets over several hops may have left, where it is written.
    pub least_ttl: Option<u8>,
}

impl Default for Bfd {
    fn default() -> Self {
        Self {
            transmit: Duration::from_millis(300),
            receive: Duration::from_millis(300),
            multiplier: 3,
            least_ttl: None,
        }
    }
}

/// A BFDProfile of MetalLB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BfdProfile {
    /// What every object has.
    pub meta: Meta,
    /// Its times.
    pub bfd: Bfd,
    /// What in it is not honoured.
    pub notes: Vec<String>,
}

object!(BfdProfile, read_profile);

fn read_profile(object: &Value) -> BfdProfile {
    let spec = at(object, "spec");
    let fields = ["transmitInterval", "receiveInterval", "detectMultiplier"];
    BfdProfile {
        bfd: Bfd {
            least_ttl: number(spec, "minimumTtl").filter(|ttl| *ttl > 0),
            ..bfd(spec, fields)
        },
        notes: ["echoMode", "passiveMode"]
            .into_iter()
            .filter(|field| bool_at(spec, field))
            .map(|field| format!("{field} is not supported"))
            .collect(),
        meta: Meta::of(object),
    }
}

/// The times of BFD, under the names that a kind gives them.
fn bfd(value: &Value, [transmit, receive, multiplier]: [&str; 3]) -> Bfd {
    let usual = Bfd::default();
    let time = |field: &str| {
        let number = int_at(value, field).and_then(|number| u64::try_from(number).ok());
        number.filter(|ms| *ms > 0).map(Duration::from_millis)
    };
    let times = int_at(value, multiplier).and_then(|number| u8::try_from(number).ok());
    Bfd {
        transmit: time(transmit).unwrap_or(usual.transmit),
        receive: time(receive).unwrap_or(usual.receive),
        multiplier: times.filter(|n| *n > 0).unwrap_or(usual.multiplier),
        least_ttl: None,
    }
}

/// A BGPPeer, ours or MetalLB's. Ours are of the cluster, MetalLB's live in a
/// namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// What every object has.
    pub meta: Meta,
    /// The AS number of the nodes.
    pub local_as: u32,
    /// The peer's; the same for an internal session.
    pub peer_as: u32,
    /// Where it is; none where that cannot be understood.
    pub address: Option<IpAddr>,
    /// The link that a link-local address is on.
    pub interface: Option<String>,
    /// Its TCP port.
    pub port: u16,
    /// The nodes' own address of the session.
    pub source: Option<IpAddr>,
    /// The BGP identifier of the nodes.
    pub router_id: Option<Ipv4Addr>,
    /// The hold time that is proposed; zero for none.
    pub hold: Duration,
    /// How long to wait between attempts to connect.
    pub connect_retry: Duration,
    /// The families of which routes are announced, where they are written.
    pub families: BTreeSet<Family>,
    /// How many hops it is away; a neighbour if it is not written.
    pub hops: Option<u8>,
    /// The session ends when it announces more routes than this.
    pub max_prefixes: Option<usize>,
    /// The password of TCP-MD5.
    pub password: Option<Password>,
    /// For how many seconds it is asked to keep the routes while an agent restarts;
    /// none where it is not asked.
    pub restart: Option<u16>,
    /// The times of BFD, if it is used.
    pub bfd: Option<Bfd>,
    /// The BFDProfile that has them, for a peer of MetalLB.
    pub bfd_profile: Option<String>,
    /// Whether BFD takes it for several hops away (RFC 5883), as routers do: an internal
    /// session, or one that is written to be so.
    pub far: bool,
    node_selectors: Vec<Selector>,
    /// Why nobody can speak with it.
    pub faults: Vec<String>,
    /// What in it is not honoured.
    pub notes: Vec<String>,
    /// `status` as it was last written.
    pub status: Value,
}

object!(Peer, read);

impl Peer {
    /// Whether a node with these labels speaks with it.
    pub fn takes_node(&self, labels: &BTreeMap<String, String>) -> bool {
        any_selects(&self.node_selectors, labels)
    }

    /// Whether it is told of routes of a family: those that are written, or that of its
    /// own address.
    pub fn carries(&self, family: Family) -> bool {
        match self.families.is_empty() {
            true => self.address.map(Family::of) == Some(family),
            false => self.families.contains(&family),
        }
    }

    /// Whether it is of our own kind, which has our status.
    pub fn is_own(&self) -> bool {
        self.meta.key.namespace.is_empty()
    }

    /// Whether a session with it would be the same; BFD beside it may be another.
    pub fn speaks_as(&self, other: &Self) -> bool {
        let bare = |peer: &Self| Self {
            meta: Meta {
                key: peer.meta.key.clone(),
                ..Meta::default()
            },
            node_selectors: Vec::new(),
            status: Value::Null,
            bfd: None,
            bfd_profile: None,
            ..peer.clone()
        };
        bare(self) == bare(other)
    }
}

fn read(object: &Value) -> Peer {
    let meta = Meta::of(object);
    let spec = at(object, "spec");
    let mut peer = common(spec);
    if meta.key.namespace.is_empty() {
        own(spec, &mut peer);
    } else {
        metal(spec, &meta.key.namespace, &mut peer);
    }
    if peer.peer_as == 0 && !has(spec, "dynamicASN") {
        peer.faults.push("peerASN is missing".to_owned());
    }
    if peer.local_as == 0 {
        peer.faults
            .push("the nodes' own AS number is missing".to_owned());
    }
    peer.far |= peer.local_as == peer.peer_as;
    peer.status = at(object, "status").clone();
    peer.meta = meta;
    peer
}

/// A number of a field; none where it does not fit.
fn number<T: TryFrom<i64>>(spec: &Value, field: &str) -> Option<T> {
    int_at(spec, field).and_then(|number| T::try_from(number).ok())
}

/// What both kinds write in the same way.
fn common(spec: &Value) -> Peer {
    let mut peer = Peer {
        peer_as: number(spec, "peerASN").unwrap_or(0),
        port: number(spec, "peerPort").filter(|n| *n > 0).unwrap_or(PORT),
        hold: Duration::from_secs(90),
        connect_retry: Duration::from_secs(10),
        node_selectors: selectors(spec, "nodeSelector"),
        ..Peer::default()
    };
    let text = str_at(spec, "peerAddress");
    let (address, interface) = match text.split_once('%') {
        Some((address, interface)) => (address, Some(interface.to_owned())),
        None => (text, None),
    };
    match address.parse::<IpAddr>() {
        Ok(address) => peer.address = Some(address),
        Err(_error) => peer
            .faults
            .push(format!("peerAddress: {text:?} is no IP address")),
    }
    let local = |ip: &IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if interface.is_none() && peer.address.as_ref().is_some_and(local) {
        let fault = format!("peerAddress: {text} is of one link, which must be named");
        peer.faults.push(fault);
    }
    peer.interface = interface;
    peer.source = parsed(spec, "sourceAddress", &mut peer.faults);
    if let (Some(source), Some(address)) = (peer.source, peer.address)
        && source.is_ipv4() != address.is_ipv4()
    {
        let fault = format!("sourceAddress {source} and peerAddress {address} are of two families");
        peer.faults.push(fault);
    }
    peer.router_id = parsed(spec, "routerID", &mut peer.faults);
    peer
}

/// The address of a field, if there is one.
fn parsed<T: std::str::FromStr>(spec: &Value, field: &str, faults: &mut Vec<String>) -> Option<T> {
    let text = str_at(spec, field);
    if text.is_empty() {
        return None;
    }
    let read = text.parse().ok();
    if read.is_none() {
        faults.push(format!("{field}: {text:?} is no such address"));
    }
    read
}

fn own(spec: &Value, peer: &mut Peer) {
    let seconds = |field| number::<u16>(spec, field).map(|n| Duration::from_secs(n.into()));
    peer.local_as = number(spec, "localASN").unwrap_or(0);
    peer.hold = seconds("holdTimeSeconds").unwrap_or(peer.hold);
    peer.connect_retry = seconds("connectRetrySeconds").unwrap_or(peer.connect_retry);
    peer.families = texts(spec, "families")
        .iter()
        .filter_map(|text| match text.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        })
        .collect();
    peer.hops = number(spec, "ebgpMultihop");
    peer.far = peer.hops.is_some_and(|hops| hops > 1);
    peer.max_prefixes = number(spec, "maxPrefixes");
    if let Some(keepalive) = seconds("keepaliveTimeSeconds") {
        not_a_third(keepalive, "keepaliveTimeSeconds", peer);
    }
    let secret = at(spec, "passwordSecret");
    if secret.is_object() {
        let key = ObjectKey::new(str_at(secret, "namespace"), str_at(secret, "name"));
        peer.password = Some(Password::Secret(key));
    }
    let restart = at(spec, "gracefulRestart");
    let wanted = !has(restart, "enabled") || bool_at(restart, "enabled");
    let time = number(restart, "restartTimeSeconds").unwrap_or(RESTART_TIME);
    peer.restart = wanted.then_some(time);
    peer.bfd = at(spec, "bfd").is_object().then(|| {
        let fields = [
            "transmitIntervalMilliseconds",
            "receiveIntervalMilliseconds",
            "detectMultiplier",
        ];
        bfd(at(spec, "bfd"), fields)
    });
}

fn metal(spec: &Value, namespace: &str, peer: &mut Peer) {
    peer.local_as = number(spec, "myASN").unwrap_or(0);
    for (field, to) in [
        ("holdTime", &mut peer.hold),
        ("connectTime", &mut peer.connect_retry),
    ] {
        let text = str_at(spec, field);
        match duration(text) {
            _ if text.is_empty() => {}
            Some(time) => *to = time,
            None => peer
                .faults
                .push(format!("{field}: {text:?} is no duration")),
        }
    }
    if let Some(keepalive) = duration(str_at(spec, "keepaliveTime")) {
        not_a_third(keepalive, "keepaliveTime", peer);
    }
    // Its own speaker takes any distance; ebgpMultiHop is for FRR, which must be told.
    peer.hops = Some(u8::MAX);
    peer.far = bool_at(spec, "ebgpMultiHop");
    peer.restart = bool_at(spec, "enableGracefulRestart").then_some(RESTART_TIME);
    let (password, secret) = (
        str_at(spec, "password"),
        str_at(spec, "passwordSecret.name"),
    );
    if !password.is_empty() {
        peer.password = Some(Password::Written(password.to_owned()));
    } else if !secret.is_empty() {
        let written = str_at(spec, "passwordSecret.namespace");
        let namespace = if written.is_empty() {
            namespace
        } else {
            written
        };
        peer.password = Some(Password::Secret(ObjectKey::new(namespace, secret)));
    }
    let profile = str_at(spec, "bfdProfile");
    peer.bfd_profile = (!profile.is_empty()).then(|| profile.to_owned());
    let interface = str_at(spec, "interface");
    if !interface.is_empty() {
        peer.interface = Some(interface.to_owned());
    }
    if bool_at(spec, "disableMP") {
        peer.families = peer.address.map(Family::of).into_iter().collect();
    }
    for field in ["dynamicASN", "vrf"] {
        if !str_at(spec, field).is_empty() {
            peer.faults.push(format!("{field} is not supported"));
        }
    }
}

/// Keepalives are sent at a third of the hold time, as RFC 4271 suggests: another time
/// is not honoured.
fn not_a_third(keepalive: Duration, field: &str, peer: &mut Peer) {
    if keepalive * 3 != peer.hold {
        peer.notes.push(format!(
            "{field} is not used: keepalives are sent at a third of the hold time"
        ));
    }
}

/// Reads a duration as Go writes it: `1m30s`, `90s`, `500ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (count, after) = rest.split_at(digits);
        let units = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(units);
        let one: u64 = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            // Only zero needs none.
            "" if count == "0" => 0,
            _ => return None,
        };
        let ms = count.parse::<u64>().ok()?.checked_mul(one)?;
        sum = sum.checked_add(Duration::from_millis(ms))?;
        rest = after;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::Object;
    use super::*;

    #[test]
    fn l10_peers_of_both_kinds_are_read() {
        let own = Peer::read(&json!({
            "metadata": {"name": "tor"},
            "spec": {
                "localASN": 64512, "peerASN": 64513, "peerAddress": "fe80::1%eth0",
                "holdTimeSeconds": 9, "families": ["IPv6"], "maxPrefixes": 0,
                "passwordSecret": {"name": "bgp", "namespace": "portolan"},
                "bfd": {"transmitIntervalMilliseconds": 50},
                "nodeSelector": {"matchLabels": {"rack": "a"}},
            },
        }));
        assert_eq!(own.faults, Vec::<String>::new());
        assert_eq!(own.address, Some("fe80::1".parse().unwrap()));
        assert_eq!(own.interface.as_deref(), Some("eth0"));
        assert_eq!((own.port, own.hold), (179, Duration::from_secs(9)));
        assert_eq!(own.families, [Family::V6].into());
        assert_eq!((own.max_prefixes, own.restart), (Some(0), Some(120)));
        let secret = Password::Secret(ObjectKey::new("portolan", "bgp"));
        assert_eq!(own.password, Some(secret));
        let bfd = own.bfd.unwrap();
        assert_eq!(
            (bfd.transmit.as_millis(), bfd.receive.as_millis()),
            (50, 300)
        );
        assert!(!own.takes_node(&BTreeMap::new()));
        assert!(!own.far);
        let metal = Peer::read(&json!({
            "metadata": {"name": "tor", "namespace": "metallb-system"},
            "spec": {
                "myASN": 64512, "peerASN": 64512, "peerAddress": "192.0.2.1",
                "holdTime": "1m30s", "keepaliveTime": "10s", "connectTime": "5s",
                "passwordSecret": {"name": "bgp"}, "bfdProfile": "fast", "vrf": "red",
            },
        }));
        assert_eq!(metal.faults, ["vrf is not supported"]);
        let note = "keepaliveTime is not used: keepalives are sent at a third of the hold time";
        assert_eq!(metal.notes, [note]);
        assert_eq!(
            (metal.hold.as_secs(), metal.connect_retry.as_secs()),
            (90, 5)
        );
        assert_eq!(
            (metal.restart, metal.bfd_profile.as_deref()),
            (None, Some("fast"))
        );
        let secret = Password::Secret(ObjectKey::new("metallb-system", "bgp"));
        assert_eq!(metal.password, Some(secret));
        assert!(metal.takes_node(&BTreeMap::new()));
        // Both ends are of one autonomous system.
        assert!(metal.far);
        let profile = BfdProfile::read(&json!({
            "metadata": {"name": "fast", "namespace": "metallb-system"},
            "spec": {"receiveInterval": 50, "detectMultiplier": 5, "minimumTtl": 250},
        }));
        let wanted = Bfd {
            transmit: Duration::from_millis(300),
            receive: Duration::from_millis(50),
            multiplier: 5,
            least_ttl: Some(250),
        };
        assert_eq!(profile.bfd, wanted);
        // Another way to watch the path is no other session.
        let other = Peer {
            bfd: Some(wanted),
            ..own.clone()
        };
        assert!(own.speaks_as(&other));
    }

    #[test]
    fn l10_what_a_peer_lacks_is_a_fault() {
        let faults = |spec: Value| Peer::read(&json!({"spec": spec})).faults;
        let peer = |address: &str| json!({"localASN": 1, "peerASN": 2, "peerAddress": address});
        assert!(faults(peer("192.0.2.1")).is_empty());
        assert_eq!(
            faults(peer("tor")),
            ["peerAddress: \"tor\" is no IP address"]
        );
        assert_eq!(
            faults(peer("fe80::1")),
            ["peerAddress: fe80::1 is of one link, which must be named"]
        );
        let mut other = peer("192.0.2.1");
        other["sourceAddress"] = "2001:db8::1".into();
        assert_eq!(
            faults(other),
            ["sourceAddress 2001:db8::1 and peerAddress 192.0.2.1 are of two families"]
        );
        assert_eq!(
            faults(json!({"peerAddress": "192.0.2.1"})),
            ["peerASN is missing", "the nodes' own AS number is missing"]
        );
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, wanted) in [
            ("90s", Some(90_000)),
            ("1m30s", Some(90_000)),
            ("1h0m1s", Some(3_601_000)),
            ("500ms", Some(500)),
            ("0", Some(0)),
            ("", None),
            ("90", None),
            ("s", None),
        ] {
            let read = duration(text).map(|time| time.as_millis());
            assert_eq!(read, wanted, "{text:?}");
        }
    }
}
