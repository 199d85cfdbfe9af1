//! `core/api/src/protobuf/messages.txt`: the field numbers of Kubernetes' protobuf.
//!
//! Numbers and types come from the source of the crate k8s-pb, which core/api
//! has for its tests; JSON names and which fields are required come from
//! k8s-openapi, because a name like `clusterIPs` cannot be told from k8s-pb's
//! `cluster_i_ps`. Both are found through `cargo metadata`. What neither of them
//! knows, which fields are pointers in Go, is in [`pointers`].

mod pointers;
mod sources;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::run::say;
use sources::{Definition, Field, Message, Shape};

/// The generated file.
pub(crate) const MESSAGES: &str = "core/api/src/protobuf/messages.txt";

/// The bodies that the server reads; what they refer to comes with them.
const ROOTS: [&str; 34] = [
    "apps.v1.ControllerRevision",
    "apps.v1.DaemonSet",
    "apps.v1.Deployment",
    "apps.v1.ReplicaSet",
    "apps.v1.StatefulSet",
    "authentication.v1.SelfSubjectReview",
    "authentication.v1.TokenRequest",
    "authentication.v1.TokenReview",
    "authorization.v1.LocalSubjectAccessReview",
    "authorization.v1.SelfSubjectAccessReview",
    "authorization.v1.SelfSubjectRulesReview",
    "authorization.v1.SubjectAccessReview",
    "autoscaling.v1.Scale",
    "coordination.v1.Lease",
    "core.v1.Binding",
    "core.v1.ConfigMap",
    "core.v1.Endpoints",
    "core.v1.Event",
    "core.v1.Namespace",
    "core.v1.Node",
    "core.v1.Pod",
    "core.v1.Secret",
    "core.v1.Service",
    "core.v1.ServiceAccount",
    "discovery.v1.EndpointSlice",
    "events.v1.Event",
    "meta.v1.DeleteOptions",
    "meta.v1.Status",
    "networking.v1.IPAddress",
    "networking.v1.Ingress",
    "networking.v1.IngressClass",
    "networking.v1.NetworkPolicy",
    "networking.v1.ServiceCIDR",
    "policy.v1.Eviction",
];

/// Simple types that the decoder knows.
const SCALARS: [&str; 5] = ["bool", "bytes", "int32", "int64", "string"];

/// Messages whose JSON form is not an object with their fields, and the word
/// that the table has for them.
const SPECIAL: [(&str, &str); 8] = [
    ("meta.v1.Time", "time"),
    ("meta.v1.MicroTime", "micro-time"),
    ("meta.v1.FieldsV1", "raw"),
    ("pkg.runtime.RawExtension", "raw"),
    ("api.resource.Quantity", "quantity"),
    ("util.intstr.IntOrString", "int-or-string"),
    ("authentication.v1.ExtraValue", "strings"),
    ("authorization.v1.ExtraValue", "strings"),
];

/// Writes the table; with `check` only says whether it is up to date.
pub(crate) fn run(root: &Path, check: bool) -> Result<()> {
    let text = messages(root)?;
    let path = root.join(MESSAGES);
    let found = fs::read_to_string(&path).unwrap_or_default();
    if found == text {
        say(&format!("{MESSAGES} is up to date"));
        return Ok(());
    }
    if check {
        bail!("{MESSAGES} is not what the sources say: run `cargo xtask codegen`");
    }
    fs::write(&path, &text).with_context(|| format!("write {MESSAGES}"))?;
    say(&format!("{MESSAGES}: {} lines", text.lines().count()));
    Ok(())
}

/// The table as the sources have it now.
fn messages(root: &Path) -> Result<String> {
    let packages = sources::locate(root, &["k8s-pb", "k8s-openapi"])?;
    let folder = |name: &str| {
        packages
            .get(name)
            .with_context(|| format!("{name} is no dependency"))
    };
    let protobuf = sources::protobuf(folder("k8s-pb")?)?;
    let json = sources::json(folder("k8s-openapi")?)?;
    let mut table = Table {
        protobuf: &protobuf,
        json: &json,
        pointers: BTreeSet::new(),
        text: String::new(),
    };
    table.fill()?;
    Ok(table.text)
}

struct Table<'a> {
    protobuf: &'a BTreeMap<String, Message>,
    json: &'a BTreeMap<String, Definition>,
    /// The pointers that were met; each one listed must be.
    pointers: BTreeSet<&'static str>,
    text: String,
}

