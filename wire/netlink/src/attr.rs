//! Messages and their attributes being written, attributes being read.

/// The bit of an attribute's type that says that it holds attributes.
const NESTED: u16 = 0x8000;

/// The bits of an attribute's type that are the type.
const TYPE_MASK: u16 = 0x3fff;

/// Messages being written, one after another.
#[derive(Debug, Default)]
pub struct Writer {
    /// What is written so far.
    pub bytes: Vec<u8>,
}

/// The place of a length that is filled in later.
#[must_use]
#[derive(Debug, Clone, Copy)]
pub struct Open(usize);

impl Writer {
    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    /// Begin a message: netlink's header and netfilter's.
    pub fn begin(&mut self, kind: u16, flags: u16, seq: u32, nfgen: [u8; 4]) -> Open {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(&nfgen);
        Open(start)
    }

    /// End a message.
    pub fn end(&mut self, open: Open) {
        let len = u32::try_from(self.bytes.len() - open.0).unwrap_or(u32::MAX);
        if let Some(slot) = self.bytes.get_mut(open.0..open.0 + 4) {
            slot.copy_from_slice(&len.to_ne_bytes());
        }
    }

    /// Write an attribute.
    pub fn attr(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// Write a string with its terminator.
    pub fn string(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.attr(kind, &bytes);
    }

    /// Write a number in network order, as nf_tables wants its numbers.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// Write a long number in network order.
    pub fn be64(&mut self, kind: u16, value: u64) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// Begin an attribute that holds attributes.
    pub fn nest(&mut self, kind: u16) -> Open {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&0_u16.to_ne_bytes());
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        Open(start)
    }

    /// Write an attribute that holds what `inside` writes.
    pub fn within(&mut self, kind: u16, inside: impl FnOnce(&mut Self)) {
        let open = self.nest(kind);
        inside(self);
        self.close(open);
    }

    /// The length of an attribute so far.
    #[must_use]
    pub fn nested_len(&self, open: Open) -> usize {
        self.bytes.len() - open.0
    }

    /// End an attribute that holds attributes.
    pub fn close(&mut self, open: Open) {
        let len = u16::try_from(self.bytes.len() - open.0).unwrap_or(u16::MAX);
        if let Some(slot) = self.bytes.get_mut(open.0..open.0 + 2) {
            slot.copy_from_slice(&len.to_ne_bytes());
        }
    }
}

/// Attributes being read, as types and values. Ends at the first that is malformed.
#[derive(Debug, Clone)]
pub struct Attrs<'a>(&'a [u8]);

impl<'a> Attrs<'a> {
    /// The attributes in these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The value of the first attribute of this type.
    #[must_use]
    pub fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone()
            .find(|(found, _)| *found == kind)
            .map(|(_, value)| value)
    }

    /// The attributes in the first attribute of this type.
    #[must_use]
    pub fn inside(&self, kind: u16) -> Option<Attrs<'a>> {
        self.get(kind).map(Attrs)
    }

    /// The first attribute of this type, when it is exactly so long.
    #[must_use]
    pub fn bytes<const N: usize>(&self, kind: u16) -> Option<[u8; N]> {
        self.get(kind)?.try_into().ok()
    }

    /// A byte.
    #[must_use]
    pub fn u8(&self, kind: u16) -> Option<u8> {
        self.bytes::<1>(kind).map(|[byte]| byte)
    }

    /// A short number in network order.
    #[must_use]
    pub fn be16(&self, kind: u16) -> Option<u16> {
        self.bytes(kind).map(u16::from_be_bytes)
    }

    /// A number in network order.
    #[must_use]
    pub fn be32(&self, kind: u16) -> Option<u32> {
        self.bytes(kind).map(u32::from_be_bytes)
    }

    /// A long number in network order.
    #[must_use]
    pub fn be64(&self, kind: u16) -> Option<u64> {
        self.bytes(kind).map(u64::from_be_bytes)
    }

    /// A string, up to its terminator; none if it is no UTF-8.
    #[must_use]
    pub fn string(&self, kind: u16) -> Option<&'a str> {
        let bytes = self.get(kind)?;
        std::str::from_utf8(bytes.split(|byte| *byte == 0).next()?).ok()
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [l0, l1, k0, k1] = *self.0.first_chunk::<4>()?;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let kind = u16::from_ne_bytes([k0, k1]) & TYPE_MASK;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    }
}
