//! What events do to a session: the table's actions, carried out.

use std::time::Duration;

use bytes::Bytes;
use rustbgpd_wire::{
    Message, NotificationCode, NotificationMessage, OpenMessage, UpdateMessage, encode_message,
};

use super::machine::Machine;
use super::{Connection, News, Output, Reason, Session, Slot, Stop};
use crate::bgp::config::Family;
use crate::bgp::fsm::{self, Action, Event, State};
use crate::bgp::open;
use crate::bgp::received;
use crate::bgp::{Notice, code};

/// The hold time before an OPEN says one (RFC 4271 section 8.2.2).
const LARGE_HOLD: Duration = Duration::from_secs(240);

impl Session {
    /// The machine of a slot. There is always a main one.
    pub(super) fn machine(&mut self, slot: Slot) -> &mut Machine {
        match (slot, &mut self.second) {
            (Slot::Second, Some(second)) => second,
            (Slot::Main | Slot::Second, _) => &mut self.main,
        }
    }

    pub(super) fn second_connection(&self) -> Option<Connection> {
        self.second.as_ref().and_then(|machine| machine.connection)
    }

    pub(super) fn slot_of(&self, connection: Connection) -> Option<Slot> {
        if self.main.connection == Some(connection) {
            return Some(Slot::Main);
        }
        (self.second_connection() == Some(connection)).then_some(Slot::Second)
    }

    pub(super) fn stop(&mut self, stop: Stop, now: Duration, out: &mut Vec<Output>) {
        let event = match stop {
            Stop::PathDown => Event::AutomaticStop,
            Stop::Shutdown | Stop::Deconfigured | Stop::Changed => Event::ManualStop,
        };
        if self.second.is_some() {
            self.cause = Some(Reason::Stopped(stop));
            self.event(Slot::Second, event, now, out);
        }
        self.cause = Some(Reason::Stopped(stop));
        self.event(Slot::Main, event, now, out);
    }

    pub(super) fn connected(&mut self, new: Connection, now: Duration, out: &mut Vec<Output>) {
        if !std::mem::take(&mut self.connecting) || self.main.connection.is_some() {
            out.push(Output::Close(new));
            return;
        }
        self.main.connection = Some(new);
        self.main.ours = true;
        self.event(Slot::Main, Event::Connected, now, out);
    }

    pub(super) fn accepted(&mut self, new: Connection, now: Duration, out: &mut Vec<Output>) {
        match self.main.state {
            State::Idle => out.push(Output::Close(new)),
            State::Active => {
                self.main.connection = Some(new);
                self.main.ours = false;
                self.event(Slot::Main, Event::Connected, now, out);
            }
            State::Connect | State::OpenSent | State::OpenConfirm | State::Established => {
                // A peer that connects again has given up what it opened before,
                // unless OPENs have gone both ways on it.
                match self.second.as_ref().map(|machine| machine.state) {
                    Some(State::OpenSent) => {
                        out.extend(self.second_connection().map(Output::Close));
                    }
                    None => {}
                    Some(_) => {
                        out.push(Output::Close(new));
                        return;
                    }
                }
                let mut machine = Machine::new(State::Active, Some(new));
                machine.after_established = self.main.state == State::Established;
                self.second = Some(machine);
                self.event(Slot::Second, Event::Connected, now, out);
            }
        }
    }

    pub(super) fn received(
        &mut self,
        connection: Connection,
        bytes: &[u8],
        now: Duration,
        out: &mut Vec<Output>,
    ) {
        if let Some(slot) = self.slot_of(connection) {
            self.machine(slot).stream.push(bytes);
        }
        // Each message may end the connection, or move it to the other slot.
        while let Some(slot) = self.slot_of(connection) {
            match self.machine(slot).stream.next_message() {
                Ok(None) => return,
                Ok(Some(message)) => self.message(slot, message, now, out),
                Err(notice) => {
                    let event = match notice.code {
                        code::OPEN => Event::OpenError,
                        code::UPDATE => Event::UpdateError,
                        _ => Event::HeaderError,
                    };
                    self.cause = Some(Reason::Sent(notice));
                    self.event(slot, event, now, out);
                }
            }
        }
    }