impl<'a> Table<'a> {
    fn fill(&mut self) -> Result<()> {
        let mut todo: VecDeque<String> = ROOTS.iter().map(|&name| name.to_owned()).collect();
        let mut parents: BTreeMap<String, String> = BTreeMap::new();
        let mut lines: BTreeMap<String, String> = BTreeMap::new();
        while let Some(name) = todo.pop_front() {
            if lines.contains_key(&name) {
                continue;
            }
            let message = self
                .protobuf
                .get(&name)
                .with_context(|| format!("no message {name}"))?;
            let definition = self.definition(&name, parents.get(&name))?;
            let mut text = String::new();
            for field in &message.fields {
                let Some((line, inline)) = self.line(&name, field, definition)? else {
                    continue;
                };
                text.push_str(&line);
                if inline {
                    parents.insert(
                        field.kind.clone(),
                        parents.get(&name).unwrap_or(&name).clone(),
                    );
                }
                if self.protobuf.contains_key(&field.kind) && special(&field.kind).is_none() {
                    todo.push_back(field.kind.clone());
                }
            }
            lines.insert(name, text);
        }
        for (name, text) in lines {
            writeln!(self.text, "{name}")?;
            self.text.push_str(&text);
        }
        let unused: Vec<_> = pointers::POINTERS
            .iter()
            .filter(|p| !self.pointers.contains(**p))
            .collect();
        if !unused.is_empty() {
            bail!("listed as pointers, but no field without a required value: {unused:?}");
        }
        Ok(())
    }

    /// What JSON has for a message; a part that JSON has in line has no
    /// definition of its own and shares that of the message around it.
    fn definition(&self, name: &str, parent: Option<&String>) -> Result<&'a Definition> {
        self.json
            .get(&name.to_lowercase())
            .or_else(|| self.json.get(&parent?.to_lowercase()))
            .with_context(|| format!("k8s-openapi has no definition of {name}"))
    }

    /// The line of a field, and whether JSON has its message in line; nothing
    /// for a field that JSON does not have at all.
    fn line(
        &mut self,
        message: &str,
        field: &Field,
        definition: &Definition,
    ) -> Result<Option<(String, bool)>> {
        let kind = special(&field.kind).unwrap_or(&field.kind);
        let Some(property) = definition.properties.get(&key_of(field)) else {
            // A part that JSON has in line has none but properties of the whole.
            let inline = self.protobuf.get(&field.kind).is_some_and(|part| {
                part.fields
                    .iter()
                    .all(|field| definition.properties.contains_key(&key_of(field)))
            });
            if field.shape == Shape::One && inline {
                return Ok(Some((format!(" {} + {kind}\n", field.number), true)));
            }
            say(&format!("{message}.{}: not in JSON, left out", field.name));
            return Ok(None);
        };
        let known = special(&field.kind).is_some() || SCALARS.contains(&kind) || kind.contains('.');
        if !known {
            bail!(
                "{message}.{}: the decoder knows no {kind} fields",
                field.name
            );
        }
        let scalar = field.shape == Shape::One && SCALARS.contains(&kind);
        let full = format!("{message}.{}", property.name);
        let pointer = pointers::POINTERS.iter().find(|listed| **listed == full);
        let required = property.required && !pointers::OPTIONAL.contains(&full.as_str());
        if scalar && !required {
            self.pointers.extend(pointer);
        }
        let kept = if scalar && (required || pointer.is_some()) {
            "!"
        } else {
            ""
        };
        let shape = match field.shape {
            Shape::One => "",
            Shape::List => "[]",
            Shape::Map => "{}",
        };
        Ok(Some((
            format!(" {} {} {shape}{kind}{kept}\n", field.number, property.name),
            false,
        )))
    }
}

/// A name without what k8s-pb and JSON write differently.
fn key_of(field: &Field) -> String {
    field.name.replace('_', "").to_lowercase()
}

fn special(kind: &str) -> Option<&'static str> {
    SPECIAL
        .iter()
        .find(|(name, _)| *name == kind)
        .map(|(_, word)| *word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checked_in_table_is_what_the_sources_say() {
        let root = crate::run::workspace_root().unwrap();
        let found = fs::read_to_string(root.join(MESSAGES)).unwrap();
        assert!(
            found == messages(&root).unwrap(),
            "run `cargo xtask codegen`"
        );
    }
}
