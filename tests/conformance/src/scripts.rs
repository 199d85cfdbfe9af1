//! Scripts of other languages as tests: one lab for all of them, one trial each.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use libtest_mimic::{Arguments, Failed, Trial};

use crate::Lab;

/// How long one script may take, on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How to run the scripts of a language.
pub struct Language {
    /// The folder of the scripts.
    pub folder: &'static str,
    /// Files that end so are scripts.
    pub extension: &'static str,
    /// The interpreter, and what its environment needs.
    pub interpreter: fn() -> Result<Command>,
    /// Scripts and what they prove: trial names carry the rules.
    pub scripts: &'static [(&'static str, &'static str)],
}

/// Runs every script of a language as a trial, in one lab.
pub fn main(language: &'static Language) -> ExitCode {
    let arguments = Arguments::from_args();
    if arguments.list {
        let trials = trials(language, None);
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    // Scripts of one lab run one after another: they share its objects' names.
    let arguments = Arguments {
        test_threads: Some(1),
        ..arguments
    };
    let lab = match Lab::start(2, &[]) {
        Ok(lab) => Arc::new(lab),
        Err(error) => panic!("no lab: {error:#}"),
    };
    libtest_mimic::run(&arguments, trials(language, Some(lab))).exit_code()
}

fn trials(language: &'static Language, lab: Option<Arc<Lab>>) -> Vec<Trial> {
    let mut trials = vec![Trial::test("every_script_is_listed", || {
        every_script_is_listed(language).map_err(failed)
    })];
    for (script, proves) in language.scripts {
        let lab = lab.clone();
        trials.push(Trial::test(*proves, move || {
            let lab = lab.as_ref().ok_or("a list runs nothing")?;
            run(language, script, lab).map_err(failed)
        }));
    }
    trials
}

fn failed(error: anyhow::Error) -> Failed {
    Failed::from(format!("{error:#}"))
}

fn every_script_is_listed(language: &Language) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(language.folder);
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let script = name.ends_with(language.extension) && !name.starts_with("support.");
        if script && !language.scripts.iter().any(|(file, _)| *file == name) {
            bail!("{name} is not run by any test");
        }
    }
    Ok(())
}

/// Runs one script to its end; what it printed is the error.
fn run(language: &Language, script: &str, lab: &Lab) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(language.folder);
    let log = lab.data_dir().join(format!("{script}.log"));
    let out = fs::File::create(&log)?;
    let mut child = (language.interpreter)()?
        .arg(script)
        .current_dir(&folder)
        .env("KUBECONFIG", lab.kubeconfig())
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .spawn()
        .with_context(|| format!("start {script}"))?;
    let end = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= end {
            child.kill()?;
            break child.wait()?;
        }
        std::thread::sleep(LOOK);
    };
    if !status.success() {
        let printed = fs::read_to_string(&log)?;
        bail!("{script} ended with {status}\n{printed}");
    }
    Ok(())
}
