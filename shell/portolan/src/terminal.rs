//! This machine's terminal, joined to what runs in a pod.
//!
//! Raw mode passes every key on as it is typed. The terminal is given back as it
//! was however the command ends: the guard restores it when dropped (on return,
//! on error and on panic), and signals that would end the process are waited for
//! instead of taken.

use std::io::{Read, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use futures::SinkExt;
use kube::api::{AttachedProcess, TerminalSize};
use rustix::termios::{self, OptionalActions, Termios};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::Streams;
use crate::out;

/// How much is read at a time.
const CHUNK: usize = 32 * 1024;
/// Chunks of standard input that may wait for a slow pod.
const INPUT_DEPTH: usize = 4;

impl Streams {
    /// The streams that this machine can give: a terminal only if there is one.
    pub(crate) fn possible(mut self) -> Self {
        if self.tty && !self.stdin {
            self.tty = false;
        }
        if self.tty && !termios::isatty(rustix::stdio::stdin()) {
            out::note("Unable to use a TTY - input is not a terminal or the right kind of file");
            self.tty = false;
        }
        self
    }
}

/// Holds the terminal in raw mode.
struct RawMode(Termios);

impl RawMode {
    fn enter() -> Result<Self> {
        let before =
            termios::tcgetattr(rustix::stdio::stdin()).context("read the terminal's mode")?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw)
            .context("put the terminal into raw mode")?;
        Ok(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let restored = termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
        if let Err(error) = restored {
            tracing::debug!(%error, "the terminal is gone");
        }
    }
}

/// How the other side ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The command ended with this code.
    Code(u8),
    /// It could not be run, or the connection broke off.
    Failed(String),
    /// A signal told this process to end.
    Signal(u8),
}

impl Ended {
    /// The exit code of this process, as kubectl's; what is worth saying is said.
    pub(crate) fn into_exit(self) -> Result<ExitCode> {
        match self {
            Self::Code(0) => Ok(ExitCode::SUCCESS),
            Self::Code(code) => {
                out::note(format_args!("command terminated with exit code {code}"));
                Ok(ExitCode::from(code))
            }
            Self::Failed(message) => Err(anyhow!("error: {message}")),
            Self::Signal(number) => Ok(ExitCode::from(128 + number)),
        }
    }
}

/// Passes the streams on until the other side ends.
pub(crate) async fn join(mut process: AttachedProcess, streams: Streams) -> Result<Ended> {
    let status = process.take_status().context("a process has one status")?;
    let raw = streams.tty.then(RawMode::enter).transpose()?;
    let resize = process
        .terminal_size()
        .map(|sizes| tokio::spawn(pass_size(sizes)));
    let input = process.stdin().map(|stdin| tokio::spawn(pass_input(stdin)));
    let (stdout, stderr) = (process.stdout(), process.stderr());
    let outputs = async {
        tokio::try_join!(
            pass_output(stdout, std::io::stdout()),
            pass_output(stderr, std::io::stderr())
        )?;
        Ok::<_, anyhow::Error>(status.await)
    };
    let ended = tokio::select! {
        ended = outputs => ended.map(of_status),
        number = told_to_end() => number.map(Ended::Signal),
    };
    for task in [resize, input].into_iter().flatten() {
        task.abort();
    }
    drop(raw);
    ended
}

/// Passes standard input on to a process whose output is read elsewhere.
pub(crate) async fn feed(mut process: AttachedProcess) -> Result<()> {
    let stdin = process.stdin().context("standard input was asked for")?;
    let sink = process.stdout();
    let passed = tokio::spawn(pass_input(stdin));
    pass_output(sink, std::io::sink()).await?;
    passed.abort();
    Ok(())
}

type Status = k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

/// The Status that ends an exec (KEP 4006: channel 3): success, an exit code, or why not.
fn of_status(status: Option<Status>) -> Ended {
    let Some(status) = status else {
        return Ended::Failed("the connection to the pod broke off".to_owned());
    };
    if status.status.as_deref() == Some("Success") {
        return Ended::Code(0);
    }
    let causes = status.details.and_then(|d| d.causes).unwrap_or_default();
    let code = causes
        .iter()
        .find(|c| c.reason.as_deref() == Some("ExitCode"))
        .and_then(|c| c.message.as_deref()?.parse::<i32>().ok());
    match code {
        // Exit codes are one byte; what does not fit is a failure all the same.
        Some(code) => Ended::Code(u8::try_from(code).unwrap_or(u8::MAX)),
        None => Ended::Failed(status.message.unwrap_or_else(|| "unknown".to_owned())),
    }
}

/// Waits for a signal that ends a program, and returns its number.
pub(crate) async fn told_to_end() -> Result<u8> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(tokio::select! {
        _ = hangup.recv() => 1,
        _ = interrupt.recv() => 2,
        _ = terminate.recv() => 15,
    })
}

/// Tells the size of the terminal, now and whenever it changes.
async fn pass_size(mut sizes: futures::channel::mpsc::Sender<TerminalSize>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else {
        return;
    };
    loop {
        if let Ok(size) = termios::tcgetwinsize(rustix::stdio::stdin()) {
            let size = TerminalSize {
                width: size.ws_col,
                height: size.ws_row,
            };
            if sizes.send(size).await.is_err() {
                return;
            }
        }
        if changes.recv().await.is_none() {
            return;
        }
    }
}

/// Standard input, in a thread of its own: a read of it cannot be given up.
fn read_input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(INPUT_DEPTH);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = stdin.read(&mut buffer) {
            let chunk = buffer.get(..count).unwrap_or_default().to_vec();
            if sender.blocking_send(chunk).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn pass_input(mut stdin: impl AsyncWrite + Unpin) {
    let mut input = read_input();
    while let Some(chunk) = input.recv().await {
        if stdin.write_all(&chunk).await.is_err() {
            return;
        }
    }
    // The end of file that the command sees; one that has ended needs none.
    if let Err(error) = stdin.shutdown().await {
        tracing::debug!(%error, "the command's input is closed already");
    }
}

async fn pass_output(from: Option<impl AsyncRead + Unpin>, mut to: impl Write) -> Result<()> {
    let Some(mut from) = from else {
        return Ok(());
    };
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = from.read(&mut buffer).await.context("read from the pod")?;
        let Some(chunk @ [_, ..]) = buffer.get(..count) else {
            return Ok(());
        };
        if to.write_all(chunk).and_then(|()| to.flush()).is_err() {
            bail!("the output cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ended(status: serde_json::Value) -> Ended {
        of_status(serde_json::from_value(status).unwrap())
    }

    #[test]
    fn the_exit_code_is_in_a_cause() {
        assert_eq!(ended(json!({"status": "Success"})), Ended::Code(0));
        let failed = json!({"status": "Failure", "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}});
        assert_eq!(ended(failed), Ended::Code(3));
        let refused = json!({"status": "Failure", "message": "no such program"});
        assert_eq!(ended(refused), Ended::Failed("no such program".to_owned()));
        assert!(matches!(of_status(None), Ended::Failed(_)));
    }
}
