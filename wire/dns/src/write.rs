//! Writing a reply into a caller's buffer, never beyond its limit.

use std::net::IpAddr;

use crate::message::{CLASS_IN, Edns, HEADER, Rcode, Request, Transport};
use crate::name::Spelled;
use crate::packed::{Cursor, Entry, Group};
use crate::record::Rtype;
use crate::zone::Zone;

/// The size of UDP messages that this side takes: what passes every link
/// without fragments.
const OWN_UDP_SIZE: u16 = 1232;
/// An OPT record without options.
const OPT_SIZE: usize = 11;
/// Where the question's name starts: the offset of most owners.
const QUESTION_NAME: u16 = HEADER as u16;
/// The highest offset that a compression pointer can name.
const MOST_POINTED: usize = 0x3fff;

// SOA timers: nobody transfers these zones, so they only have to be plausible.
// They are those of CoreDNS.
const REFRESH: u32 = 7200;
const RETRY: u32 = 1800;
const EXPIRE: u32 = 86_400;

/// The record did not fit.
#[derive(Debug)]
pub(crate) struct Full;

/// The sections after the question.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Answer = 0,
    Authority = 1,
    Additional = 2,
}

/// The owner of a record: an offset to point to, or the whole name.
#[derive(Clone, Copy)]
pub(crate) enum Owner<'a> {
    At(u16),
    Spelled(&'a [u8]),
}

impl Owner<'_> {
    pub(crate) const QUESTION: Self = Self::At(QUESTION_NAME);
}

pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    limit: usize,
    edns: Option<Edns>,
    counts: [u16; 3],
}

impl<'a> Writer<'a> {
    /// Starts a reply: header and question, both as they came.
    pub(crate) fn new(
        out: &'a mut Vec<u8>,
        query: &[u8],
        request: &Request<'_>,
        transport: Transport,
    ) -> Self {
        start(out, query, Rcode::NoError, true);
        out.extend_from_slice(request.question);
        let reserved = if request.edns.is_some() { OPT_SIZE } else { 0 };
        let limit = request.limit(transport) - reserved;
        Self {
            out,
            limit,
            edns: request.edns,
            counts: [0; 3],
        }
    }

    /// Sets bits in the second or third octet of the header.
    fn flag(&mut self, at: usize, bits: u8) {
        if let Some(octet) = self.out.get_mut(at) {
            *octet |= bits;
        }
    }

    pub(crate) fn authoritative(&mut self) {
        self.flag(2, 0x04);
    }

    pub(crate) fn truncated(&mut self) {
        self.flag(2, 0x02);
    }

    /// How much is written, to be taken back to.
    pub(crate) fn mark(&self) -> (usize, [u16; 3]) {
        (self.out.len(), self.counts)
    }

    /// Takes everything back that was written since.
    pub(crate) fn take_back(&mut self, (length, counts): (usize, [u16; 3])) {
        self.out.truncate(length);
        self.counts = counts;
    }

    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    pub(crate) fn has_answer(&self) -> bool {
        self.counts[Section::Answer as usize] > 0
    }

    /// Writes OPT, if the query had one, and the counts. `option` is the one
    /// EDNS option of the reply, if there is room for it.
    pub(crate) fn finish(mut self, rcode: Rcode, option: Option<(u16, &[u8])>) {
        let code = rcode as u16;
        self.flag(3, (code & 0x0f) as u8);
        let mut additional = self.counts[Section::Additional as usize];
        if let Some(edns) = self.edns {
            self.put_opt(rcode, edns, option);
            additional += 1;
        }
        let [answer, authority, _] = self.counts;
        let counts = [1, answer, authority, additional].map(u16::to_be_bytes);
        if let Some(field) = self.out.get_mut(4..HEADER) {
            field.copy_from_slice(counts.as_flattened());
        }
    }

    fn put_opt(&mut self, rcode: Rcode, edns: Edns, option: Option<(u16, &[u8])>) {
        let option = option.filter(|(_, data)| self.out.len() + 4 + data.len() <= self.limit);
        self.out.push(0);
        self.put16(Rtype::OPT.0);
        self.put16(OWN_UDP_SIZE);
        let dnssec_ok = if edns.dnssec_ok { 0x80 } else { 0 };
        self.out
            .extend_from_slice(&[(rcode as u16 >> 4) as u8, 0, dnssec_ok, 0]);
        let length = option.map_or(0, |(_, data)| 4 + data.len());
        self.put16(length as u16);
        if let Some((number, data)) = option {
            self.put16(number);
            self.put16(data.len() as u16);
            self.out.extend_from_slice(data);
        }
    }

