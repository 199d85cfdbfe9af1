//! Whether a user may do something: the one place where that is decided.
//!
//! There are no roles as objects yet, so the rules are a table. Reviews
//! (`kubectl auth can-i`) read the same table as requests.

use portolan_api::Status;
use serde_json::{Value, json};

use super::User;
use crate::request::{Asked, Target};

/// May do everything.
pub(super) const MASTERS: &str = "system:masters";
/// Every authenticated user.
pub(super) const AUTHENTICATED: &str = "system:authenticated";
/// Every service account.
pub(super) const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Attributes<'a> {
    /// `get`, `list`, `create`, …
    pub(crate) verb: &'a str,
    /// The API group of the resource.
    pub(crate) group: &'a str,
    /// The plural of the resource; empty for a path that is no resource.
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    /// Empty for all namespaces and for resources without one.
    pub(crate) namespace: &'a str,
    /// The path, where there is no resource.
    pub(crate) path: &'a str,
}

/// What the members of one group may do; `*` is anything.
struct Rule {
    who: &'static str,
    verbs: &'static [&'static str],
    groups: &'static [&'static str],
    /// `pods`, `pods/log`, `*` (any resource itself), `*/status`, `*/*`.
    resources: &'static [&'static str],
    paths: &'static [&'static str],
}

/// Discovery and documents, as Kubernetes' role `system:discovery` names them.
const DISCOVERY: &[&str] = &[
    "/",
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
];

static RULES: &[Rule] = &[
    Rule {
        who: MASTERS,
        verbs: &["*"],
        groups: &["*"],
        resources: &["*", "*/*"],
        paths: &["*"],
    },
    // Reading is not running: exec, attach, port-forward and proxy are not here.
    Rule {
        who: SERVICE_ACCOUNTS,
        verbs: &["get", "list", "watch"],
        groups: &["*"],
        resources: &["*", "*/status", "*/scale", "pods/log"],
        paths: &[],
    },
    // Kubernetes' role system:basic-user.
    Rule {
        who: AUTHENTICATED,
        verbs: &["create"],
        groups: &["authorization.k8s.io"],
        resources: &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
        paths: &[],
    },
    Rule {
        who: AUTHENTICATED,
        verbs: &["create"],
        groups: &["authentication.k8s.io"],
        resources: &["selfsubjectreviews"],
        paths: &[],
    },
    Rule {
        who: AUTHENTICATED,
        verbs: &["get"],
        groups: &[],
        resources: &[],
        paths: DISCOVERY,
    },
];

impl Rule {
    fn allows(&self, asked: &Attributes<'_>) -> bool {
        let any = |list: &[&str], text: &str| list.iter().any(|one| *one == "*" || *one == text);
        if !any(self.verbs, asked.verb) {
            return false;
        }
        if asked.resource.is_empty() {
            return self
                .paths
                .iter()
                .any(|pattern| path_matches(pattern, asked.path));
        }
        any(self.groups, asked.group)
            && self
                .resources
                .iter()
                .any(|pattern| resource_matches(pattern, asked))
    }
}

fn resource_matches(pattern: &str, asked: &Attributes<'_>) -> bool {
    let (resource, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
    let subresource_fits = match subresource {
        "*" => !asked.subresource.is_empty(),
        exact => exact == asked.subresource,
    };
    subresource_fits && (resource == "*" || resource == asked.resource || asked.resource == "*")
}

fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

/// Whether `user` may do this.
pub(crate) fn allowed(user: &User, asked: &Attributes<'_>) -> bool {
    rules_of(user).any(|rule| rule.allows(asked))
}

fn rules_of(user: &User) -> impl Iterator<Item = &'static Rule> {
    RULES.iter().filter(|rule| user.is_in(rule.who))
}

/// All that `user` may do, as the status of a SelfSubjectRulesReview.
pub(crate) fn rules_status(user: &User) -> Value {
    let resources: Vec<Value> = rules_of(user)
        .filter(|rule| !rule.resources.is_empty())
        .map(|rule| json!({"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources}))
        .collect();
    let paths: Vec<Value> = rules_of(user)
        .filter(|rule| !rule.paths.is_empty())
        .map(|rule| json!({"verbs": rule.verbs, "nonResourceURLs": rule.paths}))
        .collect();
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}

/// Refuse a request that its user may not make.
pub(crate) fn authorize(user: &User, target: &Target, path: &str) -> Result<(), Box<Status>> {
    let Target::Resource(asked) = target else {
        let attributes = Attributes {
            verb: "get",
            path,
            ..Attributes::default()
        };
        // What there is nothing of is answered as that, not as forbidden.
        if matches!(target, Target::Unknown) || allowed(user, &attributes) {
            return Ok(());
        }
        return Err(Box::new(Status::forbidden_path(format!(
            "forbidden: User {:?} cannot get path {path:?}",
            user.name
        ))));
    };
    let attributes = Attributes {
        verb: asked.verb.text(),
        group: asked.resource.kind.group,
        resource: asked.resource.kind.plural,
        subresource: &asked.subresource,
        namespace: &asked.namespace,
        path: "",
    };
    if allowed(user, &attributes) {
        return Ok(());
    }
    Err(Box::new(refusal(user, asked)))
}

fn refusal(user: &User, asked: &Asked) -> Status {
    let kind = &asked.resource.kind;
    let resource = match asked.subresource.as_str() {
        "" => kind.plural.to_owned(),
        subresource => format!("{}/{subresource}", kind.plural),
    };
    let place = match (kind.namespaced, asked.namespace.as_str()) {
        (true, namespace) if !namespace.is_empty() => format!("in the namespace {namespace:?}"),
        _ => "at the cluster scope".to_owned(),
    };
    let cause = format!(
        "User {:?} cannot {} resource {resource:?} in API group {:?} {place}",
        user.name,
        asked.verb.text(),
        kind.group
    );
    Status::forbidden(kind, &asked.name, &cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(group: &str) -> User {
        User::new("u".to_owned(), vec![group.to_owned()])
    }

    fn on<'a>(verb: &'a str, resource: &'a str, subresource: &'a str) -> Attributes<'a> {
        Attributes {
            verb,
            resource,
            subresource,
            ..Attributes::default()
        }
    }

    #[test]
    fn the_table_of_rights() {
        let (admin, account, other) = (user(MASTERS), user(SERVICE_ACCOUNTS), user("x"));
        let review = Attributes {
            group: "authentication.k8s.io",
            ..on("create", "selfsubjectreviews", "")
        };
        let path = |path| Attributes {
            verb: "get",
            path,
            ..Attributes::default()
        };
        let cases = [
            (on("delete", "pods", ""), [true, false, false]),
            (on("create", "pods", "exec"), [true, false, false]),
            (on("get", "pods", "exec"), [true, false, false]),
            (on("get", "pods", "proxy"), [true, false, false]),
            (on("get", "pods", "log"), [true, true, false]),
            (on("get", "services", "status"), [true, true, false]),
            (on("watch", "endpointslices", ""), [true, true, false]),
            (review, [true, true, true]),
            (path("/apis/apps/v1"), [true, true, true]),
            (path("/metrics"), [true, false, false]),
        ];
        for (asked, expected) in cases {
            let found = [&admin, &account, &other].map(|user| allowed(user, &asked));
            assert_eq!(found, expected, "{asked:?}");
        }
    }
}
