//! Tables, two sessions on a wire in memory, and laws.

mod faults;
mod laws;
mod opens;
mod pair;
mod routes;
mod table;
mod wire;

use std::net::Ipv4Addr;
use std::time::Duration;

use super::Config;

const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Two ends of an external session, the second with the higher identifier.
fn ends() -> [Config; 2] {
    let a = Config {
        most_prefixes: Some(100_000),
        ..Config::new(64_512, 4_200_000_000, A)
    };
    let b = Config {
        local_as: a.peer_as,
        peer_as: a.local_as,
        identifier: B,
        ..a.clone()
    };
    [a, b]
}

/// The prefix of one address, or the prefix that is written.
fn prefix(text: &str) -> ipnet::IpNet {
    let whole = |address: std::net::IpAddr| super::attributes::aggregate(address, None);
    text.parse()
        .unwrap_or_else(|_| whole(text.parse().unwrap()))
}

/// A session that has sent its OPEN on connection 1.
fn opened(config: &Config) -> super::Session {
    use super::{Connection, Input, Output, Session};
    let mut session = Session::new(config.clone(), 1);
    assert_eq!(session.handle(Input::Start, seconds(1)), [Output::Connect]);
    let connected = Input::Connected(Connection(1));
    assert_eq!(session.handle(connected, seconds(1)).len(), 1);
    session
}
