//! Domain names in wire form.
//!
//! A [`Name`] is always absolute and lower-case, because names compare without
//! regard to case (RFC 4343) and a zone has one spelling of each. Wire form, not
//! dotted text, is what is compared: a dot inside a label is not two labels.

use std::fmt;
use std::net::IpAddr;

/// The longest name on the wire, its final root label included (RFC 1035 §3.1).
pub(crate) const MAX_NAME: usize = 255;
/// The longest label (RFC 1035 §3.1).
const MAX_LABEL: usize = 63;
/// The most labels that fit into [`MAX_NAME`], the root not counted.
const MAX_LABELS: usize = 127;

/// An absolute domain name, lower-case, in wire form.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

/// Why a text is not a domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Two dots in a row, or a dot at the start.
    #[error("a label of the name is empty")]
    EmptyLabel,
    /// A label above 63 octets.
    #[error("a label of the name is longer than 63 octets")]
    LabelTooLong,
    /// A name above 255 octets.
    #[error("the name is longer than 255 octets")]
    TooLong,
    /// A backslash that is followed neither by a character nor by three digits.
    #[error("the name has a bad backslash escape")]
    BadEscape,
}

impl Name {
    /// The root, `.`.
    pub fn root() -> Self {
        Self(Box::from([0]))
    }

    /// Reads a dotted name; the final dot may be missing, the name is absolute
    /// all the same. `\.` and `\065` are escapes as in zone files.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text == "." {
            return Ok(Self::root());
        }
        let mut labels: Vec<Vec<u8>> = vec![Vec::new()];
        let mut rest = text.bytes().peekable();
        while let Some(byte) = rest.next() {
            match byte {
                b'.' if rest.peek().is_none() => break,
                b'.' => labels.push(Vec::new()),
                b'\\' => push_last(&mut labels, escape(&mut rest)?),
                plain => push_last(&mut labels, plain),
            }
        }
        Self::from_labels(labels)
    }

    /// A name from its labels, the one nearest to the root last. A dot inside
    /// a label is part of that label.
    pub fn from_labels<L: AsRef<[u8]>>(
        labels: impl IntoIterator<Item = L>,
    ) -> Result<Self, NameError> {
        let mut wire = Vec::with_capacity(64);
        for label in labels {
            push_label(&mut wire, label.as_ref())?;
        }
        Self::close(wire, &[0])
    }

    /// The name one level below this one.
    pub fn child(&self, label: impl AsRef<[u8]>) -> Result<Self, NameError> {
        let mut wire = Vec::with_capacity(self.0.len() + 1 + label.as_ref().len());
        push_label(&mut wire, label.as_ref())?;
        Self::close(wire, &self.0)
    }

    /// The name under which the address is looked up backwards: four labels
    /// below `in-addr.arpa` (RFC 1035 §3.5) or 32 below `ip6.arpa` (RFC 3596).
    pub fn reverse(address: IpAddr) -> Self {
        let (digits, suffix) = reverse_digits(address);
        Self::reverse_name(&digits, suffix)
    }

    /// `digits` from the most significant one, turned round before `suffix`.
    fn reverse_name(digits: &[String], suffix: [&str; 2]) -> Self {
        let labels = digits.iter().rev().map(String::as_str).chain(suffix);
        // 32 nibbles and the suffix are far below the limits of a name.
        Self::from_labels(labels).unwrap_or_else(|_| Self::root())
    }

    fn close(mut wire: Vec<u8>, suffix: &[u8]) -> Result<Self, NameError> {
        wire.extend_from_slice(suffix);
        if wire.len() > MAX_NAME {
            return Err(NameError::TooLong);
        }
        wire.make_ascii_lowercase();
        Ok(Self(wire.into_boxed_slice()))
    }

    /// From bytes that are known to be a whole name in wire form.
    pub(crate) fn from_wire(wire: &[u8]) -> Self {
        Self(wire.to_ascii_lowercase().into_boxed_slice())
    }

    /// The wire form with the final root label.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// The labels from the left, without the root.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        Labels(&self.0)
    }

    /// The name without its first label; the root has no parent.
    pub fn parent(&self) -> Option<Self> {
        let first = self.labels().next()?.len();
        self.0.get(first + 1..).map(Self::from_wire)
    }

    /// Whether this name is `origin` or lies below it.
    pub fn is_within(&self, origin: &Self) -> bool {
        Spelled::of(self).prefix_above(origin.as_wire()).is_some()
    }
}

