//! Resolvers that are dead, slow, lying, cut their replies, come and go, or ask us
//! what we ask them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::join_all;
use portolan_dns::Rtype;
use portolan_dns::upstream::HealthLimits;
use tokio::net::UdpSocket;

use super::super::{Forwarder, Upstream, UpstreamError};
use super::resolver::{
    LONG, Manner, SHORT, ask, forwarder, resolver, route, settings, without_cache,
};
use super::{Lab, name, until, within};

const MOMENT: Duration = Duration::from_millis(20);

/// Asks, and returns why it failed.
async fn failure(forwarder: &Forwarder, owner: &str) -> UpstreamError {
    let query = portolan_dns::query(7, &name(owner), Rtype::A);
    let asked = forwarder.forward(query.into(), portolan_dns::Transport::Udp);
    within(asked).await.expect_err(owner)
}

/// Given up after one failure, looked for again every 20 ms.
fn impatient() -> HealthLimits {
    HealthLimits {
        most_failures: 1,
        first_wait: MOMENT,
        most_wait: MOMENT,
    }
}

#[tokio::test]
async fn d22_a_dead_server_is_passed_over_until_it_comes_back() {
    let (first, second) = (resolver(Manner::Silent, 1), resolver(Manner::Good, 2));
    let mut route = route(&[first.address, second.address], SHORT);
    route.health = impatient();
    let forwarder = forwarder(without_cache(route));
    assert_eq!(ask(&forwarder, "a.example").await, Ok(2));
    for round in 0..3 {
        until("it is found out", || !forwarder.servers()[0].up).await;
        let asked = forwarder.servers()[0].asked;
        assert_eq!(ask(&forwarder, "b.example").await, Ok(2));
        assert_eq!(forwarder.servers()[0].asked, asked, "passed over");
        first.change(Manner::Good);
        until("it is found again", || forwarder.servers()[0].up).await;
        assert_eq!(ask(&forwarder, "c.example").await, Ok(1), "round {round}");
        first.change(Manner::Silent);
        assert_eq!(ask(&forwarder, "d.example").await, Ok(2));
    }
    assert!(forwarder.servers()[1].up);
}

#[tokio::test]
async fn d22_servers_that_are_all_down_are_asked_all_the_same() {
    let only = resolver(Manner::Silent, 1);
    let mut route = route(&[only.address], SHORT);
    route.health = HealthLimits {
        most_failures: 1,
        // Nobody looks for it within this test.
        first_wait: Duration::from_secs(600),
        most_wait: Duration::from_secs(600),
    };
    let forwarder = forwarder(without_cache(route));
    let error = failure(&forwarder, "a.example").await;
    assert!(
        error.to_string().contains(&only.address.to_string()),
        "{error}"
    );
    assert!(!forwarder.servers()[0].up);
    only.change(Manner::Good);
    assert_eq!(ask(&forwarder, "a.example").await, Ok(1));
    assert!(forwarder.servers()[0].up, "a reply is a sign of life");
}

#[tokio::test]
async fn d22_nobody_waits_for_a_slow_server_alone() {
    let (slow, quick) = (resolver(Manner::Silent, 1), resolver(Manner::Good, 2));
    let mut route = route(&[slow.address, quick.address], LONG);
    route.race_after = MOMENT;
    let forwarder = forwarder(without_cache(route));
    assert_eq!(ask(&forwarder, "a.example").await, Ok(2));
    assert!(slow.asked() >= 1 && quick.asked() >= 1);
    assert_eq!(forwarder.servers()[0].failed, 0, "it has its time still");
}

#[tokio::test]
async fn d22_lies_are_not_believed() {
    let lying = resolver(Manner::AfterForgeries, 7);
    let honest = forwarder(without_cache(route(&[lying.address], LONG)));
    for _ in 0..20 {
        assert_eq!(ask(&honest, "a.example").await, Ok(7));
    }
    // The right ID and question, from the wrong address.
    let elsewhere = resolver(Manner::FromElsewhere, 66);
    let deaf = forwarder(without_cache(route(&[elsewhere.address], SHORT)));
    assert!(matches!(
        failure(&deaf, "a.example").await.cause(),
        UpstreamError::NoReply { .. }
    ));
    assert!(elsewhere.asked() > 0);
}

