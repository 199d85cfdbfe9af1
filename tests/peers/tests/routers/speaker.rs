//! A peer that says what no router would.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portolan_kernel::netns::NetNs;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// Types of messages (RFC 4271 section 4.1).
const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const KEEPALIVE: u8 = 4;

/// A listener at port 179.
pub(crate) struct Fake {
    listener: TcpListener,
}

/// A connection of an agent.
pub(crate) struct Session {
    stream: TcpStream,
}

impl Fake {
    pub(crate) fn listen(ns: &NetNs) -> Result<Self> {
        let listener = ns.run(|| TcpListener::bind("192.0.2.4:179"))??;
        Ok(Self { listener })
    }

    pub(crate) fn accept(&self) -> Result<Session> {
        let (stream, _) = self.listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Session { stream })
    }
}

impl Session {
    fn send(&mut self, kind: u8, body: &[u8]) -> Result<()> {
        let length = u16::try_from(19 + body.len())?;
        let mut message = vec![0xff; 16];
        message.extend(length.to_be_bytes());
        message.push(kind);
        message.extend(body);
        self.stream.write_all(&message)?;
        Ok(())
    }

    /// The type of the next message.
    fn next(&mut self) -> Result<u8> {
        let mut header = [0; 19];
        self.stream.read_exact(&mut header)?;
        let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
        let mut body = vec![0; length.saturating_sub(19)];
        self.stream.read_exact(&mut body)?;
        Ok(header[18])
    }

    /// Speaks until the session is up: an OPEN without capabilities, and a KEEPALIVE.
    pub(crate) fn open(&mut self, asn: u16, hold: u16) -> Result<()> {
        let kind = self.next()?;
        ensure!(kind == OPEN, "a message of type {kind} before OPEN");
        let mut body = vec![4];
        body.extend(asn.to_be_bytes());
        body.extend(hold.to_be_bytes());
        body.extend([192, 0, 2, 4, 0]);
        self.send(OPEN, &body)?;
        self.send(KEEPALIVE, &[])
    }

    /// An UPDATE of 203.0.113.0/24 whose ORIGIN is none that there is.
    pub(crate) fn send_malformed(&mut self) -> Result<()> {
        let attributes = [
            &[0x40, 1, 1, 9][..],
            &[0x40, 2, 4, 2, 1, 0xfc, 1],
            &[0x40, 3, 4, 192, 0, 2, 4],
        ]
        .concat();
        let mut body = vec![0, 0];
        body.extend(u16::try_from(attributes.len())?.to_be_bytes());
        body.extend(attributes);
        body.extend([24, 203, 0, 113]);
        self.send(UPDATE, &body)
    }

    /// Goes on for so long, and counts the KEEPALIVEs that come.
    pub(crate) fn keepalives(&mut self, time: Duration) -> Result<usize> {
        let end = Instant::now() + time;
        let mut count = 0;
        while Instant::now() < end {
            let kind = self.next()?;
            ensure!(
                matches!(kind, UPDATE | KEEPALIVE),
                "a message of type {kind}"
            );
            if kind == KEEPALIVE {
                count += 1;
                self.send(KEEPALIVE, &[])?;
            }
        }
        Ok(count)
    }
}
