//! New pods under a storm of packets: closed from their first microsecond until their
//! policies are in the kernel (N16).

mod site;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use portolan_agent::gate_socket::{ask, serve};
use portolan_client::{NAMESPACES, NETWORK_POLICIES, NODES, PODS, PatchBody, Target};
use portolan_conntrack::Filter;
use portolan_kernel::conntrack::Conntrack;
use portolan_kernel::netns::NetNs;
use portolan_lab::kubelet::PodNet;
use portolan_lab::pod_net::PodNets;
use portolan_model::{Attachment, Family, PodKey, Uid};
use portolan_netns::facts::{TCP_TARGET, UDP_TARGET};
use portolan_netns::namespace::inside;
use portolan_netns::talk::PATIENCE;
use portolan_netns::world::{Client, World, block_on};
use portolan_nft::Ruleset;
use portolan_plan::CUT_BIT;
use serde_json::{Value, json};
use site::Api;
use site::running::{Running, held, until};
use tokio::time::timeout;

/// The namespace whose policies let nobody in and nobody out.
const CLOSED: &str = "closed";
/// How many pods come into the storm.
const PODS_AT_ONCE: u32 = 6;
/// The port of the storm: nobody listens there, unless a test does.
const PORT: u16 = 4242;
/// Between two volleys: the machine has other work too.
const PAUSE: Duration = Duration::from_micros(500);

/// Datagrams without end to every address that pods may get, each with its number.
struct Storm {
    over: Arc<AtomicBool>,
    /// The number of the last datagram, of whoever sent it.
    sent: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Storm {
    fn new() -> Self {
        Self {
            over: Arc::default(),
            sent: Arc::default(),
            threads: Vec::new(),
        }
    }

    /// One more sender.
    fn blow(&mut self, from: &NetNs, targets: Vec<IpAddr>) -> Result<()> {
        let bind = |any: &str| from.run(|| UdpSocket::bind(any));
        let sockets = [bind("0.0.0.0:0")??, bind("[::]:0")??];
        let (over, sent) = (Arc::clone(&self.over), Arc::clone(&self.sent));
        self.threads.push(std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                for target in &targets {
                    let number = sent.fetch_add(1, Ordering::SeqCst) + 1;
                    let socket = &sockets[usize::from(target.is_ipv6())];
                    // Errors that come back are of no interest.
                    let to = SocketAddr::new(*target, PORT);
                    socket.send_to(&number.to_be_bytes(), to).unwrap_or(0);
                }
                std::thread::sleep(PAUSE);
            }
        }));
        Ok(())
    }

    /// The number of the last datagram so far.
    fn now(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap_or_default();
        }
    }
}

/// A node with an agent, whose new pods the storm is about.
struct Place {
    world: World,
    api: Api,
    agent: Running,
    nets: PodNets,
    /// A pod of an open namespace on the same node.
    neighbour: PodNet,
}

impl Place {
    async fn new(close_unknown: bool) -> Result<Self> {
        let world = World::new(&[0, 1], &[TCP_TARGET, UDP_TARGET]).await?;
        let api = Api::new(&world).await?;
        let node = &world.nodes[0].net;
        let ranges: Vec<String> = node.pod_cidrs.iter().map(ToString::to_string).collect();
        let spec = json!({"spec": {"podCIDR": ranges[0], "podCIDRs": ranges}});
        let target = Target::one(&NODES, None, &node.name);
        api.writer.patch(target, PatchBody::Merge(&spec)).await?;
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": CLOSED}});
        let target = Target::all(&NAMESPACES, None);
        api.writer.create(target, &namespace).await?;
        let mut agent = Running::new(&world, &api);
        agent.config.policies = true;
        agent.config.given.close_unknown_pods = close_unknown;
        agent.config.given.cut_bit = Some(1 << CUT_BIT);
        agent.start();
        let nets = PodNets::new(node.clone());
        let neighbour = nets.attach("neighbour").await?;
        let place = Self {
            world,
            api,
            agent,
            nets,
            neighbour,
        };
        place.object("default", "neighbour").await?;
        let ips = place.neighbour.ips.clone();
        place.status("default", "neighbour", &ips).await?;
        place.deny().await?;
        Ok(place)
    }

