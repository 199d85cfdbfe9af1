//! Channels over a WebSocket: each message begins with the number of its
//! channel.
//!
//! The subprotocols, as Kubernetes has them: none, `channel.k8s.io` and
//! `v4.channel.k8s.io` carry bytes, the `base64.` ones text; v4 says how the
//! process ended as JSON; v5 adds a message `255, n` that closes channel n, which
//! is how the end of the input is told.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::upgrade::Io;
use super::{FINISH_TIMEOUT, PIECE_BYTES};

/// Longest message of a client: the limit of Kubernetes' library. Some clients
/// send all of their input as one.
const MAX_MESSAGE_BYTES: usize = 32 << 20;
/// The channel of which the message names another to close.
const CLOSE_CHANNEL: u8 = 255;

/// How long a client of v5 may take to answer the first ping.
const PONG_TIMEOUT: Duration = Duration::from_secs(5);
/// The same of others: some never do.
const PONG_TIMEOUT_OTHERS: Duration = Duration::from_millis(200);
/// What a client that reads is given to make its streams.
const SETTLING: Duration = Duration::from_millis(25);

pub(super) type Socket = WebSocketStream<Io>;

/// A subprotocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Protocol {
    pub(super) name: &'static str,
    base64: bool,
    closes_channels: bool,
}

const fn protocol(name: &'static str, base64: bool, closes_channels: bool) -> Protocol {
    Protocol {
        name,
        base64,
        closes_channels,
    }
}

pub(super) const V5: Protocol = protocol("v5.channel.k8s.io", false, true);
pub(super) const V4: Protocol = protocol("v4.channel.k8s.io", false, false);
pub(super) const V4_BASE64: Protocol = protocol("v4.base64.channel.k8s.io", true, false);
pub(super) const V1: Protocol = protocol("channel.k8s.io", false, false);
pub(super) const V1_BASE64: Protocol = protocol("base64.channel.k8s.io", true, false);
pub(super) const NONE: Protocol = protocol("", false, false);

/// The first of the client's protocols that is among ours.
pub(super) fn choose(offered: &[String], ours: &[Protocol]) -> Option<Protocol> {
    let find = |name: &str| ours.iter().copied().find(|own| own.name == name);
    if offered.is_empty() {
        return find("");
    }
    offered.iter().find_map(|name| find(name))
}

/// The socket after the upgrade.
pub(super) async fn open(io: Io) -> Socket {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// Messages for the client.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) channel: u8,
    pub(super) bytes: Bytes,
}

/// Carry messages until one side ends. `inputs` are the channels that the client
/// may write to, by number. When `out` is closed, so is the socket, in peace;
/// when the client has left, this returns before.
pub(super) async fn carry(
    socket: Socket,
    protocol: Protocol,
    inputs: Vec<Option<mpsc::Sender<Bytes>>>,
    out: mpsc::Receiver<Outgoing>,
) {
    let (sink, stream) = socket.split();
    let reads = Notify::new();
    let mut receiving = std::pin::pin!(receive(stream, protocol, inputs, &reads));
    let sent = tokio::select! {
        () = &mut receiving => return,
        sent = send(sink, protocol, out, &reads) => sent,
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "a client left");
        return;
    }
    // Closing at once could reset the connection under output that the client
    // has not read; it answers our close when it has.
    if tokio::time::timeout(FINISH_TIMEOUT, receiving)
        .await
        .is_err()
    {
        tracing::debug!("a client did not close its session");
    }
}

async fn send(
    mut sink: SplitSink<Socket, Message>,
    protocol: Protocol,
    mut out: mpsc::Receiver<Outgoing>,
    reads: &Notify,
) -> Result<(), Error> {
    let patience = if protocol == V5 {
        PONG_TIMEOUT
    } else {
        PONG_TIMEOUT_OTHERS
    };
    settle(&mut sink, reads, patience).await?;
    while let Some(outgoing) = out.recv().await {
        sink.feed(encode(protocol, &outgoing)).await?;
        if out.is_empty() {
            sink.flush().await?;
        }
    }
    let close = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    sink.send(Message::Close(Some(close))).await
}

/// Waits until the client reads. client-go begins to read before it has made its
/// streams, and throws away what comes for one that it has not made yet; a
/// container of a cluster never is so quick that anybody noticed.
async fn settle(
    sink: &mut SplitSink<Socket, Message>,
    reads: &Notify,
    patience: Duration,
) -> Result<(), Error> {
    sink.send(Message::Ping(Bytes::new())).await?;
    let read = tokio::time::timeout(patience, reads.notified());
    if read.await.is_ok() {
        tokio::time::sleep(SETTLING).await;
    }
    Ok(())
}

