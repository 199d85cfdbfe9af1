//! Every example, typed as its README shows it, with kubectl 1.32, in one lab.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use portolan_conformance::{Lab, tools, transcript};

fn example(name: &str) -> Result<PathBuf> {
    tools::root()
        .join("examples")
        .join(name)
        .canonicalize()
        .with_context(|| format!("examples/{name}"))
}

/// Examples share a lab, as they would on a laptop: each cleans up after itself.
#[test]
fn c1_c3_c4_c16_c18_examples_print_what_their_readmes_show() -> Result<()> {
    let lab = Lab::start(3, &["--publish"])?;
    let mut names: Vec<String> = fs::read_dir(tools::root().join("examples"))?
        .filter_map(|e| e.ok())
        .filter(|e| e.path().is_dir())
        .filter_map(|e| e.file_name().into_string().ok())
        .collect();
    names.sort();
    assert!(names.len() >= 5, "examples found: {names:?}");
    for name in names {
        transcript::run(&lab, &example(&name)?)
            .with_context(|| format!("the lab printed:\n{}", lab.printed()))?;
    }
    let status = lab.stop()?;
    assert!(status.success(), "portolan up ended with {status}");
    Ok(())
}
