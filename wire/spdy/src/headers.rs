//! Blocks of names and values, compressed with one zlib state per direction.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::dictionary::DICTIONARY;
use crate::frame::Headers;

/// Limit of one block after decompression: the streams of an upgraded
/// connection have a handful of short headers, and a few compressed bytes could
/// otherwise become gigabytes.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Why a block cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BlockError {
    #[error("its compression is broken")]
    Compression,
    #[error("it is longer than {MAX_HEADER_BYTES} bytes")]
    TooLong,
    #[error("its lengths do not fit")]
    Lengths,
    #[error("a name or value is not UTF-8")]
    Text,
}

/// Writes blocks.
#[derive(Default)]
pub(crate) struct Deflate(Option<Compress>);

impl Deflate {
    /// Append the compressed block.
    pub(crate) fn write(&mut self, headers: &Headers, out: &mut Vec<u8>) -> Option<()> {
        let compress = match &mut self.0 {
            Some(compress) => compress,
            None => {
                let mut compress = Compress::new(Compression::default(), true);
                compress.set_dictionary(&DICTIONARY).ok()?;
                self.0.insert(compress)
            }
        };
        let plain = plain(headers)?;
        let start = compress.total_in();
        let mut chunk = [0; 1024];
        loop {
            let taken = usize::try_from(compress.total_in() - start).ok()?;
            let before = compress.total_out();
            let rest = plain.get(taken..)?;
            compress
                .compress(rest, &mut chunk, FlushCompress::Sync)
                .ok()?;
            let written = usize::try_from(compress.total_out() - before).ok()?;
            out.extend_from_slice(chunk.get(..written)?);
            // A flush is complete when it left room in the output.
            if written < chunk.len() {
                return Some(());
            }
        }
    }
}

impl std::fmt::Debug for Deflate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deflate").finish_non_exhaustive()
    }
}

/// Count, then each name and value after its length; values of one name are
/// joined by zero bytes.
fn plain(headers: &Headers) -> Option<Vec<u8>> {
    let mut joined: Vec<(&str, String)> = Vec::new();
    for (name, value) in headers {
        match joined.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => {
                values.push('\0');
                values.push_str(value);
            }
            None => joined.push((name, value.clone())),
        }
    }
    let mut plain = Vec::new();
    plain.extend_from_slice(&u32::try_from(joined.len()).ok()?.to_be_bytes());
    for (name, value) in joined {
        for text in [name, value.as_str()] {
            plain.extend_from_slice(&u32::try_from(text.len()).ok()?.to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
    }
    Some(plain)
}

/// Reads blocks.
pub(crate) struct Inflate(Decompress);

impl Inflate {
    /// Read one whole compressed block.
    pub(crate) fn read(&mut self, block: &[u8]) -> Result<Headers, BlockError> {
        parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, BlockError> {
        let mut plain = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let (taken, made) = (self.0.total_in(), self.0.total_out());
            let result = self.0.decompress(block, &mut chunk, FlushDecompress::Sync);
            let taken = count(self.0.total_in() - taken)?;
            let made = count(self.0.total_out() - made)?;
            block = block.get(taken..).ok_or(BlockError::Compression)?;
            plain.extend_from_slice(chunk.get(..made).unwrap_or_default());
            if plain.len() > MAX_HEADER_BYTES {
                return Err(BlockError::TooLong);
            }
            match result {
                Ok(Status::StreamEnd) => return Err(BlockError::Compression),
                Ok(Status::Ok | Status::BufError) => {
                    if made < chunk.len() && (block.is_empty() || taken == 0) {
                        break;
                    }
                }
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(&DICTIONARY)
                        .map_err(|_wrong| BlockError::Compression)?;
                }
                Err(_broken) => return Err(BlockError::Compression),
            }
        }
        if block.is_empty() {
            Ok(plain)
        } else {
            Err(BlockError::Compression)
        }
    }
}

impl Default for Inflate {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl std::fmt::Debug for Inflate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflate").finish_non_exhaustive()
    }
}

fn count(bytes: u64) -> Result<usize, BlockError> {
    usize::try_from(bytes).map_err(|_huge| BlockError::TooLong)
}

fn parse(mut plain: &[u8]) -> Result<Headers, BlockError> {
    let mut headers = Headers::new();
    let pairs = number(&mut plain)?;
    for _ in 0..pairs {
        let name = text(&mut plain)?.to_ascii_lowercase();
        let values = text(&mut plain)?;
        for value in values.split('\0') {
            headers.push((name.clone(), value.to_owned()));
        }
    }
    if plain.is_empty() {
        Ok(headers)
    } else {
        Err(BlockError::Lengths)
    }
}

fn number(plain: &mut &[u8]) -> Result<u32, BlockError> {
    let (first, rest) = plain.split_first_chunk().ok_or(BlockError::Lengths)?;
    *plain = rest;
    Ok(u32::from_be_bytes(*first))
}

fn text<'a>(plain: &mut &'a [u8]) -> Result<&'a str, BlockError> {
    let length = count(u64::from(number(plain)?))?;
    let (text, rest) = plain.split_at_checked(length).ok_or(BlockError::Lengths)?;
    *plain = rest;
    std::str::from_utf8(text).map_err(|_not_text| BlockError::Text)
}
