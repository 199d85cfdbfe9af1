//! The field table: what each number of each message is in JSON.
//!
//! A line without indent names a message, the others are its fields: number,
//! JSON name and type. `[]` is a list, `{}` a map from text; the name `+` is a
//! part that JSON has in line; `!` marks a simple field whose zero is said.

use crate::kinds::split_api_version;
use std::collections::BTreeMap;
use std::sync::LazyLock;

static SOURCE: &str = include_str!("messages.txt");

static TABLE: LazyLock<BTreeMap<&str, Message>> = LazyLock::new(|| parse(SOURCE));

/// One message.
#[derive(Debug)]
pub(super) struct Message {
    /// `core.v1.ServiceSpec`.
    pub(super) name: &'static str,
    fields: BTreeMap<u32, Field>,
}

/// One field.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// As JSON has it.
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) form: Form,
    /// Whether zero or "" is a value, not "not set".
    pub(super) says_zero: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    List,
    Map,
    /// Its fields are those of the message around it.
    InLine,
}

/// What a value, or an element, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Bool,
    Int32,
    Int64,
    Text,
    /// Base64 in JSON.
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// JSON as it is.
    Raw,
    /// A message around a list of texts, of which JSON has the list alone.
    Texts,
    Message(&'static str),
}

impl Message {
    pub(super) fn field(&self, number: u32) -> Option<&Field> {
        self.fields.get(&number)
    }
}

/// The message of a name in the table.
pub(super) fn message(name: &str) -> Option<&'static Message> {
    TABLE.get(name)
}

/// The message of an object. Options and Status go with every group.
pub(super) fn message_of(api_version: &str, kind: &str) -> Option<&'static Message> {
    let (group, version) = split_api_version(api_version);
    let package = match group.split('.').next().unwrap_or_default() {
        "" => "core",
        first => first,
    };
    let common = matches!(kind, "DeleteOptions" | "Status");
    if common {
        message(&format!("meta.v1.{kind}"))
    } else {
        message(&format!("{package}.{version}.{kind}"))
    }
}

fn parse(source: &'static str) -> BTreeMap<&'static str, Message> {
    let mut messages: BTreeMap<&str, Message> = BTreeMap::new();
    let mut current = "";
    for line in source.lines() {
        match field(line) {
            Some((number, field)) => {
                if let Some(message) = messages.get_mut(current) {
                    message.fields.insert(number, field);
                }
            }
            None => {
                current = line;
                messages.insert(
                    line,
                    Message {
                        name: line,
                        fields: BTreeMap::new(),
                    },
                );
            }
        }
    }
    messages
}

fn field(line: &'static str) -> Option<(u32, Field)> {
    let (number, rest) = line.strip_prefix(' ')?.split_once(' ')?;
    let (name, kind) = rest.split_once(' ')?;
    let says_zero = kind.ends_with('!');
    let kind = kind.trim_end_matches('!');
    let (shape, word) = if let Some(word) = kind.strip_prefix("[]") {
        (Shape::List, word)
    } else if let Some(word) = kind.strip_prefix("{}") {
        (Shape::Map, word)
    } else if name == "+" {
        (Shape::InLine, kind)
    } else {
        (Shape::One, kind)
    };
    let form = match word {
        "bool" => Form::Bool,
        "int32" => Form::Int32,
        "int64" => Form::Int64,
        "string" => Form::Text,
        "bytes" => Form::Bytes,
        "time" => Form::Time,
        "micro-time" => Form::MicroTime,
        "quantity" => Form::Quantity,
        "int-or-string" => Form::IntOrString,
        "raw" => Form::Raw,
        "strings" => Form::Texts,
        name => Form::Message(name),
    };
    let field = Field {
        name,
        shape,
        form,
        says_zero,
    };
    Some((number.parse().ok()?, field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;

    #[test]
    fn every_served_kind_has_a_message() {
        // Clients of definitions send JSON: a schema has no fixed fields.
        for kind in kinds::all().filter(|kind| kind.group != "apiextensions.k8s.io") {
            assert!(
                message_of(&kind.api_version(), kind.kind).is_some(),
                "{}",
                kind.kind
            );
            for sub in kind.subresources {
                // Logs and the like are no objects.
                let api_version = match sub.group {
                    "" => sub.version.to_owned(),
                    group => format!("{group}/{}", sub.version),
                };
                assert!(
                    sub.verbs == ["get"]
                        || sub.kind.ends_with("Options")
                        || message_of(&api_version, sub.kind).is_some(),
                    "{} {}",
                    sub.name,
                    sub.kind
                );
            }
        }
        assert!(message_of("apps/v1", "DeleteOptions").is_some());
        assert!(message_of("authentication.k8s.io/v1", "SelfSubjectReview").is_some());
        assert!(message_of("apps/v1beta1", "Deployment").is_none());
    }

    #[test]
    fn every_line_is_read_and_every_message_is_there() {
        let fields = SOURCE.lines().filter(|line| line.starts_with(' ')).count();
        assert_eq!(
            fields,
            TABLE
                .values()
                .map(|message| message.fields.len())
                .sum::<usize>()
        );
        assert_eq!(
            SOURCE.lines().count() - fields,
            TABLE.len(),
            "a message is there twice"
        );
        for owner in TABLE.values() {
            for field in owner.fields.values() {
                if let Form::Message(name) = field.form {
                    assert!(message(name).is_some(), "{}: {name}", owner.name);
                } else {
                    assert_ne!(field.shape, Shape::InLine, "{}", owner.name);
                }
            }
        }
    }
}
