//! SPDY/3.1 frames: bytes in, frames out, and back.
//!
//! HTTP/2 grew out of SPDY and replaced it, but clients that run commands in
//! containers and forward ports kept it as the framing of an upgraded
//! connection, and the older ones speak nothing else. Only what such a
//! connection carries is here: streams with headers, data, pings, resets.
//!
//! - [`Decoder`] takes bytes in any pieces. Data frames, which may be 16 MB, are
//!   passed on as they come instead of being collected.
//! - [`Encoder`] writes frames. Header blocks share one zlib state for a
//!   direction of the connection, so there is one of each per connection and
//!   every frame must go through it.
//! - [`Windows`] is the flow control, for peers that take part in it.
//!
//! Everything a peer can make us hold has a bound ([`MAX_CONTROL_BYTES`],
//! [`MAX_HEADER_BYTES`]). Nothing here opens a socket or knows the time.
//!
//! Deliberately absent: server push, CREDENTIAL frames, priorities, and the
//! pseudo headers of HTTP, which such connections do not use.
//!
//! The protocol: draft-mbelshe-httpbis-spdy-00 (SPDY/3) and its 3.1 update.

#![forbid(unsafe_code)]

mod decode;
mod dictionary;
mod encode;
mod frame;
mod headers;
mod windows;

pub use decode::{DecodeError, Decoder, MAX_CONTROL_BYTES};
pub use encode::{EncodeError, Encoder, MAX_DATA_BYTES};
pub use frame::{Frame, GoAwayStatus, Headers, ResetStatus, Setting, StreamId};
pub use headers::MAX_HEADER_BYTES;
pub use windows::Windows;

#[cfg(test)]
mod tests;