    /// Lets nobody in and nobody out, and waits until that holds for a pod.
    async fn deny(&self) -> Result<()> {
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "nobody"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
        });
        let target = Target::all(&NETWORK_POLICIES, Some(CLOSED));
        self.api.writer.create(target, &policy).await?;
        // A pod that the API server has known for long shows that the policy is known.
        let mut range = self.world.nodes[0].net.pod_cidrs[0].hosts();
        let address = range.nth(200).context("an address")?;
        self.object(CLOSED, "witness").await?;
        self.status(CLOSED, "witness", &[address]).await?;
        until("the policy is known", async || {
            let mut nft = portolan_kernel::nft::Nft::open(&self.world.nodes[0].net.netns)?;
            Ok(isolated(&held(&mut nft)?, address))
        })
        .await
    }

    async fn object(&self, namespace: &str, name: &str) -> Result<String> {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "nodeName": self.world.nodes[0].net.name,
                "containers": [{"name": "one", "image": "busybox"}],
            },
        });
        let target = Target::all(&PODS, Some(namespace));
        let made = self.api.writer.create(target, &object).await?;
        let uid = made["metadata"]["uid"].as_str().context("a uid")?;
        Ok(uid.to_owned())
    }

    async fn status(&self, namespace: &str, name: &str, ips: &[IpAddr]) -> Result<()> {
        let ips: Vec<_> = ips.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
        let status = json!({"phase": "Running", "podIP": ips[0]["ip"], "podIPs": ips});
        let target = Target::one(&PODS, Some(namespace), name);
        self.api.writer.patch_status(target, &status).await?;
        Ok(())
    }

    /// A pod of the closed namespace, which starts when it may.
    async fn enter(&self, name: &str) -> Result<PodNet> {
        let uid = self.object(CLOSED, name).await?;
        let net = self.nets.attach(&uid).await?;
        let attachment = Attachment {
            pod: PodKey::new(CLOSED, name),
            uid: Uid::of(&uid),
            addresses: net.ips.clone(),
        };
        let gate = &self.agent.config.gate;
        timeout(PATIENCE, gate.attach(attachment)).await?;
        Ok(net)
    }

    /// Every address that the next pods may get.
    fn targets(&self) -> Vec<IpAddr> {
        let ranges = self.world.nodes[0].net.pod_cidrs.iter();
        let some = usize::try_from(PODS_AT_ONCE + 4).unwrap_or(usize::MAX);
        let all = ranges.flat_map(|range| range.hosts().skip(2).take(some));
        all.filter(|ip| !self.neighbour.ips.contains(ip)).collect()
    }

    /// From a pod on the node, from a pod on another node, and from no pod at all.
    fn storm(&self) -> Result<Storm> {
        let mut storm = Storm::new();
        storm.blow(&self.neighbour.netns, self.targets())?;
        storm.blow(self.world.namespace(Client::Pod(0)), self.targets())?;
        storm.blow(self.world.namespace(Client::Node(1)), self.targets())?;
        Ok(storm)
    }
}

/// Whether the kernel leads packets to an address to a chain of policies.
fn isolated(ruleset: &Ruleset, address: IpAddr) -> bool {
    let key = portolan_nft::Key::from([address.into()]);
    let mut tables = ruleset.tables.values();
    tables.any(|table| {
        let map = table.sets.get("policy_ingress");
        map.is_some_and(|map| map.elements.contains_key(&key))
    })
}

/// The datagrams that a namespace has had since it was made, listened to or not.
fn arrived(ns: &NetNs) -> Result<u64> {
    let [v4, v6] = ns.run(|| {
        ["snmp", "snmp6"]
            .map(|file| std::fs::read_to_string(Path::new("/proc/thread-self/net").join(file)))
    })?;
    let (v4, v6) = (v4?, v6?);
    let mut lines = v4.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next(), lines.next());
    let pairs = names.into_iter().flat_map(str::split_whitespace);
    let pairs = pairs.zip(values.into_iter().flat_map(str::split_whitespace));
    let wanted = ["InDatagrams", "NoPorts", "RcvbufErrors"];
    let mut sum = 0;
    for (_, value) in pairs.filter(|(name, _)| wanted.contains(name)) {
        sum += value.parse::<u64>()?;
    }
    for name in wanted {
        let name = format!("Udp6{name}");
        let mut lines = v6.lines().map(str::split_whitespace);
        let line = lines.find_map(|mut line| (line.next()? == name).then(|| line.next())?);
        sum += line.with_context(|| name.clone())?.parse::<u64>()?;
    }
    Ok(sum)
}

