//! Exec, attach, port-forward and /proxy over real connections, with pods that
//! are programs of this test, driven by kube's client, raw WebSockets and both
//! kubectls.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../api/common.rs"]
#[expect(dead_code, reason = "shared with the tests of objects")]
mod common;

mod backend;
mod channels;
mod forward;
mod kubectl;
mod proxy;
mod raw;
mod remote;
mod site;
