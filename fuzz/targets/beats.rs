//! Heartbeats of agents: no bytes panic, and what is read is written alike.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use portolan_announce::election::{Agents, Beat, Config};

fuzz_target!(|bytes: &[u8]| {
    let now = Duration::from_secs(1);
    let mut agents = Agents::new(Config::new("n1".to_owned(), 7, 1), ["n1", "n2", "n3"], now);
    let understood = agents.receive(bytes, now).is_ok();
    let alive: Vec<&str> = agents.alive().collect();
    assert!(alive.len() <= 3);
    if let Ok(beat) = Beat::parse(bytes, 7, None) {
        assert!(understood);
        let again = Beat::parse(&beat.bytes(None), 7, None);
        assert_eq!(again, Ok(beat));
    }
});
