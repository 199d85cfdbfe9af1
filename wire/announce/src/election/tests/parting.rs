//! Networks that part, and agents that do not know of each other.

use super::*;

/// What the room says of halves: both go on, and both answer until they have heard each
/// other, however often that happens.
#[test]
fn l8_halves_go_on_and_find_together_again() {
    for half in [1, 2] {
        let mut net = Net::new(2 * half);
        net.pass(ms(2000));
        let all: Vec<usize> = (0..2 * half).collect();
        for _ in 0..4 {
            let (one, other) = all.split_at(half);
            net.sides([one, other]);
            net.pass(ms(5000));
            for n in 0..32 {
                let answering = net.answering(n);
                let sides: Vec<bool> = answering.iter().map(|node| *node < half).collect();
                assert_eq!(sides, [true, false], "one on each side");
            }
            net.cut.clear();
            let (twice, nobody) = net.watch(ms(8000));
            assert!(
                twice <= ms(200) && nobody <= ms(300),
                "{half}: {twice:?} {nobody:?}"
            );
            assert_eq!(net.watch(ms(3000)), (ms(0), ms(0)));
        }
    }
}

/// Agents that each began as if alone, before the API server told of the others.
#[test]
fn l8_agents_that_learn_of_each_other_late_agree_at_once() {
    for count in 2..6 {
        for late in [ms(0), ms(50), ms(400), ms(900), ms(5000)] {
            let mut net = Net::new(0);
            net.agents = vec![None; count];
            for n in 0..count {
                net.alone(n);
                net.pass(late / 4);
            }
            net.pass(late);
            let (members, now) = (net.members(), net.now);
            for agent in net.agents.iter_mut().flatten() {
                assert_eq!(agent.set_members(&members, now), []);
                assert!(agent.serving());
            }
            let (twice, nobody) = net.watch(ms(8000));
            assert!(
                twice <= ms(200) && nobody <= ms(300),
                "{count} {late:?}: {twice:?} {nobody:?}"
            );
            assert_eq!(net.watch(ms(3000)), (ms(0), ms(0)));
        }
    }
}

/// A process that stood still and goes on believes what it last knew, and learns better
/// with the first beats.
#[test]
fn l8_an_agent_that_stood_still_stops_with_the_first_beats() {
    for count in 2..6 {
        for time in [ms(700), ms(3000), ms(60_000)] {
            let mut net = Net::new(count);
            net.pass(ms(2000));
            let asleep = net.agents[1].take();
            net.pass(time);
            net.agents[1] = asleep;
            let (twice, nobody) = net.watch(ms(8000));
            assert!(
                twice <= ms(200) && nobody <= ms(300),
                "{count} {time:?}: {twice:?} {nobody:?}"
            );
            assert_eq!(net.watch(ms(3000)), (ms(0), ms(0)));
        }
    }
}

/// Others whose Leases are read before they are heard have not begun: that they are
/// silent says nothing.
#[test]
fn l8_one_that_is_alone_serves_on_when_others_are_about_to_come() {
    for count in 2..5 {
        let mut net = Net::new(0);
        net.agents = vec![None; count];
        net.alone(0);
        net.pass(ms(2000));
        let (members, now) = (net.members(), net.now);
        let first = net.agents[0].as_mut().unwrap();
        assert_eq!(first.set_members(&members, now), []);
        assert_eq!(net.watch(ms(5000)), (ms(0), ms(0)), "{count}");
        for n in 1..count {
            net.start(n);
        }
        let (twice, nobody) = net.watch(ms(5000));
        assert!(
            twice <= ms(200) && nobody <= ms(300),
            "{twice:?} {nobody:?}"
        );
        assert_eq!(net.watch(ms(3000)), (ms(0), ms(0)), "{count}");
    }
}

/// Who has been away often is taken back late: until then, nobody leaves an address to
/// it, not even one that has just come and knows of no absence.
#[test]
fn l8_nobody_waits_for_a_node_that_must_settle_for_long() {
    let mut net = Net::new(3);
    net.pass(ms(2000));
    for _ in 0..5 {
        net.sides([&[1], &[0, 2]]);
        net.pass(ms(1000));
        net.cut.clear();
        net.pass(ms(100));
    }
    net.start(2);
    let (twice, nobody) = net.watch(ms(5000));
    assert!(
        twice <= ms(200) && nobody <= ms(500),
        "{twice:?} {nobody:?}"
    );
    net.pass(ms(60_000));
    let counts = net.agents.iter().flatten().map(|one| one.alive().count());
    assert_eq!(counts.collect::<Vec<_>>(), [3, 3, 3]);
}
