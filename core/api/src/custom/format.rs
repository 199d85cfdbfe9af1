//! The values of `format` that are checked; others say nothing.

use base64::Engine as _;
use jiff::civil::Date;
use jiff::{SignedDuration, Span, Timestamp};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether a text has a format.
pub(super) fn matches(format: &str, text: &str) -> bool {
    match format {
        "date" => text.len() == 10 && text.parse::<Date>().is_ok(),
        "date-time" | "datetime" => date_time(text),
        "duration" => duration(text),
        "byte" => base64::engine::general_purpose::STANDARD
            .decode(text)
            .is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "mac" => mac(text),
        "uuid" => uuid(text, None),
        "uuid3" => uuid(text, Some('3')),
        "uuid4" => uuid(text, Some('4')),
        "uuid5" => uuid(text, Some('5')),
        "hostname" => hostname(text),
        "email" => email(text),
        "uri" => uri(text),
        "k8s-short-name" => crate::validate::names::dns1123_label(text).is_empty(),
        "k8s-long-name" => crate::validate::names::dns1123_subdomain(text).is_empty(),
        _ => true,
    }
}

fn date_time(text: &str) -> bool {
    text.get(10..11).is_some_and(|t| matches!(t, "T" | "t")) && text.parse::<Timestamp>().is_ok()
}

/// Go's `1h30m`, or `3 days` as strfmt takes them.
fn duration(text: &str) -> bool {
    const UNITS: &[&str] = &["ns", "us", "µs", "ms", "s", "m", "h"];
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest
            .find(|char: char| !char.is_ascii_digit() && char != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|char: char| char.is_ascii_digit() || char == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        if number.parse::<f64>().is_err() || !UNITS.contains(&unit) {
            return text.parse::<Span>().is_ok() || text.parse::<SignedDuration>().is_ok();
        }
        parts += 1;
        rest = after;
    }
    parts > 0
}

fn mac(text: &str) -> bool {
    let separator = if text.contains('-') { '-' } else { ':' };
    let parts: Vec<&str> = text.split(separator).collect();
    matches!(parts.len(), 6 | 8 | 20)
        && parts
            .iter()
            .all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn uuid(text: &str, version: Option<char>) -> bool {
    let hex: String = text.chars().filter(|char| *char != '-').collect();
    hex.len() == 32
        && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        && version.is_none_or(|version| hex.chars().nth(12) == Some(version))
}

fn hostname(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .chars()
                    .all(|char| char.is_alphanumeric() || char == '-' || char == '_')
        })
}

fn email(text: &str) -> bool {
    let address = match (text.find('<'), text.strip_suffix('>')) {
        (Some(at), Some(inside)) => inside.get(at + 1..).unwrap_or_default(),
        _ => text,
    };
    address.rsplit_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && !local.contains([' ', '@', '<']) && hostname(domain)
    })
}

/// Go's `url.ParseRequestURI`: absolute, or a path.
fn uri(text: &str) -> bool {
    if text
        .bytes()
        .any(|byte| byte.is_ascii_control() || byte == b' ')
    {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|char: char| char.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
            && !rest.is_empty()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_accept_and_refuse() {
        let cases = [
            ("date", "2026-01-31", "2026-02-30"),
            ("date-time", "2026-01-31T10:00:00Z", "2026-01-31"),
            ("date-time", "2026-01-31T10:00:00.123+02:00", "yesterday"),
            ("duration", "1h30m", "1 parsec"),
            ("byte", "aGVsbG8=", "h!"),
            ("ipv4", "192.0.2.1", "192.0.2.256"),
            ("ipv6", "2001:db8::1", "2001:db8::g"),
            ("cidr", "192.0.2.0/24", "192.0.2.0/33"),
            ("mac", "00:00:5e:00:53:01", "00:00:5e:00:53"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123"),
            (
                "uuid4",
                "123e4567-e89b-42d3-a456-426614174000",
                "123e4567-e89b-12d3-a456-426614174000",
            ),
            ("hostname", "a.example", "-a.example"),
            ("email", "a@b.example", "a.b.example"),
            ("uri", "https://a.example/x", "no uri"),
            ("k8s-short-name", "web", "Web"),
        ];
        for (format, good, bad) in cases {
            assert!(matches(format, good), "{format} {good}");
            assert!(!matches(format, bad), "{format} {bad}");
        }
        assert!(matches("of-my-own", "anything"));
    }
}