    fn message(&mut self, slot: Slot, message: Message, now: Duration, out: &mut Vec<Output>) {
        match message {
            Message::Open(open) => self.opened(slot, &open, now, out),
            Message::Keepalive => self.event(slot, Event::Keepalive, now, out),
            Message::Notification(said) => {
                let version = said.code == NotificationCode::OpenMessage && said.subcode == 1;
                self.cause = Some(Reason::Received(Notice {
                    code: said.code.as_u8(),
                    subcode: said.subcode,
                    data: said.data,
                }));
                let event = match version {
                    true => Event::VersionNotification,
                    false => Event::Notification,
                };
                self.event(slot, event, now, out);
            }
            Message::Update(update) => self.update(slot, &update, now, out),
            Message::RouteRefresh(request) => {
                // Other subtypes are of RFC 7313, which we do not offer.
                let family = Family::from_wire(request.afi(), request.safi());
                let plain = request.subtype_raw == 0;
                self.event(slot, Event::RouteRefresh, now, out);
                if let (Some(family), true) = (family, plain && self.agreed().is_some()) {
                    self.rib.refresh(family);
                    out.extend(self.flush());
                }
            }
            // The library may learn of more kinds; it refuses types it does not know.
            _ => {
                let notice = Notice::new(code::HEADER, 3);
                self.cause = Some(Reason::Sent(notice));
                self.event(slot, Event::HeaderError, now, out);
            }
        }
    }

    /// An OPEN: judged, then weighed against the other connection (section 6.8).
    fn opened(&mut self, slot: Slot, open: &OpenMessage, now: Duration, out: &mut Vec<Output>) {
        if self.machine(slot).state != State::OpenSent {
            self.event(slot, Event::Open, now, out);
            return;
        }
        let agreed = match open::judge(open, &self.config) {
            Ok(agreed) => agreed,
            Err(notice) => {
                self.cause = Some(Reason::Sent(notice));
                self.event(slot, Event::OpenError, now, out);
                return;
            }
        };
        let other = match slot {
            Slot::Main => Slot::Second,
            Slot::Second => Slot::Main,
        };
        let there = slot == Slot::Second || self.second.is_some();
        let connection = self.machine(slot).connection;
        match self.machine(other).state {
            _ if !there => {}
            State::OpenConfirm => {
                let keep_ours = (self.config.identifier, self.config.local_as)
                    > (agreed.identifier, self.config.peer_as);
                let loses = self.machine(slot).ours != keep_ours;
                let loser = if loses { slot } else { other };
                self.event(loser, Event::CollisionDump, now, out);
            }
            State::Established => {
                // RFC 4724 section 5: who comes again has restarted, and the old
                // connection is dead although we have not heard so.
                let restarts = self.machine(slot).after_established
                    && self.agreed().is_some_and(|known| known.restart.is_some());
                if restarts {
                    self.cause = Some(Reason::Lost);
                    self.event(other, Event::ConnectionFails, now, out);
                } else {
                    self.event(slot, Event::CollisionDump, now, out);
                }
            }
            State::Idle | State::Connect | State::Active | State::OpenSent => {}
        }
        if let Some(slot) = connection.and_then(|connection| self.slot_of(connection)) {
            self.machine(slot).agreed = Some(agreed);
            self.event(slot, Event::Open, now, out);
        }
    }

    fn update(&mut self, slot: Slot, update: &UpdateMessage, now: Duration, out: &mut Vec<Output>) {
        let internal = self.config.is_internal();
        let machine = self.machine(slot);
        let (State::Established, Some(agreed)) = (machine.state, &machine.agreed) else {
            self.event(slot, Event::Update, now, out);
            return;
        };
        let judged = received::judge(update, agreed, internal);
        self.updates_received += 1;
        match judged {
            Err(notice) => {
                self.cause = Some(Reason::Sent(notice));
                self.event(slot, Event::UpdateError, now, out);
            }
            Ok(judged) => {
                self.event(slot, Event::Update, now, out);
                self.count(judged, now, out);
            }
        }
    }

