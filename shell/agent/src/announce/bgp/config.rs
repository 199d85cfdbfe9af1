//! What is configured of a peer: as the machine has it, its password, and as events are
//! about it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use base64::Engine;
use portolan_announce::bgp::config::Restart;
use portolan_announce::bgp::{Config, Family};
use portolan_client::{Client, Regarding, SECRETS, Target};
use portolan_model::workloads::{Password, Peer};

use super::Own;

/// A peer, as events are about it.
pub(super) fn regarding(peer: &Peer) -> Regarding {
    let key = &peer.meta.key;
    let version = match peer.is_own() {
        true => "portolan.dev/v1alpha1",
        false => "metallb.io/v1beta2",
    };
    Regarding {
        api_version: version.to_owned(),
        kind: "BGPPeer".to_owned(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        uid: peer.meta.uid.clone(),
        field_path: String::new(),
    }
}

/// What is configured, as the machine has it.
pub(super) fn config(peer: &Peer, own: &Own) -> Config {
    let v4 = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    };
    let own_v4 = own.addresses.iter().find_map(v4);
    let identifier = peer.router_id.or(own_v4);
    let session = peer.address.map(portolan_model::Family::of);
    let written = peer.families.iter().copied();
    let mut families: Vec<portolan_model::Family> = written.collect();
    if families.is_empty() {
        families.extend(session);
    }
    let families: Vec<Family> = families
        .into_iter()
        .map(|family| match family {
            portolan_model::Family::V4 => Family::V4,
            portolan_model::Family::V6 => Family::V6,
        })
        .collect();
    Config {
        // Without any IPv4 address, IPv4 prefixes go by way of IPv6 or not at all.
        extended_next_hop: own_v4.is_none() && families.contains(&Family::V4),
        families,
        hold_time: peer.hold,
        connect_retry: peer.connect_retry,
        restart: peer.restart.map(|seconds| Restart {
            time: Duration::from_secs(seconds.into()),
            // Whether there was another before is not known; to say so makes a peer
            // that knows of none do nothing.
            restarted: true,
        }),
        most_prefixes: peer.max_prefixes,
        ..Config::new(
            peer.local_as,
            peer.peer_as,
            identifier.unwrap_or_else(|| made_up(&own.node)),
        )
    }
}

/// An identifier for a node without an IPv4 address: of its name, never zero.
fn made_up(node: &str) -> Ipv4Addr {
    let hash = node.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    Ipv4Addr::from_bits(hash.max(1))
}

/// The password of a peer, or why it is not known.
pub(super) async fn read_password(
    client: &Client,
    password: Option<&Password>,
) -> Result<Option<Vec<u8>>, String> {
    let key = match password {
        None => return Ok(None),
        Some(Password::Written(text)) => return Ok(Some(text.clone().into_bytes())),
        Some(Password::Secret(key)) => key,
    };
    let writer = portolan_client::Writer::new(client.clone(), super::super::COMPONENT);
    let target = Target::one(&SECRETS, Some(&key.namespace), &key.name);
    let secret = writer.get(target).await;
    let secret = secret.map_err(|error| format!("secret {key}: {}", error.message()))?;
    let text = portolan_api::value::str_at(&secret, "data.password");
    let engine = base64::engine::general_purpose::STANDARD;
    match engine.decode(text) {
        Ok(bytes) if !bytes.is_empty() => Ok(Some(bytes)),
        Ok(_) | Err(_) => Err(format!("secret {key} has no password")),
    }
}

#[cfg(test)]
mod tests {
    use portolan_model::workloads::Object;
    use serde_json::json;

    use super::*;

    fn own(addresses: &[&str]) -> Own {
        Own {
            node: "n1".to_owned(),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn l10_a_peer_is_configured_as_it_is_written() {
        let peer = |address: &str| {
            Peer::read(&json!({"metadata": {"name": "tor"}, "spec": {
                "localASN": 64512, "peerASN": 64513, "peerAddress": address,
                "holdTimeSeconds": 9, "maxPrefixes": 5,
                "gracefulRestart": {"restartTimeSeconds": 60},
            }}))
        };
        let made = config(&peer("192.0.2.1"), &own(&["2001:db8::7", "192.0.2.7"]));
        assert_eq!(made.identifier, Ipv4Addr::new(192, 0, 2, 7));
        assert_eq!(made.families, [Family::V4]);
        assert!(!made.extended_next_hop);
        assert_eq!(made.hold_time.as_secs(), 9);
        assert_eq!(made.most_prefixes, Some(5));
        assert_eq!(made.restart.unwrap().time.as_secs(), 60);
        let mut both = peer("2001:db8::1");
        both.families = [portolan_model::Family::V4, portolan_model::Family::V6].into();
        let made = config(&both, &own(&["2001:db8::7"]));
        assert_eq!(made.families, Family::ALL);
        assert!(made.extended_next_hop);
        assert_ne!(made.identifier, Ipv4Addr::UNSPECIFIED);
    }
}
