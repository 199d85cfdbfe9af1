//! Who is answered: clients of the node and of networks that were named, each as
//! often as is allowed. Nothing else of the world may use the server to hit others.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;

/// Clients whose rate is known at a time. Two that fall into one place share what one
/// may ask; which ones do, nobody outside can tell.
const PLACES: usize = 1 << 14;
/// For how long a client may ask without a pause as if it had not asked before.
const BURST: Duration = Duration::from_secs(1);

/// Whose queries are answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Clients {
    /// Everybody's: the node does not know its pods by their addresses.
    #[default]
    Everybody,
    /// Those from these networks.
    Within(Vec<IpNet>),
}

impl Clients {
    /// Whether a client is answered.
    pub fn allow(&self, client: IpAddr) -> bool {
        match self {
            Self::Everybody => true,
            Self::Within(networks) => networks.iter().any(|network| network.contains(&client)),
        }
    }
}

/// Who is answered, how often, and what is told of it.
#[derive(Debug, Clone, Default)]
pub struct DnsGuard {
    /// Whose queries are answered; a new value holds from the next query on.
    pub clients: Arc<ArcSwap<Clients>>,
    /// Networks whose clients may have whole zones (AXFR); nobody without any.
    pub transfers: Vec<IpNet>,
    /// Queries per second that one client may ask, an IPv6 client being a /64; as many
    /// as it likes without a value. More datagrams are dropped, more queries of a
    /// connection refused.
    pub rate: Option<NonZeroU32>,
    /// One of so many queries is logged; none without a value.
    pub log_one_in: Option<NonZeroU32>,
    /// What the server is called, for those who ask (NSID).
    pub name: String,
}

impl DnsGuard {
    /// Whether a client may have a whole zone.
    pub(super) fn may_transfer(&self, client: IpAddr) -> bool {
        self.transfers
            .iter()
            .any(|network| network.contains(&client))
    }
}

/// How often each client has asked, in bounded memory.
pub(super) struct Rates {
    /// Nanoseconds between two queries of a client at its highest rate.
    pause: u64,
    key: RandomState,
    /// When the client of each place would be through with its queries, had it asked
    /// them at that rate.
    through: Box<[AtomicU64]>,
}

impl Rates {
    pub(super) fn new(rate: NonZeroU32) -> Self {
        Self {
            pause: 1_000_000_000 / u64::from(rate.get()),
            key: RandomState::new(),
            through: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Counts a query at a time in nanoseconds; says whether it is one too many.
    pub(super) fn is_too_many(&self, client: IpAddr, now: u64) -> bool {
        let client = match client {
            IpAddr::V4(_) => client,
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
        };
        let place = self.key.hash_one(client) as usize % PLACES;
        let Some(through) = self.through.get(place) else {
            return false;
        };
        let burst = u64::try_from(BURST.as_nanos()).unwrap_or(u64::MAX);
        let next = |at: u64| {
            let at = at.max(now);
            (at - now < burst).then(|| at.saturating_add(self.pause))
        };
        through
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_ask_at_its_rate_and_others_are_not_touched() {
        let rates = Rates::new(NonZeroU32::new(10).unwrap());
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let second = 1_000_000_000;
        let asked = |client, at| (0..30).filter(|_| !rates.is_too_many(client, at)).count();
        assert_eq!(asked(one, second), 10, "a burst of one second");
        assert_eq!(asked(one, second), 0);
        assert_eq!(asked(one, second + second / 2), 5);
        assert_eq!(
            asked(one, second * 10),
            10,
            "what was not asked is not kept"
        );
        // Of the same place by a chance of one in 16 384.
        let others = (2..=6)
            .map(|last| asked([10, 0, 0, last].into(), second))
            .max();
        assert_eq!(others, Some(10));
        assert!(!rates.is_too_many(other, second * 100));
        let six = |last: u16| IpAddr::from([0xfd00, 0, 0, 1, 0, 0, 0, last]);
        assert_eq!(
            asked(six(1), second * 200) + asked(six(2), second * 200),
            10
        );
    }

    #[test]
    fn clients_are_those_of_the_networks() {
        let within = Clients::Within(vec!["10.244.0.0/16".parse().unwrap()]);
        for (client, allowed) in [
            ("10.244.3.4", true),
            ("127.0.0.1", false),
            ("10.245.0.1", false),
            ("2001:db8::1", false),
        ] {
            let client: IpAddr = client.parse().unwrap();
            assert_eq!(within.allow(client), allowed, "{client}");
            assert!(Clients::Everybody.allow(client));
        }
    }
}
