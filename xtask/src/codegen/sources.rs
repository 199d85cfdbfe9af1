//! Reading the two generated crates as text.
//!
//! Both are generated and formatted by tools, so one regular shape per line is
//! enough to read them by; what does not have it is an error or is missed by
//! the checks of the table.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::run::output;

/// One protobuf message.
pub(super) struct Message {
    pub(super) fields: Vec<Field>,
}

/// One field of a message.
pub(super) struct Field {
    pub(super) number: u32,
    /// As Rust has it, `cluster_i_ps`.
    pub(super) name: String,
    pub(super) shape: Shape,
    /// As protobuf calls it, `int32`, or the name of a message; of a map the
    /// type of its values.
    pub(super) kind: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    List,
    Map,
}

/// What JSON has for one message.
#[derive(Default)]
pub(super) struct Definition {
    /// By name in small letters.
    pub(super) properties: BTreeMap<String, Property>,
}

pub(super) struct Property {
    pub(super) name: String,
    pub(super) required: bool,
}

/// The folders of some dependencies.
pub(super) fn locate(root: &Path, names: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let text = output(
        root,
        &["cargo", "metadata", "--format-version", "1", "--locked"],
    )?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata")?;
    let mut found = BTreeMap::new();
    for package in metadata["packages"]
        .as_array()
        .context("packages of cargo metadata")?
    {
        let name = package["name"].as_str().context("name")?;
        if names.contains(&name) {
            let manifest =
                PathBuf::from(package["manifest_path"].as_str().context("manifest_path")?);
            let folder = manifest
                .parent()
                .context("a manifest lies in a folder")?
                .to_owned();
            found.insert(name.to_owned(), folder);
        }
    }
    Ok(found)
}

/// All messages of k8s-pb as `core.v1.Service`.
pub(super) fn protobuf(folder: &Path) -> Result<BTreeMap<String, Message>> {
    let src = folder.join("src");
    let mut messages = BTreeMap::new();
    for path in rust_files(&src)? {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let module = path.parent().unwrap_or(&src).strip_prefix(&src)?;
        let parts: Vec<&str> = module.iter().filter_map(|part| part.to_str()).collect();
        let package = parts[parts.len().saturating_sub(2)..].join(".");
        read_messages(&text, &package, &mut messages)
            .with_context(|| path.display().to_string())?;
    }
    Ok(messages)
}

fn read_messages(
    text: &str,
    package: &str,
    messages: &mut BTreeMap<String, Message>,
) -> Result<()> {
    let mut current: Option<(String, Message)> = None;
    let (mut attribute, mut declaration) = (String::new(), String::new());
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[prost(") || (!attribute.is_empty() && !attribute.ends_with(")]")) {
            attribute.push_str(line);
        } else if let Some(rest) = line.strip_prefix("pub struct ") {
            let name = rest.trim_end_matches([' ', '{', '}']);
            current = Some((format!("{package}.{name}"), Message { fields: Vec::new() }));
            if rest.ends_with('}') {
                messages.extend(current.take());
            }
        } else if line == "}" {
            messages.extend(current.take());
        } else if let Some((_, message)) = current.as_mut()
            && (line.starts_with("pub ") || !declaration.is_empty())
        {
            declaration.push_str(line);
            declaration.push(' ');
            // A long type is spread over lines.
            let (opened, closed) = (
                declaration.matches('<').count(),
                declaration.matches('>').count(),
            );
            if opened == closed && line.ends_with(',') {
                message
                    .fields
                    .push(field(&attribute, &declaration, package)?);
                attribute.clear();
                declaration.clear();
            }
        }
    }
    Ok(())
}

/// A field by its attribute, `#[prost(message, repeated, tag = "2")]`, and its
/// declaration, `pub ports: Vec<ServicePort>,`.
fn field(attribute: &str, declaration: &str, package: &str) -> Result<Field> {
    let (name, kind) = declaration
        .strip_prefix("pub ")
        .and_then(|rest| rest.split_once(':'))
        .with_context(|| format!("cannot read {declaration:?}"))?;
    let inner = attribute
        .strip_prefix("#[prost(")
        .and_then(|rest| rest.strip_suffix(")]"))
        .with_context(|| format!("{name}: attribute {attribute:?}"))?;
    let (_, tag) = inner
        .split_once("tag = \"")
        .with_context(|| format!("{name}: no tag"))?;
    let number = tag
        .trim_end_matches([',', '"'])
        .parse()
        .with_context(|| format!("{name}: tag {tag:?}"))?;
    let (shape, scalar) = if let Some(rest) = inner.strip_prefix("btree_map = \"string, ") {
        (Shape::Map, rest.split('"').next().unwrap_or_default())
    } else {
        let word = inner.split([',', ' ']).next().unwrap_or_default();
        let shape = if inner.contains(", repeated") {
            Shape::List
        } else {
            Shape::One
        };
        (shape, word)
    };
    let kind = match scalar {
        "message" => message_name(kind, package),
        _ => scalar.to_owned(),
    };
    Ok(Field {
        number,
        name: name.trim_start_matches("r#").to_owned(),
        shape,
        kind,
    })
}

/// `::core::option::Option<super::super::core::v1::Foo>` is `core.v1.Foo`.
fn message_name(kind: &str, package: &str) -> String {
    let inner = kind
        .trim_end_matches([' ', ',', '>'])
        .rsplit(['<', ' '])
        .next()
        .unwrap_or(kind);
    let parts: Vec<&str> = inner.split("::").filter(|part| *part != "super").collect();
    match parts.as_slice() {
        [name] => format!("{package}.{name}"),
        [.., group, version, name] => format!("{group}.{version}.{name}"),
        _ => inner.to_owned(),
    }
}

/// All definitions of k8s-openapi's newest Kubernetes version, as
/// `core.v1.service`.
pub(super) fn json(folder: &Path) -> Result<BTreeMap<String, Definition>> {
    let src = folder.join("src");
    let mut versions: Vec<PathBuf> = fs::read_dir(&src)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("v1_"))
        })
        .collect();
    versions.sort();
    let newest = versions.last().context("no version in k8s-openapi")?;
    let mut definitions = BTreeMap::new();
    for path in rust_files(newest)? {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let Some(name) = text
            .lines()
            .next()
            .and_then(|l| l.strip_prefix("// Generated from definition "))
        else {
            continue;
        };
        let parts: Vec<&str> = name.split('.').collect();
        let short = parts[parts.len().saturating_sub(3)..]
            .join(".")
            .to_lowercase();
        definitions.insert(short, definition(&text));
    }
    Ok(definitions)
}

/// The properties of a type: its names are those of the deserializer, required
/// are those that Rust has without `Option`.
fn definition(text: &str) -> Definition {
    let mut required = Vec::new();
    for line in text.lines() {
        if let Some((name, kind)) = line
            .strip_prefix("    pub ")
            .and_then(|rest| rest.split_once(": "))
            && !kind.starts_with("Option<")
        {
            required.push(name.trim_start_matches("r#"));
        }
    }
    let mut definition = Definition::default();
    for line in text.lines().map(str::trim) {
        if let Some((name, rest)) = line
            .strip_prefix('"')
            .and_then(|rest| rest.split_once("\" => Field::Key_"))
        {
            let property = Property {
                name: name.to_owned(),
                required: required.contains(&rest.trim_end_matches(',')),
            };
            definition.properties.insert(name.to_lowercase(), property);
        }
    }
    definition
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut todo = VecDeque::from([folder.to_owned()]);
    let mut files = Vec::new();
    while let Some(folder) = todo.pop_front() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                todo.push_back(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
