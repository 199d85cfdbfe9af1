//! Request bodies: whatever bytes come, reading them gives an object or an
//! error, and an object goes through everything that a write does to it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan_api::{fields, kinds, protobuf, yaml};
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Some((form, body)) = bytes.split_first() else {
        return;
    };
    let objects: Vec<Value> = match form % 3 {
        0 => serde_json::from_slice(body).into_iter().collect(),
        1 => std::str::from_utf8(body)
            .ok()
            .and_then(|text| yaml::parse(text).ok())
            .unwrap_or_default(),
        _ => protobuf::decode(body).into_iter().collect(),
    };
    if form % 3 == 0 {
        fields::duplicate(body);
    }
    for object in objects {
        let kind = kinds::of(&object).unwrap_or(&kinds::service::KIND);
        write(kind, object);
    }
});

/// What the server does with a decoded object before it stores it.
fn write(kind: &portolan_api::Kind, mut object: Value) {
    fields::unknown(kind, &object);
    if !object.is_object() || fields::mistyped(kind, &object).is_some() {
        return;
    }
    fields::keep_typed(kind, &mut object);
    kind.default(&mut object);
    let old = object.clone();
    kind.prepare_create(&mut object);
    kind.validate_create(&object);
    let mut new = object.clone();
    kind.prepare_update(&mut new, &old);
    kind.validate_update(&new, &old);
    kind.warn(&object, None);
    kind.selectable(&object);
}
