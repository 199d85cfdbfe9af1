//! A shell in a lab with nodes, to look around by hand:
//! `cargo run -p portolan-lab --example sandbox_shell -- 3`. Each node has one
//! pod; `nsenter --net=/proc/$LAB/fd/N` leads into the namespaces listed.
#![expect(clippy::print_stdout, reason = "it talks to the person who started it")]

use std::{os::fd::AsRawFd, process::ExitCode};

use portolan_lab::{
    broker::Broker,
    fabric::Fabric,
    pod_net::PodNets,
    sandbox::{self, Options, Role, Seat},
};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<ExitCode, Failure> {
    match sandbox::enter(&Options::default())? {
        Role::Broker { exit_code } => Ok(ExitCode::from(u8::try_from(exit_code)?)),
        Role::Lab(seat) => tokio::runtime::Runtime::new()?.block_on(look_around(seat)),
    }
}

async fn look_around(seat: Seat) -> Result<ExitCode, Failure> {
    let broker = Broker::attach(seat)?;
    let nodes = std::env::args().nth(1).map_or(Ok(2), |word| word.parse())?;
    let fabric = Fabric::create(nodes).await?;
    let mut pods = Vec::new();
    println!("the host's resolvers: {:?}", broker.resolvers().await?);
    for node in fabric.nodes() {
        let nets = PodNets::new(node.clone());
        let pod = nets.attach("pod").await?;
        println!(
            "{}: fd {} {:?}",
            node.name,
            node.netns.as_raw_fd(),
            node.ips
        );
        println!("  its pod: fd {} {:?}", pod.netns.as_raw_fd(), pod.ips);
        pods.push((nets, pod));
    }
    let mut shell = tokio::process::Command::new("bash");
    shell.env("LAB", std::process::id().to_string());
    let status = shell.status().await?;
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1))?))
}
