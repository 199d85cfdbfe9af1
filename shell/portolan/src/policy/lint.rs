//! `portolan policy lint`: what is odd about policies by themselves.

use std::process::ExitCode;

use anyhow::Result;
use portolan_why::doctor::{Finding, Severity};
use portolan_why::policy::{World, lint};
use serde_json::{Value, json};

use super::{look, namespaces};
use crate::cli::{LintArgs, ReportOutput};
use crate::connect::Session;
use crate::out;
use crate::verbs::get::print_value;

/// Runs the command. The exit code is 1 if there is more than notes.
pub(crate) async fn run(args: LintArgs) -> Result<ExitCode> {
    let session = Session::open(&args.connection).await?;
    let (observed, plans) = look(&session).await?;
    let world = World::new(&observed.cluster, &plans);
    let namespaces = namespaces(&session, args.all_namespaces);
    let mut found = lint(&world, &observed.problems, namespaces.as_ref());
    // The worst first; otherwise as they are found.
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let ill = found
        .iter()
        .any(|finding| finding.severity > Severity::Note);
    match args.output {
        Some(output) => {
            let items: Vec<Value> = found.iter().map(value).collect();
            print_value(&json!({ "items": items }), output == ReportOutput::Yaml)?;
        }
        None if found.is_empty() => out::line("Nothing is odd."),
        None => print(&found, args.all_namespaces),
    }
    Ok(if ill {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn print(found: &[Finding], all_namespaces: bool) {
    let mut head = vec!["LEVEL", "OBJECT", "FIELD", "WHAT", "FIX"];
    if all_namespaces {
        head.insert(0, "NAMESPACE");
    }
    let head: Vec<String> = head.into_iter().map(str::to_owned).collect();
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|finding| {
            let mend = finding.mend.as_ref().map(|mend| mend.text.clone());
            let mut row = vec![
                finding.severity.name().to_owned(),
                finding.object.clone(),
                finding.field.clone(),
                finding.message.clone(),
                mend.unwrap_or_default(),
            ];
            if all_namespaces {
                row.insert(0, finding.namespace.clone());
            }
            row
        })
        .collect();
    out::raw(out::table(&head, &rows).as_bytes());
}

fn value(finding: &Finding) -> Value {
    json!({
        "level": finding.severity.name(),
        "namespace": Some(&finding.namespace).filter(|name| !name.is_empty()),
        "object": finding.object,
        "field": finding.field,
        "message": finding.message,
        "fix": finding.mend.as_ref().map(|mend| mend.text.as_str()),
    })
}
