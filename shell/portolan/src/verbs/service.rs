//! `portolan service NAME`: how to reach a Service from this machine.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::cli::ServiceArgs;
use crate::connect::{Call, Session};
use crate::out;

/// How long a published port may take to accept on this machine.
const ACCEPT: Duration = Duration::from_millis(500);

/// Runs the verb.
pub(crate) async fn run(args: ServiceArgs) -> Result<()> {
    let session = Session::open(&args.connection).await?;
    let path = format!(
        "/api/v1/namespaces/{}/services/{}",
        session.namespace, args.name
    );
    let service = session.call(&Call::get(&path)).await?.body;
    let ports: Vec<&Value> = service["spec"]["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    let balanced = service["status"]["loadBalancer"]["ingress"].is_array();
    let mut rows = Vec::new();
    for port in &ports {
        let Some(number) = open_port(port, balanced) else {
            continue;
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, number));
        let udp = port["protocol"] == "UDP";
        let answers = udp || TcpStream::connect_timeout(&address, ACCEPT).is_ok();
        if !answers {
            bail!(
                "error: nothing listens on {address}: start the lab with `portolan up --publish`, \
                 which forwards NodePorts and load balancers' ports from this machine"
            );
        }
        rows.push((
            port,
            if udp {
                format!("udp://{address}")
            } else {
                url(port, address)
            },
        ));
    }
    if rows.is_empty() {
        bail!(
            "error: service {}/{} has no node port: it is reached only from inside the lab; \
             give it one with `type: NodePort`",
            session.namespace,
            args.name
        );
    }
    if args.url {
        for (_, url) in &rows {
            out::line(url);
        }
        return Ok(());
    }
    let head = ["NAMESPACE", "NAME", "TARGET PORT", "URL"].map(str::to_owned);
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|(port, url)| {
            let name = port["name"].as_str().unwrap_or_default();
            let target = format!("{}/{}", name, port["port"]);
            vec![
                session.namespace.clone(),
                args.name.clone(),
                target.trim_start_matches('/').to_owned(),
                url.clone(),
            ]
        })
        .collect();
    out::raw(out::table(&head, &cells).as_bytes());
    Ok(())
}

/// Where a port is open on the nodes: at its node port, or without one where the load
/// balancer that the nodes are has it.
fn open_port(port: &Value, balanced: bool) -> Option<u16> {
    let number = |field: &str| port[field].as_u64().and_then(|n| u16::try_from(n).ok());
    let node_port = number("nodePort").filter(|number| *number > 0);
    node_port.or_else(|| number("port").filter(|_| balanced))
}

fn url(port: &Value, address: SocketAddr) -> String {
    let name = port["name"].as_str().unwrap_or_default();
    let secure = name == "https" || port["port"] == 443 || port["appProtocol"] == "https";
    format!("{}://{address}", if secure { "https" } else { "http" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_port_comes_before_that_of_a_load_balancer() {
        let both = json!({"port": 80, "nodePort": 30080});
        assert_eq!(open_port(&both, true), Some(30080));
        for one in [json!({"port": 80}), json!({"port": 80, "nodePort": 0})] {
            assert_eq!(open_port(&one, true), Some(80));
            assert_eq!(open_port(&one, false), None);
        }
    }
}
