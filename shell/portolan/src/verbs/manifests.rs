//! Manifests from files, folders and standard input.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Reads every object of the given files, in order; a `List` is taken apart.
pub(crate) fn read(files: &[PathBuf]) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for file in files {
        if file.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("read standard input")?;
            objects.extend(parse("STDIN", &text)?);
        } else if file.is_dir() {
            for path in manifests_in(file)? {
                objects.extend(read_one(&path)?);
            }
        } else {
            objects.extend(read_one(file)?);
        }
    }
    if objects.is_empty() {
        bail!("error: no objects passed to apply");
    }
    Ok(objects)
}

/// As [`read`], but no files at all are no objects.
pub(crate) fn read_if_any(files: &[PathBuf]) -> Result<Vec<Value>> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    read(files)
}

fn read_one(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| {
        format!(
            "error: the path {:?} cannot be read",
            path.display().to_string()
        )
    })?;
    parse(&path.display().to_string(), &text)
}

fn parse(name: &str, text: &str) -> Result<Vec<Value>> {
    let objects = portolan_api::yaml::parse(text)
        .map_err(|e| anyhow::anyhow!("error: error parsing {name}: {e}"))?;
    for object in &objects {
        for field in ["apiVersion", "kind"] {
            if !object[field].is_string() {
                bail!("error: error validating {name:?}: error validating data: {field} not set");
            }
        }
    }
    Ok(objects)
}

fn manifests_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("read {}", folder.display()))?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| {
            p.extension()
                .is_some_and(|x| x == "yaml" || x == "yml" || x == "json")
        })
        .collect();
    found.sort();
    Ok(found)
}
