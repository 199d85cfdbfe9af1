//! What may be done at each path, before it takes the form of a version.

use super::parameters::{self, Parameter};
use crate::kinds::{self, Kind, KindRef, Subresource};
use crate::schema;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// One operation.
pub(super) struct Operation {
    pub(super) method: &'static str,
    /// `x-kubernetes-action`.
    pub(super) action: &'static str,
    pub(super) id: String,
    pub(super) description: String,
    pub(super) parameters: &'static [Parameter],
    /// The definition of the body, if there is one.
    pub(super) body: Option<String>,
    /// The definition of the answer; a text if there is none.
    pub(super) answer: Option<String>,
    /// Group, version and kind that it is about.
    pub(super) kind: (String, String, String),
}

/// A path with its path parameters and operations.
pub(super) struct Place {
    pub(super) path: String,
    pub(super) named: Vec<&'static str>,
    pub(super) operations: Vec<Operation>,
}

/// The definition of the kind of a subresource, unless it is a connection.
pub(super) fn definition_of(kind: &Kind, sub: &Subresource) -> Option<String> {
    let name = match (sub.group, sub.kind) {
        ("autoscaling", "Scale") => "io.k8s.api.autoscaling.v1.Scale",
        ("policy", "Eviction") => "io.k8s.api.policy.v1.Eviction",
        ("authentication.k8s.io", "TokenRequest") => "io.k8s.api.authentication.v1.TokenRequest",
        ("", "Binding") => "io.k8s.api.core.v1.Binding",
        (group, name) if group == kind.group && name == kind.kind => kind.definition,
        _ => kinds::by_kind(sub.group, sub.version, sub.kind)?.definition,
    };
    Some(name.to_owned())
}

/// All places of a group-version.
pub(super) fn all(kinds: &[KindRef], group: &str, version: &str) -> Vec<Place> {
    let mut places = Vec::new();
    let own = |kind: &&KindRef| kind.group == group && kind.version == version;
    for kind in kinds.iter().filter(own) {
        places.extend(of_kind(kind));
    }
    places
}

fn of_kind(kind: &Kind) -> Vec<Place> {
    let namespace = if kind.namespaced { "{namespace}" } else { "" };
    let scope: Vec<&'static str> = kind.namespaced.then_some("namespace").into_iter().collect();
    let named: Vec<&'static str> = scope.iter().copied().chain(["name"]).collect();
    let of = Of {
        kind,
        prefix: id_prefix(kind),
    };
    let mut places = Vec::new();
    if kind.namespaced && !kind.is_review() {
        places.push(Place {
            path: kind.path("", ""),
            named: Vec::new(),
            operations: vec![of.list(false)],
        });
    }
    places.push(Place {
        path: kind.path(namespace, ""),
        named: scope,
        operations: of.collection(),
    });
    let item = kind.path(namespace, "{name}");
    let single = of.single();
    if !single.is_empty() {
        places.push(Place {
            path: item.clone(),
            named: named.clone(),
            operations: single,
        });
    }
    for sub in kind.subresources {
        places.push(Place {
            path: format!("{item}/{}", sub.name),
            named: named.clone(),
            operations: of.subresource(sub, false),
        });
        if sub.name == "proxy" {
            places.push(Place {
                path: format!("{item}/proxy/{{path}}"),
                named: named.iter().copied().chain(["path"]).collect(),
                operations: of.subresource(sub, true),
            });
        }
    }
    places
}

/// `CoreV1`, `AppsV1`, `StableExampleComV1`: how Kubernetes begins the names of
/// operations, without the ending of its own groups.
fn id_prefix(kind: &Kind) -> String {
    let group = match (kind.group, kind.custom.is_some()) {
        ("", _) => "core",
        (group, true) => group,
        (group, false) => group.split('.').next().unwrap_or(group),
    };
    let words: String = group.split(['.', '-']).map(upper_first).collect();
    format!("{words}{}", upper_first(kind.version))
}

/// The tag of the operations of a group-version: `core_v1`.
pub(super) fn tag(group: &str, version: &str) -> String {
    let group = match group {
        "" => "core",
        group => group.strip_suffix(".k8s.io").unwrap_or(group),
    };
    format!("{}_{version}", group.replace('.', "_"))
}

fn upper_first(word: &str) -> String {
    let mut chars = word.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// Operations of one kind.
struct Of<'a> {
    kind: &'a Kind,
    prefix: String,
}

