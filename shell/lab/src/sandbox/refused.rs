//! Why a machine refuses user namespaces, and what its owner can do about it.
//!
//! The kernel answers with a bare EPERM or ENOSPC. The settings that lead to it
//! are known, so the answer to the user is one of a few sentences.

use std::{env, fs, io, path::Path};

/// What the machine says about itself.
#[derive(Debug, Default, Clone)]
pub(super) struct Facts {
    root: bool,
    container: bool,
    max_user_namespaces: Option<u64>,
    unprivileged_clone: Option<u64>,
    apparmor: Option<u64>,
}

impl Facts {
    pub(super) fn gather() -> Self {
        let number = |name: &str| {
            fs::read_to_string(format!("/proc/sys/{name}"))
                .ok()?
                .trim()
                .parse::<u64>()
                .ok()
        };
        let marks = ["/.dockerenv", "/run/.containerenv"];
        Self {
            root: nix::unistd::geteuid().is_root(),
            container: env::var_os("container").is_some()
                || marks.iter().any(|mark| Path::new(mark).exists()),
            max_user_namespaces: number("user/max_user_namespaces"),
            unprivileged_clone: number("kernel/unprivileged_userns_clone"),
            apparmor: number("kernel/apparmor_restrict_unprivileged_userns"),
        }
    }

    /// One line: which step failed, why, and what to do.
    pub(super) fn advice(&self, step: &str, cause: &io::Error) -> String {
        let because = if self.max_user_namespaces == Some(0) {
            "user namespaces are switched off on this machine (user.max_user_namespaces = 0); \
             as root run: sysctl -w user.max_user_namespaces=15000"
        } else if !self.root && self.unprivileged_clone == Some(0) {
            "user namespaces are for root only on this machine \
             (kernel.unprivileged_userns_clone = 0); \
             as root run: sysctl -w kernel.unprivileged_userns_clone=1"
        } else if !self.root && self.apparmor.is_some_and(|value| value != 0) {
            "AppArmor keeps user namespaces from programs without a profile \
             (kernel.apparmor_restrict_unprivileged_userns = 1); \
             as root run: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
        } else if cause.raw_os_error() == Some(libc::ENOSPC) {
            "there are too many user namespaces already, or they are nested too deeply; \
             as root raise it with: sysctl -w user.max_user_namespaces=15000"
        } else if self.container {
            "this container may not make namespaces; start it with --privileged, or with \
             --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
             --security-opt systempaths=unconfined"
        } else {
            "the lab needs user, mount, network and PID namespaces, which this machine \
             refuses; try it as root, or outside of the container or sandbox around it"
        };
        format!("{because} [{step}: {cause}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(facts: &Facts, code: i32) -> String {
        facts.advice("clone", &io::Error::from_raw_os_error(code))
    }

    #[test]
    fn every_refusal_is_one_line_with_a_way_out() {
        let open = Facts {
            max_user_namespaces: Some(9),
            ..Facts::default()
        };
        let table = [
            (
                Facts {
                    max_user_namespaces: Some(0),
                    ..open.clone()
                },
                libc::ENOSPC,
                "sysctl -w user.max_user_namespaces=15000",
            ),
            (
                Facts {
                    unprivileged_clone: Some(0),
                    ..open.clone()
                },
                libc::EPERM,
                "sysctl -w kernel.unprivileged_userns_clone=1",
            ),
            (
                Facts {
                    apparmor: Some(1),
                    ..open.clone()
                },
                libc::EACCES,
                "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            (
                Facts {
                    container: true,
                    ..open.clone()
                },
                libc::EPERM,
                "--privileged",
            ),
            (open.clone(), libc::ENOSPC, "too many user namespaces"),
            (open.clone(), libc::EPERM, "try it as root"),
            // Root is not bound by what binds everybody else.
            (
                Facts {
                    root: true,
                    container: true,
                    apparmor: Some(1),
                    ..open
                },
                libc::EPERM,
                "--privileged",
            ),
        ];
        for (facts, code, way_out) in table {
            let line = advice(&facts, code);
            assert!(line.contains(way_out), "{facts:?}: {line}");
            assert!(!line.contains('\n') && !line.contains("  "), "{line:?}");
        }
    }
}
