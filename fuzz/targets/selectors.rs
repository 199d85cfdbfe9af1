//! Selectors: no text panics, and what is understood is written so that it is
//! understood again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan_api::kinds;
use portolan_api::selector::{FieldSelector, LabelSelector};

fuzz_target!(|text: &str| {
    if let Ok(selector) = LabelSelector::parse(text) {
        let written = selector.to_string();
        let again = LabelSelector::parse(&written).expect("our own text");
        assert_eq!(again.to_string(), written);
    }
    for kind in kinds::all() {
        if let Ok(selector) = FieldSelector::parse(kind, text) {
            drop(selector);
        }
    }
});