    /// Counts what the peer announces, if that is limited.
    fn count(&mut self, update: received::Update, now: Duration, out: &mut Vec<Output>) {
        if let Some(notice) = update.fault {
            self.updates_malformed += 1;
            out.push(Output::News(News::Malformed(notice)));
        }
        let Some(most) = self.config.most_prefixes else {
            return;
        };
        for prefix in update.withdrawn {
            self.received.remove(&prefix);
        }
        for prefix in update.announced {
            self.received.insert(prefix);
            if self.received.len() <= most {
                continue;
            }
            // RFC 4486 section 4: the family and the limit.
            let family = Family::of(prefix).afi() as u16;
            let limit = u32::try_from(most).unwrap_or(u32::MAX);
            let mut data = family.to_be_bytes().to_vec();
            data.push(1);
            data.extend_from_slice(&limit.to_be_bytes());
            self.cause = Some(Reason::Sent(Notice {
                code: code::CEASE,
                subcode: 1,
                data: Bytes::from(data),
            }));
            self.event(Slot::Main, Event::AutomaticStop, now, out);
            return;
        }
    }

    /// One event of one machine, by the table.
    pub(super) fn event(&mut self, slot: Slot, event: Event, now: Duration, out: &mut Vec<Output>) {
        // A second connection is the peer's, so it is never opened from here.
        let passive = self.config.passive || slot == Slot::Second;
        let before = self.machine(slot).state;
        let (next, actions) = fsm::step(before, event, passive);
        self.machine(slot).state = next;
        for action in actions {
            self.act(slot, before, *action, now, out);
        }
        let over = matches!(next, State::Idle | State::Active);
        if over && before > State::Active || before == State::Connect && next == State::Idle {
            self.ended(before, out);
        }
        self.cause = None;
        self.settle(slot, next, now, out);
    }

    /// Says why a machine came to its end.
    fn ended(&mut self, before: State, out: &mut Vec<Output>) {
        let reason = self.cause.take().unwrap_or(Reason::Lost);
        self.last = Some(reason.clone());
        out.push(Output::News(if before == State::Established {
            News::Down(reason)
        } else {
            News::Failed(reason)
        }));
    }

    /// The second machine goes when it ends, and takes the place of the main one
    /// when that has no connection any more or is no longer needed.
    fn settle(&mut self, slot: Slot, next: State, now: Duration, out: &mut Vec<Output>) {
        let over = matches!(next, State::Idle | State::Active);
        if slot == Slot::Second && over {
            self.second = None;
            return;
        }
        let takes_over = match slot {
            Slot::Main => over,
            Slot::Second => next == State::Established,
        };
        if takes_over && matches!(self.main.state, State::OpenSent | State::OpenConfirm) {
            // Its end brings the second here again.
            self.event(Slot::Main, Event::CollisionDump, now, out);
            return;
        }
        if takes_over && let Some(second) = self.second.take() {
            if std::mem::take(&mut self.connecting) {
                out.push(Output::CancelConnect);
            }
            out.extend(self.main.connection.take().map(Output::Close));
            self.main = second;
            self.connect_retry = None;
            self.idle_hold = None;
            if self.main.state == State::Established {
                self.begin(out);
            }
        }
    }

    fn act(
        &mut self,
        slot: Slot,
        before: State,
        action: Action,
        now: Duration,
        out: &mut Vec<Output>,
    ) {
        match action {
            Action::Connect => {
                self.connecting = true;
                out.push(Output::Connect);
            }
            Action::Drop => self.drop_connection(slot, out),
            Action::StartConnectRetry if slot == Slot::Main && !self.config.passive => {
                // An attempt that may take no time would be made again at once, for ever.
                let time = self.config.connect_retry.max(Duration::from_secs(1));
                let time = self.random.jitter(time, 100);
                self.connect_retry = Some(now + time);
            }
            Action::StopConnectRetry if slot == Slot::Main => self.connect_retry = None,
            Action::StartIdleHold if slot == Slot::Main => self.start_idle_hold(now),
            Action::StopIdleHold if slot == Slot::Main => self.idle_hold = None,
            Action::StartConnectRetry
            | Action::StopConnectRetry
            | Action::StartIdleHold
            | Action::StopIdleHold => {}
            Action::StartLargeHold => self.machine(slot).hold = Some(now + LARGE_HOLD),
            Action::StartHold => self.start_hold(slot, now),
            Action::StartKeepalive => self.start_keepalive(slot, now),
            Action::ResetCounter => self.failures = 0,
            // Whatever connects beside a session says nothing about it.
            Action::CountFailure if slot == Slot::Second => {}
            Action::CountFailure => self.failures = self.failures.saturating_add(1),
            Action::SendOpen => {
                let open = open::ours(&self.config, self.restarted);
                self.send(slot, &Message::Open(open), out);
            }
            Action::SendKeepalive => self.send(slot, &Message::Keepalive, out),
            Action::NotifyCause => {
                let notice = match &self.cause {
                    Some(Reason::Stopped(stop)) => stop.notice(),
                    Some(Reason::Sent(notice)) => notice.clone(),
                    _ => Stop::Shutdown.notice(),
                };
                self.notify(slot, notice, out);
            }
            Action::NotifyHold => self.notify_as_cause(slot, (code::HOLD_TIMER, 0), out),
            Action::NotifyCollision => self.notify_as_cause(slot, (code::CEASE, 7), out),
            Action::NotifyUnexpected => {
                let subcode = match before {
                    State::OpenSent => 1,
                    State::OpenConfirm => 2,
                    State::Established => 3,
                    State::Idle | State::Connect | State::Active => 0,
                };
                self.notify_as_cause(slot, (code::STATE_MACHINE, subcode), out);
            }
            Action::Up => self.up(slot, now, out),
            Action::Down => self.down(now),
            // What the UPDATE says is counted by who judged it, and what is asked
            // for again is sent by who read the request.
            Action::Take | Action::Refresh => {}
        }
    }

