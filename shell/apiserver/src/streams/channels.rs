//! `pods/NAME/portforward` over plain WebSocket channels: two per port of the
//! query, data and error, each begun by the server with the port's number.
//!
//! There is one connection per port, made when the session begins.

use bytes::{Bytes, BytesMut};
use futures::future;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::forward::Pod;
use super::upgrade::Io;
use super::websocket::{self, Outgoing, Protocol};
use super::{INPUT_PIECES, OUTPUT_PIECES, PIECE_BYTES};

/// Channels are numbered by one byte, of which 255 has a meaning of its own.
pub(super) const MAX_PORTS: usize = 127;

pub(super) async fn serve(io: Io, protocol: Protocol, pod: Pod, ports: Vec<u16>) {
    let socket = websocket::open(io).await;
    let (out, outgoing) = mpsc::channel(OUTPUT_PIECES);
    let mut inputs = Vec::new();
    let mut connections = Vec::new();
    for (number, port) in (0_u8..).step_by(2).zip(ports) {
        let (sender, input) = mpsc::channel(INPUT_PIECES);
        inputs.extend([Some(sender), None]);
        connections.push(forward(number, port, pod.clone(), input, out.clone()));
    }
    drop(out);
    tokio::select! {
        // Ends when all connections have, or the client leaves.
        () = websocket::carry(socket, protocol, inputs, outgoing) => {}
        () = async { future::join_all(connections).await; future::pending().await } => {}
    }
}

async fn forward(
    data: u8,
    port: u16,
    pod: Pod,
    mut input: mpsc::Receiver<Bytes>,
    out: mpsc::Sender<Outgoing>,
) {
    let error = data.saturating_add(1);
    let send =
        async |channel: u8, bytes: Bytes| out.send(Outgoing { channel, bytes }).await.is_ok();
    for channel in [data, error] {
        if !send(channel, Bytes::copy_from_slice(&port.to_le_bytes())).await {
            return;
        }
    }
    let connection = match pod.connect(port).await {
        Ok(connection) => connection,
        Err(message) => {
            send(error, Bytes::from(message)).await;
            return;
        }
    };
    let (mut read, mut write) = tokio::io::split(connection);
    let upload = async {
        while let Some(bytes) = input.recv().await {
            if write.write_all(&bytes).await.is_err() || write.flush().await.is_err() {
                break;
            }
        }
        // The client has no way to end one direction: it leaves, or stays.
        future::pending::<()>().await;
    };
    let download = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(PIECE_BYTES);
            match read.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if !send(data, buffer.split().freeze()).await {
                return;
            }
        }
    };
    tokio::select! {
        () = upload => {}
        () = download => {}
    }
}
