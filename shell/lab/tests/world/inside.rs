//! Cases that run inside of a lab.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
    process::{Command, ExitCode},
};

use nix::mount::{MsFlags, mount};
use portolan_kernel::netns::NetNs;
use portolan_lab::{
    broker::Broker,
    fabric::Fabric,
    leftovers,
    sandbox::{self, Options, Role},
};

use crate::{network, run::eventually};

/// Cases that the judge runs by themselves; the others are halves of cases in
/// `outside`.
pub(crate) const CASES: &[&str] = &[
    "the_lab_is_root_and_alone",
    "orphans_are_reaped",
    "the_broker_makes_sockets_and_says_why_not",
    "pods_nodes_and_the_outside_talk_in_both_families",
    "detached_pods_are_gone_and_can_come_back",
    "service_ranges_have_a_route_that_ends",
    "sixteen_nodes_come_up",
    "clearing_never_goes_through_a_mount",
];

/// Enters a lab and runs one case in it; or, as its broker, passes its end on.
pub(crate) fn enter(case: &str, arguments: &[String]) -> ExitCode {
    match sandbox::enter(&Options::default()) {
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
        Ok(Role::Broker { exit_code }) => ExitCode::from(u8::try_from(exit_code).unwrap_or(255)),
        Ok(Role::Lab(seat)) => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let broker = Broker::attach(seat).unwrap();
                run(case, arguments, broker).await
            })
        }
    }
}

async fn run(case: &str, arguments: &[String], broker: Broker) -> ExitCode {
    match case {
        "the_lab_is_root_and_alone" => alone(),
        "orphans_are_reaped" => orphans(),
        "the_broker_makes_sockets_and_says_why_not" => sockets(&broker).await,
        "pods_nodes_and_the_outside_talk_in_both_families" => network::talk().await,
        "detached_pods_are_gone_and_can_come_back" => network::detach().await,
        "service_ranges_have_a_route_that_ends" => network::services().await,
        "sixteen_nodes_come_up" => network::sixteen().await,
        "clearing_never_goes_through_a_mount" => clear_mounts(),
        "publish_echo" => network::publish_echo(&broker, arguments).await,
        "wait_for_stop" => return stop(&broker).await,
        "with_fabric" => {
            let _fabric = Fabric::create(2).await.unwrap();
            return stop(&broker).await;
        }
        "with_children" => {
            let _one = Command::new("sleep").arg("1000").spawn().unwrap();
            let _two = Command::new("setsid")
                .args(["sleep", "1000"])
                .spawn()
                .unwrap();
            return stop(&broker).await;
        }
        "never_stop" => {
            println!("ready");
            broker.stop().cancelled().await;
            println!("not stopping");
            std::future::pending::<()>().await;
        }
        _ => panic!("no case {case}"),
    }
    ExitCode::SUCCESS
}

async fn stop(broker: &Broker) -> ExitCode {
    println!("ready");
    broker.stop().cancelled().await;
    println!("stopping");
    ExitCode::from(42)
}

fn alone() {
    assert!(nix::unistd::geteuid().is_root());
    assert_eq!(std::process::id(), 2, "PID 1 is init");
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    assert_eq!(pids.count(), 2, "/proc shows the lab's processes only");
    let devices = fs::read_to_string("/proc/net/dev").unwrap();
    assert_eq!(
        devices.lines().count(),
        3,
        "two lines of heading and lo: {devices}"
    );
    let away = TcpStream::connect("192.0.2.1:80").unwrap_err();
    assert_eq!(away.kind(), std::io::ErrorKind::NetworkUnreachable);
}

fn orphans() {
    let status = Command::new("sh")
        .args(["-c", "sleep 0.05 & exit 3"])
        .status()
        .unwrap();
    assert_eq!(
        status.code(),
        Some(3),
        "init does not take the lab's own children"
    );
    let others = || {
        let pids = fs::read_dir("/proc").unwrap().flatten();
        pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| *pid > 2)
            .count()
    };
    eventually(|| (others() == 0).then_some(())).expect("no orphan and no zombie is left");
}

async fn sockets(broker: &Broker) {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let listener = broker.listen_tcp(any).await.unwrap();
    let at = listener.local_addr().unwrap();
    let taken = broker.listen_tcp(at).await.unwrap_err();
    assert_eq!(taken.refusal(), Some(std::io::ErrorKind::AddrInUse));
    assert_eq!(
        taken.to_string(),
        format!("the host refuses listen-tcp {at}")
    );
    assert!(
        TcpStream::connect(at).is_err(),
        "the listener is the host's, not the lab's"
    );
    let udp = broker.bind_udp(any).await.unwrap();
    assert_ne!(udp.local_addr().unwrap().port(), 0);
    let stranger: IpAddr = "192.0.2.53".parse().unwrap();
    let refused = broker.udp_to_resolver(stranger).await.unwrap_err();
    assert_eq!(
        refused.refusal(),
        Some(std::io::ErrorKind::PermissionDenied)
    );
    let refused = broker.tcp_to_resolver(stranger).await.unwrap_err();
    assert_eq!(
        refused.refusal(),
        Some(std::io::ErrorKind::PermissionDenied)
    );
    for resolver in broker.resolvers().await.unwrap() {
        broker.udp_to_resolver(resolver).await.unwrap();
    }
    let many = (0..64).map(|_| broker.bind_udp(any));
    let many = futures::future::join_all(many).await;
    assert!(many.iter().all(Result::is_ok));
}

fn clear_mounts() {
    let id = NetNs::current().unwrap().inode();
    let dir = std::env::temp_dir().join(format!("portolan-mounts-{id}"));
    let (kept, run) = (dir.join("kept"), dir.join("run/pods/rootfs"));
    fs::create_dir_all(&kept).unwrap();
    fs::create_dir_all(&run).unwrap();
    fs::write(kept.join("file"), "x").unwrap();
    let bind = MsFlags::MS_BIND;
    mount(Some(&kept), &run, None::<&str>, bind, None::<&str>).unwrap();
    mount(Some(&kept), &run, None::<&str>, bind, None::<&str>).unwrap();
    leftovers::clear(&dir.join("run")).unwrap();
    assert!(!dir.join("run").exists());
    assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "x");
    leftovers::clear(&dir).unwrap();
}
