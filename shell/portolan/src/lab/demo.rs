//! `portolan demo`: a Service, from manifest to packet, in a few seconds.
//!
//! Each step shows what a user would see and fails when it does not hold, so the
//! exit code tells whether the product works on this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kube::api::{AttachParams, AttachedProcess};
use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;

use super::steps::Step;
use crate::connect::{Call, Session};
use crate::out;
use crate::verbs::{apply, get, pods};

/// The manifests that the demo applies, readable on their own in examples/web.
const MANIFESTS: &str = include_str!("../../../../examples/web/web.yaml");
/// The node port in them.
const NODE_PORT: u16 = 30080;
/// How long pods may take to be ready.
const READY: Duration = Duration::from_secs(30);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long all requests of a load may take.
const ALL_REQUESTS: Duration = Duration::from_secs(30);
/// The lab's own program, as every container of the image `host` sees it.
const CLIENT: &str = portolan_lab::container::PROGRAM;
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);
/// How wide the longest bar is.
const BAR: usize = 30;

/// Runs the steps against a lab whose nodes are ready.
pub(crate) async fn run(session: &Session, nodes: &[(String, Ipv4Addr)]) -> Result<()> {
    manifests(session).await?;
    tables(session).await?;
    spread(session).await?;
    one_pod_dies(session).await?;
    from_outside(nodes).await?;
    explain(session).await
}

/// A title on its own line, above what the step shows.
fn shown(text: &str) {
    for line in text.trim_end().lines() {
        out::line(format_args!("    {line}"));
    }
    out::line("");
}

async fn manifests(session: &Session) -> Result<()> {
    let step = Step::begin("Apply a Deployment of three pods, its Service, and a client pod");
    let objects = portolan_api::yaml::parse(MANIFESTS).context("examples/web/web.yaml")?;
    apply::apply_all(session, objects).await?;
    until(&step, "pods are starting", READY, async || {
        let endpoints = endpoints(session).await?;
        let client = session
            .call(&Call::get("/api/v1/namespaces/default/pods/client"))
            .await?
            .body;
        Ok(endpoints.len() == 3 && client["status"]["phase"] == "Running")
    })
    .await?;
    step.done();
    Ok(())
}

/// The tables that `portolan get` prints.
async fn tables(session: &Session) -> Result<()> {
    for words in [&["pods"][..], &["services"], &["endpointslices"]] {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        let wide = words.iter().any(|w| w == "pods");
        out::line(out::styled(
            out::DIM,
            format_args!(
                "    $ kubectl get {}{}",
                words.join(" "),
                if wide { " -o wide" } else { "" }
            ),
        ));
        shown(&get::table_text(session, &words, wide).await?);
    }
    Ok(())
}

async fn spread(session: &Session) -> Result<()> {
    let step = Step::begin("Send 300 requests by name from a client pod: http://web");
    let arguments = ["--count", "300", "--new-connection", "--quiet"];
    let summary = Load::start(session, &arguments).await?.summary().await?;
    ensure!(
        summary["ok"] == 300,
        "300 requests were sent and {} were answered: {summary}",
        summary["ok"]
    );
    let pods = summary["pods"]
        .as_object()
        .context("the client's summary names pods")?;
    ensure!(
        pods.len() == 3,
        "three pods should answer, and {} did",
        pods.len()
    );
    step.done();
    let most = pods
        .values()
        .filter_map(Value::as_u64)
        .max()
        .unwrap_or(1)
        .max(1);
    let mut text = String::new();
    for (pod, count) in pods {
        let count = count.as_u64().unwrap_or(0);
        let width = usize::try_from(count * BAR as u64 / most).unwrap_or(BAR);
        text.push_str(&format!("{pod:<24} {:<BAR$} {count}\n", "█".repeat(width)));
    }
    text.push_str(&format!(
        "300 answered, 0 failed; half within {} ms",
        summary["millis"]["p50"]
    ));
    shown(&text);
    Ok(())
}

/// A pod is deleted while requests go on: none may fail.
async fn one_pod_dies(session: &Session) -> Result<()> {
    let step = Step::begin("Kill one pod while requests go on");
    let before = endpoints(session).await?;
    let (victim, address) = before
        .first()
        .cloned()
        .context("the Service has endpoints")?;
    let load = [
        "--count",
        "1500",
        "--concurrency",
        "4",
        "--interval",
        "2ms",
        "--new-connection",
    ];
    let mut load = Load::start(session, &load).await?;
    step.say("requests are starting");
    load.first_answer().await?;
    let begin = Instant::now();
    let path = format!("/api/v1/namespaces/default/pods/{victim}");
    let options = json!({"propagationPolicy": "Background"});
    session
        .call(&Call::sending(
            http::Method::DELETE,
            &path,
            "application/json",
            &options,
        ))
        .await?;
    until(&step, "the endpoint is leaving", READY, async || {
        Ok(!endpoints(session).await?.iter().any(|(_, a)| *a == address))
    })
    .await?;
    let left = begin.elapsed();
    until(&step, "a new one is joining", READY, async || {
        Ok(endpoints(session).await?.len() == 3)
    })
    .await?;
    let joined = begin.elapsed();
    let after = endpoints(session).await?;
    let (new, new_address) = after
        .iter()
        .find(|e| !before.contains(e))
        .cloned()
        .context("a new endpoint joined")?;
    step.say("the last requests");
    let summary = load.summary().await?;
    if summary["failed"] != 0 || summary["ok"] != 1500 {
        step.failed();
        bail!("requests failed while a pod died: {summary}");
    }
    step.done();
    shown(&format!(
        "pod {victim} ({address}) left the endpoints after {} ms\n\
         pod {new} ({new_address}) joined them after {} ms\n\
         1500 requests meanwhile, 0 failed",
        left.as_millis(),
        joined.as_millis()
    ));
    Ok(())
}

