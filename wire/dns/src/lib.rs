//! Answering DNS: values in, bytes out.
//!
//! A [`Zone`] maps names to records; [`Zones::answer`] reads one query and
//! writes one reply, or says that somebody else must answer. Nothing here opens
//! a socket, knows the time, or has heard of Kubernetes: what a Service or a pod
//! is called is decided in `plan` and rendered to records.
//!
//! Why this shape:
//!
//! - A zone is a persistent map, so publishing a change to the readers is a
//!   clone of a few pointers, and a change costs O(log n) whatever the size of
//!   the zone. There is no cache of the own zone that could go stale.
//! - Each name with all its records is *one* allocation in the form that the
//!   wire wants (see `packed`): tens of bytes for an endpoint, and answering is
//!   copying.
//! - What a forwarder needs ([`upstream`]) is here too, with the time and random
//!   numbers as arguments: keeping replies, judging servers, rewriting names.
//! - Empty non-terminals are nodes with a count of their children, so that
//!   NODATA and NXDOMAIN are told apart by one lookup.
//! - The message code is written here rather than taken from a library, because
//!   it is on the path of every query: it reads a question and a possible OPT
//!   record and allocates nothing. The tests hold it to the `domain` crate.
//!
//! Deliberately absent: DNSSEC, differences between versions of a zone (IXFR is
//! answered with the whole), dynamic update, wildcards (an
//! asterisk is a label like any other), delegation, and recursion, which
//! belongs to whoever owns sockets.

#![forbid(unsafe_code)]

mod amend;
mod answer;
mod complete;
mod cookie;
mod edns;
mod inspect;
mod kept;
mod message;
mod name;
mod packed;
mod parts;
mod record;
mod rotate;
mod splice;
mod transfer;
pub mod upstream;
mod write;
mod zone;
mod zones;

pub use answer::Answer;
pub use complete::{completed, next_names, query_for};
pub use cookie::{CookieSecret, Standing};
pub use edns::{Identity, adorn, bad_cookie, cookie_query};
pub use inspect::{
    Question, failure, fit, granted, id, is_authoritative, is_truncated, query, question, rcode,
    rtype, same_question, set_id, set_recursion_available, wants_dnssec, whole_rcode,
};
pub use kept::NoZones;
pub use message::{Rcode, Transport};
pub use name::{Name, NameError, ReverseZone, reverse_zones};
pub use record::{Data, Record, Rtype};
pub use rotate::rotate;
pub use splice::copy_answers;
pub use transfer::{Transfer, is_transfer};
pub use zone::{OutOfZone, Zone};
pub use zones::{Lookup, Zones};
