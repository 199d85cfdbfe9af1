//! An agent takes over from one of another version, whose table looks otherwise:
//! no connection is lost and none is refused, and the kernel holds the plan.

mod site;

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use portolan_kernel::netns::NetNs;
use portolan_kernel::nft::Nft;
use portolan_model::Family;
use portolan_netns::facts::{PORT, cluster_ip};
use portolan_netns::namespace::nft;
use portolan_netns::talk::{Open, connect};
use portolan_netns::town::{A, B, in_town};
use portolan_netns::world::World;
use portolan_nft::{Chain, ChainType, Data, Field, Hook, Rule, Ruleset, Set, Value, diff};
use portolan_render::nft::{AFFINITY, layout, tables};
use serde_json::json;
use site::knocker::{Knocker, SOON};
use site::running::{Running, held, until};
use site::{Api, of_pods};
use tokio::time::timeout;

/// The number of the Service whose clients stay.
const STICKY: u8 = 111;
/// The number of an ordinary one.
const PLAIN: u8 = 112;

fn at(number: u8) -> SocketAddr {
    SocketAddr::new(cluster_ip(Family::V4, number), PORT)
}

/// How many clients are remembered.
fn remembered(kernel: &mut Nft) -> Result<usize> {
    Ok(kernel.learned(&tables()[0], &AFFINITY.into())?.len())
}

/// The same table as another version might have it: it serves alike, but sets of
/// the same names are declared otherwise, a chain of ours is none at a hook, and
/// there are chains, sets and maps that we do not know.
fn of_another_version(ours: &Ruleset) -> Ruleset {
    let mut other = ours.clone();
    for table in other.tables.values_mut() {
        let number = layout(table).unwrap_or(0);
        table.chains.remove(&*format!("layout-{number}"));
        let newer = format!("layout-{}", number + 1000);
        table.chains.insert(newer.into(), Chain::regular([]));
        // Strays and source ranges are done without for once.
        for chain in ["invalid-input", "invalid-forward", "invalid-output"] {
            table.chains.remove(chain);
        }
        let from = "from-endpoint";
        let nothing = Chain::base(ChainType::Filter, Hook::Input, 5, []);
        table.chains.insert(from.into(), nothing);
        let outlying = Set::map([Field::Dport], [Field::Daddr]);
        table.sets.insert("outlying_endpoints".into(), outlying);
        let extra = Set::vmap([Field::Dport]).with(
            [Value::Port(9)],
            Data::Verdict(portolan_nft::Verdict::Goto("extra".into())),
        );
        table.sets.insert("extra_ports".into(), extra);
        let count = Rule::new().verdict(portolan_nft::Verdict::Accept);
        table.chains.insert("extra".into(), Chain::regular([count]));
        let look = Rule::new().vmap([Field::Dport], "extra_ports");
        let hook = Chain::base(ChainType::Filter, Hook::Forward, -5, [look]);
        table.chains.insert("extra-forward".into(), hook);
    }
    other
}

/// What an agent finds, and whether clients keep their endpoints through it.
struct Finding {
    /// Changes the table that an agent has left, while nobody runs.
    change: fn(&mut Nft, &NetNs, &Ruleset) -> Result<()>,
    /// Whether what packets have put into the table is still there.
    clients_stay: bool,
}

