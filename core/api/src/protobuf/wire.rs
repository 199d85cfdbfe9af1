//! Protobuf's wire format: numbered fields, one after the other.

/// What is wrong with the bytes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end inside a field.
    #[error("unexpected EOF")]
    CutShort,
    /// A number has more than 64 bits.
    #[error("integer overflow")]
    Overflow,
    /// Field number 0, or one above 2^29.
    #[error("illegal tag {0}")]
    IllegalTag(u64),
    /// A wire type that Kubernetes does not use.
    #[error("illegal wireType {0}")]
    IllegalWireType(u64),
    /// A known field has another wire type than its own.
    #[error("wrong wireType for field {0}")]
    WrongWireType(&'static str),
    /// A text is not UTF-8.
    #[error("invalid UTF-8")]
    NotUtf8,
}

/// The value of a field as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Raw<'a> {
    /// Integers and truth values.
    Number(u64),
    /// Texts, bytes and messages.
    Bytes(&'a [u8]),
    /// Four or eight bytes; no message of Kubernetes' kinds has such a field.
    Fixed,
}

/// The fields of a message; stops after a fault.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn field(&mut self) -> Result<(u32, Raw<'a>), WireError> {
        let key = self.varint()?;
        let number = key >> 3;
        let tag = match u32::try_from(number) {
            Ok(tag) if (1..1 << 29).contains(&tag) => tag,
            Ok(_) | Err(_) => return Err(WireError::IllegalTag(number)),
        };
        let raw = match key & 7 {
            0 => Raw::Number(self.varint()?),
            1 => self.take(8).map(|_| Raw::Fixed)?,
            2 => {
                let length = self.varint()?;
                // A length beyond the address space is beyond the bytes, too.
                Raw::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            5 => self.take(4).map(|_| Raw::Fixed)?,
            other => return Err(WireError::IllegalWireType(other)),
        };
        Ok((tag, raw))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self
            .rest
            .split_at_checked(length)
            .ok_or(WireError::CutShort)?;
        self.rest = tail;
        Ok(head)
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, tail) = self.rest.split_first().ok_or(WireError::CutShort)?;
            self.rest = tail;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(WireError::Overflow);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Overflow)
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u32, Raw<'a>), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Numbers of a list that was written in one piece.
pub(super) fn packed(bytes: &[u8]) -> impl Iterator<Item = Result<u64, WireError>> {
    let mut reader = Reader::new(bytes);
    std::iter::from_fn(move || {
        if reader.rest.is_empty() {
            return None;
        }
        let number = reader.varint();
        if number.is_err() {
            reader.rest = &[];
        }
        Some(number)
    })
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, WireError> {
    std::str::from_utf8(bytes).ok().ok_or(WireError::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_faults() {
        type Case = (&'static [u8], Result<(u32, Raw<'static>), WireError>);
        let cases: [Case; 14] = [
            (&[0x08, 0x96, 0x01], Ok((1, Raw::Number(150)))),
            (&[0x12, 0x02, b'h', b'i'], Ok((2, Raw::Bytes(b"hi")))),
            (&[0x12, 0x00], Ok((2, Raw::Bytes(b"")))),
            (&[0x1d, 1, 2, 3, 4], Ok((3, Raw::Fixed))),
            (&[0x19, 1, 2, 3, 4, 5, 6, 7, 8], Ok((3, Raw::Fixed))),
            (&[0x08], Err(WireError::CutShort)),
            (&[0x08, 0x80], Err(WireError::CutShort)),
            (&[0x12, 0x03, b'h', b'i'], Err(WireError::CutShort)),
            (&[0x1d, 1, 2, 3], Err(WireError::CutShort)),
            (&[0x00, 0x00], Err(WireError::IllegalTag(0))),
            (&[0x0b], Err(WireError::IllegalWireType(3))),
            (
                &[0x80, 0x80, 0x80, 0x80, 0x10, 0],
                Err(WireError::IllegalTag(1 << 29)),
            ),
            (
                &[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2],
                Err(WireError::Overflow),
            ),
            (
                &[0x12, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
                Err(WireError::CutShort),
            ),
        ];
        for (bytes, expected) in cases {
            let mut reader = Reader::new(bytes);
            assert_eq!(reader.next(), Some(expected), "{bytes:?}");
            assert_eq!(reader.next(), None, "{bytes:?}");
        }
        let minus_one = [0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
        assert_eq!(
            Reader::new(&minus_one).next(),
            Some(Ok((1, Raw::Number(u64::MAX))))
        );
    }
}
