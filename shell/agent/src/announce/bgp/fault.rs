//! What is the matter with a session, in words that an operator can act on: pure.

use std::net::SocketAddr;

use portolan_announce::bgp::{Notice, Reason, Stop, code};
use portolan_model::workloads::Peer;

/// What is the matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The reason of the event that tells of it.
    pub(super) reason: &'static str,
    /// What an operator reads.
    pub(super) text: String,
}

impl Fault {
    fn new(reason: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { reason, text }
    }

    /// The password of a session is not known.
    pub(super) fn no_password(why: String) -> Self {
        Self::new("PasswordUnknown", why)
    }

    /// Nobody answered an attempt to connect.
    pub(super) fn no_answer(peer: &Peer) -> Self {
        let at = at(peer);
        let why = match &peer.password {
            Some(_) => "is it reachable, and is its password for this node the same?",
            None => "is it reachable, and does it ask for no password?",
        };
        Self::new("PeerUnreachable", format!("no answer from {at}: {why}"))
    }

    /// An attempt to connect was refused.
    pub(super) fn refused(peer: &Peer, error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::TimedOut {
            return Self::no_answer(peer);
        }
        let text = format!("no connection to {}: {}", at(peer), said(error));
        Self::new("PeerUnreachable", text)
    }

    /// Why a session ended or did not come up; none if it was meant to. `attempt` is why
    /// the last connection was not opened.
    pub(super) fn of(reason: &Reason, peer: &Peer, attempt: Option<&Self>) -> Option<Self> {
        Some(match reason {
            Reason::Stopped(Stop::PathDown) => {
                Self::new("PathDown", format!("BFD: no path to {}", at(peer)))
            }
            Reason::Stopped(Stop::Shutdown | Stop::Deconfigured | Stop::Changed) | Reason::Left => {
                return None;
            }
            Reason::Unreachable => attempt.cloned().unwrap_or_else(|| Self::no_answer(peer)),
            Reason::Lost => Self::new("ConnectionLost", lost(peer)),
            Reason::Received(notice) => Self::received(notice, peer),
            Reason::Sent(notice) => Self::sent(notice, peer),
        })
    }

    /// The peer ended it.
    fn received(notice: &Notice, peer: &Peer) -> Self {
        let Peer {
            local_as, peer_as, ..
        } = peer;
        let (reason, why) = match (notice.code, notice.subcode) {
            (code::OPEN, 2) => (
                "WrongASN",
                format!("it does not expect AS {local_as} (localASN) of this node"),
            ),
            (code::OPEN, 3) => (
                "SessionRefused",
                "it has our BGP identifier itself, or another session with it (routerID)".into(),
            ),
            (code::OPEN, 6) => ("SessionRefused", "it does not take our hold time".into()),
            (code::OPEN, 7) => (
                "SessionRefused",
                "it lacks something that we offer: are its address families the same?".into(),
            ),
            (code::HOLD_TIMER, _) => ("HoldTimerExpired", "it heard nothing of this node".into()),
            (code::CEASE, 1) => (
                "PrefixLimit",
                "it takes no more prefixes: its limit for this node is reached".into(),
            ),
            (code::CEASE, 2) => ("SessionClosed", "it was shut down there".into()),
            (code::CEASE, 3) => (
                "SessionClosed",
                "this node is no longer configured there".into(),
            ),
            (code::CEASE, 4) => ("SessionReset", "it was reset there".into()),
            (code::CEASE, 5) => (
                "SessionRefused",
                format!("it refuses this node: is this a neighbour there, of AS {local_as}?"),
            ),
            (code::CEASE, 6) => ("SessionReset", "its configuration has changed".into()),
            (code::CEASE, 8) => ("SessionRefused", "it has no room for a session".into()),
            (code::CEASE, 10) => ("PathDown", "its BFD lost this node".into()),
            _ => ("SessionClosed", String::new()),
        };
        let who = format!("{} (AS {peer_as})", at(peer));
        let text = match why.is_empty() {
            true => format!("{who} says: {notice}"),
            false => format!("{who} says: {notice}: {why}"),
        };
        Self::new(reason, text)
    }

