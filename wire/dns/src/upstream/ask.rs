//! The question that is asked of another server in place of a client's.
//!
//! A client's message is not passed on: its EDNS options are its own affair
//! with us (cookies, padding), and clients that ask the same share one question.

use crate::message::{CLASS_IN, HEADER, parse};
use crate::name::{MAX_NAME, Name};
use crate::packed::Cursor;
use crate::record::Rtype;

/// The size of UDP replies that is asked for: what passes every link whole.
const UDP_SIZE: u16 = 1232;
/// Name, type, class, and one octet of flags.
const MOST_KEY: usize = MAX_NAME + 5;

const RECURSION_DESIRED: u8 = 0x01;
const CHECKING_DISABLED: u8 = 0x10;
const AUTHENTIC: u8 = 0x20;
const DNSSEC_OK: u8 = 0x80;

/// What makes two queries one question: name without regard to case, type,
/// class, RD, CD and DO (RFC 4035 §4.7 keeps replies of the last two apart).
#[derive(Clone, Copy)]
pub struct Key {
    bytes: [u8; MOST_KEY],
    len: usize,
}

impl Key {
    /// The key of a readable query with one question.
    pub fn of(query: &[u8]) -> Option<Self> {
        let request = parse(query).ok()?;
        let name = request.name.wire();
        let recursion = query.get(2)? & RECURSION_DESIRED;
        let checking = query.get(3)? & CHECKING_DISABLED;
        let dnssec = request.edns.is_some_and(|edns| edns.dnssec_ok);
        let flags = recursion | checking | if dnssec { DNSSEC_OK } else { 0 };
        let [t1, t2] = request.rtype.0.to_be_bytes();
        let [c1, c2] = request.class.to_be_bytes();
        let mut bytes = [0; MOST_KEY];
        let len = name.len() + 5;
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        let fixed = [t1, t2, c1, c2, flags];
        bytes.get_mut(name.len()..len)?.copy_from_slice(&fixed);
        Some(Self { bytes, len })
    }

    /// The key as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn name(&self) -> &[u8] {
        self.bytes.get(..self.len - 5).unwrap_or_default()
    }

    fn fixed(&self) -> &[u8] {
        self.bytes.get(self.len - 5..self.len).unwrap_or_default()
    }

    fn flags(&self) -> u8 {
        self.fixed().last().copied().unwrap_or_default()
    }

    /// The name that is asked for, lower-case.
    pub fn to_name(&self) -> Name {
        Name::from_wire(self.name())
    }

    /// The type that is asked for.
    pub fn rtype(&self) -> Rtype {
        Rtype(Cursor(self.fixed()).u16().unwrap_or_default())
    }
}

/// One message to another server, and what tells its reply from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    message: Vec<u8>,
    question: usize,
    exact_case: bool,
}

impl Ask {
    /// A message with this ID. With `case`, each letter of the name is upper-case
    /// where the next bit of it is set, and a reply must have the same case
    /// (the "0x20" way to make forgeries harder). Without `edns` there is no OPT
    /// record, for servers that do not know it.
    pub fn new(key: &Key, id: u16, case: Option<[u8; 32]>, edns: bool) -> Self {
        let flags = key.flags();
        let mut message = Vec::with_capacity(HEADER + key.len + 11);
        message.extend_from_slice(&id.to_be_bytes());
        message.push(flags & RECURSION_DESIRED);
        // AD says that the reply's AD is understood (RFC 6840 §5.7).
        message.push((flags & CHECKING_DISABLED) | AUTHENTIC);
        message.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
        message.extend_from_slice(key.name());
        message.extend_from_slice(key.fixed().get(..4).unwrap_or_default());
        let question = message.len() - HEADER;
        if let Some(bits) = case {
            let letters = message.iter_mut().skip(HEADER).take(key.name().len());
            for (at, octet) in letters.enumerate() {
                // Length octets are at most 63 and thus no letters.
                if bits
                    .get(at / 8)
                    .is_some_and(|bits| bits >> (at % 8) & 1 == 1)
                {
                    octet.make_ascii_uppercase();
                }
            }
        }
        if edns {
            message.push(0);
            message.extend_from_slice(&Rtype::OPT.0.to_be_bytes());
            message.extend_from_slice(&UDP_SIZE.to_be_bytes());
            message.extend_from_slice(&[0, 0, flags & DNSSEC_OK, 0, 0, 0]);
        }
        Self {
            message,
            question,
            exact_case: case.is_some(),
        }
    }

    /// The message as it is sent.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Whether `reply` is the reply to this message: a reply, with its ID and its
    /// question. Forged, late and broken ones are not.
    pub fn is_answered_by(&self, reply: &[u8]) -> bool {
        let Some([i1, i2, flags, _, q1, q2, ..]) = reply.first_chunk::<HEADER>() else {
            return false;
        };
        let id = self.message.first_chunk();
        let asked = self.message.get(HEADER..HEADER + self.question);
        let echoed = reply.get(HEADER..HEADER + self.question);
        let same = match (asked, echoed) {
            (Some(asked), Some(echoed)) if self.exact_case => asked == echoed,
            (Some(asked), Some(echoed)) => asked.eq_ignore_ascii_case(echoed),
            _ => false,
        };
        id == Some(&[*i1, *i2]) && flags & 0x80 != 0 && (*q1, *q2) == (0, 1) && same
    }

    /// Whether `reply` refuses a message because of its form, without repeating
    /// the question: what servers do that do not know EDNS (RFC 6891 §7).
    pub fn is_refused_by(&self, reply: &[u8]) -> bool {
        let Some([i1, i2, flags, code, ..]) = reply.first_chunk::<HEADER>() else {
            return false;
        };
        let id = self.message.first_chunk();
        id == Some(&[*i1, *i2]) && flags & 0x80 != 0 && matches!(code & 0x0f, 1 | 4)
    }

    /// The class is that of the Internet.
    pub fn is_internet(&self) -> bool {
        let end = HEADER + self.question;
        self.message.get(end - 2..end) == Some(&CLASS_IN.to_be_bytes())
    }
}
