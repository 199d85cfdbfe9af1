//! From one query to one reply.
//!
//! | question | reply |
//! |---|---|
//! | not a query at all | dropped, so that two servers never answer each other |
//! | an opcode other than QUERY | NOTIMP |
//! | unreadable, or not exactly one question (RFC 9619) | FORMERR |
//! | EDNS version above 0 | BADVERS (RFC 6891 §6.1.3) |
//! | class other than IN, zone transfer | REFUSED |
//! | a name outside the zones | somebody else's: [`Answer::Forward`] |
//! | a name that does not exist | NXDOMAIN with SOA |
//! | a name without such records | NOERROR with SOA |
//! | ANY | one HINFO record (RFC 8482) |
//! | everything else | the records, without an authority section |
//!
//! AA is set on all answers from a zone, NXDOMAIN included.

use std::net::IpAddr;

use crate::message::{CLASS_IN, Rcode, Rejection, Request, Transport, parse};
use crate::name::{Name, Spelled};
use crate::packed::{Entry, Node};
use crate::parts::Part;
use crate::record::Rtype;
use crate::write::{Full, Owner, Section, Writer, start};
use crate::zone::{Found, Zone};
use crate::zones::Zones;

/// The longest chain of CNAME records that is followed.
const MOST_ALIASES: usize = 8;
/// The most SRV targets whose addresses are added to a reply.
const MOST_GLUE: usize = 256;

/// What is to be done with a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Send what was written to the buffer.
    Reply,
    /// The buffer holds a reply that ends with a CNAME to this name outside the
    /// zones: add the target's records if you can get them, then send it.
    Follow(Name),
    /// The name is in no zone: ask somebody else, or say that nobody can.
    Forward,
    /// Send nothing.
    Drop,
}

impl Zones {
    /// Answers one query into `out`, whose former content is lost.
    ///
    /// `rotation` turns the order of addresses; any number that differs from
    /// query to query does.
    pub fn answer(
        &self,
        query: &[u8],
        transport: Transport,
        rotation: u64,
        out: &mut Vec<u8>,
    ) -> Answer {
        let request = match parse(query) {
            Ok(request) => request,
            Err(Rejection::Drop) => return Answer::Drop,
            Err(Rejection::Reply(rcode)) => {
                start(out, query, rcode, false);
                return Answer::Reply;
            }
        };
        if let Some(rcode) = refusal(&request) {
            Writer::new(out, query, &request, transport).finish(rcode, None);
            return Answer::Reply;
        }
        let Some((zone, found)) = self.find(&request.name) else {
            return Answer::Forward;
        };
        let mut writer = Writer::new(out, query, &request, transport);
        writer.authoritative();
        let mut reply = Reply {
            zones: self,
            request: &request,
            zone,
            writer,
            rotation,
        };
        let (rcode, follow) = match found {
            Found::Nothing => (Rcode::NxDomain, Ok(None)),
            Found::Node(node) => (Rcode::NoError, reply.records(node)),
            Found::Address(address) => (Rcode::NoError, reply.spelled(address)),
            Found::Part(part) => (Rcode::NoError, reply.part(&part)),
        };
        let follow = follow.and_then(|follow| reply.authority().map(|()| follow));
        if follow.is_err() {
            reply.writer.truncated();
        }
        reply.writer.finish(rcode, None);
        follow.ok().flatten().map_or(Answer::Reply, Answer::Follow)
    }
}

/// Questions that are answered with a code alone.
fn refusal(request: &Request<'_>) -> Option<Rcode> {
    if request.edns.is_some_and(|edns| edns.version > 0) {
        return Some(Rcode::BadVers);
    }
    if request.class != CLASS_IN {
        return Some(Rcode::Refused);
    }
    match request.rtype {
        Rtype::AXFR | Rtype::IXFR => Some(Rcode::Refused),
        Rtype::OPT => Some(Rcode::FormErr),
        _ => None,
    }
}

/// The type of an address' record.
fn rtype_of(address: IpAddr) -> Rtype {
    match address {
        IpAddr::V4(_) => Rtype::A,
        IpAddr::V6(_) => Rtype::AAAA,
    }
}

struct Reply<'a> {
    zones: &'a Zones,
    request: &'a Request<'a>,
    zone: &'a Zone,
    writer: Writer<'a>,
    rotation: u64,
}

