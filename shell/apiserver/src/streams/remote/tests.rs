//! Exec over SPDY with a client written by hand: what no kubectl of today sends.

use futures::FutureExt as _;
use portolan_spdy::{
    Decoder, Encoder, Frame, GoAwayStatus, Headers, ResetStatus, Setting, StreamId,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;
use crate::pods::Exit;

/// A client at the other end of a connection.
struct Client {
    io: DuplexStream,
    encoder: Encoder,
    decoder: Decoder,
}

impl Client {
    async fn send(&mut self, frame: Frame) {
        let mut bytes = Vec::new();
        self.encoder.encode(&frame, &mut bytes).unwrap();
        self.io.write_all(&bytes).await.unwrap();
    }

    async fn open(&mut self, stream: StreamId, kind: &str) {
        let headers: Headers = vec![("streamtype".to_owned(), kind.to_owned())];
        self.send(Frame::SynStream {
            stream,
            fin: false,
            unidirectional: false,
            headers,
        })
        .await;
    }

    /// The next frame, `None` at the end.
    async fn next(&mut self) -> Option<Frame> {
        let reading = async {
            loop {
                if let Some(frame) = self.decoder.next_frame().unwrap() {
                    return Some(frame);
                }
                let mut bytes = [0; 1000];
                let read = self.io.read(&mut bytes).await.unwrap_or(0);
                if read == 0 {
                    return None;
                }
                self.decoder.push(&bytes[..read]);
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), reading)
            .await
            .expect("no frame came")
    }
}

fn data(stream: StreamId, fin: bool, text: &str) -> Frame {
    Frame::Data {
        stream,
        fin,
        bytes: Bytes::from(text.to_owned()),
    }
}

fn reply(stream: StreamId) -> Frame {
    Frame::SynReply {
        stream,
        fin: false,
        headers: Headers::new(),
    }
}

/// A session with a process that prints `output` and ends with `code`.
fn session(protocol: &str, output: &str, code: i32) -> Client {
    let streams = Streams {
        stdout: true,
        ..Streams::default()
    };
    let printed = std::io::Cursor::new(output.to_owned().into_bytes());
    let process = Process {
        stdin: None,
        stdout: Some(Box::new(printed)),
        stderr: None,
        resize: None,
        exit: async move { Ok(Exit { code }) }.boxed(),
    };
    let purpose = Purpose::Exec {
        command: vec!["x".to_owned()],
    };
    let (io, server) = tokio::io::duplex(1 << 20);
    tokio::spawn(over_spdy(
        server,
        protocol.to_owned(),
        streams,
        purpose,
        Ok(process),
    ));
    Client {
        io,
        encoder: Encoder::default(),
        decoder: Decoder::default(),
    }
}

#[tokio::test]
async fn old_protocols_are_told_the_end_as_text() {
    for (protocol, code, expected) in [
        ("v2.channel.k8s.io", 0, None),
        (
            "channel.k8s.io",
            9,
            Some(
                "command terminated with non-zero exit code: error executing command [x], exit code 9",
            ),
        ),
        (
            "v4.channel.k8s.io",
            0,
            Some(r#"{"metadata":{},"status":"Success"}"#),
        ),
    ] {
        let mut client = session(protocol, "hi", code);
        client.open(1, "error").await;
        assert_eq!(client.next().await, Some(reply(1)));
        client.open(3, "stdout").await;
        assert_eq!(client.next().await, Some(reply(3)));
        assert_eq!(client.next().await, Some(data(3, false, "hi")));
        assert_eq!(client.next().await, Some(data(3, true, "")));
        if let Some(expected) = expected {
            assert_eq!(client.next().await, Some(data(1, false, expected)));
        }
        assert_eq!(client.next().await, Some(data(1, true, "")));
    }
}

#[tokio::test]
async fn streams_that_make_no_sense_are_reset() {
    let mut client = session("v4.channel.k8s.io", "", 0);
    let reset = |stream, status| Some(Frame::Reset { stream, status });
    client.open(2, "error").await;
    assert_eq!(client.next().await, reset(2, ResetStatus::PROTOCOL_ERROR));
    client.open(5, "what").await;
    assert_eq!(client.next().await, Some(reply(5)));
    assert_eq!(client.next().await, reset(5, ResetStatus::CANCEL));
    client.open(5, "error").await;
    assert_eq!(client.next().await, reset(5, ResetStatus::PROTOCOL_ERROR));
    client.send(Frame::Ping(7)).await;
    assert_eq!(client.next().await, Some(Frame::Ping(7)));
    // Neither an answer to a ping of ours nor data for nobody ends anything.
    client.send(Frame::Ping(2)).await;
    client.send(data(99, true, "what")).await;
    client.send(Frame::Ping(9)).await;
    assert_eq!(client.next().await, Some(Frame::Ping(9)));
}

#[tokio::test]
async fn who_breaks_the_protocol_is_sent_away() {
    let mut client = session("v4.channel.k8s.io", "", 0);
    client.open(1, "error").await;
    assert_eq!(client.next().await, Some(reply(1)));
    client
        .io
        .write_all(b"\x80\x02\0\x01\0\0\0\0")
        .await
        .unwrap();
    let away = Frame::GoAway {
        last: 1,
        status: GoAwayStatus::PROTOCOL_ERROR,
    };
    assert_eq!(client.next().await, Some(away));
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn a_peer_with_windows_is_not_overrun() {
    let mut client = session("v4.channel.k8s.io", "0123456789", 0);
    let settings = Setting {
        flags: 0,
        id: Setting::INITIAL_WINDOW_SIZE,
        value: 4,
    };
    client.send(Frame::Settings(vec![settings])).await;
    client.open(1, "error").await;
    assert_eq!(client.next().await, Some(reply(1)));
    client.open(3, "stdout").await;
    assert_eq!(client.next().await, Some(reply(3)));
    assert_eq!(client.next().await, Some(data(3, false, "0123")));
    client.send(Frame::Ping(1)).await;
    assert_eq!(client.next().await, Some(Frame::Ping(1)));
    client
        .send(Frame::WindowUpdate {
            stream: 3,
            delta: 5,
        })
        .await;
    assert_eq!(client.next().await, Some(data(3, false, "45678")));
    // A stream that the client does not want any more holds nothing up.
    client
        .send(Frame::Reset {
            stream: 3,
            status: ResetStatus::CANCEL,
        })
        .await;
    client
        .send(Frame::WindowUpdate {
            stream: 1,
            delta: 100,
        })
        .await;
    let mut rest = Vec::new();
    while let Some(Frame::Data { stream, fin, bytes }) = client.next().await {
        assert_eq!(stream, 1);
        rest.extend_from_slice(&bytes);
        if fin {
            break;
        }
    }
    assert_eq!(rest, br#"{"metadata":{},"status":"Success"}"#);
}
