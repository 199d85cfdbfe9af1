//! Which headers go on, and in what form.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CONNECTION, EXPECT, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

/// Headers of one connection (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
/// A page behind the proxy must not open the API to other origins.
const CROSS_ORIGIN: [HeaderName; 4] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
];
const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_URI: &str = "x-forwarded-uri";

/// The headers of a request for the pod: without those of the connection, and
/// without the credentials, which are for this server.
pub(super) fn onward(headers: &HeaderMap, upgrades: bool) -> HeaderMap {
    let mut onward = headers.clone();
    let upgrade = headers.get(UPGRADE).cloned();
    strip(&mut onward);
    onward.remove(AUTHORIZATION);
    // This server has answered it already.
    onward.remove(EXPECT);
    if let (true, Some(upgrade)) = (upgrades, upgrade) {
        onward.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        onward.insert(UPGRADE, upgrade);
    }
    onward
}

/// Say for whom and for what the request is.
pub(super) fn forwarded(headers: &mut HeaderMap, peer: Option<IpAddr>, path: &str) {
    if let Some(peer) = peer {
        let name = HeaderName::from_static(FORWARDED_FOR);
        let before: Vec<String> = headers
            .get_all(&name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .map(str::to_owned)
            .chain([peer.to_string()])
            .collect();
        if let Ok(value) = HeaderValue::from_str(&before.join(", ")) {
            headers.insert(name, value);
        }
    }
    if let Ok(value) = HeaderValue::from_str(path) {
        headers.insert(HeaderName::from_static(FORWARDED_URI), value);
    }
}

/// The headers of an answer that belong to the connection to the pod.
pub(super) fn strip_response(headers: &mut HeaderMap) {
    strip(headers);
    for name in CROSS_ORIGIN {
        headers.remove(name);
    }
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.into_iter().chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// A redirect to the same server leads through the proxy again.
pub(super) fn location(target: &str, prefix: &str, own: &[String]) -> String {
    let path = match target.split_once("://") {
        Some((_, rest)) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
            if !own.iter().any(|own| own == authority) {
                return target.to_owned();
            }
            path
        }
        None => target,
    };
    let elsewhere = path.starts_with("//") && path == target;
    let relative = !path.starts_with('/') && path == target;
    if relative || elsewhere {
        return target.to_owned();
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    if path.starts_with(prefix) {
        path.to_owned()
    } else {
        format!("{prefix}{slash}{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_behind_the_proxy() {
        let prefix = "/api/v1/namespaces/n/pods/p/proxy";
        let own = ["10.0.0.5:80".to_owned(), "127.0.0.1:8001".to_owned()];
        let cases = [
            ("/login?x=1", "/api/v1/namespaces/n/pods/p/proxy/login?x=1"),
            ("next", "next"),
            ("//other/x", "//other/x"),
            ("http://other/x", "http://other/x"),
            (
                "http://10.0.0.5:80/x",
                "/api/v1/namespaces/n/pods/p/proxy/x",
            ),
            (
                "http://127.0.0.1:8001",
                "/api/v1/namespaces/n/pods/p/proxy/",
            ),
            (
                "/api/v1/namespaces/n/pods/p/proxy/x",
                "/api/v1/namespaces/n/pods/p/proxy/x",
            ),
        ];
        for (target, expected) in cases {
            assert_eq!(location(target, prefix, &own), expected, "{target}");
        }
    }

    #[test]
    fn only_what_concerns_the_pod_goes_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("connection", "Upgrade, X-Own"),
            ("upgrade", "websocket"),
            ("x-own", "1"),
            ("te", "trailers"),
            ("accept", "text/html"),
            ("x-forwarded-for", "192.0.2.1"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let mut plain = onward(&headers, false);
        forwarded(&mut plain, Some(IpAddr::from([127, 0, 0, 1])), "/a/b");
        let names: Vec<&str> = plain.keys().map(HeaderName::as_str).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert_eq!(plain["x-forwarded-for"], "192.0.2.1, 127.0.0.1");
        assert_eq!(plain["x-forwarded-uri"], "/a/b");
        let upgrade = onward(&headers, true);
        assert_eq!(upgrade[CONNECTION], "Upgrade");
        assert_eq!(upgrade[UPGRADE], "websocket");
        assert!(!upgrade.contains_key(AUTHORIZATION));
    }
}
