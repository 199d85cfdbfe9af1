//! Endpoints that somebody wrote, as EndpointSlices (E17).
//!
//! Only slices are read by data planes and DNS. So the Endpoints of a Service
//! without a selector, which no controller writes, are mirrored: one slice for
//! each set of ports and address family.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portolan_api::value::{list_at, str_at};
use portolan_model::Family;
use portolan_model::workloads::{
    Endpoints, Hints, ObjectKey, Service, Slice, SliceEndpoint, SlicePort, Target,
};
use serde_json::{Map, Value, json};

use super::{MANAGED_BY, SERVICE_NAME, TRIGGER_TIME, changes, endpoint_json, port_json};
use crate::endpoints::LEADER;
use crate::workloads::{About, Action, Kind, Step, Tell, Write, controller_reference};

/// The author that mirrored slices name.
pub const MIRRORING: &str = "endpointslicemirroring-controller.k8s.io";
/// The label by which Endpoints ask to be left alone.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Addresses that are mirrored of one subset.
const MAX_ADDRESSES: usize = 1000;

/// The endpoints of a slice, by address.
type Group = BTreeMap<String, SliceEndpoint>;

/// What brings the slices that mirror `endpoints` up to date.
pub fn mirror(
    endpoints: Option<&Endpoints>,
    service: Option<&Service>,
    existing: &[&Slice],
) -> Step {
    let mut step = Step::default();
    let mut spare: Vec<&Slice> = existing
        .iter()
        .copied()
        .filter(|s| !s.meta.deleting)
        .collect();
    if let Some(endpoints) = endpoints.filter(|endpoints| is_mirrored(endpoints, service)) {
        let mut wanted = Wanted::default();
        for subset in endpoints.subsets.as_array().into_iter().flatten() {
            wanted.add(subset);
        }
        for ((family, ports), group) in &wanted.groups {
            let alike = |s: &&Slice| s.family == Some(*family) && s.ports == *ports;
            // One with these ports, or one that would go.
            let found = spare
                .iter()
                .position(alike)
                .or_else(|| spare.iter().position(|s| s.family == Some(*family)));
            let slice = found.map(|i| spare.remove(i));
            let content = Content {
                endpoints,
                family: *family,
                ports,
                group,
            };
            step.writes.extend(content.write(slice));
        }
        if !step.writes.is_empty() {
            wanted.complain(endpoints, &mut step);
        }
    }
    step.writes.extend(spare.into_iter().map(super::delete));
    step
}

fn is_mirrored(endpoints: &Endpoints, service: Option<&Service>) -> bool {
    let meta = &endpoints.meta;
    !meta.deleting
        && meta.labels.get(SKIP).is_none_or(|skip| skip != "true")
        && !meta.annotations.contains_key(LEADER)
        && service.is_some_and(|service| service.selector.is_none())
}

/// What is to be mirrored, and what cannot be.
#[derive(Default)]
struct Wanted {
    groups: BTreeMap<(Family, Vec<SlicePort>), Group>,
    invalid: usize,
    surplus: usize,
}

impl Wanted {
    fn add(&mut self, subset: &Value) {
        let mut ports: Vec<SlicePort> =
            list_at(subset, "ports").iter().map(SlicePort::of).collect();
        ports.sort();
        let mut room = MAX_ADDRESSES;
        for (field, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            for address in list_at(subset, field) {
                let Ok(ip) = str_at(address, "ip").parse::<IpAddr>() else {
                    self.invalid += 1;
                    continue;
                };
                if room == 0 {
                    self.surplus += 1;
                    continue;
                }
                room -= 1;
                self.groups
                    .entry((Family::of(ip), ports.clone()))
                    .or_default()
                    .entry(ip.to_string())
                    .or_insert_with(|| endpoint(address, ip, ready));
            }
        }
    }

    fn complain(&self, endpoints: &Endpoints, step: &mut Step) {
        let mut tell = |reason, message| {
            step.tell.push(Tell {
                about: About::new(Kind::Endpoints, &endpoints.meta),
                warning: true,
                reason,
                message,
            });
        };
        if self.invalid > 0 {
            tell(
                "InvalidIPAddress",
                format!(
                    "Skipped {} invalid IP addresses when mirroring to EndpointSlices",
                    self.invalid
                ),
            );
        }
        if self.surplus > 0 {
            tell(
                "TooManyAddressesToMirror",
                format!(
                    "A max of {MAX_ADDRESSES} addresses can be mirrored to EndpointSlices per \
                     Endpoints subset. {} addresses were skipped",
                    self.surplus + self.invalid
                ),
            );
        }
    }
}

fn endpoint(address: &Value, ip: IpAddr, ready: bool) -> SliceEndpoint {
    SliceEndpoint {
        address: ip.to_string(),
        target: Target::of(&address["targetRef"]),
        ready,
        serving: ready,
        terminating: false,
        hostname: str_at(address, "hostname").to_owned(),
        node: str_at(address, "nodeName").to_owned(),
        zone: String::new(),
        hints: Hints::default(),
    }
}

