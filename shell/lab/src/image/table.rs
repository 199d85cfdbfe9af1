//! The table of image names: a text that ships with the program.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{ECHO, Found, HOST, canonical, repository};

/// The table that ships with the program.
const SHIPPED: &str = include_str!("table.yaml");

/// Which built-in image stands behind a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Serves {
    /// The application that answers who it is.
    Echo,
    /// The machine's file system, read-only.
    Host,
}

/// Whose flags a container's args are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arguments {
    /// Those of a program that is not here.
    #[default]
    Ignored,
    /// The application's own.
    Echo,
    /// `-listen` and `-text` of hashicorp/http-echo.
    HttpEcho,
    /// `netexec`, `serve-hostname` and `pause` of agnhost.
    Agnhost,
}

/// One row: a name and what the lab makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// The name without tag.
    pub image: String,
    /// What stands behind it.
    pub serves: Serves,
    /// HTTP ports of the image.
    #[serde(default)]
    pub http: Vec<u16>,
    /// TCP ports of the image.
    #[serde(default)]
    pub tcp: Vec<u16>,
    /// What runs when the pod says nothing.
    #[serde(default)]
    pub command: Vec<String>,
    /// What the image's entry point puts before flags.
    #[serde(default)]
    pub program: Option<String>,
    /// Whose flags the args are.
    #[serde(default)]
    pub arguments: Arguments,
}

/// Why a table could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the image table: {message}")]
pub struct TableError {
    message: String,
}

/// All images of a lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageTable {
    by_name: BTreeMap<String, Image>,
}

impl ImageTable {
    /// The table that ships with the program.
    pub fn shipped() -> Result<Self, TableError> {
        Self::parse(SHIPPED)
    }

    /// A table from its YAML text; of two rows of one name the later counts.
    pub fn parse(yaml: &str) -> Result<Self, TableError> {
        let rows: Vec<Image> = serde_saphyr::from_str(yaml).map_err(|e| TableError {
            message: e.to_string(),
        })?;
        let by_name = rows
            .into_iter()
            .map(|row| (row.image.clone(), row))
            .collect();
        Ok(Self { by_name })
    }

    /// Adds rows; those of a known name replace it.
    pub fn extend(&mut self, more: ImageTable) {
        self.by_name.extend(more.by_name);
    }

    /// What stands behind the name that a pod gives.
    pub fn find(&self, image: &str) -> Found<'_> {
        if let Some(message) = invalid(image) {
            return Found::Invalid { message };
        }
        let name = repository(image);
        match self.by_name.get(name) {
            Some(row) if name == ECHO || name == HOST => Found::BuiltIn(row),
            Some(row) => Found::Mapped(row),
            None => {
                let whole = canonical(image);
                let message = format!(
                    "failed to pull and unpack image {whole:?}: failed to resolve reference {whole:?}: \
                     {whole}: not found (a lab pulls no images; it has {ECHO}, {HOST} and the names of its image table)"
                );
                Found::Unknown { message }
            }
        }
    }
}

impl Image {
    /// What the event on the pod says about a stand-in.
    pub fn mapped_message(&self, image: &str) -> String {
        let built_in = match self.serves {
            Serves::Echo => ECHO,
            Serves::Host => HOST,
        };
        format!("Image {image:?} is served by the built-in {built_in} (lab image table)")
    }
}

/// kubelet's complaint about a name that cannot be one.
fn invalid(image: &str) -> Option<String> {
    let name = repository(image);
    let complaint = if name.is_empty() {
        "invalid reference format"
    } else if name.chars().any(|c| c.is_ascii_uppercase()) {
        "invalid reference format: repository name must be lowercase"
    } else if image.contains(char::is_whitespace) || image.ends_with(':') || name.contains("//") {
        "invalid reference format"
    } else {
        return None;
    };
    Some(format!(
        "Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: {complaint}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_table_has_the_images_of_the_cases() {
        let table = ImageTable::shipped().unwrap();
        for (image, serves) in [
            ("nginx:1.27", Serves::Echo),
            ("busybox:1.36", Serves::Host),
            ("curlimages/curl", Serves::Host),
            ("postgres:16", Serves::Echo),
            ("registry.k8s.io/e2e-test-images/agnhost:2.53", Serves::Echo),
            (
                "registry.k8s.io/e2e-test-images/jessie-dnsutils:1.3",
                Serves::Host,
            ),
        ] {
            let Found::Mapped(row) = table.find(image) else {
                panic!("{image} is not in the table");
            };
            assert_eq!(row.serves, serves, "{image}");
        }
        assert!(matches!(table.find("portolan/echo"), Found::BuiltIn(_)));
        assert!(matches!(table.find("host:latest"), Found::BuiltIn(_)));
        assert!(matches!(table.find("nosuch:1"), Found::Unknown { .. }));
        for image in ["Nginx", "", "nginx:", "a b"] {
            assert!(
                matches!(table.find(image), Found::Invalid { .. }),
                "{image}"
            );
        }
    }

    #[test]
    fn an_event_names_the_stand_in() {
        let table = ImageTable::shipped().unwrap();
        let Found::Mapped(row) = table.find("nginx:1.27") else {
            panic!("not mapped")
        };
        assert_eq!(
            row.mapped_message("nginx:1.27"),
            "Image \"nginx:1.27\" is served by the built-in portolan/echo (lab image table)"
        );
    }

    #[test]
    fn a_bad_table_is_refused() {
        let error = ImageTable::parse("- { image: x, serves: nothing }").unwrap_err();
        assert!(
            error.to_string().contains("cannot read the image table"),
            "{error}"
        );
        assert!(ImageTable::parse("- { image: x, serves: host, colour: red }").is_err());
    }
}
