//! Checkups as people read them: colour only on a terminal.

use anstyle::{AnsiColor, Style};
use portolan_why::doctor::{Checkup, Finding, Mark, Severity};

use crate::out::{self, BAD, DIM, GOOD, HEAD, styled};

/// For what works, but not for sure.
const UNSURE: Style = AnsiColor::Yellow.on_default().bold();

fn sign(mark: Mark) -> String {
    match mark {
        Mark::Ok => styled(GOOD, "✓"),
        Mark::Warning => styled(UNSURE, "!"),
        Mark::Fault => styled(BAD, "✗"),
        Mark::Skipped => styled(DIM, "–"),
    }
}

fn style(severity: Severity) -> Style {
    match severity {
        Severity::Fault => BAD,
        Severity::Warning => UNSURE,
        Severity::Note => DIM,
    }
}

/// One Service: the checklist, then each finding with what mends it.
pub(super) fn checkup(checkup: &Checkup) {
    let Checkup {
        namespace,
        name,
        title,
        ..
    } = checkup;
    let head = styled(HEAD, format_args!("service/{name}"));
    out::line(format_args!("{head} in namespace {namespace}: {title}"));
    out::line("");
    for step in &checkup.steps {
        let mark = step.mark();
        let line = format!("{:<10} {}", step.step.name(), step.summary);
        let line = if mark == Mark::Skipped {
            styled(DIM, line)
        } else {
            line
        };
        out::line(format_args!("  {} {line}", sign(mark)));
    }
    // The worst first; within one severity in the order of the steps.
    let mut findings: Vec<&Finding> = checkup.findings().collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    for found in findings {
        out::line("");
        finding(checkup, found);
    }
    out::line("");
    out::line(verdict(checkup));
}

fn finding(checkup: &Checkup, finding: &Finding) {
    let word = styled(
        style(finding.severity),
        format_args!("{}:", finding.severity.name()),
    );
    let elsewhere = !finding.namespace.is_empty() && finding.namespace != checkup.namespace;
    let object = if elsewhere {
        format!("{} (namespace {})", finding.object, finding.namespace)
    } else {
        finding.object.clone()
    };
    out::line(format_args!("{word} {object} {}", finding.field));
    out::line(format_args!("  {}", finding.message));
    let Some(mend) = &finding.mend else { return };
    out::line(format_args!("  to mend it: {}", mend.text));
    if let Some(command) = &mend.command {
        out::line(format_args!("    {command}"));
    }
}

/// `1 fault, 2 warnings`.
fn counts(checkup: &Checkup) -> String {
    let words = [(Severity::Fault, "fault"), (Severity::Warning, "warning")];
    let counted = words.into_iter().filter_map(|(severity, word)| {
        let number = checkup.count(severity);
        let ending = if number == 1 { "" } else { "s" };
        (number > 0).then(|| format!("{number} {word}{ending}"))
    });
    counted.collect::<Vec<_>>().join(", ")
}

fn verdict(checkup: &Checkup) -> String {
    match (checkup.has_faults(), checkup.count(Severity::Warning)) {
        (true, _) => styled(BAD, counts(checkup)),
        (false, 0) => styled(GOOD, "Nothing is wrong."),
        (false, _) => format!("{} {}.", styled(GOOD, "No fault:"), counts(checkup)),
    }
}

/// A line for each Service.
pub(super) fn overview(checkups: &[Checkup], all_namespaces: bool) {
    let mut head = vec!["NAME", "RESULT", "WHAT IS WRONG"];
    if all_namespaces {
        head.insert(0, "NAMESPACE");
    }
    let head: Vec<String> = head.into_iter().map(str::to_owned).collect();
    let rows: Vec<Vec<String>> = checkups
        .iter()
        .map(|checkup| {
            let mut findings: Vec<&Finding> = checkup
                .findings()
                .filter(|f| f.severity > Severity::Note)
                .collect();
            findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
            let result = findings
                .first()
                .map_or("ok", |finding| finding.severity.name());
            let more = match findings.len() {
                0 | 1 => String::new(),
                n => format!(" (and {} more)", n - 1),
            };
            let what = findings
                .first()
                .map(|f| format!("{} {}: {}{more}", f.object, f.field, f.message));
            let mut row = vec![
                checkup.name.clone(),
                result.to_owned(),
                what.unwrap_or_default(),
            ];
            if all_namespaces {
                row.insert(0, checkup.namespace.clone());
            }
            row
        })
        .collect();
    out::raw(out::table(&head, &rows).as_bytes());
}
