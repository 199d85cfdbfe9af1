//! Service objects.

use portolan_api::lean;

use super::{Problems, exact};
use crate::fact::{Affinity, Outer, Publication, Service, ServicePort, TrafficPolicy};
use crate::key::{Protocol, ServiceKey};
use crate::problem::Problem;

const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// The default of `sessionAffinityConfig.clientIP.timeoutSeconds` (S10).
const AFFINITY_SECONDS: u32 = 10_800;

/// A Service object as a fact.
pub fn service(object: &lean::Service) -> (Service, Vec<Problem>) {
    let mut problems = Problems::of("Service", &object.metadata);
    let spec = &object.spec;
    let publication = publication(spec, &mut problems);
    let cluster_ips = match publication {
        Publication::Headless | Publication::ExternalName(_) => Vec::new(),
        Publication::ClusterIp | Publication::NodePort | Publication::LoadBalancer => {
            let listed = spec.cluster_ips.iter().map(String::as_str);
            let single = Some(spec.cluster_ip.as_str()).filter(|_| spec.cluster_ips.is_empty());
            let texts = listed.chain(single).filter(|text| !text.is_empty());
            problems.addresses("spec.clusterIPs", texts)
        }
    };
    let ports = spec.ports.iter();
    let ports = exact(ports.filter_map(|port| service_port(port, &mut problems)));
    let fact = Service {
        key: ServiceKey::new(&object.metadata.namespace, &object.metadata.name),
        cluster_ips,
        ports,
        internal_policy: policy(
            spec.internal_traffic_policy.as_deref(),
            "spec.internalTrafficPolicy",
            &mut problems,
        ),
        external_policy: policy(
            spec.external_traffic_policy.as_deref(),
            "spec.externalTrafficPolicy",
            &mut problems,
        ),
        affinity: affinity(spec),
        other_proxy: object
            .metadata
            .labels
            .get(OTHER_PROXY)
            .map(|name| name.as_str().into()),
        outer: outer(object, &publication, &mut problems),
        spread: super::spread::of_service(&object.metadata, &mut problems),
        publication,
    };
    (fact, problems.found)
}

fn publication(spec: &lean::ServiceSpec, problems: &mut Problems) -> Publication {
    let headless =
        spec.cluster_ip == "None" || spec.cluster_ips.first().is_some_and(|ip| ip == "None");
    match spec.service_type.as_str() {
        "ExternalName" => {
            Publication::ExternalName(spec.external_name.trim_end_matches('.').into())
        }
        _ if headless => Publication::Headless,
        "NodePort" => Publication::NodePort,
        "LoadBalancer" => Publication::LoadBalancer,
        "" | "ClusterIP" => Publication::ClusterIp,
        other => {
            problems.add(
                "spec.type",
                format!("{other:?} is not a known type, taken as ClusterIP"),
            );
            Publication::ClusterIp
        }
    }
}

fn service_port(port: &lean::ServicePort, problems: &mut Problems) -> Option<ServicePort> {
    let Some(protocol) = Protocol::parse(&port.protocol) else {
        problems.add(
            "spec.ports[*].protocol",
            format!("{:?} is not a known protocol", port.protocol),
        );
        return None;
    };
    if port.port == 0 {
        problems.add("spec.ports[*].port", "0 is not a port".into());
        return None;
    }
    let node_port = port.node_port.filter(|number| *number > 0);
    Some(ServicePort {
        name: port.name.as_str().into(),
        protocol,
        port: port.port,
        node_port,
    })
}

fn policy(text: Option<&str>, field: &str, problems: &mut Problems) -> TrafficPolicy {
    match text {
        None | Some("" | "Cluster") => TrafficPolicy::Cluster,
        Some("Local") => TrafficPolicy::Local,
        Some(other) => {
            problems.add(
                field,
                format!("{other:?} is not a known policy, taken as Cluster"),
            );
            TrafficPolicy::Cluster
        }
    }
}

fn affinity(spec: &lean::ServiceSpec) -> Affinity {
    if spec.session_affinity != "ClientIP" {
        return Affinity::None;
    }
    let config = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref());
    Affinity::ClientIp {
        seconds: config
            .and_then(|config| config.timeout_seconds)
            .unwrap_or(AFFINITY_SECONDS),
    }
}

fn outer(
    object: &lean::Service,
    publication: &Publication,
    problems: &mut Problems,
) -> Option<Box<Outer>> {
    let spec = &object.spec;
    let external_ips = problems.addresses(
        "spec.externalIPs",
        spec.external_ips.iter().map(String::as_str),
    );
    let mut outer = Outer {
        external_ips,
        ..Outer::default()
    };
    if *publication == Publication::LoadBalancer {
        // An address in Proxy mode is the load balancer's own business (P10).
        let ingress = object.status.load_balancer.ingress.iter();
        let vips = ingress.filter(|ingress| {
            ingress.ip_mode.as_deref() != Some("Proxy") && !ingress.ip.is_empty()
        });
        outer.load_balancer_ips = problems.addresses(
            "status.loadBalancer.ingress",
            vips.map(|ingress| ingress.ip.as_str()),
        );
        outer.source_ranges = source_ranges(object, problems);
        let local = spec.external_traffic_policy.as_deref() == Some("Local");
        outer.health_check_port = spec
            .health_check_node_port
            .filter(|port| local && *port > 0);
    }
    (outer != Outer::default()).then(|| Box::new(outer))
}

/// The annotation counts only where the field is empty (S12).
fn source_ranges(object: &lean::Service, problems: &mut Problems) -> Vec<ipnet::IpNet> {
    let listed = &object.spec.load_balancer_source_ranges;
    if !listed.is_empty() {
        return problems.ranges(
            "spec.loadBalancerSourceRanges",
            listed.iter().map(String::as_str),
        );
    }
    let Some(text) = object.metadata.annotations.get(SOURCE_RANGES) else {
        return Vec::new();
    };
    problems.ranges(
        SOURCE_RANGES,
        text.split(',').filter(|text| !text.trim().is_empty()),
    )
}
