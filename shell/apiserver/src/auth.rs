//! Who asks, and whether they may. The only place where either is decided.

use jiff::Timestamp;
use portolan_api::Status;

use crate::context::Context;
use crate::identity::{Claims, TokenError};
use crate::request::{Target, Verb};
use crate::store::Key;

/// May do everything.
const MASTERS: &str = "system:masters";
/// Every authenticated user.
const AUTHENTICATED: &str = "system:authenticated";
/// Every service account.
const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

/// An authenticated client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
}

impl User {
    pub(crate) fn new(name: String, mut groups: Vec<String>) -> Self {
        groups.push(AUTHENTICATED.to_owned());
        Self { name, groups }
    }

    fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }
}

/// The user of a request: of its bearer token if it has one, else of the
/// connection's certificate.
pub(crate) fn authenticate(
    context: &Context,
    authorization: Option<&str>,
    certificate: Option<&User>,
) -> Option<User> {
    let Some(header) = authorization else {
        return certificate.cloned();
    };
    let (scheme, token) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return certificate.cloned();
    }
    match service_account(context, token.trim()) {
        Ok(user) => user,
        Err(error) => {
            tracing::debug!(%error, "bearer token refused");
            None
        }
    }
}

fn service_account(context: &Context, token: &str) -> Result<Option<User>, TokenError> {
    let now = Timestamp::now().as_second();
    let claims = context.identity.tokens().verify(token, now)?;
    if !still_there(context, &claims) {
        return Ok(None);
    }
    let namespace = &claims.kubernetes.namespace;
    let account = &claims.kubernetes.serviceaccount.name;
    Ok(Some(User::new(
        format!("system:serviceaccount:{namespace}:{account}"),
        vec![
            SERVICE_ACCOUNTS.to_owned(),
            format!("{SERVICE_ACCOUNTS}:{namespace}"),
        ],
    )))
}

/// A token ends with its account and with the pod that it was made for.
fn still_there(context: &Context, claims: &Claims) -> bool {
    let bound = &claims.kubernetes;
    let exists = |plural: &str, name: &str, uid: &str| {
        let Some(resource) = context.resource("", "v1", plural) else {
            return true;
        };
        let key = Key::new(resource.index, &bound.namespace, name);
        context
            .store
            .get(&key)
            .is_some_and(|stored| portolan_api::meta::uid(&stored.value()) == uid)
    };
    exists(
        "serviceaccounts",
        &bound.serviceaccount.name,
        &bound.serviceaccount.uid,
    ) && bound
        .pod
        .as_ref()
        .is_none_or(|pod| exists("pods", &pod.name, &pod.uid))
}

/// Whether `user` may do this.
///
/// | who | what |
/// |---|---|
/// | group system:masters | everything |
/// | service accounts | read every resource |
/// | anybody authenticated | discovery, OpenAPI, version, health |
pub(crate) fn authorize(user: &User, target: &Target) -> Result<(), Box<Status>> {
    if user.is_in(MASTERS) {
        return Ok(());
    }
    let Target::Resource(asked) = target else {
        return match target {
            Target::Metrics => Err(Box::new(Status::forbidden_path(format!(
                "forbidden: User {:?} cannot get path \"/metrics\"",
                user.name
            )))),
            Target::Resource(_)
            | Target::Health
            | Target::Version
            | Target::Paths
            | Target::Discovery(_)
            | Target::OpenApi(_)
            | Target::Unknown => Ok(()),
        };
    };
    let reads = matches!(asked.verb, Verb::Get | Verb::List | Verb::Watch);
    if user.is_in(SERVICE_ACCOUNTS) && reads {
        return Ok(());
    }
    let kind = asked.resource.kind;
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
    Err(Box::new(Status::forbidden(kind, &asked.name, &cause)))
}
