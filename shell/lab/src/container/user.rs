//! Being somebody else than root.

use std::io;

use nix::{
    errno::Errno,
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use serde::{Deserialize, Serialize};

/// The user of a container's processes. The default is root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// `runAsUser`
    pub uid: u32,
    /// `runAsGroup`
    pub gid: u32,
    /// `supplementalGroups` and `fsGroup`.
    pub groups: Vec<u32>,
}

impl User {
    /// Makes this process, which has one thread, the user's.
    pub(super) fn assume(&self) -> Result<(), String> {
        let refused = |what: String| {
            move |e: Errno| match e == Errno::EINVAL {
                true => format!(
                    "cannot run as {what}: this lab has no user but its own, which pods see as root; start it as root for more"
                ),
                false => format!("cannot run as {what}: {}", e.desc().to_lowercase()),
            }
        };
        for fd in 0..=2 {
            // SAFETY: takes plain numbers. What cannot be given away is only
            // not opened anew through /dev/stdout.
            unsafe { libc::fchown(fd, self.uid, self.gid) };
        }
        let groups: Vec<Gid> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        match setgroups(&groups) {
            // Whoever is alone in a user namespace owns all files that there are.
            Ok(()) | Err(Errno::EPERM | Errno::EINVAL) => {}
            Err(e) => return Err(refused(format!("groups {:?}", self.groups))(e)),
        }
        let gid = Gid::from_raw(self.gid);
        setresgid(gid, gid, gid).map_err(refused(format!("group {}", self.gid)))?;
        let uid = Uid::from_raw(self.uid);
        setresuid(uid, uid, uid).map_err(refused(format!("user {}", self.uid)))?;
        // The kernel forgets this with every change of user.
        set_pdeathsig(Signal::SIGKILL).map_err(|e| io::Error::from(e).to_string())
    }
}
