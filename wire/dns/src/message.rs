//! What is read of a query (RFC 1035 §4.1, RFC 6891).

use crate::name::Spelled;
use crate::packed::Cursor;
use crate::record::Rtype;

/// The fixed header of every message.
pub(crate) const HEADER: usize = 12;
/// What may always be sent over UDP (RFC 1035 §4.2.1).
const PLAIN_UDP: usize = 512;
/// The most that a UDP datagram over IPv4 carries.
const MOST_UDP: usize = 65_507;
/// The most that the length field of a TCP message can say.
const MOST_TCP: usize = 65_535;

pub(crate) const CLASS_IN: u16 = 1;

/// The number of the option that says who answers (RFC 5001).
pub(crate) const NSID: u16 = 3;
/// The number of the option with cookies (RFC 7873).
pub(crate) const COOKIE: u16 = 10;
/// Number and length before each option.
pub(crate) const OPTION_HEAD: usize = 4;
/// The client's part of a cookie.
pub(crate) const CLIENT_COOKIE: usize = 8;
/// The server's part, as RFC 9018 makes it.
pub(crate) const SERVER_COOKIE: usize = 16;
/// What of a server's name is told.
pub(crate) const MOST_NSID: usize = 64;

/// How the query came, which says how long the reply may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// One datagram: 512 octets, or what EDNS grants.
    Udp,
    /// A stream: 65 535 octets.
    Tcp,
}

/// The outcome that a reply states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum Rcode {
    /// The name exists, with or without records of the type.
    NoError = 0,
    /// The query could not be read.
    FormErr = 1,
    /// The server cannot tell.
    ServFail = 2,
    /// The name does not exist.
    NxDomain = 3,
    /// An operation that this server does not have.
    NotImp = 4,
    /// A question that this server does not answer.
    Refused = 5,
    /// A transfer of what is no zone of this server (RFC 5936 §2.2.1).
    NotAuth = 9,
    /// An EDNS version that this server does not speak (RFC 6891 §6.1.3).
    BadVers = 16,
    /// The client shows no cookie of this server (RFC 7873 §8).
    BadCookie = 23,
}

/// The EDNS record of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edns {
    pub(crate) size: u16,
    pub(crate) version: u8,
    pub(crate) dnssec_ok: bool,
    /// What the reply's own options may need.
    pub(crate) reserved: usize,
}

/// The options of a query that this side understands; all others, padding among
/// them, are passed over (RFC 6891 §6.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Options<'a> {
    /// The client's part and, if it has been here before, ours (RFC 7873 §4).
    pub(crate) cookie: Option<&'a [u8]>,
    /// It wants to know who answers (RFC 5001).
    pub(crate) nsid: bool,
}

/// A query that has one readable question.
pub(crate) struct Request<'a> {
    /// The question as it came, spelling included.
    pub(crate) question: &'a [u8],
    pub(crate) name: Spelled,
    pub(crate) rtype: Rtype,
    pub(crate) class: u16,
    pub(crate) edns: Option<Edns>,
    pub(crate) options: Options<'a>,
}

/// Why a message has no answer of substance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// Not a query: a reply to it could start a loop.
    Drop,
    /// A reply with this code and nothing but a header.
    Reply(Rcode),
}

/// What the OPT record says of a query that has no question and nothing besides:
/// all that a query for a cookie has (RFC 7873 §5.4).
pub(crate) fn parse_cookie_query(message: &[u8]) -> Option<(Edns, Options<'_>)> {
    let header: &[u8; HEADER] = message.first_chunk()?;
    let [_, _, flags, _, 0, 0, 0, 0, 0, 0, 0, 1] = *header else {
        return None;
    };
    let mut rest = Cursor(message.get(HEADER..)?);
    let found = skip_record(&mut rest)??.ok()?;
    (flags & 0xf8 == 0).then_some(found)
}

