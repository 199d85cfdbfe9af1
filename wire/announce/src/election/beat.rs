//! The datagram by which agents know of each other.
//!
//! ```text
//!   "PtlB"  version=1  flags  interval ms (2)  cluster (8)  incarnation (8)  sequence (8)
//!   length of the name (1)  name  count (2)  count × number of a node (4)  [seal (32)]
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

const MAGIC: [u8; 4] = *b"PtlB";
const VERSION: u8 = 1;
const LEAVING: u8 = 1;
const SEALED: u8 = 2;
const LISTS: u8 = 4;
const SERVES: u8 = 8;
const SEAL: usize = 32;
/// More nodes than these are not listed: the datagram would not fit into a packet.
const MOST_LISTED: usize = 250;

/// What agents share to seal their beats.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// A key of these bytes; 32 random ones are as good as it gets.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    fn seal(&self, message: &[u8]) -> [u8; SEAL] {
        hmac_sha256::HMAC::mac(message, &self.0)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Why a datagram is no beat for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is none at all, or of another version.
    #[error("no heartbeat, or one of another version")]
    Malformed,
    /// It is of another cluster.
    #[error("a heartbeat of another cluster")]
    Cluster,
    /// Its seal is wrong, or one side has a key and the other has none.
    #[error("a heartbeat whose seal is wrong, missing, or not asked for")]
    Seal,
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The node, by its name: 1 to 253 bytes.
    pub name: String,
    /// The cluster, by any number that its agents agree on.
    pub cluster: u64,
    /// It grows with every start of the agent.
    pub incarnation: u64,
    /// It grows with every beat.
    pub sequence: u64,
    /// The time between beats: whole milliseconds, 65 seconds at most.
    pub interval: Duration,
    /// The agent ends now: nobody needs to wait for its silence.
    pub leaving: bool,
    /// The sender counts itself among those that answer.
    pub serving: bool,
    /// The numbers of the nodes that the sender counts alive; `None` where they are too
    /// many to be listed.
    pub alive: Option<BTreeSet<u32>>,
}

/// The number by which a beat lists a node.
pub(super) fn number(name: &str) -> u32 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    u32::try_from(crate::random::mix(hash) >> 32).unwrap_or(0)
}

impl Beat {
    /// The beat as a datagram, sealed if there is a key.
    #[must_use]
    pub fn bytes(&self, key: Option<&Key>) -> Vec<u8> {
        let listed = self.alive.as_ref().filter(|list| list.len() <= MOST_LISTED);
        let flags = [
            (self.leaving, LEAVING),
            (key.is_some(), SEALED),
            (listed.is_some(), LISTS),
            (self.serving, SERVES),
        ];
        let flags = flags.iter().filter(|(set, _)| *set).map(|(_, bit)| bit);
        let name = self.name.as_bytes();
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        let interval = u16::try_from(self.interval.as_millis()).unwrap_or(u16::MAX);
        let count = u16::try_from(listed.map_or(0, BTreeSet::len)).unwrap_or(0);
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, flags.sum::<u8>()]);
        out.extend_from_slice(&interval.to_be_bytes());
        for number in [self.cluster, self.incarnation, self.sequence] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.push(length);
        out.extend_from_slice(name.get(..usize::from(length)).unwrap_or(name));
        out.extend_from_slice(&count.to_be_bytes());
        for number in listed.into_iter().flatten() {
            out.extend_from_slice(&number.to_be_bytes());
        }
        if let Some(key) = key {
            let seal = key.seal(&out);
            out.extend_from_slice(&seal);
        }
        out
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// [`Refused`] says why it is not for us. The seal is checked before anything that
    /// the sender says is believed.
    pub fn parse(bytes: &[u8], cluster: u64, key: Option<&Key>) -> Result<Self, Refused> {
        let (head, _) = bytes.split_first_chunk::<6>().ok_or(Refused::Malformed)?;
        let [magic @ .., version, flags] = *head;
        if magic != MAGIC || version != VERSION {
            return Err(Refused::Malformed);
        }
        let message = match (key, flags & SEALED != 0) {
            (None, false) => bytes,
            (Some(key), true) => opened(bytes, key).ok_or(Refused::Seal)?,
            (None, true) | (Some(_), false) => return Err(Refused::Seal),
        };
        let beat = Self::read(message, flags).ok_or(Refused::Malformed)?;
        if beat.cluster != cluster {
            return Err(Refused::Cluster);
        }
        Ok(beat)
    }

    fn read(message: &[u8], flags: u8) -> Option<Self> {
        let (interval, rest) = message.get(6..)?.split_first_chunk::<2>()?;
        let (cluster, rest) = rest.split_first_chunk::<8>()?;
        let (incarnation, rest) = rest.split_first_chunk::<8>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (count, rest) = rest.split_first_chunk::<2>()?;
        let count = usize::from(u16::from_be_bytes(*count));
        let numbers = rest.chunks_exact(4);
        if rest.len() != count * 4 || count > MOST_LISTED || name.is_empty() {
            return None;
        }
        let number = |bytes: &[u8]| bytes.first_chunk().map(|four| u32::from_be_bytes(*four));
        Some(Self {
            name: String::from_utf8(name.to_vec()).ok()?,
            cluster: u64::from_be_bytes(*cluster),
            incarnation: u64::from_be_bytes(*incarnation),
            sequence: u64::from_be_bytes(*sequence),
            interval: Duration::from_millis(u16::from_be_bytes(*interval).into()),
            leaving: flags & LEAVING != 0,
            serving: flags & SERVES != 0,
            alive: (flags & LISTS != 0).then(|| numbers.filter_map(number).collect()),
        })
    }
}

/// What is before the seal, if the seal is right. How long that takes does not depend
/// on where it is wrong.
fn opened<'a>(bytes: &'a [u8], key: &Key) -> Option<&'a [u8]> {
    let (message, seal) = bytes.split_last_chunk::<SEAL>()?;
    let right = key.seal(message);
    let differs = right.iter().zip(seal).fold(0, |all, (a, b)| all | (a ^ b));
    (differs == 0).then_some(message)
}
