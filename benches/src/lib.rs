//! Benchmarks of whole parts of the product. See README.md for what each
//! measures, how, and what to expect.

pub mod api;
pub mod cluster;
pub mod figures;
pub mod http;
pub mod inside;
pub mod still;
pub mod talk;
pub mod wires;
