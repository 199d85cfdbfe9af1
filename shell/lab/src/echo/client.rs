//! The client mode: requests by name, and who answered them.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::{net::TcpStream, task::JoinSet, time::Instant as Tick};

use super::{args::ClientArgs, say};

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
enum RequestFailure {
    #[error("cannot resolve {host}: {cause}")]
    Resolve { host: String, cause: io::Error },
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("status {0}")]
    Status(u16),
    #[error("bad request: {0}")]
    Request(#[from] http::Error),
}

/// What happened to one request.
type Outcome = Result<(String, Duration), RequestFailure>;

/// The last line of the output, as JSON.
#[derive(Debug, Default, Serialize)]
struct Summary {
    requests: u32,
    ok: u32,
    failed: u32,
    pods: BTreeMap<String, u32>,
    errors: BTreeMap<String, u32>,
    millis: Millis,
}

#[derive(Debug, Default, Serialize)]
struct Millis {
    p50: f64,
    p99: f64,
    max: f64,
}

/// Sends the requests; exit code 0 only if every one was answered well.
pub(super) async fn run(args: ClientArgs) -> Result<i32, Box<dyn std::error::Error>> {
    let Some(host) = args.url.host() else {
        return Err(format!("{} has no host: use http://HOST[:PORT]/", args.url).into());
    };
    if args.url.scheme_str() != Some("http") {
        return Err(format!("{}: only http:// is supported", args.url).into());
    }
    let host = host.trim_matches(['[', ']']).to_owned();
    let args = Arc::new(args);
    let next = Arc::new(AtomicU32::new(0));
    let begin = Tick::now();
    let mut workers = JoinSet::new();
    for _ in 0..args.concurrency.get().min(args.count.max(1)) {
        workers.spawn(worker(args.clone(), host.clone(), next.clone(), begin));
    }
    let mut outcomes = Vec::new();
    while let Some(done) = workers.join_next().await {
        outcomes.extend(done?);
    }
    let summary = summarise(&outcomes);
    say(&serde_json::to_string(&summary)?);
    Ok(i32::from(summary.failed > 0))
}

/// Takes numbers until none is left; request `n` starts no earlier than its turn.
async fn worker(
    args: Arc<ClientArgs>,
    host: String,
    next: Arc<AtomicU32>,
    begin: Tick,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut kept = None;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= args.count {
            return outcomes;
        }
        tokio::time::sleep_until(begin + args.interval * number).await;
        let started = Instant::now();
        let outcome = tokio::time::timeout(args.timeout, request(&args, &host, &mut kept))
            .await
            .unwrap_or(Err(RequestFailure::Timeout(args.timeout)))
            .map(|pod| (pod, started.elapsed()));
        if outcome.is_err() {
            kept = None;
        }
        if !args.quiet {
            say(&match &outcome {
                Ok((pod, took)) => format!("{:>5}  {pod}  {:.1} ms", number + 1, millis(*took)),
                Err(error) => format!("{:>5}  failed: {error}", number + 1),
            });
        }
        outcomes.push(outcome);
    }
}

type Connection = SendRequest<Empty<Bytes>>;

/// One request; returns the name of the pod that answered.
async fn request(
    args: &ClientArgs,
    host: &str,
    kept: &mut Option<Connection>,
) -> Result<String, RequestFailure> {
    let reused = kept.take();
    if let Some(mut connection) = reused.filter(|_| !args.new_connection) {
        // The server may have closed an idle connection: RFC 9110, 9.2.2 lets
        // a GET be sent again.
        match answered(&args.url, &mut connection).await {
            Ok(pod) => {
                *kept = Some(connection);
                return pod;
            }
            Err(RequestFailure::Http(closed)) => tracing::debug!(%closed, "connecting again"),
            Err(other) => return Err(other),
        }
    }
    let mut connection = connect(&args.url, host).await?;
    let pod = answered(&args.url, &mut connection).await?;
    *kept = Some(connection);
    pod
}

async fn connect(url: &Uri, host: &str) -> Result<Connection, RequestFailure> {
    let port = url.port_u16().unwrap_or(80);
    let found = tokio::net::lookup_host((host, port)).await;
    let found = found.map_err(|cause| RequestFailure::Resolve {
        host: host.to_owned(),
        cause,
    })?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in found {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let (sender, driver) = handshake(TokioIo::new(stream)).await?;
                tokio::spawn(driver);
                return Ok(sender);
            }
            Err(cause) => last = cause,
        }
    }
    Err(RequestFailure::Connect(last))
}

/// The outer error is the connection's, the inner the answer's.
async fn answered(
    url: &Uri,
    connection: &mut Connection,
) -> Result<Result<String, RequestFailure>, RequestFailure> {
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::USER_AGENT, "portolan-echo")
        .body(Empty::new())?;
    connection.ready().await?;
    let response = connection.send_request(request).await?;
    let status = response.status();
    let pod = response.headers().get("x-pod");
    let pod = pod
        .and_then(|pod| pod.to_str().ok())
        .unwrap_or("(unnamed)")
        .to_owned();
    response.into_body().collect().await?;
    Ok(if status.is_success() {
        Ok(pod)
    } else {
        Err(RequestFailure::Status(status.as_u16()))
    })
}

fn millis(took: Duration) -> f64 {
    (took.as_secs_f64() * 10_000.0).round() / 10.0
}

fn summarise(outcomes: &[Outcome]) -> Summary {
    let mut summary = Summary::default();
    let mut times = Vec::new();
    for outcome in outcomes {
        summary.requests += 1;
        match outcome {
            Ok((pod, took)) => {
                summary.ok += 1;
                *summary.pods.entry(pod.clone()).or_default() += 1;
                times.push(*took);
            }
            Err(error) => {
                summary.failed += 1;
                *summary.errors.entry(error.to_string()).or_default() += 1;
            }
        }
    }
    times.sort_unstable();
    let at = |hundredths: usize| {
        let index = (times.len() * hundredths / 100).min(times.len().saturating_sub(1));
        times.get(index).copied().map(millis).unwrap_or_default()
    };
    summary.millis = Millis {
        p50: at(50),
        p99: at(99),
        max: at(100),
    };
    summary
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_pods_and_errors() {
        let ok = |pod: &str, ms| Ok((pod.to_owned(), Duration::from_millis(ms)));
        let outcomes = [
            ok("a", 1),
            ok("b", 2),
            ok("a", 9),
            Err(RequestFailure::Status(503)),
        ];
        let summary = serde_json::to_value(summarise(&outcomes)).unwrap();
        let expected = serde_json::json!({
            "requests": 4, "ok": 3, "failed": 1,
            "pods": {"a": 2, "b": 1},
            "errors": {"status 503": 1},
            "millis": {"p50": 2.0, "p99": 9.0, "max": 9.0},
        });
        assert_eq!(summary, expected);
        assert_eq!(
            serde_json::to_value(summarise(&[])).unwrap()["millis"]["max"],
            0.0
        );
    }
}
