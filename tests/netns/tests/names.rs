//! Names as a pod asks for them, answered by the agent of its node.

mod site;

use std::io::Write;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use portolan_client::{ENDPOINT_SLICES, PODS, SERVICES, Target, from_kubeconfig_text};
use portolan_dns::{Name, Rtype, query, rcode};
use portolan_kernel::nft::Nft;
use portolan_model::{Family, Protocol};
use portolan_netns::facts::{PORT, TCP_TARGET, cluster_ip};
use portolan_netns::sender::PAUSE;
use portolan_netns::talk::{PATIENCE, Seen};
use portolan_netns::town::in_town;
use portolan_netns::world::{Client, World};
use portolan_nft::{Batch, Op};
use portolan_plan::DNS_PORT;
use serde_json::json;
use site::door::Door;
use site::running::{Running, metric, until};
use site::{Api, NS, of_pod};

/// Where the API server has the Service kube-dns.
const NAMES: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10));
const ASKED: &str = "kubernetes.default.default.svc.cluster.local";

/// The reply to a question for a name that does not exist, and for one with an address.
const NOTHING: (u8, u8) = (3, 0);
const ONE: (u8, u8) = (0, 1);
/// How often a new name is used at once.
const NEW_NAMES: u8 = 50;

/// The name of a Service.
fn of_service(name: &str) -> String {
    format!("{name}.default.svc.cluster.local")
}

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

/// A table of ours that is somebody else's, so that the kernel refuses whatever we change
/// in it. It goes with whom it belongs to.
struct Seized(Child);

impl Seized {
    fn table(world: &World) -> Result<Self> {
        let mut command = Command::new("nft");
        command.arg("-i").stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = world.nodes[0].net.netns.run(|| command.spawn())?;
        let mut this = Self(child.context("nft (Debian package nftables) must be installed")?);
        let stdin = this.0.stdin.as_mut().context("stdin is piped")?;
        // In one transaction, so that nobody else makes it in between.
        stdin.write_all(b"delete table ip portolan; add table ip portolan { flags owner; }\n")?;
        Ok(this)
    }
}

impl Drop for Seized {
    fn drop(&mut self) {
        assert!(self.0.kill().is_ok() && self.0.wait().is_ok());
    }
}

/// A Service that is another name.
async fn alias(api: &Api, name: &str) -> Result<()> {
    let object = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name},
        "spec": {"type": "ExternalName", "externalName": "elsewhere.example"}});
    api.writer
        .create(Target::all(&SERVICES, NS), &object)
        .await?;
    Ok(())
}

/// While the kernel refuses, names that need it stay as they are, since their addresses
/// lead where they led; others do not wait for it.
#[test]
fn d3_names_wait_for_the_kernel_that_refuses_their_addresses() {
    in_town(
        "d3_names_wait_for_the_kernel_that_refuses_their_addresses",
        async |world| {
            let api = Api::new(&world).await?;
            let pod = world.pods.iter().position(|pod| pod.node == 0);
            let pod = pod.context("a pod on the first node")?;
            let is = |name: &str, said: (u8, u8)| -> Result<bool> {
                Ok(ask(&world, pod, &of_service(name))? == Some(said))
            };
            api.service("web", 101, &of_pod(&world, 2)).await?;
            let mut agent = Running::new(&world, &api);
            agent.start();
            until("the name is there", async || is("web", ONE)).await?;

            let seized = Seized::table(&world)?;
            let id = &portolan_render::nft::tables()[0];
            let mut kernel = Nft::open(&world.nodes[0].net.netns)?;
            until("the table is somebody else's", async || {
                Ok(kernel
                    .read(id)?
                    .is_some_and(|table| table.chains.is_empty()))
            })
            .await?;
            api.service("late", 102, &of_pod(&world, 2)).await?;
            api.remove("web").await?;
            // Changes come in their order: when the last one shows, all were taken in.
            alias(&api, "out").await?;
            until("an alias needs no kernel", async || is("out", ONE)).await?;
            assert_eq!(told(&world, pod, &of_service("late")).await?, NOTHING);
            assert_eq!(told(&world, pod, &of_service("web")).await?, ONE);

            drop(seized);
            until("the name came with the kernel", async || is("late", ONE)).await?;
            let late = SocketAddr::new(cluster_ip(Family::V4, 102), PORT);
            let seen = world.knock(Client::Pod(pod), Protocol::Tcp, late, PATIENCE);
            assert!(matches!(seen.await?, Seen::Answer { .. }));
            until("the other one went", async || is("web", NOTHING)).await?;
            agent.stop().await
        },
    );
}

/// Endpoints at a pod of the town, for a Service of this name.
fn slice(world: &World, name: &str, service: &str, hostname: Option<&str>) -> serde_json::Value {
    let mut endpoints = of_pod(world, 2);
    endpoints[0]["hostname"] = json!(hostname);
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "tcp", "protocol": "TCP", "port": TCP_TARGET}]})
}

