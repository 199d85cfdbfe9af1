//! What every cluster has from its first moment: namespaces, and the Services
//! of the API server and of DNS (case C18).

use std::net::{IpAddr, SocketAddr};

use portolan_api::value::{at, set, strings_at};
use portolan_api::{Status, meta};
use portolan_plan::allocate::AddressRange;
use serde_json::{Value, json};

use crate::OpenError;
use crate::context::{Context, Resource};
use crate::rest::{create_object, default_objects};
use crate::store::{Change, Condition, Write, WriteError};

const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Make what is missing, and correct what depends on the configuration.
pub(crate) async fn ensure(context: &Context) -> Result<(), OpenError> {
    for namespace in NAMESPACES {
        let object = json!({"metadata": {"name": namespace}});
        make(context, "Namespace", object).await?;
        for (resource, object) in default_objects(context, namespace) {
            ensure_object(context, &resource, object).await?;
        }
    }
    definitions(context).await?;
    kubernetes(context).await?;
    dns(context).await
}

/// The kinds that whoever runs the server brings along.
async fn definitions(context: &Context) -> Result<(), OpenError> {
    let Some(resource) =
        context.resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
    else {
        return Ok(());
    };
    for definition in &context.config.definitions {
        let key = resource.key("", meta::name(definition));
        let stored = context.store.get(&key);
        // Somebody may have a definition of the same kind from elsewhere.
        if stored.is_none_or(|stored| owner(&stored.value()) == owner(definition)) {
            ensure_object(context, &resource, definition.clone()).await?;
        }
    }
    Ok(())
}

/// Which application a definition says that it belongs to.
fn owner(definition: &Value) -> Option<&str> {
    let labels = definition.pointer("/metadata/labels");
    labels?.get("app.kubernetes.io/name")?.as_str()
}

/// default/kubernetes at the first address (A4), with this server as endpoint.
async fn kubernetes(context: &Context) -> Result<(), OpenError> {
    let Some(first) = context
        .config
        .service_cidrs
        .first()
        .and_then(|net| AddressRange::new(*net).nth(1))
    else {
        return Ok(());
    };
    let advertise: Vec<SocketAddr> = context
        .config
        .advertise
        .iter()
        .filter(|address| address.is_ipv4() == first.is_ipv4())
        .copied()
        .collect();
    let port = advertise.first().map_or(6443, SocketAddr::port);
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": first.to_string(),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
            "sessionAffinity": "None",
        },
    });
    make_at(context, service, &[first]).await?;
    let addresses: Vec<String> = advertise
        .iter()
        .map(|address| address.ip().to_string())
        .collect();
    endpoints(context, &addresses, port).await?;
    slice(context, &addresses, first, port).await
}

async fn endpoints(context: &Context, addresses: &[String], port: u16) -> Result<(), OpenError> {
    let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let subset = (!ips.is_empty()).then(|| json!({"addresses": ips, "ports": ports}));
    let object = json!({
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": subset.into_iter().collect::<Vec<_>>(),
    });
    make(context, "Endpoints", object).await
}

async fn slice(
    context: &Context,
    addresses: &[String],
    first: IpAddr,
    port: u16,
) -> Result<(), OpenError> {
    let Some(resource) = context.resource("discovery.k8s.io", "v1", "endpointslices") else {
        return Ok(());
    };
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}}))
        .collect();
    let object = json!({
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": if first.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": endpoints,
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    ensure_object(context, &resource, object).await
}

/// kube-system/kube-dns at the addresses that pods' resolv.conf names.
async fn dns(context: &Context) -> Result<(), OpenError> {
    let addresses = &context.config.dns_ips;
    if addresses.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    let families: Vec<&str> = addresses
        .iter()
        .map(|address| if address.is_ipv4() { "IPv4" } else { "IPv6" })
        .collect();
    let policy = if addresses.len() > 1 {
        "RequireDualStack"
    } else {
        "SingleStack"
    };
    let service = json!({
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
            },
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": texts.first(),
            "clusterIPs": texts,
            "ipFamilies": families,
            "ipFamilyPolicy": policy,
            "selector": {"k8s-app": "kube-dns"},
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
                {"name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153},
            ],
        },
    });
    make_at(context, service, addresses).await
}

/// A Service that must have these addresses: one that has others is replaced.
async fn make_at(context: &Context, service: Value, addresses: &[IpAddr]) -> Result<(), OpenError> {
    let Some(resource) = context.core("Service") else {
        return Ok(());
    };
    let key = resource.key(meta::namespace(&service), meta::name(&service));
    if let Some(stored) = context.store.get(&key) {
        let found = stored.value();
        let held: Vec<IpAddr> = strings_at(&found, "spec.clusterIPs")
            .into_iter()
            .filter_map(|text| text.parse().ok())
            .collect();
        if held != addresses {
            let mut writes = vec![Write {
                key,
                condition: Condition::Revision(stored.revision),
                change: Change::Delete,
                namespace: None,
            }];
            writes.extend(context.allocator.companions(None, Some(&found), ""));
            context
                .store
                .transact(writes, None)
                .await
                .map_err(|error| refused(&service, error.to_string()))?;
        }
    }
    ensure_object(context, &resource, service).await
}

async fn make(context: &Context, kind: &str, object: Value) -> Result<(), OpenError> {
    match context.core(kind) {
        Some(resource) => ensure_object(context, &resource, object).await,
        None => Ok(()),
    }
}

/// Parts of an object that follow from the configuration.
const OWNED: &[&str] = &[
    "spec.ports",
    "spec.versions",
    "subsets",
    "endpoints",
    "ports",
    "data",
];

async fn ensure_object(
    context: &Context,
    resource: &Resource,
    mut object: Value,
) -> Result<(), OpenError> {
    resource.kind.stamp(&mut object);
    let key = resource.key(meta::namespace(&object), meta::name(&object));
    let Some(stored) = context.store.get(&key) else {
        let made = create_object(context, resource, object.clone(), false).await;
        return match made {
            Ok(_) => Ok(()),
            Err(failure) if failure.reason == "AlreadyExists" => Ok(()),
            Err(failure) => Err(refused(&object, Status::to_string(&failure))),
        };
    };
    let mut wanted = stored.value();
    resource.kind.default(&mut object);
    for path in OWNED {
        let owned = at(&object, path);
        if !owned.is_null() {
            set(&mut wanted, path, owned.clone());
        }
    }
    if wanted == stored.value() {
        return Ok(());
    }
    match context.store.replace(key, wanted, stored.revision).await {
        Ok(_) | Err(WriteError::Conflict) => Ok(()),
        Err(error) => Err(refused(&object, error.to_string())),
    }
}

fn refused(object: &Value, why: String) -> OpenError {
    OpenError::Bootstrap {
        what: format!("{}/{}", meta::namespace(object), meta::name(object)),
        why,
    }
}
