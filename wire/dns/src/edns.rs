//! The options that a server adds to its replies, whoever wrote these.

use std::net::IpAddr;

use crate::cookie::{CookieSecret, Standing};
use crate::message::{
    CLIENT_COOKIE, COOKIE, HEADER, MOST_NSID, NSID, OPTION_HEAD, Options, Rcode, Transport, parse,
    parse_cookie_query, skip_name,
};
use crate::packed::Cursor;
use crate::record::Rtype;
use crate::write::{Writer, bare};

/// Who answers.
#[derive(Clone)]
pub struct Identity {
    name: Vec<u8>,
    secret: CookieSecret,
}

impl Identity {
    /// A server with a name, which is told to those who ask for it (RFC 5001), and
    /// a secret for cookies. Of a long name the first 64 octets are told.
    pub fn new(name: &str, secret: CookieSecret) -> Self {
        let mut name = name.as_bytes().to_vec();
        name.truncate(MOST_NSID);
        Self { name, secret }
    }

    /// What a query's cookie says of who sent it from `address`. `now` is in
    /// seconds since 1970.
    pub fn standing(&self, query: &[u8], address: IpAddr, now: u32) -> Standing {
        if !may_have_options(query) {
            return Standing::Unknown;
        }
        parse(query)
            .ok()
            .and_then(|request| request.options.cookie)
            .map_or(Standing::Unknown, |cookie| {
                self.secret.judge(cookie, address, now)
            })
    }
}

/// Answers a query without a question that asks for a cookie alone (RFC 7873 §5.4):
/// NOERROR with one, or BADCOOKIE with a new one if what was shown is not ours. Says
/// whether it was such a query; nothing is written if not. `now` is in seconds since
/// 1970.
pub fn cookie_query(
    query: &[u8],
    client: IpAddr,
    now: u32,
    identity: &Identity,
    out: &mut Vec<u8>,
) -> bool {
    // The count of questions, which all other queries have.
    if query.get(4..6) != Some(&[0, 0]) {
        return false;
    }
    let Some((edns, options)) = parse_cookie_query(query).filter(|(edns, _)| edns.version == 0)
    else {
        return false;
    };
    let Some(cookie) = options.cookie else {
        return false;
    };
    let known = identity.secret.judge(cookie, client, now) == Standing::Known;
    let rcode = if cookie.len() == CLIENT_COOKIE || known {
        Rcode::NoError
    } else {
        Rcode::BadCookie
    };
    bare(out, query, rcode, edns);
    mend(&options, client, now, identity, out).is_some()
}

/// Writes BADCOOKIE in answer to a query that has a cookie (RFC 7873 §5.2.3): the
/// client may have an answer once it shows the one that [`adorn`] gives it. Says
/// whether the query has a cookie; nothing is written if not.
pub fn bad_cookie(query: &[u8], out: &mut Vec<u8>) -> bool {
    match parse(query) {
        Ok(request) if request.options.cookie.is_some() => {
            Writer::new(out, query, &request, Transport::Udp).finish(Rcode::BadCookie, None);
            true
        }
        Ok(_) | Err(_) => false,
    }
}

/// Gives a reply the options that its query asked for: a cookie for the client's
/// address and the server's name. Cookies and names of other servers go. Room for
/// them was kept when the reply was written. A reply without an OPT record stays
/// as it is. `now` is in seconds since 1970.
pub fn adorn(query: &[u8], client: IpAddr, now: u32, identity: &Identity, reply: &mut Vec<u8>) {
    if !may_have_options(query) {
        return;
    }
    let Ok(request) = parse(query) else { return };
    if request.options.cookie.is_none() && !request.options.nsid {
        return;
    }
    // Nothing is sent half done: what cannot be read stays as it is.
    let _done = mend(&request.options, client, now, identity, reply);
}

/// Only the additional section has options.
fn may_have_options(query: &[u8]) -> bool {
    query.get(10..HEADER).is_some_and(|count| count != [0, 0])
}

fn mend(
    options: &Options<'_>,
    client: IpAddr,
    now: u32,
    identity: &Identity,
    reply: &mut Vec<u8>,
) -> Option<()> {
    let (from, length) = opt_data(reply)?;
    let end = from + length;
    if end != reply.len() {
        return None;
    }
    let mut at = from;
    while at < reply.len() {
        let mut option = Cursor(reply.get(at..)?);
        let (number, length) = (option.u16()?, usize::from(option.u16()?));
        let next = at + OPTION_HEAD + length;
        if next > reply.len() {
            return None;
        }
        if number == COOKIE || number == NSID {
            reply.drain(at..next);
        } else {
            at = next;
        }
    }
    if let Some(cookie) = options.cookie {
        let cookie = identity.secret.make(cookie, client, now)?;
        push_option(reply, COOKIE, &cookie);
    }
    if options.nsid {
        push_option(reply, NSID, &identity.name);
    }
    let length = u16::try_from(reply.len() - from).ok()?;
    *reply.get_mut(from - 2..from)?.first_chunk_mut()? = length.to_be_bytes();
    Some(())
}

fn push_option(reply: &mut Vec<u8>, number: u16, data: &[u8]) {
    reply.extend_from_slice(&number.to_be_bytes());
    reply.extend_from_slice(&u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
    reply.extend_from_slice(data);
}

/// Where the options of a message's OPT record start, and how long they are.
fn opt_data(message: &[u8]) -> Option<(usize, usize)> {
    let mut counts = Cursor(message.get(4..HEADER)?);
    let questions = counts.u16()?;
    let records = u32::from(counts.u16()?) + u32::from(counts.u16()?) + u32::from(counts.u16()?);
    let mut rest = Cursor(message.get(HEADER..)?);
    for _ in 0..questions {
        skip_name(&mut rest)?;
        rest.take(4)?;
    }
    for _ in 0..records {
        let root = skip_name(&mut rest)?;
        let rtype = Rtype(rest.u16()?);
        rest.take(6)?;
        let length = usize::from(rest.u16()?);
        let from = message.len() - rest.0.len();
        rest.take(length)?;
        if root && rtype == Rtype::OPT {
            return Some((from, length));
        }
    }
    None
}
