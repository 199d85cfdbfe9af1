//! Names as a pod asks for them, answered by the agent of its node.

mod site;

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context, Result};
use portolan_client::{PODS, Target};
use portolan_dns::{Name, Rtype, query, rcode};
use portolan_model::Family;
use portolan_netns::sender::PAUSE;
use portolan_netns::town::in_town;
use portolan_netns::world::{Client, World};
use portolan_plan::DNS_PORT;
use serde_json::json;
use site::running::{Running, until};
use site::{Api, NS};

/// Where the API server has the Service kube-dns.
const NAMES: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10));
const ASKED: &str = "kubernetes.default.default.svc.cluster.local";

/// A Pod object for a pod of the town, on this node as it says.
async fn object(world: &World, api: &Api, (name, pod, node): (&str, usize, usize)) -> Result<()> {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "nodeName": world.nodes[node].net.name,
            "containers": [{"name": "one", "image": "busybox"}],
        },
    });
    api.writer.create(Target::all(&PODS, NS), &object).await?;
    let address = world.address(Client::Pod(pod), Family::V4).to_string();
    let status = json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]});
    let target = Target::one(&PODS, NS, name);
    api.writer.patch_status(target, &status).await?;
    Ok(())
}

/// What a pod is told: the code of the reply, and how many answers it has. Nothing if
/// there is no reply.
fn ask(world: &World, pod: usize, name: &str) -> Result<Option<(u8, u8)>> {
    let asked = query(7, &Name::parse(name)?, Rtype::A);
    let exchange = || -> std::io::Result<Vec<u8>> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(PAUSE * 10))?;
        socket.connect(SocketAddr::new(NAMES, DNS_PORT))?;
        socket.send(&asked)?;
        let mut reply = vec![0; 512];
        let length = socket.recv(&mut reply)?;
        reply.truncate(length);
        Ok(reply)
    };
    let namespace = world.namespace(Client::Pod(pod));
    let reply = tokio::task::block_in_place(|| namespace.run(exchange))?;
    Ok(reply
        .ok()
        .and_then(|reply| Some((rcode(&reply)?, *reply.get(7)?))))
}

/// The same, asked again until there is a reply.
async fn told(world: &World, pod: usize, name: &str) -> Result<(u8, u8)> {
    let mut found = None;
    until("there is a reply", async || {
        found = ask(world, pod, name)?;
        Ok(found.is_some())
    })
    .await?;
    found.context("a reply")
}

#[test]
fn d19_search_lists_of_the_nodes_own_pods_are_completed() {
    in_town(
        "d19_search_lists_of_the_nodes_own_pods_are_completed",
        async |world| {
            let api = Api::new(&world).await?;
            let here: Vec<usize> = (0..world.pods.len())
                .filter(|pod| world.pods[*pod].node == 0)
                .collect();
            let [own, other, ..] = here[..] else {
                anyhow::bail!("two pods on the first node");
            };
            object(&world, &api, ("own", own, 0)).await?;
            // As if it were elsewhere: an agent watches the pods of its node alone.
            object(&world, &api, ("other", other, 1)).await?;
            let mut agent = Running::new(&world, &api);
            agent.config.completed_search = Some(Vec::new());
            agent.start();
            // An alias, and the address.
            until("the search list is completed", async || {
                Ok(ask(&world, own, ASKED)? == Some((0, 2)))
            })
            .await?;
            let nothing = (3, 0);
            assert_eq!(told(&world, other, ASKED).await?, nothing);
            let direct = "kubernetes.default.svc.cluster.local";
            assert_eq!(told(&world, other, direct).await?, (0, 1));

            // Once the pod has run to its end, somebody else may get its address.
            let target = Target::one(&PODS, NS, "own");
            let over = json!({"phase": "Succeeded"});
            api.writer.patch_status(target, &over).await?;
            until("the pod is forgotten", async || {
                Ok(ask(&world, own, ASKED)? == Some(nothing))
            })
            .await?;
            agent.stop().await
        },
    );
}
