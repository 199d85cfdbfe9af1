//! The way into the lab: one process becomes three before any thread starts.
//!
//! ```text
//! host namespaces            new user, mount, network, PID, UTS, IPC namespaces
//! ┌────────┐  clone   ┌──────────────┐  fork  ┌───────────────────────────────┐
//! │ broker ├─────────►│ init (PID 1) ├───────►│ lab: async runtime, API server,│
//! │        │          │ reaps orphans│        │ agents, pods as its children   │
//! └───┬────┘          └──────────────┘        └──────────────┬────────────────┘
//!     └── requests and descriptors over one socketpair ──────┘
//! ```
//!
//! The broker stays outside because a namespace cannot be left again from
//! inside: it alone can make a socket of the host ([`crate::broker`]). Init is a
//! process of its own so that reaping orphans never steals an exit status from
//! the lab's async runtime.
//!
//! Nothing outlives a part of this chain. Broker dies, even by kill -9: init is
//! killed by its parent-death signal, and a dead init takes its whole PID
//! namespace along. Lab dies: init exits, with the same end. The network
//! namespaces go with their last process. Root and everybody else take the same
//! path; root merely keeps all of its user ids.
//!
//! Ctrl-C and TERM go to the broker, which asks the lab to stop; the lab and its
//! pods sit in a session of their own, so that a Ctrl-C at the terminal does not
//! kill pods behind the lab's back. A second signal ends everything at once.

mod init;
mod refused;
mod setup;

pub(crate) use init::exit_code;

use std::{fs, io, os::fd::OwnedFd, time::Duration};

use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        socket::{AddressFamily, SockFlag, SockType, socketpair},
    },
};

use crate::broker;

/// How long the lab may take to stop before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(30);

/// What [`enter`] may be told.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long the lab may take to stop when asked, before it is killed.
    pub stop_grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            stop_grace: STOP_GRACE,
        }
    }
}

/// Which part of the chain the caller is after [`enter`].
#[derive(Debug)]
pub enum Role {
    /// The host side. The lab has ended; exit with its code.
    Broker {
        /// The lab's exit code, or 128 + the signal that killed it.
        exit_code: i32,
    },
    /// The lab side, alone in its namespaces. Start the runtime and go on.
    Lab(Seat),
}

/// The lab's end of the line to the broker, before a runtime exists.
#[derive(Debug)]
pub struct Seat {
    pub(crate) line: OwnedFd,
}

/// Why the lab could not be entered. Each is one line for a person.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A thread exists already, and threads do not survive a fork.
    #[error("the lab must be entered before threads start, but {threads} are running")]
    Threads {
        /// How many.
        threads: usize,
    },
    /// This machine or container refuses what the lab is made of.
    #[error("cannot start the lab: {advice}")]
    Refused {
        /// Why, and what to do about it.
        advice: String,
    },
    /// Something else failed.
    #[error("cannot start the lab: {step} failed")]
    Failed {
        /// The step.
        step: &'static str,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
}

impl SandboxError {
    fn failed(step: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::Failed {
            step,
            cause: errno.into(),
        }
    }
}

/// Splits the process into broker, init and lab; call it first thing in `main`.
///
/// Returns twice: in the lab at once, and in the broker when the lab has ended.
pub fn enter(options: &Options) -> Result<Role, SandboxError> {
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        return Err(SandboxError::Threads { threads });
    }
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .map_err(SandboxError::failed("socketpair"))?;
    // The broker reads its signals from a descriptor; blocked before the split,
    // none is lost in between. The child puts the old mask back.
    let signals = watched_signals();
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), Some(&mut before))
        .map_err(SandboxError::failed("sigprocmask"))?;
    match setup::split()? {
        setup::Side::Parent(child) => {
            drop(theirs);
            let init = setup::admit(child)?;
            let exit_code = broker::serve(ours, &signals, init, options.stop_grace)
                .map_err(SandboxError::failed("the broker's loop"))?;
            Ok(Role::Broker { exit_code })
        }
        setup::Side::Child(gate) => {
            drop(ours);
            init::become_init(gate, &before);
            Ok(Role::Lab(Seat { line: theirs }))
        }
    }
}

/// What the broker and init want to hear of.
fn watched_signals() -> SigSet {
    [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGCHLD,
    ]
    .into_iter()
    .collect()
}
