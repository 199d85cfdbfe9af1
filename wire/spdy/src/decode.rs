//! Bytes to frames.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::frame::{
    CONTROL, FLAG_FIN, FLAG_UNIDIRECTIONAL, Frame, GoAwayStatus, Headers, ResetStatus, STREAM_MASK,
    Setting, StreamId, VERSION, kind,
};
use crate::headers::{BlockError, Inflate};

/// Limit of a control frame: the headers of one stream, or some settings.
pub const MAX_CONTROL_BYTES: usize = 64 * 1024;

/// Length of the fixed start of every frame.
const HEAD_BYTES: usize = 8;

/// Why the peer's bytes are no frames. The connection cannot be used any more:
/// neither the place of the next frame nor the state of the compression is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Another protocol, or another version.
    #[error("frame of version {0}, not 3")]
    Version(u16),
    /// Longer than [`MAX_CONTROL_BYTES`].
    #[error("a control frame of {0} bytes is too long")]
    TooLong(usize),
    /// The length does not fit the type.
    #[error("a control frame of type {kind} cannot have {length} bytes")]
    Length {
        /// The type of the frame.
        kind: u16,
        /// The length of its body.
        length: usize,
    },
    /// The stream must not be 0.
    #[error("a frame of type {0} for stream 0")]
    ZeroStream(u16),
    /// The header block is broken.
    #[error("bad header block: {0}")]
    Headers(&'static str),
}

/// Reads the frames of one direction of one connection.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    inflate: Inflate,
    /// The data frame whose bytes are still coming.
    data: Option<Data>,
    failed: Option<DecodeError>,
}

#[derive(Debug, Clone, Copy)]
struct Data {
    stream: StreamId,
    fin: bool,
    left: usize,
}