pub(crate) fn parse(message: &[u8]) -> Result<Request<'_>, Rejection> {
    let header: &[u8; HEADER] = message.first_chunk().ok_or(Rejection::Drop)?;
    let [_, _, flags, _, q1, q2, an1, an2, ns1, ns2, ar1, ar2] = *header;
    if flags & 0x80 != 0 {
        return Err(Rejection::Drop);
    }
    if flags & 0x78 != 0 {
        return Err(Rejection::Reply(Rcode::NotImp));
    }
    let malformed = Rejection::Reply(Rcode::FormErr);
    // More than one question has no defined meaning (RFC 9619).
    if (q1, q2) != (0, 1) {
        return Err(malformed);
    }
    let body = message.get(HEADER..).ok_or(malformed)?;
    let name = Spelled::read(body).ok_or(malformed)?;
    let mut rest = Cursor(body);
    let question = rest.take(name.wire().len() + 4).ok_or(malformed)?;
    let mut fixed = Cursor(question.get(name.wire().len()..).unwrap_or_default());
    let rtype = Rtype(fixed.u16().ok_or(malformed)?);
    let class = fixed.u16().ok_or(malformed)?;

    let between =
        u32::from(u16::from_be_bytes([an1, an2])) + u32::from(u16::from_be_bytes([ns1, ns2]));
    let additional = u32::from(u16::from_be_bytes([ar1, ar2]));
    for _ in 0..between {
        skip_record(&mut rest).ok_or(malformed)?;
    }
    let mut edns = None;
    for _ in 0..additional {
        let found = skip_record(&mut rest).ok_or(malformed)?;
        if found.is_some() && edns.is_some() {
            return Err(malformed);
        }
        edns = edns.or(found.transpose().or(Err(malformed))?);
    }
    let (edns, options) = edns.unzip();
    Ok(Request {
        question,
        name,
        rtype,
        class,
        edns,
        options: options.unwrap_or_default(),
    })
}

/// What an OPT record says, or an error if it is not at the root.
type Opt<'a> = Result<(Edns, Options<'a>), ()>;

/// Reads over one record; of an OPT record returns what it says.
fn skip_record<'a>(rest: &mut Cursor<'a>) -> Option<Option<Opt<'a>>> {
    let root = skip_name(rest)?;
    let rtype = Rtype(rest.u16()?);
    let size = rest.u16()?;
    let [_, version, flags, _] = rest.u32()?.to_be_bytes();
    let length = rest.u16()?;
    let data = rest.take(usize::from(length))?;
    if rtype != Rtype::OPT {
        return Some(None);
    }
    let options = read_options(data)?;
    let edns = Edns {
        size,
        version,
        dnssec_ok: flags & 0x80 != 0,
        reserved: options.room(),
    };
    Some(Some(if root { Ok((edns, options)) } else { Err(()) }))
}

/// The options of an OPT record; none of a record that is damaged, or of a cookie
/// of a length that none has (RFC 7873 §5.2.2).
fn read_options(data: &[u8]) -> Option<Options<'_>> {
    let mut rest = Cursor(data);
    let mut options = Options::default();
    while !rest.0.is_empty() {
        let (number, length) = (rest.u16()?, rest.u16()?);
        let value = rest.take(usize::from(length))?;
        match number {
            COOKIE if !matches!(value.len(), 8 | 16..=40) => return None,
            // Of several the first one counts.
            COOKIE => options.cookie = options.cookie.or(Some(value)),
            NSID => options.nsid = true,
            _ => {}
        }
    }
    Some(options)
}

impl Options<'_> {
    /// The most that the reply's options need.
    fn room(&self) -> usize {
        let cookie = if self.cookie.is_some() {
            OPTION_HEAD + CLIENT_COOKIE + SERVER_COOKIE
        } else {
            0
        };
        let nsid = if self.nsid {
            OPTION_HEAD + MOST_NSID
        } else {
            0
        };
        cookie + nsid
    }
}

/// Reads over a name, which may end in a compression pointer; says whether it
/// was the root.
pub(crate) fn skip_name(rest: &mut Cursor<'_>) -> Option<bool> {
    let mut labels = 0_u32;
    loop {
        let length = rest.u8()?;
        match length {
            0 => return Some(labels == 0),
            1..=63 => {
                rest.take(usize::from(length))?;
                labels += 1;
            }
            0xc0.. => {
                rest.u8()?;
                return Some(false);
            }
            64..=0xbf => return None,
        }
    }
}

impl Request<'_> {
    /// How long the reply may be, without its own options.
    pub(crate) fn limit(&self, transport: Transport) -> usize {
        let whole = match transport {
            Transport::Tcp => MOST_TCP,
            Transport::Udp => {
                let granted = self.edns.map_or(PLAIN_UDP, |edns| usize::from(edns.size));
                granted.clamp(PLAIN_UDP, MOST_UDP)
            }
        };
        whole.saturating_sub(self.edns.map_or(0, |edns| edns.reserved))
    }
}
