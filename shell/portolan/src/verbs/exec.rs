//! `portolan exec`: a command in a container, joined to this terminal.

use std::process::ExitCode;

use anyhow::{Result, bail};
use kube::api::AttachParams;

use super::{encoded, pods};
use crate::cli::{ExecArgs, Streams};
use crate::connect::Session;
use crate::terminal;

/// How much the pod may print before this side has written it.
const BUFFER: usize = 64 * 1024;

/// Runs the verb; the exit code is the command's.
pub(crate) async fn run(args: ExecArgs) -> Result<ExitCode> {
    let session = Session::open(&args.connection).await?;
    let pod = pods::target(&session, &args.target, args.pod_running_timeout)
        .await?
        .pod;
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    if ["Succeeded", "Failed"].contains(&phase) {
        bail!("error: cannot exec into a container in a completed pod; current phase is {phase}");
    }
    let container = pods::container(&pod, args.container.as_deref(), args.quiet)?;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let streams = args.streams.possible();
    let params = params(streams, container.clone());
    match pods::api(&session).exec(name, &args.command, &params).await {
        Ok(process) => terminal::join(process, streams).await?.into_exit(),
        Err(error) => {
            let words: Vec<String> = args
                .command
                .iter()
                .map(|word| format!("&command={}", encoded(word)))
                .collect();
            let path = format!(
                "/api/v1/namespaces/{}/pods/{name}/exec?container={container}&stdout=true{}",
                session.namespace,
                words.concat()
            );
            Err(pods::refused(&session, &path, error).await)
        }
    }
}

/// What is asked of the pod for these streams: with a terminal, both outputs are one.
pub(crate) fn params(streams: Streams, container: String) -> AttachParams {
    AttachParams {
        container: Some(container),
        stdin: streams.stdin,
        stdout: true,
        stderr: !streams.tty,
        tty: streams.tty,
        max_stdin_buf_size: Some(BUFFER),
        max_stdout_buf_size: Some(BUFFER),
        max_stderr_buf_size: Some(BUFFER),
    }
}