/// What resolves connects, from the first answer on.
#[test]
fn d3_a_new_name_connects_at_once() {
    in_town("d3_a_new_name_connects_at_once", async |world| {
        let api = Api::new(&world).await?;
        let pod = world.pods.iter().position(|pod| pod.node == 0);
        let pod = pod.context("a pod on the first node")?;
        let services = Target::all(&SERVICES, NS);
        let slices = Target::all(&ENDPOINT_SLICES, NS);
        let seen = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "seen"},
            "spec": {"clusterIP": "None", "ports": [{"name": "tcp", "port": PORT}]}});
        api.writer.create(services, &seen).await?;
        let mut agent = Running::new(&world, &api);
        agent.start();
        told(&world, pod, &of_service("web")).await?;
        for number in 100..100 + NEW_NAMES {
            let name = format!("web-{number}");
            let own = slice(&world, &name, &name, None);
            api.writer.create(slices, &own).await?;
            // Kinds are watched one by one: a Service may be known before its endpoints, and
            // refuses until then. A later slice that shows says that this one was taken in.
            let later = format!("at-{number}");
            let shown = slice(&world, &later, "seen", Some(&later));
            api.writer.create(slices, &shown).await?;
            until("the endpoints are known", async || {
                Ok(ask(&world, pod, &of_service(&format!("{later}.seen")))? == Some(ONE))
            })
            .await?;
            let address = cluster_ip(Family::V4, number);
            let service = json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": name},
                "spec": {"clusterIP": address.to_string(), "ports": [
                    {"name": "tcp", "protocol": "TCP", "port": PORT}]}});
            api.writer.create(services, &service).await?;
            let end = tokio::time::Instant::now() + PATIENCE;
            // Without a pause: the first answer is what counts.
            while ask(&world, pod, &of_service(&name))? != Some(ONE) {
                anyhow::ensure!(tokio::time::Instant::now() < end, "no name {name}");
            }
            let to = SocketAddr::new(address, PORT);
            let seen = world.knock(Client::Pod(pod), Protocol::Tcp, to, PATIENCE);
            let seen = seen.await?;
            assert!(matches!(seen, Seen::Answer { .. }), "{name}: {seen:?}");
        }
        agent.stop().await
    });
}

/// The longest that a query is held: then it is told that the names are not known.
const HELD: std::time::Duration = std::time::Duration::from_secs(4);

/// Where names are answered is known from the flags: queries wait there before anything
/// is known of the cluster, and are not refused.
#[test]
fn d20_queries_wait_at_an_address_that_is_known_before_the_cluster_is() {
    in_town(
        "d20_queries_wait_at_an_address_that_is_known_before_the_cluster_is",
        async |world| {
            let api = Api::new(&world).await?;
            api.service("web", 101, &of_pod(&world, 2)).await?;
            let pod = world.pods.iter().position(|pod| pod.node == 0);
            let pod = pod.context("a pod on the first node")?;
            let mut door = Door::new(&world, api.port)?;
            let (inner, outer) = (api.port, door.at.port());
            let by_door = api
                .kubeconfig
                .replace(&format!(":{inner}"), &format!(":{outer}"));
            // A node where no agent was: one has left that this address is nobody's.
            let mut none = Batch::new();
            for table in portolan_render::nft::tables() {
                none.push(&table, Op::DeleteTable);
            }
            Nft::open(&world.nodes[0].net.netns)?.commit(&none)?;
            let mut agent = Running::new(&world, &api);
            agent.config.kube = from_kubeconfig_text(&by_door).await?;
            agent.config.given.dns_addresses = vec![NAMES];
            agent.start();
            let asked = query(7, &Name::parse(&of_service("web"))?, Rtype::A);
            let socket = world.namespace(Client::Pod(pod)).run(|| {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.connect(SocketAddr::new(NAMES, DNS_PORT))?;
                Ok::<_, std::io::Error>(socket)
            })??;
            let sent = tokio::time::Instant::now();
            until("a query is held", async || {
                // Nobody is there at first.
                drop(socket.send(&asked));
                Ok(metric(&world, "portolan_dns_held_total").is_ok_and(|held| held > Some(0.0)))
            })
            .await?;
            door.open()?;
            socket.set_read_timeout(Some(PATIENCE))?;
            let mut buffer = [0; 512];
            let length = tokio::task::block_in_place(|| socket.recv(&mut buffer))?;
            let code = buffer.get(..length).and_then(rcode);
            let waited = sent.elapsed();
            assert!(
                code == Some(0) || waited > HELD,
                "{code:?} after {waited:?}"
            );
            until("the name is answered", async || {
                Ok(ask(&world, pod, &of_service("web"))? == Some(ONE))
            })
            .await?;
            agent.stop().await
        },
    );
}
