//! Every example, typed as its README shows it, with kubectl 1.32.
//!
//! `PORTOLAN_EXAMPLE=c07` types only those whose folder contains that.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use portolan_conformance::{Lab, tools, transcript};

/// All examples, by the flags of the lab that they need.
fn by_lab() -> Result<BTreeMap<Vec<String>, Vec<PathBuf>>> {
    let mut labs: BTreeMap<Vec<String>, Vec<PathBuf>> = BTreeMap::new();
    for entry in fs::read_dir(tools::root().join("examples"))? {
        let folder = entry?.path();
        let Ok(text) = fs::read_to_string(folder.join("README.md")) else {
            continue;
        };
        let flags = transcript::lab_flags(&text).into_iter();
        let flags = flags.map(str::to_owned).collect();
        labs.entry(flags).or_default().push(folder.canonicalize()?);
    }
    for folders in labs.values_mut() {
        folders.sort();
    }
    Ok(labs)
}

/// Waits for pods that go: those of one example would still serve in the next one.
fn until_tidy(lab: &Lab) -> Result<()> {
    /// Longer than pods are given to end.
    const LIMIT: Duration = Duration::from_secs(60);
    let going = "kubectl get pods -A --no-headers | grep -c Terminating || true";
    lab.until(LIMIT, going, |count| count.trim() == "0")?;
    Ok(())
}

/// Types the examples in a lab: they share it, as they would on a laptop, and
/// each cleans up after itself.
fn type_all(flags: &[String], folders: &[PathBuf]) -> Result<()> {
    let mut words = vec!["--publish"];
    words.extend(flags.iter().map(String::as_str));
    let mut lab = Lab::start(3, &words)?;
    let mut wrong = Vec::new();
    for folder in folders {
        let done = transcript::run(&lab, folder).and_then(|()| until_tidy(&lab));
        if let Err(error) = done {
            wrong.push(format!("{error:#}\nthe lab printed:\n{}", lab.printed()));
            // What it left behind is nothing that the next one must bear.
            lab = Lab::start(3, &words)?;
        }
    }
    let status = lab.stop()?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    ensure!(status.success(), "portolan up ended with {status}");
    Ok(())
}

#[test]
fn c1_c2_c3_c4_c5_c6_c7_c8_c9_c10_c11_c12_c13_c14_c15_c16_c17_c18_examples_print_what_their_readmes_show()
-> Result<()> {
    let labs = by_lab()?;
    let examples: usize = labs.values().map(Vec::len).sum();
    ensure!(examples >= 19, "examples found: {labs:?}");
    for (flags, folders) in labs {
        if let Ok(only) = std::env::var("PORTOLAN_EXAMPLE") {
            let wanted: Vec<PathBuf> = folders
                .into_iter()
                .filter(|f| f.display().to_string().contains(&only))
                .collect();
            if !wanted.is_empty() {
                type_all(&flags, &wanted)?;
            }
            continue;
        }
        type_all(&flags, &folders)?;
    }
    Ok(())
}
