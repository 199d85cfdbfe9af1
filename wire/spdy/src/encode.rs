//! Frames to bytes.

use crate::frame::{
    CONTROL, FLAG_FIN, FLAG_UNIDIRECTIONAL, Frame, Headers, STREAM_MASK, VERSION, kind,
};
use crate::headers::Deflate;

/// The most that fits into the length of a frame.
pub const MAX_DATA_BYTES: usize = 0x00ff_ffff;

/// Why a frame cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// More bytes than a frame holds.
    #[error("a frame holds at most {MAX_DATA_BYTES} bytes")]
    TooLong,
    /// The headers could not be compressed.
    #[error("cannot compress headers")]
    Headers,
}

/// Writes the frames of one direction of one connection.
#[derive(Debug, Default)]
pub struct Encoder {
    deflate: Deflate,
}

impl Encoder {
    /// Append a frame. After an error the connection cannot be used any more.
    pub fn encode(&mut self, frame: &Frame, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match frame {
            Frame::SynStream {
                stream,
                fin,
                unidirectional,
                headers,
            } => {
                let mut flags = if *fin { FLAG_FIN } else { 0 };
                if *unidirectional {
                    flags |= FLAG_UNIDIRECTIONAL;
                }
                let mut body = words(&[stream & STREAM_MASK, 0]);
                body.extend_from_slice(&[0, 0]);
                self.block(kind::SYN_STREAM, flags, body, headers, out)
            }
            Frame::SynReply {
                stream,
                fin,
                headers,
            } => {
                let body = words(&[stream & STREAM_MASK]);
                self.block(kind::SYN_REPLY, u8::from(*fin), body, headers, out)
            }
            Frame::Headers {
                stream,
                fin,
                headers,
            } => {
                let body = words(&[stream & STREAM_MASK]);
                self.block(kind::HEADERS, u8::from(*fin), body, headers, out)
            }
            Frame::Data { stream, fin, bytes } => {
                out.extend_from_slice(&(stream & STREAM_MASK).to_be_bytes());
                length(u8::from(*fin), bytes.len(), out)?;
                out.extend_from_slice(bytes);
                Ok(())
            }
            Frame::Reset { stream, status } => control(
                kind::RST_STREAM,
                0,
                &words(&[stream & STREAM_MASK, status.0]),
                out,
            ),
            Frame::Settings(settings) => {
                let count = u32::try_from(settings.len()).map_err(|_many| EncodeError::TooLong)?;
                let mut body = words(&[count]);
                for setting in settings {
                    let id = u32::from(setting.flags) << 24 | setting.id & 0x00ff_ffff;
                    body.extend_from_slice(&words(&[id, setting.value]));
                }
                control(kind::SETTINGS, 0, &body, out)
            }
            Frame::Ping(id) => control(kind::PING, 0, &words(&[*id]), out),
            Frame::GoAway { last, status } => control(
                kind::GOAWAY,
                0,
                &words(&[last & STREAM_MASK, status.0]),
                out,
            ),
            Frame::WindowUpdate { stream, delta } => control(
                kind::WINDOW_UPDATE,
                0,
                &words(&[stream & STREAM_MASK, delta & STREAM_MASK]),
                out,
            ),
        }
    }

    fn block(
        &mut self,
        kind: u16,
        flags: u8,
        mut body: Vec<u8>,
        headers: &Headers,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        self.deflate
            .write(headers, &mut body)
            .ok_or(EncodeError::Headers)?;
        control(kind, flags, &body, out)
    }
}

fn control(kind: u16, flags: u8, body: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let first = CONTROL | u32::from(VERSION) << 16 | u32::from(kind);
    out.extend_from_slice(&first.to_be_bytes());
    length(flags, body.len(), out)?;
    out.extend_from_slice(body);
    Ok(())
}

fn length(flags: u8, bytes: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if bytes > MAX_DATA_BYTES {
        return Err(EncodeError::TooLong);
    }
    let bytes = u32::try_from(bytes).map_err(|_huge| EncodeError::TooLong)?;
    out.extend_from_slice(&(u32::from(flags) << 24 | bytes).to_be_bytes());
    Ok(())
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}
