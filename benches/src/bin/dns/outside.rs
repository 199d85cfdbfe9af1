//! A resolver of names outside the cluster, as simple as can be, and a forwarder that
//! asks it: after its first question for a name the forwarder knows the answer.

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use portolan_agent::dns::{
    Dial, DnsSockets, ForwardSettings, Forwarder, RouteSettings, ServerSettings,
};
use portolan_dns::Name;
use portolan_kernel::datagrams::{Batch, wait};

/// Names that are asked for; less than what the forwarder keeps if nothing is said.
pub(crate) const NAMES: usize = 5000;
const HEADER: usize = 12;
/// One A record for the name of the question, for an hour.
const RECORD: [u8; 16] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, 192, 0, 2, 7];

/// A resolver that has an address for every name.
pub(crate) struct Outside {
    address: SocketAddr,
    running: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Outside {
    pub(crate) fn start() -> Result<Self> {
        let mut sockets = DnsSockets::bind_for(&[([127, 0, 0, 1], 0).into()], 1)?;
        let socket = sockets.udp.pop().context("a socket")?;
        let address = socket.local_addr()?;
        let (running, stopped) = UnixStream::pair()?;
        Ok(Self {
            address,
            running: Some(running),
            thread: Some(thread::spawn(move || serve(&[socket], &stopped))),
        })
    }

    /// A forwarder to it; must be called inside a runtime.
    pub(crate) fn forwarder(&self) -> Arc<Forwarder> {
        let server = ServerSettings::plain(self.address);
        let settings = ForwardSettings {
            routes: vec![RouteSettings::new(Name::root(), vec![server])],
            ..ForwardSettings::default()
        };
        Arc::new(Forwarder::new(settings, Dial::Own))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        drop(self.running.take());
        // It has nothing to say.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn serve(sockets: &[UdpSocket; 1], stopped: &UnixStream) {
    let [socket] = sockets;
    let mut batch = Batch::new(64, 4096);
    let mut out = Vec::with_capacity(4096);
    while wait(sockets, stopped).unwrap_or(false) {
        while let Ok(count @ 1..) = batch.receive(socket) {
            for index in 0..count {
                let query = batch.message(index).map(|(query, _)| query);
                if query.and_then(|query| answer(query, &mut out)).is_some() {
                    batch.reply(index, &out);
                }
            }
            batch.send(socket);
        }
    }
}

/// Header and question as they came, and one record.
fn answer(query: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut end = HEADER;
    while let length @ 1.. = *query.get(end)? {
        end += usize::from(length) + 1;
    }
    out.clear();
    out.extend_from_slice(query.get(..end + 5)?);
    // A reply, recursion available; one question, one answer, nothing else.
    for (at, value) in [(2, 0x81), (3, 0x80), (7, 1), (9, 0), (11, 0)] {
        *out.get_mut(at)? = value;
    }
    out.extend_from_slice(&RECORD);
    Some(())
}
