//! ARP and neighbour discovery on a packet socket.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use portolan_announce::l2::{Conflict, Link, Mac};
use portolan_kernel::frames::Frames;
use portolan_kernel::link::LinkIndex;
use portolan_kernel::netns::NetNs;

/// The owner of addresses on a link.
pub struct Answerer {
    /// The machine.
    pub link: Link,
    /// Claims of others.
    pub conflicts: Vec<Conflict>,
    frames: Frames,
    start: Instant,
}

impl Answerer {
    /// Owns nothing yet. The address `mac` need not be the link's own.
    ///
    /// # Errors
    /// If the packet socket is refused.
    pub fn start(ns: &NetNs, link: LinkIndex, mac: [u8; 6]) -> Result<Self> {
        Ok(Self {
            link: Link::new(Mac(mac)),
            conflicts: Vec::new(),
            frames: Frames::open(ns, link)?,
            start: Instant::now(),
        })
    }

    /// Takes an address over.
    ///
    /// # Errors
    /// If a group cannot be joined.
    pub fn own(&mut self, address: IpAddr) -> Result<()> {
        let now = self.now();
        self.link.own(address, now);
        for group in self.link.groups() {
            self.frames.join(group)?;
        }
        Ok(())
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Looks at everything once, and says how many frames came in.
    ///
    /// # Errors
    /// If the packet socket fails.
    pub fn step(&mut self) -> Result<usize> {
        let mut buffer = [0; 2048];
        let mut count = 0;
        while let Some(length) = self.frames.receive(&mut buffer)? {
            count += 1;
            let bytes = buffer.get(..length).unwrap_or_default();
            let heard = self.link.receive(bytes, self.start.elapsed());
            self.conflicts.extend(heard.conflict);
            for frame in heard.frames {
                self.frames.send(&frame)?;
            }
        }
        for frame in self.link.announce(self.now(), 16) {
            self.frames.send(&frame)?;
        }
        Ok(count)
    }
}
