//! Servers that tell who they are and whom they see, and their clients.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use portolan_kernel::netns::NetNs;
use portolan_model::Protocol;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long an answer may take that must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long is waited for an answer that must not come.
pub const SILENCE: Duration = Duration::from_millis(300);

/// What became of one attempt, as its client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// A server answered.
    Answer {
        /// The address at which it listens.
        server: SocketAddr,
        /// The client's address as it sees it.
        peer: IpAddr,
    },
    /// It was refused.
    Refused,
    /// Nothing came back in time.
    Silence,
    /// It failed in another way.
    Failed(ErrorKind),
}

/// Serves TCP and UDP at an address of a namespace, for as long as the runtime lives.
///
/// A TCP server introduces itself and then echoes; a UDP server introduces itself
/// for each datagram.
///
/// # Errors
/// If it cannot listen there.
pub fn serve(ns: &NetNs, at: SocketAddr) -> Result<()> {
    let (tcp, udp) = ns
        .run(|| -> std::io::Result<_> {
            let (tcp, udp) = (
                std::net::TcpListener::bind(at)?,
                std::net::UdpSocket::bind(at)?,
            );
            tcp.set_nonblocking(true)?;
            udp.set_nonblocking(true)?;
            Ok((tcp, udp))
        })?
        .with_context(|| format!("listen at {at}"))?;
    let (tcp, udp) = (TcpListener::from_std(tcp)?, UdpSocket::from_std(udp)?);
    tokio::spawn(async move {
        while let Ok((stream, peer)) = tcp.accept().await {
            tokio::spawn(converse(stream, at, peer.ip()));
        }
    });
    tokio::spawn(async move {
        let mut buffer = [0; 64];
        // A client that went away is an error of the next receive.
        loop {
            if let Ok((_, peer)) = udp.recv_from(&mut buffer).await {
                udp.send_to(introduction(at, peer.ip()).as_bytes(), peer)
                    .await
                    .unwrap_or_default();
            }
        }
    });
    Ok(())
}

fn introduction(at: SocketAddr, peer: IpAddr) -> String {
    format!("{at} {peer}\n")
}

async fn converse(mut stream: TcpStream, at: SocketAddr, peer: IpAddr) -> std::io::Result<u64> {
    stream.write_all(introduction(at, peer).as_bytes()).await?;
    let (mut reader, mut writer) = stream.split();
    tokio::io::copy(&mut reader, &mut writer).await
}

/// A socket of a namespace, bound to a port, that is not connected yet.
fn socket(ns: &NetNs, protocol: Protocol, to: SocketAddr, port: u16) -> Result<Socket> {
    let kind = match protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
        Protocol::Sctp => bail!("no SCTP sockets here"),
    };
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
    };
    let socket = ns.run(|| Socket::new(Domain::for_address(to), kind, None))??;
    socket.set_nonblocking(true)?;
    socket
        .bind(&SockAddr::from(any))
        .with_context(|| format!("bind to {any}"))?;
    Ok(socket)
}

/// Sends one connection or datagram from a port of a namespace and waits.
///
/// # Errors
/// If there is no socket to send from, or the answer is no introduction.
pub async fn knock(
    ns: &NetNs,
    port: u16,
    protocol: Protocol,
    to: SocketAddr,
    patience: Duration,
) -> Result<Seen> {
    let attempt = async {
        match protocol {
            Protocol::Tcp => Ok(match connect(ns, port, to).await? {
                Ok(open) => Ok((open.server, open.peer)),
                Err(error) => Err(error),
            }),
            Protocol::Udp | Protocol::Sctp => {
                let socket = UdpSocket::from_std(socket(ns, protocol, to, port)?.into())?;
                ask(&socket, to).await
            }
        }
    };
    let Ok(ended) = timeout(patience, attempt).await else {
        return Ok(Seen::Silence);
    };
    Ok(match ended? {
        Ok((server, peer)) => Seen::Answer { server, peer },
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Seen::Refused,
        Err(error) => Seen::Failed(error.kind()),
    })
}

type Introduced = std::io::Result<(SocketAddr, IpAddr)>;

async fn ask(socket: &UdpSocket, to: SocketAddr) -> Result<Introduced> {
    let mut buffer = [0; 128];
    let asked = async {
        socket.connect(to).await?;
        match socket.send(b"?").await {
            // What a rule takes from its own machine is "not permitted"; why, an
            // ICMP error may tell.
            Err(error) if error.kind() != ErrorKind::PermissionDenied => return Err(error),
            Ok(_) | Err(_) => {}
        }
        socket.recv(&mut buffer).await
    };
    Ok(match asked.await {
        Ok(length) => Ok(read(std::str::from_utf8(&buffer[..length])?)?),
        Err(error) => Err(error),
    })
}

/// An open TCP connection.
#[derive(Debug)]
pub struct Open {
    stream: BufReader<TcpStream>,
    /// The address at which the server listens.
    pub server: SocketAddr,
    /// The client's address as the server sees it.
    pub peer: IpAddr,
}

impl Open {
    /// Sends a line and waits for its echo.
    ///
    /// # Errors
    /// If the connection is broken or the deadline passes.
    pub async fn echo(&mut self, line: &str) -> Result<()> {
        let line = format!("{line}\n");
        self.stream.write_all(line.as_bytes()).await?;
        let mut back = String::new();
        timeout(PATIENCE, self.stream.read_line(&mut back)).await??;
        if back != line {
            bail!("{line:?} came back as {back:?}");
        }
        Ok(())
    }
}

/// Connects from a port of a namespace and waits for the introduction.
///
/// # Errors
/// Outside: there is no socket, or what answers is none of ours. Inside: what the
/// kernel says.
pub async fn connect(ns: &NetNs, port: u16, to: SocketAddr) -> Result<std::io::Result<Open>> {
    let socket = TcpSocket::from_std_stream(socket(ns, Protocol::Tcp, to, port)?.into());
    let mut line = String::new();
    let met = async {
        let mut stream = BufReader::new(socket.connect(to).await?);
        stream.read_line(&mut line).await?;
        Ok(stream)
    };
    Ok(match met.await {
        Ok(stream) => {
            let (server, peer) = read(&line)?;
            Ok(Open {
                stream,
                server,
                peer,
            })
        }
        Err(error) => Err(error),
    })
}

fn read(line: &str) -> Result<(SocketAddr, IpAddr)> {
    let (server, peer) = line
        .trim_end()
        .split_once(' ')
        .with_context(|| format!("no introduction: {line:?}"))?;
    Ok((server.parse()?, peer.parse()?))
}

/// How often TCP had to repeat the first packet of a connection, in a namespace.
///
/// # Errors
/// If the kernel does not tell.
pub fn repeated_handshakes(ns: &NetNs) -> Result<u64> {
    let text = ns.run(|| std::fs::read_to_string("/proc/thread-self/net/netstat"))??;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (
        lines.next().context("names")?,
        lines.next().context("values")?,
    );
    let mut both = names.split_whitespace().zip(values.split_whitespace());
    let (_, count) = both
        .find(|(name, _)| *name == "TCPSynRetrans")
        .context("TCPSynRetrans")?;
    Ok(count.parse()?)
}
