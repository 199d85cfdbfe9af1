//! How much of a node a pod asks for.

use portolan_api::value::{at, list_at, str_at};
use serde_json::Value;

/// CPU and memory, as far as the scheduler counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
}

impl Resources {
    /// Reads `{cpu, memory}`. What is missing or no quantity counts as zero.
    pub fn of(value: &Value) -> Self {
        Self {
            cpu: quantity(at(value, "cpu"), 1000),
            memory: quantity(at(value, "memory"), 1),
        }
    }

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_add(other.cpu),
            memory: self.memory.saturating_add(other.memory),
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.max(other.cpu),
            memory: self.memory.max(other.memory),
        }
    }

    /// What a pod asks for: its containers together, or one of its init
    /// containers if that is more. Sidecars run beside both (KEP-753).
    pub fn of_pod(spec: &Value) -> Self {
        let requests = |container: &Value| Self::of(at(container, "resources.requests"));
        let mut running = Self::default();
        let mut most = Self::default();
        for init in list_at(spec, "initContainers") {
            if str_at(init, "restartPolicy") == "Always" {
                running = running.plus(requests(init));
                most = most.max(running);
            } else {
                most = most.max(running.plus(requests(init)));
            }
        }
        for container in list_at(spec, "containers") {
            running = running.plus(requests(container));
        }
        running.max(most).plus(Self::of(at(spec, "overhead")))
    }
}

/// A quantity such as `250m`, `1.5` or `128Mi`, in units of `1/scale`, rounded
/// up; zero where it is none.
fn quantity(value: &Value, scale: i64) -> i64 {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return 0,
    };
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        exponent => match exponent.strip_prefix(['e', 'E']).map(str::parse::<i32>) {
            Some(Ok(power)) => 10f64.powi(power),
            Some(Err(_)) | None => return 0,
        },
    };
    let Ok(number) = number.parse::<f64>() else {
        return 0;
    };
    // A saturating conversion; fractions of a unit come from rounding only.
    let scaled = number * factor * scale as f64;
    (scaled - 1e-6).ceil() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities_are_read_in_every_form() {
        let cases = [
            (json!("250m"), 250, 1),
            (json!("1"), 1000, 1),
            (json!(2), 2000, 2),
            (json!("0.1"), 100, 1),
            (json!("1500u"), 2, 1),
            (json!("128Mi"), 134_217_728_000, 134_217_728),
            (json!("1G"), 1_000_000_000_000, 1_000_000_000),
            (json!("2e3"), 2_000_000, 2000),
            (json!("many"), 0, 0),
            (json!("1Xi"), 0, 0),
            (json!(null), 0, 0),
        ];
        for (value, thousandths, whole) in cases {
            assert_eq!(quantity(&value, 1000), thousandths, "{value}");
            assert_eq!(quantity(&value, 1), whole, "{value}");
        }
        assert_eq!(quantity(&json!("9999999E"), 1), i64::MAX, "saturates");
    }

    #[test]
    fn a_pod_asks_for_its_containers_or_for_its_largest_init_container() {
        let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = container("100m");
        sidecar["restartPolicy"] = "Always".into();
        let spec = json!({
            "initContainers": [container("500m"), sidecar, container("450m")],
            "containers": [container("200m"), container("150m")],
        });
        assert_eq!(
            Resources::of_pod(&spec).cpu,
            550,
            "sidecar and the second init"
        );
        let spec = json!({
            "initContainers": [container("100m")],
            "containers": [container("200m"), container("150m")],
            "overhead": {"cpu": "10m"},
        });
        assert_eq!(Resources::of_pod(&spec).cpu, 360);
    }
}
