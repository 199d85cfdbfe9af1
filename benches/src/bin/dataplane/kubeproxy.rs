//! A ruleset of the shape that kube-proxy's nftables mode (Kubernetes 1.36) makes,
//! for comparison: a chain with a verdict map for each Service port, a chain for each
//! endpoint, and maps that lead to them. Made here, loaded with `nft -f` as kube-proxy
//! does.

use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::Range;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portolan_benches::cluster::{self, ENDPOINTS};
use portolan_benches::figures::{figure, percentile, say};
use portolan_kernel::netns::NetNs;
use portolan_model::Family;

const SERVICES: usize = 10_000;
const CHANGES: usize = 3;

/// What is there whatever Services there are.
const FRAME: &str = "
table ip kube-proxy {
  comment \"rules for kube-proxy\"
  set cluster-ips { type ipv4_addr; comment \"Active ClusterIPs\"; }
  set nodeport-ips { type ipv4_addr; comment \"IPs that accept NodePort traffic\"; }
  map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
  map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }
  map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
  map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
  map service-nodeports { type inet_proto . inet_service : verdict; }
  chain mark-for-masquerade { mark set mark or 0x4000; }
  chain masquerading {
    mark and 0x4000 == 0 return
    mark set mark xor 0x4000
    masquerade fully-random
  }
  chain services {
    ip daddr . meta l4proto . th dport vmap @service-ips
    ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
  }
  chain reject-chain { reject; }
  chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
  chain nodeport-endpoints-check { ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }
  chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
  chain cluster-ips-check {
    ip daddr @cluster-ips reject
    ip daddr { 10.96.0.0/16 } drop
  }
  chain filter-prerouting { type filter hook prerouting priority -110; ct state new jump firewall-check; }
  chain filter-input { type filter hook input priority -110; ct state new jump nodeport-endpoints-check; ct state new jump service-endpoints-check; }
  chain filter-forward { type filter hook forward priority -110; ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }
  chain filter-output { type filter hook output priority -110; ct state new jump service-endpoints-check; ct state new jump firewall-check; }
  chain filter-output-post-dnat { type filter hook output priority -90; ct state new jump cluster-ips-check; }
  chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
  chain nat-output { type nat hook output priority -100; jump services; }
  chain nat-postrouting { type nat hook postrouting priority srcnat; jump masquerading; }
}
";

/// Loads it, then changes one Service a few times.
pub(crate) fn run() -> Result<()> {
    let size = cluster::size(SERVICES);
    say(&format!(
        "a ruleset of kube-proxy's shape, {size}: load, then {CHANGES} changes"
    ));
    let netns = NetNs::create()?;
    // In a user namespace the program's socket takes no more at once.
    let at_once = if portolan_benches::inside::is_root() {
        SERVICES
    } else {
        50
    };
    let pieces = (0..SERVICES)
        .step_by(at_once)
        .map(|first| ruleset(first..SERVICES.min(first + at_once)))
        .collect::<Result<Vec<_>>>()?;
    let begin = Instant::now();
    for piece in &pieces {
        netns.run(|| nft(&["-f", "-"], piece))??;
    }
    let loaded = begin.elapsed().as_secs_f64();
    figure(&format!("kubeproxy_shape_cold_{size}_s"), loaded, "s");
    let (mut whole, mut lists) = (Vec::new(), Vec::new());
    for turn in 1..=CHANGES {
        let text = change(turn * 7919 % SERVICES)?;
        let (listed, took) = netns.run(|| -> Result<(Duration, Duration)> {
            let begin = Instant::now();
            // It looks for chains and sets that are no longer needed.
            nft(&["-j", "list", "chains", "ip"], "")?;
            nft(&["-j", "list", "sets", "ip"], "")?;
            let listed = begin.elapsed();
            nft(&["-f", "-"], &text)?;
            Ok((listed, begin.elapsed()))
        })??;
        lists.push(listed);
        whole.push(took);
    }
    let median = |samples: &mut [Duration]| percentile(samples, 0.5).as_secs_f64();
    figure("kubeproxy_shape_change_s", median(&mut whole), "s");
    figure("kubeproxy_shape_change_lists_s", median(&mut lists), "s");
    Ok(())
}

/// These Services, and with the first of all what is there in any case.
fn ruleset(numbers: Range<usize>) -> Result<String> {
    let mut text = String::new();
    if numbers.start == 0 {
        text.push_str(FRAME);
    }
    for number in numbers {
        service(&mut text, number, 0)?;
        let ip = cluster::service_ip(Family::V4, number);
        let chain = service_chain(number);
        writeln!(text, "add element ip kube-proxy cluster-ips {{ {ip} }}")?;
        writeln!(
            text,
            "add element ip kube-proxy service-ips {{ {ip} . tcp . 80 : goto {chain} }}"
        )?;
    }
    Ok(text)
}

/// One changed endpoint: its chain comes, the Service's chain is written again, and
/// the old endpoint's chain is emptied, to be deleted later.
fn change(number: usize) -> Result<String> {
    let mut text = String::new();
    service(&mut text, number, 1)?;
    let old = endpoint_chain(number, 0, 0);
    writeln!(text, "flush chain ip kube-proxy {old}")?;
    Ok(text)
}

/// The chains of one Service and of its endpoints.
fn service(text: &mut String, number: usize, turn: usize) -> Result<()> {
    let chain = service_chain(number);
    let ip = cluster::service_ip(Family::V4, number);
    let of_slot = |slot| if slot == 0 { turn } else { 0 };
    let mut slots = Vec::new();
    for slot in 0..ENDPOINTS {
        let endpoint = endpoint_chain(number, slot, of_slot(slot));
        let address = cluster::endpoint_ip(Family::V4, number, slot, of_slot(slot));
        writeln!(text, "add chain ip kube-proxy {endpoint}")?;
        writeln!(text, "flush chain ip kube-proxy {endpoint}")?;
        writeln!(
            text,
            "add rule ip kube-proxy {endpoint} ip saddr {address} jump mark-for-masquerade"
        )?;
        writeln!(
            text,
            "add rule ip kube-proxy {endpoint} meta l4proto tcp dnat to {address}:8080"
        )?;
        slots.push(format!("{slot} : goto {endpoint}"));
    }
    writeln!(text, "add chain ip kube-proxy {chain}")?;
    writeln!(text, "flush chain ip kube-proxy {chain}")?;
    writeln!(
        text,
        "add rule ip kube-proxy {chain} ip daddr {ip} tcp dport 80 ip saddr != 10.240.0.0/12 jump mark-for-masquerade"
    )?;
    writeln!(
        text,
        "add rule ip kube-proxy {chain} numgen random mod {ENDPOINTS} vmap {{ {} }}",
        slots.join(" , ")
    )?;
    Ok(())
}

fn service_chain(number: usize) -> String {
    format!("service-ABCD{number:04X}-default/svc-{number}/tcp/")
}

fn endpoint_chain(number: usize, slot: usize, turn: usize) -> String {
    let address = cluster::endpoint_ip(Family::V4, number, slot, turn);
    format!("endpoint-ABCD{number:04X}-default/svc-{number}/tcp/__{address}/8080")
}

/// Runs `nft` with a text on its standard input.
fn nft(args: &[&str], text: &str) -> Result<()> {
    let mut child = Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start nft (Debian package nftables)")?;
    let mut input = child.stdin.take().context("nft's standard input")?;
    input.write_all(text.as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "nft {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
            .lines()
            .take(5)
            .collect::<Vec<_>>()
            .join("\n")
    );
    Ok(())
}
