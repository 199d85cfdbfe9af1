//! Fields of messages as JSON.

use super::DecodeError;
use super::table::{self, Field, Form, Message, Shape};
use super::wire::{self, Raw, Reader, WireError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

/// Deeper than the messages of any kind are nested.
const DEPTH_MAX: usize = 32;

/// The year 1, which in Go is the time that is not set.
const ZERO_TIME: i64 = -62_135_596_800;
/// The last second that RFC 3339 can say.
const LAST_TIME: i64 = 253_402_300_799;

/// Why a value has no JSON form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// No year of four digits.
    #[error("{seconds} seconds are beyond the years 1 to 9999")]
    Time {
        /// Since 1970.
        seconds: i64,
    },
    /// A field that holds JSON does not.
    #[error("{0}")]
    Json(String),
}

/// What can be wrong with one value.
enum Fault {
    Wire(WireError),
    Value(ValueError),
    Deeper(DecodeError),
}

impl From<WireError> for Fault {
    fn from(fault: WireError) -> Self {
        Self::Wire(fault)
    }
}

/// Adds the fields of a message to an object.
pub(super) fn read_message(
    message: &'static Message,
    bytes: &[u8],
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    if depth > DEPTH_MAX {
        return Err(DecodeError::TooDeep);
    }
    for field in Reader::new(bytes) {
        let (number, raw) = field.map_err(|fault| DecodeError::Malformed {
            message: message.name,
            fault,
        })?;
        // What this version of Kubernetes does not know is not there.
        let Some(field) = message.field(number) else {
            continue;
        };
        add(field, raw, object, depth).map_err(|fault| match fault {
            Fault::Wire(fault) => DecodeError::Malformed {
                message: message.name,
                fault,
            },
            Fault::Value(fault) => DecodeError::Unfit {
                message: message.name,
                field: field.name,
                fault,
            },
            Fault::Deeper(error) => error,
        })?;
    }
    Ok(())
}

fn add(
    field: &'static Field,
    raw: Raw<'_>,
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), Fault> {
    match field.shape {
        Shape::InLine => nested(field, raw, object, depth)?,
        Shape::One if matches!(field.form, Form::Message(_)) => {
            // A message that comes in pieces is put together.
            let mut own = match object.remove(field.name) {
                Some(Value::Object(own)) => own,
                Some(_) | None => Map::new(),
            };
            nested(field, raw, &mut own, depth)?;
            object.insert(field.name.to_owned(), Value::Object(own));
        }
        Shape::One => {
            let value = read(field, raw, depth)?;
            if value.is_null() || (is_zero(&value) && !field.says_zero && is_simple(field.form)) {
                object.remove(field.name);
            } else {
                object.insert(field.name.to_owned(), value);
            }
        }
        Shape::List => {
            let list = object
                .entry(field.name)
                .or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                add_elements(field, raw, list, depth)?;
            }
        }
        Shape::Map => {
            let (key, value) = entry(field, raw, depth)?;
            let map = object
                .entry(field.name)
                .or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = map {
                map.insert(key, value);
            }
        }
    }
    Ok(())
}

fn add_elements(
    field: &'static Field,
    raw: Raw<'_>,
    list: &mut Vec<Value>,
    depth: usize,
) -> Result<(), Fault> {
    match (field.form, raw) {
        (Form::Bool | Form::Int32 | Form::Int64, Raw::Bytes(bytes)) => {
            for number in wire::packed(bytes) {
                list.push(read(field, Raw::Number(number?), depth)?);
            }
        }
        _ => list.push(read(field, raw, depth)?),
    }
    Ok(())
}