impl Reply<'_> {
    /// The answer section for a name that exists. Returns the end of a chain
    /// of aliases that leaves the zones.
    fn records(&mut self, node: &Node) -> Result<Option<Name>, Full> {
        let ttl = self.zone.ttl();
        let name = &self.request.name;
        let rtype = self.request.rtype;
        let at_apex = node.name().is_empty();
        if rtype == Rtype::ANY {
            return self.writer.hinfo(ttl).map(|()| None);
        }
        if at_apex && rtype == Rtype::SOA {
            return self
                .writer
                .soa(Section::Answer, self.zone, name)
                .map(|()| None);
        }
        if let Some(group) = node.group(rtype) {
            let owner = (Owner::QUESTION, name);
            self.writer
                .group(Section::Answer, owner, (&group, ttl), self.rotation)?;
            if rtype == Rtype::SRV {
                self.glue(name, group.iter());
            }
            return Ok(None);
        }
        if at_apex && rtype == Rtype::NS {
            self.writer.ns(self.zone)?;
            self.addresses_of(&Spelled::of(&self.zone.about().server));
            return Ok(None);
        }
        self.aliases(node)
    }

    /// The answer section for a name that spells an address (D15).
    fn spelled(&mut self, address: IpAddr) -> Result<Option<Name>, Full> {
        let ttl = self.zone.ttl();
        if self.request.rtype == Rtype::ANY {
            return self.writer.hinfo(ttl).map(|()| None);
        }
        if self.request.rtype == rtype_of(address) {
            self.writer.address(Owner::QUESTION, address, ttl)?;
        }
        Ok(None)
    }

    /// The answer section for the name of a part of another name.
    fn part(&mut self, part: &Part<'_>) -> Result<Option<Name>, Full> {
        let rtype = self.request.rtype;
        if rtype == Rtype::ANY {
            return self.writer.hinfo(self.zone.ttl()).map(|()| None);
        }
        let group = part.node.and_then(|node| node.group(rtype));
        let Some((group, whole)) = group.zip(Part::whole(&self.request.name)) else {
            return Ok(None);
        };
        let (owner, ttl) = ((Owner::QUESTION, &whole), (&group, self.zone.ttl()));
        self.writer
            .group(Section::Answer, owner, ttl, self.rotation)?;
        if rtype == Rtype::SRV {
            self.glue(&whole, group.iter());
        }
        Ok(None)
    }

    /// Follows CNAME records. If the end lies in a zone and has no records of
    /// the type, or the chain runs in circles, there is no answer at all, not
    /// even the CNAME: so does CoreDNS, and a reply without it is not cached as
    /// an alias to nothing.
    fn aliases(&mut self, node: &Node) -> Result<Option<Name>, Full> {
        let mut chain: Vec<(Spelled, u32)> = Vec::new();
        let mut end = (self.zone, node);
        loop {
            let (zone, node) = end;
            let owner = chain.last().map_or(&self.request.name, |(name, _)| name);
            let Some(group) = node.group(Rtype::CNAME) else {
                return Ok(None);
            };
            let Some(Entry::Target { labels, skip, .. }) = group.iter().next() else {
                return Ok(None);
            };
            let Some(target) = Spelled::join(labels, owner, skip) else {
                return Ok(None);
            };
            if chain.len() >= MOST_ALIASES {
                return Ok(None);
            }
            chain.push((target, group.ttl.unwrap_or(zone.ttl())));
            let Some((target, _)) = chain.last() else {
                return Ok(None);
            };
            match self.zones.find(target) {
                None => {
                    self.write_aliases(&chain)?;
                    return Ok(Some(target.to_name()));
                }
                Some((_, Found::Nothing)) => return Ok(None),
                Some((zone, Found::Address(address))) => {
                    if self.request.rtype == rtype_of(address) {
                        let owner = self.write_aliases(&chain)?;
                        self.writer.address(owner, address, zone.ttl())?;
                    }
                    return Ok(None);
                }
                Some((zone, Found::Part(part))) => {
                    let group = part.node.and_then(|node| node.group(self.request.rtype));
                    if let Some((group, whole)) = group.zip(Part::whole(target)) {
                        let owner = (self.write_aliases(&chain)?, &whole);
                        let ttl = (&group, zone.ttl());
                        self.writer
                            .group(Section::Answer, owner, ttl, self.rotation)?;
                    }
                    return Ok(None);
                }
                Some((zone, Found::Node(node))) => {
                    if let Some(group) = node.group(self.request.rtype) {
                        let owner = self.write_aliases(&chain)?;
                        let ttl = (&group, zone.ttl());
                        self.writer
                            .group(Section::Answer, (owner, target), ttl, self.rotation)?;
                        if self.request.rtype == Rtype::SRV {
                            self.glue(target, group.iter());
                        }
                        return Ok(None);
                    }
                    end = (zone, node);
                }
            }
        }
    }

    /// Writes a chain, first link first; returns the owner of what follows.
    fn write_aliases<'c>(&mut self, chain: &'c [(Spelled, u32)]) -> Result<Owner<'c>, Full> {
        let mut owner = Owner::QUESTION;
        for (target, ttl) in chain {
            owner = self.writer.cname(owner, target, *ttl)?;
        }
        Ok(owner)
    }

    /// The addresses of the targets of a name's SRV records (D7). They are a courtesy:
    /// what does not fit is left out without a word (RFC 2181 §9).
    fn glue<'e>(&mut self, owner: &Spelled, entries: impl Iterator<Item = Entry<'e>>) {
        let mut last: Option<Spelled> = None;
        for entry in entries.take(MOST_GLUE) {
            let Entry::Target { labels, skip, .. } = entry else {
                continue;
            };
            let Some(target) = Spelled::join(labels, owner, skip) else {
                continue;
            };
            // Entries are sorted by port first, so repeats that matter are those
            // of one host with several ports under one name, which is rare.
            if last
                .as_ref()
                .is_none_or(|last| last.wire() != target.wire())
            {
                self.addresses_of(&target);
            }
            last = Some(target);
        }
    }

    /// A and AAAA of a name of these zones, in the additional section.
    fn addresses_of(&mut self, name: &Spelled) {
        let Some((zone, Found::Node(node))) = self.zones.find(name) else {
            return;
        };
        for rtype in [Rtype::A, Rtype::AAAA] {
            let Some(group) = node.group(rtype) else {
                continue;
            };
            let owner = (Owner::Spelled(name.wire()), name);
            let ttl = (&group, zone.ttl());
            if self
                .writer
                .group(Section::Additional, owner, ttl, self.rotation)
                .is_err()
            {
                return;
            }
        }
    }

    /// SOA, exactly when the answer is empty.
    fn authority(&mut self) -> Result<(), Full> {
        if self.writer.has_answer() {
            return Ok(());
        }
        self.writer
            .soa(Section::Authority, self.zone, &self.request.name)
    }
}
