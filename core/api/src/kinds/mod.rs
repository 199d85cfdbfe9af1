//! The kinds table: one row and one file make a kind appear.
//!
//! A [`Kind`] is data and plain functions. The server walks the table for
//! routes, the discovery and OpenAPI documents are derived from it, and no
//! other place lists kinds.

pub mod config_map;
pub mod controller_revision;
pub mod custom_resource_definition;
pub mod daemon_set;
pub mod deployment;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
pub mod events_event;
pub mod ingress;
pub mod lease;
pub mod namespace;
pub mod network_policy;
pub mod node;
pub mod pod;
pub mod pod_status;
pub mod replica_set;
pub mod reviews;
pub mod secret;
pub mod service;
pub mod service_account;
pub mod service_cidr;
pub mod service_update;
pub mod stateful_set;

mod handle;
mod strategy;

pub use handle::KindRef;

use crate::cause::Cause;
use crate::custom::Definition;
use crate::value::str_at;
use jiff::Timestamp;
use schemars::SchemaGenerator;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Every kind, in the order in which discovery lists them.
static KINDS: &[&Kind] = &[
    &config_map::KIND,
    &endpoints::KIND,
    &event::KIND,
    &namespace::KIND,
    &node::KIND,
    &pod::KIND,
    &secret::KIND,
    &service_account::KIND,
    &service::KIND,
    &controller_revision::KIND,
    &daemon_set::KIND,
    &deployment::KIND,
    &replica_set::KIND,
    &stateful_set::KIND,
    &lease::KIND,
    &events_event::KIND,
    &endpoint_slice::KIND,
    &service_cidr::IP_ADDRESS,
    &ingress::KIND,
    &ingress::CLASS,
    &network_policy::KIND,
    &service_cidr::KIND,
    &custom_resource_definition::KIND,
    &reviews::SELF_SUBJECT_REVIEW,
    &reviews::TOKEN_REVIEW,
    &reviews::LOCAL_SUBJECT_ACCESS_REVIEW,
    &reviews::SELF_SUBJECT_ACCESS_REVIEW,
    &reviews::SELF_SUBJECT_RULES_REVIEW,
    &reviews::SUBJECT_ACCESS_REVIEW,
];

/// Everything the API language says about one kind.
///
/// Rows of the table give plain functions; a kind of a CustomResourceDefinition
/// has a [`Definition`] instead. Callers use the methods, which know both.
///
/// Names are `&'static str` for both: those of definitions come from
/// [`crate::custom::intern`], which is bounded.
#[derive(Debug)]
pub struct Kind {
    /// The API group, "" for core.
    pub group: &'static str,
    /// The version, `v1`.
    pub version: &'static str,
    /// `Service`.
    pub kind: &'static str,
    /// `ServiceList`.
    pub list_kind: &'static str,
    /// `services`.
    pub plural: &'static str,
    /// `service`.
    pub singular: &'static str,
    /// `svc`.
    pub short_names: &'static [&'static str],
    /// `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// What may be done with the resource itself.
    pub verbs: &'static [&'static str],
    /// `status`, `scale`, `log`, …
    pub subresources: &'static [Subresource],
    /// The name of its OpenAPI definition, `io.k8s.api.core.v1.Service`.
    pub definition: &'static str,
    /// Adds its OpenAPI definition, and those that it refers to, to a generator.
    pub(crate) schema: fn(&mut SchemaGenerator),
    /// The columns of its table, after which [`Kind::row`] gives the cells.
    pub(crate) columns: &'static [Column],
    /// The cells of one object, in the order of the columns.
    pub(crate) row: fn(&Value, Timestamp) -> Vec<Value>,
    /// Fills what the client left out.
    pub(crate) defaults: fn(&mut Value),
    /// What is wrong with the object, beyond its metadata; with the old object
    /// on update. Use [`Kind::validate_create`] and its siblings.
    pub(crate) validate: fn(&Value, Option<&Value>) -> Vec<Cause>,
    /// What is wrong with a status update; the default is nothing.
    pub(crate) validate_status: fn(&Value, &Value) -> Vec<Cause>,
    /// What the server changes in an object before it is stored: use
    /// [`Kind::prepare_create`] and its siblings, which also do what is common
    /// to all kinds.
    pub(crate) prepare: fn(&mut Value, Option<&Value>, Write),
    /// The rule for `metadata.name`.
    pub name_rule: NameRule,
    /// When `metadata.generation` grows.
    pub generation: Generation,
    /// Fields for field selectors beside `metadata.name` and `metadata.namespace`.
    pub(crate) fields: fn(&Value) -> BTreeMap<&'static str, String>,
    /// Warnings for the client that go with a successful write.
    pub(crate) warnings: fn(&Value, Option<&Value>) -> Vec<String>,
    /// The warning with every answer about a kind that has a successor.
    pub(crate) deprecated: Option<&'static str>,
    /// Whether PUT of a missing object creates it.
    pub create_on_update: bool,
    /// Whether PUT may leave out the resourceVersion.
    pub unconditional_update: bool,
    /// Whether DELETE answers with the object instead of a Status.
    pub delete_returns_object: bool,
    /// For gracefully deleted kinds: the grace period when the client says none.
    pub grace_period: Option<fn(&Value) -> i64>,
    /// What changes in an object when its deletion begins, at this time. Use
    /// [`Kind::begin_deletion`].
    pub(crate) deleting: fn(&mut Value, &str),
    /// For a view: the kind whose objects these are, and how to convert them.
    pub stored_as: Option<&'static StoredAs>,
    /// What a kind of a CustomResourceDefinition is made of.
    pub custom: Option<Arc<Definition>>,
}

