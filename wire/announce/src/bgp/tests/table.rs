//! Every cell of the table of RFC 4271 section 8.2.2.

use std::collections::BTreeMap;

use crate::bgp::fsm::{Action, Event, State, step};
use Action as A;
use Event as E;
use State as S;

type Rows = &'static [(&'static [Event], State, &'static [Action])];

/// What follows an error in every state.
const FAIL: [Action; 4] = [
    A::StopConnectRetry,
    A::Drop,
    A::CountFailure,
    A::StartIdleHold,
];

/// Errors that are said before: the rows of a state's table that differ in that only.
const fn idle() -> Rows {
    &[
        (
            &[E::Start],
            S::Connect,
            &[
                A::StopIdleHold,
                A::ResetCounter,
                A::StartConnectRetry,
                A::Connect,
            ],
        ),
        (
            &[E::IdleHoldExpires],
            S::Connect,
            &[A::StartConnectRetry, A::Connect],
        ),
        (&[E::ManualStop], S::Idle, &[A::StopIdleHold]),
        (&[E::Connected], S::Idle, &[A::Drop]),
        (
            &[
                E::AutomaticStop,
                E::ConnectRetryExpires,
                E::HoldExpires,
                E::KeepaliveExpires,
                E::ConnectionFails,
                E::Open,
                E::HeaderError,
                E::OpenError,
                E::CollisionDump,
                E::VersionNotification,
                E::Notification,
                E::Keepalive,
                E::Update,
                E::UpdateError,
                E::RouteRefresh,
            ],
            S::Idle,
            &[],
        ),
    ]
}

const fn connect() -> Rows {
    &[
        (&[E::Start], S::Connect, &[]),
        (
            &[E::ManualStop],
            S::Idle,
            &[A::StopConnectRetry, A::Drop, A::ResetCounter],
        ),
        (
            &[E::ConnectRetryExpires],
            S::Connect,
            &[A::Drop, A::StartConnectRetry, A::Connect],
        ),
        (
            &[E::Connected],
            S::OpenSent,
            &[A::StopConnectRetry, A::SendOpen, A::StartLargeHold],
        ),
        (
            &[E::ConnectionFails],
            S::Idle,
            &[A::StopConnectRetry, A::Drop, A::StartIdleHold],
        ),
        (
            &[
                E::AutomaticStop,
                E::HoldExpires,
                E::KeepaliveExpires,
                E::IdleHoldExpires,
                E::Open,
                E::HeaderError,
                E::OpenError,
                E::CollisionDump,
                E::VersionNotification,
                E::Notification,
                E::Keepalive,
                E::Update,
                E::UpdateError,
                E::RouteRefresh,
            ],
            S::Idle,
            &FAIL,
        ),
    ]
}

const fn active() -> Rows {
    &[
        (&[E::Start], S::Active, &[]),
        (
            &[E::ManualStop],
            S::Idle,
            &[A::StopConnectRetry, A::Drop, A::ResetCounter],
        ),
        (
            &[E::ConnectRetryExpires],
            S::Connect,
            &[A::StartConnectRetry, A::Connect],
        ),
        (
            &[E::Connected],
            S::OpenSent,
            &[A::StopConnectRetry, A::SendOpen, A::StartLargeHold],
        ),
        (
            &[
                E::ConnectionFails,
                E::AutomaticStop,
                E::HoldExpires,
                E::KeepaliveExpires,
                E::IdleHoldExpires,
                E::Open,
                E::HeaderError,
                E::OpenError,
                E::CollisionDump,
                E::VersionNotification,
                E::Notification,
                E::Keepalive,
                E::Update,
                E::UpdateError,
                E::RouteRefresh,
            ],
            S::Idle,
            &FAIL,
        ),
    ]
}

