//! `portolan run`: one pod, and if wanted a terminal in it.
//!
//! With `-t` this terminal is attached to the container. Without, its output is
//! read from its log, which begins with the first line however short the command
//! is; an attached stream begins when it is opened.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};

use super::exec::params;
use super::make;
use super::pods::{self, LOOK_AGAIN};
use crate::cli::{Rehearsal, Restart, RunArgs, Streams};
use crate::connect::{Call, Session};
use crate::out;
use crate::terminal::{self, Ended};

/// Runs the verb; with `--restart=Never` and streams, the exit code is the container's.
pub(crate) async fn run(args: RunArgs) -> Result<ExitCode> {
    let streams = args.streams.possible();
    let attach = args.attach.unwrap_or(streams.stdin || args.streams.tty);
    if args.rm && !attach {
        bail!("error: --rm should only be used for attached containers");
    }
    let session = Session::open(&args.connection).await?;
    let pod = pod(&args, streams)?;
    let service = args.expose.then(|| service(&args, &pod));
    let create = |path: String, object| {
        let (session, dry_run) = (&session, args.dry_run);
        async move { make::create(session, &path, object, dry_run, "created").await }
    };
    let base = format!("/api/v1/namespaces/{}", session.namespace);
    if let Some(service) = &service {
        create(format!("{base}/services"), service).await?;
    }
    if !attach || args.dry_run.who != Rehearsal::None {
        create(format!("{base}/pods"), &pod).await?;
        return Ok(ExitCode::SUCCESS);
    }
    session
        .call(&Call::sending(
            Method::POST,
            &format!("{base}/pods"),
            "application/json",
            &pod,
        ))
        .await?;
    let ended = attached(&session, &args, streams).await;
    if args.rm {
        remove(&session, &args).await?;
    }
    ended
}

/// The pod that the flags describe.
fn pod(args: &RunArgs, streams: Streams) -> Result<Value> {
    let labels = match &args.labels {
        Some(text) => make::pairs(text)?,
        None => json!({"run": args.name}),
    };
    let mut container = json!({"name": args.name, "image": args.image});
    if !args.args.is_empty() {
        let field = if args.command { "command" } else { "args" };
        container[field] = json!(args.args);
    }
    if !args.env.is_empty() {
        let variables: Result<Vec<Value>> = args.env.iter().map(|e| variable(e)).collect();
        container["env"] = json!(variables?);
    }
    if let Some(port) = args.port {
        container["ports"] = json!([{"containerPort": port}]);
    }
    if streams.stdin {
        container["stdin"] = json!(true);
        container["stdinOnce"] = json!(true);
    }
    if streams.tty {
        container["tty"] = json!(true);
    }
    Ok(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": args.name, "labels": labels},
        "spec": {"containers": [container], "restartPolicy": args.restart.name()},
    }))
}

fn variable(text: &str) -> Result<Value> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(json!({"name": name, "value": value})),
        _ => bail!("error: invalid env: {text}: it must be NAME=VALUE"),
    }
}

/// The Service of `--expose`.
fn service(args: &RunArgs, pod: &Value) -> Value {
    let port = json!(args.port);
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": args.name},
        "spec": {
            "selector": pod["metadata"]["labels"],
            "ports": [{"port": port, "protocol": "TCP", "targetPort": port}],
        },
    })
}

/// Waits for the pod, joins its streams, and waits for its end where it has one.
async fn attached(session: &Session, args: &RunArgs, streams: Streams) -> Result<ExitCode> {
    let pod = wait(session, args, &["Running", "Succeeded", "Failed"]).await?;
    let ended = pod["status"]["phase"] != "Running";
    if streams.tty && !ended {
        if !args.quiet {
            out::note("If you don't see a command prompt, try pressing enter.");
        }
        let process = pods::api(session)
            .attach(&args.name, &params(streams, args.name.clone()))
            .await
            .context("error: unable to attach")?;
        match terminal::join(process, streams).await? {
            Ended::Code(_) => {}
            Ended::Signal(number) => return Ended::Signal(number).into_exit(),
            // As kubectl: what cannot be attached to can be read.
            Ended::Failed(message) => {
                out::note(format_args!(
                    "warning: couldn't attach to pod/{}, falling back to streaming logs: {message}",
                    args.name
                ));
                follow(session, args).await?;
            }
        }
    } else {
        let input = streams.stdin.then(|| pass_input(session, args, streams));
        let followed = tokio::select! {
            followed = follow(session, args) => followed.map(|()| None),
            signal = terminal::told_to_end() => signal.map(Some),
        };
        if let Some(input) = input {
            input.abort();
        }
        if let Some(number) = followed? {
            return Ended::Signal(number).into_exit();
        }
    }
    if args.restart == Restart::Always {
        if !args.rm && !args.quiet {
            out::note(format_args!(
                "Session ended; the pod keeps running: portolan exec -it {0} -- sh",
                args.name
            ));
        }
        return Ok(ExitCode::SUCCESS);
    }
    exit_code(&wait(session, args, &["Succeeded", "Failed"]).await?)
}