/// How a kind is a view of the objects of another.
#[derive(Debug)]
pub struct StoredAs {
    /// The kind that is stored.
    pub kind: &'static Kind,
    /// From the stored form into that of the view.
    pub read: fn(Value) -> Value,
    /// From the form of the view into the stored one.
    pub write: fn(Value) -> Value,
}

/// Which write an object is prepared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// A new object.
    Create,
    /// PUT or PATCH of the object itself.
    Update,
    /// PUT or PATCH of its `status` subresource.
    Status,
}

/// When `metadata.generation` grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The kind has none.
    None,
    /// With each change of `spec`.
    Spec,
    /// With each change of anything but annotations and the other metadata (EndpointSlice).
    Content,
    /// With each change outside `metadata` (custom resources; `status` counts
    /// only where it is no subresource).
    Body,
}

/// The rule for `metadata.name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// A DNS-1123 subdomain.
    Subdomain,
    /// A DNS-1123 label.
    Label,
    /// An IP address in its one form.
    Address,
}

/// One subresource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// `status`.
    pub name: &'static str,
    /// Group of the kind that it reads and writes.
    pub group: &'static str,
    /// Version of the kind that it reads and writes.
    pub version: &'static str,
    /// Kind that it reads and writes.
    pub kind: &'static str,
    /// What may be done with it.
    pub verbs: &'static [&'static str],
}

/// One column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// `CLUSTER-IP` is `Cluster-IP` here; clients upper-case it.
    pub name: &'static str,
    /// `string`, `integer`, `boolean` or `date`.
    pub kind: &'static str,
    /// `name` marks the name column.
    pub format: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
    /// What the column shows.
    pub description: &'static str,
}

/// A column that is always shown.
pub const fn column(name: &'static str, kind: &'static str, description: &'static str) -> Column {
    Column {
        name,
        kind,
        format: "",
        priority: 0,
        description,
    }
}

/// A column that `-o wide` adds.
pub const fn wide(name: &'static str, kind: &'static str, description: &'static str) -> Column {
    Column {
        name,
        kind,
        format: "",
        priority: 1,
        description,
    }
}

/// The first column of every table.
pub const NAME_COLUMN: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    priority: 0,
    description: "Name must be unique within a namespace, or within the cluster for kinds without one.",
};

/// The age column of nearly every table.
pub const AGE_COLUMN: Column = column("Age", "string", "Time since the object was created.");

