//! A BGP session on sockets.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;
use portolan_announce::bgp::{Config, Connection, Input, News, Output, Session};
use portolan_kernel::md5;
use portolan_kernel::netns::NetNs;
use socket2::{Domain, Socket, Type};

/// The port of BGP.
const PORT: u16 = 179;

/// One session, its listener and its connections.
pub struct Speaker {
    /// The machine.
    pub session: Session,
    /// What it told of, in order.
    pub news: Vec<News>,
    ns: NetNs,
    ends: [IpAddr; 2],
    password: Option<String>,
    listener: TcpListener,
    connections: BTreeMap<Connection, TcpStream>,
    next: u64,
    start: Instant,
}

impl Speaker {
    /// A session between two addresses that listens and has been started. With a
    /// password, segments are signed.
    ///
    /// # Errors
    /// If a socket is refused.
    pub fn start(
        ns: &NetNs,
        config: Config,
        ends: [IpAddr; 2],
        password: Option<&str>,
    ) -> Result<Self> {
        let listener = ns.run(|| -> Result<TcpListener> {
            let domain = Domain::for_address(SocketAddr::new(ends[0], PORT));
            let socket = Socket::new(domain, Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            if let Some(password) = password {
                md5::sign(&socket, ends[1], password.as_bytes())?;
            }
            socket.bind(&SocketAddr::new(ends[0], PORT).into())?;
            socket.listen(4)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        })??;
        let mut speaker = Self {
            session: Session::new(config, 7),
            news: Vec::new(),
            ns: ns.clone(),
            ends,
            password: password.map(str::to_owned),
            listener,
            connections: BTreeMap::new(),
            next: 0,
            start: Instant::now(),
        };
        let outputs = speaker.session.handle(Input::Start, speaker.now());
        speaker.perform(outputs);
        Ok(speaker)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Looks at everything once.
    pub fn step(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let connection = self.keep(stream);
            self.input(Input::Accepted(connection));
        }
        let ids: Vec<Connection> = self.connections.keys().copied().collect();
        for id in ids {
            self.read(id);
        }
        let now = self.now();
        let outputs = self.session.tick(now);
        self.perform(outputs);
    }

    /// For how long the session has been up, if it is.
    #[must_use]
    pub fn uptime(&self) -> Option<Duration> {
        let since = self.session.status().up_since?;
        Some(self.now().saturating_sub(since))
    }

    /// Steps until the session is up.
    pub fn come_up(&mut self) {
        crate::until("a session that is up", || {
            self.step();
            self.session.agreed().map(drop)
        });
    }

    /// Something happened.
    pub fn input(&mut self, input: Input<'_>) {
        let now = self.now();
        let outputs = self.session.handle(input, now);
        self.perform(outputs);
    }

    /// Tells the peer what has changed.
    pub fn flush(&mut self) {
        let outputs = self.session.flush();
        self.perform(outputs);
    }

    fn keep(&mut self, stream: TcpStream) -> Connection {
        stream
            .set_nonblocking(true)
            .expect("a socket that never blocks");
        let id = Connection(self.next);
        self.next += 1;
        self.connections.insert(id, stream);
        id
    }

    fn read(&mut self, id: Connection) {
        let mut buffer = [0; 8192];
        while let Some(stream) = self.connections.get_mut(&id) {
            match stream.read(&mut buffer) {
                Ok(length) if length > 0 => {
                    let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                    self.input(Input::Received(id, &bytes));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => {
                    self.connections.remove(&id);
                    self.input(Input::Closed(id));
                }
            }
        }
    }

    fn connect(&self) -> Result<TcpStream> {
        self.ns.run(|| {
            let domain = Domain::for_address(SocketAddr::new(self.ends[0], PORT));
            let socket = Socket::new(domain, Type::STREAM, None)?;
            if let Some(password) = &self.password {
                md5::sign(&socket, self.ends[1], password.as_bytes())?;
            }
            socket.bind(&SocketAddr::new(self.ends[0], 0).into())?;
            let to = SocketAddr::new(self.ends[1], PORT);
            socket.connect_timeout(&to.into(), Duration::from_secs(1))?;
            Ok(socket.into())
        })?
    }

    /// Does what the machine asks for.
    pub fn perform(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Connect => match self.connect() {
                    Ok(stream) => {
                        let id = self.keep(stream);
                        self.input(Input::Connected(id));
                    }
                    Err(_) => self.input(Input::ConnectFailed),
                },
                Output::Send(id, bytes) => {
                    // The kernel's buffer takes the little that tests send; a
                    // connection that broke is noticed when it is read.
                    if let Some(stream) = self.connections.get_mut(&id) {
                        drop(stream.write_all(&bytes));
                    }
                }
                Output::Close(id) => drop(self.connections.remove(&id)),
                Output::News(news) => self.news.push(news),
                // Attempts are over when they return.
                Output::CancelConnect => {}
            }
        }
    }
}
