//! The lines of `node`, `given` and `then` sections.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use portolan_model::{Algorithm, Change, Fact, Key, PodKey, ServiceKey, SliceKey};
use portolan_plan::{Detector, LinkName, NodePortAddresses, NodePorts, NodeView, PodNames};
use serde_json::{Value, json};

use crate::build;

/// Reads lines and remembers what later lines refer to.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) view: NodeView,
    /// The target ports of each Service: what a slice has if it does not say.
    targets: BTreeMap<String, Value>,
    /// Facts about the node itself come first.
    first: Vec<Change>,
}

impl Default for Reader {
    /// The lab's address plan.
    fn default() -> Self {
        let ranges = |texts: [&str; 2]| texts.iter().filter_map(|text| text.parse().ok()).collect();
        let dns = ["10.96.0.10", "fd00:10:96::a"];
        let view = NodeView {
            node: "node-1".into(),
            cluster_pod_cidrs: ranges(["10.244.0.0/16", "fd00:10:244::/48"]),
            service_cidrs: ranges(["10.96.0.0/16", "fd00:10:96::/112"]),
            dns_addresses: dns.iter().filter_map(|text| text.parse().ok()).collect(),
            ..NodeView::default()
        };
        Self {
            view,
            targets: BTreeMap::new(),
            first: Vec::new(),
        }
    }
}

impl Reader {
    /// `node-1 zone=a addresses=… pods=… detector=none masquerade-all pod-names=verified zonal ttl=30`.
    pub(super) fn node(&mut self, body: &str) -> Result<()> {
        let mut words = body.split_whitespace();
        self.view.node = words.next().context("no node name")?.into();
        let mut node = Words::default();
        for word in words {
            match word.split_once('=') {
                Some(("detector", how)) => self.detector(how)?,
                Some(("nodeports", "local")) => {
                    self.view.node_ports = NodePorts::both(NodePortAddresses::AnyLocal);
                }
                Some(("externalIPs", "off")) => self.view.external_ips = false,
                Some(("lb", name)) => self.view.algorithm = Algorithm::parse(name)?,
                Some(("pod-names", mode)) => self.view.pod_names = pod_names(mode)?,
                Some(("ttl", seconds)) => self.view.dns_ttl = seconds.parse()?,
                Some(("dns", "none")) => self.view.dns_addresses.clear(),
                Some((key, value)) => node.put(key, value),
                None if word == "zonal" => self.view.zonal_names = true,
                None if word == "masquerade-all" => self.view.masquerade_all = true,
                None => bail!("what is {word:?}?"),
            }
        }
        node.otherwise("addresses", "172.18.0.2,fd00:172:18::2");
        let name = self.view.node.to_string();
        self.first
            .push(Change::Upsert(node_fact(&name, &mut node)?));
        node.finish()
    }

    /// `none`, `node`, `bridge:cni0` or `prefix:veth`.
    fn detector(&mut self, how: &str) -> Result<()> {
        let link = |name| LinkName::new(name).context("no link's name");
        let (kind, name) = how.split_once(':').unwrap_or((how, ""));
        self.view.detector = match kind {
            "none" => {
                self.view.cluster_pod_cidrs.clear();
                Detector::ClusterCidr
            }
            "node" => Detector::NodeCidr,
            "bridge" => Detector::Bridge(link(name)?),
            "prefix" => Detector::Prefix(link(name)?),
            other => bail!("what is {other:?}?"),
        };
        Ok(())
    }

    /// One round of changes.
    pub(super) fn round(&mut self, body: &str) -> Result<Vec<Change>> {
        let mut changes = std::mem::take(&mut self.first);
        for line in body.lines().filter(|line| !line.trim().is_empty()) {
            changes.push(self.line(line).with_context(|| line.to_owned())?);
        }
        Ok(changes)
    }

    fn line(&mut self, line: &str) -> Result<Change> {
        let mut words = line.split_whitespace();
        let (kind, name) = (
            words.next().context("empty")?,
            words.next().context("no name")?,
        );
        let words: Vec<_> = words.collect();
        let fact = match kind {
            "service" => self.service(name, &words)?,
            "slice" => self.slice(name, &words)?,
            "node" => {
                let mut node = Words::default();
                words
                    .iter()
                    .filter_map(|word| word.split_once('='))
                    .for_each(|(key, value)| node.put(key, value));
                node_fact(name, &mut node)?
            }
            "namespace" => build::namespace(name)?,
            "servicecidr" => {
                let ranges: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
                build::good(build::service_cidr(name, &ranges)?)?
            }
            "pod" => build::good(build::pod(name, &words)?)?,
            "delete" => {
                return Ok(Change::Delete(key(
                    name,
                    words.first().context("no name")?,
                )?));
            }
            other => bail!("what is {other:?}?"),
        };
        Ok(Change::Upsert(fact))
    }

