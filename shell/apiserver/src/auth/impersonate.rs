//! `kubectl --as`: a user who may do everything acts as another.

use http::HeaderMap;
use portolan_api::Status;

use super::authorize::AUTHENTICATED;
use super::{SERVICE_ACCOUNTS, User};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
/// How service accounts are named as users.
const ACCOUNT: &str = "system:serviceaccount:";

/// The user that a request is to be made as: the one that asks, or the one of
/// the impersonation headers.
///
/// # Errors
/// 403 if the asking user may not impersonate, 400 if no user is named.
pub(crate) fn impersonate(asking: User, headers: &HeaderMap) -> Result<User, Box<Status>> {
    let all = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter();
        let texts = values.filter_map(|value| value.to_str().ok());
        texts.map(str::to_owned).collect()
    };
    let name = all(USER).into_iter().next().unwrap_or_default();
    let (groups, uid) = (all(GROUP), all(UID).into_iter().next().unwrap_or_default());
    let extra = headers.keys().filter(|key| key.as_str().starts_with(EXTRA));
    let extra: Vec<&str> = extra.map(http::HeaderName::as_str).collect();
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(asking);
        }
        let message = "requested groups, uid or extra without impersonating a user";
        return Err(Box::new(Status::bad_request(message)));
    }
    if !asking.may_do_everything() {
        return Err(Box::new(Status::forbidden_path(format!(
            "users {name:?} is forbidden: User {:?} cannot impersonate resource \"users\" in API group \"\" at the cluster scope",
            asking.name
        ))));
    }
    let groups = match groups.is_empty() {
        true => usual_groups(&name),
        false => groups,
    };
    let mut user = match name.as_str() {
        "system:anonymous" => User {
            name,
            groups: vec!["system:unauthenticated".to_owned()],
            ..User::default()
        },
        _ => User::new(name, groups),
    };
    user.uid = uid;
    for key in extra {
        let values = all(key);
        let key = key.trim_start_matches(EXTRA).replace("%2f", "/");
        user.extra.insert(key, values);
    }
    Ok(user)
}

/// The groups that a service account always has.
fn usual_groups(name: &str) -> Vec<String> {
    let namespace = name
        .strip_prefix(ACCOUNT)
        .and_then(|rest| rest.split_once(':'))
        .map(|(namespace, _)| namespace);
    match namespace {
        Some(namespace) => vec![
            SERVICE_ACCOUNTS.to_owned(),
            format!("{SERVICE_ACCOUNTS}:{namespace}"),
            AUTHENTICATED.to_owned(),
        ],
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, http::HeaderValue::from_static(value));
        }
        map
    }

    fn admin() -> User {
        User::new("admin".to_owned(), vec!["system:masters".to_owned()])
    }

    #[test]
    fn the_administrator_acts_as_others_and_others_do_not() {
        assert_eq!(impersonate(admin(), &headers(&[])).unwrap(), admin());
        let nobody = impersonate(
            admin(),
            &headers(&[(USER, "nobody"), (GROUP, "a"), (GROUP, "b")]),
        );
        assert_eq!(nobody.unwrap().groups, ["a", "b", AUTHENTICATED]);
        let account =
            impersonate(admin(), &headers(&[(USER, "system:serviceaccount:x:y")])).unwrap();
        assert!(
            account
                .groups
                .contains(&"system:serviceaccounts:x".to_owned())
        );
        let extra = headers(&[
            (USER, "n"),
            ("impersonate-extra-example.com%2fa", "1"),
            (UID, "u"),
        ]);
        let extra = impersonate(admin(), &extra).unwrap();
        assert_eq!(
            (extra.uid.as_str(), &extra.extra["example.com/a"]),
            ("u", &vec!["1".to_owned()])
        );
        let other = User::new("other".to_owned(), Vec::new());
        assert_eq!(
            impersonate(other, &headers(&[(USER, "admin")]))
                .unwrap_err()
                .code,
            403
        );
        assert_eq!(
            impersonate(admin(), &headers(&[(GROUP, "g")]))
                .unwrap_err()
                .code,
            400
        );
    }
}
