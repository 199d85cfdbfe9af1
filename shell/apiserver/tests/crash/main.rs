//! kill -9 under load, again and again: no acknowledged write is lost, no
//! address or port is leaked or handed out twice.
//!
//! The server is this program again, as a process of its own, so that it can
//! be killed. Everything is checked after each restart, through the API.

#![expect(clippy::unwrap_used, reason = "tests")]

mod load;
mod process;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};

use load::{Moment, Writers};
use process::{Process, SERVE};

/// How often the server is killed.
const KILLS: usize = 200;
/// Clients that write at once.
const WRITERS: usize = 6;
/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
    };
    if let Some(folder) = std::env::var_os(SERVE) {
        runtime().block_on(process::serve(folder.into()));
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    let trial = Trial::test("a5_a12_two_hundred_kills_lose_nothing", move || {
        runtime().block_on(kills());
        Ok(())
    });
    libtest_mimic::run(&arguments, vec![trial]).exit_code()
}

async fn kills() {
    let folder = tempfile::tempdir().unwrap();
    let mut writers = Writers::new(WRITERS);
    let mut seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |since| since.subsec_nanos());
    let mut acknowledged = 0;
    for kill in 0..KILLS {
        let mut server = Process::start(folder.path()).await;
        verify::check(&server.client, &mut writers, kill).await;
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let client = server.client.clone();
        let moment = Moment {
            writes: seed as usize >> 16 & 0x3f,
            // Any point of the write that is then under way.
            then: Duration::from_micros(u64::from(seed >> 8) % 2_000),
        };
        acknowledged += writers.run(client, moment, || server.kill()).await;
    }
    let server = Process::start(folder.path()).await;
    verify::check(&server.client, &mut writers, KILLS).await;
    assert!(
        acknowledged > KILLS,
        "only {acknowledged} writes: this was no load"
    );
}