/// What one slice is to hold.
struct Content<'a> {
    endpoints: &'a Endpoints,
    family: Family,
    ports: &'a [SlicePort],
    group: &'a Group,
}

impl Content<'_> {
    /// Creates the slice, or changes the one that is there where it differs.
    fn write(&self, slice: Option<&Slice>) -> Option<Write> {
        let key = &self.endpoints.meta.key;
        let (labels, notes) = (self.labels(), self.annotations());
        let endpoints: Vec<Value> = self.group.values().map(mirrored_json).collect();
        let ports: Vec<Value> = self.ports.iter().map(port_json).collect();
        let Some(slice) = slice else {
            let body = json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "generateName": format!("{}-", key.name),
                    "namespace": key.namespace,
                    "labels": labels,
                    "annotations": notes,
                    "ownerReferences": [controller_reference(Kind::Endpoints, &self.endpoints.meta)],
                },
                "addressType": self.family.to_string(),
                "endpoints": endpoints,
                "ports": ports,
            });
            let unnamed = ObjectKey::new(&key.namespace, "");
            return Some(Write::quiet(
                Kind::EndpointSlice,
                unnamed,
                Action::Create(body),
            ));
        };
        let mut known = slice.endpoints.clone();
        known.sort_by(|a, b| a.address.cmp(&b.address));
        let same = slice.ports == self.ports && known.iter().eq(self.group.values());
        let relabel: Map<String, Value> = changes(&slice.meta.labels, &labels);
        let renote: Map<String, Value> = changes(&slice.meta.annotations, &notes);
        if same && relabel.is_empty() && renote.is_empty() {
            return None;
        }
        let patch = json!({
            "metadata": {"uid": slice.meta.uid, "labels": relabel, "annotations": renote},
            "endpoints": endpoints,
            "ports": ports,
        });
        let key = slice.meta.key.clone();
        Some(Write::quiet(Kind::EndpointSlice, key, Action::Merge(patch)))
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let meta = &self.endpoints.meta;
        let mut labels = meta.labels.clone();
        labels.insert(SERVICE_NAME.to_owned(), meta.key.name.clone());
        labels.insert(MANAGED_BY.to_owned(), MIRRORING.to_owned());
        labels
    }

    /// All but what is about the Endpoints object itself. (What `kubectl
    /// apply` notes down is not among the facts.)
    fn annotations(&self) -> BTreeMap<String, String> {
        let mut notes = self.endpoints.meta.annotations.clone();
        notes.remove(TRIGGER_TIME);
        notes
    }
}

