//! The states of one connection, and what each event does to them (RFC 4271
//! section 8).
//!
//! [`step`] is the table of section 8.2.2 as a function: nothing is remembered
//! here, and nothing done. Of the optional session attributes there are
//! AllowAutomaticStart, DampPeerOscillations (every failure starts the IdleHold
//! timer, whose end starts the session again), PassiveTcpEstablishment, and
//! CollisionDetectEstablishedState.
//!
//! Where the text leaves something open, or nobody follows it:
//! - A NOTIFICATION is never answered by one (section 6.4), although section 8.2.2
//!   asks for it in OpenSent.
//! - A broken header gets its own NOTIFICATION in Established too (section 6.1),
//!   where section 8.2.2 counts it among unexpected events.
//! - A second OPEN on a connection is an unexpected message.
//! - A ROUTE-REFRESH (RFC 2918) is treated as an UPDATE is.

/// The states of section 8.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing is tried, and no connection taken.
    Idle,
    /// A connection is being opened.
    Connect,
    /// A connection of the peer's is waited for.
    Active,
    /// Our OPEN is out.
    OpenSent,
    /// Both OPENs are.
    OpenConfirm,
    /// Routes may be exchanged.
    Established,
}

impl State {
    /// All states.
    pub const ALL: [Self; 6] = [
        Self::Idle,
        Self::Connect,
        Self::Active,
        Self::OpenSent,
        Self::OpenConfirm,
        Self::Established,
    ];
}

/// What may happen, with the numbers of section 8.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// 1 and 3 (4 and 5 for a passive peer): the peer is to be talked to.
    Start,
    /// 2: the peer is not to be talked to any more.
    ManualStop,
    /// 8: something else ends the session: too many prefixes, a broken path.
    AutomaticStop,
    /// 9: a connection attempt took too long.
    ConnectRetryExpires,
    /// 10: nothing was heard for the hold time.
    HoldExpires,
    /// 11: something must be said.
    KeepaliveExpires,
    /// 13: the wait after a failure is over.
    IdleHoldExpires,
    /// 16 and 17: there is a connection, ours or the peer's.
    Connected,
    /// 18: there is none, or no longer.
    ConnectionFails,
    /// 19: a valid OPEN.
    Open,
    /// 21: a message whose header is broken.
    HeaderError,
    /// 22: an OPEN that is not acceptable.
    OpenError,
    /// 23: this connection is the one too many.
    CollisionDump,
    /// 24: a NOTIFICATION about the version.
    VersionNotification,
    /// 25: any other NOTIFICATION.
    Notification,
    /// 26: a KEEPALIVE.
    Keepalive,
    /// 27: an UPDATE that can be used.
    Update,
    /// 28: an UPDATE that cannot.
    UpdateError,
    /// A ROUTE-REFRESH (RFC 2918 gives it no number).
    RouteRefresh,
}

impl Event {
    /// All events.
    pub const ALL: [Self; 19] = [
        Self::Start,
        Self::ManualStop,
        Self::AutomaticStop,
        Self::ConnectRetryExpires,
        Self::HoldExpires,
        Self::KeepaliveExpires,
        Self::IdleHoldExpires,
        Self::Connected,
        Self::ConnectionFails,
        Self::Open,
        Self::HeaderError,
        Self::OpenError,
        Self::CollisionDump,
        Self::VersionNotification,
        Self::Notification,
        Self::Keepalive,
        Self::Update,
        Self::UpdateError,
        Self::RouteRefresh,
    ];
}

