//! The lab on this machine: `portolan up` and `portolan demo`.
//!
//! The process becomes broker and lab before any thread starts
//! (`portolan_lab::sandbox`); what is here runs in the lab's half.

mod cluster;
mod demo;
mod gated;
mod publish;
mod resolvers;
mod seams;
mod steps;
mod up;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use portolan_lab::broker::Broker;
use portolan_lab::sandbox::{self, Role};

use crate::cli::{DemoArgs, UpArgs};
use crate::connect::default_data_dir;
use crate::out;

/// `portolan up`.
pub(crate) fn up(args: UpArgs) -> Result<ExitCode> {
    let data_dir = match &args.data_dir {
        Some(dir) => dir.clone(),
        None => default_data_dir()?,
    };
    let data_dir = private_folder(&data_dir)?;
    // Inside, the lab's own process id would tell nobody anything.
    let holder = std::process::id();
    enter(|broker| up::run(args, data_dir, holder, broker))
}

/// `portolan demo`.
pub(crate) fn demo(args: DemoArgs) -> Result<ExitCode> {
    let data_dir = std::env::temp_dir().join(format!("portolan-demo-{}", std::process::id()));
    let data_dir = private_folder(&data_dir)?;
    let inside = data_dir.clone();
    let holder = std::process::id();
    let code = enter(|broker| up::demo(args, inside, holder, broker));
    // Only the broker's half comes back here, after the lab has ended.
    fs::remove_dir_all(&data_dir).with_context(|| format!("remove {}", data_dir.display()))?;
    code
}

/// Makes the state's folder, for this user's eyes only.
fn private_folder(dir: &Path) -> Result<PathBuf> {
    let advice = || {
        format!(
            "cannot use data directory {}: make it a folder that you may read and write, or choose another with --data-dir",
            dir.display()
        )
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(advice)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).with_context(advice)?;
    dir.canonicalize().with_context(advice)
}

/// Splits off the lab and runs `work` in it. Returns in the broker when the lab
/// has ended; the lab's half ends here.
fn enter<F>(work: impl FnOnce(Broker) -> F) -> Result<ExitCode>
where
    F: Future<Output = Result<()>>,
{
    let seat = match sandbox::enter(&sandbox::Options::default())? {
        Role::Broker { exit_code } => {
            return Ok(ExitCode::from(u8::try_from(exit_code).unwrap_or(1)));
        }
        Role::Lab(seat) => seat,
    };
    let done = run_inside(seat, work);
    if let Err(error) = &done {
        out::note(crate::one_line(error));
    }
    // The lab's half must not run what its caller does for the broker's.
    std::process::exit(i32::from(done.is_err()));
}

fn run_inside<F>(seat: sandbox::Seat, work: impl FnOnce(Broker) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async { work(Broker::attach(seat)?).await })
}

/// What a failed write of a file of ours says.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("write {}", path.display()))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}
