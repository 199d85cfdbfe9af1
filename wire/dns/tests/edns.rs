//! The EDNS options of D18: cookies, the server's name, and those that nobody
//! here knows.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod support;

use std::net::IpAddr;

use domain::base::Rtype as Type;
use portolan_dns::{CookieSecret, Identity, Standing, Transport, adorn};
use support::{Reply, cluster, query};

const COOKIE: u16 = 10;
const NSID: u16 = 3;
const PADDING: u16 = 12;
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 1, 7));
const NOW: u32 = 1_800_000_000;

fn identity() -> Identity {
    Identity::new("node-1", CookieSecret::new([7; 16]))
}

/// A query whose OPT record has these options.
fn asking(owner: &str, rtype: Type, size: u16, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = query(owner, rtype, Some(size));
    let data: Vec<u8> = options
        .iter()
        .flat_map(|(number, value)| {
            let length = u16::try_from(value.len()).unwrap();
            [&number.to_be_bytes(), &length.to_be_bytes(), *value].concat()
        })
        .collect();
    let at = bytes.len() - 2;
    bytes[at..].copy_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

fn reply(asked: &[u8]) -> Reply {
    let mut raw = Vec::new();
    cluster().answer(asked, Transport::Udp, 0, &mut raw);
    adorn(asked, CLIENT, NOW, &identity(), &mut raw);
    Reply {
        message: domain::base::Message::from_octets(raw.clone()).unwrap(),
        raw,
    }
}

/// The options of a reply, whose OPT record is the last one.
fn options(reply: &Reply) -> Vec<(u16, Vec<u8>)> {
    let opt = reply.message.opt().unwrap();
    let raw = opt.opt().for_slice_ref();
    raw.iter::<domain::base::opt::UnknownOptData<_>>()
        .map(|option| option.unwrap())
        .map(|option| (option.code().to_int(), option.as_slice().to_vec()))
        .collect()
}

#[test]
fn d18_a_cookie_is_given_and_known_again() {
    let client = [1, 2, 3, 4, 5, 6, 7, 8];
    let asked = asking(
        "web.prod.svc.cluster.local",
        Type::A,
        1232,
        &[(COOKIE, &client)],
    );
    assert_eq!(identity().standing(&asked, CLIENT, NOW), Standing::Unknown);
    let first = reply(&asked);
    assert_eq!(first.status(), "NOERROR aa rd");
    assert_eq!(first.answers().len(), 1);
    let [(COOKIE, cookie)] = &options(&first)[..] else {
        panic!("{:?}", options(&first));
    };
    assert_eq!((cookie.len(), &cookie[..8]), (24, &client[..]));

    let again = asking("nope.cluster.local", Type::A, 1232, &[(COOKIE, cookie)]);
    assert_eq!(identity().standing(&again, CLIENT, NOW), Standing::Known);
    let stranger = IpAddr::from([10, 244, 1, 8]);
    assert_eq!(
        identity().standing(&again, stranger, NOW),
        Standing::Unknown
    );
    let second = reply(&again);
    assert_eq!(second.status(), "NXDOMAIN aa rd");
    assert_eq!(options(&second), [(COOKIE, cookie.clone())]);
}

#[test]
fn d18_a_cookie_of_a_length_that_none_has_is_malformed() {
    for length in [0, 7, 9, 15, 41] {
        let bytes = vec![1; length];
        let asked = asking(
            "web.prod.svc.cluster.local",
            Type::A,
            1232,
            &[(COOKIE, &bytes)],
        );
        assert_eq!(reply(&asked).status(), "FORMERR rd", "{length}");
    }
    for length in [8, 16, 40] {
        let bytes = vec![1; length];
        let asked = asking(
            "web.prod.svc.cluster.local",
            Type::A,
            1232,
            &[(COOKIE, &bytes)],
        );
        assert_eq!(reply(&asked).status(), "NOERROR aa rd", "{length}");
    }
}

#[test]
fn d18_who_asks_for_the_servers_name_is_told() {
    let asked = asking(
        "web.prod.svc.cluster.local",
        Type::A,
        1232,
        &[(PADDING, &[0; 64]), (NSID, &[]), (65_001, b"what?")],
    );
    assert_eq!(options(&reply(&asked)), [(NSID, b"node-1".to_vec())]);
    let plain = asking(
        "web.prod.svc.cluster.local",
        Type::A,
        1232,
        &[(PADDING, &[0; 64])],
    );
    assert_eq!(options(&reply(&plain)), []);
    let damaged = asking("web.prod.svc.cluster.local", Type::A, 1232, &[]);
    let damaged = [&damaged[..damaged.len() - 2], &[0, 3, 0, NSID as u8, 0]].concat();
    assert_eq!(reply(&damaged).status(), "FORMERR rd");
}

/// The options have room of their own: a full reply is no longer for them.
#[test]
fn d18_options_keep_within_the_size_that_was_granted() {
    for size in [0, 512, 600, 1232] {
        let options = [(COOKIE, &[9; 8][..]), (NSID, &[])];
        let asked = asking("many.prod.svc.cluster.local", Type::A, size, &options);
        let reply = reply(&asked);
        assert!(reply.raw.len() <= usize::from(size.max(512)), "{size}");
        assert_eq!(reply.status(), "NOERROR aa tc rd");
        assert_eq!(self::options(&reply).len(), 2);
    }
}

#[test]
fn d18_cookies_of_another_server_are_replaced() {
    let asked = asking("example.com", Type::A, 1232, &[(COOKIE, &[9; 8])]);
    // Somebody else's reply, with a cookie and an option of its own.
    let mut theirs = asking(
        "example.com",
        Type::A,
        4096,
        &[(COOKIE, &[3; 24]), (PADDING, &[0; 3])],
    );
    theirs[2] |= 0x80;
    adorn(&asked, CLIENT, NOW, &identity(), &mut theirs);
    let theirs = Reply {
        message: domain::base::Message::from_octets(theirs.clone()).unwrap(),
        raw: theirs,
    };
    let found = options(&theirs);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0], (PADDING, vec![0; 3]));
    assert_eq!((found[1].0, &found[1].1[..8]), (COOKIE, &[9; 8][..]));
    // A reply without OPT, or one that is cut, stays as it is.
    let mut plain = query("example.com", Type::A, None);
    let before = plain.clone();
    adorn(&asked, CLIENT, NOW, &identity(), &mut plain);
    assert_eq!(plain, before);
}
