//! What a forwarder is made of, as values: which server is asked, what a reply
//! is worth and for how long, and what names are rewritten to. Sockets, the
//! clock and randomness are the caller's; a moment is the time since any fixed
//! one.

mod ask;
mod cache;
mod health;
mod received;
mod rewrite;
mod routes;

pub use ask::{Ask, Key};
pub use cache::{Cache, Found, Limits, Prefetch, Stale};
pub use health::{Health, HealthLimits, Policy, order};
pub use received::{Age, Outcome, Received};
pub(crate) use rewrite::cut;
pub use rewrite::{Match, Rewrites, Rewritten, Rule, RuleError};
pub use routes::Suffixes;

#[cfg(test)]
mod tests;