impl Of<'_> {
    /// `Namespaced` or nothing, and the kind.
    fn scoped(&self) -> String {
        let scope = if self.kind.namespaced {
            "Namespaced"
        } else {
            ""
        };
        format!("{scope}{}", self.kind.kind)
    }

    fn operation(&self, method: &'static str, action: &'static str, id: &str) -> Operation {
        let kind = self.kind;
        let (before, after) = id.split_once('*').unwrap_or((id, ""));
        Operation {
            method,
            action,
            id: format!("{before}{}{after}{}", self.prefix, self.scoped()),
            description: String::new(),
            parameters: parameters::GET,
            body: None,
            answer: Some(kind.definition.to_owned()),
            kind: (
                kind.group.to_owned(),
                kind.version.to_owned(),
                kind.kind.to_owned(),
            ),
        }
    }

    fn can(&self, verb: &str) -> bool {
        self.kind.verbs.contains(&verb)
    }

    fn list(&self, in_scope: bool) -> Operation {
        let kind = self.kind;
        let mut operation = Operation {
            description: format!("list or watch objects of kind {}", kind.kind),
            parameters: parameters::LIST,
            answer: Some(schema::list_definition(kind)),
            ..self.operation("get", "list", "list")
        };
        if !in_scope {
            operation.id = format!("list{}{}ForAllNamespaces", self.prefix, kind.kind);
        }
        operation
    }

    fn collection(&self) -> Vec<Operation> {
        let kind = self.kind;
        let mut operations = Vec::new();
        if self.can("list") {
            operations.push(self.list(true));
        }
        if self.can("create") {
            operations.push(Operation {
                description: format!("create {} {}", article(kind.kind), kind.kind),
                parameters: parameters::WRITE,
                body: Some(kind.definition.to_owned()),
                ..self.operation("post", "post", "create")
            });
        }
        if self.can("deletecollection") {
            operations.push(Operation {
                description: format!("delete collection of {}", kind.kind),
                parameters: parameters::DELETE,
                body: Some(format!("{META}.DeleteOptions")),
                answer: Some(format!("{META}.Status")),
                ..self.operation("delete", "deletecollection", "delete*Collection")
            });
        }
        operations
    }

    fn single(&self) -> Vec<Operation> {
        let name = self.kind.kind;
        let mut operations = Vec::new();
        if self.can("get") {
            operations.push(Operation {
                description: format!("read the specified {name}"),
                ..self.operation("get", "get", "read")
            });
        }
        if self.can("update") {
            operations.push(Operation {
                description: format!("replace the specified {name}"),
                parameters: parameters::WRITE,
                body: Some(self.kind.definition.to_owned()),
                ..self.operation("put", "put", "replace")
            });
        }
        if self.can("patch") {
            operations.push(Operation {
                description: format!("partially update the specified {name}"),
                parameters: parameters::PATCH,
                body: Some(format!("{META}.Patch")),
                ..self.operation("patch", "patch", "patch")
            });
        }
        if self.can("delete") {
            let answer = match self.kind.delete_returns_object {
                true => self.kind.definition.to_owned(),
                false => format!("{META}.Status"),
            };
            operations.push(Operation {
                description: format!("delete {} {name}", article(name)),
                parameters: parameters::DELETE,
                body: Some(format!("{META}.DeleteOptions")),
                answer: Some(answer),
                ..self.operation("delete", "delete", "delete")
            });
        }
        operations
    }

    fn subresource(&self, sub: &Subresource, below: bool) -> Vec<Operation> {
        sub.verbs
            .iter()
            .map(|verb| match definition_of(self.kind, sub) {
                _ if sub.name == "log" => self.log(sub),
                Some(definition) => self.object(sub, verb, &definition),
                None => self.connection(sub, verb, below),
            })
            .collect()
    }

    fn log(&self, sub: &Subresource) -> Operation {
        let mut operation = self.operation("get", "get", "read");
        operation.id.push_str("Log");
        Operation {
            description: format!("read {} of the specified {}", sub.name, self.kind.kind),
            parameters: parameters::of_connection("log"),
            answer: None,
            ..operation
        }
    }

    /// A subresource that is an object: status, scale, eviction, …
    fn object(&self, sub: &Subresource, verb: &str, definition: &str) -> Operation {
        let (name, kind) = (sub.name, self.kind.kind);
        let body = definition.to_owned();
        let (mut operation, description, parameters, body) = match verb {
            "create" => (
                self.operation("post", "post", "create"),
                format!("create {name} of {} {kind}", article(kind)),
                parameters::WRITE,
                Some(body),
            ),
            "update" => (
                self.operation("put", "put", "replace"),
                format!("replace {name} of the specified {kind}"),
                parameters::WRITE,
                Some(body),
            ),
            "patch" => (
                self.operation("patch", "patch", "patch"),
                format!("partially update {name} of the specified {kind}"),
                parameters::PATCH,
                Some(format!("{META}.Patch")),
            ),
            _ => (
                self.operation("get", "get", "read"),
                format!("read {name} of the specified {kind}"),
                parameters::GET,
                None,
            ),
        };
        operation.id.push_str(&upper_first(name));
        Operation {
            description,
            parameters,
            body,
            answer: Some(definition.to_owned()),
            kind: about(sub),
            ..operation
        }
    }

    /// A subresource that is a connection: its kind names the parameters.
    fn connection(&self, sub: &Subresource, verb: &str, below: bool) -> Operation {
        let (method, word) = match verb {
            "create" => ("post", "Post"),
            "update" => ("put", "Put"),
            "patch" => ("patch", "Patch"),
            "delete" => ("delete", "Delete"),
            _ => ("get", "Get"),
        };
        let mut operation = self.operation(method, "connect", &format!("connect*{word}"));
        let name = match sub.name {
            "portforward" => "Portforward".to_owned(),
            name => upper_first(name),
        };
        operation.id.push_str(&name);
        if below {
            operation.id.push_str("WithPath");
        }
        Operation {
            description: format!(
                "connect {} requests to {} of {}",
                method.to_uppercase(),
                sub.name,
                self.kind.kind
            ),
            parameters: parameters::of_connection(sub.name),
            answer: None,
            kind: about(sub),
            ..operation
        }
    }
}

fn about(sub: &Subresource) -> (String, String, String) {
    (
        sub.group.to_owned(),
        sub.version.to_owned(),
        sub.kind.to_owned(),
    )
}

fn article(name: &str) -> &'static str {
    match name.chars().next() {
        Some('A' | 'E' | 'I' | 'O' | 'U') => "an",
        _ => "a",
    }
}
