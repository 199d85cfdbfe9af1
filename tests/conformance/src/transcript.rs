//! Examples that are their own tests: the ```` ```console ```` blocks of a
//! README are typed in order, and what is printed must be what the README shows.
//!
//! - `$ COMMAND` is typed; the lines below it, up to the next command, are what
//!   must be seen. `…` stands for any text within a line; a line that is only
//!   `…` for any number of lines. Runs of spaces are one space.
//! - ```` ```console until ```` blocks are typed again until the output is as
//!   shown, up to a deadline: for what takes a moment.
//! - A line `# exit N` below a command says that it ends with that code.
//! - A command with `-it` is typed at a terminal, as it would be by hand.
//! - A line `lab: FLAGS` names flags of `portolan up` that the example needs.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::Lab;

/// How long an `until` block may take.
const DEADLINE: Duration = Duration::from_secs(45);
/// How often it is tried.
const LOOK: Duration = Duration::from_millis(200);

/// One command and what it must print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The command as typed.
    pub command: String,
    /// Lines that must be seen.
    pub shown: Vec<String>,
    /// The exit code it must end with.
    pub exit: i32,
    /// Typed again until it is as shown.
    pub until: bool,
}

/// Reads the steps of a README.
pub fn read(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut block: Option<bool> = None;
    for line in text.lines() {
        if let Some(info) = line.strip_prefix("```") {
            block = match (block, info.trim()) {
                (None, "console") => Some(false),
                (None, "console until") => Some(true),
                _ => None,
            };
            continue;
        }
        let Some(until) = block else { continue };
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step {
                command: command.to_owned(),
                shown: Vec::new(),
                exit: 0,
                until,
            });
        } else if let Some(step) = steps.last_mut() {
            match line
                .strip_prefix("# exit ")
                .and_then(|code| code.trim().parse().ok())
            {
                Some(code) => step.exit = code,
                None => step.shown.push(line.to_owned()),
            }
        }
    }
    steps
}

/// The flags of `portolan up` that a README asks for.
pub fn lab_flags(text: &str) -> Vec<&str> {
    let lines = text.lines().filter_map(|l| l.strip_prefix("lab: "));
    lines.flat_map(str::split_whitespace).collect()
}

/// Types every step of `folder/README.md` in the lab.
///
/// # Errors
/// At the first step that does not print what is shown.
pub fn run(lab: &Lab, folder: &Path) -> Result<()> {
    let text = fs::read_to_string(folder.join("README.md"))
        .with_context(|| folder.display().to_string())?;
    let steps = read(&text);
    if steps.is_empty() {
        bail!("{}: no console block", folder.display());
    }
    for step in &steps {
        run_step(lab, folder, step)
            .with_context(|| format!("{}: $ {}", folder.display(), step.command))?;
    }
    Ok(())
}

fn run_step(lab: &Lab, folder: &Path, step: &Step) -> Result<()> {
    let end = Instant::now() + DEADLINE;
    loop {
        let out = typed(lab, folder, &step.command)?;
        let printed = String::from_utf8_lossy(&out.stdout).replace('\r', "");
        let code = out.status.code().unwrap_or(-1);
        let lines: Vec<&str> = printed.lines().collect();
        if code == step.exit && matches(&step.shown, &lines) {
            return Ok(());
        }
        if !step.until || Instant::now() >= end {
            bail!(
                "must end with {} and show\n{}\nended with {code} and showed\n{printed}",
                step.exit,
                step.shown.join("\n")
            );
        }
        std::thread::sleep(LOOK);
    }
}

/// Runs the command as a user's shell does; at a terminal where it asks for one.
fn typed(lab: &Lab, folder: &Path, command: &str) -> Result<Output> {
    if !command.contains(" -it ") {
        // Both outputs in the order in which they were written.
        return Ok(lab
            .shell(folder, &format!("exec 2>&1\n{command}"))
            .output()?);
    }
    // `script` gives a terminal, and passes the exit code on (util-linux).
    let mut child = lab
        .shell(folder, "exec script -qefc \"$TYPED\" /dev/null")
        .env("TYPED", command)
        .env("SHELL", "/bin/bash")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    // Nothing is typed, and nothing is said to be the end of what is typed.
    let keyboard = child.stdin.take();
    let out = child.wait_with_output()?;
    drop(keyboard);
    Ok(out)
}

/// Whether the printed lines are what is shown.
pub fn matches(shown: &[String], printed: &[&str]) -> bool {
    let Some((first, rest)) = shown.split_first() else {
        return printed.iter().all(|l| l.trim().is_empty());
    };
    if first.trim() == "…" {
        return (0..=printed.len())
            .any(|skip| matches(rest, printed.get(skip..).unwrap_or_default()));
    }
    match printed.split_first() {
        Some((line, others)) => line_matches(first, line) && matches(rest, others),
        None => shown.iter().all(|l| l.trim().is_empty()),
    }
}

fn line_matches(shown: &str, printed: &str) -> bool {
    let squeeze = |s: &str| s.split_whitespace().collect::<Vec<_>>().join(" ");
    let (shown, printed) = (squeeze(shown), squeeze(printed));
    let mut parts = shown.split('…');
    let head = parts.next().unwrap_or_default();
    let Some(mut rest) = printed.strip_prefix(head) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn commands_and_what_they_show_are_read() {
        let steps = read(
            "text\n```console\n$ true\n$ ls\na\nb\n```\n```sh\n$ not this\n```\n```console until\n$ x\n# exit 1\n```\n",
        );
        assert_eq!(steps.len(), 3);
        assert_eq!(steps[1].shown, ["a", "b"]);
        assert!(!steps[1].until);
        assert_eq!((steps[2].exit, steps[2].until), (1, true));
    }

    #[test]
    fn ellipses_stand_for_any_text() {
        assert!(matches(
            &lines("web   ClusterIP   10.96.…   <none>"),
            &["web  ClusterIP  10.96.3.4   <none>"]
        ));
        assert!(!matches(
            &lines("web ClusterIP 10.96.…"),
            &["web NodePort 10.96.3.4"]
        ));
        assert!(matches(&lines("a\n…\nz"), &["a", "b", "c", "z"]));
        assert!(!matches(&lines("a\n…\nz"), &["a", "b"]));
        assert!(matches(&lines("…"), &[]));
        assert!(!matches(&lines("a"), &["a", "b"]));
        assert!(!matches(&[], &["a"]));
    }
}
