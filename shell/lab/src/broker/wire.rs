//! What lab and broker say to each other: one short text per packet of a
//! SOCK_SEQPACKET socket, a descriptor beside it where one is asked for.
//!
//! ```text
//! lab → broker   7 listen-tcp 127.0.0.1:6443
//! broker → lab   7 ok                          + descriptor
//! broker → lab   7 error 98                    (errno)
//! lab → broker   8 resolvers
//! broker → lab   8 ok 192.0.2.1 2001:db8::1
//! broker → lab   0 stop                        (Ctrl-C or TERM at the broker)
//! ```

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// No message is longer.
pub(super) const MAX_MESSAGE: usize = 1024;

/// The number of the message that nobody asked for.
pub(super) const STOP_ID: u64 = 0;

/// What the lab wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// A listening TCP socket of the host.
    ListenTcp(SocketAddr),
    /// A bound UDP socket of the host.
    BindUdp(SocketAddr),
    /// A TCP socket that is being connected to a resolver of the host.
    ConnectTcp(SocketAddr),
    /// A UDP socket connected to a resolver of the host.
    ConnectUdp(SocketAddr),
    /// The host's resolvers.
    Resolvers,
}

/// What the broker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// It is done; a descriptor comes along if one was asked for.
    Done(Vec<IpAddr>),
    /// It failed with this errno.
    Failed(i32),
    /// Please stop.
    Stop,
}

/// A packet that is not in the language.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Garbled;

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ListenTcp(at) => write!(f, "listen-tcp {at}"),
            Self::BindUdp(at) => write!(f, "bind-udp {at}"),
            Self::ConnectTcp(to) => write!(f, "connect-tcp {to}"),
            Self::ConnectUdp(to) => write!(f, "connect-udp {to}"),
            Self::Resolvers => f.write_str("resolvers"),
        }
    }
}

impl FromStr for Request {
    type Err = Garbled;

    fn from_str(text: &str) -> Result<Self, Garbled> {
        if text == "resolvers" {
            return Ok(Self::Resolvers);
        }
        let (verb, address) = text.split_once(' ').ok_or(Garbled)?;
        let address = address.parse().map_err(|_not_an_address| Garbled)?;
        match verb {
            "listen-tcp" => Ok(Self::ListenTcp(address)),
            "bind-udp" => Ok(Self::BindUdp(address)),
            "connect-tcp" => Ok(Self::ConnectTcp(address)),
            "connect-udp" => Ok(Self::ConnectUdp(address)),
            _ => Err(Garbled),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(ips) => {
                f.write_str("ok")?;
                ips.iter().try_for_each(|ip| write!(f, " {ip}"))
            }
            Self::Failed(errno) => write!(f, "error {errno}"),
            Self::Stop => f.write_str("stop"),
        }
    }
}

impl FromStr for Reply {
    type Err = Garbled;

    fn from_str(text: &str) -> Result<Self, Garbled> {
        let mut words = text.split(' ');
        match words.next() {
            Some("ok") => words
                .map(|word| word.parse().map_err(|_not_an_address| Garbled))
                .collect::<Result<_, _>>()
                .map(Self::Done),
            Some("error") => {
                let errno = words.next().and_then(|word| word.parse().ok());
                errno.map(Self::Failed).ok_or(Garbled)
            }
            Some("stop") => Ok(Self::Stop),
            Some(_) | None => Err(Garbled),
        }
    }
}

/// `7 listen-tcp …` → 7 and the rest in the language of `T`.
pub(super) fn parse<T: FromStr<Err = Garbled>>(packet: &[u8]) -> Result<(u64, T), Garbled> {
    let text = std::str::from_utf8(packet).map_err(|_not_text| Garbled)?;
    let (id, rest) = text.split_once(' ').ok_or(Garbled)?;
    Ok((id.parse().map_err(|_not_a_number| Garbled)?, rest.parse()?))
}

/// The packet for one message.
pub(super) fn packet(id: u64, message: &impl fmt::Display) -> Vec<u8> {
    format!("{id} {message}").into_bytes()
}

/// The name servers of a resolv.conf, in order, without repeats. Scoped
/// link-local addresses (`fe80::1%eth0`) are left out.
pub(super) fn nameservers(resolv_conf: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in resolv_conf.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(Ok(ip)) = words.next().map(str::parse::<IpAddr>) else {
            continue;
        };
        if !found.contains(&ip) {
            found.push(ip);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let at: SocketAddr = "127.0.0.1:6443".parse().unwrap();
        let six: SocketAddr = "[::1]:53".parse().unwrap();
        for request in [
            Request::ListenTcp(at),
            Request::BindUdp(six),
            Request::ConnectTcp(six),
            Request::ConnectUdp(at),
            Request::Resolvers,
        ] {
            assert_eq!(parse(&packet(7, &request)), Ok((7, request)));
        }
        for reply in [
            Reply::Done(vec![]),
            Reply::Done(vec![at.ip(), six.ip()]),
            Reply::Failed(98),
            Reply::Stop,
        ] {
            assert_eq!(parse(&packet(0, &reply)), Ok((0, reply)));
        }
    }

    #[test]
    fn garbage_is_refused() {
        for bad in [
            "",
            "7",
            "x resolvers",
            "7 listen-tcp",
            "7 listen-tcp here",
            "7 exec /bin/sh",
        ] {
            assert_eq!(parse::<Request>(bad.as_bytes()), Err(Garbled), "{bad:?}");
        }
        for bad in ["7 error", "7 ok here", "7 what"] {
            assert_eq!(parse::<Reply>(bad.as_bytes()), Err(Garbled), "{bad:?}");
        }
        assert_eq!(parse::<Request>(&[0xff, 0xfe]), Err(Garbled));
    }

    #[test]
    fn nameservers_are_read_as_libc_reads_them() {
        let text = "# made by hand\nnameserver 192.0.2.1\n search x\nnameserver\t2001:db8::1 \n\
                    nameserver fe80::1%eth0\nnameserver 192.0.2.1\n;nameserver 192.0.2.9\n";
        let expected: Vec<IpAddr> = ["192.0.2.1", "2001:db8::1"]
            .map(|ip| ip.parse().unwrap())
            .into();
        assert_eq!(nameservers(text), expected);
    }
}
