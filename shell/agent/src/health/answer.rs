//! The answers themselves, in kube-proxy's words: pure.

use http::StatusCode;
use portolan_model::ServiceKey;
use portolan_plan::Health;
use serde_json::{Value, json};

use super::{Door, Facts};

/// A Service that a load balancer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Balanced {
    service: ServiceKey,
    local_endpoints: usize,
}

impl From<&Health> for Balanced {
    fn from(health: &Health) -> Self {
        Self {
            service: health.service.clone(),
            local_endpoints: health.local_endpoints,
        }
    }
}

/// Status, body, and for load balancers how many endpoints are behind it.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) code: StatusCode,
    pub(super) body: Value,
    pub(super) weight: Option<usize>,
}

/// What is answered at a door and path; none for a path that is not there.
pub(super) fn answer(facts: &Facts, door: Door, path: &str) -> Option<Answer> {
    if door == Door::Metrics {
        return None;
    }
    if let Door::Service(port) = door {
        return facts
            .balanced
            .get(&port)
            .map(|service| of_service(facts, service));
    }
    let node_counts = match path {
        "/healthz" => true,
        "/livez" => false,
        _ => return None,
    };
    let healthy = facts.is_healthy() && !(node_counts && facts.leaving);
    let synced = facts.synced.map(|at| at.to_string()).unwrap_or_default();
    let mut body = json!({
        "lastUpdated": synced,
        "currentTime": jiff::Timestamp::now().to_string(),
    });
    if node_counts {
        body["nodeEligible"] = (!facts.leaving).into();
    }
    Some(Answer {
        code: code(healthy),
        body,
        weight: None,
    })
}

fn of_service(facts: &Facts, balanced: &Balanced) -> Answer {
    let healthy = facts.is_healthy();
    let Balanced {
        service,
        local_endpoints,
    } = balanced;
    Answer {
        code: code(healthy && *local_endpoints > 0),
        body: json!({
            "service": {"namespace": &*service.namespace, "name": &*service.name},
            "localEndpoints": local_endpoints,
            "serviceProxyHealthy": healthy,
        }),
        weight: Some(*local_endpoints),
    }
}

fn code(well: bool) -> StatusCode {
    if well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::health::STALE;

    fn facts(endpoints: usize) -> Facts {
        let balanced = Balanced {
            service: ServiceKey::new("shop", "web"),
            local_endpoints: endpoints,
        };
        Facts {
            synced: Some(jiff::Timestamp::UNIX_EPOCH),
            balanced: [(32_000, balanced)].into(),
            ..Facts::default()
        }
    }

    fn code_at(facts: &Facts, door: Door, path: &str) -> u16 {
        answer(facts, door, path).unwrap().code.as_u16()
    }

    #[test]
    fn p14_a_load_balancer_learns_of_local_endpoints() {
        let found = answer(&facts(2), Door::Service(32_000), "/").unwrap();
        assert_eq!(found.code, 200);
        assert_eq!(found.weight, Some(2));
        assert_eq!(
            found.body,
            json!({"service": {"namespace": "shop", "name": "web"}, "localEndpoints": 2, "serviceProxyHealthy": true})
        );
        let none = answer(&facts(0), Door::Service(32_000), "/any").unwrap();
        assert_eq!((none.code.as_u16(), none.weight), (503, Some(0)));
        assert_eq!(answer(&facts(2), Door::Service(32_001), "/"), None);
        let failing = Facts {
            failing_since: Instant::now().checked_sub(STALE),
            ..facts(2)
        };
        let ill = answer(&failing, Door::Service(32_000), "/").unwrap();
        assert_eq!(ill.code, 503);
        assert_eq!(ill.body["serviceProxyHealthy"], false);
    }

    #[test]
    fn p15_a_node_that_goes_is_not_healthy_but_lives() {
        let leaving = Facts {
            leaving: true,
            ..facts(1)
        };
        let asked =
            |facts: &Facts| ["/healthz", "/livez"].map(|path| code_at(facts, Door::Proxy, path));
        assert_eq!(asked(&facts(0)), [200, 200]);
        assert_eq!(asked(&leaving), [503, 200]);
        assert_eq!(
            asked(&Facts::default()),
            [503, 503],
            "nothing is programmed yet"
        );
        let body = answer(&leaving, Door::Proxy, "/healthz").unwrap().body;
        assert_eq!(body["nodeEligible"], false);
        assert_eq!(answer(&leaving, Door::Proxy, "/x"), None);
    }
}
