//! What an UPDATE of the peer is worth (RFC 4271 section 6.3 as RFC 7606 revises
//! it). No route is accepted; they are read for their count and their faults.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustbgpd_wire::{
    ErrorDisposition, Ipv4NlriEntry, NlriEntry, ParsedUpdate, PathAttribute, Prefix, UpdateMessage,
    validate,
};

use super::config::Family;
use super::open::Agreed;
use super::{Notice, code};

/// What an UPDATE says, as far as it counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Prefixes that the peer announces.
    pub announced: Vec<IpNet>,
    /// Prefixes that it withdraws, and those that a fault makes withdrawn.
    pub withdrawn: Vec<IpNet>,
    /// The peer has announced all it had to of a family (RFC 4724).
    pub end_of_rib: Option<Family>,
    /// The fault for which all that was announced counts as withdrawn.
    pub fault: Option<Notice>,
    /// Attributes that were left out for a fault of theirs.
    pub discarded: usize,
}

/// Judges an UPDATE.
///
/// # Errors
/// The NOTIFICATION that it deserves, where its prefixes cannot be told.
pub fn judge(message: &UpdateMessage, agreed: &Agreed, internal: bool) -> Result<Update, Notice> {
    let parsed = message
        .parse_revised(agreed.four_byte_as, internal, false, &[])
        .map_err(|error| Notice::from(&error))?;
    let mut update = prefixes(&parsed.update, agreed);
    let mut worst = None;
    for malformed in &parsed.malformed {
        match malformed.disposition {
            ErrorDisposition::AttributeDiscard => update.discarded += 1,
            disposition @ (ErrorDisposition::TreatAsWithdraw | ErrorDisposition::SessionReset) => {
                let notice = Notice::from(&malformed.error);
                worst = worst.max_by_disposition(disposition, notice);
            }
        }
    }
    let multi = parsed.update.attributes.iter();
    let multi = multi.filter(|one| matches!(one, PathAttribute::MpReachNlri(_)));
    let body = !parsed.update.announced.is_empty();
    let any = body || multi.count() > 0;
    let attributes = &parsed.update.attributes;
    if let Err(error) = validate::validate_update_attributes(attributes, any, body, !internal) {
        let notice = Notice {
            code: code::UPDATE,
            subcode: error.subcode,
            data: error.data.into(),
        };
        worst = worst.max_by_disposition(error.disposition, notice);
    }
    match worst {
        Some((ErrorDisposition::SessionReset, notice)) => return Err(notice),
        Some((_, notice)) => {
            let announced = std::mem::take(&mut update.announced);
            update.withdrawn.extend(announced);
            update.fault = Some(notice);
        }
        None => update.end_of_rib = end_of_rib(message, &parsed.update),
    }
    Ok(update)
}

/// The first fault of those that weigh most (RFC 7606 section 3 h).
trait MaxByDisposition {
    fn max_by_disposition(self, disposition: ErrorDisposition, notice: Notice) -> Self;
}

impl MaxByDisposition for Option<(ErrorDisposition, Notice)> {
    fn max_by_disposition(self, disposition: ErrorDisposition, notice: Notice) -> Self {
        match self {
            Some((known, first)) if known >= disposition => Some((known, first)),
            Some(_) | None => Some((disposition, notice)),
        }
    }
}

/// The prefixes of the families that both sides agreed on.
fn prefixes(parsed: &ParsedUpdate, agreed: &Agreed) -> Update {
    let mut update = Update::default();
    if agreed.families.contains(&Family::V4) {
        update.announced.extend(body(&parsed.announced));
        update.withdrawn.extend(body(&parsed.withdrawn));
    }
    for attribute in &parsed.attributes {
        if let PathAttribute::MpReachNlri(reach) = attribute {
            let family = Family::from_wire(Some(reach.afi), Some(reach.safi));
            if family.is_some_and(|f| agreed.families.contains(&f)) {
                update.announced.extend(entries(&reach.announced));
            }
        }
        if let PathAttribute::MpUnreachNlri(unreach) = attribute {
            let family = Family::from_wire(Some(unreach.afi), Some(unreach.safi));
            if family.is_some_and(|f| agreed.families.contains(&f)) {
                update.withdrawn.extend(entries(&unreach.withdrawn));
            }
        }
    }
    update
}

fn body(list: &[Ipv4NlriEntry]) -> impl Iterator<Item = IpNet> + '_ {
    list.iter().filter_map(|entry| {
        let net = Ipv4Net::new(entry.prefix.addr, entry.prefix.len);
        net.ok().map(IpNet::V4)
    })
}

fn entries(list: &[NlriEntry]) -> impl Iterator<Item = IpNet> + '_ {
    list.iter().filter_map(|entry| match entry.prefix {
        Prefix::V4(prefix) => Ipv4Net::new(prefix.addr, prefix.len).ok().map(IpNet::V4),
        Prefix::V6(prefix) => Ipv6Net::new(prefix.addr, prefix.len).ok().map(IpNet::V6),
    })
}

/// RFC 4724 section 2: an UPDATE without anything, or one whose only attribute is an
/// empty MP_UNREACH_NLRI.
fn end_of_rib(message: &UpdateMessage, parsed: &ParsedUpdate) -> Option<Family> {
    let empty = message.withdrawn_routes.is_empty() && message.nlri.is_empty();
    match (parsed.attributes.as_slice(), empty) {
        ([], true) if message.path_attributes.is_empty() => Some(Family::V4),
        ([PathAttribute::MpUnreachNlri(unreach)], true) if unreach.withdrawn.is_empty() => {
            Family::from_wire(Some(unreach.afi), Some(unreach.safi))
        }
        _ => None,
    }
}
