//! What to answer, as values: no socket and no clock.

use std::{collections::BTreeMap, fmt::Write, net::SocketAddr, time::Duration};

use http::{Method, StatusCode, Uri, Version, header::ACCEPT};
use serde::Serialize;

/// Who answers. From the environment that the pod manager sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) pod: String,
    pub(super) namespace: String,
    pub(super) node: String,
}

impl Who {
    pub(super) fn from_env(var: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&str]| names.iter().find_map(|name| var(name)).unwrap_or_default();
        Self {
            pod: first(&["POD_NAME", "PORTOLAN_POD_NAME", "HOSTNAME"]),
            namespace: first(&["POD_NAMESPACE", "PORTOLAN_POD_NAMESPACE"]),
            node: first(&["NODE_NAME", "PORTOLAN_NODE_NAME"]),
        }
    }

    /// One line for the TCP and UDP servers.
    pub(super) fn line(&self, client: SocketAddr, said: &str) -> String {
        let Self {
            pod,
            namespace,
            node,
        } = self;
        let client = plain(client);
        format!("pod={pod} namespace={namespace} node={node} client={client} said={said:?}\n")
    }
}

/// An IPv4 client of a dual-stack socket, shown as IPv4.
pub(super) fn plain(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}

/// What a request says and where it came from.
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) version: Version,
    pub(super) headers: &'a http::HeaderMap,
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
}

/// What a path is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Say who answers, after a pause.
    Who(Duration),
    /// The pod's name alone.
    Hostname,
    /// The client's address alone.
    Client,
    /// Whether the application is well.
    Health,
    /// Make `/healthz` succeed or fail from now on.
    SetHealth(bool),
    /// The health can only be set by POST.
    WrongMethod,
}

/// Longest pause that `/slow` grants.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

pub(super) fn route(method: &Method, uri: &Uri) -> Route {
    match (uri.path(), *method == Method::POST) {
        ("/healthz" | "/readyz" | "/livez", _) => Route::Health,
        ("/healthz/fail", true) => Route::SetHealth(false),
        ("/healthz/ok", true) => Route::SetHealth(true),
        ("/healthz/fail" | "/healthz/ok", false) => Route::WrongMethod,
        ("/hostname", _) => Route::Hostname,
        ("/clientip", _) => Route::Client,
        ("/slow", _) => {
            let millis = query(uri, "ms")
                .and_then(|ms| ms.parse().ok())
                .unwrap_or(1000);
            Route::Who(Duration::from_millis(millis).min(LONGEST_PAUSE))
        }
        _ => Route::Who(Duration::ZERO),
    }
}

fn query<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    uri.query()?
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

/// A finished answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }
}

/// The answer that names everybody involved.
pub(super) fn who(who: &Who, asked: &Asked<'_>) -> Answer {
    let told = Told::new(who, asked);
    if wants_json(asked) {
        let body = serde_json::to_string(&told).unwrap_or_default() + "\n";
        return Answer {
            status: StatusCode::OK,
            content_type: "application/json",
            body,
        };
    }
    Answer::text(StatusCode::OK, told.text())
}

fn wants_json(asked: &Asked<'_>) -> bool {
    let accepts = asked
        .headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok());
    query(asked.uri, "format") == Some("json")
        || accepts.is_some_and(|accepts| accepts.contains("application/json"))
}

#[derive(Serialize)]
struct Told<'a> {
    pod: &'a str,
    namespace: &'a str,
    node: &'a str,
    client: String,
    server: String,
    request: String,
    headers: BTreeMap<String, String>,
}

impl<'a> Told<'a> {
    fn new(who: &'a Who, asked: &Asked<'_>) -> Self {
        let headers = asked.headers.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.to_string(), value)
        });
        Self {
            pod: &who.pod,
            namespace: &who.namespace,
            node: &who.node,
            client: plain(asked.client).to_string(),
            server: plain(asked.server).to_string(),
            request: format!("{} {} {:?}", asked.method, asked.uri, asked.version),
            headers: headers.collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, value) in [
            ("Pod", self.pod),
            ("Namespace", self.namespace),
            ("Node", self.node),
            ("Client", &self.client),
            ("Server", &self.server),
            ("Request", &self.request),
        ] {
            writeln!(text, "{name}: {value}").unwrap_or_default();
        }
        for (name, value) in &self.headers {
            writeln!(text, "  {name}: {value}").unwrap_or_default();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn somebody() -> Who {
        Who {
            pod: "web-1".into(),
            namespace: "shop".into(),
            node: "node-2".into(),
        }
    }

    #[test]
    fn paths_lead_where_they_should() {
        let second = Duration::from_secs(1);
        for (method, uri, route_to) in [
            (Method::GET, "/", Route::Who(Duration::ZERO)),
            (Method::GET, "/any/thing?ms=5", Route::Who(Duration::ZERO)),
            (
                Method::GET,
                "/slow?x=1&ms=250",
                Route::Who(Duration::from_millis(250)),
            ),
            (Method::GET, "/slow?ms=x", Route::Who(second)),
            (
                Method::GET,
                "/slow?ms=99999999999",
                Route::Who(LONGEST_PAUSE),
            ),
            (Method::GET, "/hostname", Route::Hostname),
            (Method::GET, "/healthz", Route::Health),
            (Method::POST, "/healthz/fail", Route::SetHealth(false)),
            (Method::POST, "/healthz/ok", Route::SetHealth(true)),
            (Method::GET, "/healthz/ok", Route::WrongMethod),
        ] {
            assert_eq!(
                route(&method, &uri.parse().unwrap()),
                route_to,
                "{method} {uri}"
            );
        }
    }

    #[test]
    fn the_answer_names_pod_client_and_request() {
        let (method, headers) = (Method::GET, http::HeaderMap::new());
        let uri: Uri = "/x?format=json".parse().unwrap();
        let asked = Asked {
            method: &method,
            uri: &uri,
            version: Version::HTTP_11,
            headers: &headers,
            client: "[::ffff:10.244.1.9]:4000".parse().unwrap(),
            server: "[fd00::1]:80".parse().unwrap(),
        };
        let json = who(&somebody(), &asked);
        assert_eq!(
            json.body,
            "{\"pod\":\"web-1\",\"namespace\":\"shop\",\"node\":\"node-2\",\
             \"client\":\"10.244.1.9:4000\",\"server\":\"[fd00::1]:80\",\
             \"request\":\"GET /x?format=json HTTP/1.1\",\"headers\":{}}\n"
        );
        let uri: Uri = "/x".parse().unwrap();
        let text = who(&somebody(), &Asked { uri: &uri, ..asked });
        assert!(
            text.body.starts_with(
                "Pod: web-1\nNamespace: shop\nNode: node-2\nClient: 10.244.1.9:4000\n"
            )
        );
    }

    #[test]
    fn lines_keep_to_one_line() {
        let line = somebody().line("10.0.0.1:5".parse().unwrap(), "a\nb");
        assert_eq!(
            line,
            "pod=web-1 namespace=shop node=node-2 client=10.0.0.1:5 said=\"a\\nb\"\n"
        );
    }
}
