//! `pods/NAME/exec` and `pods/NAME/attach`.
//!
//! The process is asked for before the connection is upgraded, so that "there is
//! no such container" can still be an HTTP answer, as it is on a cluster. A
//! client of v5 is told everything on the error channel instead, since there the
//! API server upgrades first and asks the kubelet then.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::bridge::{self, Channel, Ends, Piece, Purpose, Source};
use super::pod::{self, Parameters};
use super::refused::Refused;
use super::spdy::{self, Arrivals, Stream};
use super::status::Format;
use super::upgrade::{self, Io, Offer};
use super::websocket::{self, Outgoing, Protocol};
use super::{FINISH_TIMEOUT, INPUT_PIECES, OUTPUT_PIECES, Request, STREAM_CREATION_TIMEOUT};
use crate::answer::Answer;
use crate::pods::{AttachRequest, ExecRequest, Process, StreamError, Streams};

/// Versions of the stream protocol over SPDY, in the order of the kubelet.
const SPDY_PROTOCOLS: [&str; 4] = [
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
];
/// Subprotocols of the kubelet. v5 is apart: who offers it gets it or nothing.
const PROTOCOLS: [Protocol; 5] = [
    websocket::NONE,
    websocket::V1,
    websocket::V1_BASE64,
    websocket::V4,
    websocket::V4_BASE64,
];

pub(super) async fn exec(request: Request) -> Result<Answer, Refused> {
    let parameters = parameters(&request);
    let target = pod::target(&pod::named(&request)?, &parameters.container)?;
    let backend = pod::backend(&request)?;
    let speech = speech(&request)?;
    let streams = parameters.checked_streams()?;
    let command = parameters.command;
    let purpose = Purpose::Exec {
        command: command.clone(),
    };
    let process = if command.is_empty() {
        let message = "you must specify at least one command for the container";
        Err(StreamError::BadRequest(message.to_owned()))
    } else {
        let exec = ExecRequest {
            target,
            command,
            streams,
        };
        backend.exec(exec).await
    };
    serve(request, speech, streams, purpose, process)
}

pub(super) async fn attach(request: Request) -> Result<Answer, Refused> {
    let parameters = parameters(&request);
    let target = pod::target(&pod::named(&request)?, &parameters.container)?;
    let backend = pod::backend(&request)?;
    let speech = speech(&request)?;
    let streams = parameters.checked_streams()?;
    let process = backend.attach(AttachRequest { target, streams }).await;
    serve(request, speech, streams, Purpose::Attach, process)
}

fn parameters(request: &Request) -> Parameters {
    Parameters::read(request.parts.uri.query().unwrap_or_default())
}

/// What the session speaks.
enum Speech {
    WebSocket { accept: String, protocol: Protocol },
    Spdy { protocol: String },
}

fn speech(request: &Request) -> Result<Speech, Refused> {
    match upgrade::offer(request)? {
        Offer::WebSocket { accept, protocols } => {
            let v5 = websocket::choose(&protocols, &[websocket::V5]);
            let protocol = v5
                .or_else(|| websocket::choose(&protocols, &PROTOCOLS))
                .ok_or_else(upgrade::no_subprotocol)?;
            Ok(Speech::WebSocket { accept, protocol })
        }
        Offer::Spdy => {
            let protocol = upgrade::stream_protocol(&request.parts.headers, &SPDY_PROTOCOLS)?;
            Ok(Speech::Spdy { protocol })
        }
    }
}

fn serve(
    mut request: Request,
    speech: Speech,
    streams: Streams,
    purpose: Purpose,
    process: Result<Process, StreamError>,
) -> Result<Answer, Refused> {
    let translated =
        matches!(&speech, Speech::WebSocket { protocol, .. } if *protocol == websocket::V5);
    let process = match process {
        Ok(process) => Ok(process),
        Err(error @ StreamError::Internal(_)) => Err(bridge::failure(&error, &purpose)),
        Err(error) if translated => Err(format!("unable to upgrade connection: {error}")),
        Err(error) => return Err(pod::missing(&error)),
    };
    match speech {
        Speech::WebSocket { accept, protocol } => {
            let answer = upgrade::websocket_answer(&accept, protocol.name);
            upgrade::start(&mut request, move |io| {
                over_websocket(io, protocol, streams, purpose, process)
            });
            Ok(answer)
        }
        Speech::Spdy { protocol } => {
            let answer = upgrade::spdy_answer(&protocol);
            upgrade::start(&mut request, move |io| {
                over_spdy(io, protocol, streams, purpose, process)
            });
            Ok(answer)
        }
    }
}

/// Numbers of the channels.
fn number(channel: Channel) -> u8 {
    match channel {
        Channel::Stdout => 1,
        Channel::Stderr => 2,
        Channel::Error => 3,
    }
}

