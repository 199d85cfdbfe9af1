//! Rules for ServiceCIDRs and IPAddresses (A5, A6).

use super::{address, immutable};
use crate::cause::Cause;
use crate::value::{at, str_at, strings_at};
use serde_json::Value;

const CIDRS: &str = "spec.cidrs";
const PARENT: &str = "spec.parentRef";

/// ServiceCIDR.
pub fn service_cidr(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = cidrs(object);
    if let Some(old) = old {
        let (new, old) = (strings_at(object, CIDRS), strings_at(old, CIDRS));
        // A second family may be added, once.
        let grown = old.len() == 1 && new.len() == 2 && old.first() == new.first();
        if !grown {
            causes.extend(immutable(CIDRS, &new.into(), &old.into()));
        }
    }
    causes
}

fn cidrs(object: &Value) -> Vec<Cause> {
    let spec = at(object, "spec");
    let texts = strings_at(object, CIDRS);
    match texts.as_slice() {
        [] => vec![Cause::required(CIDRS, "at least one CIDR required")],
        [_, _, _, ..] => vec![Cause::invalid(CIDRS, spec, "may only hold up to 2 values")],
        some => {
            let mut causes: Vec<Cause> = Vec::new();
            let family = |text: &str| text.split_once('/').and_then(|(ip, _)| address::family(ip));
            if let [first, second] = some
                && family(first).is_some()
                && family(first) == family(second)
            {
                let message = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
                causes.push(Cause::invalid(CIDRS, spec, message));
            }
            for (index, text) in some.iter().enumerate() {
                causes.extend(address::cidr(&format!("{CIDRS}[{index}]"), text));
            }
            causes
        }
    }
}

/// IPAddress.
pub fn ip_address(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let parent = at(object, PARENT);
    if parent.is_null() {
        causes.push(Cause::required(PARENT, ""));
    } else {
        for field in ["resource", "name"] {
            if str_at(parent, field).is_empty() {
                causes.push(Cause::required(format!("{PARENT}.{field}"), ""));
            }
        }
    }
    if let Some(old) = old {
        causes.extend(immutable(PARENT, parent, at(old, PARENT)));
    }
    causes
}

/// What is wrong with the name of an IPAddress: it is the address, in its one form.
pub fn address_name(name: &str) -> Vec<String> {
    match name.parse::<std::net::IpAddr>() {
        Err(_) => {
            vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
        }
        Ok(address) if address.to_string() != name => {
            vec![format!("must be in canonical form (\"{address}\")")]
        }
        Ok(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::service_cidr::{IP_ADDRESS, KIND};
    use serde_json::json;

    fn made(cidrs: &[&str]) -> Value {
        json!({"metadata": {"name": "a", "resourceVersion": "1"}, "spec": {"cidrs": cidrs}})
    }

    fn lines(causes: Vec<Cause>) -> Vec<String> {
        causes.iter().map(Cause::to_string).collect()
    }

    #[test]
    fn a6_ranges_one_per_family() {
        let create = |cidrs: &[&str]| lines(KIND.validate_create(&made(cidrs)));
        assert_eq!(create(&["10.96.0.0/16"]), [""; 0]);
        assert_eq!(create(&["10.96.0.0/16", "fd00::/112"]), [""; 0]);
        assert_eq!(
            create(&[]),
            ["spec.cidrs: Required value: at least one CIDR required"]
        );
        assert!(create(&["10.96.0.0/16", "10.97.0.0/16"])[0].contains("no more than one IP"));
        assert!(create(&["10.96.0.1/16"])[0].starts_with("spec.cidrs[0]: Invalid value"));
        assert!(create(&["10.0.0.0/8", "fd00::/64", "10.0.0.0/9"])[0].contains("up to 2 values"));
    }

    #[test]
    fn a6_a_range_stays_but_may_get_a_second_family() {
        let update =
            |old: &[&str], new: &[&str]| lines(KIND.validate_update(&made(new), &made(old)));
        assert_eq!(update(&["10.96.0.0/16"], &["10.96.0.0/16"]), [""; 0]);
        assert_eq!(
            update(&["10.96.0.0/16"], &["10.96.0.0/16", "fd00::/112"]),
            [""; 0]
        );
        for new in [&["10.97.0.0/16"][..], &["10.97.0.0/16", "fd00::/112"][..]] {
            assert!(update(&["10.96.0.0/16"], new)[0].contains("field is immutable"));
        }
        assert!(
            update(&["10.96.0.0/16", "fd00::/112"], &["10.96.0.0/16"])[0].contains("immutable")
        );
    }

    #[test]
    fn a5_an_address_has_an_owner_and_its_own_name() {
        let object = |name: &str, spec: Value| json!({"metadata": {"name": name, "resourceVersion": "1"}, "spec": spec});
        let parent =
            json!({"parentRef": {"resource": "services", "namespace": "default", "name": "web"}});
        for good in ["10.96.0.1", "fd00::1"] {
            assert_eq!(
                IP_ADDRESS.validate_create(&object(good, parent.clone())),
                []
            );
        }
        for (bad, word) in [
            ("010.0.0.1", "valid IP"),
            ("fd00:0::1", "canonical form"),
            ("web", "valid IP"),
        ] {
            let found = lines(IP_ADDRESS.validate_create(&object(bad, parent.clone())));
            assert!(
                found[0].starts_with("metadata.name: Invalid value") && found[0].contains(word),
                "{found:?}"
            );
        }
        assert_eq!(
            lines(IP_ADDRESS.validate_create(&object("10.0.0.1", json!({})))),
            ["spec.parentRef: Required value"]
        );
        let old = object("10.0.0.1", parent);
        let mut new = old.clone();
        new["spec"]["parentRef"]["name"] = json!("db");
        assert!(lines(IP_ADDRESS.validate_update(&new, &old))[0].contains("immutable"));
    }
}