impl Decoder {
    /// Take what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, or `None` until more bytes have come.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let found = self.advance();
        if let Err(error) = &found {
            self.failed = Some(*error);
            self.buffer.clear();
        }
        found
    }

    fn advance(&mut self) -> Result<Option<Frame>, DecodeError> {
        loop {
            if let Some(data) = self.data {
                return Ok(self.piece(data));
            }
            let Some(head) = self.buffer.first_chunk::<HEAD_BYTES>() else {
                return Ok(None);
            };
            let [a, b, c, d, flags, e, f, g] = *head;
            let first = u32::from_be_bytes([a, b, c, d]);
            let length = usize::try_from(u32::from_be_bytes([0, e, f, g])).unwrap_or(usize::MAX);
            if first & CONTROL == 0 {
                self.buffer.advance(HEAD_BYTES);
                if first == 0 {
                    return Err(DecodeError::ZeroStream(0));
                }
                self.data = Some(Data {
                    stream: first,
                    fin: flags & FLAG_FIN != 0,
                    left: length,
                });
                continue;
            }
            let [_, _, version, kind] = [0, 0, (first >> 16) & 0x7fff, first & 0xffff]
                .map(|word| u16::try_from(word).unwrap_or_default());
            if version != VERSION {
                return Err(DecodeError::Version(version));
            }
            if length > MAX_CONTROL_BYTES {
                return Err(DecodeError::TooLong(length));
            }
            if self.buffer.len() < HEAD_BYTES + length {
                return Ok(None);
            }
            self.buffer.advance(HEAD_BYTES);
            let body = self.buffer.split_to(length).freeze();
            if let Some(frame) = self.control(kind, flags, &body)? {
                return Ok(Some(frame));
            }
        }
    }

    /// What there is of a data frame.
    fn piece(&mut self, data: Data) -> Option<Frame> {
        if self.buffer.is_empty() && data.left > 0 {
            return None;
        }
        let bytes = self.buffer.split_to(data.left.min(self.buffer.len()));
        let left = data.left - bytes.len();
        self.data = (left > 0).then_some(Data { left, ..data });
        Some(Frame::Data {
            stream: data.stream,
            fin: data.fin && left == 0,
            bytes: bytes.freeze(),
        })
    }

    fn control(
        &mut self,
        kind: u16,
        flags: u8,
        body: &Bytes,
    ) -> Result<Option<Frame>, DecodeError> {
        let fin = flags & FLAG_FIN != 0;
        let wrong = DecodeError::Length {
            kind,
            length: body.len(),
        };
        let exactly = |bytes: usize| {
            if body.len() == bytes {
                Ok(())
            } else {
                Err(wrong)
            }
        };
        let frame = match kind {
            kind::SYN_STREAM => {
                let stream = stream(kind, body).ok_or(wrong)??;
                let headers = self.block(body.get(10..).ok_or(wrong)?)?;
                Frame::SynStream {
                    stream,
                    fin,
                    unidirectional: flags & FLAG_UNIDIRECTIONAL != 0,
                    headers,
                }
            }
            kind::SYN_REPLY | kind::HEADERS => {
                let stream = stream(kind, body).ok_or(wrong)??;
                let headers = self.block(body.get(4..).ok_or(wrong)?)?;
                if kind == kind::SYN_REPLY {
                    Frame::SynReply {
                        stream,
                        fin,
                        headers,
                    }
                } else {
                    Frame::Headers {
                        stream,
                        fin,
                        headers,
                    }
                }
            }
            kind::RST_STREAM => {
                exactly(8)?;
                Frame::Reset {
                    stream: stream(kind, body).ok_or(wrong)??,
                    status: ResetStatus(word(body, 4).ok_or(wrong)?),
                }
            }
            kind::SETTINGS => Frame::Settings(settings(body).ok_or(wrong)?),
            kind::PING => {
                exactly(4)?;
                Frame::Ping(word(body, 0).ok_or(wrong)?)
            }
            kind::GOAWAY => {
                exactly(8)?;
                Frame::GoAway {
                    last: word(body, 0).ok_or(wrong)? & STREAM_MASK,
                    status: GoAwayStatus(word(body, 4).ok_or(wrong)?),
                }
            }
            kind::WINDOW_UPDATE => {
                exactly(8)?;
                Frame::WindowUpdate {
                    stream: word(body, 0).ok_or(wrong)? & STREAM_MASK,
                    delta: word(body, 4).ok_or(wrong)? & STREAM_MASK,
                }
            }
            // Unknown control frames are to be ignored (section 2.2.1).
            _ => return Ok(None),
        };
        Ok(Some(frame))
    }

    fn block(&mut self, block: &[u8]) -> Result<Headers, DecodeError> {
        self.inflate.read(block).map_err(|error| {
            DecodeError::Headers(match error {
                BlockError::Compression => "its compression is broken",
                BlockError::TooLong => "it is too long",
                BlockError::Lengths => "its lengths do not fit",
                BlockError::Text => "it is not text",
            })
        })
    }
}

fn word(body: &[u8], at: usize) -> Option<u32> {
    let bytes = body.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

/// The stream that a control frame begins with; not 0.
fn stream(kind: u16, body: &[u8]) -> Option<Result<StreamId, DecodeError>> {
    let stream = word(body, 0)? & STREAM_MASK;
    Some(if stream == 0 {
        Err(DecodeError::ZeroStream(kind))
    } else {
        Ok(stream)
    })
}

fn settings(body: &[u8]) -> Option<Vec<Setting>> {
    let entries = body.get(4..)?;
    let count = usize::try_from(word(body, 0)?).ok()?;
    let (entries, rest) = entries.as_chunks::<8>();
    if entries.len() != count || !rest.is_empty() {
        return None;
    }
    let setting = |[flags, a, b, c, d, e, f, g]: &[u8; 8]| Setting {
        flags: *flags,
        id: u32::from_be_bytes([0, *a, *b, *c]),
        value: u32::from_be_bytes([*d, *e, *f, *g]),
    };
    Some(entries.iter().map(setting).collect())
}

#[cfg(test)]
impl Decoder {
    /// Whether more of the last data frame is to come.
    pub(crate) fn data_is_open(&self) -> bool {
        self.data.is_some()
    }
}
