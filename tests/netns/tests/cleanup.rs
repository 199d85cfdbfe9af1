//! `portolan cleanup` takes away what an agent left, and nothing else.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use portolan_agent::node::PRESENCE;
use portolan_conformance::tools;
use portolan_kernel::link::Links;
use portolan_kernel::netns::NetNs;
use portolan_kernel::nft::Nft;
use portolan_kernel::presence::Presence;
use portolan_kernel::way::{Mark, NextHop, Way};
use portolan_netns::namespace::{inside, nft};
use portolan_netns::world::block_on;
use portolan_nft::{Ruleset, diff};
use portolan_plan::{NodePlan, NodeView};
use portolan_render::nft::image;
use serde_json::{Value, json};

const DNS: [&str; 2] = ["10.96.0.10/32", "fd00:10:96::a/128"];
const OTHER: &str = "table ip other {\n\tchain mine {\n\t\ttcp dport 80 drop\n\t}\n}\n";

fn cleanup(flags: &[&str]) -> Result<Output> {
    let mut command = Command::new(tools::portolan()?);
    Ok(command.arg("cleanup").args(flags).output()?)
}

/// What it prints when it succeeds.
fn said(flags: &[&str]) -> Result<String> {
    let done = cleanup(flags)?;
    let errors = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{}: {errors}", done.status);
    Ok(String::from_utf8(done.stdout)?)
}

/// Leaves in the namespace what an agent leaves, and something of others.
async fn leave() -> Result<Links> {
    let netns = NetNs::current()?;
    let mut view = NodeView::default();
    let links = Links::open(&netns)?;
    let lo = links.index("lo").await?;
    links.set_up(lo, true).await?;
    for address in DNS {
        let address: ipnet::IpNet = address.parse()?;
        view.dns_addresses.push(address.addr());
        links.add_answering_address(lo, address).await?;
    }
    links.add_address(lo, "10.9.9.9/32".parse()?).await?;
    let way = Way {
        ipv6: false,
        number: 3,
        mark: Some(Mark {
            value: 0x3_0000,
            mask: 0xff_0000,
        }),
        next: Some(NextHop {
            address: "10.9.9.8".parse()?,
            link: lo,
        }),
    };
    links.add_way(&way).await?;
    let image = image(&NodePlan::empty(view));
    Nft::open_here()?.commit(&diff(&Ruleset::new(), &image))?;
    nft(&["-f", "-"], OTHER);
    Ok(links)
}

#[test]
fn what_an_agent_left_goes_and_the_rest_stays() {
    if !inside("what_an_agent_left_goes_and_the_rest_stays") {
        return;
    }
    block_on(async {
        let links = leave().await?;
        let lo = links.index("lo").await?;
        let before = links.addresses(lo).await?;
        let ours = [
            "table ip portolan",
            "table ip6 portolan",
            "rule fwmark 0x30000/0xff0000 and its table 1347354627",
            "address 10.96.0.10/32 from lo",
            "address fd00:10:96::a/128 from lo",
        ];
        let lines = |verb: &str| ours.map(|what| format!("{verb} {what}\n")).concat();
        assert_eq!(said(&["--dry-run"])?, lines("would remove"));
        assert_eq!(links.addresses(lo).await?, before, "a rehearsal");
        assert_eq!(said(&[])?, lines("removed"));
        assert_eq!(nft(&["list", "ruleset"], ""), OTHER);
        let mut left = before;
        left.retain(|address| !DNS.contains(&address.to_string().as_str()));
        assert_eq!(links.addresses(lo).await?, left);
        assert!(left.contains(&"10.9.9.9/32".parse()?));
        assert!(links.ways().await?.is_empty());
        assert_eq!(said(&[])?, "nothing to remove\n");
        let report: Value = serde_json::from_str(&said(&["-o", "json"])?)?;
        assert_eq!(report, json!({"dryRun": false, "removed": []}));
        Ok(())
    });
}

#[test]
fn addresses_without_a_table_go_too_and_reports_name_them() {
    if !inside("addresses_without_a_table_go_too_and_reports_name_them") {
        return;
    }
    block_on(async {
        let links = leave().await?;
        nft(&["delete table ip portolan; delete table ip6 portolan"], "");
        let rule = "rule fwmark 0x30000/0xff0000 and its table 1347354627";
        let rule = json!({"kind": "Rule", "family": "IPv4", "rule": rule});
        let addresses = DNS
            .iter()
            .map(|address| json!({"kind": "Address", "link": "lo", "address": address}));
        let removed: Vec<Value> = std::iter::once(rule).chain(addresses).collect();
        let report: Value = serde_json::from_str(&said(&["--dry-run", "-o", "json"])?)?;
        assert_eq!(report, json!({"dryRun": true, "removed": removed}));
        let report = said(&["-o", "yaml"])?;
        assert!(report.contains("10.96.0.10/32"), "{report}");
        let lo = links.index("lo").await?;
        assert!(links.answering_addresses(lo).await?.is_empty());
        Ok(())
    });
}

#[test]
fn a_running_agent_is_named_and_nothing_is_touched() {
    if !inside("a_running_agent_is_named_and_nothing_is_touched") {
        return;
    }
    block_on(async {
        let links = leave().await?;
        let lo = links.index("lo").await?;
        let before = (nft(&["list", "ruleset"], ""), links.addresses(lo).await?);
        let agent = Presence::hold(&NetNs::current()?, PRESENCE)?.context("held by another")?;
        let done = cleanup(&[])?;
        assert_eq!(done.status.code(), Some(1));
        assert_eq!(
            String::from_utf8(done.stderr)?,
            format!(
                "error: an agent runs in this network namespace (process {}): stop it first\n",
                std::process::id()
            )
        );
        let after = (nft(&["list", "ruleset"], ""), links.addresses(lo).await?);
        assert_eq!(after, before);
        drop(agent);
        assert!(said(&[])?.starts_with("removed table ip portolan\n"));
        Ok(())
    });
}

#[test]
fn without_the_right_it_says_so() -> Result<()> {
    // Nobody has no rights in a namespace of others.
    let portolan = tools::portolan()?;
    let done = Command::new("unshare")
        .args(["--user", "--map-user=65534", "--map-group=65534"])
        .arg("setpriv")
        .args([
            "--inh-caps=-all",
            "--ambient-caps=-all",
            "--bounding-set=-all",
        ])
        .arg(portolan)
        .args(["cleanup", "--dry-run"])
        .output()?;
    let error = String::from_utf8(done.stderr)?;
    assert_eq!(done.status.code(), Some(1), "{error}");
    assert!(
        error.starts_with(
            "error: cleanup needs the right to administer this network namespace (CAP_NET_ADMIN): run it as root"
        ),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
    Ok(())
}