const fn open_sent() -> Rows {
    &[
        (&[E::Start, E::Connected], S::OpenSent, &[]),
        (
            &[E::ManualStop],
            S::Idle,
            &[
                A::NotifyCause,
                A::StopConnectRetry,
                A::Drop,
                A::ResetCounter,
            ],
        ),
        (
            &[E::ConnectionFails],
            S::Active,
            &[A::Drop, A::StartConnectRetry],
        ),
        (
            &[E::Open],
            S::OpenConfirm,
            &[
                A::StopConnectRetry,
                A::SendKeepalive,
                A::StartKeepalive,
                A::StartHold,
            ],
        ),
        (
            &[E::VersionNotification],
            S::Idle,
            &[A::StopConnectRetry, A::Drop, A::StartIdleHold],
        ),
        (&[E::Notification], S::Idle, &FAIL),
        (
            &[E::HoldExpires],
            S::Idle,
            &[A::NotifyHold, FAIL[0], FAIL[1], FAIL[2], FAIL[3]],
        ),
        (
            &[E::CollisionDump],
            S::Idle,
            &[A::NotifyCollision, FAIL[0], FAIL[1], FAIL[2], FAIL[3]],
        ),
        (
            &[E::AutomaticStop, E::HeaderError, E::OpenError],
            S::Idle,
            &[A::NotifyCause, FAIL[0], FAIL[1], FAIL[2], FAIL[3]],
        ),
        (
            &[
                E::ConnectRetryExpires,
                E::KeepaliveExpires,
                E::IdleHoldExpires,
                E::Keepalive,
                E::Update,
                E::UpdateError,
                E::RouteRefresh,
            ],
            S::Idle,
            &[A::NotifyUnexpected, FAIL[0], FAIL[1], FAIL[2], FAIL[3]],
        ),
    ]
}

const fn open_confirm() -> Rows {
    &[
        (&[E::Start, E::Connected], S::OpenConfirm, &[]),
        (
            &[E::ManualStop],
            S::Idle,
            &[
                A::NotifyCause,
                A::StopConnectRetry,
                A::Drop,
                A::ResetCounter,
            ],
        ),
        (
            &[E::KeepaliveExpires],
            S::OpenConfirm,
            &[A::SendKeepalive, A::StartKeepalive],
        ),
        (&[E::Keepalive], S::Established, &[A::StartHold, A::Up]),
        (
            &[E::VersionNotification],
            S::Idle,
            &[A::StopConnectRetry, A::Drop, A::StartIdleHold],
        ),
        (&[E::ConnectionFails, E::Notification], S::Idle, &FAIL),
        (
            &[E::HoldExpires],
            S::Idle,
            &[A::NotifyHold, FAIL[0], FAIL[1], FAIL[2], FAIL[3]],
        ),
        (
            &[E::CollisionDump],
            S::Idle,
            &[A::NotifyCollision, FAIL[0], FAIL[1], FAIL[2], FAIL[3]],
        ),
        (
            &[E::AutomaticStop, E::HeaderError, E::OpenError],
            S::Idle,
            &[A::NotifyCause, FAIL[0], FAIL[1], FAIL[2], FAIL[3]],
        ),
        (
            &[
                E::ConnectRetryExpires,
                E::IdleHoldExpires,
                E::Open,
                E::Update,
                E::UpdateError,
                E::RouteRefresh,
            ],
            S::Idle,
            &[A::NotifyUnexpected, FAIL[0], FAIL[1], FAIL[2], FAIL[3]],
        ),
    ]
}

