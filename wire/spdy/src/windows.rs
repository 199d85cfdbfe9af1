//! Flow control, for peers that take part in it.
//!
//! SPDY/3.1 gives each stream and the connection a window. The SPDY library of
//! most clients of upgraded connections ignores windows altogether: it never
//! sends WINDOW_UPDATE, so a sender that kept to the protocol would stop for
//! ever after 64 KiB. It never sends SETTINGS either, which a peer with flow
//! control does. So: a peer that has sent SETTINGS or WINDOW_UPDATE is held to
//! the windows and is given updates; with another, back-pressure is that of the
//! socket.

use std::collections::BTreeMap;

use crate::frame::{Frame, Setting, StreamId};

/// The window of a stream and of a connection to begin with.
const INITIAL: i64 = 64 * 1024;
/// Updates are worth a frame from here on.
const UPDATE_FROM: u32 = 32 * 1024;
/// The connection itself.
const CONNECTION: StreamId = 0;

/// Windows of one connection.
#[derive(Debug)]
pub struct Windows {
    takes_part: bool,
    initial: i64,
    /// What the peer lets us send still; may be negative after SETTINGS.
    send: BTreeMap<StreamId, i64>,
    /// What was consumed here and not yet told the peer.
    consumed: BTreeMap<StreamId, u32>,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            takes_part: false,
            initial: INITIAL,
            send: BTreeMap::from([(CONNECTION, INITIAL)]),
            consumed: BTreeMap::from([(CONNECTION, 0)]),
        }
    }
}

impl Windows {
    /// A stream was opened by either side.
    pub fn open(&mut self, stream: StreamId) {
        self.send.insert(stream, self.initial);
        self.consumed.insert(stream, 0);
    }

    /// A stream is gone.
    pub fn close(&mut self, stream: StreamId) {
        if stream != CONNECTION {
            self.send.remove(&stream);
            self.consumed.remove(&stream);
        }
    }

    /// Take note of a frame of the peer. True if more may be sent than before.
    pub fn received(&mut self, frame: &Frame) -> bool {
        match frame {
            Frame::Settings(settings) => {
                self.takes_part = true;
                let wanted = settings
                    .iter()
                    .find(|setting| setting.id == Setting::INITIAL_WINDOW_SIZE);
                if let Some(setting) = wanted {
                    let change = i64::from(setting.value) - self.initial;
                    self.initial += change;
                    for (stream, window) in &mut self.send {
                        if *stream != CONNECTION {
                            *window = window.saturating_add(change);
                        }
                    }
                }
                true
            }
            Frame::WindowUpdate { stream, delta } => {
                self.takes_part = true;
                if let Some(window) = self.send.get_mut(stream) {
                    *window = window.saturating_add(i64::from(*delta));
                }
                true
            }
            Frame::SynStream { .. }
            | Frame::SynReply { .. }
            | Frame::Data { .. }
            | Frame::Reset { .. }
            | Frame::Ping(_)
            | Frame::GoAway { .. }
            | Frame::Headers { .. } => false,
        }
    }

    /// Take up to `wanted` bytes from the windows: so many may be sent now.
    /// None for a stream that is gone.
    pub fn take(&mut self, stream: StreamId, wanted: usize) -> Option<usize> {
        let own = *self.send.get(&stream)?;
        let whole = *self.send.get(&CONNECTION)?;
        let granted = if self.takes_part {
            let room = usize::try_from(own.min(whole).max(0)).unwrap_or(usize::MAX);
            wanted.min(room)
        } else {
            wanted
        };
        // Counted from the start, since a peer may join in late.
        let used = i64::try_from(granted).unwrap_or(i64::MAX);
        for id in [stream, CONNECTION] {
            if let Some(window) = self.send.get_mut(&id) {
                *window = window.saturating_sub(used);
            }
        }
        Some(granted)
    }

    /// So many bytes of a stream were consumed: the updates to send.
    pub fn consume(&mut self, stream: StreamId, bytes: usize) -> Vec<Frame> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut updates = Vec::new();
        for id in [stream, CONNECTION] {
            let Some(count) = self.consumed.get_mut(&id) else {
                continue;
            };
            *count = count.saturating_add(bytes);
            if self.takes_part && *count >= UPDATE_FROM {
                updates.push(Frame::WindowUpdate {
                    stream: id,
                    delta: (*count).min(0x7fff_ffff),
                });
                *count = 0;
            }
        }
        updates
    }
}