    /// Adds records that somebody else wrote behind a question of the same length,
    /// counted by section; returns where they begin, or nothing if they do not fit.
    pub(crate) fn append(&mut self, records: &[u8], counts: [u16; 3]) -> Option<usize> {
        let at = self.out.len();
        if at + records.len() > self.limit {
            return None;
        }
        self.out.extend_from_slice(records);
        self.counts = counts;
        Some(at)
    }

    /// Changes the TTL that stands at an offset of the message.
    pub(crate) fn mend_ttl(&mut self, at: usize, change: impl FnOnce(u32) -> u32) {
        let field = self.out.get_mut(at..).and_then(<[u8]>::first_chunk_mut);
        if let Some(field) = field {
            *field = change(u32::from_be_bytes(*field)).to_be_bytes();
        }
    }

    fn put16(&mut self, value: u16) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    fn put32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// One record whose data `data` writes. What does not fit is taken back.
    fn record(
        &mut self,
        section: Section,
        owner: Owner<'_>,
        (rtype, ttl): (Rtype, u32),
        data: impl FnOnce(&mut Self),
    ) -> Result<(), Full> {
        let start = self.out.len();
        match owner {
            Owner::At(offset) => self.put16(0xc000 | offset),
            Owner::Spelled(wire) => self.out.extend_from_slice(wire),
        }
        self.put16(rtype.0);
        self.put16(CLASS_IN);
        self.put32(ttl);
        self.put16(0);
        let from = self.out.len();
        data(self);
        let length = u16::try_from(self.out.len() - from);
        let count = self.counts.get_mut(section as usize);
        match (length, count) {
            (Ok(length), Some(count)) if self.out.len() <= self.limit && *count < u16::MAX => {
                *count += 1;
                if let Some(field) = self.out.get_mut(from - 2..from) {
                    field.copy_from_slice(&length.to_be_bytes());
                }
                Ok(())
            }
            _ => {
                self.out.truncate(start);
                Err(Full)
            }
        }
    }

    /// The records of one type, beginning with a turn of `rotation` (D18) so
    /// that clients that take the first one spread.
    pub(crate) fn group(
        &mut self,
        section: Section,
        (owner, name): (Owner<'_>, &Spelled),
        (group, ttl): (&Group<'_>, u32),
        rotation: u64,
    ) -> Result<(), Full> {
        let fixed = (group.rtype, group.ttl.unwrap_or(ttl));
        let size = match group.rtype {
            Rtype::A => 4,
            Rtype::AAAA => 16,
            _ => {
                for entry in group.iter() {
                    self.record(section, owner, fixed, |this| this.entry(&entry, name))?;
                }
                return Ok(());
            }
        };
        let turn = rotation.checked_rem(group.count as u64).unwrap_or(0) as usize;
        let (tail, head) = group
            .entries
            .split_at_checked(turn * size)
            .unwrap_or_default();
        for address in head.chunks_exact(size).chain(tail.chunks_exact(size)) {
            self.record(section, owner, fixed, |this| {
                this.out.extend_from_slice(address)
            })?;
        }
        Ok(())
    }

    /// One address.
    pub(crate) fn address(
        &mut self,
        owner: Owner<'_>,
        address: IpAddr,
        ttl: u32,
    ) -> Result<(), Full> {
        let answer = Section::Answer;
        match address {
            IpAddr::V4(v4) => self.record(answer, owner, (Rtype::A, ttl), |this| {
                this.out.extend_from_slice(&v4.octets());
            }),
            IpAddr::V6(v6) => self.record(answer, owner, (Rtype::AAAA, ttl), |this| {
                this.out.extend_from_slice(&v6.octets());
            }),
        }
    }

    /// Record data. Targets are spelled out: those of SRV records must be
    /// (RFC 2782), and the others are single.
    fn entry(&mut self, entry: &Entry<'_>, owner: &Spelled) {
        match *entry {
            Entry::Plain(octets) => self.out.extend_from_slice(octets),
            Entry::Target { head, labels, skip } => {
                self.out.extend_from_slice(head);
                self.out.extend_from_slice(labels);
                self.out
                    .extend_from_slice(owner.suffix(skip).unwrap_or(&[0]));
            }
        }
    }

    /// One CNAME record; returns where its target stands, as an owner.
    pub(crate) fn cname<'n>(
        &mut self,
        owner: Owner<'_>,
        target: &'n Spelled,
        ttl: u32,
    ) -> Result<Owner<'n>, Full> {
        self.record(Section::Answer, owner, (Rtype::CNAME, ttl), |this| {
            this.out.extend_from_slice(target.wire());
        })?;
        let at = self.out.len() - target.wire().len();
        match u16::try_from(at) {
            Ok(offset) if at <= MOST_POINTED => Ok(Owner::At(offset)),
            Ok(_) | Err(_) => Ok(Owner::Spelled(target.wire())),
        }
    }

