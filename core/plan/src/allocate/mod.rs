//! Which ClusterIP or NodePort a Service gets.
//!
//! A range has two bands (KEP-3070 for addresses, KEP-3668 for ports): people
//! who write a number themselves are asked to take it from the lower one, so
//! automatic choice takes the upper band first and the lower one only when
//! that is full. Ranges of addresses come from ServiceCIDRs (KEP-1880), which
//! come and go and may overlap; so what is in use is counted once per family,
//! and a range only says where to look.
//!
//! Randomness is an argument: the caller's seed says where in the band to look
//! first, which keeps two servers over the same state from agreeing on "the
//! next one" and a freed number from being reused at once.

pub mod cidrs;
mod ranges;
pub mod repair;
mod used;

pub use ranges::{AddressRange, PortRange, Refused, address_band, number, port_band};
pub use used::Used;
