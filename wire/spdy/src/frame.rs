//! Frames as values.

use bytes::Bytes;

/// Streams of the client are odd, of the server even; 31 bits; 0 is the
/// connection itself.
pub type StreamId = u32;

/// Names in lower case with their values; several values of one name are
/// separate entries.
pub type Headers = Vec<(String, String)>;

/// One frame. Data may come in several pieces of which only the last has the
/// frame's `fin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    SynStream {
        /// The new stream.
        stream: StreamId,
        /// The sender sends no data on it.
        fin: bool,
        /// The receiver may send no data on it.
        unidirectional: bool,
        /// What the stream is for.
        headers: Headers,
    },
    /// Accepts a stream.
    SynReply {
        /// The stream.
        stream: StreamId,
        /// The sender sends no data on it.
        fin: bool,
        /// Usually none.
        headers: Headers,
    },
    /// Bytes of a stream.
    Data {
        /// The stream.
        stream: StreamId,
        /// The sender's last data.
        fin: bool,
        /// Some bytes, or none.
        bytes: Bytes,
    },
    /// Ends a stream in both directions at once.
    Reset {
        /// The stream.
        stream: StreamId,
        /// Why.
        status: ResetStatus,
    },
    /// What the sender wishes.
    Settings(Vec<Setting>),
    /// To be sent back by the receiver if the number is of the sender's parity.
    Ping(u32),
    /// No new streams are accepted.
    GoAway {
        /// The last stream of the peer that was accepted.
        last: StreamId,
        /// Why.
        status: GoAwayStatus,
    },
    /// More headers of a stream.
    Headers {
        /// The stream.
        stream: StreamId,
        /// The sender's last frame.
        fin: bool,
        /// The headers.
        headers: Headers,
    },
    /// The receiver of data has room for more.
    WindowUpdate {
        /// The stream, 0 for the connection.
        stream: StreamId,
        /// So many bytes more.
        delta: u32,
    },
}

/// One entry of [`Frame::Settings`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Whether it shall be, or was, remembered.
    pub flags: u8,
    /// Which; see the constants.
    pub id: u32,
    /// How much.
    pub value: u32,
}

impl Setting {
    /// The most streams that the sender wants to see at a time.
    pub const MAX_CONCURRENT_STREAMS: u32 = 4;
    /// The window with which streams begin.
    pub const INITIAL_WINDOW_SIZE: u32 = 7;
}

/// Why a stream is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetStatus(pub u32);

impl ResetStatus {
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// There is no such stream.
    pub const INVALID_STREAM: Self = Self(2);
    /// Not wanted, and nothing was done with it.
    pub const REFUSED_STREAM: Self = Self(3);
    /// Not needed any more.
    pub const CANCEL: Self = Self(5);
    /// The sender failed.
    pub const INTERNAL_ERROR: Self = Self(6);
    /// The peer sent more than the window allows.
    pub const FLOW_CONTROL_ERROR: Self = Self(7);
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoAwayStatus(pub u32);

impl GoAwayStatus {
    /// All is well.
    pub const OK: Self = Self(0);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// The sender failed.
    pub const INTERNAL_ERROR: Self = Self(2);
}

/// Types of control frames.
pub(crate) mod kind {
    pub(crate) const SYN_STREAM: u16 = 1;
    pub(crate) const SYN_REPLY: u16 = 2;
    pub(crate) const RST_STREAM: u16 = 3;
    pub(crate) const SETTINGS: u16 = 4;
    pub(crate) const PING: u16 = 6;
    pub(crate) const GOAWAY: u16 = 7;
    pub(crate) const HEADERS: u16 = 8;
    pub(crate) const WINDOW_UPDATE: u16 = 9;
}

/// The version of frames: SPDY/3.1 kept that of SPDY/3.
pub(crate) const VERSION: u16 = 3;
/// The first bit of a control frame.
pub(crate) const CONTROL: u32 = 0x8000_0000;
/// All but the first bit.
pub(crate) const STREAM_MASK: u32 = 0x7fff_ffff;
pub(crate) const FLAG_FIN: u8 = 1;
pub(crate) const FLAG_UNIDIRECTIONAL: u8 = 2;
