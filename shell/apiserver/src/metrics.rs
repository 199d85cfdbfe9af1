//! A few numbers in the Prometheus text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use crate::context::{Context, resources};

/// Counters of requests by verb, resource and code.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, &'static str, u16), u64>>,
}

impl Metrics {
    pub(crate) fn count(&self, verb: &'static str, resource: &'static str, code: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((verb, resource, code)).or_default() += 1;
    }
}

/// The page of /metrics.
pub(crate) fn page(context: &Context) -> String {
    let mut page = String::from("# TYPE apiserver_request_total counter\n");
    let requests = context
        .metrics
        .requests
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    for ((verb, resource, code), count) in requests {
        line(
            &mut page,
            format_args!(
                "apiserver_request_total{{verb=\"{verb}\",resource=\"{resource}\",code=\"{code}\"}} {count}"
            ),
        );
    }
    page.push_str("# TYPE apiserver_storage_objects gauge\n");
    for resource in resources() {
        let count = context.store.cache().count(resource.index);
        let name = resource.kind.resource();
        line(
            &mut page,
            format_args!("apiserver_storage_objects{{resource=\"{name}\"}} {count}"),
        );
    }
    page.push_str("# TYPE apiserver_storage_revision counter\n");
    line(
        &mut page,
        format_args!(
            "apiserver_storage_revision {}",
            context.store.cache().revision()
        ),
    );
    page
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    if writeln!(page, "{text}").is_err() {
        page.push('\n');
    }
}
