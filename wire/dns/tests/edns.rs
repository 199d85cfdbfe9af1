//! The EDNS options of D18: cookies, the server's name, and those that nobody
//! here knows.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod support;

use std::net::IpAddr;

use domain::base::Rtype as Type;
use portolan_dns::{
    CookieSecret, Identity, Standing, Transport, adorn, bad_cookie, cookie_query, whole_rcode,
};
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

/// The same query without its question.
fn without_question(options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = asking(".", Type::A, 1232, options);
    bytes.drain(12..17);
    bytes[5] = 0;
    bytes
}

#[test]
fn d18_a_cookie_is_given_to_who_asks_for_nothing_else() {
    let ask = |asked: &[u8]| {
        let mut raw = Vec::new();
        cookie_query(asked, CLIENT, NOW, &identity(), &mut raw).then(|| Reply {
            message: domain::base::Message::from_octets(raw.clone()).unwrap(),
            raw,
        })
    };
    let client = [1, 2, 3, 4, 5, 6, 7, 8];
    let first = ask(&without_question(&[(COOKIE, &client)])).unwrap();
    assert_eq!(first.status(), "NOERROR rd");
    let counts = first.message.header_counts();
    assert_eq!(
        (counts.qdcount(), counts.ancount(), counts.arcount()),
        (0, 0, 1)
    );
    let [(COOKIE, cookie)] = &options(&first)[..] else {
        panic!("{:?}", options(&first));
    };
    assert_eq!((cookie.len(), &cookie[..8]), (24, &client[..]));

    let again = ask(&without_question(&[(COOKIE, cookie), (NSID, &[])])).unwrap();
    assert_eq!(again.status(), "NOERROR rd");
    assert_eq!(
        options(&again),
        [(COOKIE, cookie.clone()), (NSID, b"node-1".to_vec())]
    );

    let mut forged = cookie.clone();
    forged[23] ^= 1;
    let told = ask(&without_question(&[(COOKIE, &forged)])).unwrap();
    assert_eq!(told.status(), "BADCOOKIE rd");
    assert_eq!(whole_rcode(&told.raw), Some(23));
    assert_eq!(options(&told), [(COOKIE, cookie.clone())], "the right one");

    // What is no such query is left to others, which call it malformed.
    let mut version = without_question(&[(COOKIE, &client)]);
    version[12 + 1 + 2 + 2 + 1] = 1;
    let mut reply_itself = without_question(&[(COOKIE, &client)]);
    reply_itself[2] |= 0x80;
    for other in [
        asking(
            "web.prod.svc.cluster.local",
            Type::A,
            1232,
            &[(COOKIE, &client)],
        ),
        without_question(&[]),
        without_question(&[(COOKIE, &[1; 9])]),
        version,
        reply_itself,
        vec![0; 12],
        vec![],
    ] {
        assert!(ask(&other).is_none(), "{other:?}");
    }
    assert_eq!(reply(&without_question(&[])).status(), "FORMERR rd");
    assert_eq!(
        reply(&without_question(&[(COOKIE, &[1; 9])])).status(),
        "FORMERR rd"
    );
}

#[test]
fn d18_a_client_is_asked_for_its_cookie() {
    let client = [1, 2, 3, 4, 5, 6, 7, 8];
    let owner = "web.prod.svc.cluster.local";
    let asked = asking(owner, Type::A, 1232, &[(COOKIE, &client)]);
    let mut raw = Vec::new();
    assert!(bad_cookie(&asked, &mut raw));
    adorn(&asked, CLIENT, NOW, &identity(), &mut raw);
    assert_eq!(whole_rcode(&raw), Some(23));
    assert!(
        raw.len() <= asked.len() + 16,
        "no more than what was asked, and the cookie"
    );
    let reply = Reply {
        message: domain::base::Message::from_octets(raw.clone()).unwrap(),
        raw,
    };
    assert_eq!(reply.status(), "BADCOOKIE rd");
    assert_eq!(reply.answers(), [""; 0]);
    let (_, cookie) = options(&reply).remove(0);
    let again = asking(owner, Type::A, 1232, &[(COOKIE, &cookie)]);
    assert_eq!(identity().standing(&again, CLIENT, NOW), Standing::Known);

    let mut untouched = vec![1, 2, 3];
    assert!(!bad_cookie(
        &asking(owner, Type::A, 1232, &[]),
        &mut untouched
    ));
    assert!(!bad_cookie(&query(owner, Type::A, None), &mut untouched));
    assert_eq!(untouched, [1, 2, 3]);
}

#[test]
fn d18_the_whole_code_of_a_reply_is_read() {
    let mut asked = asking("web.prod.svc.cluster.local", Type::A, 1232, &[]);
    assert_eq!(whole_rcode(&reply(&asked).raw), Some(0));
    let at = asked.len() - 5;
    asked[at] = 1;
    assert_eq!(whole_rcode(&reply(&asked).raw), Some(16), "BADVERS");
    let nothing = query("nope.cluster.local", Type::A, None);
    assert_eq!(whole_rcode(&reply(&nothing).raw), Some(3));
    assert_eq!(whole_rcode(&[0; 3]), None);
    assert_eq!(whole_rcode(&[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1]), Some(7));
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
