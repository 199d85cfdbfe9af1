//! What a request asks for, read from its method, path and query.

use std::collections::BTreeMap;

use http::Method;

use crate::context::Resource;
use crate::registry::Served;

/// What a request is about.
#[derive(Debug)]
pub(crate) enum Target {
    Resource(Asked),
    /// /healthz, /livez, /readyz and their parts.
    Health,
    Version,
    Metrics,
    /// `/`: the list of paths.
    Paths,
    /// /api, /apis and below, down to the list of resources.
    Discovery(Vec<String>),
    /// /openapi/…
    OpenApi(String),
    Unknown,
}

/// What is done with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// A method that has no meaning here.
    Unknown,
}

impl Verb {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Unknown => "use this method on",
        }
    }
}

/// A request for a resource.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) resource: Resource,
    pub(crate) verb: Verb,
    /// Empty for all namespaces and for cluster-scoped kinds.
    pub(crate) namespace: String,
    /// Empty for collections.
    pub(crate) name: String,
    /// Empty for the object itself.
    pub(crate) subresource: String,
    pub(crate) query: Query,
}

/// Decoded query parameters; of a repeated one the first counts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    pub(crate) fn parse(query: &str) -> Self {
        let mut parameters = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            parameters
                .entry(decode(key, true))
                .or_insert_with(|| decode(value, true));
        }
        Self(parameters)
    }

    /// A parameter, or "".
    pub(crate) fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Go's idea of a true parameter.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.0
            .get(key)
            .is_some_and(|value| !matches!(value.as_str(), "" | "0" | "false" | "False" | "FALSE"))
    }

    /// A number, `None` if absent or empty, the text if it is none.
    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>, String> {
        match self.text(key) {
            "" => Ok(None),
            text => match text.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(text.to_owned()),
            },
        }
    }
}

