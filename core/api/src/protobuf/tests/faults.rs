//! Bodies that are not what they should be.

use super::{TypeMeta, Unknown, body, core, decode, deployment, meta, text};
use proptest::prelude::*;
use prost::Message;
use serde_json::json;

#[test]
fn a_message_in_pieces_is_put_together_and_unknown_fields_are_skipped() {
    let piece = |name: Option<String>, namespace: Option<String>| core::Namespace {
        metadata: Some(meta::ObjectMeta {
            name,
            namespace,
            ..meta::ObjectMeta::default()
        }),
        ..core::Namespace::default()
    };
    let mut raw = piece(text("a"), None).encode_to_vec();
    raw.extend(piece(None, text("b")).encode_to_vec());
    // Field 1000 of each wire type that a newer client might send.
    raw.extend([0xc0, 0x3e, 1, 0xc2, 0x3e, 1, b'x', 0xc5, 0x3e, 1, 2, 3, 4]);
    let unknown = Unknown {
        type_meta: Some(TypeMeta {
            api_version: text("v1"),
            kind: text("Namespace"),
        }),
        raw: Some(raw),
        ..Unknown::default()
    };
    let bytes = [b"k8s\0".as_slice(), &unknown.encode_to_vec()].concat();
    let expected = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "namespace": "b"},
    });
    assert_eq!(decode(&bytes), Ok(expected));
}

#[test]
fn what_is_wrong_with_a_body_is_said() {
    let far = core::Event {
        last_timestamp: Some(meta::Time {
            seconds: Some(i64::MAX),
            nanos: None,
        }),
        ..core::Event::default()
    };
    // A Namespace whose metadata is a number, and one whose name is not UTF-8.
    let raw = |raw: &[u8]| {
        let name = [
            b"\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12".as_slice(),
            &[raw.len() as u8],
            raw,
        ];
        [b"k8s\0".as_slice(), &name.concat()].concat()
    };
    let cases = [
        (
            b"{}".to_vec(),
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
        ),
        (
            b"k8s\0".to_vec(),
            r#"no kind "" is registered for version "" in protobuf"#,
        ),
        (
            body("apps/v1", "Foo", &far),
            r#"no kind "Foo" is registered for version "apps/v1" in protobuf"#,
        ),
        (
            b"k8s\0\x0a\x0f\x0a".to_vec(),
            "proto: runtime.Unknown: unexpected EOF",
        ),
        (
            body("v1", "Event", &far),
            "proto: core.v1.Event.lastTimestamp: 9223372036854775807 seconds are beyond the years 1 to 9999",
        ),
        (
            raw(b"\x08\x01"),
            "proto: core.v1.Namespace: wrong wireType for field metadata",
        ),
        (
            raw(b"\x0a\x03\x0a\x01\xff"),
            "proto: meta.v1.ObjectMeta: invalid UTF-8",
        ),
        (
            raw(b"\x0a\x03\x0a\x02a"),
            "proto: meta.v1.ObjectMeta: unexpected EOF",
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(decode(&bytes).unwrap_err().to_string(), expected);
    }
}

#[test]
fn no_beginning_of_a_body_is_a_body() {
    let whole = body("apps/v1", "Deployment", &deployment());
    let object = decode(&whole).unwrap();
    for length in 0..whole.len() {
        // An ending that falls between two fields is one that protobuf cannot see.
        if let Ok(found) = decode(&whole[..length]) {
            let spec = found.get("spec").is_some();
            assert!(found == object || !spec, "{length}");
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let framed = [b"k8s\0".as_slice(), &bytes].concat();
        prop_assert!(decode(&bytes).is_err());
        drop(decode(&framed));
    }

    #[test]
    fn damaged_bodies_never_panic(
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        length in any::<prop::sample::Index>(),
    ) {
        let mut bytes = body("apps/v1", "Deployment", &deployment());
        let place = place.index(bytes.len());
        bytes[place] = byte;
        drop(decode(&bytes));
        bytes.truncate(length.index(bytes.len()));
        drop(decode(&bytes));
    }
}
