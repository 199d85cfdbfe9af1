//! The line that CoreDNS' `log` writes for a query, which people have tools for:
//!
//! ```text
//! 10.244.1.7:40212 - 4660 "A IN web.default.svc.cluster.local. udp 56 false 1232" NOERROR qr,aa,rd 72 0.000041s
//! ```

use std::net::SocketAddr;

use portolan_dns::{Rcode, Transport};

use super::stats::Exchange;

/// The flags of a header's two octets, in CoreDNS' order.
const FLAGS: [(u16, &str); 7] = [
    (0x8000, "qr"),
    (0x0400, "aa"),
    (0x0200, "tc"),
    (0x0100, "rd"),
    (0x0080, "ra"),
    (0x0020, "ad"),
    (0x0010, "cd"),
];

pub(super) fn query(peer: SocketAddr, exchange: &Exchange<'_>) {
    tracing::info!(target: "portolan::dns::query", "{}", line(peer, exchange));
}

fn line(peer: SocketAddr, exchange: &Exchange<'_>) -> String {
    let Exchange {
        query,
        reply,
        transport,
        took,
        ..
    } = *exchange;
    let id = portolan_dns::id(query).unwrap_or(0);
    let asked = portolan_dns::question(query).map_or_else(
        || "- - -".to_owned(),
        |question| {
            let class = match question.class {
                1 => "IN".to_owned(),
                3 => "CH".to_owned(),
                other => format!("CLASS{other}"),
            };
            format!("{} {class} {}", question.rtype, question.name)
        },
    );
    let protocol = match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
    };
    let size = portolan_dns::granted(query, transport);
    let wants = portolan_dns::wants_dnssec(query);
    let flags = reply
        .get(2..4)
        .and_then(|octets| octets.first_chunk())
        .map_or(0, |octets| u16::from_be_bytes(*octets));
    let flags: Vec<&str> = FLAGS
        .iter()
        .filter(|(bit, _)| flags & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    format!(
        "{peer} - {id} \"{asked} {protocol} {} {wants} {size}\" {} {} {} {:.9}s",
        query.len(),
        code(reply),
        flags.join(","),
        reply.len(),
        took.as_secs_f64(),
    )
}

fn code(reply: &[u8]) -> String {
    const KNOWN: [(Rcode, &str); 9] = [
        (Rcode::NoError, "NOERROR"),
        (Rcode::FormErr, "FORMERR"),
        (Rcode::ServFail, "SERVFAIL"),
        (Rcode::NxDomain, "NXDOMAIN"),
        (Rcode::NotImp, "NOTIMP"),
        (Rcode::Refused, "REFUSED"),
        (Rcode::NotAuth, "NOTAUTH"),
        (Rcode::BadVers, "BADVERS"),
        (Rcode::BadCookie, "BADCOOKIE"),
    ];
    let code = portolan_dns::whole_rcode(reply).unwrap_or(u16::MAX);
    let known = KNOWN.iter().find(|(known, _)| *known as u16 == code);
    known.map_or_else(|| format!("RCODE{code}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portolan_dns::{Name, Rtype, failure};

    use super::*;

    #[test]
    fn a_line_is_as_coredns_writes_it() {
        let name = Name::parse("Web.default.svc.cluster.local").unwrap();
        let query = portolan_dns::query(4660, &name, Rtype::AAAA);
        let mut reply = Vec::new();
        assert!(failure(&query, Rcode::NxDomain, (0, ""), &mut reply));
        let peer: SocketAddr = "10.244.1.7:40212".parse().unwrap();
        let line = line(
            peer,
            &Exchange {
                query: &query,
                reply: &reply,
                client: peer.ip(),
                transport: Transport::Udp,
                took: Duration::from_micros(41),
            },
        );
        let expected = "10.244.1.7:40212 - 4660 \"AAAA IN web.default.svc.cluster.local. udp 47 false 512\" NXDOMAIN qr,rd 47 0.000041000s";
        assert_eq!(line, expected);
    }
}
