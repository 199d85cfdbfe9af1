//! `portolan get`: the server's tables, printed.

use anyhow::{Context, Result, bail};
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::encoded;
use crate::cli::{GetArgs, Output};
use crate::connect::{Call, Session};
use crate::out;
use crate::resources::{Resource, Resources};

/// The server renders the table; a server that cannot answers with the objects.
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Runs the verb.
pub(crate) async fn run(args: GetArgs) -> Result<()> {
    let session = Session::open(&args.connection).await?;
    let resources = Resources::discover(&session).await?;
    let targets = resources.parse(&args.resources)?;
    if args.all_namespaces && targets.iter().any(|(_, name)| name.is_some()) {
        bail!("error: a resource cannot be retrieved by name across all namespaces");
    }
    if args.watch {
        let [(resource, name)] = targets.as_slice() else {
            bail!("error: you may only specify a single resource type when watching");
        };
        return watch(&session, &args, resource, name.as_deref()).await;
    }
    match args.output {
        Some(output @ (Output::Json | Output::Yaml | Output::Name)) => {
            objects(&session, &args, &targets, output).await
        }
        Some(Output::Wide) | None => tables(&session, &args, &targets).await,
    }
}

fn path(
    session: &Session,
    args: &GetArgs,
    resource: &Resource,
    name: Option<&str>,
    fields: Option<&String>,
) -> String {
    let namespace = (!args.all_namespaces).then_some(session.namespace.as_str());
    let mut path = resource.path(namespace, name);
    let mut separator = '?';
    for (key, value) in [
        ("labelSelector", args.selector.as_ref()),
        ("fieldSelector", fields),
    ] {
        if let Some(value) = value {
            path.push_str(&format!("{separator}{key}={}", encoded(value)));
            separator = '&';
        }
    }
    path
}

async fn tables(
    session: &Session,
    args: &GetArgs,
    targets: &[(Resource, Option<String>)],
) -> Result<()> {
    let mut printed = false;
    let several = targets
        .iter()
        .any(|(r, _)| targets.first().is_some_and(|(f, _)| r.plural != f.plural));
    let mut last_head: Option<Vec<String>> = None;
    for (resource, name) in targets {
        let path = path(
            session,
            args,
            resource,
            name.as_deref(),
            args.field_selector.as_ref(),
        );
        let table = session
            .call(&Call {
                accept: TABLE,
                ..Call::get(&path)
            })
            .await?
            .body;
        let mut view = View::of(&table, Columns::of(args, resource));
        if view.rows.is_empty() {
            continue;
        }
        if several {
            view.prefix_names(resource);
        }
        let same_columns = last_head.as_ref() == Some(&view.head);
        if printed && !same_columns {
            out::line("");
        }
        let head = if args.no_headers || same_columns {
            Vec::new()
        } else {
            view.head.clone()
        };
        out::raw(out::table(&head, &view.rows).as_bytes());
        last_head = Some(view.head);
        printed = true;
    }
    if !printed {
        let scope = if args.all_namespaces || targets.iter().all(|(r, _)| !r.namespaced) {
            String::new()
        } else {
            format!(" in {} namespace", session.namespace)
        };
        out::note(format_args!("No resources found{scope}"));
    }
    Ok(())
}

/// The table of one or more resources in the session's namespace, as `get` prints it.
pub(crate) async fn table_text(session: &Session, words: &[String], wide: bool) -> Result<String> {
    let resources = Resources::discover(session).await?;
    let mut text = String::new();
    for (resource, name) in resources.parse(words)? {
        let path = resource.path(Some(&session.namespace), name.as_deref());
        let table = session
            .call(&Call {
                accept: TABLE,
                ..Call::get(&path)
            })
            .await?
            .body;
        let columns = Columns {
            wide,
            ..Columns::default()
        };
        let view = View::of(&table, columns);
        text.push_str(&out::table(&view.head, &view.rows));
    }
    Ok(text)
}

/// Which columns a table shows.
#[derive(Debug, Clone, Copy, Default)]
struct Columns {
    wide: bool,
    namespace: bool,
    labels: bool,
}

impl Columns {
    fn of(args: &GetArgs, resource: &Resource) -> Self {
        Self {
            wide: args.output == Some(Output::Wide),
            namespace: args.all_namespaces && resource.namespaced,
            labels: args.show_labels,
        }
    }
}

/// A server-side Table, reduced to what is shown.
struct View {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    name_column: usize,
}