/// Standard input goes to the container beside the log that comes back.
fn pass_input(session: &Session, args: &RunArgs, streams: Streams) -> tokio::task::JoinHandle<()> {
    let (api, name) = (pods::api(session), args.name.clone());
    tokio::spawn(async move {
        let mut wanted = params(streams, name.clone());
        wanted.stderr = false;
        // A container that has ended already wants no input.
        if let Ok(process) = api.attach(&name, &wanted).await {
            drop(terminal::feed(process).await);
        }
    })
}

/// Prints the container's log to its end.
async fn follow(session: &Session, args: &RunArgs) -> Result<()> {
    let path = format!(
        "/api/v1/namespaces/{}/pods/{}/log?follow=true",
        session.namespace, args.name
    );
    let call = Call {
        accept: "*/*",
        ..Call::get(&path)
    };
    let mut log = session.stream(&call).await?.into_data_stream();
    while let Some(part) = log.next().await {
        out::raw(&part.context("the log broke off")?);
    }
    Ok(())
}

async fn wait(session: &Session, args: &RunArgs, phases: &[&str]) -> Result<Value> {
    let end = Instant::now() + args.pod_running_timeout;
    loop {
        let pod = pods::get(session, &args.name).await?;
        if phases.contains(&pod["status"]["phase"].as_str().unwrap_or_default()) {
            return Ok(pod);
        }
        if Instant::now() >= end {
            bail!("error: timed out waiting for the condition");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The exit code of a pod of one container that has ended.
fn exit_code(pod: &Value) -> Result<ExitCode> {
    if pod["status"]["phase"] == "Succeeded" {
        return Ok(ExitCode::SUCCESS);
    }
    let (namespace, name) = (&pod["metadata"]["namespace"], &pod["metadata"]["name"]);
    let shown = format!(
        "pod {}/{}",
        namespace.as_str().unwrap_or_default(),
        name.as_str().unwrap_or_default()
    );
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    match ended["exitCode"].as_i64().map(u8::try_from) {
        Some(Ok(code @ 1..)) => {
            let reason = ended["reason"].as_str().unwrap_or_default();
            out::note(format_args!("{shown} terminated ({reason})"));
            Ok(ExitCode::from(code))
        }
        Some(Ok(0) | Err(_)) | None => bail!("error: {shown} failed with unknown exit code"),
    }
}

/// `--rm`: what the verb made goes again.
async fn remove(session: &Session, args: &RunArgs) -> Result<()> {
    let mut kinds = vec![("pods", "pod")];
    if args.expose {
        kinds.push(("services", "service"));
    }
    for (plural, singular) in kinds {
        let path = format!(
            "/api/v1/namespaces/{}/{plural}/{}",
            session.namespace, args.name
        );
        let options = Value::Object(Map::new());
        let answer = session
            .try_call(&Call::sending(
                Method::DELETE,
                &path,
                "application/json",
                &options,
            ))
            .await?;
        if answer.status >= 400 && answer.status != 404 {
            return Err(crate::connect::server_error(&answer));
        }
        if !args.quiet {
            out::line(format_args!("{singular} {:?} deleted", args.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn typed(words: &str) -> RunArgs {
        let words = ["portolan", "run"]
            .into_iter()
            .chain(words.split_whitespace());
        let Command::Run(args) = Cli::parse_from(words).command else {
            panic!("another verb");
        };
        args
    }

    #[test]
    fn the_pod_is_what_the_flags_say() {
        let args =
            typed("web --image nginx --port 80 --env A=b --labels x=y --restart=Never -- -v 1");
        let pod = pod(&args, args.streams).unwrap();
        assert_eq!(pod["metadata"]["labels"], json!({"x": "y"}));
        assert_eq!(
            pod["spec"]["containers"][0],
            json!({"name": "web", "image": "nginx", "args": ["-v", "1"],
                "env": [{"name": "A", "value": "b"}], "ports": [{"containerPort": 80}]})
        );
        assert_eq!(pod["spec"]["restartPolicy"], "Never");
        let args = typed("tmp --rm -it --image busybox --command -- sh");
        let streams = args.streams;
        let pod = super::pod(&args, streams).unwrap();
        assert_eq!(
            pod["spec"]["containers"][0],
            json!({"name": "tmp", "image": "busybox", "command": ["sh"], "stdin": true, "stdinOnce": true, "tty": true})
        );
        assert_eq!(pod["metadata"]["labels"], json!({"run": "tmp"}));
    }

    #[test]
    fn a_failed_pod_ends_with_its_containers_code() {
        let pod = |code: i64| {
            json!({"metadata": {"namespace": "default", "name": "p"},
            "status": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": code, "reason": "Error"}}}]}})
        };
        assert_eq!(exit_code(&pod(3)).unwrap(), ExitCode::from(3));
        assert!(exit_code(&pod(0)).is_err());
    }
}
