//! `portolan policy matrix`: who can reach whom.

use std::process::ExitCode;

use anyhow::Result;
use portolan_why::policy::{Matrix, World, matrix};

use super::{ends, look, namespaces};
use crate::cli::{MatrixArgs, ReportOutput};
use crate::connect::Session;
use crate::out;
use crate::verbs::get::print_value;

/// Runs the command.
pub(crate) async fn run(args: MatrixArgs) -> Result<ExitCode> {
    let session = Session::open(&args.connection).await?;
    let protocol = ends::protocol(&args.protocol)?;
    let (observed, plans) = look(&session).await?;
    let world = World::new(&observed.cluster, &plans);
    let namespaces = namespaces(&session, args.all_namespaces);
    let only = args.port.map(|port| (protocol, port));
    let found = matrix(&world, namespaces.as_ref(), only);
    if let Some(output) = args.output {
        print_value(&found.json(), output == ReportOutput::Yaml)?;
        return Ok(ExitCode::SUCCESS);
    }
    if found.groups.is_empty() {
        out::note(if args.all_namespaces {
            "No pods with addresses found".to_owned()
        } else {
            format!(
                "No pods with addresses found in {} namespace.",
                session.namespace
            )
        });
        return Ok(ExitCode::SUCCESS);
    }
    out::raw(text(&found, args.port.is_some()).as_bytes());
    if found.left_out > 0 {
        out::note(format_args!(
            "{} pods more are left out: ask for one namespace",
            found.left_out
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// The table; for one port with yes and no.
fn text(found: &Matrix, one: bool) -> String {
    let names = found.names();
    let mut head = vec!["FROM \\ TO".to_owned()];
    head.extend(names.iter().cloned());
    let word = |cell: String| match cell.as_str() {
        "all" if one => "yes".to_owned(),
        "-" if one => "no".to_owned(),
        _ => cell,
    };
    let rows: Vec<Vec<String>> = names
        .iter()
        .enumerate()
        .map(|(from, name)| {
            let cells = (0..names.len()).map(|to| word(found.cell(from, to)));
            [name.clone()].into_iter().chain(cells).collect()
        })
        .collect();
    out::table(&head, &rows)
}