/// Waits for the first datagram of each family that has one of the later numbers.
async fn first_after(sockets: &[UdpSocket], fence: u64) -> Result<()> {
    for socket in sockets {
        let socket = socket.try_clone()?;
        let come = tokio::task::spawn_blocking(move || -> Result<()> {
            socket.set_nonblocking(false)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            loop {
                let mut number = [0; 8];
                socket.recv(&mut number)?;
                if u64::from_be_bytes(number) > fence {
                    return Ok(());
                }
            }
        });
        come.await??;
    }
    Ok(())
}

/// The numbers of what has come so far.
fn numbers(sockets: &[UdpSocket]) -> Vec<u64> {
    let mut found = Vec::new();
    for socket in sockets {
        let mut number = [0; 8];
        while socket.recv(&mut number).is_ok() {
            found.push(u64::from_be_bytes(number));
        }
    }
    found
}

fn listeners(ns: &NetNs, ips: &[IpAddr]) -> Result<Vec<UdpSocket>> {
    let bind = |ip: &IpAddr| -> Result<UdpSocket> {
        let socket = ns.run(|| UdpSocket::bind((*ip, PORT)))??;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    ips.iter().map(bind).collect()
}

/// Where unknown addresses are closed, not one packet reaches a new pod from its first
/// microsecond on, and none that its first process sends gets out.
#[test]
fn n16_not_one_packet_reaches_a_new_pod_or_leaves_it() {
    if inside("n16_not_one_packet_reaches_a_new_pod_or_leaves_it") {
        block_on(async {
            let mut place = Place::new(true).await?;
            let heard = listeners(&place.neighbour.netns, &place.neighbour.ips)?;
            let outside = listeners(
                place.world.namespace(Client::Pod(0)),
                &place.world.pods[0].net.ips,
            )?;
            let storm = place.storm()?;
            let mut pods = Vec::new();
            for number in 0..PODS_AT_ONCE {
                let name = format!("pod-{number}");
                let net = place.enter(&name).await?;
                // Its first process.
                let mut own = Storm::new();
                let others = [Client::Pod(0), Client::Node(1)].into_iter();
                let others = others
                    .flat_map(|to| Family::BOTH.map(|family| place.world.address(to, family)));
                let all = others.chain(place.neighbour.ips.clone());
                own.blow(&net.netns, all.collect())?;
                place.status(CLOSED, &name, &net.ips).await?;
                pods.push((net, own));
            }
            // Long enough for every sender to have sent to everybody once more.
            let enough = storm.now() + 200 * place.targets().len() as u64;
            until("the storm goes on", async || Ok(storm.now() > enough)).await?;
            for (net, own) in &pods {
                ensure!(own.now() > 0);
                ensure!(arrived(&net.netns)? == 0, "{:?} was reached", net.ips);
            }
            let came = [numbers(&heard), numbers(&outside)].concat();
            ensure!(came.is_empty(), "pods got out: {came:?}");
            // The storm is one that would have come through.
            let target = Target::one(&NETWORK_POLICIES, Some(CLOSED), "nobody");
            place.api.writer.delete(target, &Default::default()).await?;
            for (net, _) in &pods {
                first_after(&listeners(&net.netns, &net.ips)?, storm.now()).await?;
            }
            first_after(&heard, 0).await?;
            drop((pods, storm));
            place.agent.stop().await
        });
    }
}

/// Told by the socket, as the CNI plugin does: nothing reaches the pod's first process,
/// also if the agent changes before the API server knows the pod's addresses.
#[test]
fn n16_told_by_the_plugin_nothing_reaches_the_first_process() {
    if inside("n16_told_by_the_plugin_nothing_reaches_the_first_process") {
        block_on(async {
            let mut place = Place::new(false).await?;
            let dir = tempfile::tempdir()?;
            let path = dir.path().join("run").join("agent.sock");
            let mut socket = serve(&path, place.agent.config.gate.clone())?;
            let storm = place.storm()?;
            let asked = |question: serde_json::Value| {
                let path = path.clone();
                tokio::task::spawn_blocking(move || ask(&path, &question, PATIENCE))
            };
            asked(json!({"verb": "status"})).await??;
            let mut pods = Vec::new();
            for number in 0..PODS_AT_ONCE {
                let name = format!("pod-{number}");
                let uid = place.object(CLOSED, &name).await?;
                let net = place.nets.attach(&uid).await?;
                let question = json!({
                    "verb": "attach", "container": format!("c{number}/eth0"),
                    "namespace": CLOSED, "name": name, "uid": uid, "addresses": net.ips,
                });
                asked(question).await??;
                let fence = storm.now();
                pods.push((listeners(&net.netns, &net.ips)?, fence, net));
            }
            // Another agent, that has heard of none of this but by the file.
            drop(socket);
            place.agent.stop().await?;
            place.agent.config.gate = Default::default();
            socket = serve(&path, place.agent.config.gate.clone())?;
            place.agent.start();
            asked(json!({"verb": "status"})).await??;
            let enough = storm.now() + 200 * place.targets().len() as u64;
            until("the storm goes on", async || Ok(storm.now() > enough)).await?;
            for (listeners, fence, net) in &pods {
                let came = numbers(listeners);
                let late = came.iter().filter(|number| *number > fence).count();
                ensure!(late == 0, "{:?} was reached {late} times", net.ips);
            }
            // A network that is gone is no longer the pod's; one that GC does not name
            // neither.
            asked(json!({"verb": "detach", "container": "c0/eth0"})).await??;
            let kept: Vec<String> = (2..PODS_AT_ONCE).map(|n| format!("c{n}/eth0")).collect();
            asked(json!({"verb": "keep", "containers": kept})).await??;
            for (listeners, _, _) in pods.iter().take(2) {
                first_after(listeners, storm.now()).await?;
            }
            let files = std::fs::read_dir(dir.path().join("run").join("attached"))?;
            ensure!(files.count() == kept.len());
            for (listeners, fence, net) in pods.iter().skip(2) {
                let mut late = numbers(listeners).into_iter();
                ensure!(late.all(|number| number <= *fence), "{:?}", net.ips);
            }
            drop((pods, storm, socket));
            place.agent.stop().await
        });
    }
}

/// Answers every datagram at a place until it is over.
fn echo(ns: &NetNs, at: SocketAddr, over: &Arc<AtomicBool>) -> Result<JoinHandle<()>> {
    let socket = ns.run(|| UdpSocket::bind(at))??;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let over = Arc::clone(over);
    Ok(std::thread::spawn(move || {
        let mut buffer = [0; 8];
        while !over.load(Ordering::Relaxed) {
            if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                socket.send_to(&buffer[..length], peer).unwrap_or(0);
            }
        }
    }))
}

