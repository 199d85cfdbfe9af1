//! One link: answers for addresses on it.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use portolan_announce::l2::Link;
use portolan_announce::l2::ndp::solicited_node;
use portolan_kernel::frames::{AwaitedFrames, Frames, FramesError};
use portolan_kernel::netns::NetNs;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::survey::Found;
use super::told::AnnounceTold;

/// Addresses to own from now on (`true`), or no longer.
pub(super) type Order = Vec<(IpAddr, bool)>;

/// Addresses that are announced at once, and the wait before the next of them: a
/// take-over of many does not flood the link.
const AT_ONCE: usize = 64;
const BREATH: Duration = Duration::from_millis(10);
/// How soon a packet socket that was refused, or broke, is opened again.
const AGAIN: Duration = Duration::from_secs(1);
/// Longer than any frame that is answered.
const LONGEST: usize = 2048;

/// The task of a link.
pub(super) struct Answerer {
    netns: NetNs,
    told: AnnounceTold,
    found: Found,
    machine: Link,
    start: Instant,
    joined: BTreeSet<Ipv6Addr>,
    /// Groups that may be wanted now, or no longer.
    touched: BTreeSet<Ipv6Addr>,
}

impl Answerer {
    pub(super) fn new(netns: NetNs, found: Found, told: AnnounceTold) -> Self {
        Self {
            machine: Link::new(found.mac),
            netns,
            told,
            found,
            start: Instant::now(),
            joined: BTreeSet::new(),
            touched: BTreeSet::new(),
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Answers until nobody can give orders any more.
    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            match self.open() {
                Ok(frames) => match self.answer(&frames, &mut orders).await {
                    Ok(()) => return,
                    Err(error) => {
                        let link = &self.found.name;
                        tracing::warn!(link, %error, "addresses are not answered for on a link");
                    }
                },
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, cause, "addresses are not answered for");
                }
            }
            // What is owned meanwhile is announced when the link is back.
            let again = tokio::time::sleep(AGAIN);
            tokio::pin!(again);
            loop {
                tokio::select! {
                    () = &mut again => break,
                    order = orders.recv() => match order {
                        Some(order) => self.obey(&order),
                        None => return,
                    },
                }
            }
            self.begin_anew();
        }
    }

    fn open(&self) -> Result<AwaitedFrames, FramesError> {
        let link = self.found.index;
        let frames = Frames::open(&self.netns, link)?;
        AwaitedFrames::new(frames).map_err(|cause| FramesError::Refused {
            step: "wait",
            link,
            cause,
        })
    }

    fn obey(&mut self, order: &Order) {
        let now = self.now();
        for (address, own) in order {
            match own {
                true => self.machine.own(*address, now),
                false => self.machine.release(*address),
            };
            if let IpAddr::V6(address) = address {
                self.touched.insert(solicited_node(*address));
            }
        }
    }

    /// All that is owned is announced again.
    fn begin_anew(&mut self) {
        let now = self.now();
        let owned: Vec<IpAddr> = self.machine.owned().collect();
        self.machine = Link::new(self.found.mac);
        self.joined.clear();
        for address in owned {
            self.machine.own(address, now);
        }
        self.touched = self.machine.groups().collect();
    }

    async fn answer(
        &mut self,
        frames: &AwaitedFrames,
        orders: &mut mpsc::UnboundedReceiver<Order>,
    ) -> io::Result<()> {
        let mut breath = self.start;
        let mut buffer = [0; LONGEST];
        self.join(frames.frames());
        loop {
            let due = self.machine.deadline();
            let due = due.map(|due| (self.start + due).max(breath));
            tokio::select! {
                order = orders.recv() => {
                    let Some(order) = order else { return Ok(()) };
                    self.obey(&order);
                    self.join(frames.frames());
                }
                length = frames.receive(&mut buffer) => {
                    let bytes = buffer.get(..length?).unwrap_or_default();
                    self.heard(bytes, frames.frames())?;
                }
                () = super::sleep_until(due) => {
                    for frame in self.machine.announce(self.now(), AT_ONCE) {
                        send(frames.frames(), &frame)?;
                    }
                    breath = Instant::now() + BREATH;
                }
            }
        }
    }

    fn heard(&mut self, bytes: &[u8], frames: &Frames) -> io::Result<()> {
        let heard = self.machine.receive(bytes, self.now());
        if let Some(address) = heard.answered {
            self.told.answered(address);
        }
        if let Some(conflict) = heard.conflict {
            let (link, address, by) = (&self.found.name, conflict.address, conflict.mac);
            tracing::warn!(link, %address, %by, "another station claims an address");
        }
        heard
            .frames
            .iter()
            .try_for_each(|frame| send(frames, frame))
    }

    /// Joins the groups of what is owned now, and leaves those of what was.
    fn join(&mut self, frames: &Frames) {
        let link = &self.found.name;
        for group in std::mem::take(&mut self.touched) {
            if self.machine.needs(group) {
                if self.joined.insert(group)
                    && let Err(error) = frames.join(group)
                {
                    tracing::warn!(link, %group, %error, "a group is not heard");
                }
            } else if self.joined.remove(&group)
                && let Err(error) = frames.leave(group)
            {
                tracing::debug!(link, %group, %error, "a group is still heard");
            }
        }
    }
}

/// Sends a frame. A full queue loses it, as a wire might: what matters is repeated, or
/// asked for again.
fn send(frames: &Frames, frame: &[u8]) -> io::Result<()> {
    match frames.send(frame) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) if error.raw_os_error() == Some(ENOBUFS) => Ok(()),
        answer => answer,
    }
}

/// No buffer space: the queue of the link is full.
const ENOBUFS: i32 = 105;
