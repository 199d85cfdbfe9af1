//! `resourceFieldRef`: what a container asks for, as a number. Pure.

use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceFieldSelector},
    apimachinery::pkg::api::resource::Quantity,
};

/// Suffixes of quantities, as powers of 10 and of 2.
const DECIMAL: [(&str, i32); 9] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY: [(&str, i32); 6] = [
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];

/// The value in units of the divisor, rounded up. Without a limit it is what
/// the node has, with kubelet's meaning of the field.
pub(super) fn value(
    selector: &ResourceFieldSelector,
    pod: &Pod,
    own: Option<&Container>,
) -> Result<String, String> {
    let spec = pod.spec.as_ref();
    let named = selector
        .container_name
        .as_deref()
        .filter(|name| !name.is_empty());
    let container = match (named, own) {
        (Some(name), _) => {
            let main = spec.into_iter().flat_map(|spec| &spec.containers);
            let init = spec
                .and_then(|spec| spec.init_containers.as_ref())
                .into_iter()
                .flatten();
            let found = main.chain(init).find(|container| container.name == name);
            found.ok_or_else(|| format!("container {name} not found"))?
        }
        (None, Some(own)) => own,
        (None, None) => return Err("container  not found".to_owned()),
    };
    let resource = &selector.resource;
    let (list, name) = resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource : {resource}"))?;
    let resources = container.resources.clone().unwrap_or_default();
    let (asked, missing) = match list {
        "limits" => (resources.limits, node_has(name)),
        "requests" => (resources.requests, 0.0),
        _ => return Err(format!("unsupported container resource : {resource}")),
    };
    let asked = asked.unwrap_or_default();
    let amount = match asked.get(name) {
        Some(quantity) => number(quantity)?,
        None => missing,
    };
    let divisor = match &selector.divisor {
        Some(divisor) => number(divisor)?,
        None => 0.0,
    };
    let divisor = if divisor > 0.0 { divisor } else { 1.0 };
    // A hair less, so that 0.25 / 0.001 is 250 and not 251.
    Ok(format!("{:.0}", (amount / divisor - 1e-6).ceil().abs()))
}

/// What a pod may use that has no limit.
fn node_has(name: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = text.lines().find_map(|line| {
        let kib = line.strip_prefix("MemTotal:")?.split_whitespace().next()?;
        kib.parse::<f64>().ok()
    });
    match name {
        "cpu" => std::thread::available_parallelism()
            .ok()
            .and_then(|count| u32::try_from(count.get()).ok())
            .map_or(1.0, f64::from),
        "memory" => memory.unwrap_or_default() * 1024.0,
        _ => 0.0,
    }
}

/// A quantity as a number.
fn number(quantity: &Quantity) -> Result<f64, String> {
    let text = quantity.0.as_str();
    let bad = || format!("quantity {text:?} is not a number");
    let scaled = |rest: &str, factor: f64| rest.parse::<f64>().map(|n| n * factor);
    for (suffix, power) in BINARY {
        if let Some(rest) = text.strip_suffix(suffix) {
            return scaled(rest, 2_f64.powi(power)).map_err(|_not_one| bad());
        }
    }
    for (suffix, power) in DECIMAL {
        if let Some(rest) = text.strip_suffix(suffix) {
            return scaled(rest, 10_f64.powi(power)).map_err(|_not_one| bad());
        }
    }
    text.parse().map_err(|_not_one| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c18_resources_are_numbers_in_units_of_the_divisor() {
        let pod: Pod = serde_saphyr::from_str(
            "spec: {containers: [{name: a, resources: {limits: {cpu: 250m, memory: 64Mi}, requests: {cpu: '2'}}}]}",
        )
        .unwrap();
        for (resource, divisor, expected) in [
            ("limits.cpu", "0", "1"),
            ("limits.cpu", "1m", "250"),
            ("limits.memory", "1Mi", "64"),
            ("limits.memory", "1", "67108864"),
            ("requests.cpu", "1", "2"),
            ("requests.memory", "1", "0"),
        ] {
            let selector = ResourceFieldSelector {
                container_name: Some("a".to_owned()),
                resource: resource.to_owned(),
                divisor: Some(Quantity(divisor.to_owned())),
            };
            assert_eq!(
                value(&selector, &pod, None).unwrap(),
                expected,
                "{resource}"
            );
        }
    }
}
