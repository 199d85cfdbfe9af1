//! Connection tracking over netlink: looking through the entries of a namespace
//! and ending some of them.
//!
//! A table can hold a million entries, so a look does not collect them: it hands
//! each to a function and keeps what that makes of it. A dump that was
//! interrupted, or of which answers were lost, is begun again, and what it had
//! kept is forgotten.
//!
//! Absent on purpose: events (a subscriber slows down every connection of the
//! machine) and the `conntrack` program.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use portolan_conntrack::{Entry, Filter, Requests, delete, dump, mark, messages};

use crate::netns::{NetNs, NetNsError};
use crate::nft::socket::{Answer, Socket, answer};

/// How often a dump is begun again.
const DUMP_ATTEMPTS: usize = 10;

/// The requests that are sent at once: well below the smallest send buffer.
const REQUEST_BYTES: usize = 32 * 1024;

/// The connection tracking of one network namespace.
#[derive(Debug)]
pub struct Conntrack {
    netns: NetNs,
    socket: Socket,
    seq: u32,
}

/// Why connection tracking does not answer.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// No thread could enter the namespace.
    #[error("cannot enter the network namespace to open connection tracking")]
    Namespace(#[source] NetNsError),
    /// The kernel gave no netlink socket.
    #[error("cannot open a netlink socket for connection tracking")]
    Socket(#[source] io::Error),
    /// The entries could not be listed.
    #[error("cannot list the entries of connection tracking")]
    List(#[source] io::Error),
    /// A listing was interrupted again and again.
    #[error("the listing of connection tracking was interrupted {DUMP_ATTEMPTS} times")]
    Interrupted,
    /// Entries could not be ended.
    #[error("cannot end {refused} of {count} entries of connection tracking")]
    Delete {
        /// How many were refused.
        refused: usize,
        /// Of how many.
        count: usize,
        /// What the kernel said to the first.
        #[source]
        cause: io::Error,
    },
    /// Entries could not be marked.
    #[error("cannot mark {refused} of {count} entries of connection tracking")]
    Mark {
        /// How many were refused.
        refused: usize,
        /// Of how many.
        count: usize,
        /// What the kernel said to the first.
        #[source]
        cause: io::Error,
    },
    /// The addresses of the namespace could not be listed.
    #[error("cannot list the addresses of the network namespace")]
    Addresses(#[source] io::Error),
}

/// How a dump ended.
enum Ended {
    Whole,
    /// Something may be missing.
    Partly,
    /// The kernel does not know how to filter.
    Unfiltered,
}

impl Conntrack {
    /// Open the connection tracking of a namespace.
    ///
    /// # Errors
    ///
    /// If the namespace cannot be entered or the kernel gives no socket.
    pub fn open(netns: &NetNs) -> Result<Self, ConntrackError> {
        let socket = netns.run(Socket::open);
        Ok(Self {
            netns: netns.clone(),
            socket: socket
                .map_err(ConntrackError::Namespace)?
                .map_err(ConntrackError::Socket)?,
            seq: 0,
        })
    }

    /// Look through the entries that pass a filter, and perhaps through others, and
    /// keep what `pick` makes of them. An entry can come twice.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer, or not wholly.
    pub fn pick<T>(
        &mut self,
        filter: &Filter,
        mut pick: impl FnMut(&Entry) -> Option<T>,
    ) -> Result<Vec<T>, ConntrackError> {
        let mut all = Vec::new();
        for filter in filter.dumps() {
            all.extend(self.pick_one(filter, &mut pick)?);
        }
        Ok(all)
    }

    fn pick_one<T>(
        &mut self,
        mut filter: Filter,
        pick: &mut impl FnMut(&Entry) -> Option<T>,
    ) -> Result<Vec<T>, ConntrackError> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut kept = Vec::new();
            let take = |entry: &Entry| kept.extend(pick(entry));
            match self.dump(&filter, take).map_err(ConntrackError::List)? {
                Ended::Whole => return Ok(kept),
                Ended::Partly => {}
                Ended::Unfiltered if filter == everything(&filter) => {
                    return Err(ConntrackError::List(Errno::EINVAL.into()));
                }
                Ended::Unfiltered => filter = everything(&filter),
            }
        }
        Err(ConntrackError::Interrupted)
    }

    fn dump(&mut self, filter: &Filter, mut take: impl FnMut(&Entry)) -> io::Result<Ended> {
        self.seq = self.seq.wrapping_add(1);
        let seq = self.seq;
        self.socket.drain();
        self.socket.send(&dump(filter, seq))?;
        let mut ended = Ended::Whole;
        loop {
            let buffer = match self.socket.receive() {
                Ok(buffer) => buffer,
                Err(error) if is_lossy(&error) => return Ok(Ended::Partly),
                Err(error) => return Err(error),
            };
            for message in messages(buffer).filter(|message| message.seq == seq) {
                if message.is_interrupted() {
                    ended = Ended::Partly;
                }
                match answer(message.kind, message.body) {
                    None => {
                        if let Some(entry) = Entry::decode(&message) {
                            take(&entry);
                        }
                    }
                    Some(Answer::Done) => return Ok(ended),
                    Some(Answer::Failed(error)) => return because(error),
                }
            }
        }
    }

    /// End exactly these entries; how many were still there. What is gone already
    /// is no failure, and neither is an entry whose tuple another one has by now.
    ///
    /// # Errors
    ///
    /// If the kernel refuses one; the others are ended even so.
    pub fn delete(&mut self, entries: &[Entry]) -> Result<usize, ConntrackError> {
        let groups = delete(entries, REQUEST_BYTES, self.seq.wrapping_add(1));
        let (gone, refused) = self.carry_out(&groups)?;
        let count = entries.len();
        told(count - gone.min(count), refused, |refused, cause| {
            ConntrackError::Delete {
                refused,
                count,
                cause,
            }
        })
    }

    /// Set some bits of these entries' marks, those of `mask`, to those of `value`;
    /// how many were still there. What is gone already is no failure. An entry that has
    /// the tuple of another one by now is marked in its place.
    ///
    /// # Errors
    ///
    /// If the kernel refuses one; the others are marked even so.
    pub fn mark(
        &mut self,
        entries: &[Entry],
        (value, mask): (u32, u32),
    ) -> Result<usize, ConntrackError> {
        let seq = self.seq.wrapping_add(1);
        let groups = mark(entries, (value, mask), REQUEST_BYTES, seq);
        let (gone, refused) = self.carry_out(&groups)?;
        let count = entries.len();
        told(count - gone.min(count), refused, |refused, cause| {
            ConntrackError::Mark {
                refused,
                count,
                cause,
            }
        })
    }

    /// How many entries were gone, and why others were refused.
    fn carry_out(
        &mut self,
        groups: &[Requests],
    ) -> Result<(usize, Vec<io::Error>), ConntrackError> {
        let (mut gone, mut refused) = (0, Vec::new());
        for group in groups {
            self.seq = self.seq.wrapping_add(group.count);
            for error in self.ask(group).map_err(ConntrackError::Socket)? {
                if error.kind() == io::ErrorKind::NotFound {
                    gone += 1;
                } else {
                    refused.push(error);
                }
            }
        }
        Ok((gone, refused))
    }

    /// The failures of one group. Requests are carried out inside `sendmsg`.
    fn ask(&mut self, group: &Requests) -> io::Result<Vec<io::Error>> {
        self.socket.drain();
        self.socket.send(&group.bytes)?;
        let mut failures = Vec::new();
        while let Some(buffer) = self.socket.receive_now()? {
            failures.extend(messages(buffer).filter_map(|message| {
                match answer(message.kind, message.body)? {
                    Answer::Done => None,
                    Answer::Failed(error) => Some(error),
                }
            }));
        }
        Ok(failures)
    }

    /// The addresses of the namespace's own devices.
    ///
    /// # Errors
    ///
    /// If the namespace cannot be entered or the kernel does not tell.
    pub fn own_addresses(&self) -> Result<BTreeSet<IpAddr>, ConntrackError> {
        let list = || -> io::Result<BTreeSet<IpAddr>> {
            let found = getifaddrs()?.filter_map(|device| {
                let address = device.address?;
                let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
            });
            Ok(found.collect())
        };
        self.netns
            .run(list)
            .map_err(ConntrackError::Namespace)?
            .map_err(ConntrackError::Addresses)
    }
}

/// The count, or why some of the entries were refused.
fn told(
    count: usize,
    refused: Vec<io::Error>,
    error: impl FnOnce(usize, io::Error) -> ConntrackError,
) -> Result<usize, ConntrackError> {
    let number = refused.len();
    match refused.into_iter().next() {
        None => Ok(count),
        Some(cause) => Err(error(number, cause)),
    }
}

/// Everything of the same family, which every kernel can list.
fn everything(filter: &Filter) -> Filter {
    Filter {
        family: filter.family,
        ..Filter::default()
    }
}

/// Whether answers were lost, so that another attempt may fare better.
fn is_lossy(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENOBUFS | Errno::EINTR | Errno::EAGAIN))
}

/// What to do about a dump that failed.
fn because(error: io::Error) -> io::Result<Ended> {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(Ended::Unfiltered),
        // One dump at a time and socket; the one before is drained.
        Some(Errno::EBUSY) => Ok(Ended::Partly),
        Some(_) if is_lossy(&error) => Ok(Ended::Partly),
        Some(_) | None => Err(error),
    }
}
