//! `portolan flows --dropped`: what policies deny, told by each node's agent.
//!
//! The agents keep the last flows and answer at the port of their health; they are
//! asked through the API server's proxy, so it works wherever kubectl does.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use futures::stream::{FuturesUnordered, StreamExt as _};
use portolan_api::lean;
use serde_json::{Value, json};
use tokio::time::{Duration, sleep};

use crate::cli::{FlowsArgs, ReportOutput};
use crate::connect::{Call, Session};
use crate::observed::list;
use crate::out;
use crate::verbs::get::print_value;

/// Where agents answer.
const PORT: u16 = 10256;
/// How long a node waits for the next flow before it answers with none, in seconds.
const WAIT: u32 = 15;
/// The pause after a node did not answer.
const PAUSE: Duration = Duration::from_secs(2);

/// What was read of one node.
#[derive(Debug, Default)]
struct Place {
    /// When its agent began to count.
    since: String,
    last: u64,
    /// How many packets it has not told of.
    untold: u64,
}

/// Runs the command.
pub(crate) async fn run(args: FlowsArgs) -> Result<()> {
    let session = Session::open_asking_once(&args.connection).await?;
    let nodes = nodes(&session, args.node.as_deref()).await?;
    let mut printer = Printer::new(&args, &session);
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    let mut answers = Vec::new();
    let mut asking: FuturesUnordered<_> =
        nodes.iter().map(|node| ask(&session, node, 0, 0)).collect();
    let mut silent = 0;
    while let Some((node, answer)) = asking.next().await {
        match answer {
            Ok(answer) => answers.push((node, answer)),
            Err(why) => {
                silent += 1;
                out::note(format_args!("node {node}: {why}"));
            }
        }
    }
    drop(asking);
    let mut first = Vec::new();
    for (node, answer) in answers {
        first.extend(take(&mut places, node, answer));
    }
    // Of several nodes what came first comes first.
    first.sort_by_key(|flow| flow["time"].as_str().unwrap_or_default().to_owned());
    if !args.follow {
        printer.all(first)?;
        for (node, place) in places.iter().filter(|(_, place)| place.untold > 0) {
            out::note(format_args!(
                "node {node}: {} packets more were denied and not told of",
                place.untold
            ));
        }
        if silent > 0 && silent == nodes.len() {
            bail!("error: no node tells what policies deny");
        }
        return Ok(());
    }
    printer.each(first)?;
    follow(&session, &nodes, places, &mut printer).await
}

/// Asks each node again and again.
async fn follow(
    session: &Session,
    nodes: &[String],
    mut places: BTreeMap<String, Place>,
    printer: &mut Printer,
) -> Result<()> {
    let mut asking = FuturesUnordered::new();
    let again = |node: String, after: u64, pause: Duration| async move {
        sleep(pause).await;
        ask(session, &node, after, WAIT).await
    };
    for node in nodes {
        let after = places.get(node).map_or(0, |place| place.last);
        asking.push(again(node.clone(), after, Duration::ZERO));
    }
    while let Some((node, answer)) = asking.next().await {
        let pause = match answer {
            Ok(answer) => {
                let since = answer["since"].as_str().unwrap_or_default();
                let known = places.get(&node).map(|place| place.since.as_str());
                let begun_anew = known.is_some_and(|known| known != since);
                if begun_anew {
                    // Its agent has started again, and numbers with it.
                    places.remove(&node);
                } else {
                    let flows = take(&mut places, node.clone(), answer);
                    printer.each(flows)?;
                }
                Duration::ZERO
            }
            Err(_) => PAUSE,
        };
        let after = places.get(&node).map_or(0, |place| place.last);
        asking.push(again(node, after, pause));
    }
    Ok(())
}

/// The nodes to ask.
async fn nodes(session: &Session, only: Option<&str>) -> Result<Vec<String>> {
    let all: Vec<lean::Node> = list(session, "/api/v1/nodes").await?;
    let names = all.into_iter().map(|node| node.metadata.name);
    let mut names: Vec<String> = names
        .filter(|name| only.is_none_or(|only| only == name))
        .collect();
    names.sort();
    if let (Some(only), true) = (only, names.is_empty()) {
        bail!("Error from server (NotFound): nodes {only:?} not found");
    }
    Ok(names)
}