    /// The start of authority of `zone`, around `name`, which is the question.
    pub(crate) fn soa(
        &mut self,
        section: Section,
        zone: &Zone,
        name: &Spelled,
    ) -> Result<(), Full> {
        let about = zone.about();
        let owner = apex(zone, name);
        self.record(section, owner, (Rtype::SOA, about.ttl), |this| {
            this.name_below(about.server.as_wire(), about.origin.as_wire(), owner);
            this.name_below(about.mailbox.as_wire(), about.origin.as_wire(), owner);
            for number in [zone.serial(), REFRESH, RETRY, EXPIRE, about.ttl] {
                this.put32(number);
            }
        })
    }

    /// The zone's name server.
    pub(crate) fn ns(&mut self, zone: &Zone) -> Result<(), Full> {
        let about = zone.about();
        self.record(
            Section::Answer,
            Owner::QUESTION,
            (Rtype::NS, about.ttl),
            |this| {
                this.name_below(
                    about.server.as_wire(),
                    about.origin.as_wire(),
                    Owner::QUESTION,
                );
            },
        )
    }

    /// `name` with a pointer in place of its ending `origin`, if it has that.
    fn name_below(&mut self, name: &[u8], origin: &[u8], at: Owner<'_>) {
        match (at, name.strip_suffix(origin)) {
            (Owner::At(offset), Some(labels)) => {
                self.out.extend_from_slice(labels);
                self.put16(0xc000 | offset);
            }
            (Owner::At(_) | Owner::Spelled(_), _) => self.out.extend_from_slice(name),
        }
    }

    /// The answer to a question for everything (RFC 8482 §4.2).
    pub(crate) fn hinfo(&mut self, ttl: u32) -> Result<(), Full> {
        self.record(
            Section::Answer,
            Owner::QUESTION,
            (Rtype::HINFO, ttl),
            |this| {
                this.out.extend_from_slice(b"\x07RFC8482\x00");
            },
        )
    }
}

/// The origin of `zone` as an owner: the end of the question if `name`, which
/// is the question's, lies in the zone.
fn apex<'z>(zone: &'z Zone, name: &Spelled) -> Owner<'z> {
    let origin = zone.origin().as_wire();
    let offset = name
        .prefix_above(origin)
        .and_then(|prefix| u16::try_from(prefix.len() + HEADER).ok());
    offset.map_or(Owner::Spelled(origin), Owner::At)
}

/// A reply with nothing but an OPT record, to a query with nothing but that.
pub(crate) fn bare(out: &mut Vec<u8>, query: &[u8], rcode: Rcode, edns: Edns) {
    start(out, query, rcode, false);
    let mut writer = Writer {
        out,
        limit: usize::from(u16::MAX),
        edns: Some(edns),
        counts: [0; 3],
    };
    writer.put_opt(rcode, edns, None);
    if let Some(count) = out.get_mut(HEADER - 1) {
        *count = 1;
    }
}

/// The header of a reply to `query`: its ID, opcode, RD and (with a question)
/// CD bits; all counts are zero.
pub(crate) fn start(out: &mut Vec<u8>, query: &[u8], rcode: Rcode, checked: bool) {
    out.clear();
    let mut head = Cursor(query);
    let id = head.u16().unwrap_or(0);
    let [first, second] = head.u16().unwrap_or(0).to_be_bytes();
    out.extend_from_slice(&id.to_be_bytes());
    out.push(0x80 | (first & 0x79));
    out.push((if checked { second & 0x10 } else { 0 }) | (rcode as u16 & 0x0f) as u8);
    out.extend_from_slice(&[0; 8]);
}
