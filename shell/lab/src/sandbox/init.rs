//! PID 1 of the lab: furnishes the namespaces, starts the lab, then does
//! nothing but reap orphans and relay signals until the lab ends.

use nix::{
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork, setsid},
};

use super::{
    setup::{Gate, furnish},
    watched_signals,
};

/// Exit code of an init that found no broker or could not furnish the lab.
const NO_LAB: i32 = 1;

/// Turns the freshly cloned child into init and returns in its child, the lab.
pub(super) fn become_init(mut gate: Gate, mask_before: &SigSet) {
    // Asked for before the gate: if the broker is dead already, the gate is shut.
    let tied = prctl::set_pdeathsig(Signal::SIGKILL);
    if tied.is_err() || !gate.wait() {
        end(NO_LAB);
    }
    let ready = setsid()
        .map_err(|errno| ("start a session", errno))
        .and_then(|_session| furnish())
        // SAFETY: this process has one thread.
        .and_then(|()| unsafe { fork() }.map_err(|errno| ("fork", errno)));
    match ready {
        Err((step, errno)) => {
            gate.refuse(step, errno);
            end(NO_LAB)
        }
        Ok(ForkResult::Parent { child }) => {
            drop(gate);
            prctl::set_name(c"portolan-init").ok();
            end(attend(child))
        }
        Ok(ForkResult::Child) => {
            drop(gate);
            prepare_lab(mask_before);
        }
    }
}

/// The lab starts with the signal mask of the original process and as many
/// descriptors as it may have: each pod and each lab node needs several.
fn prepare_lab(mask_before: &SigSet) {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask_before), None).ok();
    if let Ok((_soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).ok();
    }
}

/// Reaps and relays until the lab has ended; its exit code.
fn attend(lab: Pid) -> i32 {
    let signals = watched_signals();
    loop {
        if let Some(code) = reap(lab) {
            return code;
        }
        match signals.wait() {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            Ok(signal) => {
                kill(lab, signal).ok();
            }
        }
    }
}

/// Collects every child that has ended; the exit code if the lab is among them.
fn reap(lab: Pid) -> Option<i32> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(_) => return None,
            Ok(status) if status.pid() == Some(lab) => {
                if let Some(code) = exit_code(status) {
                    return Some(code);
                }
            }
            Ok(_) => {}
        }
    }
}

/// A shell's view of how a process ended; none if it has only stopped.
pub(crate) fn exit_code(status: WaitStatus) -> Option<i32> {
    if let WaitStatus::Exited(_, code) = status {
        Some(code)
    } else if let WaitStatus::Signaled(_, signal, _) = status {
        Some(128 + signal as i32)
    } else {
        None
    }
}

/// Ends init without running what the original program registered for its end.
fn end(code: i32) -> ! {
    // SAFETY: ends the process; nothing runs afterwards.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        let lab = Pid::from_raw(2);
        assert_eq!(exit_code(WaitStatus::Exited(lab, 3)), Some(3));
        assert_eq!(
            exit_code(WaitStatus::Signaled(lab, Signal::SIGKILL, false)),
            Some(137)
        );
        assert_eq!(exit_code(WaitStatus::StillAlive), None);
    }
}
