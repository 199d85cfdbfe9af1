//! Sysctls of a network namespace.
//!
//! `/proc/sys/net` shows the namespace of the thread that opens it, so reading
//! and writing are visits to the namespace. Names are written as `sysctl(8)`
//! does; a dot inside an interface name is written as a slash there, too.

use std::{fs, io, path::PathBuf};

use crate::netns::{NetNs, NetNsError};

/// Why a sysctl could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// The namespace could not be entered.
    #[error("cannot enter the namespace of sysctl {name}")]
    Namespace {
        /// The sysctl.
        name: String,
        /// Why not.
        #[source]
        cause: NetNsError,
    },
    /// The kernel refused the value, or the sysctl does not exist.
    #[error("cannot set sysctl {name} to {value:?}")]
    Set {
        /// The sysctl.
        name: String,
        /// The value that was to be written.
        value: String,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// The sysctl does not exist or may not be read.
    #[error("cannot read sysctl {name}")]
    Get {
        /// The sysctl.
        name: String,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// The name could lead out of `/proc/sys`.
    #[error("{name:?} is not the name of a sysctl")]
    Name {
        /// The name as given.
        name: String,
    },
}

/// Writes one sysctl, such as `net.ipv4.ip_forward`.
pub fn set(ns: &NetNs, name: &str, value: &str) -> Result<(), SysctlError> {
    set_all(ns, &[(name, value)])
}

/// Writes several in one visit, in order, and stops at the first refusal.
pub fn set_all(ns: &NetNs, settings: &[(&str, &str)]) -> Result<(), SysctlError> {
    let first = settings.first().map_or("", |(name, _)| name);
    ns.run(|| {
        for (name, value) in settings {
            fs::write(path(name)?, value).map_err(|cause| SysctlError::Set {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
                cause,
            })?;
        }
        Ok(())
    })
    .map_err(|cause| SysctlError::Namespace {
        name: first.to_owned(),
        cause,
    })?
}

/// Reads one sysctl, without the newline.
pub fn get(ns: &NetNs, name: &str) -> Result<String, SysctlError> {
    ns.run(|| {
        let text = fs::read_to_string(path(name)?).map_err(|cause| SysctlError::Get {
            name: name.to_owned(),
            cause,
        })?;
        Ok(text.trim_end().to_owned())
    })
    .map_err(|cause| SysctlError::Namespace {
        name: name.to_owned(),
        cause,
    })?
}

/// `net.ipv4.conf.eth0/100.forwarding` → `/proc/sys/net/ipv4/conf/eth0.100/forwarding`.
fn path(name: &str) -> Result<PathBuf, SysctlError> {
    let mut path = PathBuf::from("/proc/sys");
    for part in name.split('.') {
        let part = part.replace('/', ".");
        if part.is_empty() || part == "." || part == ".." {
            return Err(SysctlError::Name {
                name: name.to_owned(),
            });
        }
        path.push(part);
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::privileged;

    #[test]
    fn names_become_paths_below_proc_sys() {
        let at = |name| path(name).map(|p| p.display().to_string());
        assert_eq!(
            at("net.ipv4.ip_forward").unwrap(),
            "/proc/sys/net/ipv4/ip_forward"
        );
        assert_eq!(
            at("net.ipv4.conf.eth0/100.rp_filter").unwrap(),
            "/proc/sys/net/ipv4/conf/eth0.100/rp_filter"
        );
        for bad in ["", "net..x", "net.//.x", "."] {
            assert!(at(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_set_is_read_again_and_only_there() {
        if !privileged() {
            return;
        }
        let here = NetNs::create().unwrap();
        let there = NetNs::create().unwrap();
        let name = "net.ipv4.conf.lo.forwarding";
        set(&here, name, "1").unwrap();
        set(&there, name, "0").unwrap();
        assert_eq!(get(&here, name).unwrap(), "1");
        assert_eq!(get(&there, name).unwrap(), "0");
        let error = set(&here, "net.ipv4.nonsense", "1").unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot set sysctl net.ipv4.nonsense to \"1\""
        );
    }
}
