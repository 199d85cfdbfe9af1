//! `portolan expose`: a Service in front of something that has pods.
//!
//! What is not given comes from the object: its selector, its labels, and the
//! ports that its containers declare.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::{make, manifests};
use crate::cli::ExposeArgs;
use crate::connect::{Call, Session};
use crate::resources::{Resource, Resources};

/// A Service is named in DNS: RFC 1035 allows this many letters.
const LONGEST_NAME: usize = 63;

/// Runs the verb.
pub(crate) async fn run(args: ExposeArgs) -> Result<()> {
    let session = Session::open(&args.connection).await?;
    let resources = Resources::discover(&session).await?;
    let mut targets = resources.parse(&args.resources)?;
    for object in manifests::read_if_any(&args.filename)? {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        targets.push((
            resources.of_manifest(&object)?.clone(),
            Some(name.to_owned()),
        ));
    }
    for (resource, name) in targets {
        let Some(name) = name else {
            bail!("error: resource(s) were provided, but no name was specified");
        };
        exposable(&resource)?;
        let path = resource.path(Some(&session.namespace), Some(&name));
        let object = session.call(&Call::get(&path)).await?.body;
        let service = service(&args, &resource.kind, &object)?;
        let path = format!("/api/v1/namespaces/{}/services", session.namespace);
        make::create(&session, &path, &service, args.dry_run, "exposed").await?;
    }
    Ok(())
}

fn exposable(resource: &Resource) -> Result<()> {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod" | "Service") | ("apps", "Deployment" | "ReplicaSet" | "StatefulSet") => Ok(()),
        ("", kind) => bail!("error: cannot expose a {kind}"),
        (group, kind) => bail!("error: cannot expose a {kind}.{group}"),
    }
}

/// The Service that the flags and the object describe.
fn service(args: &ExposeArgs, kind: &str, object: &Value) -> Result<Value> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let name: String = match &args.name {
        Some(name) => name.clone(),
        None => name.chars().take(LONGEST_NAME).collect(),
    };
    let mut metadata = json!({"name": name});
    let labels = match &args.labels {
        Some(text) => make::pairs(text)?,
        None => object["metadata"]["labels"].clone(),
    };
    if labels.as_object().is_some_and(|l| !l.is_empty()) {
        metadata["labels"] = labels;
    }
    let mut spec = json!({
        "selector": selector(args, kind, object)?,
        "ports": ports(args, kind, object)?,
    });
    for (field, given) in [
        ("type", &args.service_type),
        ("clusterIP", &args.cluster_ip),
        ("loadBalancerIP", &args.load_balancer_ip),
        ("sessionAffinity", &args.session_affinity),
    ] {
        if let Some(value) = given {
            spec[field] = json!(value);
        }
    }
    if let Some(ip) = &args.external_ip {
        spec["externalIPs"] = json!([ip]);
    }
    Ok(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}))
}

fn selector(args: &ExposeArgs, kind: &str, object: &Value) -> Result<Value> {
    if let Some(text) = &args.selector {
        return make::pairs(text);
    }
    let of = &object["spec"]["selector"];
    let (labels, none) = match kind {
        "Pod" => (
            &object["metadata"]["labels"],
            "the pod has no labels and cannot be exposed",
        ),
        "Service" => (of, "the service has no pod selector set"),
        _ => {
            if of["matchExpressions"]
                .as_array()
                .is_some_and(|e| !e.is_empty())
            {
                bail!(
                    "error: couldn't retrieve selectors via --selector flag or introspection: \
                     a Service cannot have the expressions of this selector; give --selector"
                );
            }
            (
                &of["matchLabels"],
                "invalid deployment: no selectors, therefore cannot be exposed",
            )
        }
    };
    if labels.as_object().is_none_or(serde_json::Map::is_empty) {
        bail!("error: couldn't retrieve selectors via --selector flag or introspection: {none}");
    }
    Ok(labels.clone())
}

