//! The few mount calls that a root file system needs, with errors that name
//! their operands.

use std::{
    ffi::CString,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use nix::mount::{MsFlags, mount};

/// Why a part of a root file system could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum MountError {
    /// The kernel refused a mount.
    #[error("cannot mount {what} on {}", target.display())]
    Mount {
        what: String,
        target: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// A folder, file or link could not be made or read.
    #[error("cannot {action} {}", path.display())]
    Path {
        action: &'static str,
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
}

/// Turns an I/O error about one path into a [`MountError`].
pub(super) fn about(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> MountError + use<> {
    let path = path.to_owned();
    move |cause| MountError::Path {
        action,
        path,
        cause,
    }
}

/// Mounts a file system that has no source.
pub(super) fn mount_fs(
    kind: &str,
    target: &Path,
    flags: MsFlags,
    data: &str,
) -> Result<(), MountError> {
    mount(Some(kind), target, Some(kind), flags, Some(data)).map_err(|cause| MountError::Mount {
        what: kind.to_owned(),
        target: target.to_owned(),
        cause: cause.into(),
    })
}

/// Changes how mounts under `target` propagate.
pub(super) fn propagation(target: &Path, flags: MsFlags) -> Result<(), MountError> {
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>).map_err(|cause| {
        MountError::Mount {
            what: "propagation flags".to_owned(),
            target: target.to_owned(),
            cause: cause.into(),
        }
    })
}

/// Makes `source` and the mounts below it visible at `target` too.
pub(super) fn bind(source: &Path, target: &Path) -> Result<(), MountError> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(source), target, None::<&str>, flags, None::<&str>).map_err(|cause| {
        MountError::Mount {
            what: source.display().to_string(),
            target: target.to_owned(),
            cause: cause.into(),
        }
    })
}

/// Makes the mount at `target` and all below it read-only.
///
/// mount_setattr(2) (Linux 5.12) is the only way to reach a whole tree: a bind
/// remount changes the top mount alone.
pub(super) fn read_only(target: &Path) -> Result<(), MountError> {
    set_read_only(target, libc::AT_RECURSIVE)
}

/// Makes the mount at `target` read-only, and none below it.
pub(super) fn read_only_alone(target: &Path) -> Result<(), MountError> {
    set_read_only(target, 0)
}

fn set_read_only(target: &Path, below: libc::c_int) -> Result<(), MountError> {
    let refused = |cause| MountError::Mount {
        what: "a read-only view".to_owned(),
        target: target.to_owned(),
        cause,
    };
    let path =
        CString::new(target.as_os_str().as_bytes()).map_err(|e| refused(io::Error::other(e)))?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path and the attributes outlive the call, and the size is theirs.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            below,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 {
        return Ok(());
    }
    let cause = io::Error::last_os_error();
    if cause.raw_os_error() != Some(libc::ENOSYS) {
        return Err(refused(cause));
    }
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
        .map_err(|cause| refused(cause.into()))
}