fn encode(protocol: Protocol, outgoing: &Outgoing) -> Message {
    let Outgoing { channel, bytes } = outgoing;
    if protocol.base64 {
        let mut text = char::from(b'0'.saturating_add(*channel)).to_string();
        STANDARD.encode_string(bytes, &mut text);
        return Message::text(text);
    }
    let mut message = BytesMut::with_capacity(bytes.len() + 1);
    message.extend_from_slice(&[*channel]);
    message.extend_from_slice(bytes);
    Message::Binary(message.freeze())
}

/// Until the client closes or leaves. A channel that is full holds the others
/// up: a WebSocket has one order for all.
async fn receive(
    mut stream: SplitStream<Socket>,
    protocol: Protocol,
    mut inputs: Vec<Option<mpsc::Sender<Bytes>>>,
    reads: &Notify,
) {
    while let Some(message) = stream.next().await {
        let message = match message {
            Ok(Message::Binary(bytes)) => bytes,
            Ok(Message::Text(text)) => Bytes::from(text),
            // Pings are answered by the library; a close too, on the next turn.
            Ok(Message::Ping(_) | Message::Close(_) | Message::Frame(_)) => continue,
            Ok(Message::Pong(_)) => {
                reads.notify_one();
                continue;
            }
            Err(error) => {
                tracing::debug!(%error, "a session ended");
                return;
            }
        };
        match decode(protocol, message) {
            Some(Incoming::Data(channel, mut bytes)) => {
                // In pieces, so that a queue of them has a bound in bytes too.
                while !bytes.is_empty()
                    && let Some(place) = inputs.get_mut(usize::from(channel))
                    && let Some(input) = place
                {
                    let piece = bytes.split_to(bytes.len().min(PIECE_BYTES));
                    if input.send(piece).await.is_err() {
                        // Nobody reads it any more.
                        *place = None;
                    }
                }
            }
            Some(Incoming::Close(channel)) => {
                if let Some(place) = inputs.get_mut(usize::from(channel)) {
                    *place = None;
                }
            }
            None => {}
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Incoming {
    Data(u8, Bytes),
    Close(u8),
}

fn decode(protocol: Protocol, mut message: Bytes) -> Option<Incoming> {
    let channel = *message.first()?;
    let bytes = message.split_off(1);
    if protocol.closes_channels && channel == CLOSE_CHANNEL {
        return match bytes.as_ref() {
            [channel] => Some(Incoming::Close(*channel)),
            _ => None,
        };
    }
    if !protocol.base64 {
        return Some(Incoming::Data(channel, bytes));
    }
    let channel = channel.checked_sub(b'0')?;
    let bytes = STANDARD.decode(bytes).ok()?;
    Some(Incoming::Data(channel, bytes.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_favourite_subprotocol_wins() {
        let ours = [NONE, V1, V4];
        let offer = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            choose(&names, &ours).map(|protocol| protocol.name)
        };
        assert_eq!(offer(&[]), Some(""));
        assert_eq!(
            offer(&["v5.channel.k8s.io", "v4.channel.k8s.io"]),
            Some(V4.name)
        );
        assert_eq!(
            offer(&["channel.k8s.io", "v4.channel.k8s.io"]),
            Some(V1.name)
        );
        assert_eq!(offer(&["x"]), None);
    }

    #[test]
    fn messages_of_each_protocol() {
        let data = |channel, bytes: &'static [u8]| Some(Incoming::Data(channel, bytes.into()));
        let read = |protocol, bytes: &'static [u8]| decode(protocol, Bytes::from_static(bytes));
        assert_eq!(read(V4, b"\0hi"), data(0, b"hi"));
        assert_eq!(read(V4, b"\xff\0"), data(255, b"\0"));
        assert_eq!(read(V5, b"\xff\0"), Some(Incoming::Close(0)));
        assert_eq!(read(V5, b"\xff"), None);
        assert_eq!(read(V5, b""), None);
        assert_eq!(read(V4_BASE64, b"0aGk="), data(0, b"hi"));
        assert_eq!(read(V4_BASE64, b"0!"), None);
        assert_eq!(read(V4_BASE64, b"\x01aGk="), None);
        let outgoing = Outgoing {
            channel: 1,
            bytes: Bytes::from_static(b"hi"),
        };
        assert_eq!(encode(V4, &outgoing), Message::binary(b"\x01hi".to_vec()));
        assert_eq!(encode(V1_BASE64, &outgoing), Message::text("1aGk="));
    }
}