/// What is to be done, in the order given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Open a connection.
    Connect,
    /// Close the connection, or give up the attempt at one; its hold and keepalive
    /// timers end with it.
    Drop,
    /// Start the ConnectRetry timer anew.
    StartConnectRetry,
    /// Stop it.
    StopConnectRetry,
    /// Start the IdleHold timer.
    StartIdleHold,
    /// Stop it.
    StopIdleHold,
    /// The hold timer, with the large value of four minutes.
    StartLargeHold,
    /// The hold timer, with the agreed value.
    StartHold,
    /// The keepalive timer.
    StartKeepalive,
    /// ConnectRetryCounter := 0.
    ResetCounter,
    /// One failure more.
    CountFailure,
    /// Say OPEN.
    SendOpen,
    /// Say KEEPALIVE.
    SendKeepalive,
    /// Say NOTIFICATION, as the event has it (errors, the reason of a stop).
    NotifyCause,
    /// Say NOTIFICATION: Hold Timer Expired.
    NotifyHold,
    /// Say NOTIFICATION: Cease, Connection Collision Resolution.
    NotifyCollision,
    /// Say NOTIFICATION: Finite State Machine Error, with the subcode of the state
    /// that it happened in (RFC 6608).
    NotifyUnexpected,
    /// The session is up.
    Up,
    /// The session is no longer up.
    Down,
    /// Take the UPDATE.
    Take,
    /// Announce everything of a family again.
    Refresh,
}

use Action as A;
use Event as E;
use State as S;