fn push_last(labels: &mut [Vec<u8>], byte: u8) {
    if let Some(last) = labels.last_mut() {
        last.push(byte);
    }
}

fn push_label(wire: &mut Vec<u8>, label: &[u8]) -> Result<(), NameError> {
    match u8::try_from(label.len()) {
        Ok(0) => Err(NameError::EmptyLabel),
        Ok(length) if usize::from(length) <= MAX_LABEL => {
            wire.push(length);
            wire.extend_from_slice(label);
            Ok(())
        }
        Ok(_) | Err(_) => Err(NameError::LabelTooLong),
    }
}

/// What follows a backslash: three decimal digits, or one character as it is.
fn escape(rest: &mut impl Iterator<Item = u8>) -> Result<u8, NameError> {
    let first = rest.next().ok_or(NameError::BadEscape)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut value = u16::from(first - b'0');
    for _ in 0..2 {
        let digit = rest.next().filter(u8::is_ascii_digit);
        value = value * 10 + u16::from(digit.ok_or(NameError::BadEscape)? - b'0');
    }
    u8::try_from(value).or(Err(NameError::BadEscape))
}

/// The labels of an address from the most significant one, and their suffix.
fn reverse_digits(address: IpAddr) -> (Vec<String>, [&'static str; 2]) {
    match address {
        IpAddr::V4(v4) => (
            v4.octets().iter().map(u8::to_string).collect(),
            ["in-addr", "arpa"],
        ),
        IpAddr::V6(v6) => (
            v6.octets()
                .iter()
                .flat_map(|octet| [octet >> 4, octet & 15])
                .map(|nibble| format!("{nibble:x}"))
                .collect(),
            ["ip6", "arpa"],
        ),
    }
}

/// A zone in which addresses of a range have names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReverseZone {
    /// Its origin.
    pub origin: Name,
    /// The labels under the origin that are of the range, if not all are.
    pub labels: Option<Vec<String>>,
}

/// The reverse zones that cover an address range. A range that does not end on a
/// label boundary (an octet, or a nibble of IPv6) needs several; one that ends within
/// the last label is a part of one zone, since an address that is an origin itself
/// would exist whether it has a name or not.
pub fn reverse_zones(address: IpAddr, prefix: u8) -> Vec<ReverseZone> {
    let (digits, suffix) = reverse_digits(address);
    let (bits, radix) = match address {
        IpAddr::V4(_) => (8_usize, 10),
        IpAddr::V6(_) => (4_usize, 16),
    };
    let prefix = usize::from(prefix).min(digits.len() * bits);
    // A whole address is one of those in its last label.
    let whole = (prefix / bits).min(digits.len() - 1);
    let fixed = prefix - whole * bits;
    let kept = digits.get(..whole).unwrap_or_default();
    let zone = |digits: &[String], labels| ReverseZone {
        origin: Name::reverse_name(digits, suffix),
        labels,
    };
    let Some(split) = digits.get(whole).filter(|_| fixed > 0) else {
        return vec![zone(kept, None)];
    };
    let free = bits - fixed;
    let first = (u32::from_str_radix(split, radix).unwrap_or(0) >> free) << free;
    let labels = (first..first + (1 << free)).map(|value| match radix {
        16 => format!("{value:x}"),
        _ => value.to_string(),
    });
    if whole + 1 == digits.len() {
        return vec![zone(kept, Some(labels.collect()))];
    }
    let below = |label| zone(&[kept, &[label]].concat(), None);
    labels.map(below).collect()
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() <= 1 {
            return out.write_str(".");
        }
        for label in self.labels() {
            for &byte in label {
                match byte {
                    b'.' | b'\\' => write!(out, "\\{}", char::from(byte))?,
                    0x21..=0x7e => write!(out, "{}", char::from(byte))?,
                    _ => write!(out, "\\{byte:03}")?,
                }
            }
            out.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Name({self})")
    }
}

impl std::str::FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

