//! What is kept of replies, and for whom whom to ask.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use portolan_dns::upstream::{Prefetch, Stale};
use portolan_dns::{Data, Zones};
use tokio::time::{Instant, sleep};

use super::super::{Forwarder, ServerSettings, Upstream};
use super::resolver::{LONG, Manner, SHORT, ask, forwarder, resolver, route, settings};
use super::{Lab, PATIENCE, name, until};

#[tokio::test]
async fn d22_replies_are_kept_and_their_ttls_count_down() {
    let server = resolver(Manner::Good, 7);
    let forwarder = forwarder(settings(route(&[server.address], LONG)));
    let lab = Lab::start(Some(Arc::clone(&forwarder) as Arc<dyn Upstream>));
    for spelling in ["www.example.com", "WWW.example.COM"] {
        let output = lab.dig(&format!("{spelling} A")).await;
        let answer = format!("{spelling}.");
        assert!(
            output.contains(&answer) && output.contains("A\t192.0.2.7"),
            "{output}"
        );
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = lab.dig("www.example.com A +noall +answer").await;
        let ttl: u32 = output.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(ttl <= 30 && Instant::now() < deadline, "{output}");
        if ttl < 30 {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(server.asked(), 1);
    // That a name does not exist is kept as well.
    server.change(Manner::NxDomain);
    for _ in 0..3 {
        let output = lab.dig("no.example.com A").await;
        assert!(
            output.contains("status: NXDOMAIN,") && output.contains("SOA"),
            "{output}"
        );
    }
    assert_eq!(server.asked(), 2);
    let counts = forwarder.counts();
    assert!(
        counts.hits >= 2 && counts.denials == 2 && counts.entries == 2,
        "{counts:?}"
    );
}

#[tokio::test]
async fn d22_names_of_the_zones_are_never_kept() {
    let server = resolver(Manner::Good, 7);
    let forwarder = forwarder(settings(route(&[server.address], LONG)));
    let lab = Lab::start(Some(Arc::clone(&forwarder) as Arc<dyn Upstream>));
    for last in 1..5_u8 {
        let mut zones: Zones = (**lab.zones.load()).clone();
        let owner = name("web.default.svc.cluster.local");
        let record = Data::A([10, 96, 7, last].into()).into();
        zones
            .zone_of_mut(&owner)
            .unwrap()
            .set(&owner, &[record])
            .unwrap();
        lab.zones.store(Arc::new(zones));
        let output = lab.dig("web.default.svc.cluster.local A +short").await;
        assert_eq!(output, format!("10.96.7.{last}\n"));
    }
    assert_eq!((server.asked(), forwarder.counts().entries), (0, 0));
}

/// Kept for a second, and given for an hour when nobody replies.
fn soon_stale(server: &super::resolver::Resolver, patience: Duration) -> Arc<Forwarder> {
    let mut settings = settings(route(&[server.address], SHORT));
    settings.cache.most_ttl = 1;
    settings.cache.stale = Some(Stale {
        most: Duration::from_secs(3600),
        ttl: 30,
        rest: Duration::from_secs(600),
    });
    settings.stale_after = patience;
    forwarder(settings)
}

#[tokio::test]
async fn d22_an_expired_reply_is_better_than_none() {
    let server = resolver(Manner::Good, 7);
    // Longer than what all attempts together take.
    let forwarder = soon_stale(&server, LONG);
    assert_eq!(ask(&forwarder, "a.example").await, Ok(7));
    for manner in [Manner::Silent, Manner::ServFail] {
        server.change(manner);
        let deadline = Instant::now() + PATIENCE;
        let before = forwarder.counts().stale;
        while forwarder.counts().stale == before {
            assert_eq!(ask(&forwarder, "a.example").await, Ok(7), "all the time");
            assert!(Instant::now() < deadline);
            sleep(Duration::from_millis(20)).await;
        }
    }
    // Renewing it failed: for a while nobody waits for that again.
    let asked = server.asked();
    assert_eq!(ask(&forwarder, "a.example").await, Ok(7));
    assert_eq!(server.asked(), asked);
}

#[tokio::test]
async fn d22_without_patience_an_expired_reply_comes_first() {
    let server = resolver(Manner::Good, 7);
    let forwarder = soon_stale(&server, Duration::ZERO);
    let deadline = Instant::now() + PATIENCE;
    while forwarder.counts().stale == 0 {
        assert_eq!(ask(&forwarder, "a.example").await, Ok(7));
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(20)).await;
    }
    until("it is renewed behind the client's back", || {
        server.asked() >= 2
    })
    .await;
}

#[tokio::test]
async fn d22_a_flood_of_random_names_is_bounded() {
    const FLOOD: u32 = 20_000;
    let server = resolver(Manner::Good, 7);
    let mut settings = settings(route(&[server.address], LONG));
    settings.cache.entries = 1000;
    settings.cache.bytes = 1 << 20;
    let forwarder = forwarder(settings);
    let lab = Lab::start(Some(Arc::clone(&forwarder) as Arc<dyn Upstream>));
    let flood = stream::iter(0..FLOOD).for_each_concurrent(100, |number| {
        let forwarder = Arc::clone(&forwarder);
        async move {
            let found = ask(&forwarder, &format!("r{number}.example")).await;
            assert_eq!(found, Ok(7));
            let counts = forwarder.counts();
            // Each of the parts rounds its share up.
            assert!(
                counts.entries <= 1016 && counts.bytes <= 1 << 20,
                "{counts:?}"
            );
        }
    });
    let own = async {
        for _ in 0..20 {
            let output = lab.dig("web.default.svc.cluster.local A +short").await;
            assert_eq!(output, "10.96.7.1\n");
        }
    };
    tokio::join!(flood, own);
    assert_eq!(forwarder.counts().misses, u64::from(FLOOD));
}

#[tokio::test]
async fn d22_the_closest_domain_says_who_is_asked() {
    let (corp, lab, all) = (
        resolver(Manner::Good, 1),
        resolver(Manner::Good, 2),
        resolver(Manner::Good, 3),
    );
    let mut routes = settings(route(&[all.address], LONG));
    for (domain, server) in [("corp.example", &corp), ("lab.corp.example", &lab)] {
        let mut route = route(&[server.address], LONG);
        route.domain = name(domain);
        route.except = vec![name(&format!("hidden.{domain}"))];
        routes.routes.push(route);
    }
    let forwarder = forwarder(routes);
    for (owner, answer) in [
        ("www.example.com", 3),
        ("corp.example", 1),
        ("a.b.CORP.example", 1),
        ("notcorp.example", 3),
        ("x.lab.corp.example", 2),
    ] {
        assert_eq!(ask(&forwarder, owner).await, Ok(answer), "{owner}");
    }
    // What is excepted does not exist, as without any resolver.
    let front = Lab::start(Some(forwarder as Arc<dyn Upstream>));
    let output = front.dig("x.hidden.corp.example A").await;
    assert!(
        output.contains("status: NXDOMAIN,") && output.contains("no upstream resolver"),
        "{output}"
    );
}

#[tokio::test]
async fn d22_one_route_may_have_many_servers_in_turn() {
    let servers: Vec<_> = (1..4).map(|last| resolver(Manner::Good, last)).collect();
    let mut shared = route(&[], LONG);
    shared.policy = portolan_dns::upstream::Policy::RoundRobin;
    shared.servers = servers
        .iter()
        .map(|server| ServerSettings::plain(server.address))
        .collect();
    let forwarder = forwarder(super::resolver::without_cache(shared));
    let mut found = Vec::new();
    for _ in 0..6 {
        found.push(ask(&forwarder, "a.example").await.unwrap());
    }
    assert_eq!(found, [1, 2, 3, 1, 2, 3]);
}

#[tokio::test]
async fn d22_popular_names_are_renewed_whoever_asks() {
    let server = resolver(Manner::Good, 7);
    let mut settings = settings(route(&[server.address], LONG));
    settings.cache.most_ttl = 4;
    settings.cache.prefetch = Some(Prefetch {
        queries: 2,
        pause: Duration::from_secs(60),
        percent: 90,
    });
    let forwarder = forwarder(settings);
    assert_eq!(ask(&forwarder, "a.example").await, Ok(7));
    // Datagrams are answered by threads that are none of the runtime's.
    let asking = Arc::clone(&forwarder);
    let thread = std::thread::spawn(move || {
        let query = portolan_dns::query(7, &name("a.example"), portolan_dns::Rtype::A);
        let deadline = std::time::Instant::now() + PATIENCE;
        let mut out = Vec::new();
        while asking.counts().prefetched == 0 && std::time::Instant::now() < deadline {
            asking.at_once(&query, portolan_dns::Transport::Udp, &mut out);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    until("it is asked for again", || server.asked() >= 2).await;
    let ended = tokio::task::spawn_blocking(move || thread.join()).await;
    assert!(ended.unwrap().is_ok());
    assert!(forwarder.counts().prefetched >= 1);
}