/// A port of the object: number and protocol.
fn declared(kind: &str, object: &Value) -> Vec<(u64, String)> {
    let spec = match kind {
        "Pod" | "Service" => &object["spec"],
        _ => &object["spec"]["template"]["spec"],
    };
    let (lists, number) = if kind == "Service" {
        (vec![&spec["ports"]], "port")
    } else {
        let containers = spec["containers"].as_array().into_iter().flatten();
        (containers.map(|c| &c["ports"]).collect(), "containerPort")
    };
    let ports = lists.into_iter().filter_map(Value::as_array).flatten();
    ports
        .filter_map(|p| {
            let protocol = p["protocol"].as_str().unwrap_or("TCP");
            Some((p[number].as_u64()?, protocol.to_owned()))
        })
        .collect()
}

fn ports(args: &ExposeArgs, kind: &str, object: &Value) -> Result<Value> {
    let declared = declared(kind, object);
    let protocol_of = |port: u64| {
        let found = declared.iter().find(|(number, _)| *number == port);
        found
            .map_or("TCP", |(_, protocol)| protocol.as_str())
            .to_owned()
    };
    let wanted: Vec<(u64, String)> = if args.port.is_empty() {
        declared.clone()
    } else {
        let given = args.port.iter().map(|p| u64::from(*p));
        given.map(|p| (p, protocol_of(p))).collect()
    };
    if wanted.is_empty() {
        bail!("error: couldn't find port via --port flag or introspection");
    }
    let several = wanted.len() > 1;
    let ports = wanted.into_iter().enumerate().map(|(i, (port, protocol))| {
        let target = match &args.target_port {
            None => json!(port),
            Some(text) => text
                .parse::<u16>()
                .map_or_else(|_name| json!(text), |n| json!(n)),
        };
        let protocol = args.protocol.clone().unwrap_or(protocol);
        let mut made = json!({"port": port, "protocol": protocol, "targetPort": target});
        if several {
            made["name"] = json!(format!("port-{}", i + 1));
        }
        made
    });
    Ok(ports.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn exposed(words: &str, kind: &str, object: &Value) -> Result<Value> {
        let words = ["portolan", "expose"]
            .into_iter()
            .chain(words.split_whitespace());
        let Command::Expose(args) = Cli::parse_from(words).command else {
            panic!("another verb");
        };
        service(&args, kind, object)
    }

    fn deployment() -> Value {
        json!({"metadata": {"name": "web", "labels": {"app": "web"}}, "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"spec": {"containers": [{"ports": [
                {"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]}]}}}})
    }

    #[test]
    fn c14_ports_come_from_the_containers() {
        let made = exposed("deployment web", "Deployment", &deployment()).unwrap();
        assert_eq!(
            made["spec"]["ports"],
            json!([
                {"name": "port-1", "port": 80, "protocol": "TCP", "targetPort": 80},
                {"name": "port-2", "port": 53, "protocol": "UDP", "targetPort": 53}])
        );
        assert_eq!(made["spec"]["selector"], json!({"app": "web"}));
        assert_eq!(
            made["metadata"],
            json!({"name": "web", "labels": {"app": "web"}})
        );
    }

    #[test]
    fn c14_flags_win() {
        let words = "deployment web --name x --port 8080 --target-port http --type NodePort --cluster-ip None --selector a=b";
        let made = exposed(words, "Deployment", &deployment()).unwrap();
        assert_eq!(
            made["spec"],
            json!({"selector": {"a": "b"}, "type": "NodePort", "clusterIP": "None",
                "ports": [{"port": 8080, "protocol": "TCP", "targetPort": "http"}]})
        );
        assert_eq!(made["metadata"]["name"], "x");
    }

    #[test]
    fn c14_what_cannot_be_exposed_says_why() {
        let says =
            |kind: &str, object: Value| exposed("pod p", kind, &object).unwrap_err().to_string();
        let bare = json!({"metadata": {"name": "p"}, "spec": {"containers": [{}]}});
        assert!(says("Pod", bare).contains("the pod has no labels"));
        let silent =
            json!({"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {"containers": [{}]}});
        assert_eq!(
            says("Pod", silent),
            "error: couldn't find port via --port flag or introspection"
        );
    }
}