const fn established() -> Rows {
    &[
        (&[E::Start, E::Connected], S::Established, &[]),
        (
            &[E::ManualStop],
            S::Idle,
            &[
                A::NotifyCause,
                A::Down,
                A::StopConnectRetry,
                A::Drop,
                A::ResetCounter,
            ],
        ),
        (
            &[E::KeepaliveExpires],
            S::Established,
            &[A::SendKeepalive, A::StartKeepalive],
        ),
        (&[E::Keepalive], S::Established, &[A::StartHold]),
        (&[E::Update], S::Established, &[A::StartHold, A::Take]),
        (
            &[E::RouteRefresh],
            S::Established,
            &[A::StartHold, A::Refresh],
        ),
        (
            &[E::ConnectionFails, E::VersionNotification, E::Notification],
            S::Idle,
            &[A::Down, FAIL[0], FAIL[1], FAIL[2], FAIL[3]],
        ),
        (
            &[E::HoldExpires],
            S::Idle,
            &[A::NotifyHold, A::Down, FAIL[0], FAIL[1], FAIL[2], FAIL[3]],
        ),
        (
            &[E::CollisionDump],
            S::Idle,
            &[
                A::NotifyCollision,
                A::Down,
                FAIL[0],
                FAIL[1],
                FAIL[2],
                FAIL[3],
            ],
        ),
        (
            &[E::AutomaticStop, E::HeaderError, E::UpdateError],
            S::Idle,
            &[A::NotifyCause, A::Down, FAIL[0], FAIL[1], FAIL[2], FAIL[3]],
        ),
        (
            &[
                E::ConnectRetryExpires,
                E::IdleHoldExpires,
                E::Open,
                E::OpenError,
            ],
            S::Idle,
            &[
                A::NotifyUnexpected,
                A::Down,
                FAIL[0],
                FAIL[1],
                FAIL[2],
                FAIL[3],
            ],
        ),
    ]
}

const fn rows(state: State) -> Rows {
    match state {
        S::Idle => idle(),
        S::Connect => connect(),
        S::Active => active(),
        S::OpenSent => open_sent(),
        S::OpenConfirm => open_confirm(),
        S::Established => established(),
    }
}

#[test]
fn l10_every_event_in_every_state_does_what_the_table_says() {
    let mut cells = BTreeMap::new();
    for state in State::ALL {
        for (events, next, actions) in rows(state) {
            for event in *events {
                let cell = cells.insert((state, *event), ());
                assert_eq!(cell, None, "{state:?} {event:?} stands in the table twice");
                let found = step(state, *event, false);
                assert_eq!(found, (*next, *actions), "{state:?} {event:?}");
            }
        }
    }
    assert_eq!(cells.len(), State::ALL.len() * Event::ALL.len());
}

/// A passive peer differs in three cells: it never connects.
#[test]
fn l10_a_passive_peer_never_connects() {
    for state in State::ALL {
        for event in Event::ALL {
            let (next, actions) = step(state, event, true);
            if state != S::Connect {
                assert!(!actions.contains(&A::Connect), "{state:?} {event:?}");
                assert_ne!(next, S::Connect, "{state:?} {event:?}");
            }
            let differs = (next, actions) != step(state, event, false);
            let expected = matches!(
                (state, event),
                (S::Idle, E::Start | E::IdleHoldExpires) | (S::Active, E::ConnectRetryExpires)
            );
            assert_eq!(differs, expected, "{state:?} {event:?}");
        }
    }
    assert_eq!(
        step(S::Idle, E::Start, true),
        (S::Active, &[A::StopIdleHold, A::ResetCounter][..])
    );
    assert_eq!(
        step(S::Idle, E::IdleHoldExpires, true),
        (S::Active, &[][..])
    );
    assert_eq!(
        step(S::Active, E::ConnectRetryExpires, true),
        (S::Active, &[][..])
    );
}

/// What holds of the table as a whole.
#[test]
fn whatever_leads_to_idle_drops_the_connection_and_only_established_goes_down() {
    for state in State::ALL {
        for event in Event::ALL {
            let (next, actions) = step(state, event, false);
            let up = actions.contains(&A::Up);
            let down = actions.contains(&A::Down);
            assert_eq!(up, state != S::Established && next == S::Established);
            assert_eq!(down, state == S::Established && next != S::Established);
            if state != S::Idle && next == S::Idle {
                assert!(actions.contains(&A::Drop), "{state:?} {event:?}");
                let automatic = actions.contains(&A::StartIdleHold);
                assert_eq!(automatic, event != E::ManualStop, "{state:?} {event:?}");
            }
        }
    }
}
