//! Names from one agent to the next, as processes on a node, asked from a pod: none
//! that is asked while the agent is restarted goes unanswered, and what an agent that
//! was killed had kept is answered while the API server is away.

mod site;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portolan_conformance::tools;
use portolan_lab::addresses;
use portolan_model::Family;
use portolan_netns::facts::cluster_ip;
use portolan_netns::talk::PATIENCE;
use portolan_netns::town::{B, in_town};
use portolan_netns::world::World;
use site::door::Door;
use site::running::until;
use site::{Api, of_pod};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How often the agent changes.
const CHANGES: usize = 8;
/// The address of kube-system/kube-dns.
const NAMES: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10)),
    53,
);
/// The number of the Service that is asked for.
const STEADY: u8 = 101;

/// An agent as a process in the first node's namespace.
struct Agent {
    child: Child,
    /// What it logs.
    lines: mpsc::Receiver<String>,
}

impl Agent {
    fn start(world: &World, kubeconfig: &Path, state: &Path) -> Result<Self> {
        let net = &world.nodes[0].net;
        let mut command = Command::new(tools::portolan()?);
        command
            .args(["agent", "--serve-dns", "--node-name", &net.name])
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--state-dir")
            .arg(state)
            .env("RUST_LOG", "info")
            .env("NO_COLOR", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        for range in addresses::all_pods() {
            command.args(["--cluster-cidr", &range.to_string()]);
        }
        let child = net.netns.run(|| command.spawn())?;
        let mut child = child.context("start an agent")?;
        let log = child.stderr.take().context("its log")?;
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                // Nobody may be interested any more.
                drop(tell.send(line));
            }
        });
        Ok(Self { child, lines })
    }

    /// Waits until it logs something.
    async fn says(&self, words: &str) -> Result<()> {
        until(words, async || {
            Ok(self.lines.try_iter().any(|line| line.contains(words)))
        })
        .await
    }

    /// SIGTERM, and its end.
    async fn end(mut self) -> Result<()> {
        kill(
            Pid::from_raw(self.child.id().cast_signed()),
            Signal::SIGTERM,
        )?;
        until("an agent ends", async || {
            Ok(self.child.try_wait()?.is_some())
        })
        .await?;
        let status = self.child.wait()?;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // kill -9 for those that still run.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A question for the address of a Service.
fn question(service: &str) -> Vec<u8> {
    let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [service, "default", "svc", "cluster", "local"] {
        message.push(u8::try_from(label.len()).unwrap_or(0));
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}

/// Whether a reply has the address of the steady Service.
fn right(reply: &[u8]) -> bool {
    let std::net::IpAddr::V4(address) = cluster_ip(Family::V4, STEADY) else {
        return false;
    };
    reply.ends_with(&address.octets())
}

async fn datagrams(world: &World) -> Result<UdpSocket> {
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    let socket = world
        .namespace(B)
        .run(|| std::net::UdpSocket::bind(any))??;
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    socket.connect(NAMES).await?;
    Ok(socket)
}

/// Asks once; whoever is not answered was lost.
async fn ask(socket: &UdpSocket) -> Result<()> {
    socket.send(&question("steady")).await?;
    let mut reply = [0; 512];
    let length = timeout(PATIENCE, socket.recv(&mut reply)).await;
    let length = length.context("a datagram was lost")??;
    let reply = reply.get(..length).unwrap_or_default();
    ensure!(right(reply), "{reply:?}");
    Ok(())
}

/// Asks by a connection of its own.
async fn ask_by_stream(netns: &portolan_kernel::netns::NetNs) -> Result<()> {
    let socket = netns.run(tokio::net::TcpSocket::new_v4)??;
    let mut stream = timeout(PATIENCE, socket.connect(NAMES)).await??;
    let message = question("steady");
    let length = u16::try_from(message.len())?.to_be_bytes();
    stream.write_all(&[&length[..], &message].concat()).await?;
    let length = timeout(PATIENCE, stream.read_u16()).await??;
    let mut reply = vec![0; usize::from(length)];
    timeout(PATIENCE, stream.read_exact(&mut reply)).await??;
    ensure!(right(&reply), "{reply:?}");
    Ok(())
}

/// Clients in a pod that ask without a pause.
struct Load {
    stop: Arc<AtomicBool>,
    replies: Arc<AtomicUsize>,
    tasks: JoinSet<Result<()>>,
}

impl Load {
    async fn start(world: &World) -> Result<Self> {
        let mut this = Self {
            stop: Arc::default(),
            replies: Arc::default(),
            tasks: JoinSet::new(),
        };
        for _ in 0..8 {
            let socket = datagrams(world).await?;
            let (stop, replies) = (Arc::clone(&this.stop), Arc::clone(&this.replies));
            this.tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    ask(&socket).await?;
                    replies.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        let netns = world.namespace(B).clone();
        let (stop, replies) = (Arc::clone(&this.stop), Arc::clone(&this.replies));
        this.tasks.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                ask_by_stream(&netns).await?;
                replies.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Ok(this)
    }

    /// Waits for so many more replies.
    async fn go_on(&mut self, more: usize) -> Result<()> {
        let goal = self.replies.load(Ordering::Relaxed) + more;
        until("replies", async || {
            // Clients end by errors alone.
            if let Some(ended) = self.tasks.try_join_next() {
                ended??;
            }
            Ok(self.replies.load(Ordering::Relaxed) >= goal)
        })
        .await
    }

    /// Every client has had every reply; returns how many there were.
    async fn end(mut self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = timeout(PATIENCE, self.tasks.join_next()).await? {
            ended??;
        }
        Ok(self.replies.load(Ordering::Relaxed))
    }
}

/// Waits until names are answered.
async fn answered(world: &World) -> Result<()> {
    until("names are answered", async || {
        let socket = datagrams(world).await?;
        // Nobody may listen yet, or there may be no way there.
        if socket.send(&question("steady")).await.is_err() {
            return Ok(false);
        }
        let mut reply = [0; 512];
        let got = timeout(
            std::time::Duration::from_millis(200),
            socket.recv(&mut reply),
        )
        .await;
        Ok(matches!(got, Ok(Ok(length)) if right(reply.get(..length).unwrap_or_default())))
    })
    .await
}

#[test]
fn d20_no_query_is_lost_from_one_agent_to_the_next() {
    in_town(
        "d20_no_query_is_lost_from_one_agent_to_the_next",
        async |world| {
            let api = Api::new(&world).await?;
            api.service("steady", STEADY, &of_pod(&world, 2)).await?;
            let (kubeconfig, state) = (tempfile::NamedTempFile::new()?, tempfile::tempdir()?);
            std::fs::write(kubeconfig.path(), &api.kubeconfig)?;
            let start = || Agent::start(&world, kubeconfig.path(), state.path());
            let mut agent = start()?;
            answered(&world).await?;
            let mut load = Load::start(&world).await?;
            for _ in 0..CHANGES {
                load.go_on(200).await?;
                let next = start()?;
                next.says("names are answered here too").await?;
                load.go_on(200).await?;
                agent.end().await?;
                agent = next;
            }
            load.go_on(200).await?;
            let replies = load.end().await?;
            assert!(replies > CHANGES * 400);
            agent.end().await
        },
    );
}

#[test]
fn d20_what_a_killed_agent_kept_is_answered_while_the_api_server_is_away() {
    in_town(
        "d20_what_a_killed_agent_kept_is_answered_while_the_api_server_is_away",
        async |world| {
            let api = Api::new(&world).await?;
            api.service("steady", STEADY, &of_pod(&world, 2)).await?;
            let mut door = Door::new(&world, api.port)?;
            door.open()?;
            let (kubeconfig, state) = (tempfile::NamedTempFile::new()?, tempfile::tempdir()?);
            let by_door = api
                .kubeconfig
                .replace(&format!(":{}", api.port), &format!(":{}", door.at.port()));
            std::fs::write(kubeconfig.path(), by_door)?;
            let start = || Agent::start(&world, kubeconfig.path(), state.path());
            let agent = start()?;
            answered(&world).await?;
            let file = state.path().join("names");
            until("names are kept", async || Ok(file.exists())).await?;
            drop(agent);
            door.close().await;
            let agent = start()?;
            agent.says("names are answered as they were kept").await?;
            answered(&world).await?;
            // Killed again and again while it answers so, nothing is lost of it.
            drop(agent);
            let agent = start()?;
            answered(&world).await?;
            // The cluster's own names take over at once.
            api.remove("steady").await?;
            door.open()?;
            let socket = datagrams(&world).await?;
            until("the Service has no name", async || {
                socket.send(&question("steady")).await?;
                let mut reply = [0; 512];
                let length = timeout(PATIENCE, socket.recv(&mut reply)).await??;
                let code = reply.get(3).map(|flags| flags & 15);
                Ok(length > 12 && code == Some(3))
            })
            .await?;
            agent.end().await
        },
    );
}
