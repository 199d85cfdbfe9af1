//! The frame around every message.

/// The length of netlink's header.
const HEADER: usize = 16;
/// What is dumped changed meanwhile (NLM_F_DUMP_INTR).
const INTERRUPTED: u16 = 0x10;

/// A message inside a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Netlink's type: subsystem and message, or a control message.
    pub kind: u16,
    /// Netlink's flags.
    pub flags: u16,
    /// The sequence number of the request.
    pub seq: u32,
    /// What follows netlink's header.
    pub body: &'a [u8],
}

impl Message<'_> {
    /// Whether so much changed during the dump that something may be missing.
    #[must_use]
    pub const fn is_interrupted(&self) -> bool {
        self.flags & INTERRUPTED != 0
    }
}

/// The messages in a buffer, up to the first that is malformed.
pub fn messages(buffer: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = buffer;
    std::iter::from_fn(move || {
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *rest.first_chunk::<HEADER>()?;
        let len = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let body = rest.get(HEADER..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            seq: u32::from_ne_bytes([s0, s1, s2, s3]),
            body,
        })
    })
}