    /// We ended it.
    fn sent(notice: &Notice, peer: &Peer) -> Self {
        let at = at(peer);
        match (notice.code, notice.subcode) {
            (code::OPEN, 2) => {
                let said = notice.data.first_chunk::<4>();
                let said = said.map_or(0, |bytes| u32::from_be_bytes(*bytes));
                let text = format!("{at} is AS {said}, and peerASN says {}", peer.peer_as);
                Self::new("WrongASN", text)
            }
            (code::HOLD_TIMER, _) => {
                let text = format!("nothing was heard from {at} for the hold time");
                Self::new("HoldTimerExpired", text)
            }
            (code::CEASE, 1) => {
                let most = peer.max_prefixes.unwrap_or(0);
                let text = format!("{at} announces more than {most} prefixes (maxPrefixes)");
                Self::new("PrefixLimit", text)
            }
            _ => Self::new("SessionClosed", format!("told {at}: {notice}")),
        }
    }
}

fn at(peer: &Peer) -> String {
    match peer.address {
        Some(address) => SocketAddr::new(address, peer.port).to_string(),
        None => peer.meta.key.to_string(),
    }
}

/// A peer that hangs up on whoever it does not know says nothing.
fn lost(peer: &Peer) -> String {
    format!(
        "{} hung up without a word: does it know this node as a neighbour, of AS {}?",
        at(peer),
        peer.local_as
    )
}

/// What the kernel said, without its number.
fn said(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use portolan_model::workloads::Object;
    use serde_json::json;

    use super::*;

    #[test]
    fn l10_faults_are_told_in_words() {
        let peer = Peer::read(&json!({"metadata": {"name": "tor"}, "spec": {
            "localASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1", "maxPrefixes": 5,
        }}));
        let received = |code, subcode| Reason::Received(Notice::new(code, subcode));
        let sent = |code, subcode| Reason::Sent(Notice::new(code, subcode));
        let other = Notice {
            data: 64_999_u32.to_be_bytes().to_vec().into(),
            ..Notice::new(2, 2)
        };
        for (why, reason, part) in [
            (
                received(2, 2),
                "WrongASN",
                "does not expect AS 64512 (localASN)",
            ),
            (
                Reason::Sent(other),
                "WrongASN",
                "192.0.2.1:179 is AS 64999, and peerASN says 64513",
            ),
            (received(6, 1), "PrefixLimit", "takes no more prefixes"),
            (
                sent(6, 1),
                "PrefixLimit",
                "more than 5 prefixes (maxPrefixes)",
            ),
            (
                sent(4, 0),
                "HoldTimerExpired",
                "nothing was heard from 192.0.2.1:179",
            ),
            (received(6, 4), "SessionReset", "Administrative Reset (6/4)"),
            (received(1, 1), "SessionClosed", "(1/1)"),
            (
                Reason::Stopped(Stop::PathDown),
                "PathDown",
                "no path to 192.0.2.1:179",
            ),
            (Reason::Lost, "ConnectionLost", "hung up"),
            (
                Reason::Unreachable,
                "PeerUnreachable",
                "does it ask for no password?",
            ),
        ] {
            let fault = Fault::of(&why, &peer, None).unwrap();
            assert_eq!(fault.reason, reason, "{fault:?}");
            assert!(fault.text.contains(part), "{part:?} in {fault:?}");
        }
        for meant in [Reason::Left, Reason::Stopped(Stop::Changed)] {
            assert_eq!(Fault::of(&meant, &peer, None), None);
        }
        let error = std::io::Error::from_raw_os_error(111);
        let refused = Fault::refused(&peer, &error);
        assert_eq!(
            refused.text,
            "no connection to 192.0.2.1:179: connection refused"
        );
        let of = Fault::of(&Reason::Unreachable, &peer, Some(&refused));
        assert_eq!(of, Some(refused));
    }
}
