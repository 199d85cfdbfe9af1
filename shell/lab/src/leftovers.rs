//! What a lab leaves in its data directory, and what the next one clears.
//!
//! Namespaces, links and processes end with the lab, however it dies. Files do
//! not. So everything that is of no use to the next lab (sockets, overlay
//! folders, resolv.conf files of pods) lives under `run/`, and whoever claims
//! the directory removes what is there. The claim is a lock that the kernel
//! releases with the process, so that it never has to be cleaned up itself.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Seek, Write},
    os::unix::{
        ffi::OsStringExt,
        fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    mount::{MntFlags, umount2},
};

/// The lock inside of a data directory.
const LOCK: &str = "lock";

/// What does not outlive a lab.
const RUN: &str = "run";

/// How long a lab may take to be gone after its broker was killed.
const DYING: Duration = Duration::from_secs(3);

/// How often the lock of a dying lab is tried.
const LOOK: Duration = Duration::from_millis(20);

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub struct Claim {
    dir: PathBuf,
    _lock: Flock<File>,
}

/// Why a data directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another lab runs on it.
    #[error(
        "another lab{} is running on {}; stop it, or give this one its own --data-dir",
        holder.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default(),
        dir.display()
    )]
    Taken {
        /// The directory.
        dir: PathBuf,
        /// Which process, if it says so.
        holder: Option<String>,
    },
    /// It cannot be used.
    #[error("cannot {action} {}", path.display())]
    Unusable {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
}

impl Claim {
    /// Makes `dir` if need be, locks it (waiting up to three seconds for another
    /// lab that may be about to die), and clears what a lab that was killed
    /// has left there. `holder` is the process id to show to whoever else tries;
    /// inside a lab the caller's own id would tell nobody anything.
    pub fn take(dir: &Path, holder: u32) -> Result<Self, ClaimError> {
        private_dir(dir)?;
        let path = dir.join(LOCK);
        let unusable = |action| {
            let path = path.clone();
            move |cause: io::Error| ClaimError::Unusable {
                action,
                path,
                cause,
            }
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(unusable("open"))?;
        let taken = |mut file: File| ClaimError::Taken {
            dir: dir.to_owned(),
            holder: holder_of(&mut file),
        };
        let mut lock = lock(file).map_err(|(file, errno)| {
            if errno == Errno::EWOULDBLOCK {
                taken(file)
            } else {
                unusable("lock")(errno.into())
            }
        })?;
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{holder}"))
            .map_err(unusable("write to"))?;
        let claim = Self {
            dir: dir.to_owned(),
            _lock: lock,
        };
        clear(&claim.run_dir())?;
        private_dir(&claim.run_dir())?;
        Ok(claim)
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where to put what must not outlive the lab; empty at first.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join(RUN)
    }

    /// Clears what must not outlive the lab, at its orderly end.
    pub fn release(self) -> Result<(), ClaimError> {
        clear(&self.run_dir())
    }
}

/// Locks the file. A lab whose broker was killed dies on its own a moment later,
/// and holds the lock until then: that is waited for.
fn lock(mut file: File) -> Result<Flock<File>, (File, Errno)> {
    let end = Instant::now() + DYING;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Err((held, Errno::EWOULDBLOCK)) if Instant::now() < end => {
                file = held;
                thread::sleep(LOOK);
            }
            done => return done,
        }
    }
}

/// Removes a directory and everything in it; links are not followed, and what
/// is mounted in it is unmounted before: a pod may have the host's files there.
/// Folders that overlay mounts leave without any permissions are opened first.
pub fn clear(dir: &Path) -> Result<(), ClaimError> {
    let unusable = |cause| ClaimError::Unusable {
        action: "clear",
        path: dir.to_owned(),
        cause,
    };
    match fs::symlink_metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unusable(error)),
        Ok(_) => {}
    }
    unmount_below(dir)
        .and_then(|()| open_up(dir))
        .and_then(|()| fs::remove_dir_all(dir))
        .map_err(unusable)
}

