//! Rules for Secret: its keys and size, and what its type promises.

use super::data::{DATA_MAX, decoded, frozen};
use super::{immutable, invalid, names};
use crate::cause::Cause;
use crate::meta;
use crate::value::{at, bool_at, map_at, str_at};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

const ACCOUNT: &str = "kubernetes.io/service-account.name";
/// Contents of Secrets go into no message.
const REDACTED: &str = "<secret contents redacted>";

/// Secret.
pub fn secret(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(old) = old {
        causes.extend(immutable("type", at(object, "type"), at(old, "type")));
        if bool_at(old, "immutable") {
            causes.extend(frozen(object, old, &["data"]));
        }
    }
    let mut size = 0;
    for (key, value) in map_at(object, "data").into_iter().flatten() {
        causes.extend(invalid(
            &format!("data[{key}]"),
            &key.as_str().into(),
            names::config_key(key),
        ));
        size += value.as_str().map_or(0, decoded);
    }
    if size > DATA_MAX {
        causes.push(Cause::too_long("data", DATA_MAX));
    }
    causes.extend(by_type(object));
    causes
}

/// What a type of Secret must have.
fn by_type(object: &Value) -> Vec<Cause> {
    let has = |key: &str| map_at(object, "data").is_some_and(|data| data.contains_key(key));
    let missing = |keys: &[&str]| -> Vec<Cause> {
        let keys = keys.iter().filter(|key| !has(key));
        keys.map(|key| Cause::required(format!("data[{key}]"), ""))
            .collect()
    };
    match str_at(object, "type") {
        "kubernetes.io/service-account-token" => {
            let named = meta::annotation(object, ACCOUNT).is_some_and(|name| !name.is_empty());
            match named {
                true => Vec::new(),
                false => vec![Cause::required(
                    format!("metadata.annotations[{ACCOUNT}]"),
                    "",
                )],
            }
        }
        "kubernetes.io/dockercfg" => document(object, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => document(object, ".dockerconfigjson"),
        // One of the two is enough.
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            missing(&["username", "password"])
        }
        "kubernetes.io/ssh-auth" => {
            let key = map_at(object, "data").and_then(|data| data.get("ssh-privatekey"));
            match key.and_then(Value::as_str).unwrap_or("") {
                "" => vec![Cause::required("data[ssh-privatekey]", "")],
                _ => Vec::new(),
            }
        }
        "kubernetes.io/tls" => missing(&["tls.crt", "tls.key"]),
        _ => Vec::new(),
    }
}

/// A key that must hold a JSON object.
fn document(object: &Value, key: &str) -> Vec<Cause> {
    let path = format!("data[{key}]");
    let Some(text) = map_at(object, "data").and_then(|data| data.get(key)) else {
        return vec![Cause::required(path, "")];
    };
    let bytes = STANDARD
        .decode(text.as_str().unwrap_or(""))
        .unwrap_or_default();
    match serde_json::from_slice::<Map<String, Value>>(&bytes) {
        Ok(_) => Vec::new(),
        Err(error) => vec![Cause::invalid(path, &REDACTED.into(), &why(&bytes, &error))],
    }
}

/// The commonest faults in the words of Go's decoder.
fn why(bytes: &[u8], error: &serde_json::Error) -> String {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    match first {
        None => "unexpected end of JSON input".to_owned(),
        Some(byte) if !b"{[\"tfn-0123456789".contains(byte) => format!(
            "invalid character {:?} looking for beginning of value",
            char::from(*byte)
        ),
        Some(_) if error.is_eof() => "unexpected end of JSON input".to_owned(),
        // Its own text may quote what is secret.
        Some(_) => "must be a JSON object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn types_of_secrets_have_their_keys() {
        let of = |kind: &str, data: Value| -> Vec<String> {
            let object = json!({"type": format!("kubernetes.io/{kind}"), "data": data});
            secret(&object, None).iter().map(Cause::to_string).collect()
        };
        let json = STANDARD.encode("{}");
        let none: [&str; 0] = [];
        assert_eq!(of("tls", json!({"tls.crt": "", "tls.key": ""})), none);
        assert_eq!(
            of("tls", json!({"tls.crt": ""})),
            ["data[tls.key]: Required value"]
        );
        assert_eq!(of("basic-auth", json!({"password": ""})), none);
        assert_eq!(of("basic-auth", json!({})).len(), 2);
        assert_eq!(of("ssh-auth", json!({"ssh-privatekey": ""})).len(), 1);
        assert_eq!(of("dockercfg", json!({".dockercfg": json})), none);
        assert_eq!(
            of(
                "dockerconfigjson",
                json!({".dockerconfigjson": STANDARD.encode("auths")})
            ),
            [
                "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": invalid character 'a' looking for beginning of value"
            ]
        );
        assert_eq!(
            of("service-account-token", json!({})),
            ["metadata.annotations[kubernetes.io/service-account.name]: Required value"]
        );
    }
}
