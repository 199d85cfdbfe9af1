//! Other people's clients against the embedded API server, and the examples as
//! users type them.
//!
//! [`scripts`] runs programs of other languages, each as a test of its own;
//! [`Lab`] is a running `portolan up`; [`transcript`] reads the commands out of
//! an example's README and holds what they print to what the README shows.

pub mod lab;
pub mod scripts;
pub mod tools;
pub mod transcript;

pub use lab::Lab;