/// The lab's main namespace is outside of the cluster: it has no route to pods or Services.
async fn from_outside(nodes: &[(String, Ipv4Addr)]) -> Result<()> {
    let step = Step::begin(format!(
        "Reach NodePort {NODE_PORT} of every node from outside the cluster"
    ));
    let mut text = String::new();
    for (name, address) in nodes {
        let at = SocketAddr::from((*address, NODE_PORT));
        let pod = tokio::time::timeout(REQUEST, hostname(at))
            .await
            .with_context(|| format!("{name}: no answer at {at}"))?
            .with_context(|| format!("{name}: request to {at}"))?;
        text.push_str(&format!("{name:<8} http://{at:<18} answered by {pod}\n"));
    }
    step.done();
    shown(&text);
    Ok(())
}

/// One HTTP request for the name of the pod that answers.
async fn hostname(at: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(at).await?;
    let request = format!("GET /hostname HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an HTTP answer has a head and a body")?;
    ensure!(
        head.starts_with("HTTP/1.1 200"),
        "answered {}",
        head.lines().next().unwrap_or_default()
    );
    Ok(body.trim().to_owned())
}

async fn explain(session: &Session) -> Result<()> {
    let step = Step::begin("Explain one packet: portolan trace --from client --to web:80");
    let hops = crate::trace::explain(session, "client", "web:80").await?;
    step.done();
    shown(&crate::trace::text(&hops));
    Ok(())
}

/// Requests that the pod `client` sends: a line for each answer, then a summary.
struct Load {
    process: AttachedProcess,
    lines: Lines<Box<dyn AsyncBufRead + Send + Unpin>>,
}

impl Load {
    /// Runs the lab's own client program in the pod, as `kubectl exec` would.
    async fn start(session: &Session, arguments: &[&str]) -> Result<Self> {
        let mut words = vec![CLIENT, "echo", "client", "--url", "http://web"];
        words.extend(arguments);
        let params = AttachParams::default().stderr(false);
        let mut process = pods::api(session)
            .exec("client", words, &params)
            .await
            .context("run a command in the pod client")?;
        let output = process.stdout().context("the command has an output")?;
        let output: Box<dyn AsyncBufRead + Send + Unpin> = Box::new(BufReader::new(output));
        Ok(Self {
            process,
            lines: output.lines(),
        })
    }

    /// Requests go on once there is an answer.
    async fn first_answer(&mut self) -> Result<()> {
        let line = tokio::time::timeout(REQUEST, self.lines.next_line()).await;
        line.context("no request is answered")??
            .context("the client has nothing to say")?;
        Ok(())
    }

    /// The last line, once all requests were sent.
    async fn summary(mut self) -> Result<Value> {
        let all = async {
            let mut last = String::new();
            while let Some(line) = self.lines.next_line().await? {
                last = line;
            }
            anyhow::Ok(last)
        };
        let last = tokio::time::timeout(ALL_REQUESTS, all)
            .await
            .with_context(|| format!("requests go on after {ALL_REQUESTS:?}"))??;
        self.process.abort();
        serde_json::from_str(&last).with_context(|| format!("the client's summary: {last:?}"))
    }
}

/// The ready endpoints of the Service `web`: pod and address.
async fn endpoints(session: &Session) -> Result<Vec<(String, String)>> {
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dweb";
    let list = session.call(&Call::get(path)).await?.body;
    let mut found = Vec::new();
    for slice in list["items"].as_array().into_iter().flatten() {
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            if endpoint["conditions"]["ready"] == true {
                found.push((
                    endpoint["targetRef"]["name"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                    endpoint["addresses"][0]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                ));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Looks until a condition holds, and fails with its name after `limit`.
async fn until(
    step: &Step,
    what: &str,
    limit: Duration,
    holds: impl AsyncFn() -> Result<bool>,
) -> Result<()> {
    step.say(what);
    let end = Instant::now() + limit;
    while !holds().await? {
        if Instant::now() >= end {
            bail!("{what}: not done after {limit:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
