//! A BFD session on sockets.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use portolan_announce::bfd::{Config, Output, Session, State};
use portolan_kernel::netns::NetNs;
use socket2::{Domain, Socket, Type};

/// The port of BFD's control packets (RFC 5881).
const PORT: u16 = 3784;

/// One session over IPv4.
pub struct Path {
    /// The machine.
    pub session: Session,
    /// The states that it went through.
    pub states: Vec<State>,
    inbound: UdpSocket,
    outbound: UdpSocket,
    start: Instant,
}

impl Path {
    /// A session between two addresses.
    ///
    /// # Errors
    /// If a socket is refused.
    pub fn start(ns: &NetNs, config: Config, ends: [IpAddr; 2]) -> Result<Self> {
        let (inbound, outbound) = ns.run(|| -> Result<(UdpSocket, UdpSocket)> {
            let inbound = UdpSocket::bind(SocketAddr::new(ends[0], PORT))?;
            inbound.set_nonblocking(true)?;
            let from = (49_152..65_535).find_map(|port| {
                let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).ok()?;
                socket.set_ttl_v4(255).ok()?;
                socket.bind(&SocketAddr::new(ends[0], port).into()).ok()?;
                Some(socket)
            });
            let outbound: UdpSocket = from.context("a port to send from")?.into();
            outbound.connect(SocketAddr::new(ends[1], PORT))?;
            Ok((inbound, outbound))
        })??;
        Ok(Self {
            session: Session::new(config, 3, Duration::ZERO),
            states: Vec::new(),
            inbound,
            outbound,
            start: Instant::now(),
        })
    }

    /// Looks at everything once. All packets on this link have the TTL that they were
    /// sent with, since there is no router.
    pub fn step(&mut self) {
        let mut buffer = [0; 128];
        loop {
            match self.inbound.recv(&mut buffer) {
                Ok(length) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    let outputs = self.session.receive(bytes, 255, self.start.elapsed());
                    self.perform(outputs);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("BFD socket: {error}"),
            }
        }
        let outputs = self.session.tick(self.start.elapsed());
        self.perform(outputs);
    }

    fn perform(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                // A neighbour that does not listen is no error of ours.
                Output::Send(bytes) => drop(self.outbound.send(&bytes)),
                Output::Changed(state, _) => self.states.push(state),
            }
        }
    }
}