fn is_simple(form: Form) -> bool {
    matches!(
        form,
        Form::Bool | Form::Int32 | Form::Int64 | Form::Text | Form::Bytes
    )
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_i64() == Some(0),
        Value::String(value) => value.is_empty(),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// The fields of a field's message.
fn nested(
    field: &'static Field,
    raw: Raw<'_>,
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), Fault> {
    let (Form::Message(name), Raw::Bytes(bytes)) = (field.form, raw) else {
        return Err(WireError::WrongWireType(field.name).into());
    };
    match table::message(name) {
        Some(message) => read_message(message, bytes, object, depth + 1).map_err(Fault::Deeper),
        None => Ok(()),
    }
}

/// Key and value of a map's entry; each may be left out when it is empty.
fn entry(field: &'static Field, raw: Raw<'_>, depth: usize) -> Result<(String, Value), Fault> {
    let Raw::Bytes(bytes) = raw else {
        return Err(WireError::WrongWireType(field.name).into());
    };
    let (mut key, mut value) = ("", None);
    for part in Reader::new(bytes) {
        match part? {
            (1, Raw::Bytes(bytes)) => key = wire::text(bytes)?,
            (2, raw) => value = Some(raw),
            (_, Raw::Bytes(_) | Raw::Number(_) | Raw::Fixed) => {}
        }
    }
    let value = read(field, value.unwrap_or(Raw::Bytes(&[])), depth)?;
    Ok((key.to_owned(), value))
}

/// One value, or one element of a list or map.
fn read(field: &'static Field, raw: Raw<'_>, depth: usize) -> Result<Value, Fault> {
    let value = match (field.form, raw) {
        (Form::Bool, Raw::Number(number)) => (number != 0).into(),
        (Form::Int32, Raw::Number(number)) => int32(number).into(),
        (Form::Int64, Raw::Number(number)) => number.cast_signed().into(),
        (Form::Text, Raw::Bytes(bytes)) => wire::text(bytes)?.into(),
        (Form::Bytes, Raw::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Form::Time, Raw::Bytes(bytes)) => time(bytes, false)?,
        (Form::MicroTime, Raw::Bytes(bytes)) => time(bytes, true)?,
        (Form::Quantity, Raw::Bytes(bytes)) => quantity(bytes)?,
        (Form::IntOrString, Raw::Bytes(bytes)) => int_or_string(bytes)?,
        (Form::Raw, Raw::Bytes(bytes)) => embedded(bytes)?,
        (Form::Texts, Raw::Bytes(bytes)) => texts(bytes)?,
        (Form::Message(_), Raw::Bytes(_)) => {
            let mut object = Map::new();
            nested(field, raw, &mut object, depth)?;
            Value::Object(object)
        }
        (_, Raw::Number(_) | Raw::Bytes(_) | Raw::Fixed) => {
            return Err(WireError::WrongWireType(field.name).into());
        }
    };
    Ok(value)
}

/// Negative numbers are extended to 64 bits; what is beyond 32 bits is cut off.
fn int32(number: u64) -> i32 {
    let low = u32::try_from(number & 0xffff_ffff).unwrap_or_default();
    low.cast_signed()
}

/// Seconds and nanoseconds since 1970; nothing at all is "not set".
fn time(bytes: &[u8], micro: bool) -> Result<Value, Fault> {
    let (mut seconds, mut nanos) = (0, 0);
    for part in Reader::new(bytes) {
        match part? {
            (1, Raw::Number(number)) => seconds = number.cast_signed(),
            (2, Raw::Number(number)) => nanos = int32(number),
            (_, Raw::Bytes(_) | Raw::Number(_) | Raw::Fixed) => {}
        }
    }
    if bytes.is_empty() || seconds == ZERO_TIME {
        return Ok(Value::Null);
    }
    // A Time has whole seconds.
    let nanos = if micro {
        nanos.clamp(0, 999_999_999)
    } else {
        0
    };
    let fault = Fault::Value(ValueError::Time { seconds });
    if !(ZERO_TIME..=LAST_TIME).contains(&seconds) {
        return Err(fault);
    }
    let time = Timestamp::new(seconds, nanos).ok().ok_or(fault)?;
    let text = if micro {
        time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
    } else {
        time.to_string()
    };
    Ok(text.into())
}

fn quantity(bytes: &[u8]) -> Result<Value, Fault> {
    let mut number = "0";
    for part in Reader::new(bytes) {
        if let (1, Raw::Bytes(bytes)) = part? {
            number = wire::text(bytes)?;
        }
    }
    Ok(number.into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Fault> {
    let (mut is_text, mut number, mut text) = (false, 0, "");
    for part in Reader::new(bytes) {
        match part? {
            (1, Raw::Number(kind)) => is_text = kind == 1,
            (2, Raw::Number(value)) => number = int32(value),
            (3, Raw::Bytes(bytes)) => text = wire::text(bytes)?,
            (_, Raw::Bytes(_) | Raw::Number(_) | Raw::Fixed) => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

fn embedded(bytes: &[u8]) -> Result<Value, Fault> {
    for part in Reader::new(bytes) {
        if let (1, Raw::Bytes(json)) = part? {
            return serde_json::from_slice(json)
                .map_err(|error| Fault::Value(ValueError::Json(error.to_string())));
        }
    }
    Ok(Value::Null)
}

fn texts(bytes: &[u8]) -> Result<Value, Fault> {
    let mut list = Vec::new();
    for part in Reader::new(bytes) {
        if let (1, Raw::Bytes(bytes)) = part? {
            list.push(Value::from(wire::text(bytes)?));
        }
    }
    Ok(list.into())
}
