//! Tables of frames and bytes, and laws over random ones.

use bytes::Bytes;
use proptest::prelude::*;

use crate::dictionary::DICTIONARY;
use crate::{
    DecodeError, Decoder, Encoder, Frame, GoAwayStatus, Headers, MAX_CONTROL_BYTES,
    MAX_HEADER_BYTES, ResetStatus, Setting, Windows,
};

fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn encode(frames: &[Frame]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let mut out = Vec::new();
    for frame in frames {
        encoder.encode(frame, &mut out).unwrap();
    }
    out
}

/// All frames of these bytes, with the pieces of each data frame joined.
fn decode(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, DecodeError> {
    let mut decoder = Decoder::default();
    let mut frames: Vec<Frame> = Vec::new();
    let mut open = false;
    for chunk in bytes.chunks(piece.max(1)) {
        decoder.push(chunk);
        while let Some(frame) = decoder.next_frame()? {
            match (frames.last_mut(), frame) {
                (
                    Some(Frame::Data {
                        fin, bytes: known, ..
                    }),
                    Frame::Data {
                        fin: last, bytes, ..
                    },
                ) if open => {
                    *known = Bytes::from([known.as_ref(), bytes.as_ref()].concat());
                    *fin = last;
                }
                (_, frame) => frames.push(frame),
            }
            open = decoder.data_is_open();
        }
    }
    Ok(frames)
}

#[test]
fn the_dictionary_is_that_of_the_protocol() {
    assert_eq!(DICTIONARY.len(), 1423);
    // The identifier that zlib puts before each first block: its Adler-32.
    let (mut low, mut high) = (1_u32, 0_u32);
    for byte in DICTIONARY.iter() {
        low = (low + u32::from(*byte)) % 65_521;
        high = (high + low) % 65_521;
    }
    assert_eq!(high << 16 | low, 0xe3c6_a7c2);
}

#[test]
fn frames_have_the_bytes_of_the_protocol() {
    let cases: [(Frame, &[u8]); 6] = [
        (
            Frame::Data {
                stream: 5,
                fin: true,
                bytes: Bytes::from_static(b"hi"),
            },
            b"\0\0\0\x05\x01\0\0\x02hi",
        ),
        (Frame::Ping(7), b"\x80\x03\0\x06\0\0\0\x04\0\0\0\x07"),
        (
            Frame::Reset {
                stream: 3,
                status: ResetStatus::CANCEL,
            },
            b"\x80\x03\0\x03\0\0\0\x08\0\0\0\x03\0\0\0\x05",
        ),
        (
            Frame::GoAway {
                last: 9,
                status: GoAwayStatus::OK,
            },
            b"\x80\x03\0\x07\0\0\0\x08\0\0\0\x09\0\0\0\0",
        ),
        (
            Frame::WindowUpdate {
                stream: 1,
                delta: 256,
            },
            b"\x80\x03\0\x09\0\0\0\x08\0\0\0\x01\0\0\x01\0",
        ),
        (
            Frame::Settings(vec![Setting {
                flags: 1,
                id: Setting::INITIAL_WINDOW_SIZE,
                value: 65_536,
            }]),
            b"\x80\x03\0\x04\0\0\0\x0c\0\0\0\x01\x01\0\0\x07\0\x01\0\0",
        ),
    ];
    for (frame, bytes) in cases {
        assert_eq!(encode(std::slice::from_ref(&frame)), bytes, "{frame:?}");
        for piece in [1, 3, 100] {
            assert_eq!(decode(bytes, piece).unwrap(), std::slice::from_ref(&frame));
        }
    }
}

#[test]
fn header_blocks_share_their_state_and_begin_with_the_dictionary() {
    let frame = |stream| Frame::SynStream {
        stream,
        fin: false,
        unidirectional: false,
        headers: headers(&[("port", "80"), ("requestid", "0"), ("streamtype", "data")]),
    };
    let first = encode(&[frame(1)]);
    let both = encode(&[frame(1), frame(3)]);
    assert_eq!(first.get(18..24).unwrap(), b"\x78\xbb\xe3\xc6\xa7\xc2");
    assert!(both.len() < 2 * first.len());
    assert_eq!(decode(&both, 7).unwrap(), [frame(1), frame(3)]);
}

/// SYN_STREAM as another implementation (Go's zlib, which stores short blocks
/// differently) writes it: the block is a zlib stream with a preset dictionary.
#[test]
fn a_stored_block_is_read() {
    let plain = b"\0\0\0\x01\0\0\0\x0astreamtype\0\0\0\x05stdin";
    let mut block = b"\x78\xbb\xe3\xc6\xa7\xc2\x00".to_vec();
    let length = u16::try_from(plain.len()).unwrap();
    block.extend_from_slice(&length.to_le_bytes());
    block.extend_from_slice(&(!length).to_le_bytes());
    block.extend_from_slice(plain);
    let mut bytes = b"\x80\x03\0\x01\0\0\0".to_vec();
    bytes.push(u8::try_from(10 + block.len()).unwrap());
    bytes.extend_from_slice(b"\0\0\0\x01\0\0\0\0\0\0");
    bytes.extend_from_slice(&block);
    let expected = Frame::SynStream {
        stream: 1,
        fin: false,
        unidirectional: false,
        headers: headers(&[("streamtype", "stdin")]),
    };
    assert_eq!(decode(&bytes, 1).unwrap(), [expected]);
}

#[test]
fn broken_bytes_are_refused_and_stay_refused() {
    let cases: [(&[u8], DecodeError); 7] = [
        (b"GET / HTTP/1.1\r\n", DecodeError::ZeroStream(0)),
        (
            b"\x80\x02\0\x06\0\0\0\x04\0\0\0\x07",
            DecodeError::Version(2),
        ),
        (
            b"\x80\x03\0\x06\0\0\0\x05\0\0\0\x07\0",
            DecodeError::Length { kind: 6, length: 5 },
        ),
        (
            b"\x80\x03\0\x01\0\xff\xff\xff",
            DecodeError::TooLong(0xff_ffff),
        ),
        (
            b"\x80\x03\0\x03\0\0\0\x08\0\0\0\0\0\0\0\x05",
            DecodeError::ZeroStream(3),
        ),
        (
            b"\x80\x03\0\x02\0\0\0\x06\0\0\0\x01zz",
            DecodeError::Headers("its compression is broken"),
        ),
        (
            b"\x80\x03\0\x04\0\0\0\x08\0\0\0\x02\0\0\0\0",
            DecodeError::Length { kind: 4, length: 8 },
        ),
    ];
    for (bytes, error) in cases {
        let mut decoder = Decoder::default();
        decoder.push(bytes);
        if bytes.first() == Some(&b'G') {
            // A request is a data frame of an absurd stream: harmless, never ends.
            assert!(decoder.next_frame().is_ok());
            continue;
        }
        assert_eq!(decoder.next_frame(), Err(error), "{bytes:?}");
        decoder.push(b"\x80\x03\0\x06\0\0\0\x04\0\0\0\x07");
        assert_eq!(decoder.next_frame(), Err(error), "{bytes:?}");
    }
}

#[test]
fn unknown_control_frames_are_skipped() {
    let bytes = b"\x80\x03\0\x63\0\0\0\x01x\x80\x03\0\x06\0\0\0\x04\0\0\0\x02";
    assert_eq!(decode(bytes, 2).unwrap(), [Frame::Ping(2)]);
}

#[test]
fn a_bomb_of_headers_is_refused() {
    let value = "a".repeat(MAX_HEADER_BYTES + 1);
    let bytes = encode(&[Frame::SynStream {
        stream: 1,
        fin: false,
        unidirectional: false,
        headers: headers(&[("x", &value)]),
    }]);
    assert!(bytes.len() < MAX_CONTROL_BYTES / 100);
    let error = DecodeError::Headers("it is too long");
    assert_eq!(decode(&bytes, usize::MAX), Err(error));
}

#[test]
fn windows_hold_only_those_who_take_part() {
    let mut windows = Windows::default();
    windows.open(1);
    assert_eq!(windows.take(1, 1 << 20), Some(1 << 20));
    assert_eq!(windows.consume(1, 1 << 20), []);
    assert_eq!(windows.take(3, 1), None);

    let mut windows = Windows::default();
    assert!(windows.received(&Frame::Settings(Vec::new())));
    windows.open(1);
    windows.open(3);
    assert_eq!(windows.take(1, 1 << 20), Some(65_536));
    // The connection's window is used up.
    assert_eq!(windows.take(3, 10), Some(0));
    assert!(windows.received(&Frame::WindowUpdate {
        stream: 0,
        delta: 5
    }));
    assert_eq!(windows.take(1, 10), Some(0));
    assert_eq!(windows.take(3, 10), Some(5));
    assert_eq!(windows.consume(3, 10), []);
    let update = |stream| Frame::WindowUpdate {
        stream,
        delta: 40_010,
    };
    assert_eq!(windows.consume(3, 40_000), [update(3), update(0)]);
    windows.close(3);
    assert_eq!(windows.take(3, 10), None);
}

#[test]
fn a_changed_initial_window_changes_open_streams() {
    let mut windows = Windows::default();
    windows.open(1);
    let settings = Frame::Settings(vec![Setting {
        flags: 0,
        id: Setting::INITIAL_WINDOW_SIZE,
        value: 10,
    }]);
    assert!(windows.received(&settings));
    assert_eq!(windows.take(1, 100), Some(10));
}

fn any_headers() -> impl Strategy<Value = Headers> {
    let pair = ("[a-z-]{1,12}", "[ -~]{0,20}");
    proptest::collection::btree_map(pair.0, pair.1, 0..5)
        .prop_map(|pairs| pairs.into_iter().collect())
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let stream = 1_u32..0x8000_0000;
    prop_oneof![
        (stream.clone(), any::<bool>(), any::<bool>(), any_headers()).prop_map(
            |(stream, fin, unidirectional, headers)| Frame::SynStream {
                stream,
                fin,
                unidirectional,
                headers
            }
        ),
        (stream.clone(), any::<bool>(), any_headers()).prop_map(|(stream, fin, headers)| {
            Frame::SynReply {
                stream,
                fin,
                headers,
            }
        }),
        (
            stream.clone(),
            any::<bool>(),
            proptest::collection::vec(any::<u8>(), 0..300)
        )
            .prop_map(|(stream, fin, bytes)| Frame::Data {
                stream,
                fin,
                bytes: bytes.into()
            }),
        (stream.clone(), any::<u32>()).prop_map(|(stream, status)| Frame::Reset {
            stream,
            status: ResetStatus(status)
        }),
        any::<u32>().prop_map(Frame::Ping),
        (stream, 0_u32..0x8000_0000)
            .prop_map(|(stream, delta)| Frame::WindowUpdate { stream, delta }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_whatever_the_pieces(
        frames in proptest::collection::vec(any_frame(), 0..12),
        piece in 1_usize..400,
    ) {
        prop_assert_eq!(decode(&encode(&frames), piece).unwrap(), frames);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        piece in 1_usize..64,
    ) {
        drop(decode(&bytes, piece));
    }

    #[test]
    fn no_damage_makes_the_decoder_panic(
        frames in proptest::collection::vec(any_frame(), 1..6),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = encode(&frames);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        drop(decode(&bytes, 50));
    }
}
