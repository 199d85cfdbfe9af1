//! Load balancers' addresses: given to many Services, told to a router, and moved when
//! a node dies.
//!
//! Runs in namespaces of its own, so it touches nothing of the host.

mod agent;
mod allocate;
mod announce;
mod failover;
mod objects;
mod router;
mod town;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use portolan_benches::figures::{figure, say};
use portolan_benches::inside;

use router::Manner;
use town::Town;

/// How many Services there are, where there are few and where there are many.
const FEW: usize = 10;
const MANY: usize = 10_000;

/// How a router finds out that a node is dead, and what it is called.
const WAYS: [(&str, Manner); 2] = [
    (
        "bfd",
        Manner {
            hold: 90,
            bfd: true,
            routes: true,
        },
    ),
    (
        "hold",
        Manner {
            hold: 3,
            bfd: false,
            routes: true,
        },
    ),
];

/// Benchmarks of load balancers' addresses.
#[derive(Parser)]
struct Cli {
    /// Only these parts.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Addresses given to 10 000 Services.
    Allocate,
    /// The same, and told to a router.
    Announce,
    /// A node dies that answers for an address.
    L2,
    /// A node dies that a router sends to.
    Bgp,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    inside::enter()?;
    let wanted = |part| cli.only.is_empty() || cli.only.contains(&part);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        if wanted(Part::Allocate) || wanted(Part::Announce) {
            many(wanted(Part::Allocate), wanted(Part::Announce)).await?;
        }
        if wanted(Part::L2) {
            failover::l2().await?;
        }
        if wanted(Part::Bgp) {
            for (label, manner) in WAYS {
                failover::bgp(label, manner).await?;
            }
        }
        anyhow::Ok(())
    })
}

async fn many(allocate: bool, announce: bool) -> Result<()> {
    let town = Town::build(2).await?;
    say("few Services");
    let (mut cluster, _) = allocate::run(FEW).await?;
    if allocate {
        cluster.changes("10").await?;
    }
    if announce {
        town.register(&cluster.api).await?;
        announce::few(&town, &mut cluster).await?;
    }
    drop(cluster);
    let mut bare = None;
    if allocate {
        let folder = tempfile::tempdir()?;
        let took = allocate::bare(MANY, folder.path()).await?.as_secs_f64();
        figure("allocate_bare_10000_s", took, "s");
        bare = Some(took);
    }
    say("the controller gives 10 000 Services addresses");
    let (mut cluster, took) = allocate::run(MANY).await?;
    figure("allocate_10000_s", took.as_secs_f64(), "s");
    if let Some(bare) = bare {
        figure("allocate_ratio_to_bare", took.as_secs_f64() / bare, "1");
    }
    if announce {
        town.register(&cluster.api).await?;
        announce::memory(&town, &cluster).await?;
        announce::many(&town, &mut cluster).await?;
    }
    if allocate {
        cluster.changes("10000").await?;
    }
    Ok(())
}
