//! The requests to nfnetlink_log, and what it tells.

use portolan_netlink::{Attrs, Message, Writer};

use crate::ends::Ends;

/// NFNL_SUBSYS_ULOG.
const SUBSYSTEM: u16 = 4;
// Its messages (`enum nfulnl_msg_types`).
const PACKET: u16 = 0;
const CONFIG: u16 = 1;

const REQUEST: u16 = 1;
const ACK: u16 = 4;

// Attributes of a request (`enum nfulnl_attr_config`).
const CONFIG_COMMAND: u16 = 1;
const CONFIG_MODE: u16 = 2;
const CONFIG_TIMEOUT: u16 = 4;
const CONFIG_THRESHOLD: u16 = 5;
const CONFIG_FLAGS: u16 = 6;

/// NFULNL_CFG_CMD_BIND.
const BIND: u8 = 1;
/// NFULNL_COPY_PACKET.
const COPY_PACKET: u8 = 2;
/// NFULNL_CFG_F_SEQ: messages are numbered.
const NUMBERED: u16 = 1;
/// How long the kernel gathers messages, in hundredths of a second.
const GATHERED: u32 = 5;
/// And how many.
const TOGETHER: u32 = 32;
/// So much of a packet is copied: all headers.
const COPIED: u32 = 128;

// Attributes of a packet (`enum nfulnl_attr_type`).
const HEADER: u16 = 1;
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;
const NUMBER: u16 = 12;

/// The length of netfilter's header behind netlink's.
const NFGEN: usize = 4;

/// The requests that make a socket the listener of a group, one for each `sendmsg`;
/// each is answered.
#[must_use]
pub fn join(group: u16, seq: u32) -> [Vec<u8>; 2] {
    let mut mode = COPIED.to_be_bytes().to_vec();
    mode.extend([COPY_PACKET, 0]);
    let bind = request(group, seq, |out| out.attr(CONFIG_COMMAND, &[BIND]));
    let how = request(group, seq.wrapping_add(1), |out| {
        out.attr(CONFIG_MODE, &mode);
        out.be32(CONFIG_TIMEOUT, GATHERED);
        out.be32(CONFIG_THRESHOLD, TOGETHER);
        out.attr(CONFIG_FLAGS, &NUMBERED.to_be_bytes());
    });
    [bind, how]
}

fn request(group: u16, seq: u32, attributes: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut out = Writer::default();
    let [high, low] = group.to_be_bytes();
    let kind = SUBSYSTEM << 8 | CONFIG;
    let open = out.begin(kind, REQUEST | ACK, seq, [0, 0, high, low]);
    attributes(&mut out);
    out.end(open);
    out.bytes
}

/// A packet that a rule logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// At which hook (`enum nf_inet_hooks`).
    pub hook: u8,
    /// What the rule says of it; mostly nothing.
    pub prefix: String,
    /// The message's number among those of the group.
    pub number: Option<u32>,
    /// Between whom.
    pub ends: Ends,
}

impl Logged {
    /// The packet that a message tells of; none if it tells of something else, or of
    /// what is no IP packet.
    #[must_use]
    pub fn decode(message: &Message<'_>) -> Option<Self> {
        if message.kind != SUBSYSTEM << 8 | PACKET {
            return None;
        }
        let attributes = Attrs::new(message.body.get(NFGEN..)?);
        // The protocol of the link layer, the hook, and a byte to spare.
        let [_, _, hook, _] = attributes.bytes::<4>(HEADER)?;
        Some(Self {
            hook,
            prefix: attributes.string(PREFIX).unwrap_or_default().to_owned(),
            number: attributes.be32(NUMBER),
            ends: Ends::of(attributes.get(PAYLOAD)?)?,
        })
    }
}
