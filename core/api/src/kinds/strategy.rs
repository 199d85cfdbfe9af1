//! What every write does to an object, around what its kind does.
//!
//! The order in the server is: decode, [`crate::fields`], the kind's
//! `defaults`, `prepare_*`, allocation, `validate_*`, store.

use super::{Generation, Kind, Write};
use crate::cause::Cause;
use crate::validate;
use crate::value::{at, copy, remove};
use crate::{meta, value};
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Metadata that only the server writes: an update keeps the old values.
const SYSTEM_FIELDS: &[&str] = &[
    "metadata.uid",
    "metadata.creationTimestamp",
    "metadata.deletionTimestamp",
    "metadata.deletionGracePeriodSeconds",
    "metadata.selfLink",
    "metadata.generation",
];

impl Kind {
    /// Makes a client's object ready to be stored as new: system metadata and
    /// status are cleared. The server sets uid, creationTimestamp and
    /// resourceVersion.
    pub fn prepare_create(&self, object: &mut Value) {
        for path in SYSTEM_FIELDS {
            drop(remove(object, path));
        }
        self.stamp(object);
        if self.generation != Generation::None {
            meta::set_generation(object, 1);
        }
        if self.custom.is_some() && self.has_status() {
            drop(remove(object, "status"));
        }
        (self.prepare)(object, None, Write::Create);
    }

    /// Makes an update of the object itself ready: what this write may not
    /// change is taken from the old object.
    pub fn prepare_update(&self, object: &mut Value, old: &Value) {
        self.keep_system_fields(object, old);
        if self.has_status() {
            copy(old, object, "status");
        }
        (self.prepare)(object, Some(old), Write::Update);
        if self.generation_changed(object, old) {
            meta::set_generation(object, meta::generation(old).max(0) + 1);
        }
    }

    /// Makes an update of `status` ready: everything but status, and what may
    /// go with it, is taken from the old object.
    pub fn prepare_status(&self, object: &mut Value, old: &Value) {
        let status = at(object, "status").clone();
        let metadata = at(object, "metadata").clone();
        *object = old.clone();
        if !status.is_null() {
            value::set(object, "status", status);
        } else {
            drop(remove(object, "status"));
        }
        // A status update may change the rest of the metadata, as in Kubernetes'
        // generic registry; it may not touch labels of kinds that reset them,
        // nor any of a custom resource.
        let fields: &[&str] = match self.custom {
            Some(_) => &["managedFields", "resourceVersion"],
            None => &[
                "annotations",
                "labels",
                "finalizers",
                "ownerReferences",
                "managedFields",
                "resourceVersion",
            ],
        };
        for field in fields {
            match metadata.get(field) {
                Some(new) if !new.is_null() => {
                    value::set(object, &format!("metadata.{field}"), new.clone())
                }
                Some(_) | None => drop(remove(object, &format!("metadata.{field}"))),
            }
        }
        self.keep_system_fields(object, old);
        (self.prepare)(object, Some(old), Write::Status);
    }

    /// What is wrong with a new object.
    pub fn validate_create(&self, object: &Value) -> Vec<Cause> {
        let mut causes = validate::meta::create(self, object);
        causes.extend(self.validate_content(object, None));
        causes
    }

    /// What is wrong with an update.
    pub fn validate_update(&self, object: &Value, old: &Value) -> Vec<Cause> {
        let mut causes = validate::meta::update(object, old);
        causes.extend(self.validate_content(object, Some(old)));
        causes
    }

    /// What is wrong with a status update.
    pub fn validate_status_update(&self, object: &Value, old: &Value) -> Vec<Cause> {
        let mut causes = validate::meta::update(object, old);
        causes.extend(match &self.custom {
            Some(definition) => definition.validate_status(object, old),
            None => (self.validate_status)(object, old),
        });
        causes
    }

    /// What is wrong with an object beyond its metadata; with the old object
    /// on update.
    pub fn validate_content(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        match &self.custom {
            Some(definition) => definition.validate(object, old),
            None => (self.validate)(object, old),
        }
    }

    /// Fills what the client left out.
    pub fn default(&self, object: &mut Value) {
        match &self.custom {
            Some(definition) => definition.default(object),
            None => (self.defaults)(object),
        }
    }

    /// Warnings for the client that go with a successful write.
    pub fn warn(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        (self.warnings)(object, old)
    }

    /// The warning that goes with every answer about a deprecated kind.
    pub fn deprecation(&self) -> Option<&str> {
        match &self.custom {
            Some(definition) => definition.deprecation(),
            None => self.deprecated,
        }
    }