/// Asks one node for the flows after a number.
async fn ask(
    session: &Session,
    node: &str,
    after: u64,
    wait: u32,
) -> (String, Result<Value, String>) {
    let path = format!("/api/v1/nodes/{node}:{PORT}/proxy/flows/dropped?after={after}&wait={wait}");
    let answer = match session.try_call(&Call::get(&path)).await {
        Ok(answer) if answer.status == 200 && answer.body["items"].is_array() => Ok(answer.body),
        Ok(answer) if answer.status == 404 => Err(
            "its agent does not tell: it enforces no policies (--network-policy=false), has --policy-log=false, or its kernel has no nfnetlink_log"
                .to_owned(),
        ),
        Ok(answer) => Err(answer.body["message"]
            .as_str()
            .map_or_else(|| format!("it answers with {}", answer.status), str::to_owned)),
        Err(error) => Err(format!("{error:#}")),
    };
    (node.to_owned(), answer)
}

/// The flows of an answer; what was read is remembered.
fn take(places: &mut BTreeMap<String, Place>, node: String, mut answer: Value) -> Vec<Value> {
    let number = |name: &str| answer[name].as_u64().unwrap_or_default();
    let place = Place {
        since: answer["since"].as_str().unwrap_or_default().to_owned(),
        last: number("last"),
        untold: number("dropped").saturating_sub(number("told")),
    };
    places.insert(node, place);
    let items = answer["items"].as_array_mut();
    items.map(std::mem::take).unwrap_or_default()
}

/// How wide columns are where later lines are not known: enough for most.
const WIDTHS: [usize; 6] = [24, 10, 9, 36, 36, 5];
const HEAD: [&str; 7] = ["TIME", "NODE", "DIRECTION", "FROM", "TO", "PROTO", "POLICY"];

struct Printer {
    output: Option<ReportOutput>,
    namespace: Option<String>,
    pod: Option<String>,
    headers: bool,
}

impl Printer {
    fn new(args: &FlowsArgs, session: &Session) -> Self {
        let asked = args.connection.namespace.is_some();
        Self {
            output: args.output,
            namespace: asked.then(|| session.namespace.clone()),
            pod: args.pod.clone(),
            headers: !args.no_headers,
        }
    }

    /// Whether one of its ends is asked for.
    fn wants(&self, flow: &Value) -> bool {
        let is = |end: &Value| {
            let fits = |name: &str, wanted: &Option<String>| {
                wanted.as_deref().is_none_or(|wanted| end[name] == wanted)
            };
            fits("namespace", &self.namespace) && fits("name", &self.pod)
        };
        self.namespace.is_none() && self.pod.is_none() || is(&flow["from"]) || is(&flow["to"])
    }

    /// All there are, in columns that line up.
    fn all(&mut self, flows: Vec<Value>) -> Result<()> {
        let flows: Vec<Value> = flows.into_iter().filter(|flow| self.wants(flow)).collect();
        if let Some(output) = self.output {
            return print_value(&json!({ "items": flows }), output == ReportOutput::Yaml);
        }
        if flows.is_empty() {
            out::note("No packets were denied that anybody told of.");
            return Ok(());
        }
        let head: Vec<String> = HEAD.iter().map(|word| (*word).to_owned()).collect();
        let rows: Vec<Vec<String>> = flows.iter().map(|flow| row(flow).into()).collect();
        let head = if self.headers { head } else { Vec::new() };
        out::raw(out::table(&head, &rows).as_bytes());
        Ok(())
    }

    /// Some of those that there will be.
    fn each(&mut self, flows: Vec<Value>) -> Result<()> {
        for flow in flows {
            if !self.wants(&flow) {
                continue;
            }
            match self.output {
                Some(ReportOutput::Json) => {
                    let text = serde_json::to_string(&flow).context("a flow as JSON")?;
                    out::line(text);
                }
                Some(ReportOutput::Yaml) => {
                    out::line("---");
                    print_value(&flow, true)?;
                }
                None => {
                    if std::mem::take(&mut self.headers) {
                        out::line(padded(&HEAD.map(str::to_owned)));
                    }
                    out::line(padded(&row(&flow)));
                }
            }
        }
        Ok(())
    }
}

