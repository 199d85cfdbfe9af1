//! One served version of a CustomResourceDefinition, ready for use.

use super::check::{self, Patterns};
use super::jsonpath::JsonPath;
use super::printer::Printer;
use super::rules::{Engine, Rules};
use super::{intern, prune, published, schema};
use crate::cause::Cause;
use crate::kinds::{BASE, Generation, Kind, Subresource, VERBS};
use crate::value::{at, bool_at, has, list_at, str_at, strings_at};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a kind of a definition is made of beside its names.
#[derive(Debug)]
pub struct Definition {
    /// All that the kind was made of, to see whether it has changed.
    source: Value,
    /// The schema as the definition has it.
    schema: Value,
    /// The schema as clients see it: with type and metadata.
    published: Value,
    patterns: Patterns,
    rules: Rules,
    printer: Printer,
    scale: Option<Scale>,
    selectable: Vec<(&'static str, JsonPath)>,
    storage_api_version: String,
    deprecation: Option<String>,
}

/// Where `scale` finds its numbers.
#[derive(Debug)]
struct Scale {
    spec_replicas: String,
    status_replicas: String,
    selector: Option<String>,
}

/// One served version of a definition, before it is made ready for use.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a> {
    definition: &'a Value,
    version: &'a Value,
}

/// The served versions of a definition, the most stable first.
pub fn versions(definition: &Value) -> Vec<Version<'_>> {
    let mut versions: Vec<Version<'_>> = list_at(definition, "spec.versions")
        .iter()
        .filter(|version| bool_at(version, "served"))
        .map(|version| Version {
            definition,
            version,
        })
        .collect();
    versions.sort_by_key(|one| super::priority(str_at(one.version, "name")));
    versions
}

impl Version<'_> {
    /// All that its kind is made of: equal sources make equal kinds. To compare
    /// is cheap, to make a kind compiles patterns and rules.
    pub fn source(&self) -> Value {
        serde_json::json!([
            str_at(self.definition, "spec.group"),
            at(self.definition, "status.acceptedNames"),
            at(self.definition, "spec.scope"),
            self.storage(),
            self.version,
        ])
    }

    /// The name of the version that is stored.
    fn storage(&self) -> &str {
        list_at(self.definition, "spec.versions")
            .iter()
            .find(|version| bool_at(version, "storage"))
            .map_or("", |version| str_at(version, "name"))
    }

    /// The kind. `None` while its names are not accepted, or when there is no
    /// more room for names.
    pub fn kind(&self, engine: &dyn Engine) -> Option<Kind> {
        let names = at(self.definition, "status.acceptedNames");
        let group = intern::text(str_at(self.definition, "spec.group"))?;
        let version = intern::text(str_at(self.version, "name"))?;
        let kind = intern::text(str_at(names, "kind")).filter(|kind| !kind.is_empty())?;
        let plural = intern::text(str_at(names, "plural")).filter(|plural| !plural.is_empty())?;
        let made = Definition::new(self, (group, version, kind), engine)?;
        Some(Kind {
            group,
            version,
            kind,
            list_kind: intern::text(str_at(names, "listKind"))?,
            plural,
            singular: intern::text(str_at(names, "singular"))?,
            short_names: intern::list(&strings_at(names, "shortNames"))?,
            categories: intern::list(&strings_at(names, "categories"))?,
            namespaced: str_at(self.definition, "spec.scope") == "Namespaced",
            verbs: VERBS,
            subresources: subresources(self.version, (group, version, kind))?,
            definition: intern::text(&published::name(group, version, kind))?,
            generation: Generation::Body,
            unconditional_update: false,
            custom: Some(Arc::new(made)),
            ..BASE
        })
    }
}

fn subresources(
    version: &Value,
    (group, name, kind): (&'static str, &'static str, &'static str),
) -> Option<&'static [Subresource]> {
    let mut list = Vec::new();
    if has(version, "subresources.status") {
        list.push(crate::kinds::status_of(group, name, kind));
    }
    if has(version, "subresources.scale") {
        list.push(crate::kinds::SCALE);
    }
    intern::subresources(list)
}