struct Labels<'a>(&'a [u8]);

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (&length, rest) = self.0.split_first()?;
        if length == 0 {
            return None;
        }
        let (label, rest) = rest.split_at_checked(usize::from(length))?;
        self.0 = rest;
        Some(label)
    }
}

/// A name on the stack, lower-case, that knows where its labels start: what the
/// answering code works with, so that a query allocates nothing.
pub(crate) struct Spelled {
    bytes: [u8; MAX_NAME],
    /// With the final root label.
    len: usize,
    starts: [u8; MAX_LABELS],
    labels: usize,
}

impl Spelled {
    fn empty() -> Self {
        Self {
            bytes: [0; MAX_NAME],
            len: 0,
            starts: [0; MAX_LABELS],
            labels: 0,
        }
    }

    pub(crate) fn of(name: &Name) -> Self {
        // A Name has passed the same checks, so reading it cannot fail.
        Self::read(name.as_wire()).unwrap_or_else(Self::empty)
    }

    /// Reads the name at the start of `wire`, which may not use compression:
    /// nothing comes before the name that a question could point to.
    pub(crate) fn read(wire: &[u8]) -> Option<Self> {
        let mut this = Self::empty();
        let mut at = 0;
        loop {
            let length = usize::from(*wire.get(at)?);
            if length == 0 {
                break;
            }
            let end = at + 1 + length;
            if length > MAX_LABEL || end >= MAX_NAME {
                return None;
            }
            *this.starts.get_mut(this.labels)? = u8::try_from(at).ok()?;
            this.labels += 1;
            at = end;
        }
        this.len = at + 1;
        this.bytes
            .get_mut(..this.len)?
            .copy_from_slice(wire.get(..this.len)?);
        // Length octets are at most 63 and thus never look like a capital letter.
        this.bytes.get_mut(..this.len)?.make_ascii_lowercase();
        Some(this)
    }

    /// `prefix`, which is whole labels, before what is left of `owner` without
    /// its first `skip` labels.
    pub(crate) fn join(prefix: &[u8], owner: &Self, skip: usize) -> Option<Self> {
        let suffix = owner.suffix(skip)?;
        let len = prefix.len() + suffix.len();
        let mut wire = [0; MAX_NAME];
        wire.get_mut(..prefix.len())?.copy_from_slice(prefix);
        wire.get_mut(prefix.len()..len)?.copy_from_slice(suffix);
        Self::read(wire.get(..len)?)
    }

    pub(crate) fn wire(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    pub(crate) fn labels(&self) -> usize {
        self.labels
    }

    /// Where the label number `index` starts; the root label follows the last.
    pub(crate) fn start(&self, index: usize) -> Option<usize> {
        if index == self.labels {
            return self.len.checked_sub(1);
        }
        self.starts
            .get(..self.labels)?
            .get(index)
            .map(|&at| usize::from(at))
    }

    /// The name without its first `skip` labels.
    pub(crate) fn suffix(&self, skip: usize) -> Option<&[u8]> {
        self.wire().get(self.start(skip)?..)
    }

    /// What comes before `origin`, if the name ends with it at a label boundary.
    pub(crate) fn prefix_above(&self, origin: &[u8]) -> Option<&[u8]> {
        let cut = self.len.checked_sub(origin.len())?;
        if self.wire().get(cut..)? != origin {
            return None;
        }
        let boundary = cut + 1 == self.len
            || self
                .starts
                .get(..self.labels)?
                .binary_search(&u8::try_from(cut).ok()?)
                .is_ok();
        if boundary {
            self.wire().get(..cut)
        } else {
            None
        }
    }

    /// How many leading labels of `self` must go until `other` ends with the
    /// rest: the longest common suffix.
    pub(crate) fn common_suffix(&self, other: &Self) -> usize {
        let most = self.labels.min(other.labels);
        let mut shared = 0;
        while shared < most {
            let longer = shared + 1;
            let mine = self.suffix(self.labels - longer);
            if mine.is_none() || mine != other.suffix(other.labels - longer) {
                break;
            }
            shared = longer;
        }
        self.labels - shared
    }

    pub(crate) fn to_name(&self) -> Name {
        Name::from_wire(self.wire())
    }
}