fn padded(row: &[String; 7]) -> String {
    let mut line = String::new();
    for (cell, width) in row.iter().zip(WIDTHS.into_iter().chain([0])) {
        line.push_str(&format!("{cell:<width$}   "));
    }
    line.trim_end().to_owned()
}

fn row(flow: &Value) -> [String; 7] {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let or_dash = |text: String| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text
        }
    };
    let end = |end: &Value| {
        let port = end["port"].as_u64().map(|port| format!(":{port}"));
        match (end["namespace"].as_str(), end["name"].as_str()) {
            (Some(namespace), Some(name)) => {
                format!("{namespace}/{name}{}", port.unwrap_or_default())
            }
            (None, Some(node)) => format!("node/{node}{}", port.unwrap_or_default()),
            _ if end["kind"] == "dns" => format!("dns{}", port.unwrap_or_default()),
            _ => text(&end["text"]),
        }
    };
    let policies = flow["policies"].as_array().into_iter().flatten();
    let policies: Vec<String> = policies
        .map(|policy| {
            let place = policy["namespace"].as_str();
            let place = place.map_or_else(String::new, |place| format!("{place}/"));
            format!("{place}{}", text(&policy["name"]))
        })
        .collect();
    let packets = match flow["packets"].as_u64() {
        _ if flow["verdict"] == "cut" => " (connection cut)".to_owned(),
        None | Some(0 | 1) => String::new(),
        Some(many) => format!(" ({many} packets)"),
    };
    let tier = text(&flow["tier"]);
    let policy = format!("{tier} {}", policies.join(","));
    [
        text(&flow["time"]),
        text(&flow["node"]),
        or_dash(text(&flow["direction"])),
        end(&flow["from"]),
        end(&flow["to"]),
        text(&flow["protocol"]),
        format!("{}{packets}", or_dash(policy.trim().to_owned())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_a_line() {
        let flow = json!({
            "time": "2026-01-02T03:04:05.678Z", "node": "node-1", "direction": "ingress",
            "from": {"kind": "pod", "namespace": "shop", "name": "other", "port": 40000, "text": "10.244.1.2:40000"},
            "to": {"kind": "address", "namespace": null, "name": null, "port": 80, "text": "[fd00::1]:80"},
            "protocol": "TCP", "packets": 2, "tier": "NetworkPolicy",
            "policies": [{"namespace": "shop", "name": "a"}, {"namespace": "shop", "name": "b"}],
        });
        let line = padded(&row(&flow));
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            words,
            [
                "2026-01-02T03:04:05.678Z",
                "node-1",
                "ingress",
                "shop/other:40000",
                "[fd00::1]:80",
                "TCP",
                "NetworkPolicy",
                "shop/a,shop/b",
                "(2",
                "packets)"
            ]
        );
        let mut cut = flow;
        cut["verdict"] = "cut".into();
        assert!(padded(&row(&cut)).ends_with("shop/a,shop/b (connection cut)"));
        let gone = json!({"time": "t", "node": "n", "direction": null, "from": {}, "to": {}, "protocol": "ICMP", "policies": []});
        assert!(padded(&row(&gone)).ends_with("ICMP    -"));
    }

    #[test]
    fn what_is_asked_for_is_shown() {
        let printer = |namespace: Option<&str>, pod: Option<&str>| Printer {
            output: None,
            namespace: namespace.map(str::to_owned),
            pod: pod.map(str::to_owned),
            headers: true,
        };
        let flow =
            json!({"from": {"namespace": "a", "name": "x"}, "to": {"namespace": "b", "name": "y"}});
        assert!(printer(None, None).wants(&flow));
        assert!(printer(Some("b"), None).wants(&flow));
        assert!(printer(Some("a"), Some("x")).wants(&flow));
        assert!(!printer(Some("b"), Some("x")).wants(&flow));
        assert!(!printer(Some("c"), None).wants(&flow));
    }
}
