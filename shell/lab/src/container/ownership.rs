//! Giving files away where there is nobody to give them to.
//!
//! A lab that was started without root has one user id, and the kernel refuses
//! to give a file to any other. Whoever unpacks an archive as root does just
//! that, `kubectl cp` first of all. As builders of images without root do, such
//! calls succeed without effect.

use std::{collections::BTreeMap, fs, io};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// The calls that give a file away.
const GIVING: &[libc::c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    libc::SYS_fchown,
    libc::SYS_fchownat,
];

/// Makes this process, and all that it becomes or starts, give files away in
/// appearance, if this namespace has only one user.
///
/// # Errors
/// If the kernel refuses the filter.
pub(super) fn pretend_if_alone() -> io::Result<()> {
    if !is_alone(&fs::read_to_string("/proc/self/uid_map")?) {
        return Ok(());
    }
    let Ok(machine) = std::env::consts::ARCH.try_into() else {
        // No filters for this machine: such calls fail as they do anyway.
        return Ok(());
    };
    let rules: BTreeMap<i64, _> = GIVING.iter().map(|call| (*call, Vec::new())).collect();
    let done = SeccompAction::Errno(0);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, done, machine);
    let program: BpfProgram = filter
        .and_then(TryInto::try_into)
        .map_err(io::Error::other)?;
    apply_filter(&program).map_err(io::Error::other)
}

/// Whether a map of ids, as `/proc` shows it, has a single one.
fn is_alone(map: &str) -> bool {
    let mut counts = map.lines().map(|line| line.split_whitespace().nth(2));
    counts.next() == Some(Some("1")) && counts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_is_alone() {
        assert!(is_alone("         0      65534          1\n"));
        assert!(!is_alone("         0          0 4294967295\n"));
        assert!(!is_alone("0 1000 1\n1 100000 65536\n"));
        assert!(!is_alone(""));
    }
}
