//! Rules for a Service's cluster addresses and families (S19–S23).

use super::address;
use crate::cause::Cause;
use crate::kinds::service::is_headless;
use crate::value::{at, has, list_at, str_at, strings_at};
use serde_json::Value;

const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];

/// S19: what is wrong with `clusterIP`, `clusterIPs`, `ipFamilies` and
/// `ipFamilyPolicy` of one object.
pub fn cluster_ips(object: &Value) -> Vec<Cause> {
    if str_at(object, "spec.type") == "ExternalName" {
        return Vec::new();
    }
    let path = "spec.clusterIPs";
    let list = at(object, path);
    let ips = strings_at(object, path);
    let mut causes = Vec::new();
    match (str_at(object, "spec.clusterIP"), ips.first()) {
        ("", None) => {}
        ("", Some(_)) => causes.push(Cause::invalid(
            path,
            list,
            "must be empty when `clusterIP` is not specified",
        )),
        (_, None) => causes.push(Cause::required(path, "")),
        (ip, Some(first)) if ip != *first => {
            causes.push(Cause::invalid(
                path,
                list,
                "first value must match `clusterIP`",
            ));
        }
        (_, Some(_)) => {}
    }
    causes.extend(families(object));
    let (bad, faults) = well_formed(object);
    causes.extend(faults);
    if bad {
        return causes;
    }
    if ips.len() > 1 {
        let families: Vec<Option<&str>> = ips.iter().map(|ip| address::family(ip)).collect();
        let dual =
            families.contains(&Some("IPv4")) && families.contains(&Some("IPv6")) && ips.len() == 2;
        if !dual {
            let message = "may specify no more than one IP for each IP family";
            causes.push(Cause::invalid(path, list, message));
        }
    }
    if !is_headless(object) {
        for (index, (ip, family)) in ips
            .iter()
            .zip(strings_at(object, "spec.ipFamilies"))
            .enumerate()
        {
            if FAMILIES.contains(&family) && address::family(ip) != Some(family) {
                let message =
                    format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
                causes.push(Cause::invalid(
                    format!("{path}[{index}]"),
                    &(*ip).into(),
                    &message,
                ));
            }
        }
    }
    causes
}

fn families(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let families = strings_at(object, "spec.ipFamilies");
    for (index, family) in families.iter().enumerate() {
        let path = format!("spec.ipFamilies[{index}]");
        if !FAMILIES.contains(family) {
            causes.push(Cause::not_supported(&path, &(*family).into(), FAMILIES));
        }
        if families[..index].contains(family) {
            causes.push(Cause::duplicate(path, &(*family).into()));
        }
    }
    if has(object, "spec.ipFamilyPolicy")
        && !POLICIES.contains(&str_at(object, "spec.ipFamilyPolicy"))
    {
        let value = at(object, "spec.ipFamilyPolicy");
        causes.push(Cause::not_supported("spec.ipFamilyPolicy", value, POLICIES));
    }
    causes
}

/// Whether an entry is no address, and the causes.
fn well_formed(object: &Value) -> (bool, Vec<Cause>) {
    let path = "spec.clusterIPs";
    let ips = strings_at(object, path);
    let mut causes = Vec::new();
    let mut bad = false;
    for (index, ip) in ips.iter().enumerate() {
        if index == 0 && *ip == "None" {
            if ips.len() > 1 {
                bad = true;
                let message = "'None' must be the first and only value";
                causes.push(Cause::invalid(path, at(object, path), message));
            }
            continue;
        }
        let faults = address::ip(&format!("{path}[{index}]"), ip);
        bad |= !faults.is_empty();
        causes.extend(faults);
    }
    if ips.len() > 2 {
        causes.push(Cause::invalid(
            path,
            at(object, path),
            "may only hold up to 2 values",
        ));
    }
    (bad, causes)
}

/// S20: what may not change on update.
pub fn update(object: &Value, old: &Value) -> Vec<Cause> {
    let external = |object: &Value| str_at(object, "spec.type") == "ExternalName";
    if external(object) || external(old) {
        return Vec::new();
    }
    let (new_headless, old_headless) = (is_headless(object), is_headless(old));
    let mut causes = Vec::new();
    if !(new_headless && old_headless) {
        causes.extend(list_update(object, old, &CLUSTER_IPS));
    }
    if !new_headless && !old_headless {
        causes.extend(list_update(object, old, &IP_FAMILIES));
    }
    causes
}

struct Words {
    path: &'static str,
    primary: &'static str,
    secondary: &'static str,
}

const CLUSTER_IPS: Words = Words {
    path: "spec.clusterIPs",
    primary: "primary clusterIP can not be unset",
    secondary: "must be set to 'SingleStack' when releasing the secondary clusterIP",
};

const IP_FAMILIES: Words = Words {
    path: "spec.ipFamilies",
    primary: "primary ipFamily can not be unset",
    secondary: "must be set to 'SingleStack' when releasing the secondary ipFamily",
};

fn list_update(object: &Value, old: &Value, words: &Words) -> Vec<Cause> {
    let path = words.path;
    let (new_list, old_list) = (list_at(object, path), list_at(old, path));
    let value = at(object, path);
    let changed =
        |index: usize| Cause::invalid(format!("{path}[{index}]"), value, "may not change once set");
    let mut causes = Vec::new();
    if new_list.len() == old_list.len() {
        let differing = (0..old_list.len()).filter(|index| new_list[*index] != old_list[*index]);
        causes.extend(differing.map(changed));
        return causes;
    }
    if let (Some(new), Some(old)) = (new_list.first(), old_list.first())
        && new != old
    {
        causes.push(changed(0));
    }
    if old_list.len() > new_list.len() {
        if new_list.is_empty() {
            causes.push(Cause::invalid(format!("{path}[0]"), value, words.primary));
        }
        if new_list.len() == 1 && str_at(object, "spec.ipFamilyPolicy") != "SingleStack" {
            let policy = at(object, "spec.ipFamilyPolicy");
            causes.push(Cause::invalid(
                "spec.ipFamilyPolicy",
                policy,
                words.secondary,
            ));
        }
    }
    causes
}
