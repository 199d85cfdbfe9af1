//! Who asks, and whether they may. The only place where either is decided.

mod authorize;
mod impersonate;

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::context::Context;
use crate::identity::{Claims, TokenError};
use crate::store::Key;

use authorize::{AUTHENTICATED, MASTERS, SERVICE_ACCOUNTS};
pub(crate) use authorize::{Attributes, allowed, authorize, rules_status};
pub(crate) use impersonate::impersonate;

/// An authenticated client, as `userInfo` of the reviews tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    /// Of the service account; empty for certificates.
    pub(crate) uid: String,
    pub(crate) groups: Vec<String>,
    /// What else the credential says.
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

impl User {
    pub(crate) fn new(name: String, mut groups: Vec<String>) -> Self {
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self {
            name,
            groups,
            ..Self::default()
        }
    }

    /// Whether the user is an administrator.
    fn may_do_everything(&self) -> bool {
        self.is_in(MASTERS)
    }

    /// The same user with one more word about the credential.
    pub(crate) fn with_extra(mut self, key: &str, value: String) -> Self {
        let key = format!("authentication.kubernetes.io/{key}");
        self.extra.entry(key).or_default().push(value);
        self
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
    match service_account(context, token.trim(), &[]) {
        Ok((user, _)) => Some(user),
        Err(error) => {
            tracing::debug!(%error, "bearer token refused");
            None
        }
    }
}

/// The service account of a token that is for one of these audiences (for this
/// server if none is named), and all audiences of the token.
pub(crate) fn service_account(
    context: &Context,
    token: &str,
    audiences: &[&str],
) -> Result<(User, Vec<String>), TokenError> {
    let now = Timestamp::now().as_second();
    let claims = context.identity.tokens().verify(token, now, audiences)?;
    if !still_there(context, &claims) {
        return Err(TokenError::Gone);
    }
    let bound = &claims.kubernetes;
    let namespace = &bound.namespace;
    let account = &bound.serviceaccount;
    let mut user = User::new(
        format!("system:serviceaccount:{namespace}:{}", account.name),
        vec![
            SERVICE_ACCOUNTS.to_owned(),
            format!("{SERVICE_ACCOUNTS}:{namespace}"),
        ],
    )
    .with_extra("credential-id", format!("JTI={}", claims.jti));
    user.uid = account.uid.clone();
    if let Some(pod) = &bound.pod {
        user = user
            .with_extra("pod-name", pod.name.clone())
            .with_extra("pod-uid", pod.uid.clone());
    }
    Ok((user, claims.aud))
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