    fn drop_connection(&mut self, slot: Slot, out: &mut Vec<Output>) {
        if slot == Slot::Main && std::mem::take(&mut self.connecting) {
            out.push(Output::CancelConnect);
        }
        let state = self.machine(slot).state;
        let old = std::mem::replace(self.machine(slot), Machine::new(state, None));
        out.extend(old.connection.map(Output::Close));
    }

    fn start_idle_hold(&mut self, now: Duration) {
        let doublings = self.failures.saturating_sub(1).min(16);
        let time = self.config.idle_hold.saturating_mul(1 << doublings);
        let most = self.config.most_idle_hold;
        self.idle_hold = Some(now + self.random.jitter(time.min(most), 100));
    }

    fn start_hold(&mut self, slot: Slot, now: Duration) {
        let machine = self.machine(slot);
        let time = machine.agreed.as_ref().map(|agreed| agreed.hold_time);
        machine.hold = time.filter(|t| !t.is_zero()).map(|time| now + time);
    }

    fn start_keepalive(&mut self, slot: Slot, now: Duration) {
        let agreed = self.machine(slot).agreed.as_ref();
        let time = agreed.map(|agreed| agreed.hold_time / 3);
        let time = time.filter(|t| !t.is_zero());
        let time = time.map(|time| self.random.jitter(time, 100));
        self.machine(slot).keepalive = time.map(|time| now + time);
    }

    fn send(&mut self, slot: Slot, message: &Message, out: &mut Vec<Output>) {
        let connection = self.machine(slot).connection;
        if let (Some(connection), Ok(bytes)) = (connection, encode_message(message)) {
            out.push(Output::Send(connection, bytes.to_vec()));
        }
    }

    fn notify_as_cause(&mut self, slot: Slot, (code, subcode): (u8, u8), out: &mut Vec<Output>) {
        let notice = Notice::new(code, subcode);
        self.cause = Some(Reason::Sent(notice.clone()));
        self.notify(slot, notice, out);
    }

    fn notify(&mut self, slot: Slot, notice: Notice, out: &mut Vec<Output>) {
        let message = NotificationMessage {
            code: NotificationCode::from_u8(notice.code),
            subcode: notice.subcode,
            data: notice.data,
        };
        self.send(slot, &Message::Notification(message), out);
    }

    fn up(&mut self, slot: Slot, now: Duration, out: &mut Vec<Output>) {
        self.up_since = Some(now);
        self.restarted = false;
        self.received.clear();
        // A second machine begins once it is the main one.
        if slot == Slot::Main {
            if self.second.is_some() {
                self.event(Slot::Second, Event::CollisionDump, now, out);
            }
            self.begin(out);
        }
    }

    /// The first word of a session that is up.
    fn begin(&mut self, out: &mut Vec<Output>) {
        let Some(agreed) = self.main.agreed.clone() else {
            return;
        };
        self.rib.begin(&agreed);
        out.push(Output::News(News::Up(agreed)));
        out.extend(self.flush());
    }

    fn down(&mut self, now: Duration) {
        // What was up for long is no longer held against the peer.
        let lasted = self.up_since.take().map(|since| now.saturating_sub(since));
        if lasted.is_some_and(|time| time >= self.config.most_idle_hold) {
            self.failures = 0;
        }
        self.rib.end();
        self.received.clear();
    }
}
