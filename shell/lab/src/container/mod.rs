//! One container: a process with its own mount, PID, UTS and IPC namespaces in
//! the pod's network namespace.
//!
//! The lab process has threads and therefore may not fork and go on, so the
//! program starts itself again under a hidden name: the **keeper** enters the
//! pod's network, leaves every other namespace, and forks the container's PID 1,
//! which builds the root file system and executes the command.
//!
//! ```text
//!  lab process ──spawn──► keeper ──fork──► PID 1 of the container
//!      ▲   control socket   │                 mounts, pivot_root, exec
//!      └──── Report ────────┘
//! ```
//!
//! The keeper lives as long as the container and holds one end of the control
//! socket: signals go down, [`Report`]s come up, and when the lab's end closes
//! (the lab died, or the handle was dropped) the keeper kills the container.
//!
//! The root file system is a small tmpfs in which the host's top-level folders
//! are bound read-only; `/etc` is an overlay so that the pod has its own
//! `hosts`, `hostname` and `resolv.conf`; `/tmp`, `/run` and `/var/tmp` are empty.
//!
//! Absent on purpose: cgroups, seccomp profiles. A rootless lab has just one
//! user id, so that only root's has other users than root.

mod exec;
pub mod files;
mod init;
mod launch;
mod mounts;
mod ownership;
mod rootfs;
mod spec;
mod terminal;
mod user;

pub use exec::{ExecError, Executed, Executing, Wanted, exec, start};
pub(crate) use init::in_one_line;
pub use init::init_main;
pub use launch::{Console, Exit, LaunchError, Launched, Launcher, Report, Reports, Signals};
pub use spec::{Bind, ContainerSpec, DEFAULT_PATH};
pub use terminal::Terminal;
pub use user::User;

/// First argument of the program when it is started as a container's keeper.
pub const POD_INIT: &str = "__pod-init";
/// First argument of the program when it is started to run a command in a container.
pub const POD_EXEC: &str = "__pod-exec";
/// Where the program itself is found inside every container.
pub const PROGRAM: &str = "/.portolan/portolan";