    /// `ClusterIP=10.96.0.20,fd00:10:96::20 type=NodePort http=80:30080→8080/tcp …`,
    /// with `lb=maglev` and `weights=web-blue=9,web-green=1` for the annotations.
    fn service(&mut self, name: &str, words: &[&str]) -> Result<Fact> {
        let (namespace, service) = split(name)?;
        let (mut ports, mut targets, mut fields) = (Vec::new(), Vec::new(), Words::default());
        for word in words {
            match word.split_once('→') {
                Some((front, back)) => {
                    let (port, target) = port(front, back)?;
                    ports.push(port);
                    targets.push(target);
                }
                None => {
                    let (key, value) = word
                        .split_once('=')
                        .with_context(|| format!("what is {word:?}?"))?;
                    fields.put(key, value);
                }
            }
        }
        self.targets.insert(name.into(), targets.into());
        let ips = fields.list("ClusterIP");
        let seconds = fields.take("affinity").map(|text| text.parse::<u32>());
        let seconds = seconds.transpose()?;
        let label = fields
            .take("proxy")
            .map(|proxy| json!({"service.kubernetes.io/service-proxy-name": proxy}));
        let notes = [("lb", "lb-algorithm"), ("weights", "weights")]
            .into_iter()
            .filter_map(|(word, note)| Some((annotation(note), fields.take(word)?.into())));
        let notes: serde_json::Map<String, Value> = notes.collect();
        let object = json!({
            "metadata": {"name": service, "namespace": namespace, "labels": label, "annotations": notes},
            "spec": {
                "type": fields.take("type").unwrap_or_else(|| "ClusterIP".into()),
                "clusterIP": ips.first().cloned().unwrap_or_default(),
                "clusterIPs": ips,
                "ports": ports,
                "externalName": fields.take("externalName").unwrap_or_default(),
                "internalTrafficPolicy": fields.take("internalTrafficPolicy"),
                "externalTrafficPolicy": fields.take("externalTrafficPolicy"),
                "sessionAffinity": if seconds.is_some() { "ClientIP" } else { "None" },
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}},
                "externalIPs": fields.list("externalIPs"),
                "loadBalancerSourceRanges": fields.list("sources"),
            },
            "status": {"loadBalancer": {"ingress": ingress(&fields.list("ingress"))}},
        });
        fields.finish()?;
        build::good(build::service(&object)?)
    }

    /// `10.244.1.7@node-1 ready zone=a hostname=web-0 … 10.244.2.7@node-2 unready`,
    /// with `labels=headless`, `weight=3` and `ports=http=8080/tcp` for the slice. The name
    /// is the Service's, with `#2` for a second slice.
    fn slice(&mut self, name: &str, words: &[&str]) -> Result<Fact> {
        let service_name = name.split_once('#').map_or(name, |(service, _)| service);
        let (namespace, service) = split(service_name)?;
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut ports = self
            .targets
            .get(service_name)
            .cloned()
            .unwrap_or_else(|| json!([]));
        let mut labels = json!({"kubernetes.io/service-name": service});
        let mut notes = json!({});
        for word in words {
            if let Some(list) = word.strip_prefix("ports=") {
                ports = slice_ports(list)?;
            } else if let Some(weight) = word.strip_prefix("weight=") {
                notes = json!({annotation("weight"): weight});
            } else if *word == "labels=headless" {
                labels["service.kubernetes.io/headless"] = "".into();
            } else if let Some(endpoint) = Endpoint::start(word) {
                endpoints.push(endpoint);
            } else {
                endpoints
                    .last_mut()
                    .context("no endpoint yet")?
                    .word(word)?;
            }
        }
        let v6 = endpoints
            .first()
            .is_some_and(|endpoint| endpoint.address.is_ipv6());
        let object = json!({
            "metadata": {"name": split(name)?.1, "namespace": namespace, "labels": labels, "annotations": notes},
            "addressType": if v6 { "IPv6" } else { "IPv4" },
            "ports": ports,
            "endpoints": endpoints.into_iter().map(|endpoint| endpoint.object).collect::<Vec<_>>(),
        });
        let (fact, problems) = build::slice(&object)?;
        ensure!(problems.is_empty(), "{problems:?}");
        fact.context("no fact")
    }
}

fn annotation(name: &str) -> String {
    format!("{}/{name}", portolan_api::GROUP)
}

/// `203.0.113.9`, or `203.0.113.9/Proxy` with a mode.
fn ingress(list: &[String]) -> Value {
    let one = |text: &String| match text.split_once('/') {
        Some((ip, mode)) => json!({"ip": ip, "ipMode": mode}),
        None => json!({"ip": text}),
    };
    list.iter().map(one).collect()
}

struct Endpoint {
    address: IpAddr,
    object: Value,
}

impl Endpoint {
    /// `10.244.1.7@node-1`, or without a node.
    fn start(word: &str) -> Option<Self> {
        let (address, node) = match word.split_once('@') {
            Some((address, node)) => (address, Some(node)),
            None => (word, None),
        };
        let address = address.parse().ok()?;
        let object = json!({"addresses": [address], "nodeName": node, "conditions": {}});
        Some(Self { address, object })
    }

