//! `serviceaccounts/NAME/token`: a TokenRequest (authentication.k8s.io/v1).

use http::StatusCode;
use jiff::Timestamp;
use portolan_api::value::{int_at, set, str_at, strings_at};
use portolan_api::{Cause, Status, meta};
use serde_json::Value;

use super::{Call, decode};
use crate::answer::{self, Answer, Failure};
use crate::identity::{Claims, KubernetesClaims, NamedClaim};

const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
const EXPIRATION: &str = "spec.expirationSeconds";

pub(super) fn create(call: &Call) -> Result<Answer, Failure> {
    // The account must be there when the token is made; it is checked again on use.
    let account = call.current()?.value();
    let (mut request, warnings) = decode::TOKEN_REQUEST.read(call)?;
    let seconds = int_at(&request, EXPIRATION).unwrap_or(DEFAULT_SECONDS);
    if !(MIN_SECONDS..=MAX_SECONDS).contains(&seconds) {
        let detail = "may not specify a duration less than 10 minutes or more than 2^32 seconds";
        let cause = Cause::invalid(EXPIRATION, &seconds.into(), detail);
        let name = meta::name(&request);
        let status = Status::invalid_kind("authentication.k8s.io", "TokenRequest", name, &[cause]);
        return Err(Box::new(status));
    }
    let pod = bound_pod(call, &request)?;
    let signer = call.context.identity.tokens();
    let mut audiences: Vec<String> = strings_at(&request, "spec.audiences")
        .into_iter()
        .map(str::to_owned)
        .collect();
    if audiences.is_empty() {
        audiences.push(signer.issuer().to_owned());
    }
    let now = Timestamp::now().as_second();
    let namespace = &call.asked.namespace;
    let name = &call.asked.name;
    let claims = Claims {
        aud: audiences.clone(),
        exp: now + seconds,
        iat: now,
        nbf: now,
        iss: signer.issuer().to_owned(),
        jti: uuid::Uuid::new_v4().to_string(),
        sub: format!("system:serviceaccount:{namespace}:{name}"),
        kubernetes: KubernetesClaims {
            namespace: namespace.clone(),
            serviceaccount: NamedClaim {
                name: name.clone(),
                uid: meta::uid(&account).to_owned(),
            },
            pod,
        },
    };
    let Some(token) = signer.sign(&claims) else {
        return Err(Box::new(Status::internal("cannot sign a token")));
    };
    meta::set_name(&mut request, name);
    meta::set_namespace(&mut request, namespace);
    set(&mut request, "spec.audiences", audiences);
    set(&mut request, EXPIRATION, seconds);
    set(&mut request, "status.token", token);
    let expires = Timestamp::from_second(claims.exp).unwrap_or(Timestamp::MAX);
    set(
        &mut request,
        "status.expirationTimestamp",
        expires.to_string(),
    );
    let mut answer = answer::json(StatusCode::CREATED, &request);
    answer::warn(&mut answer, &warnings);
    Ok(answer)
}

/// The pod with whose end the token is to end.
fn bound_pod(call: &Call, request: &Value) -> Result<Option<NamedClaim>, Failure> {
    if str_at(request, "spec.boundObjectRef.kind") != "Pod" {
        return Ok(None);
    }
    let name = str_at(request, "spec.boundObjectRef.name");
    let Some(pods) = call.context.core("Pod") else {
        return Ok(None);
    };
    let stored = call
        .context
        .store
        .get(&pods.key(&call.asked.namespace, name))
        .ok_or_else(|| Box::new(Status::not_found(&pods.kind, name)))?;
    let pod = stored.value();
    let (wanted, found) = (str_at(request, "spec.boundObjectRef.uid"), meta::uid(&pod));
    if !wanted.is_empty() && wanted != found {
        let cause = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Box::new(Status::conflict_because(&pods.kind, name, &cause)));
    }
    Ok(Some(NamedClaim {
        name: name.to_owned(),
        uid: found.to_owned(),
    }))
}