#[tokio::test]
async fn d22_ports_and_ids_are_not_to_be_guessed() {
    let server = resolver(Manner::Good, 7);
    let forwarder = forwarder(without_cache(route(&[server.address], LONG)));
    for _ in 0..40 {
        assert_eq!(ask(&forwarder, "a.example").await, Ok(7));
    }
    let mut ports = server.ports();
    let in_turn = ports
        .windows(2)
        .filter(|pair| pair[0].abs_diff(pair[1]) <= 2);
    assert!(in_turn.count() < 10, "not one after the other: {ports:?}");
    ports.sort_unstable();
    ports.dedup();
    let mut ids: Vec<u16> = server
        .queries()
        .iter()
        .filter_map(|query| portolan_dns::id(query))
        .collect();
    let in_turn = ids.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) <= 2);
    assert!(in_turn.count() < 10, "{ids:?}");
    ids.sort_unstable();
    ids.dedup();
    assert!(
        ports.len() > 30 && ids.len() > 30,
        "{} {}",
        ports.len(),
        ids.len()
    );
}

#[tokio::test]
async fn d22_random_case_must_come_back() {
    let server = resolver(Manner::Good, 7);
    let mut cased = route(&[server.address], SHORT);
    cased.random_case = true;
    let forwarder = forwarder(without_cache(cased));
    for _ in 0..10 {
        // The client sees its own spelling, which `ask` compares.
        assert_eq!(ask(&forwarder, "www.a-longer-name.example").await, Ok(7));
    }
    let upper = |query: &Vec<u8>| query[12..].iter().any(u8::is_ascii_uppercase);
    assert!(server.queries().iter().any(upper));
    server.change(Manner::Respelling);
    let error = failure(&forwarder, "www.a-longer-name.example").await;
    assert!(
        matches!(error.cause(), UpstreamError::NoReply { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn d22_servers_without_edns_are_asked_without() {
    let old = resolver(Manner::NoEdns, 7);
    let forwarder = forwarder(without_cache(route(&[old.address], LONG)));
    for _ in 0..3 {
        assert_eq!(ask(&forwarder, "a.example").await, Ok(7));
    }
    let with_edns = old.queries().iter().filter(|query| query[11] > 0).count();
    assert_eq!((old.asked(), with_edns), (4, 1), "remembered");
}

#[tokio::test]
async fn d22_many_questions_share_a_connection() {
    let server = resolver(Manner::Good, 7);
    let mut route = route(&[server.address], LONG);
    route.force_tcp = true;
    let forwarder = forwarder(without_cache(route));
    let names: Vec<String> = (0..100).map(|n| format!("n{n}.example")).collect();
    let all = join_all(names.iter().map(|name| ask(&forwarder, name))).await;
    assert!(all.iter().all(|found| *found == Ok(7)), "{all:?}");
    assert_eq!(ask(&forwarder, "later.example").await, Ok(7));
    assert_eq!((server.asked(), server.asked_over_tcp()), (0, 101));
    assert_eq!(server.connections(), 1);
    let count = &forwarder.servers()[0];
    assert_eq!((count.dialled, count.reused), (1, 100));
}

#[tokio::test]
async fn d22_a_connection_that_the_server_closed_is_opened_again() {
    let server = resolver(Manner::OneEach, 7);
    let forwarder = forwarder(without_cache(route(&[server.address], LONG)));
    for round in 0..10 {
        assert_eq!(ask(&forwarder, "a.example").await, Ok(7), "{round}");
    }
    assert!(server.connections() >= 10);
}

#[tokio::test]
async fn d22_the_same_question_is_asked_once_at_a_time() {
    let server = resolver(Manner::Good, 7);
    let forwarder = forwarder(without_cache(route(&[server.address], LONG)));
    let all = join_all((0..50).map(|_| ask(&forwarder, "same.example"))).await;
    assert!(all.iter().all(|found| *found == Ok(7)));
    assert_eq!(server.asked(), 1);
    assert_eq!(forwarder.counts().joined, 49);
    assert_eq!(ask(&forwarder, "same.example").await, Ok(7));
    assert_eq!(server.asked(), 2, "nothing is kept here");
}

#[tokio::test]
async fn d22_what_is_under_way_is_bounded() {
    let silent = resolver(Manner::Silent, 7);
    let mut settings = without_cache(route(&[silent.address], LONG));
    settings.most_in_flight = 2;
    let forwarder = forwarder(settings);
    for name in ["a.example", "b.example"] {
        let forwarder = Arc::clone(&forwarder);
        tokio::spawn(async move { failure(&forwarder, name).await });
    }
    until("both are asked", || silent.asked() == 2).await;
    let error = failure(&forwarder, "c.example").await;
    assert!(matches!(error.cause(), UpstreamError::Busy(2)), "{error}");
    assert_eq!(forwarder.counts().rejected, 1);
}

#[tokio::test]
async fn d22_new_settings_lose_no_query() {
    let (old, new) = (resolver(Manner::Good, 1), resolver(Manner::Good, 2));
    let first = without_cache(route(&[old.address], LONG));
    let second = without_cache(route(&[new.address], LONG));
    let forwarder = forwarder(first.clone());
    for round in 0..20 {
        let names: Vec<String> = (0..20).map(|n| format!("r{round}n{n}.example")).collect();
        let all = join_all(names.iter().map(|name| ask(&forwarder, name)));
        let change = async {
            tokio::task::yield_now().await;
            forwarder.apply(if round % 2 == 0 {
                second.clone()
            } else {
                first.clone()
            });
        };
        let (all, ()) = tokio::join!(all, change);
        assert!(all.iter().all(Result::is_ok), "{all:?}");
    }
    forwarder.apply(second);
    assert_eq!(ask(&forwarder, "last.example").await, Ok(2));
    assert!(old.asked() > 0);
}

/// Passes what comes on to `to`, once there is one, and the replies back.
async fn relay(to: Arc<OnceLock<SocketAddr>>) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let socket = Arc::new(socket);
        loop {
            let mut message = vec![0; 4096];
            let (length, peer) = socket.recv_from(&mut message).await.unwrap();
            message.truncate(length);
            let (socket, to) = (Arc::clone(&socket), Arc::clone(&to));
            tokio::spawn(async move {
                let Some(to) = to.get() else { return };
                let out = super::client(*to).await;
                out.send(&message).await.unwrap();
                let mut reply = vec![0; 4096];
                let length = out.recv(&mut reply).await.unwrap();
                socket.send_to(&reply[..length], peer).await.unwrap();
            });
        }
    });
    address
}

#[tokio::test]
async fn d22_a_server_that_asks_us_is_found_out() {
    let here = Arc::new(OnceLock::new());
    let circle = relay(Arc::clone(&here)).await;
    let only = forwarder(settings(route(&[circle], LONG)));
    let lab = Lab::start(Some(Arc::clone(&only) as Arc<dyn Upstream>));
    here.set(lab.address).unwrap();
    until("the loop is seen", || {
        only.started();
        only.servers()[0].looping
    })
    .await;
    let asked = only.servers()[0].asked;
    let output = lab.dig("www.example.com A").await;
    assert!(
        output.contains("status: SERVFAIL,") && output.contains("forward to here"),
        "{output}"
    );
    assert_eq!(only.servers()[0].asked, asked, "not asked any more");

    // One that does not is asked in its place.
    let good = resolver(Manner::Good, 7);
    only.apply(settings(route(&[circle, good.address], LONG)));
    assert_eq!(ask(&only, "www.example.com").await, Ok(7));
    assert!(only.servers()[0].looping && !only.servers()[1].looping);
}