/// Takes every mount below `dir` away, or fails: nothing is removed through one.
fn unmount_below(dir: &Path) -> io::Result<()> {
    let dir = dir.canonicalize()?;
    let mounts = mount_points(&fs::read_to_string("/proc/self/mountinfo")?);
    // The last one mounted may lie on top of an earlier one.
    for mount in mounts.iter().rev().filter(|mount| mount.starts_with(&dir)) {
        umount2(mount, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    Ok(())
}

/// The mount points of a mountinfo file, the fifth word of each line, where
/// blanks and the like are written as three octal digits (proc(5)).
fn mount_points(mountinfo: &str) -> Vec<PathBuf> {
    let words = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    words
        .map(|word| PathBuf::from(OsString::from_vec(unescape(word))))
        .collect()
}

fn unescape(word: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = word.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(*first));
        rest = after
            .get(if octal.is_some() { 3 } else { 0 }..)
            .unwrap_or_default();
    }
    bytes
}

fn open_up(dir: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(dir)?.is_dir() {
        return Ok(());
    }
    fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

fn private_dir(dir: &Path) -> Result<(), ClaimError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|cause| ClaimError::Unusable {
            action: "create directory",
            path: dir.to_owned(),
            cause,
        })
}

fn holder_of(file: &mut File) -> Option<String> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    let pid = text.trim();
    (!pid.is_empty()).then(|| pid.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("portolan-{name}-{}", std::process::id()));
            clear(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            clear(&self.0).unwrap();
        }
    }

    #[test]
    fn the_second_lab_is_told_who_was_first() {
        let dir = Dir::new("second-lab");
        let first = Claim::take(&dir.0, 4711).unwrap();
        let error = Claim::take(&dir.0, 4712).unwrap_err().to_string();
        assert!(
            error.starts_with("another lab (process 4711) is running on /"),
            "{error}"
        );
        assert!(
            error.contains("--data-dir") && !error.contains('\n'),
            "{error}"
        );
        drop(first);
        Claim::take(&dir.0, 4712).unwrap();
    }

    #[test]
    fn the_next_lab_clears_what_a_killed_one_left_and_keeps_the_rest() {
        let dir = Dir::new("killed-lab");
        let killed = Claim::take(&dir.0, 1).unwrap();
        let work = killed.run_dir().join("pods/a/overlay/work/work");
        fs::create_dir_all(&work).unwrap();
        fs::write(work.join("file"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", killed.run_dir().join("link")).unwrap();
        fs::set_permissions(&work, Permissions::from_mode(0o000)).unwrap();
        fs::write(dir.0.join("state.redb"), "kept").unwrap();
        drop(killed);

        let next = Claim::take(&dir.0, 2).unwrap();
        assert_eq!(fs::read_dir(next.run_dir()).unwrap().count(), 0);
        assert_eq!(
            fs::read_to_string(dir.0.join("state.redb")).unwrap(),
            "kept"
        );
        assert!(Path::new("/etc/passwd").exists());
        next.release().unwrap();
        assert!(!dir.0.join(RUN).exists());
    }

    #[test]
    fn mount_points_are_read_with_their_blanks() {
        let text = "36 35 98:0 /mnt1 /mnt\\040two rw - ext3 /dev/root rw\n\
                    37 35 98:0 / /back\\134slash\\x rw - ext3 /dev/root rw\n";
        let expected = ["/mnt two", "/back\\slash\\x"].map(PathBuf::from);
        assert_eq!(mount_points(text), expected);
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let dir = Dir::new("file-in-the-way");
        fs::create_dir_all(&dir.0).unwrap();
        let path = dir.0.join("file");
        fs::write(&path, "").unwrap();
        let error = Claim::take(&path, 1).unwrap_err().to_string();
        assert_eq!(error, format!("cannot create directory {}", path.display()));
    }
}