/// Of a hand-written endpoint only readiness is known.
fn mirrored_json(endpoint: &SliceEndpoint) -> Value {
    let mut body = endpoint_json(endpoint);
    body["conditions"] = json!({"ready": endpoint.ready});
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_model::workloads::Object;

    fn service(selector: Value) -> Service {
        Service::read(&json!({
            "metadata": {"name": "db", "namespace": "a"},
            "spec": {"clusterIP": "10.96.0.9", "selector": selector},
        }))
    }

    fn endpoints(more: &Value, subsets: Value) -> Endpoints {
        let mut object = json!({
            "metadata": {"name": "db", "namespace": "a", "uid": "e",
                "labels": {"team": "x"},
                "annotations": {
                    "note": "kept",
                    TRIGGER_TIME: "2026-01-01T00:00:00Z",
                    "kubectl.kubernetes.io/last-applied-configuration": "{}",
                }},
            "subsets": subsets,
        });
        for (field, value) in more.as_object().into_iter().flatten() {
            object["metadata"][field] = value.clone();
        }
        Endpoints::read(&object)
    }

    fn two_families() -> Value {
        json!([{
            "addresses": [
                {"ip": "192.0.2.7", "hostname": "one", "nodeName": "n1",
                    "targetRef": {"kind": "VirtualMachine", "name": "vm"}},
                {"ip": "2001:db8::7"},
            ],
            "notReadyAddresses": [{"ip": "192.0.2.8"}],
            "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
        }])
    }

    /// The objects that a step creates, as they are read back.
    fn created(step: &Step) -> Vec<Value> {
        step.writes
            .iter()
            .filter_map(|write| {
                let Action::Create(body) = &write.action else {
                    return None;
                };
                let mut body = body.clone();
                body["metadata"]["name"] = format!("db-{}", body["addressType"]).into();
                body["metadata"]["uid"] = body["metadata"]["name"].clone();
                Some(body)
            })
            .collect()
    }

    fn slices_of(endpoints: &Endpoints) -> (Vec<Value>, Vec<Slice>) {
        let bodies = created(&mirror(Some(endpoints), Some(&service(json!(null))), &[]));
        let slices = bodies.iter().map(Slice::read).collect();
        (bodies, slices)
    }

    #[test]
    fn e17_one_slice_for_each_family_and_set_of_ports() {
        let (bodies, _) = slices_of(&endpoints(&json!({}), two_families()));
        assert_eq!(bodies.len(), 2);
        let v4 = &bodies[0];
        assert_eq!(v4["addressType"], "IPv4");
        assert_eq!(
            v4["endpoints"],
            json!([
                {"addresses": ["192.0.2.7"], "conditions": {"ready": true}, "hostname": "one",
                    "nodeName": "n1", "targetRef": {"kind": "VirtualMachine", "name": "vm"}},
                {"addresses": ["192.0.2.8"], "conditions": {"ready": false}},
            ])
        );
        assert_eq!(
            v4["ports"],
            json!([{"name": "sql", "port": 5432, "protocol": "TCP"}])
        );
        assert_eq!(
            v4["metadata"]["labels"],
            json!({"team": "x", SERVICE_NAME: "db", MANAGED_BY: MIRRORING})
        );
        assert_eq!(v4["metadata"]["annotations"], json!({"note": "kept"}));
        let owner = &v4["metadata"]["ownerReferences"][0];
        assert_eq!(
            (&owner["kind"], &owner["uid"]),
            (&json!("Endpoints"), &json!("e"))
        );
        assert_eq!(v4["metadata"]["generateName"], "db-");
        assert_eq!(
            bodies[1]["endpoints"][0]["addresses"],
            json!(["2001:db8::7"])
        );
    }

    #[test]
    fn e17_what_was_written_is_not_written_again() {
        let wanted = endpoints(&json!({}), two_families());
        let (_, slices) = slices_of(&wanted);
        let slices: Vec<&Slice> = slices.iter().collect();
        let step = mirror(Some(&wanted), Some(&service(json!(null))), &slices);
        assert_eq!(step, Step::default());
    }

    #[test]
    fn e17_a_change_updates_the_slice_and_a_lost_family_loses_its_own() {
        let (_, slices) = slices_of(&endpoints(&json!({}), two_families()));
        let slices: Vec<&Slice> = slices.iter().collect();
        let changed = endpoints(
            &json!({"labels": {"team": "y"}}),
            json!([{"addresses": [{"ip": "192.0.2.9"}],
                "ports": [{"name": "sql", "port": 5433, "protocol": "TCP"}]}]),
        );
        let step = mirror(Some(&changed), Some(&service(json!(null))), &slices);
        let [update, delete] = &step.writes[..] else {
            panic!("{step:?}");
        };
        let Action::Merge(patch) = &update.action else {
            panic!("{update:?}");
        };
        assert_eq!(
            patch["ports"][0]["port"], 5433,
            "reused rather than made anew"
        );
        assert_eq!(patch["metadata"]["labels"], json!({"team": "y"}));
        assert!(matches!(&delete.action, Action::Delete { uid, .. } if uid.contains("IPv6")));
    }

    #[test]
    fn e17_who_is_not_mirrored() {
        let (_, slices) = slices_of(&endpoints(&json!({}), two_families()));
        let slices: Vec<&Slice> = slices.iter().collect();
        let alone = service(json!(null));
        let selecting = service(json!({"app": "db"}));
        let with = |more: Value| endpoints(&more, two_families());
        let cases: [(&str, Option<Endpoints>, Option<&Service>); 6] = [
            ("no Endpoints", None, Some(&alone)),
            ("no Service", Some(with(json!({}))), None),
            ("a selector", Some(with(json!({}))), Some(&selecting)),
            (
                "skip-mirror",
                Some(with(json!({"labels": {SKIP: "true"}}))),
                Some(&alone),
            ),
            (
                "leader election",
                Some(with(json!({"annotations": {LEADER: "{}"}}))),
                Some(&alone),
            ),
            (
                "being deleted",
                Some(with(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}))),
                Some(&alone),
            ),
        ];
        for (case, endpoints, service) in cases {
            let step = mirror(endpoints.as_ref(), service, &slices);
            assert!(
                step.writes.len() == 2
                    && step
                        .writes
                        .iter()
                        .all(|w| matches!(w.action, Action::Delete { .. })),
                "{case}: {step:?}"
            );
        }
    }

    #[test]
    fn e17_a_thousand_addresses_are_mirrored_and_the_rest_is_told() {
        let addresses: Vec<Value> = (0..1005)
            .map(|i| json!({"ip": format!("10.9.{}.{}", i / 250, i % 250)}))
            .chain([json!({"ip": "nonsense"})])
            .collect();
        let many = endpoints(&json!({}), json!([{"addresses": addresses}]));
        let step = mirror(Some(&many), Some(&service(json!(null))), &[]);
        let body = created(&step).remove(0);
        assert_eq!(body["endpoints"].as_array().map(Vec::len), Some(1000));
        let told: Vec<(&str, &str)> = step
            .tell
            .iter()
            .map(|t| (t.reason, t.message.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                (
                    "InvalidIPAddress",
                    "Skipped 1 invalid IP addresses when mirroring to EndpointSlices"
                ),
                (
                    "TooManyAddressesToMirror",
                    "A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints \
                     subset. 6 addresses were skipped"
                ),
            ]
        );
    }
}