/// The next state, and what is to be done.
pub type Step = (State, &'static [Action]);

/// A failure: what is said before, and what follows in every case.
macro_rules! fail {
    ($($before:expr),*) => {
        (S::Idle, &[$($before,)* A::StopConnectRetry, A::Drop, A::CountFailure, A::StartIdleHold])
    };
}

/// What an event does in a state. `passive` is whether connections are the peer's
/// to open.
#[must_use]
pub fn step(state: State, event: Event, passive: bool) -> Step {
    match state {
        S::Idle => idle(event, passive),
        S::Connect => connect(event),
        S::Active => active(event, passive),
        S::OpenSent => open_sent(event),
        S::OpenConfirm => open_confirm(event),
        S::Established => established(event),
    }
}

const fn idle(event: Event, passive: bool) -> Step {
    match (event, passive) {
        (E::Start, false) => (
            S::Connect,
            &[
                A::StopIdleHold,
                A::ResetCounter,
                A::StartConnectRetry,
                A::Connect,
            ],
        ),
        (E::Start, true) => (S::Active, &[A::StopIdleHold, A::ResetCounter]),
        (E::IdleHoldExpires, false) => (S::Connect, &[A::StartConnectRetry, A::Connect]),
        (E::IdleHoldExpires, true) => (S::Active, &[]),
        // No automatic start after it.
        (E::ManualStop, _) => (S::Idle, &[A::StopIdleHold]),
        // Refused, or a late success of an attempt that was given up.
        (E::Connected, _) => (S::Idle, &[A::Drop]),
        (
            E::AutomaticStop
            | E::ConnectRetryExpires
            | E::HoldExpires
            | E::KeepaliveExpires
            | E::ConnectionFails
            | E::Open
            | E::HeaderError
            | E::OpenError
            | E::CollisionDump
            | E::VersionNotification
            | E::Notification
            | E::Keepalive
            | E::Update
            | E::UpdateError
            | E::RouteRefresh,
            _,
        ) => (S::Idle, &[]),
    }
}

const fn connect(event: Event) -> Step {
    match event {
        E::Start => (S::Connect, &[]),
        E::ManualStop => (S::Idle, &[A::StopConnectRetry, A::Drop, A::ResetCounter]),
        E::ConnectRetryExpires => (S::Connect, &[A::Drop, A::StartConnectRetry, A::Connect]),
        E::Connected => (
            S::OpenSent,
            &[A::StopConnectRetry, A::SendOpen, A::StartLargeHold],
        ),
        // No failure of the protocol: it is not counted.
        E::ConnectionFails => (S::Idle, &[A::StopConnectRetry, A::Drop, A::StartIdleHold]),
        E::AutomaticStop
        | E::HoldExpires
        | E::KeepaliveExpires
        | E::IdleHoldExpires
        | E::Open
        | E::HeaderError
        | E::OpenError
        | E::CollisionDump
        | E::VersionNotification
        | E::Notification
        | E::Keepalive
        | E::Update
        | E::UpdateError
        | E::RouteRefresh => fail!(),
    }
}

const fn active(event: Event, passive: bool) -> Step {
    match event {
        E::Start => (S::Active, &[]),
        E::ManualStop => (S::Idle, &[A::StopConnectRetry, A::Drop, A::ResetCounter]),
        E::ConnectRetryExpires if passive => (S::Active, &[]),
        E::ConnectRetryExpires => (S::Connect, &[A::StartConnectRetry, A::Connect]),
        E::Connected => (
            S::OpenSent,
            &[A::StopConnectRetry, A::SendOpen, A::StartLargeHold],
        ),
        E::ConnectionFails
        | E::AutomaticStop
        | E::HoldExpires
        | E::KeepaliveExpires
        | E::IdleHoldExpires
        | E::Open
        | E::HeaderError
        | E::OpenError
        | E::CollisionDump
        | E::VersionNotification
        | E::Notification
        | E::Keepalive
        | E::Update
        | E::UpdateError
        | E::RouteRefresh => fail!(),
    }
}

const fn open_sent(event: Event) -> Step {
    match event {
        // A second connection has a machine of its own.
        E::Start | E::Connected => (S::OpenSent, &[]),
        E::ManualStop => (
            S::Idle,
            &[
                A::NotifyCause,
                A::StopConnectRetry,
                A::Drop,
                A::ResetCounter,
            ],
        ),
        E::AutomaticStop | E::HeaderError | E::OpenError => fail!(A::NotifyCause),
        E::HoldExpires => fail!(A::NotifyHold),
        E::ConnectionFails => (S::Active, &[A::Drop, A::StartConnectRetry]),
        E::Open => (
            S::OpenConfirm,
            &[
                A::StopConnectRetry,
                A::SendKeepalive,
                A::StartKeepalive,
                A::StartHold,
            ],
        ),
        E::CollisionDump => fail!(A::NotifyCollision),
        E::VersionNotification => (S::Idle, &[A::StopConnectRetry, A::Drop, A::StartIdleHold]),
        E::Notification => fail!(),
        E::ConnectRetryExpires
        | E::KeepaliveExpires
        | E::IdleHoldExpires
        | E::Keepalive
        | E::Update
        | E::UpdateError
        | E::RouteRefresh => fail!(A::NotifyUnexpected),
    }
}

const fn open_confirm(event: Event) -> Step {
    match event {
        E::Start | E::Connected => (S::OpenConfirm, &[]),
        E::ManualStop => (
            S::Idle,
            &[
                A::NotifyCause,
                A::StopConnectRetry,
                A::Drop,
                A::ResetCounter,
            ],
        ),
        E::AutomaticStop | E::HeaderError | E::OpenError => fail!(A::NotifyCause),
        E::HoldExpires => fail!(A::NotifyHold),
        E::KeepaliveExpires => (S::OpenConfirm, &[A::SendKeepalive, A::StartKeepalive]),
        E::ConnectionFails | E::Notification => fail!(),
        E::VersionNotification => (S::Idle, &[A::StopConnectRetry, A::Drop, A::StartIdleHold]),
        E::CollisionDump => fail!(A::NotifyCollision),
        E::Keepalive => (S::Established, &[A::StartHold, A::Up]),
        E::ConnectRetryExpires
        | E::IdleHoldExpires
        | E::Open
        | E::Update
        | E::UpdateError
        | E::RouteRefresh => fail!(A::NotifyUnexpected),
    }
}

const fn established(event: Event) -> Step {
    match event {
        E::Start | E::Connected => (S::Established, &[]),
        E::ManualStop => (
            S::Idle,
            &[
                A::NotifyCause,
                A::Down,
                A::StopConnectRetry,
                A::Drop,
                A::ResetCounter,
            ],
        ),
        E::AutomaticStop | E::HeaderError | E::UpdateError => fail!(A::NotifyCause, A::Down),
        E::HoldExpires => fail!(A::NotifyHold, A::Down),
        E::KeepaliveExpires => (S::Established, &[A::SendKeepalive, A::StartKeepalive]),
        E::ConnectionFails | E::VersionNotification | E::Notification => fail!(A::Down),
        E::CollisionDump => fail!(A::NotifyCollision, A::Down),
        E::Keepalive => (S::Established, &[A::StartHold]),
        E::Update => (S::Established, &[A::StartHold, A::Take]),
        E::RouteRefresh => (S::Established, &[A::StartHold, A::Refresh]),
        E::ConnectRetryExpires | E::IdleHoldExpires | E::Open | E::OpenError => {
            fail!(A::NotifyUnexpected, A::Down)
        }
    }
}
