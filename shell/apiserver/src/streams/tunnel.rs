//! SPDY inside WebSocket messages, for networks that know only the latter
//! (KEP-4006): the bytes of the SPDY connection, cut anywhere.

use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::tungstenite::Message;

use super::PIECE_BYTES;
use super::websocket::Socket;

/// What subprotocols of tunnels begin with.
pub(super) const PREFIX: &str = "SPDY/3.1+";

/// The inner connection, and the future that carries its bytes; it ends when
/// either side has.
pub(super) fn open(socket: Socket) -> (DuplexStream, impl Future<Output = ()>) {
    let (inner, outer) = tokio::io::duplex(PIECE_BYTES);
    (inner, carry(socket, outer))
}

async fn carry(socket: Socket, outer: DuplexStream) {
    let (mut sink, mut stream) = socket.split();
    let (mut read, mut write) = tokio::io::split(outer);
    let inward = async {
        while let Some(Ok(message)) = stream.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => Bytes::from(text),
                Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {
                    continue;
                }
            };
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    let outward = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(PIECE_BYTES);
            match read.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            let piece = Message::Binary(buffer.split().freeze());
            if sink.send(piece).await.is_err() {
                return;
            }
        }
        if let Err(error) = sink.close().await {
            tracing::debug!(%error, "a client left");
        }
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
}
