//! An agent takes over from a kube-proxy on its node: no connection is lost and none
//! is refused, kube-proxy's rules go, and everybody else's stay.

mod site;

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use portolan_kernel::netns::NetNs;
use portolan_model::Family;
use portolan_netns::facts::{PORT, TCP_TARGET, cluster_ip};
use portolan_netns::namespace::nft;
use portolan_netns::talk::connect;
use portolan_netns::town::{A, B, C, in_town};
use portolan_netns::world::World;
use site::knocker::{Knocker, SOON};
use site::running::{Running, until};
use site::{Api, of_pods};
use tokio::time::timeout;

/// The Service that kube-proxy serves by iptables-nft.
const OLD: u8 = 121;
/// The one that it serves by nftables.
const NEW: u8 = 122;

fn at(number: u8) -> SocketAddr {
    SocketAddr::new(cluster_ip(Family::V4, number), PORT)
}

/// What is not kube-proxy's, as nft lists it.
const OTHERS: &str = "\
table ip nat {
	chain PREROUTING {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local counter packets 0 bytes 0 jump DOCKER
	}

	chain POSTROUTING {
		type nat hook postrouting priority srcnat; policy accept;
	}

	chain DOCKER {
	}

	chain KUBE-KUBELET-CANARY {
	}

	chain KUBE-MARK-DROP {
		meta mark set meta mark | 0x00008000
	}
}
table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy accept;
		counter packets 0 bytes 0 jump KUBE-FIREWALL
	}

	chain FORWARD {
		type filter hook forward priority filter; policy accept;
	}

	chain KUBE-FIREWALL {
	}
}
table ip mangle {
	chain KUBE-IPTABLES-HINT {
	}
}
";

/// kube-proxy's rules, as its modes `iptables` and `nftables` make them, for one
/// Service each, into the tables of [`OTHERS`].
fn kube_proxys(world: &World) -> String {
    let [a, c] = [A, C].map(|pod| world.address(pod, Family::V4));
    let [old, new] = [OLD, NEW].map(|number| cluster_ip(Family::V4, number));
    format!(
        "\
add chain ip nat KUBE-PROXY-CANARY
add chain ip nat KUBE-MARK-MASQ
add rule ip nat KUBE-MARK-MASQ meta mark set mark or 0x4000
add chain ip nat KUBE-SEP-AAAAAAAAAAAAAAAA
add rule ip nat KUBE-SEP-AAAAAAAAAAAAAAAA ip saddr {a} jump KUBE-MARK-MASQ
add rule ip nat KUBE-SEP-AAAAAAAAAAAAAAAA meta l4proto tcp dnat to {a}:{TCP_TARGET}
add chain ip nat KUBE-SEP-CCCCCCCCCCCCCCCC
add rule ip nat KUBE-SEP-CCCCCCCCCCCCCCCC meta l4proto tcp dnat to {c}:{TCP_TARGET}
add chain ip nat KUBE-SVC-OOOOOOOOOOOOOOOO
add rule ip nat KUBE-SVC-OOOOOOOOOOOOOOOO numgen random mod 2 0 jump KUBE-SEP-AAAAAAAAAAAAAAAA
add rule ip nat KUBE-SVC-OOOOOOOOOOOOOOOO jump KUBE-SEP-CCCCCCCCCCCCCCCC
add chain ip nat KUBE-NODEPORTS
add chain ip nat KUBE-SERVICES
add rule ip nat KUBE-SERVICES ip daddr {old} tcp dport {PORT} jump KUBE-SVC-OOOOOOOOOOOOOOOO
add rule ip nat KUBE-SERVICES fib daddr type local jump KUBE-NODEPORTS
insert rule ip nat PREROUTING counter jump KUBE-SERVICES
add chain ip nat KUBE-POSTROUTING
add rule ip nat KUBE-POSTROUTING mark and 0x4000 == 0 return
add rule ip nat KUBE-POSTROUTING counter masquerade fully-random
insert rule ip nat POSTROUTING counter jump KUBE-POSTROUTING
add chain ip filter KUBE-PROXY-CANARY
add chain ip filter KUBE-EXTERNAL-SERVICES
add chain ip filter KUBE-PROXY-FIREWALL
add chain ip filter KUBE-FORWARD
add rule ip filter KUBE-FORWARD ct state invalid drop
add rule ip filter KUBE-FORWARD mark and 0x4000 == 0x4000 accept
add rule ip filter INPUT ct state new counter jump KUBE-PROXY-FIREWALL
add rule ip filter INPUT ct state new counter jump KUBE-EXTERNAL-SERVICES
insert rule ip filter FORWARD counter jump KUBE-FORWARD
insert rule ip filter FORWARD ct state new counter jump KUBE-PROXY-FIREWALL
add chain ip mangle KUBE-PROXY-CANARY
add table ip kube-proxy
add map ip kube-proxy service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
add chain ip kube-proxy endpoint-a
add rule ip kube-proxy endpoint-a meta l4proto tcp dnat to {a}:{TCP_TARGET}
add chain ip kube-proxy endpoint-c
add rule ip kube-proxy endpoint-c meta l4proto tcp dnat to {c}:{TCP_TARGET}
add chain ip kube-proxy service-new
add rule ip kube-proxy service-new numgen random mod 2 vmap {{ 0 : goto endpoint-a, 1 : goto endpoint-c }}
add element ip kube-proxy service-ips {{ {new} . tcp . {PORT} : goto service-new }}
add chain ip kube-proxy nat-prerouting {{ type nat hook prerouting priority dstnat; }}
add rule ip kube-proxy nat-prerouting ip daddr . meta l4proto . th dport vmap @service-ips
add table ip6 kube-proxy
"
    )
}