    /// The cells of one object, in the order of its table's columns.
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        match &self.custom {
            Some(definition) => definition.cells(object, now),
            None => (self.row)(object, now),
        }
    }

    /// Its OpenAPI definition.
    pub fn schema(&self) -> Option<&Value> {
        crate::schema::of_kind(self)
    }

    /// Changes an object whose deletion begins at this time.
    pub fn begin_deletion(&self, object: &mut Value, now: &str) {
        (self.deleting)(object, now);
    }

    /// The name of the collection in which its objects are stored.
    pub fn collection(&self) -> String {
        match self.stored_as {
            Some(stored) => stored.kind.resource(),
            None => self.resource(),
        }
    }

    /// Whether the stored form may differ from the form of this kind.
    pub fn converts(&self) -> bool {
        self.stored_as.is_some() || self.custom.is_some()
    }

    /// A stored object in the form of this kind.
    pub fn read_form(&self, stored: Value) -> Value {
        match (self.stored_as, &self.custom) {
            (Some(view), _) => (view.read)(stored),
            (None, Some(definition)) => {
                let mut object = stored;
                definition.default(&mut object);
                self.stamp(&mut object);
                object
            }
            (None, None) => stored,
        }
    }

    /// An object of this kind in its stored form.
    pub fn write_form(&self, object: Value) -> Value {
        match (self.stored_as, &self.custom) {
            (Some(view), _) => (view.write)(object),
            (None, Some(definition)) => {
                let mut stored = object;
                value::set(&mut stored, "apiVersion", definition.storage_api_version());
                stored
            }
            (None, None) => object,
        }
    }

    /// All selectable fields of an object.
    pub fn selectable(&self, object: &Value) -> BTreeMap<&'static str, String> {
        let mut fields = match &self.custom {
            Some(definition) => definition.selectable(object),
            None => (self.fields)(object),
        };
        fields.insert("metadata.name", meta::name(object).to_owned());
        if self.namespaced {
            fields.insert("metadata.namespace", meta::namespace(object).to_owned());
        }
        fields
    }

    /// Whether the kind has a status subresource.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Writes `apiVersion` and `kind`.
    pub fn stamp(&self, object: &mut Value) {
        value::set(object, "apiVersion", self.api_version());
        value::set(object, "kind", self.kind);
    }

    /// A list object of this kind; items keep their own `apiVersion` and `kind`.
    pub fn list(&self, items: Vec<Value>, metadata: Map<String, Value>) -> Value {
        let mut list = Map::new();
        list.insert("apiVersion".to_owned(), self.api_version().into());
        list.insert("kind".to_owned(), self.list_kind.into());
        list.insert("metadata".to_owned(), Value::Object(metadata));
        list.insert("items".to_owned(), Value::Array(items));
        Value::Object(list)
    }

    fn keep_system_fields(&self, object: &mut Value, old: &Value) {
        for path in SYSTEM_FIELDS {
            copy(old, object, path);
        }
        // A client that names no version overwrites whatever there is.
        if self.unconditional_update && meta::resource_version(object).is_empty() {
            copy(old, object, "metadata.resourceVersion");
        }
        self.stamp(object);
    }

    fn generation_changed(&self, object: &Value, old: &Value) -> bool {
        match self.generation {
            Generation::None => false,
            Generation::Spec => at(object, "spec") != at(old, "spec"),
            Generation::Content => {
                let content = |object: &Value| {
                    let mut object = object.clone();
                    drop(remove(&mut object, "metadata"));
                    object
                };
                content(object) != content(old) || meta::labels(object) != meta::labels(old)
            }
            Generation::Body => {
                let body = |object: &Value| {
                    let mut object = object.clone();
                    drop(remove(&mut object, "metadata"));
                    object
                };
                body(object) != body(old)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::{config_map, endpoint_slice, lease, service};
    use serde_json::json;

    #[test]
    fn clients_do_not_write_system_fields() {
        let old = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "uid": "1", "resourceVersion": "5", "creationTimestamp": "t"}});
        let mut new = json!({"metadata": {"name": "a", "uid": "2", "creationTimestamp": "u", "deletionTimestamp": "v"}, "data": {"k": "v"}});
        config_map::KIND.prepare_update(&mut new, &old);
        let mut want = old.clone();
        want["data"] = json!({"k": "v"});
        assert_eq!(new, want);
        assert!(config_map::KIND.validate_update(&new, &old).is_empty());
    }

    #[test]
    fn some_kinds_demand_a_version() {
        let old = json!({"metadata": {"name": "a", "namespace": "x", "resourceVersion": "5"}});
        let mut new = json!({"metadata": {"name": "a", "namespace": "x"}});
        lease::KIND.prepare_update(&mut new, &old);
        let causes = lease::KIND.validate_update(&new, &old);
        assert_eq!(causes[0].field, "metadata.resourceVersion");
    }

    #[test]
    fn labels_raise_the_generation_of_a_slice_and_annotations_do_not() {
        let kind = &endpoint_slice::KIND;
        let mut old = json!({"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": []});
        kind.prepare_create(&mut old);
        let after = |metadata: serde_json::Value| {
            let mut new = old.clone();
            new["metadata"] = metadata;
            kind.prepare_update(&mut new, &old);
            new["metadata"]["generation"].as_i64()
        };
        assert_eq!(after(json!({"name": "a"})), Some(1));
        assert_eq!(
            after(json!({"name": "a", "annotations": {"k": "v"}})),
            Some(1)
        );
        assert_eq!(after(json!({"name": "a", "labels": {"k": "v"}})), Some(2));
    }

    #[test]
    fn s30_the_same_manifest_again_changes_nothing() {
        let kind = &service::KIND;
        let manifest = json!({"metadata": {"name": "web", "namespace": "default"},
            "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80}]}});
        let mut stored = manifest.clone();
        (kind.defaults)(&mut stored);
        kind.prepare_create(&mut stored);
        crate::kinds::service_update::init_families(&mut stored, None, &["IPv4", "IPv6"]).unwrap();
        stored["spec"]["clusterIP"] = json!("10.96.0.9");
        stored["spec"]["clusterIPs"] = json!(["10.96.0.9"]);
        stored["spec"]["ports"][0]["nodePort"] = json!(30080);
        stored["metadata"]["resourceVersion"] = json!("7");
        let mut again = manifest;
        (kind.defaults)(&mut again);
        kind.prepare_update(&mut again, &stored);
        crate::kinds::service_update::init_families(&mut again, Some(&stored), &["IPv4", "IPv6"])
            .unwrap();
        assert_eq!(again, stored);
        assert!(kind.validate_update(&again, &stored).is_empty());
    }
}
