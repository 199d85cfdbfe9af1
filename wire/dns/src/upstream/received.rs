//! A reply from elsewhere, taken apart so that it can be kept and given again
//! to whoever asks the same.

use crate::message::{CLASS_IN, HEADER, Transport, parse, skip_name};
use crate::packed::Cursor;
use crate::record::Rtype;
use crate::write::Writer;

const AUTHENTIC: u8 = 0x20;
/// RFC 2181 §8: a TTL with the highest bit set is zero.
const MOST_TTL: u32 = 0x7fff_ffff;

/// What a reply says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Records of the type that was asked for.
    Positive,
    /// The name has none, or does not exist (RFC 2308).
    Negative,
    /// An outcome that says nothing about the name.
    Failure,
}

/// How old the records of a reply are, which their TTLs show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// Their TTLs lie between the two limits, less the seconds that have gone.
    Fresh {
        /// Seconds since the reply came.
        seconds: u32,
        /// No TTL counts for less.
        least: u32,
        /// No TTL counts for more.
        most: u32,
    },
    /// They have expired and are given all the same, with this TTL (RFC 8767 §4).
    Stale(u32),
}

impl Age {
    /// Just received, TTLs as they are.
    pub const NEW: Self = Self::Fresh {
        seconds: 0,
        least: 0,
        most: u32::MAX,
    };

    fn ttl(self, original: u32) -> u32 {
        match self {
            Self::Fresh {
                seconds,
                least,
                most,
            } => original.min(most).max(least).saturating_sub(seconds),
            Self::Stale(ttl) => ttl,
        }
    }
}

/// A reply without its question and without EDNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    flags: [u8; 2],
    counts: [u16; 3],
    /// From the end of the question to the OPT record, compressed as it came:
    /// pointers hold as long as the question keeps its length.
    body: Box<[u8]>,
    /// The length of the question before it.
    question: u16,
    /// Where in the body the TTLs stand.
    ttls: Box<[u16]>,
    outcome: Outcome,
    ttl: Option<u32>,
}

/// What is gathered on the way through the records.
#[derive(Default)]
struct Walk {
    ttls: Vec<u16>,
    counts: [u16; 3],
    answers: Option<u32>,
    has_type: bool,
    soa: Option<u32>,
    /// Where the OPT record begins, behind which nothing is kept.
    end: Option<usize>,
    /// The upper bits of the code (RFC 6891 §6.1.3).
    extended: u8,
}