fn load(netns: &NetNs, text: &str) -> Result<()> {
    netns.run(|| nft(&["-f", "-"], text))?;
    Ok(())
}

/// The tables that are not ours, without what counters counted.
fn others(netns: &NetNs) -> Result<String> {
    // In one listing: a table may go between two.
    let ruleset = netns.run(|| nft(&["list", "ruleset"], ""))?;
    let mut ours = false;
    let mut listed = String::new();
    for line in ruleset.split_inclusive('\n') {
        if line.starts_with("table ") {
            ours = line.ends_with(" portolan {\n");
        }
        if !ours {
            listed += line;
        }
    }
    let counted = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    let words = listed.split_inclusive([' ', '\n']);
    let mut before = "";
    Ok(words
        .map(|word| {
            let is_count = ["packets ", "bytes "].contains(&before) && counted(word.trim());
            before = word;
            if is_count { "0 " } else { word }
        })
        .collect())
}

#[test]
fn an_agent_takes_over_from_kube_proxy_without_a_gap() {
    in_town(
        "an_agent_takes_over_from_kube_proxy_without_a_gap",
        async |mut world| {
            let netns = world.nodes[0].net.netns.clone();
            world.nodes[0].hold_rules(false)?;
            load(&netns, OTHERS)?;
            ensure!(others(&netns)? == OTHERS, "{}", others(&netns)?);
            load(&netns, &kube_proxys(&world))?;
            let api = Api::new(&world).await?;
            let pods = of_pods(&world, &[0, 2]);
            api.service("old", OLD, &pods).await?;
            api.service("new", NEW, &pods).await?;
            let mut open = Vec::new();
            for to in [OLD, NEW].map(at) {
                for _ in 0..3 {
                    let connection = connect(world.namespace(B), world.port(), to);
                    let mut connection =
                        timeout(SOON, connection).await.context("kube-proxy")???;
                    connection.echo("before").await?;
                    open.push(connection);
                }
            }
            let knockers = [(OLD, 40_000..44_000), (NEW, 44_000..48_000)]
                .map(|(number, ports)| Knocker::start(world.namespace(B), ports, at(number)));
            for knocker in &knockers {
                knocker.go_on(20).await?;
            }
            let mut agent = Running::new(&world, &api);
            agent.config.replace_kube_proxy = true;
            agent.start();
            until("kube-proxy's rules are gone", async || {
                Ok(others(&netns)? == OTHERS)
            })
            .await?;
            for knocker in &knockers {
                knocker.go_on(50).await?;
            }
            for knocker in knockers {
                knocker.end().await?;
            }
            for connection in &mut open {
                connection.echo("after").await?;
            }
            agent.stop().await
        },
    );
}

/// Without the flag, what is kube-proxy's stays.
#[test]
fn without_being_told_to_an_agent_leaves_kube_proxys_rules() {
    in_town(
        "without_being_told_to_an_agent_leaves_kube_proxys_rules",
        async |mut world| {
            let netns = world.nodes[0].net.netns.clone();
            world.nodes[0].hold_rules(false)?;
            load(&netns, OTHERS)?;
            load(&netns, &kube_proxys(&world))?;
            let before = others(&netns)?;
            let api = Api::new(&world).await?;
            let pods = of_pods(&world, &[1]);
            api.service("ours", 123, &pods).await?;
            let mut agent = Running::new(&world, &api);
            agent.start();
            until("our rules are in place", async || {
                let open = connect(world.namespace(A), world.port(), at(123));
                Ok(matches!(timeout(SOON, open).await, Ok(Ok(Ok(_)))))
            })
            .await?;
            agent.stop().await?;
            ensure!(others(&netns)? == before, "{}", others(&netns)?);
            Ok(())
        },
    );
}
