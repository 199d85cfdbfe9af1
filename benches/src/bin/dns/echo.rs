//! A server that knows nothing: each datagram goes back as it came, marked as a
//! reply. Sockets, threads and system calls are those of the DNS server, so the
//! difference is what answering costs.

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use portolan_agent::dns::DnsSockets;
use portolan_kernel::datagrams::{Batch, wait};

pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    running: Option<UnixStream>,
    threads: Vec<JoinHandle<()>>,
}

impl Echo {
    pub(crate) fn start() -> Result<Self> {
        let sockets = DnsSockets::bind(&[([127, 0, 0, 1], 0).into()])?;
        let address = sockets.udp.first().context("a socket")?.local_addr()?;
        let (running, stopped) = UnixStream::pair()?;
        let mut threads = Vec::new();
        for socket in sockets.udp {
            let stopped = stopped.try_clone()?;
            threads.push(thread::spawn(move || echo(&[socket], &stopped)));
        }
        Ok(Self {
            address,
            running: Some(running),
            threads,
        })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        drop(self.running.take());
        for thread in self.threads.drain(..) {
            // It has nothing to say.
            drop(thread.join());
        }
    }
}

fn echo(sockets: &[UdpSocket; 1], stopped: &UnixStream) {
    let [socket] = sockets;
    let mut batch = Batch::new(64, 4096);
    let mut out = Vec::with_capacity(4096);
    while wait(sockets, stopped).unwrap_or(false) {
        while let Ok(count @ 1..) = batch.receive(socket) {
            for index in 0..count {
                let Some((query, _)) = batch.message(index) else {
                    continue;
                };
                out.clear();
                out.extend_from_slice(query);
                if let Some(flags) = out.get_mut(2) {
                    *flags |= 0x80;
                }
                batch.reply(index, &out);
            }
            batch.send(socket);
        }
    }
}