async fn take_over(
    world: &World,
    agent: &mut Running,
    (number, finding): (u16, &Finding),
) -> Result<()> {
    let netns = &world.nodes[0].net.netns;
    let mut kernel = Nft::open(netns)?;
    let ours = held(&mut kernel)?;
    for table in ours.tables.values() {
        ensure!(
            layout(table).is_some() && !table.alien,
            "not a table of ours"
        );
    }
    let client = world.namespace(B);
    let mut open: Vec<Open> = Vec::new();
    for to in [STICKY, PLAIN, PLAIN, PLAIN].map(at) {
        let mut connection = connect(client, world.port(), to).await??;
        connection.echo("before").await?;
        open.push(connection);
    }
    let server = open[0].server;
    agent.stop().await?;
    (finding.change)(&mut kernel, netns, &ours)?;
    ensure!(held(&mut kernel)? != ours, "nothing was changed");
    let clients = remembered(&mut kernel)?;
    ensure!(clients > 0, "nobody is remembered");
    let ports = (38_000 + number * 5_000)..(43_000 + number * 5_000);
    let knockers = [
        Knocker::start(client, ports.clone(), at(PLAIN)),
        Knocker::start(world.namespace(A), ports, at(STICKY)),
    ];
    for knocker in &knockers {
        knocker.go_on(20).await?;
    }
    agent.start();
    let came = until("the kernel holds the plan", async || {
        Ok(held(&mut kernel)? == ours)
    });
    if let Err(error) = came.await {
        let left = diff(&held(&mut kernel)?, &ours);
        let refused = kernel.commit(&left).map_err(anyhow::Error::from);
        return Err(error.context(format!("finding {number}: {refused:?} {left:#?}")));
    }
    for knocker in &knockers {
        knocker.go_on(50).await?;
    }
    for knocker in knockers {
        knocker.end().await?;
    }
    for connection in &mut open {
        connection.echo("after").await?;
    }
    if finding.clients_stay {
        let kept = remembered(&mut kernel)?;
        ensure!(
            kept >= clients,
            "{number}: {clients} clients before, {kept} after"
        );
        for _ in 0..10 {
            let again = connect(client, world.port(), at(STICKY)).await??;
            ensure!(again.server == server, "{} and not {server}", again.server);
        }
    }
    Ok(())
}

fn commit_another(kernel: &mut Nft, _: &NetNs, ours: &Ruleset) -> Result<()> {
    Ok(kernel.commit(&diff(ours, &of_another_version(ours)))?)
}

/// What our language lacks altogether.
fn load_unknown(_: &mut Nft, netns: &NetNs, _: &Ruleset) -> Result<()> {
    let more = "\
add counter ip portolan seen
add chain ip portolan odd { type route hook output priority 7; }
add rule ip portolan odd ip daddr { 192.0.2.1, 192.0.2.2 } counter name seen
add set ip portolan lasting { type ipv4_addr; flags constant; elements = { 192.0.2.9 }; }
";
    netns.run(|| nft(&["-f", "-"], more))?;
    Ok(())
}

/// Rules in our own chains with sets and chains that have no name, a policy, and a
/// set that is flagged otherwise.
fn load_nameless(_: &mut Nft, netns: &NetNs, _: &Ruleset) -> Result<()> {
    let more = "\
add rule ip portolan learn ip daddr { 192.0.2.1, 192.0.2.2 } drop
add rule ip portolan learn tcp dport 7 jump { ip saddr 192.0.2.3 drop; }
add chain ip portolan invalid-output { policy drop; }
add rule ip portolan invalid-output accept
";
    netns.run(|| nft(&["-f", "-"], more))?;
    Ok(())
}

#[test]
fn p21_an_agent_takes_over_from_other_layouts_without_a_gap() {
    in_town(
        "p21_an_agent_takes_over_from_other_layouts_without_a_gap",
        async |world| {
            let api = Api::new(&world).await?;
            let mut agent = Running::new(&world, &api);
            let pods = of_pods(&world, &[0, 2]);
            api.service("sticky", STICKY, &pods).await?;
            let stay = json!({"sessionAffinity": "ClientIP"});
            api.change("sticky", &stay).await?;
            api.service("plain", PLAIN, &pods).await?;
            agent.start();
            for to in [STICKY, PLAIN].map(at) {
                until("a Service is served", async || {
                    let open = connect(world.namespace(B), world.port(), to);
                    Ok(matches!(timeout(SOON, open).await, Ok(Ok(Ok(_)))))
                })
                .await?;
            }
            let findings = [
                Finding {
                    change: commit_another,
                    clients_stay: true,
                },
                Finding {
                    change: load_nameless,
                    clients_stay: true,
                },
                Finding {
                    change: load_unknown,
                    clients_stay: false,
                },
            ];
            for finding in (0..).zip(&findings) {
                take_over(&world, &mut agent, finding).await?;
            }
            agent.stop().await
        },
    );
}
