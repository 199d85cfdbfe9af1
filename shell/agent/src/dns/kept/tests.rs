//! Files of names, and when they are written.

use std::sync::atomic::{AtomicBool, Ordering};

use portolan_dns::Data;

use super::*;

const DEADLINE: Duration = Duration::from_secs(60);

fn view() -> NodeView {
    NodeView {
        cluster_domain: "cluster.local".into(),
        ..NodeView::default()
    }
}

fn config(directory: &Path) -> KeepConfig {
    KeepConfig {
        directory: directory.to_owned(),
        cluster: "https://192.0.2.1:6443/".to_owned(),
    }
}

fn place(directory: &Path) -> Place {
    Place {
        directory: directory.to_owned(),
        about: about(&config(directory), &view()),
    }
}

/// So many Services.
fn names(count: u8) -> Kept {
    let origin = Name::parse("cluster.local").unwrap();
    let mut zone = Zone::new(origin, 5, 1);
    for number in 0..count {
        let name = Name::parse(&format!("s{number}.x.svc.cluster.local")).unwrap();
        let address = Data::A([10, 96, 0, number].into());
        zone.set(&name, &[address.into()]).unwrap();
    }
    Kept {
        zones: Zones::new([zone]),
        addresses: vec!["10.96.0.10".parse().unwrap(), "fd00::10".parse().unwrap()],
        clients: Clients::Within(vec!["10.244.0.0/16".parse().unwrap()]),
    }
}

fn now() -> SystemTime {
    SystemTime::now()
}

#[test]
fn d20_what_was_kept_is_found_and_a_directory_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(&dir.path().join("one/two"));
    assert!(place.read(now()).unwrap().is_none(), "nothing yet");
    for kept in [names(3), names(200), names(1)] {
        place.write(&kept).unwrap();
        let (found, age) = place.read(now()).unwrap().unwrap();
        assert_eq!(found, kept);
        assert!(age < DEADLINE);
    }
    let entries = fs::read_dir(&place.directory).unwrap();
    assert_eq!(entries.count(), 1, "nothing unfinished is left");
    let clients = Clients::Everybody;
    let kept = Kept {
        clients,
        ..names(2)
    };
    place.write(&kept).unwrap();
    assert_eq!(place.read(now()).unwrap().unwrap().0, kept);
}

#[test]
fn d20_damaged_foreign_and_old_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    place.write(&names(20)).unwrap();
    let whole = fs::read(place.path()).unwrap();
    for at in (0..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x20;
        fs::write(place.path(), &damaged).unwrap();
        assert!(matches!(place.read(now()), Err(Unused::Damaged)), "{at}");
        fs::write(place.path(), &whole[..at]).unwrap();
        assert!(matches!(place.read(now()), Err(Unused::Damaged)), "{at}");
    }
    fs::write(place.path(), &whole).unwrap();
    assert!(place.read(now()).unwrap().is_some());
    let later = now() + OLDEST + ABANDONED;
    assert!(matches!(place.read(later), Err(Unused::Old(_))));
    let earlier = now() - OLDEST * 9;
    assert!(
        place.read(earlier).unwrap().is_some(),
        "the clock was set back"
    );

    let cluster = "https://192.0.2.2:6443/".to_owned();
    let other = KeepConfig {
        cluster,
        ..config(dir.path())
    };
    let domain = NodeView {
        cluster_domain: "example.com".into(),
        ..view()
    };
    let ttl = NodeView {
        dns_ttl: 77,
        ..view()
    };
    for about in [
        about(&other, &view()),
        about(&config(dir.path()), &domain),
        about(&config(dir.path()), &ttl),
    ] {
        let directory = dir.path().to_owned();
        let place = Place { directory, about };
        assert!(matches!(place.read(now()), Err(Unused::Foreign)));
    }
    fs::remove_file(place.path()).unwrap();
    fs::create_dir(place.path()).unwrap();
    assert!(matches!(place.read(now()), Err(Unused::Read(_))));
    assert!(place.write(&names(1)).is_err());
}

#[test]
fn d20_what_killed_processes_left_unfinished_goes_once_it_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    place.write(&names(3)).unwrap();
    let [old, new] = ["old", "new"].map(|end| dir.path().join(format!("{UNFINISHED}{end}")));
    for path in [&old, &new] {
        fs::write(path, "half of it").unwrap();
    }
    let file = File::options().append(true).open(&old).unwrap();
    file.set_modified(now() - ABANDONED * 2).unwrap();
    assert_eq!(place.read(now()).unwrap().unwrap().0, names(3));
    place.write(&names(4)).unwrap();
    assert!(!old.exists() && new.exists(), "somebody may still write it");
    assert_eq!(place.read(now()).unwrap().unwrap().0, names(4));
}

/// Two processes write at the same time, as while one takes over from another.
#[test]
fn d20_whoever_reads_finds_one_of_the_files_whole() {
    let dir = tempfile::tempdir().unwrap();
    place(dir.path()).write(&names(1)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for count in [40, 90] {
            let (place, stop) = (place(dir.path()), &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    place.write(&names(count)).unwrap();
                }
            });
        }
        let place = place(dir.path());
        for _ in 0..300 {
            let (kept, _) = place.read(now()).unwrap().unwrap();
            assert!([1, 40, 90].map(names).contains(&kept));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[tokio::test]
async fn d20_the_last_names_are_kept_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let stats = Arc::new(DnsStats::default());
    let (keeper, found) = Keeper::open(&config(dir.path()), &view(), &stats);
    assert!(found.is_none());
    keeper.keep(names(1));
    keeper.keep(names(2));
    keeper.stop().await;
    let (keeper, found) = Keeper::open(&config(dir.path()), &view(), &stats);
    assert_eq!(found, Some(names(2)));
    keeper.stop().await;
    assert!(
        place(dir.path()).read(now()).unwrap().is_some(),
        "nothing came, all stays"
    );
}

#[tokio::test]
async fn d20_many_changes_are_few_writings_and_no_change_a_mark() {
    let dir = tempfile::tempdir().unwrap();
    let stats = Arc::new(DnsStats::default());
    let pace = Pace {
        pause: Duration::from_millis(200),
        mark: Duration::from_millis(100),
    };
    let began = std::time::Instant::now();
    let (keeper, _) = Keeper::open_at(pace, &config(dir.path()), &view(), &stats);
    let path = place(dir.path()).path();
    for count in 1..=100 {
        keeper.keep(names(count));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let read = || place(dir.path()).read(now()).ok().flatten();
    until(|| read().is_some_and(|(kept, _)| kept == names(100))).await;
    // A mark comes after the last writing has been counted.
    let marked = async || {
        let file = File::options().append(true).open(&path).unwrap();
        file.set_modified(now() - OLDEST / 2).unwrap();
        until(|| read().is_some_and(|(_, age)| age < DEADLINE)).await;
    };
    marked().await;
    let most = began.elapsed().as_millis() / pace.pause.as_millis() + 1;
    let writings = u128::from(stats.writings());
    assert!((1..=most).contains(&writings), "{writings} of {most}");
    marked().await;
    let again = u128::from(stats.writings());
    assert_eq!(again, writings, "it is not written again");
    keeper.stop().await;
    assert_eq!(read().map(|(kept, _)| kept), Some(names(100)));
}

async fn until(is_so: impl Fn() -> bool) {
    let end = std::time::Instant::now() + DEADLINE;
    while !is_so() {
        assert!(std::time::Instant::now() < end, "not in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