/// Asks again and again, from one port and each time from a new one, and counts what
/// got no answer; of how many.
fn ask_on(
    ns: &NetNs,
    to: SocketAddr,
    over: &Arc<AtomicBool>,
) -> Result<JoinHandle<Result<(u64, u64)>>> {
    let (ns, over) = (ns.clone(), Arc::clone(over));
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let open = move || -> Result<UdpSocket> {
        let socket = ns.run(|| UdpSocket::bind(any))??;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        socket.connect(to)?;
        Ok(socket)
    };
    let old = open()?;
    Ok(std::thread::spawn(move || {
        let (mut lost, mut asked) = (0, 0);
        while !over.load(Ordering::Relaxed) {
            for socket in [&old, &open()?] {
                asked += 1;
                socket.send(b"?")?;
                lost += u64::from(socket.recv(&mut [0; 8]).is_err());
            }
            std::thread::sleep(PAUSE);
        }
        Ok((lost, asked))
    }))
}

/// Policies that say the same in other words take turns under load: not one packet that
/// all of them forbid comes through, none that all of them allow is lost, and no
/// connection is cut for a moment.
#[test]
fn n11_n15_policies_are_swapped_under_load() {
    /// How often another policy comes.
    const TURNS: usize = 40;
    if inside("n11_n15_policies_are_swapped_under_load") {
        block_on(async {
            let mut place = Place::new(true).await?;
            let specs = same_in_other_words();
            let target = Target::one(&NETWORK_POLICIES, Some(CLOSED), "nobody");
            let swap = async |turn: usize| {
                let spec = PatchBody::Merge(&specs[turn % specs.len()]);
                place.api.writer.patch(target, spec).await
            };
            let [server, client] = [place.enter("server").await?, place.enter("client").await?];
            swap(0).await?;
            // Servers must outlive their clients.
            let [over, closed] = [(); 2].map(|()| Arc::<AtomicBool>::default());
            let mut servers = Vec::new();
            let mut clients = Vec::new();
            for ip in &server.ips {
                let at = SocketAddr::new(*ip, PORT + 1);
                servers.push(echo(&server.netns, at, &closed)?);
                // The first policy allows it once it is in the kernel.
                until("the client is let in", async || is_answered(&client, at)).await?;
                clients.push(ask_on(&client.netns, at, &over)?);
            }
            let heard = listeners(&server.netns, &server.ips)?;
            let storm = place.storm()?;
            for turn in 1..=TURNS {
                swap(turn).await?;
                let enough = storm.now() + place.targets().len() as u64 * 4;
                until("the storm goes on", async || Ok(storm.now() > enough)).await?;
            }
            let sent = storm.now();
            over.store(true, Ordering::Relaxed);
            for asking in clients {
                let asked = tokio::task::spawn_blocking(|| asking.join()).await?;
                let (lost, asked) = asked.ok().context("a client that ended")??;
                ensure!(lost == 0 && asked > 0, "{lost} of {asked} were lost");
            }
            closed.store(true, Ordering::Relaxed);
            let came = numbers(&heard);
            ensure!(came.is_empty(), "{came:?} of {sent} came through");
            let mut conntrack = Conntrack::open(&place.world.nodes[0].net.netns)?;
            let cut = conntrack.pick(&Filter::default(), |entry| {
                let ours = client.ips.contains(&entry.original.source);
                (ours && entry.mark != 0).then_some(*entry)
            })?;
            ensure!(cut.is_empty(), "{cut:?}");
            for thread in servers {
                thread.join().ok().context("a server that ended")?;
            }
            drop(storm);
            place.agent.stop().await
        });
    }
}