/// The verbs of an ordinary kind.
pub const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// What a row of the table falls back to.
pub(crate) const BASE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "",
    list_kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: VERBS,
    subresources: &[],
    definition: "",
    schema: |_| {},
    columns: &[NAME_COLUMN, AGE_COLUMN],
    row: crate::table::name_and_age,
    defaults: |_| {},
    validate: |_, _| Vec::new(),
    validate_status: |_, _| Vec::new(),
    prepare: |_, _, _| {},
    name_rule: NameRule::Subdomain,
    generation: Generation::None,
    fields: |_| BTreeMap::new(),
    warnings: |_, _| Vec::new(),
    deprecated: None,
    create_on_update: false,
    unconditional_update: true,
    delete_returns_object: false,
    grace_period: None,
    deleting: |_, _| {},
    stored_as: None,
    custom: None,
};

/// Adds the definitions of a type and of its list to a generator.
pub(crate) fn schema_of<T: schemars::JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

/// The status subresource of a kind of this group, version and name.
pub(crate) const fn status_of(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
) -> Subresource {
    Subresource {
        name: "status",
        group,
        version,
        kind,
        verbs: &["get", "patch", "update"],
    }
}

/// A subresource that is a connection and no object; its kind names the
/// parameters.
pub(crate) const fn connect(
    name: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
) -> Subresource {
    Subresource {
        name,
        group: "",
        version: "v1",
        kind,
        verbs,
    }
}

/// The methods of `proxy`, as verbs.
pub(crate) const PROXY_VERBS: &[&str] = &["create", "delete", "get", "patch", "update"];

/// The scale subresource.
pub(crate) const SCALE: Subresource = Subresource {
    name: "scale",
    group: "autoscaling",
    version: "v1",
    kind: "Scale",
    verbs: &["get", "patch", "update"],
};

/// All kinds.
pub fn all() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().copied()
}

/// The kind of a REST path.
pub fn by_plural(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    all().find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
}

/// The kind of an object.
pub fn by_kind(group: &str, version: &str, name: &str) -> Option<&'static Kind> {
    all().find(|kind| kind.group == group && kind.version == version && kind.kind == name)
}

/// The kind of an object's `apiVersion` and `kind`.
pub fn by_api_version(api_version: &str, name: &str) -> Option<&'static Kind> {
    let (group, version) = split_api_version(api_version);
    by_kind(group, version, name)
}

/// The kind of an object by its own `apiVersion` and `kind` fields.
pub fn of(object: &Value) -> Option<&'static Kind> {
    by_api_version(str_at(object, "apiVersion"), str_at(object, "kind"))
}

/// The kind that a person means: plural, singular, short name or kind, in any
/// case, with or without the group (`deploy`, `deployments.apps`).
pub fn by_name(word: &str) -> Option<&'static Kind> {
    let word = word.to_lowercase();
    let (name, group) = match word.split_once('.') {
        Some((name, rest)) => {
            let rest = rest
                .strip_prefix("v1.")
                .or(if rest == "v1" { Some("") } else { None });
            let group = rest.unwrap_or(word.split_once('.').map_or("", |(_, group)| group));
            (name.to_owned(), Some(group.to_owned()))
        }
        None => (word, None),
    };
    all().find(|kind| {
        let named = kind.plural == name
            || kind.singular == name
            || kind.short_names.contains(&name.as_str())
            || kind.kind.to_lowercase() == name;
        named && group.as_deref().is_none_or(|group| kind.group == group)
    })
}

/// `apps/v1` is (`apps`, `v1`); `v1` is ("", `v1`).
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

impl Kind {
    /// `apps/v1` or `v1`.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// `deployments.apps` or `services`.
    pub fn resource(&self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// `/api/v1` or `/apis/apps/v1`.
    pub fn root_path(&self) -> String {
        match self.group {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        }
    }

    /// The path of one object, or of the collection when `name` is "".
    pub fn path(&self, namespace: &str, name: &str) -> String {
        let mut path = self.root_path();
        if self.namespaced && !namespace.is_empty() {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        path.push('/');
        path.push_str(self.plural);
        if !name.is_empty() {
            path.push('/');
            path.push_str(name);
        }
        path
    }

    /// Whether it has this subresource.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }
}