/// Undo percent-encoding; broken escapes stay as they are.
fn decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    while let Some(&byte) = rest.next() {
        match byte {
            b'+' if plus_is_space => out.push(b' '),
            b'%' => {
                let ahead = rest.as_slice();
                let hex = ahead
                    .get(..2)
                    .and_then(|hex| std::str::from_utf8(hex).ok())
                    .filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()))
                    .and_then(|hex| u8::from_str_radix(hex, 16).ok());
                match hex {
                    Some(value) => {
                        out.push(value);
                        rest = ahead.get(2..).unwrap_or_default().iter();
                    }
                    None => out.push(byte),
                }
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Read method and URI.
pub(crate) fn target(served: &Served, method: &Method, path: &str, query: Option<&str>) -> Target {
    let segments: Vec<String> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(|segment| decode(segment, false))
        .collect();
    let texts: Vec<&str> = segments.iter().map(String::as_str).collect();
    match texts.as_slice() {
        [] => Target::Paths,
        ["healthz" | "livez" | "readyz", ..] => Target::Health,
        ["version"] => Target::Version,
        ["metrics"] => Target::Metrics,
        ["openapi", rest @ ..] => Target::OpenApi(rest.join("/")),
        ["api"] | ["apis"] | ["api", _] | ["apis", _] | ["apis", _, _] => {
            Target::Discovery(segments)
        }
        ["api", version, rest @ ..] => resource(served, method, ("", version), (rest, query)),
        ["apis", group, version, rest @ ..] => {
            resource(served, method, (group, version), (rest, query))
        }
        _ => Target::Unknown,
    }
}

fn resource(
    served: &Served,
    method: &Method,
    (group, version): (&str, &str),
    (rest, query): (&[&str], Option<&str>),
) -> Target {
    let find = |plural: &str, namespaced: bool| {
        served.resources.iter().find(|resource| {
            let kind = &resource.kind;
            kind.group == group
                && kind.version == version
                && kind.plural == plural
                && (kind.namespaced || !namespaced)
        })
    };
    let namespaced = match rest {
        ["namespaces", namespace, plural, below @ ..] if find(plural, true).is_some() => {
            find(plural, true).map(|resource| (resource, *namespace, below))
        }
        _ => None,
    };
    let found = namespaced.or_else(|| match rest {
        [plural, below @ ..] => find(plural, false).map(|resource| (resource, "", below)),
        [] => None,
    });
    let Some((resource, namespace, below)) = found else {
        return Target::Unknown;
    };
    let (name, subresource) = match below {
        [] => ("", ""),
        [name] => (*name, ""),
        [name, subresource] => (*name, *subresource),
        // What is below belongs to whoever is proxied to.
        [name, "proxy", ..] => (*name, "proxy"),
        _ => return Target::Unknown,
    };
    // A namespaced object has no address without its namespace.
    if resource.kind.namespaced && namespace.is_empty() && !name.is_empty() {
        return Target::Unknown;
    }
    let query = Query::parse(query.unwrap_or_default());
    Target::Resource(Asked {
        verb: verb(method, !name.is_empty(), &query),
        resource: resource.clone(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: subresource.to_owned(),
        query,
    })
}

fn verb(method: &Method, named: bool, query: &Query) -> Verb {
    match (method.as_str(), named) {
        ("GET" | "HEAD", true) => Verb::Get,
        ("GET" | "HEAD", false) if query.flag("watch") => Verb::Watch,
        ("GET" | "HEAD", false) => Verb::List,
        ("POST", _) => Verb::Create,
        ("PUT", _) => Verb::Update,
        ("PATCH", _) => Verb::Patch,
        ("DELETE", true) => Verb::Delete,
        ("DELETE", false) => Verb::DeleteCollection,
        _ => Verb::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &Method, path: &str, query: &str) -> Asked {
        let target = target(&Served::table(), method, path, Some(query));
        let Target::Resource(asked) = target else {
            panic!("{path}: {target:?}");
        };
        asked
    }

    #[test]
    fn paths_are_read_as_kubernetes_writes_them() {
        let cases = [
            ("/api/v1/pods", ("Pod", "", "", "")),
            ("/api/v1/namespaces", ("Namespace", "", "", "")),
            ("/api/v1/namespaces/x", ("Namespace", "", "x", "")),
            (
                "/api/v1/namespaces/x/finalize",
                ("Namespace", "", "x", "finalize"),
            ),
            ("/api/v1/namespaces/x/pods", ("Pod", "x", "", "")),
            ("/api/v1/namespaces/x/pods/p", ("Pod", "x", "p", "")),
            ("/api/v1/namespaces/x/pods/p/log", ("Pod", "x", "p", "log")),
            (
                "/apis/apps/v1/namespaces/x/deployments/d/scale",
                ("Deployment", "x", "d", "scale"),
            ),
            ("/api/v1/nodes/a%2Fb", ("Node", "", "a/b", "")),
        ];
        for (path, expected) in cases {
            let found = asked(&Method::GET, path, "");
            let kind = found.resource.kind.kind;
            let texts = (
                kind,
                found.namespace.as_str(),
                found.name.as_str(),
                found.subresource.as_str(),
            );
            assert_eq!(texts, expected, "{path}");
        }
        for path in [
            "/api/v1/pods/p",
            "/api/v1/things",
            "/api/v1/namespaces/x/nodes/n",
            "/x",
            "/api/v1/namespaces/x/pods/p/log/more",
        ] {
            assert!(
                matches!(
                    target(&Served::table(), &Method::GET, path, None),
                    Target::Unknown
                ),
                "{path}"
            );
        }
    }

    #[test]
    fn verbs_and_queries() {
        let watch = asked(
            &Method::GET,
            "/api/v1/pods",
            "watch=1&labelSelector=a%3Db%2Cc+d&x=%zz%4",
        );
        assert_eq!(watch.verb, Verb::Watch);
        assert_eq!(watch.query.text("labelSelector"), "a=b,c d");
        assert_eq!(watch.query.text("x"), "%zz%4");
        assert_eq!(
            asked(&Method::GET, "/api/v1/pods", "watch=false").verb,
            Verb::List
        );
        assert_eq!(
            asked(&Method::DELETE, "/api/v1/namespaces/x/pods", "").verb,
            Verb::DeleteCollection
        );
        assert_eq!(watch.query.number("limit"), Ok(None));
        assert_eq!(Query::parse("limit=x").number("limit"), Err("x".to_owned()));
    }
}
