//! Rules for addresses and ranges: strict (KEP-4858), so that no two programs
//! read one text as two addresses.

use crate::cause::Cause;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Reads an address as Go's sloppy parser does: leading zeros are decimal.
fn parse_sloppy(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address);
    }
    let (head, v4) = match text.rsplit_once(':') {
        Some((head, v4)) => (Some(head), v4),
        None => (None, text),
    };
    let octets: Vec<&str> = v4.split('.').collect();
    let decimal = |octet: &&str| match octet.bytes().all(|byte| byte.is_ascii_digit()) {
        true => octet.parse::<u8>().ok().filter(|_| !octet.is_empty()),
        false => None,
    };
    let octets: Vec<u8> = octets.iter().filter_map(decimal).collect();
    let octets: [u8; 4] = match (v4.split('.').count(), octets.try_into()) {
        (4, Ok(octets)) => octets,
        _ => return None,
    };
    let v4 = Ipv4Addr::from(octets);
    match head {
        None => Some(IpAddr::V4(v4)),
        Some(head) => format!("{head}:{v4}")
            .parse::<Ipv6Addr>()
            .ok()
            .map(IpAddr::V6),
    }
}

/// What is wrong with a text that must be an IP address (S29).
pub fn ip(path: &str, text: &str) -> Vec<Cause> {
    let value = Value::from(text);
    let Some(address) = parse_sloppy(text) else {
        let message = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        return vec![Cause::invalid(path, &value, message)];
    };
    let mut causes = Vec::new();
    if text.parse::<IpAddr>().is_err() {
        causes.push(Cause::invalid(path, &value, "must not have leading 0s"));
    }
    if is_mapped(&address) {
        causes.push(Cause::invalid(
            path,
            &value,
            "must not be an IPv4-mapped IPv6 address",
        ));
    }
    causes
}

/// What is wrong with a text that must be an address range.
pub fn cidr(path: &str, text: &str) -> Vec<Cause> {
    let value = Value::from(text);
    let parsed = text.split_once('/').and_then(|(address, length)| {
        let address = parse_sloppy(address)?;
        let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        let length: u8 = length.parse().ok().filter(|_| digits)?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        (length <= max).then_some((address, length))
    });
    let Some((address, _)) = parsed else {
        let message = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        return vec![Cause::invalid(path, &value, message)];
    };
    let mut causes = Vec::new();
    // Readers of ranges are laxer than those of addresses.
    let zeros = text.split_once('/').is_some_and(|(address, length)| {
        length.len() > 1 && length.starts_with('0') || address.parse::<IpAddr>().is_err()
    });
    match text.parse::<ipnet::IpNet>() {
        Ok(net) if !zeros => {
            if net.addr() != net.network() {
                let message = "must not have bits set beyond the prefix length";
                causes.push(Cause::invalid(path, &value, message));
            }
        }
        Ok(_) | Err(_) => {
            let message = "must not have leading 0s in IP or prefix length";
            causes.push(Cause::invalid(path, &value, message));
        }
    }
    if is_mapped(&address) {
        causes.push(Cause::invalid(
            path,
            &value,
            "must not have an IPv4-mapped IPv6 address",
        ));
    }
    causes
}

/// What is wrong with an address that stands for somebody else's (S11).
pub fn not_special(path: &str, text: &str) -> Vec<Cause> {
    let value = Value::from(text);
    let Some(address) = parse_sloppy(text) else {
        let message = "must be a valid IP address";
        return vec![Cause::invalid(path, &value, message)];
    };
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets().starts_with(&[224, 0, 0])),
        IpAddr::V6(v6) => (
            v6.is_unicast_link_local(),
            v6.segments()[0] & 0xff0f == 0xff02,
        ),
    };
    let mut causes = Vec::new();
    if address.is_unspecified() {
        causes.push(Cause::invalid(
            path,
            &value,
            &format!("may not be unspecified ({text})"),
        ));
    }
    if address.is_loopback() {
        let message = "may not be in the loopback range (127.0.0.0/8, ::1/128)";
        causes.push(Cause::invalid(path, &value, message));
    }
    if link_local {
        let message = "may not be in the link-local range (169.254.0.0/16, fe80::/10)";
        causes.push(Cause::invalid(path, &value, message));
    }
    if link_local_multicast {
        let message = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
        causes.push(Cause::invalid(path, &value, message));
    }
    causes
}

/// Warns of an IPv6 address that is not written as RFC 5952 says.
pub fn ip_warning(path: &str, text: &str) -> Option<String> {
    let address: Ipv6Addr = text.parse().ok()?;
    let canonical = address.to_string();
    (canonical != text).then(|| {
        format!(
            "{path}: IPv6 address {text:?} should be in RFC 5952 canonical format ({canonical:?})"
        )
    })
}

/// Warns of an IPv6 range that is not written as RFC 5952 says.
pub fn cidr_warning(path: &str, text: &str) -> Option<String> {
    let net: ipnet::Ipv6Net = text.parse().ok()?;
    let canonical = net.to_string();
    (canonical != text).then(|| {
        format!(
            "{path}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format ({canonical:?})"
        )
    })
}

/// `IPv4` or `IPv6`, if it is an address at all.
pub fn family(text: &str) -> Option<&'static str> {
    match parse_sloppy(text)? {
        IpAddr::V4(_) => Some("IPv4"),
        IpAddr::V6(_) => Some("IPv6"),
    }
}

fn is_mapped(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(causes: &[Cause]) -> Vec<&str> {
        causes
            .iter()
            .map(|cause| cause.message.split_once(": ").map_or("", |(_, rest)| rest))
            .map(|text| text.split_once(": ").map_or(text, |(_, rest)| rest))
            .collect()
    }

    #[test]
    fn s29_addresses_are_strict() {
        assert!(ip("p", "10.0.0.1").is_empty());
        assert!(ip("p", "fd00::1").is_empty());
        assert_eq!(ip("p", "10.0.0.256").len(), 1);
        assert_eq!(ip("p", "").len(), 1);
        assert_eq!(texts(&ip("p", "010.0.0.1")), ["must not have leading 0s"]);
        assert!(
            texts(&ip("p", "::ffff:1.2.3.4"))[0]
                .ends_with("must not be an IPv4-mapped IPv6 address")
        );
    }

    #[test]
    fn s29_ranges_are_strict() {
        assert!(cidr("p", "10.0.0.0/8").is_empty());
        assert!(cidr("p", "fd00::/64").is_empty());
        assert_eq!(
            texts(&cidr("p", "10.0.0.1/8")),
            ["must not have bits set beyond the prefix length"]
        );
        assert_eq!(
            texts(&cidr("p", "10.0.0.0/08")),
            ["must not have leading 0s in IP or prefix length"]
        );
        for bad in ["10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0.0/", "10.0.0.0/-1"] {
            assert_eq!(cidr("p", bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn s11_special_addresses_are_no_external_ips() {
        assert!(not_special("p", "192.0.2.1").is_empty());
        for bad in [
            "0.0.0.0",
            "127.0.0.1",
            "::1",
            "169.254.0.1",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
        ] {
            assert_eq!(not_special("p", bad).len(), 1, "{bad}");
        }
    }
}
