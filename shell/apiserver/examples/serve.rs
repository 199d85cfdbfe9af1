//! An API server without nodes: `cargo run --example serve -- DIR PORT`.
//!
//! Listens on 127.0.0.1:PORT and writes DIR/kubeconfig.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use portolan_apiserver::{Config, Server};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let mut arguments = std::env::args().skip(1);
    let data_dir: PathBuf = arguments.next().context("usage: serve DIR [PORT]")?.into();
    let port: u16 = arguments.next().as_deref().unwrap_or("6443").parse()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let url = format!("https://{}", listener.local_addr()?);
    let server = Server::open(Config {
        data_dir: data_dir.clone(),
        ..Config::default()
    })
    .await?;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(data_dir.join("kubeconfig"))?;
    file.write_all(server.kubeconfig(&url).as_bytes())?;
    let shutdown = CancellationToken::new();
    let signal = shutdown.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            signal.cancel();
        }
    });
    server.serve(listener, shutdown).await?;
    Ok(())
}
