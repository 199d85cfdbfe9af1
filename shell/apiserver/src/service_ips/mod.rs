//! The objects of Service addresses: ServiceCIDRs, which say where addresses
//! come from (A6), and IPAddresses, one for each that is in use (A5).
//!
//! In a cluster three controllers keep these, in the API server and beside
//! it; here one task does, which reads the store and not the API.

mod cidrs;
mod repair;
mod tell;

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::OpenError;
use crate::context::Context;
use repair::Follower;

/// How often everything is looked at, changed or not.
const INTERVAL: Duration = Duration::from_secs(60);
/// Between two looks, so that a burst of writes is one look.
const PAUSE: Duration = Duration::from_millis(20);

/// Before the first request: the default ServiceCIDR is there. The first pass
/// over all Services need not be over by then: what a Service has is in use
/// with or without its IPAddress.
pub(crate) async fn prepare(context: &Context) -> Result<(), OpenError> {
    cidrs::ensure_default(context).await
}

/// Look after both while the server lives.
pub(crate) fn start(context: &Arc<Context>) {
    drop(tokio::spawn(run(Arc::downgrade(context))));
}

async fn run(context: Weak<Context>) {
    let Some(mut changed) = context.upgrade().and_then(|context| {
        let places = context.allocator.places();
        let cache = context.store.cache();
        Some((
            cache.subscribe(places.cidrs)?,
            cache.subscribe(places.addresses)?,
        ))
    }) else {
        return;
    };
    let mut next_pass = tokio::time::Instant::now();
    let Some(mut follower) = context.upgrade().map(|it| Follower::new(&it)) else {
        return;
    };
    loop {
        tokio::select! {
            ended = changed.0.changed() => if ended.is_err() { return },
            ended = changed.1.changed() => if ended.is_err() { return },
            () = tokio::time::sleep_until(next_pass) => {}
        }
        if tokio::time::Instant::now() < next_pass {
            tokio::time::sleep(PAUSE).await;
        }
        let Some(context) = context.upgrade() else {
            return;
        };
        changed.0.borrow_and_update();
        changed.1.borrow_and_update();
        cidrs::look(&context).await;
        let now = tokio::time::Instant::now();
        if now >= next_pass || follower.saw_tampering(&context) {
            repair::pass(&context, jiff::Timestamp::now()).await;
            next_pass = now + INTERVAL;
        }
    }
}

#[cfg(test)]
mod tests;