impl View {
    fn of(table: &Value, columns: Columns) -> Self {
        let definitions = table["columnDefinitions"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let shown: Vec<usize> = definitions
            .iter()
            .enumerate()
            .filter(|(_, d)| columns.wide || d["priority"].as_i64().unwrap_or(0) == 0)
            .map(|(i, _)| i)
            .collect();
        let with_namespace = columns.namespace;
        let mut head: Vec<String> = with_namespace
            .then(|| "NAMESPACE".to_owned())
            .into_iter()
            .collect();
        let names = shown.iter().filter_map(|i| definitions.get(*i));
        head.extend(names.map(|d| d["name"].as_str().unwrap_or_default().to_uppercase()));
        if columns.labels {
            head.push("LABELS".to_owned());
        }
        let mut rows = Vec::new();
        for row in table["rows"].as_array().into_iter().flatten() {
            let metadata = &row["object"]["metadata"];
            let mut cells = Vec::new();
            if with_namespace {
                cells.push(
                    metadata["namespace"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                );
            }
            cells.extend(shown.iter().map(|i| cell(&row["cells"][*i])));
            if columns.labels {
                cells.push(labels(&metadata["labels"]));
            }
            rows.push(cells);
        }
        Self {
            head,
            rows,
            name_column: usize::from(with_namespace),
        }
    }

    fn prefix_names(&mut self, resource: &Resource) {
        for row in &mut self.rows {
            if let Some(name) = row.get_mut(self.name_column) {
                *name = resource.named(name);
            }
        }
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => "<none>".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn labels(labels: &Value) -> String {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    if pairs.is_empty() {
        "<none>".to_owned()
    } else {
        pairs.join(",")
    }
}

async fn objects(
    session: &Session,
    args: &GetArgs,
    targets: &[(Resource, Option<String>)],
    output: Output,
) -> Result<()> {
    let mut items = Vec::new();
    let mut single = None;
    for (resource, name) in targets {
        let path = path(
            session,
            args,
            resource,
            name.as_deref(),
            args.field_selector.as_ref(),
        );
        let answer = session.call(&Call::get(&path)).await?.body;
        if name.is_some() {
            items.push((resource.clone(), answer.clone()));
            single = Some(answer);
            continue;
        }
        let api_version = answer["apiVersion"].clone();
        for item in answer["items"].as_array().into_iter().flatten() {
            let mut item = item.clone();
            if let Some(map) = item.as_object_mut() {
                map.entry("apiVersion")
                    .or_insert_with(|| api_version.clone());
                map.entry("kind").or_insert_with(|| json!(resource.kind));
            }
            items.push((resource.clone(), item));
        }
    }
    if output == Output::Name {
        for (resource, item) in &items {
            out::line(resource.named(item["metadata"]["name"].as_str().unwrap_or_default()));
        }
        return Ok(());
    }
    let value = match single.filter(|_| targets.len() == 1) {
        Some(one) => one,
        None => {
            let all: Vec<Value> = items.into_iter().map(|(_, v)| v).collect();
            json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": all})
        }
    };
    print_value(&value, output == Output::Yaml)
}

/// Prints a value as YAML or indented JSON.
pub(crate) fn print_value(value: &Value, yaml: bool) -> Result<()> {
    if yaml {
        let text = serde_saphyr::to_string(value).context("write YAML")?;
        out::line(text.trim_end());
    } else {
        out::line(serde_json::to_string_pretty(value)?);
    }
    Ok(())
}

/// `-w`: the rows of now, then one row per change.
async fn watch(
    session: &Session,
    args: &GetArgs,
    resource: &Resource,
    name: Option<&str>,
) -> Result<()> {
    let mut selector = args.field_selector.clone();
    if let Some(name) = name {
        selector = Some(format!("metadata.name={name}"));
    }
    let base = path(session, args, resource, None, selector.as_ref());
    let separator = if base.contains('?') { '&' } else { '?' };
    let table = session
        .call(&Call {
            accept: TABLE,
            ..Call::get(&base)
        })
        .await?
        .body;
    let first = View::of(&table, Columns::of(args, resource));
    let head = if args.no_headers {
        Vec::new()
    } else {
        first.head.clone()
    };
    out::raw(out::table(&head, &first.rows).as_bytes());
    let widths = first;
    let version = table["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let path = format!("{base}{separator}watch=true&resourceVersion={version}");
    let body = session
        .stream(&Call {
            accept: TABLE,
            ..Call::get(&path)
        })
        .await?;
    let reader = body
        .into_data_stream()
        .map_err(std::io::Error::other)
        .into_async_read();
    let mut lines = reader.lines();
    while let Some(line) = lines.next().await {
        let event: Value = serde_json::from_str(&line.context("the watch broke off")?)?;
        if event["type"] == "ERROR" {
            bail!(
                "{}",
                event["object"]["message"]
                    .as_str()
                    .unwrap_or("the watch ended")
            );
        }
        let view = View::of(&event["object"], Columns::of(args, resource));
        // Rows of a watch keep the columns of the first table, as kubectl's do.
        let mut rows: Vec<Vec<String>> = widths.rows.clone();
        rows.extend(view.rows.first().cloned());
        let shown = out::table(&widths.head, &rows);
        if let Some(last) = shown.lines().last() {
            out::line(last);
        }
    }
    Ok(())
}
