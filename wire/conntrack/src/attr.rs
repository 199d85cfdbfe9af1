//! Netlink attributes: writing them nested, reading them without trust.

/// The bit of an attribute's type that says that it holds attributes.
const NESTED: u16 = 0x8000;

/// The bits of an attribute's type that are the type.
const TYPE_MASK: u16 = 0x3fff;

/// Write an attribute.
pub(crate) fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Write an attribute that holds what `inside` writes.
pub(crate) fn nest(out: &mut Vec<u8>, kind: u16, inside: impl FnOnce(&mut Vec<u8>)) {
    let mut value = Vec::new();
    inside(&mut value);
    put(out, kind | NESTED, &value);
}

/// Attributes being read. Ends at the first that is malformed.
#[derive(Clone)]
pub(crate) struct Attrs<'a>(pub(crate) &'a [u8]);

impl<'a> Attrs<'a> {
    /// The value of the first attribute of this type.
    pub(crate) fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone()
            .find(|(found, _)| *found == kind)
            .map(|(_, value)| value)
    }

    /// The attributes in the first attribute of this type.
    pub(crate) fn inside(&self, kind: u16) -> Option<Attrs<'a>> {
        self.get(kind).map(Attrs)
    }

    /// The first attribute of this type, when it is exactly so long.
    pub(crate) fn bytes<const N: usize>(&self, kind: u16) -> Option<[u8; N]> {
        self.get(kind)?.try_into().ok()
    }

    /// A byte.
    pub(crate) fn u8(&self, kind: u16) -> Option<u8> {
        self.bytes::<1>(kind).map(|[byte]| byte)
    }

    /// A short number in network order.
    pub(crate) fn be16(&self, kind: u16) -> Option<u16> {
        self.bytes(kind).map(u16::from_be_bytes)
    }

    /// A number in network order.
    pub(crate) fn be32(&self, kind: u16) -> Option<u32> {
        self.bytes(kind).map(u32::from_be_bytes)
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [l0, l1, k0, k1] = *self.0.first_chunk::<4>()?;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((u16::from_ne_bytes([k0, k1]) & TYPE_MASK, value))
    }
}
