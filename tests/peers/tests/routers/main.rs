//! Whole agents and real routers: what a router's table says and where its packets go,
//! when nodes die, agents restart and sessions fail.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what is measured is printed, and what agents logged where a test fails"
)]

mod failing;
mod faults;
mod load;
mod site;
mod speaker;
mod table;
