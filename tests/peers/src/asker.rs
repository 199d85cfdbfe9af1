//! A client that asks for an address all the time, and writes down who answers.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use portolan_announce::l2::ethernet::{self, Frame};
use portolan_announce::l2::{Mac, arp, ndp};
use portolan_kernel::frames::Frames;

use crate::PAUSE;
use crate::segment::{Segment, mac};

/// So many answers in a row of one node say that it is the only one.
const IN_A_ROW: usize = 60;

/// Who answers for less than this between answers of another was not alone.
const TURN: Duration = Duration::from_millis(100);

/// An answer, or news that nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// When, since the asker began.
    pub at: Duration,
    /// Of which node, by its link-layer address.
    pub node: u8,
    /// Whether it went to this client alone: it was asked for.
    pub asked: bool,
}

/// A client that asks every few milliseconds.
pub struct Asker {
    start: Instant,
    heard: Arc<Mutex<Vec<Heard>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Who asks, on which link.
struct Client {
    number: u8,
    frames: Frames,
}

impl Client {
    fn of(segment: &Segment) -> Result<Self> {
        let number = segment.client_number()?;
        let (ns, link) = segment.place(number)?;
        let frames = Frames::open(ns, *link)?;
        Ok(Self { number, frames })
    }

    /// A question to all.
    fn question(&self, address: IpAddr) -> Vec<u8> {
        let from = Mac(mac(self.number));
        match address {
            IpAddr::V4(target) => {
                let packet = arp::Packet {
                    operation: arp::Operation::Request,
                    sender_mac: from,
                    sender: Ipv4Addr::new(192, 0, 2, self.number),
                    target_mac: Mac::ZERO,
                    target,
                };
                ethernet::frame(Mac::BROADCAST, from, ethernet::ARP, &packet.bytes())
            }
            IpAddr::V6(target) => {
                let group = ndp::solicited_node(target);
                let host = u16::from(self.number);
                let message = ndp::Message {
                    source: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host),
                    destination: group,
                    target,
                    kind: ndp::Kind::Solicitation,
                    mac: Some(from),
                };
                let to = ndp::group_mac(group);
                ethernet::frame(to, from, ethernet::IPV6, &message.bytes())
            }
        }
    }

    /// The next answer, of whichever address.
    fn next(&self) -> Option<(IpAddr, u8, bool)> {
        let mut buffer = [0; 2048];
        while let Ok(Some(length)) = self.frames.receive(&mut buffer) {
            let frame = Frame::parse(buffer.get(..length).unwrap_or_default());
            let found = frame.and_then(|frame| {
                let (address, owner) = said(&frame)?;
                let node = (1..=u8::MAX).find(|node| Mac(mac(*node)) == owner)?;
                let asked = frame.destination == Mac(mac(self.number));
                Some((address, node, asked))
            });
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

/// Whose address a frame says is where.
fn said(frame: &Frame<'_>) -> Option<(IpAddr, Mac)> {
    match frame.ether_type {
        ethernet::ARP => {
            let packet = arp::Packet::parse(frame.payload)?;
            (packet.operation == arp::Operation::Reply)
                .then_some((packet.sender.into(), packet.sender_mac))
        }
        ethernet::IPV6 => {
            let message = ndp::Message::parse(frame.payload)?;
            let is_news = matches!(message.kind, ndp::Kind::Advertisement { .. });
            is_news.then_some((message.target.into(), message.mac.unwrap_or(frame.source)))
        }
        _ => None,
    }
}

impl Asker {
    /// Begins to ask.
    ///
    /// # Errors
    /// If the packet socket is refused.
    pub fn start(segment: &Segment, address: IpAddr) -> Result<Self> {
        let client = Client::of(segment)?;
        let start = Instant::now();
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let stop: Arc<AtomicBool> = Arc::default();
        let (book, end) = (Arc::clone(&heard), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let question = client.question(address);
            while !end.load(Ordering::Relaxed) {
                // A queue that is full loses it: the next one follows.
                drop(client.frames.send(&question));
                std::thread::sleep(PAUSE);
                while let Some((about, node, asked)) = client.next() {
                    let at = start.elapsed();
                    if about == address {
                        let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
                        book.push(Heard { at, node, asked });
                    }
                }
            }
        });
        Ok(Self {
            start,
            heard,
            stop,
            thread: Some(thread),
        })
    }

    /// Now, as the times of what is heard are.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// All that was heard since then.
    #[must_use]
    pub fn heard(&self, since: Duration) -> Vec<Heard> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard
            .iter()
            .filter(|one| one.at >= since)
            .copied()
            .collect()
    }

    fn answers(&self, since: Duration) -> Vec<Heard> {
        let mut heard = self.heard(since);
        heard.retain(|one| one.asked);
        heard
    }

    /// The node that alone answers, if the last answers since then are all of one.
    #[must_use]
    pub fn alone(&self, since: Duration) -> Option<u8> {
        let answers = self.answers(since);
        let last = answers.get(answers.len().checked_sub(IN_A_ROW)?..)?;
        let first = last.first()?.node;
        last.iter().all(|one| one.node == first).then_some(first)
    }

    /// Whether nobody has answered for a second, since then.
    #[must_use]
    pub fn nobody(&self, since: Duration) -> bool {
        let second = Duration::from_secs(1);
        let now = self.now();
        now > since + second && self.answers(now.saturating_sub(second)).is_empty()
    }

    /// For how long two answered by turns, since then: the times between answers of two
    /// nodes, as far as each had another turn at once.
    #[must_use]
    pub fn together(&self, since: Duration) -> Duration {
        let answers = self.answers(since);
        let pairs = answers.windows(2).filter_map(|pair| match pair {
            [one, two] if one.node != two.node => Some(two.at),
            _ => None,
        });
        let turns: Vec<Duration> = pairs.collect();
        let between = turns.windows(2).filter_map(|pair| match pair {
            [one, two] => Some(two.saturating_sub(*one)),
            _ => None,
        });
        between.filter(|time| *time < TURN).sum()
    }

    /// The longest time without an answer, from then to the last one.
    #[must_use]
    pub fn gap(&self, since: Duration) -> Duration {
        let mut last = since;
        let mut longest = Duration::ZERO;
        for answer in self.answers(since) {
            longest = longest.max(answer.at.saturating_sub(last));
            last = answer.at;
        }
        longest
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Asks once for each of these addresses that has not been answered for, and takes what
/// is answered out.
///
/// # Errors
/// If the packet socket is refused.
pub fn ask_for_all(segment: &Segment, unanswered: &mut BTreeSet<IpAddr>) -> Result<()> {
    let client = Client::of(segment)?;
    for address in unanswered.clone() {
        drop(client.frames.send(&client.question(address)));
        while let Some((about, ..)) = client.next() {
            unanswered.remove(&about);
        }
    }
    std::thread::sleep(PAUSE * 20);
    while let Some((about, ..)) = client.next() {
        unanswered.remove(&about);
    }
    Ok(())
}
