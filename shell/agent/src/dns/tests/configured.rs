//! A configuration file in use, and what becomes of its changes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::super::{Configured, Dial, Upstream, check_configuration};
use super::resolver::{Manner, ask, resolver};
use super::{Lab, PATIENCE, until};

const HEAD: &str = "apiVersion: dns.portolan.dev/v1alpha1\nkind: DNSConfiguration\n";

fn write(path: &Path, body: &str) {
    // As a ConfigMap changes: never half.
    let new = path.with_extension("new");
    std::fs::write(&new, format!("{HEAD}{body}")).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// A server by this file.
fn lab(configured: &Configured) -> Lab {
    let front = configured.front();
    let upstream = configured.forwarder() as Arc<dyn Upstream>;
    Lab::start_with(Some(upstream), true, |service| service.front = front)
}

#[tokio::test]
async fn d22_hosts_and_rewrites_come_before_the_zones() {
    let dir = tempfile::tempdir().unwrap();
    let (path, names) = (dir.path().join("dns.yaml"), dir.path().join("hosts"));
    std::fs::write(
        &names,
        "# names\n192.0.2.8\tfile.example alias.example # two\nnonsense x\n",
    )
    .unwrap();
    let server = resolver(Manner::Good, 7);
    let body = format!(
        "forward: [{{servers: ['{}']}}]\n\
         hosts: {{entries: [{{address: 192.0.2.9, names: [www.example.com, both.example.com]}}, {{address: '2001:db8::9', names: [both.example.com]}}], files: [{}], ttl: 60s}}\n\
         rewrite: [{{type: Suffix, from: .corp.example., to: .default.svc.cluster.local.}}, {{from: ext.example, to: other.example}}]\n",
        server.address,
        names.display(),
    );
    write(&path, &body);
    let configured = Configured::open(Some(path), Dial::Own).unwrap();
    let lab = lab(&configured);
    let short = async |words: &str| lab.dig(&format!("+short {words}")).await;
    assert_eq!(short("www.example.com A").await, "192.0.2.9\n");
    assert_eq!(short("both.example.com AAAA").await, "2001:db8::9\n");
    assert_eq!(short("ALIAS.example A").await, "192.0.2.8\n");
    assert_eq!(short("-x 192.0.2.8").await, "file.example.\n");
    let none = lab.dig("www.example.com AAAA").await;
    assert!(
        none.contains("status: NOERROR,") && none.contains("ANSWER: 0,"),
        "{none}"
    );
    let aliased = lab.dig("out.default.svc.cluster.local A +short").await;
    assert_eq!(
        aliased, "www.example.com.\n192.0.2.9\n",
        "also at the end of an alias"
    );
    assert_eq!(server.asked(), 0);
    // The rest is as it was.
    assert_eq!(short("else.example.com A").await, "192.0.2.7\n");
    assert_eq!(
        short("web.default.svc.cluster.local A").await,
        "10.96.7.1\n"
    );
    let gone = lab.dig("nope.default.svc.cluster.local A").await;
    assert!(gone.contains("status: NXDOMAIN,"), "{gone}");

    let own = lab.dig("web.corp.example A").await;
    assert!(
        own.contains("web.corp.example.\t5\tIN\tA\t10.96.7.1"),
        "{own}"
    );
    let missing = lab.dig("nope.corp.example A").await;
    assert!(missing.contains("status: NXDOMAIN,"), "{missing}");
    let other = lab.dig("ext.example A").await;
    assert!(
        other.contains("ext.example.\t\t30\tIN\tA\t192.0.2.7"),
        "{other}"
    );
    let tcp = lab.dig("+tcp both.corp.example A").await;
    assert!(
        tcp.contains("both.corp.example.\t5\tIN\tA\t10.96.7.2"),
        "{tcp}"
    );
}

#[tokio::test]
async fn d22_changes_of_the_file_hold_and_broken_ones_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dns.yaml");
    let resolv_conf = dir.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "search example.com\n").unwrap();
    let (one, two) = (resolver(Manner::Good, 1), resolver(Manner::Good, 2));
    let to = |server: &super::resolver::Resolver| {
        format!("forward: [{{servers: ['{}']}}]\n", server.address)
    };
    write(&path, &to(&one));
    let configured = Configured::open(Some(path.clone()), Dial::Own)
        .unwrap()
        .looking_every(Duration::from_millis(10));
    let forwarder = configured.forwarder();
    let front = configured.front();
    let failed = configured.told().failed_reloads;
    let again = Arc::new(Notify::new());
    let stop = CancellationToken::new();
    let following = tokio::spawn(configured.follow(Arc::clone(&again), stop.clone()));
    assert_eq!(ask(&forwarder, "a.example").await, Ok(1));

    let is = async |last: u8| {
        let deadline = Instant::now() + PATIENCE;
        while ask(&forwarder, "a.example").await != Ok(last) {
            assert!(Instant::now() < deadline, "{last}");
            sleep(Duration::from_millis(5)).await;
        }
    };
    write(&path, &to(&two));
    is(2).await;

    // Broken in every way: what was before goes on.
    for body in [
        "forward: {}\n",
        "nonsense: 1\n",
        ":",
        "forward: [{servers: [/no/such/file]}]\n",
    ] {
        let before = failed.load(Ordering::Relaxed);
        write(&path, body);
        again.notify_one();
        until("the fault is counted", || {
            failed.load(Ordering::Relaxed) > before
        })
        .await;
        assert_eq!(ask(&forwarder, "a.example").await, Ok(2), "{body}");
        assert!(check_configuration(&path).is_err(), "{body}");
    }
    let before = failed.load(Ordering::Relaxed);
    std::fs::remove_file(&path).unwrap();
    until("the missing file is counted", || {
        failed.load(Ordering::Relaxed) > before
    })
    .await;
    assert_eq!(ask(&forwarder, "a.example").await, Ok(2));

    write(
        &path,
        &format!(
            "{}hosts: {{entries: [{{address: 192.0.2.9, names: [b.example]}}]}}\n",
            to(&one)
        ),
    );
    is(1).await;
    until("names are written", || {
        front.load().hosts.iter().next().is_some()
    })
    .await;
    stop.cancel();
    following.await.unwrap();
}

#[tokio::test]
async fn d22_without_a_file_the_machines_resolvers_are_asked() {
    let configured = Configured::open(None, Dial::Own).unwrap();
    let servers: Vec<String> = configured
        .forwarder()
        .servers()
        .into_iter()
        .map(|server| server.server)
        .collect();
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let expected: Vec<String> = super::super::nameservers(&text)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(servers, expected);
}

#[test]
fn d22_what_is_wrong_with_a_file_names_the_file_and_the_field() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dns.yaml");
    write(&path, "forward: [{servers: [192.0.2.1], policy: Fast}]\n");
    let error = check_configuration(&path).unwrap_err().to_string();
    assert!(
        error.contains("dns.yaml: forward[0].policy: Unsupported value: \"Fast\""),
        "{error}"
    );
    let none = check_configuration(&dir.path().join("none"))
        .unwrap_err()
        .to_string();
    assert!(none.contains("none"), "{none}");
}
