//! Bytes of a connection into messages.

use bytes::{Buf, Bytes, BytesMut};
use rustbgpd_wire::{DecodeError, MAX_MESSAGE_LEN, Message, decode_message, peek_message_length};

use super::{Notice, code};

/// The length of a message's header.
const HEADER: usize = 19;
/// The type that the header says.
const TYPE_AT: usize = 18;

/// What came in on one connection and is not taken yet.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    bytes: BytesMut,
}

/// The shortest message of a type (RFC 4271 section 6.1, RFC 2918).
const fn shortest(kind: u8) -> usize {
    match kind {
        1 => 29,
        2 => 23,
        3 => 21,
        5 => 23,
        _ => HEADER,
    }
}

impl Stream {
    /// More bytes came in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, if it is there.
    ///
    /// # Errors
    /// The NOTIFICATION that the message deserves. Nothing behind it can be read.
    pub fn next_message(&mut self) -> Result<Option<Message>, Notice> {
        let peeked = peek_message_length(&self.bytes, MAX_MESSAGE_LEN);
        let length = match peeked.map_err(|error| Notice::from(&error))? {
            None => return Ok(None),
            Some(length) => usize::from(length),
        };
        let kind = self.bytes.get(TYPE_AT).copied().unwrap_or(0);
        // A KEEPALIVE has no body; others must have theirs.
        if length < shortest(kind) || (kind == 4 && length != HEADER) {
            return Err(bad_length(length));
        }
        if self.bytes.remaining() < length {
            return Ok(None);
        }
        let mut whole: Bytes = self.bytes.split_to(length).freeze();
        match decode_message(&mut whole, MAX_MESSAGE_LEN) {
            Ok(message) => Ok(Some(message)),
            Err(error) => Err(notice(&error, kind, length)),
        }
    }
}

/// What a message deserves that is not readable. The library speaks of an OPEN
/// where it knows no better.
fn notice(error: &DecodeError, kind: u8, length: usize) -> Notice {
    let notice = Notice::from(error);
    match kind {
        1 if notice.code == code::OPEN => notice,
        2 if notice.code == code::UPDATE => notice,
        _ if notice.code == code::HEADER && notice.subcode != 2 => notice,
        _ => bad_length(length),
    }
}

/// Bad Message Length, with the length.
fn bad_length(length: usize) -> Notice {
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    Notice {
        code: code::HEADER,
        subcode: 2,
        data: Bytes::copy_from_slice(&length.to_be_bytes()),
    }
}
