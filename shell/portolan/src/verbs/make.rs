//! Making one object, or only showing what would be made.

use anyhow::{Result, bail};
use http::Method;
use serde_json::{Map, Value, json};

use super::get::print_value;
use crate::cli::{DryRun, ObjectOutput, Rehearsal};
use crate::connect::{Call, Session};
use crate::out;

/// Creates an object and says so: `service/web exposed`.
pub(crate) async fn create(
    session: &Session,
    path: &str,
    object: &Value,
    dry_run: DryRun,
    done: &str,
) -> Result<()> {
    let (made, note) = match dry_run.who {
        Rehearsal::Client => (object.clone(), " (dry run)"),
        Rehearsal::Server | Rehearsal::None => {
            let (query, note) = if dry_run.who == Rehearsal::Server {
                ("?dryRun=All", " (server dry run)")
            } else {
                ("", "")
            };
            let path = format!("{path}{query}");
            let call = Call::sending(Method::POST, &path, "application/json", object);
            (session.call(&call).await?.body, note)
        }
    };
    let kind = made["kind"].as_str().unwrap_or_default().to_lowercase();
    let name = made["metadata"]["name"].as_str().unwrap_or_default();
    match dry_run.output {
        Some(ObjectOutput::Json) => print_value(&made, false)?,
        Some(ObjectOutput::Yaml) => print_value(&made, true)?,
        Some(ObjectOutput::Name) => out::line(format_args!("{kind}/{name}")),
        None => out::line(format_args!("{kind}/{name} {done}{note}")),
    }
    Ok(())
}

/// `a=b,c=d` as a map.
pub(crate) fn pairs(text: &str) -> Result<Value> {
    let mut map = Map::new();
    for pair in text.split(',').filter(|p| !p.is_empty()) {
        match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                map.insert(key.to_owned(), json!(value));
            }
            _ => bail!("error: unexpected label spec: {pair}"),
        }
    }
    Ok(Value::Object(map))
}
