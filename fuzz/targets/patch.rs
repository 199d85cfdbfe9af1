//! The patch engines: no patch panics, and what they make is again an object
//! that can be patched. Apply is idempotent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan_api::managed::{self, Writer};
use portolan_api::patch::{self, PatchType};
use portolan_api::{fields, kinds};
use serde_json::Value;

const WRITER: Writer<'static> = Writer {
    manager: "fuzz",
    subresource: "",
    now: "2026-01-01T00:00:00Z",
};

// Input: the form, an object, a zero byte, a patch.
fuzz_target!(|bytes: &[u8]| {
    let Some((form, rest)) = bytes.split_first() else {
        return;
    };
    let mut halves = rest.splitn(2, |byte| *byte == 0);
    let mut read = || serde_json::from_slice::<Value>(halves.next()?).ok();
    let (Some(object), Some(patch)) = (read(), read()) else {
        return;
    };
    let kind = kinds::of(&object).unwrap_or(&kinds::service::KIND);
    if !object.is_object() || fields::mistyped(kind, &object).is_some() {
        return;
    }
    let patch_type = match form % 4 {
        0 => PatchType::Json,
        1 => PatchType::Merge,
        2 => PatchType::Strategic,
        _ => return apply(kind, &object, &patch),
    };
    if let Ok(mut patched) = patch::apply(kind, patch_type, &object, &patch)
        && patched.is_object()
        && fields::mistyped(kind, &patched).is_none()
    {
        managed::record(kind, Some(&object), &mut patched, WRITER);
    }
});

fn apply(kind: &portolan_api::Kind, live: &Value, config: &Value) {
    if !config.is_object() || fields::mistyped(kind, config).is_some() {
        return;
    }
    if let Ok(once) = managed::apply(kind, Some(live), config, WRITER, true) {
        let again = managed::apply(kind, Some(&once), config, WRITER, true);
        assert_eq!(again.as_ref(), Ok(&once), "apply is idempotent");
    }
}
