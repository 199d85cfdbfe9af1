//! What must hold after each restart.

use std::collections::{BTreeMap, BTreeSet};

use http::Request;
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::Value;

use crate::load::{Known, VERSION, Writers};

/// Look at everything, and learn what became of the requests without answers.
pub(crate) async fn check(client: &kube::Client, writers: &mut Writers, kill: usize) {
    let services = items(client, "/api/v1/services").await;
    nothing_is_lost(&services, writers, kill);
    let addresses = items(client, "/apis/networking.k8s.io/v1/ipaddresses").await;
    let ports = each_once(&services, &addresses, kill);
    // The server's own books, for what no object shows.
    let page = get(client, "/metrics").await;
    let allocated = figure(&page, "kube_apiserver_nodeport_allocator_allocated_ports");
    assert_eq!(
        allocated,
        [ports],
        "kill {kill}: ports in the server's books"
    );
    let allocated: usize = figure(&page, "kube_apiserver_clusterip_allocator_allocated_ips")
        .iter()
        .sum();
    assert_eq!(
        allocated,
        addresses.len(),
        "kill {kill}: addresses in the server's books"
    );
}

fn nothing_is_lost(services: &[Value], writers: &mut Writers, kill: usize) {
    let found: BTreeMap<&str, u64> = services
        .iter()
        .filter_map(|service| {
            let version = service["metadata"]["annotations"][VERSION].as_str()?;
            Some((service["metadata"]["name"].as_str()?, version.parse().ok()?))
        })
        .collect();
    for (name, known) in writers.known.iter_mut().flatten() {
        let found = found.get(name.as_str()).copied();
        match known {
            Known::Surely(expected) => {
                assert_eq!(
                    found, *expected,
                    "kill {kill}: {name} is not as acknowledged"
                );
            }
            Known::Either(before, after) => {
                let either = [*before, *after];
                assert!(
                    either.contains(&found),
                    "kill {kill}: {name} is {found:?}, not one of {either:?}"
                );
            }
        }
        *known = Known::Surely(found);
    }
}

/// Addresses and ports have one Service each, and every address its object.
/// Returns the number of ports.
fn each_once(services: &[Value], addresses: &[Value], kill: usize) -> usize {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    let mut ports: BTreeSet<u64> = BTreeSet::new();
    for service in services {
        let name = service["metadata"]["name"].as_str().unwrap();
        for address in service["spec"]["clusterIPs"].as_array().unwrap() {
            let twice = owners.insert(address.as_str().unwrap(), name);
            assert_eq!(
                twice, None,
                "kill {kill}: {address} of {name} is another's, too"
            );
        }
        let of_ports = service["spec"]["ports"].as_array().unwrap().iter();
        let numbers = of_ports
            .map(|port| &port["nodePort"])
            .chain([&service["spec"]["healthCheckNodePort"]]);
        for port in numbers.filter_map(Value::as_u64) {
            assert!(
                ports.insert(port),
                "kill {kill}: port {port} of {name} is another's, too"
            );
        }
    }
    let objects: BTreeMap<&str, &str> = addresses
        .iter()
        .filter_map(|address| {
            let name = address["metadata"]["name"].as_str()?;
            Some((name, address["spec"]["parentRef"]["name"].as_str()?))
        })
        .collect();
    assert_eq!(
        objects, owners,
        "kill {kill}: IPAddresses and Services differ"
    );
    ports.len()
}

/// The values of all lines of a metric.
fn figure(page: &str, name: &str) -> Vec<usize> {
    page.lines()
        .filter(|line| line.starts_with(name))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
        .collect()
}

async fn get(client: &kube::Client, path: &str) -> String {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let answer = client.send(request).await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

async fn items(client: &kube::Client, path: &str) -> Vec<Value> {
    let list: Value = serde_json::from_str(&get(client, path).await).unwrap();
    list["items"].as_array().unwrap().clone()
}