/// Whether a datagram of a pod is answered soon.
fn is_answered(client: &PodNet, at: SocketAddr) -> Result<bool> {
    let mut own = client.ips.iter().filter(|ip| ip.is_ipv4() == at.is_ipv4());
    let own = *own.next().context("both families")?;
    let first = client.netns.run(|| -> std::io::Result<_> {
        let socket = UdpSocket::bind((own, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        socket.send_to(b"!", at)?;
        socket.recv(&mut [0; 8])
    })?;
    Ok(first.is_ok())
}

/// Specs that let the pods of the namespace speak to each other, and nobody else.
fn same_in_other_words() -> Vec<Value> {
    let own = json!({"kubernetes.io/metadata.name": CLOSED});
    let lacks = json!({"key": "nobody", "operator": "DoesNotExist"});
    let spellings = [
        json!([{"podSelector": {}}]),
        json!([{"namespaceSelector": {"matchLabels": own}}]),
        json!([{"podSelector": {"matchExpressions": [lacks]}}, {"podSelector": {}}]),
    ];
    let ports = json!([{"protocol": "UDP", "port": 1, "endPort": 65535}]);
    let specs = spellings.iter().flat_map(|peers| {
        [json!(null), ports.clone()].map(|ports| {
            let rule = |peer: &str| json!([{peer: peers, "ports": ports}]);
            json!({"spec": {"ingress": rule("from"), "egress": rule("to")}})
        })
    });
    specs.collect()
}