    fn word(&mut self, word: &str) -> Result<()> {
        let conditions = |ready: bool, serving: bool, terminating: bool| json!({"ready": ready, "serving": serving, "terminating": terminating});
        let object = &mut self.object;
        match word.split_once('=') {
            None => {
                object["conditions"] = match word {
                    "ready" => conditions(true, true, false),
                    "unready" => conditions(false, false, false),
                    "terminating" => conditions(false, true, true),
                    "gone" => conditions(false, false, true),
                    "ready-terminating" => conditions(true, true, true),
                    other => bail!("what is {other:?}?"),
                };
            }
            Some(("pod", name)) => object["targetRef"] = json!({"kind": "Pod", "name": name}),
            Some(("zone", zone)) => object["zone"] = zone.into(),
            Some(("hostname", name)) => object["hostname"] = name.into(),
            Some(("forZones", zones)) => object["hints"]["forZones"] = named(zones),
            Some(("forNodes", nodes)) => object["hints"]["forNodes"] = named(nodes),
            Some((key, _)) => bail!("what is {key:?}?"),
        }
        Ok(())
    }
}

fn named(list: &str) -> Value {
    list.split(',').map(|name| json!({"name": name})).collect()
}

/// `http=80:30080` and `8080/tcp`: a Service port and what slices have for it.
fn port(front: &str, back: &str) -> Result<(Value, Value)> {
    let (name, numbers) = front.split_once('=').unwrap_or(("", front));
    let (number, node_port) = match numbers.split_once(':') {
        Some((number, node_port)) => (number, Some(node_port.parse::<u16>()?)),
        None => (numbers, None),
    };
    let (target, protocol) = back.split_once('/').context("no protocol")?;
    let (number, target): (u16, u16) = (number.parse()?, target.parse()?);
    let protocol = protocol.to_uppercase();
    Ok((
        json!({"name": name, "port": number, "protocol": protocol, "nodePort": node_port, "targetPort": target}),
        json!({"name": name, "port": target, "protocol": protocol}),
    ))
}

/// `http=8080/tcp,dns=53/udp`.
fn slice_ports(list: &str) -> Result<Value> {
    let one = |text: &str| {
        let (name, rest) = text.split_once('=').unwrap_or(("", text));
        let (number, protocol) = rest.split_once('/').context("no protocol")?;
        let (number, protocol): (u16, _) = (number.parse()?, protocol.to_uppercase());
        Ok(json!({"name": name, "port": number, "protocol": protocol}))
    };
    Ok(list.split(',').map(one).collect::<Result<Vec<_>>>()?.into())
}

fn node_fact(name: &str, words: &mut Words) -> Result<Fact> {
    let addresses = words.list("addresses").into_iter();
    let zone = words
        .take("zone")
        .map(|zone| json!({"topology.kubernetes.io/zone": zone}));
    build::good(build::node(&json!({
        "metadata": {"name": name, "labels": zone},
        "spec": {"podCIDRs": words.list("pods")},
        "status": {
            "addresses": addresses.map(|ip| json!({"type": "InternalIP", "address": ip})).collect::<Vec<_>>(),
        },
    }))?)
}

fn pod_names(mode: &str) -> Result<PodNames> {
    Ok(match mode {
        "disabled" => PodNames::Disabled,
        "insecure" => PodNames::Insecure,
        "verified" => PodNames::Verified,
        other => bail!("what is {other:?}?"),
    })
}

fn key(kind: &str, name: &str) -> Result<Key> {
    Ok(match kind {
        "service" => {
            split(name).map(|(namespace, name)| Key::Service(ServiceKey::new(namespace, name)))?
        }
        "slice" => {
            split(name).map(|(namespace, name)| Key::Slice(SliceKey::new(namespace, name)))?
        }
        "node" => Key::Node(name.into()),
        "namespace" => Key::Namespace(name.into()),
        "servicecidr" => Key::ServiceCidr(name.into()),
        "pod" => split(name).map(|(namespace, name)| Key::Pod(PodKey::new(namespace, name)))?,
        other => bail!("what is {other:?}?"),
    })
}

fn split(name: &str) -> Result<(&str, &str)> {
    name.split_once('/')
        .context("names are written namespace/name")
}

/// `key=value` words, each of which must be used.
#[derive(Default)]
struct Words {
    by_key: BTreeMap<String, String>,
}

impl Words {
    fn put(&mut self, key: &str, value: &str) {
        self.by_key.insert(key.into(), value.into());
    }

    fn otherwise(&mut self, key: &str, value: &str) {
        self.by_key
            .entry(key.into())
            .or_insert_with(|| value.into());
    }

    fn take(&mut self, key: &str) -> Option<String> {
        self.by_key.remove(key)
    }

    fn list(&mut self, key: &str) -> Vec<String> {
        self.take(key)
            .map(|list| list.split(',').map(String::from).collect())
            .unwrap_or_default()
    }

    fn finish(self) -> Result<()> {
        ensure!(self.by_key.is_empty(), "what is {:?}?", self.by_key);
        Ok(())
    }
}