async fn over_websocket(
    io: Io,
    protocol: Protocol,
    streams: Streams,
    purpose: Purpose,
    process: Result<Process, String>,
) {
    let format = match protocol {
        websocket::V5 => Format::JsonTranslated,
        websocket::V4 | websocket::V4_BASE64 => Format::Json,
        _ => Format::Text,
    };
    let socket = websocket::open(io).await;
    let (stdin_in, stdin) = input(streams.stdin);
    let (resize_in, resize) = input(true);
    let (messages, outgoing) = mpsc::channel(1);
    let (out, mut pieces) = mpsc::channel(OUTPUT_PIECES);
    let gone = CancellationToken::new();
    let ends = Ends {
        stdin,
        resize,
        out,
        gone: gone.clone(),
    };
    let forward = async move {
        // An empty message tells the client that the session stands.
        let first = if streams.stdout {
            Channel::Stdout
        } else if streams.stderr {
            Channel::Stderr
        } else {
            Channel::Error
        };
        let mut next = Some(Piece::Data(first, Bytes::new()));
        while let Some(piece) = next {
            // Channels are not closed one by one: the socket is.
            if let Piece::Data(channel, bytes) = piece {
                let channel = number(channel);
                if messages.send(Outgoing { channel, bytes }).await.is_err() {
                    break;
                }
            }
            next = pieces.recv().await;
        }
    };
    let inputs = vec![stdin_in, None, None, None, resize_in];
    let carry = async {
        websocket::carry(socket, protocol, inputs, outgoing).await;
        gone.cancel();
    };
    tokio::join!(carry, forward, bridge::run(process, ends, &purpose, format));
}

fn input(wanted: bool) -> (Option<mpsc::Sender<Bytes>>, Option<Source>) {
    if !wanted {
        return (None, None);
    }
    let (sender, receiver) = mpsc::channel(INPUT_PIECES);
    (Some(sender), Some(Source::Messages(receiver)))
}

async fn over_spdy<T>(
    io: T,
    protocol: String,
    streams: Streams,
    purpose: Purpose,
    process: Result<Process, String>,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let format = if protocol == "v4.channel.k8s.io" {
        Format::Json
    } else {
        Format::Text
    };
    let resizes = matches!(protocol.as_str(), "v4.channel.k8s.io" | "v3.channel.k8s.io");
    let (driver, arrivals) = spdy::connection(io);
    let gone = CancellationToken::new();
    let session = async {
        let wanted = Wanted {
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            resize: streams.tty && resizes,
        };
        let opened = tokio::time::timeout(STREAM_CREATION_TIMEOUT, wanted.wait(arrivals)).await;
        let Ok(Some(mut opened)) = opened else {
            tracing::debug!("timed out waiting for client to create streams");
            return;
        };
        let (out, pieces) = mpsc::channel(1);
        let (stdin, resize) = (opened.take_input("stdin"), opened.take_input("resize"));
        opened.streams.values_mut().for_each(Stream::ignore_input);
        let ends = Ends {
            stdin,
            resize,
            out,
            gone: gone.clone(),
        };
        tokio::join!(
            opened.send(pieces),
            bridge::run(process, ends, &purpose, format)
        );
        // The client closes when it has read everything.
        if tokio::time::timeout(FINISH_TIMEOUT, gone.cancelled())
            .await
            .is_err()
        {
            tracing::debug!("a client did not close its session");
        }
    };
    let driver = async {
        driver.run().await;
        gone.cancel();
    };
    // The session outlives the driver just long enough to notice.
    tokio::select! {
        () = session => {}
        () = async { driver.await; std::future::pending().await } => {}
    }
}

/// The streams that a request needs.
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    resize: bool,
}

impl Wanted {
    fn complete(&self, found: &BTreeMap<String, Stream>) -> bool {
        let has = |name: &str| found.contains_key(name);
        has("error")
            && (!self.stdin || has("stdin"))
            && (!self.stdout || has("stdout"))
            && (!self.stderr || has("stderr"))
            && (!self.resize || has("resize"))
    }

    /// Wait for the client to open them. What else it opens is reset.
    async fn wait(&self, mut arrivals: Arrivals) -> Option<Opened> {
        let mut found = BTreeMap::new();
        while !self.complete(&found) {
            let stream = arrivals.recv().await?;
            let name = stream.header("streamtype").to_owned();
            let known = matches!(
                name.as_str(),
                "error" | "stdin" | "stdout" | "stderr" | "resize"
            );
            if !known || found.contains_key(&name) {
                stream.output.reset().await;
                continue;
            }
            found.insert(name, stream);
        }
        Some(Opened {
            streams: found,
            _arrivals: arrivals,
        })
    }
}

struct Opened {
    streams: BTreeMap<String, Stream>,
    /// Kept, so that nothing more is accepted than what fits in.
    _arrivals: Arrivals,
}

impl Opened {
    fn take_input(&mut self, name: &str) -> Option<Source> {
        let stream = self.streams.remove(name)?;
        Some(Source::Stream(stream.input))
    }

    async fn send(&self, mut pieces: mpsc::Receiver<Piece>) {
        while let Some(piece) = pieces.recv().await {
            let (Piece::Data(channel, _) | Piece::End(channel)) = &piece;
            let name = match channel {
                Channel::Stdout => "stdout",
                Channel::Stderr => "stderr",
                Channel::Error => "error",
            };
            let Some(stream) = self.streams.get(name) else {
                continue;
            };
            match piece {
                Piece::Data(_, bytes) => {
                    if stream.output.write(bytes).await.is_err() {
                        tracing::trace!(name, "output for nobody");
                    }
                }
                Piece::End(_) => stream.output.finish().await,
            }
        }
    }
}

#[cfg(test)]
mod tests;
