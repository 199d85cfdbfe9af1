//! The plugin onto a node: its program among the plugins, and its name behind theirs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::NAME;
use crate::cli::{FolderArgs, InstallArgs};
use crate::out;

/// Puts the program there first: a configuration never names a plugin that is not.
pub(super) fn install(args: &InstallArgs) -> Result<()> {
    let conf = match &args.conf {
        Some(path) => args.folders.conf_dir.join(path),
        None => first(&args.folders.conf_dir)?,
    };
    let entry = json!({
        "type": NAME, "socket": args.socket, "timeoutSeconds": args.timeout,
        "whenAway": args.when_away.word(),
    });
    let (text, list) = read(&conf)?;
    let with = with_plugin(list, Some(&entry))
        .with_context(|| format!("{} is no list of plugins", conf.display()))?;
    put_program(&args.folders.bin_dir)?;
    write_if_other(&conf, &text, &with)
}

/// Takes the name out of every list, and then the program away.
pub(super) fn uninstall(args: &FolderArgs) -> Result<()> {
    for conf in configurations(&args.conf_dir)? {
        let (text, list) = read(&conf)?;
        if let Some(without) = with_plugin(list, None) {
            write_if_other(&conf, &text, &without)?;
        }
    }
    let program = args.bin_dir.join(NAME);
    match fs::remove_file(&program) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", program.display()))
        }
        removed => {
            if removed.is_ok() {
                out::line(format_args!("removed {}", program.display()));
            }
            Ok(())
        }
    }
}

/// The files that container runtimes read, in their order.
fn configurations(dir: &Path) -> Result<Vec<PathBuf>> {
    let read = fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    let mut found = Vec::new();
    for entry in read {
        let path = entry?.path();
        let kind = path.extension().and_then(|kind| kind.to_str());
        if matches!(kind, Some("conf" | "conflist" | "json")) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn first(dir: &Path) -> Result<PathBuf> {
    let first = configurations(dir)?.into_iter().next();
    first.with_context(|| {
        format!(
            "no CNI configuration in {}: install the cluster's network first, and then this",
            dir.display()
        )
    })
}

fn read(conf: &Path) -> Result<(String, Value)> {
    let text = fs::read_to_string(conf).with_context(|| format!("read {}", conf.display()))?;
    let list = serde_json::from_str(&text);
    let list = list.with_context(|| format!("{} is not JSON", conf.display()))?;
    Ok((text, list))
}

/// A list with the plugin at its end, or without it; nothing of what is no list. A
/// single plugin's configuration becomes a list.
fn with_plugin(mut conf: Value, entry: Option<&Value>) -> Option<Value> {
    if conf.get("plugins").is_none() && conf["type"].is_string() {
        entry?;
        let inner = conf.as_object_mut()?;
        let mut list = json!({"plugins": []});
        for field in ["cniVersion", "name"] {
            if let Some(value) = inner.remove(field) {
                list[field] = value;
            }
        }
        list["plugins"] = json!([conf]);
        conf = list;
    }
    let plugins = conf.get_mut("plugins")?.as_array_mut()?;
    plugins.retain(|plugin| plugin["type"] != NAME);
    plugins.extend(entry.cloned());
    Some(conf)
}

/// Copies this very program, so that it is whole whenever it is there.
fn put_program(bin_dir: &Path) -> Result<()> {
    let program = bin_dir.join(NAME);
    let partial = bin_dir.join(format!(".{NAME}.{}", std::process::id()));
    let own = "/proc/self/exe";
    let put = fs::copy(own, &partial)
        .and_then(|_| fs::set_permissions(&partial, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::rename(&partial, &program));
    put.with_context(|| format!("put {}", program.display()))?;
    out::line(format_args!("put {}", program.display()));
    Ok(())
}

/// Replaces a configuration, whole, if it says something else now.
fn write_if_other(conf: &Path, before: &str, after: &Value) -> Result<()> {
    if serde_json::from_str::<Value>(before).is_ok_and(|before| before == *after) {
        return Ok(());
    }
    let Some(name) = conf.file_name().and_then(|name| name.to_str()) else {
        bail!("{} is no file", conf.display());
    };
    // The end of this name is one that runtimes pass over. A list that was the
    // configuration of a single plugin keeps its name only if runtimes read lists there.
    let partial = conf.with_file_name(format!(".{name}.{}", std::process::id()));
    let list = conf.with_extension("conflist");
    let put = fs::write(&partial, format!("{after:#}\n"))
        .and_then(|()| fs::set_permissions(&partial, fs::metadata(conf)?.permissions()))
        .and_then(|()| fs::rename(&partial, &list));
    put.with_context(|| format!("write {}", list.display()))?;
    if list != conf {
        fs::remove_file(conf).with_context(|| format!("remove {}", conf.display()))?;
    }
    out::line(format_args!("changed {}", list.display()));
    Ok(())
}
