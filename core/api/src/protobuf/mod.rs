//! Reading objects in Kubernetes' protobuf form.
//!
//! kubectl's typed commands (`kubectl create deployment`, `create configmap`,
//! …) write protobuf whatever the server prefers, so a server must read it.
//! They read JSON, so it need not write it: there is no encoder here.
//!
//! A body is the bytes `k8s\0` and a `runtime.Unknown`, which holds apiVersion
//! and kind, and in `raw` the message of that kind. How a message becomes JSON
//! is said by the table `messages.txt`, which `cargo xtask codegen` writes: per
//! message the number, JSON name and type of each field. Everything follows
//! what Kubernetes' Go types do when they are read from protobuf and written as
//! JSON: fields that the table does not have are skipped, as a newer client's
//! are, and a zero that means "not set" is left out.

mod table;
mod value;
mod wire;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};
use wire::{Raw, Reader};

pub use value::ValueError;
pub use wire::WireError;

/// The media type of such bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What a body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// Why a body cannot be read; a server answers `BadRequest` with this text, so
/// each says its cause itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It does not begin with `k8s\0`.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    NotKubernetes,
    /// There is no message for this kind.
    #[error("no kind {kind:?} is registered for version {api_version:?} in protobuf")]
    UnknownKind {
        /// What the body says its version is.
        api_version: String,
        /// What the body says its kind is.
        kind: String,
    },
    /// The bytes are no protobuf.
    #[error("proto: {message}: {fault}")]
    Malformed {
        /// The message that was being read, `core.v1.ServiceSpec`.
        message: &'static str,
        /// What is wrong with it.
        fault: WireError,
    },
    /// A field holds what JSON cannot say.
    #[error("proto: {message}.{field}: {fault}")]
    Unfit {
        /// The message, `core.v1.Event`.
        message: &'static str,
        /// The field's JSON name.
        field: &'static str,
        /// What is wrong with it.
        fault: ValueError,
    },
    /// More messages in one another than any kind has.
    #[error("proto: messages are nested too deep")]
    TooDeep,
}

/// The object of a body, with `apiVersion` and `kind`.
pub fn decode(body: &[u8]) -> Result<Value, DecodeError> {
    let unknown = body.strip_prefix(MAGIC).ok_or(DecodeError::NotKubernetes)?;
    let (api_version, kind, raw) = envelope(unknown).map_err(|fault| DecodeError::Malformed {
        message: "runtime.Unknown",
        fault,
    })?;
    let Some(message) = table::message_of(api_version, kind) else {
        return Err(DecodeError::UnknownKind {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
        });
    };
    let mut object = Map::new();
    value::read_message(message, raw, &mut object, 0)?;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

/// apiVersion, kind and the object's bytes.
fn envelope(unknown: &[u8]) -> Result<(&str, &str, &[u8]), WireError> {
    let (mut type_meta, mut raw): (&[u8], &[u8]) = (&[], &[]);
    for field in Reader::new(unknown) {
        match field? {
            (1, Raw::Bytes(bytes)) => type_meta = bytes,
            (2, Raw::Bytes(bytes)) => raw = bytes,
            // Encoding and media type, which clients leave empty.
            (_, Raw::Bytes(_) | Raw::Number(_) | Raw::Fixed) => {}
        }
    }
    let (mut api_version, mut kind) = ("", "");
    for field in Reader::new(type_meta) {
        match field? {
            (1, Raw::Bytes(bytes)) => api_version = wire::text(bytes)?,
            (2, Raw::Bytes(bytes)) => kind = wire::text(bytes)?,
            (_, Raw::Bytes(_) | Raw::Number(_) | Raw::Fixed) => {}
        }
    }
    Ok((api_version, kind, raw))
}