impl Definition {
    fn new(from: &Version<'_>, names: (&str, &str, &str), engine: &dyn Engine) -> Option<Self> {
        let version = from.version;
        let schema = at(version, "schema.openAPIV3Schema").clone();
        let mut patterns = Patterns::new();
        check::patterns(&schema, &mut patterns);
        let selectable = list_at(version, "selectableFields")
            .iter()
            .filter_map(|field| {
                let path = str_at(field, "jsonPath");
                let name = intern::text(path.strip_prefix('.').unwrap_or(path))?;
                Some((name, JsonPath::parse(path)?))
            })
            .collect();
        Some(Self {
            source: from.source(),
            published: published::schema(&schema, names),
            patterns,
            rules: Rules::new(&schema, engine),
            printer: Printer::new(version),
            scale: Scale::new(version),
            selectable,
            storage_api_version: format!("{}/{}", names.0, from.storage()),
            deprecation: deprecation(version, names),
            schema,
        })
    }

    /// Brings an object, a client's or a stored one, to the schema: unknown
    /// fields and nulls go, defaults are filled.
    pub(crate) fn default(&self, object: &mut Value) {
        drop(self.prune(object));
        prune::nulls(object, &self.schema);
        prune::defaults(object, &self.schema);
    }

    /// Drops what the schema does not have, and tells the paths.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::unknown(object, &self.schema)
    }

    /// What is wrong with an object.
    pub(crate) fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = check::check(&self.patterns, &self.schema, object, old);
        check::embedded(object, &self.schema, "", &mut causes);
        check::duplicates(object, &self.schema, "", &mut causes);
        let rules = self.rules.check(&self.schema, object, old, &causes);
        causes.extend(rules);
        causes
    }

    /// What is wrong with the status of an object.
    pub(crate) fn validate_status(&self, object: &Value, old: &Value) -> Vec<Cause> {
        self.validate(object, Some(old))
    }

    pub(crate) fn deprecation(&self) -> Option<&str> {
        self.deprecation.as_deref()
    }

    pub(crate) fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        self.printer.cells(object, now)
    }

    pub(crate) fn columns(&self) -> &[Value] {
        self.printer.columns()
    }

    pub(crate) fn selectable(&self, object: &Value) -> BTreeMap<&'static str, String> {
        self.selectable
            .iter()
            .map(|(name, path)| (*name, path.first(object).map(plain).unwrap_or_default()))
            .collect()
    }

    pub(crate) fn storage_api_version(&self) -> &str {
        &self.storage_api_version
    }

    /// All that the kind was made of, as [`Version::source`].
    pub fn source(&self) -> &Value {
        &self.source
    }

    /// The schema as clients see it.
    pub fn published(&self) -> &Value {
        &self.published
    }

    /// The paths of `scale`: replicas wanted, replicas there, label selector
    /// (as text).
    pub fn scale(&self) -> Option<(&str, &str, Option<&str>)> {
        let scale = self.scale.as_ref()?;
        Some((
            &scale.spec_replicas,
            &scale.status_replicas,
            scale.selector.as_deref(),
        ))
    }
}

impl Scale {
    fn new(version: &Value) -> Option<Self> {
        let scale = at(version, "subresources.scale");
        let path = |key: &str| {
            let path = str_at(scale, key);
            path.strip_prefix('.').unwrap_or(path).to_owned()
        };
        scale.is_object().then(|| Self {
            spec_replicas: path("specReplicasPath"),
            status_replicas: path("statusReplicasPath"),
            selector: Some(path("labelSelectorPath")).filter(|path| !path.is_empty()),
        })
    }
}

/// A value as field selectors compare it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn deprecation(version: &Value, (group, name, kind): (&str, &str, &str)) -> Option<String> {
    if !schema::flag(version, "deprecated") {
        return None;
    }
    Some(match str_at(version, "deprecationWarning") {
        "" => format!("{group}/{name} {kind} is deprecated"),
        text => text.to_owned(),
    })
}
