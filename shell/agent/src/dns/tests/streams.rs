//! Any octets over a connection, in pieces of any size, zone transfers among them: what
//! comes back is whole messages that are replies, and the server lives on. The same the
//! other way round: any octets of a resolver end in an answer of another one.

use std::net::{Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use portolan_dns::{Name, Rtype, query};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::super::DnsSockets;
use super::super::guard::DnsGuard;
use super::resolver::{Manner, SHORT, ask, forwarder, resolver, route, without_cache};
use super::{Lab, name, within};

const CONNECTIONS: u32 = 400;

/// The same octets on every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % most.max(1)
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let asked = |owner: &str, rtype| query(0x4321, &name(owner), rtype);
    let mut edns = asked("many.default.svc.cluster.local", Rtype::A);
    edns[11] = 1;
    edns.extend(b"\0\x00\x29\x04\xd0\0\0\x80\0\0\x0c\0\x0a\0\x08abcdefgh");
    let mut ixfr = asked("cluster.local", Rtype::IXFR);
    ixfr[9] = 1;
    ixfr.extend(b"\xc0\x0c\0\x06\0\x01\0\0\0\0\0\x16\0\0");
    ixfr.extend([0; 20]);
    vec![
        asked("web.default.svc.cluster.local", Rtype::A),
        asked("cluster.local", Rtype::AXFR),
        asked("example.com", Rtype::AXFR),
        asked("nope.cluster.local", Rtype::ANY),
        edns,
        ixfr,
    ]
}

/// Some messages with their lengths before them, most of them damaged.
fn stream(dice: &mut Dice, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..=dice.below(6) {
        let mut message = seeds[dice.below(seeds.len())].clone();
        if dice.below(3) > 0 {
            let at = dice.below(message.len());
            message[at] = [0, 1, 63, 192, 252, 255, dice.below(256) as u8][dice.below(7)];
        }
        // A length that is wrong makes garbage of all that follows.
        let wrong = if dice.below(12) == 0 {
            dice.below(40)
        } else {
            0
        };
        let length = message.len() + wrong;
        out.extend((length as u16).to_be_bytes());
        out.extend(message);
    }
    out.truncate(out.len() - dice.below(3).saturating_sub(1) * dice.below(8));
    out
}

/// Sends octets in pieces, and reads all that comes back.
async fn exchange(server: SocketAddr, octets: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let mut rest = octets;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(1 + dice.below(rest.len().min(40)));
        rest = later;
        // The server may have closed the connection already.
        if stream.write_all(piece).await.is_err() {
            break;
        }
    }
    drop(stream.shutdown().await);
    let mut said = Vec::new();
    // One that was closed with something unread is reset; what came before counts.
    drop(within(stream.read_to_end(&mut said)).await);
    said
}

#[tokio::test]
async fn d18_any_octets_over_a_connection_are_survived() {
    let everybody: IpNet = "127.0.0.0/8".parse().unwrap();
    let guard = DnsGuard {
        transfers: vec![everybody],
        ..DnsGuard::default()
    };
    let address = (Ipv4Addr::LOCALHOST, 0).into();
    let lab = Lab::start_guarded(&[address], None, true, (|_| {}, guard));
    let (mut dice, seeds) = (Dice(0x706f_7274_6f6c_616e), seeds());
    let (mut replies, mut zones) = (0, 0);
    for _ in 0..CONNECTIONS {
        let octets = stream(&mut dice, &seeds);
        let said = exchange(lab.address, &octets, &mut dice).await;
        let mut rest = &said[..];
        while let [high, low, body @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            // Only the end of a connection that was reset may be missing.
            let Some((message, later)) = body.split_at_checked(length) else {
                break;
            };
            assert!(message.len() >= 12, "{octets:?}: {message:?}");
            assert_ne!(message[2] & 0x80, 0, "no reply: {message:?}");
            replies += 1;
            // The answers of a zone are more than those of any name.
            zones += usize::from(u16::from_be_bytes([message[6], message[7]]) > 260);
            rest = later;
        }
    }
    // What was on its way when a connection was reset is lost.
    assert!(replies > 100 && zones > 10, "{replies} {zones}");
    let output = lab.dig("+tcp web.default.svc.cluster.local A +short").await;
    assert_eq!(output, "10.96.7.1\n");
}

/// A resolver whose replies are all cut, and which says anything over connections.
fn babbler() -> SocketAddr {
    // The port that is free for UDP may be taken for TCP.
    let mut sockets = (0..9)
        .find_map(|_| DnsSockets::bind_for(&[(Ipv4Addr::LOCALHOST, 0).into()], 1).ok())
        .unwrap();
    let udp = UdpSocket::from_std(sockets.udp.remove(0)).unwrap();
    let tcp = TcpListener::from_std(sockets.tcp.remove(0)).unwrap();
    let address = udp.local_addr().unwrap();
    tokio::spawn(async move {
        let mut message = [0; 512];
        loop {
            let (length, peer) = udp.recv_from(&mut message).await.unwrap();
            message[2] |= 0x82;
            drop(udp.send_to(&message[..length], peer).await);
        }
    });
    tokio::spawn(async move {
        let mut dice = Dice(0x6261_6262_6c65);
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            // It answers with what it was asked and with noise, and breaks off.
            let mut asked = [0; 64];
            let length = stream.read(&mut asked).await.unwrap_or(0);
            for _ in 0..dice.below(5) {
                let mut noise: Vec<u8> = (0..dice.below(300))
                    .map(|_| dice.below(256) as u8)
                    .collect();
                match dice.below(3) {
                    0 => noise
                        .splice(0..0, asked[..length].iter().copied())
                        .for_each(drop),
                    1 => noise.splice(0..0, [0, 0, 0, 1, 7]).for_each(drop),
                    _ => {}
                }
                if stream.write_all(&noise).await.is_err() {
                    break;
                }
            }
        }
    });
    address
}

#[tokio::test]
async fn d22_any_octets_of_a_resolver_end_in_the_answer_of_another() {
    let (babbler, good) = (babbler(), resolver(Manner::Good, 2));
    let forwarder = forwarder(without_cache(route(&[babbler, good.address], SHORT)));
    for number in 0..100 {
        let owner = Name::parse(&format!("n{number}.example")).unwrap();
        assert_eq!(ask(&forwarder, &owner.to_string()).await, Ok(2));
    }
    assert!(forwarder.servers()[0].failed > 0);
}
