//! The control packet (RFC 5880 section 4.1).

use std::time::Duration;

/// The length of a packet without authentication.
pub(super) const LENGTH: usize = 24;

/// The state of a session, as packets say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Somebody has switched it off.
    AdminDown,
    /// Nothing is heard.
    Down,
    /// The neighbour is heard.
    Init,
    /// Both hear each other.
    Up,
}

impl State {
    /// All states, by their numbers.
    pub const ALL: [Self; 4] = [Self::AdminDown, Self::Down, Self::Init, Self::Up];

    const fn number(self) -> u8 {
        match self {
            Self::AdminDown => 0,
            Self::Down => 1,
            Self::Init => 2,
            Self::Up => 3,
        }
    }
}

/// Why a session left Up, or changed at all: the number that packets say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Diagnostic(pub u8);

impl Diagnostic {
    /// Nothing is wrong.
    pub const NONE: Self = Self(0);
    /// Nothing was heard for the detection time.
    pub const EXPIRED: Self = Self(1);
    /// The neighbour says that it is down.
    pub const NEIGHBOR: Self = Self(3);
    /// Somebody has switched it off.
    pub const ADMINISTRATIVE: Self = Self(7);
}

/// A control packet. Times are whole microseconds up to 71 minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender is in this state.
    pub diagnostic: Diagnostic,
    /// The state of the sender.
    pub state: State,
    /// An answer is asked for at once.
    pub poll: bool,
    /// This is that answer.
    pub last: bool,
    /// The sender's forwarding does not end with its control plane.
    pub independent: bool,
    /// The sender wants no periodic packets while both are up.
    pub demand: bool,
    /// How many of its packets may be missing in a row.
    pub multiplier: u8,
    /// The sender's number of the session; never zero.
    pub mine: u32,
    /// The receiver's number of it; zero if not known yet.
    pub yours: u32,
    /// The time between its packets that the sender would like.
    pub desired_transmit: Duration,
    /// The least time between packets that it can take; zero: it wants none.
    pub required_receive: Duration,
}

fn microseconds(time: Duration) -> [u8; 4] {
    u32::try_from(time.as_micros())
        .unwrap_or(u32::MAX)
        .to_be_bytes()
}

impl Packet {
    /// Reads a packet. `None` for what RFC 5880 section 6.8.6 discards without
    /// knowing the session, and for packets with authentication.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let packet: &[u8; LENGTH] = bytes.first_chunk()?;
        let [versioned, flags, multiplier, length, ..] = *packet;
        let whole = usize::from(length);
        // Bit 0x04 is authentication, bit 0x01 is for several neighbours at once.
        let known = versioned >> 5 == 1 && flags & 0x05 == 0;
        if !known || whole < LENGTH || whole > bytes.len() || multiplier == 0 {
            return None;
        }
        let word = |at: usize| -> Option<u32> {
            let bytes = packet.get(at..at + 4)?.first_chunk::<4>()?;
            Some(u32::from_be_bytes(*bytes))
        };
        let time = |at: usize| Some(Duration::from_micros(word(at)?.into()));
        let state = *State::ALL.get(usize::from(flags >> 6))?;
        let (mine, yours) = (word(4)?, word(8)?);
        // Only who has heard nothing yet may not know the other's number.
        if mine == 0 || (yours == 0 && state > State::Down) {
            return None;
        }
        Some(Self {
            diagnostic: Diagnostic(versioned & 0x1f),
            state,
            poll: flags & 0x20 != 0,
            last: flags & 0x10 != 0,
            independent: flags & 0x08 != 0,
            demand: flags & 0x02 != 0,
            multiplier,
            mine,
            yours,
            desired_transmit: time(12)?,
            required_receive: time(16)?,
        })
    }

    /// The packet as bytes. It asks for no echo packets.
    #[must_use]
    pub fn bytes(&self) -> [u8; LENGTH] {
        let flags = self.state.number() << 6
            | u8::from(self.poll) << 5
            | u8::from(self.last) << 4
            | u8::from(self.independent) << 3
            | u8::from(self.demand) << 1;
        let mut out = [0; LENGTH];
        let parts: [&[u8]; 5] = [
            &[
                1 << 5 | self.diagnostic.0 & 0x1f,
                flags,
                self.multiplier,
                24,
            ],
            &self.mine.to_be_bytes(),
            &self.yours.to_be_bytes(),
            &microseconds(self.desired_transmit),
            &microseconds(self.required_receive),
        ];
        for (slot, byte) in out.iter_mut().zip(parts.into_iter().flatten()) {
            *slot = *byte;
        }
        out
    }
}
