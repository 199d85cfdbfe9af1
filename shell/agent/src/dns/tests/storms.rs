//! Resolvers that come and go while many ask, that lie over a connection, or speak of
//! names that nobody asked for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use portolan_dns::upstream::HealthLimits;

use super::resolver::{LONG, Manner, SHORT, ask, forwarder, resolver, route, without_cache};
use super::until;

const MOMENT: Duration = Duration::from_millis(5);

#[tokio::test]
async fn d22_a_flapping_server_costs_nobody_an_answer() {
    let (flapping, steady) = (resolver(Manner::Good, 1), resolver(Manner::Good, 2));
    let mut route = route(&[flapping.address, steady.address], SHORT);
    route.race_after = MOMENT;
    route.health = HealthLimits {
        most_failures: 2,
        first_wait: MOMENT,
        most_wait: MOMENT,
    };
    let forwarder = forwarder(without_cache(route));
    let done = AtomicBool::new(false);
    let flap = async {
        let manners = [
            Manner::Silent,
            Manner::Good,
            Manner::ServFail,
            Manner::Cut,
            Manner::AfterForgeries,
            Manner::OneEach,
        ];
        for manner in manners.into_iter().cycle() {
            if done.load(Ordering::Relaxed) {
                return;
            }
            flapping.change(manner);
            tokio::time::sleep(MOMENT).await;
        }
    };
    let load = async {
        let asked = stream::iter(0..600).for_each_concurrent(30, |number| {
            let forwarder = &forwarder;
            async move {
                let found = ask(forwarder, &format!("n{number}.example")).await;
                assert!(matches!(found, Ok(1 | 2)), "{number}: {found:?}");
            }
        });
        asked.await;
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(flap, load);
    flapping.change(Manner::Good);
    until("it is asked again", || forwarder.servers()[0].up).await;
    assert!(flapping.asked() > 0 && steady.asked() > 0);
}

#[tokio::test]
async fn d22_what_a_reply_says_of_other_names_is_not_believed() {
    let server = resolver(Manner::WithOthers, 7);
    let forwarder = forwarder(super::resolver::settings(route(&[server.address], LONG)));
    assert!(ask(&forwarder, "www.example").await.is_ok());
    assert_eq!(server.asked(), 1);
    server.change(Manner::Good);
    // The reply had an address for this name too.
    assert_eq!(ask(&forwarder, "bank.example").await, Ok(7));
    assert_eq!(server.asked(), 2, "nothing was kept for it");
    assert_eq!(forwarder.counts().entries, 2);
}

#[tokio::test]
async fn d22_lies_over_a_connection_are_not_believed() {
    let lying = resolver(Manner::CutThenForgeries, 7);
    let honest = forwarder(without_cache(route(&[lying.address], LONG)));
    for _ in 0..20 {
        assert_eq!(ask(&honest, "a.example").await, Ok(7));
    }
    assert_eq!(lying.connections(), 1, "what does not fit is passed over");
}

#[tokio::test]
async fn d22_a_connection_that_breaks_off_is_a_failure_and_the_next_server_is_asked() {
    let (torn, good) = (resolver(Manner::Torn, 1), resolver(Manner::Good, 2));
    let forwarder = forwarder(without_cache(route(&[torn.address, good.address], SHORT)));
    for _ in 0..5 {
        assert_eq!(ask(&forwarder, "a.example").await, Ok(2));
    }
    assert!(torn.asked_over_tcp() >= 5);
}