impl Received {
    /// Takes apart a reply with one question, which the caller has compared with
    /// its own; `None` if it cannot be read.
    pub fn read(reply: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER] = reply.first_chunk()?;
        let [_, _, f1, f2, _, _, counts @ ..] = *header;
        let mut rest = Cursor(reply.get(HEADER..)?);
        skip_name(&mut rest)?;
        let rtype = Rtype(rest.u16()?);
        rest.take(2)?;
        let start = reply.len() - rest.0.len();
        let mut counts = Cursor(&counts);
        let mut walk = Walk::default();
        for section in 0..3 {
            for _ in 0..counts.u16()? {
                if walk.end.is_none() {
                    walk.record(reply, start, &mut rest, (section, rtype))?;
                }
            }
        }
        let end = walk.end.unwrap_or(reply.len() - rest.0.len());
        let code = f2 & 0x0f;
        let outcome = match code {
            _ if walk.extended != 0 => Outcome::Failure,
            0 if walk.has_type => Outcome::Positive,
            0 | 3 => Outcome::Negative,
            _ => Outcome::Failure,
        };
        let ttl = match outcome {
            Outcome::Positive => walk.answers,
            // An alias in front of what is missing counts too.
            Outcome::Negative => walk.soa.map(|soa| soa.min(walk.answers.unwrap_or(soa))),
            Outcome::Failure => None,
        };
        // An extended code has no place without EDNS: SERVFAIL stands for it.
        let code = if walk.extended == 0 { code } else { 2 };
        Some(Self {
            flags: [f1, (f2 & 0xf0) | code],
            counts: walk.counts,
            body: reply.get(start..end)?.into(),
            question: u16::try_from(start - HEADER).ok()?,
            ttls: walk.ttls.into(),
            outcome,
            ttl: ttl.filter(|_| f1 & 0x02 == 0),
        })
    }

    /// What it says.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The code of its header.
    pub fn rcode(&self) -> u8 {
        let [_, code] = self.flags;
        code & 0x0f
    }

    /// For how many seconds it may be kept by what it says itself: the smallest
    /// TTL of its answers, for a negative one what RFC 2308 §5 makes of its SOA.
    /// `None` if it says nothing, or was cut.
    pub fn ttl(&self) -> Option<u32> {
        self.ttl
    }

    /// Whether it was cut (TC).
    pub fn is_truncated(&self) -> bool {
        let [flags, _] = self.flags;
        flags & 0x02 != 0
    }

    /// How many octets it takes to keep it.
    pub fn size(&self) -> usize {
        self.body.len() + 2 * self.ttls.len() + size_of::<Self>()
    }

    /// Writes it as the reply to `query`, which asks the same question: with the
    /// query's ID and spelling, an OPT record exactly if the query has one, cut
    /// with TC where the asker has no room. Says whether the query could be read.
    pub fn write(&self, query: &[u8], transport: Transport, age: Age, out: &mut Vec<u8>) -> bool {
        let Ok(request) = parse(query) else {
            return false;
        };
        if request.question.len() != usize::from(self.question) {
            return false;
        }
        let mut writer = Writer::new(out, query, &request, transport);
        let at = writer.append(&self.body, self.counts);
        let is_cut = at.is_none() || self.is_truncated();
        if let Some(at) = at {
            for &ttl in &self.ttls {
                writer.mend_ttl(at + usize::from(ttl), |ttl| {
                    age.ttl(if ttl > MOST_TTL { 0 } else { ttl })
                });
            }
        } else {
            writer.truncated();
        }
        writer.finish(crate::Rcode::NoError, None);
        let dnssec = request.edns.is_some_and(|edns| edns.dnssec_ok);
        let understands = dnssec || query.get(3).is_some_and(|flags| flags & AUTHENTIC != 0);
        let [_, second] = self.flags;
        if let Some([f1, f2]) = out.get_mut(2..4) {
            *f1 |= if is_cut { 0x02 } else { 0 };
            // RA, the code, and AD for those who know what it means (RFC 6840 §5.8).
            *f2 |= 0x80 | self.rcode() | if understands { second & AUTHENTIC } else { 0 };
        }
        true
    }
}

impl Walk {
    fn record(
        &mut self,
        reply: &[u8],
        start: usize,
        rest: &mut Cursor<'_>,
        (section, asked): (usize, Rtype),
    ) -> Option<()> {
        let at = reply.len() - rest.0.len();
        skip_name(rest)?;
        let (rtype, class) = (Rtype(rest.u16()?), rest.u16()?);
        let offset = reply.len() - rest.0.len() - start;
        let raw = rest.u32()?;
        let length = rest.u16()?;
        let data = rest.take(usize::from(length))?;
        if rtype == Rtype::OPT && section == 2 {
            let [extended, ..] = raw.to_be_bytes();
            self.extended = extended;
            self.end = Some(at);
            return Some(());
        }
        let ttl = if raw > MOST_TTL { 0 } else { raw };
        *self.counts.get_mut(section)? += 1;
        self.ttls.push(u16::try_from(offset).ok()?);
        if section == 0 {
            self.answers = Some(self.answers.map_or(ttl, |least| least.min(ttl)));
            self.has_type |= rtype == asked || asked == Rtype::ANY;
        }
        if section == 1 && rtype == Rtype::SOA && class == CLASS_IN {
            // MINIMUM is the last of its five numbers (RFC 2308 §4, §5).
            let minimum = data.last_chunk().map(|field| u32::from_be_bytes(*field));
            self.soa = minimum.filter(|_| data.len() >= 22).map(|m| m.min(ttl));
        }
        Some(())
    }
}
