//! Cookies (RFC 7873), made as RFC 9018 says so that any server could check them.
//!
//! A client that shows the cookie that it was given receives what is sent to its
//! address: it did not forge it.

use std::net::IpAddr;

use crate::message::{CLIENT_COOKIE, SERVER_COOKIE};

/// The version of the construction (RFC 9018 §4.1).
const VERSION: u8 = 1;
/// For how many seconds a cookie counts, and by how many a clock may be ahead
/// (RFC 9018 §4.3).
const OLDEST: u32 = 3600;
const NEWEST: u32 = 300;

/// What only this server knows.
#[derive(Clone)]
pub struct CookieSecret([u64; 2]);

/// What a client's cookie says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It sent no cookie, or none of ours: it may be anybody.
    Unknown,
    /// It sent the cookie that was given to its address.
    Known,
}

impl CookieSecret {
    /// A secret of 16 octets that nobody can guess.
    pub fn new(octets: [u8; 16]) -> Self {
        let half = |range: std::ops::Range<usize>| {
            let octets = octets.get(range).and_then(|half| half.first_chunk());
            octets.map_or(0, |octets| u64::from_le_bytes(*octets))
        };
        Self([half(0..8), half(8..16)])
    }

    /// The whole cookie for a client: its own part and ours. `now` is in seconds
    /// since 1970.
    pub(crate) fn make(&self, client: &[u8], address: IpAddr, now: u32) -> Option<[u8; 24]> {
        let client = client.first_chunk::<CLIENT_COOKIE>()?;
        let mut cookie = [0; CLIENT_COOKIE + SERVER_COOKIE];
        let (own, ours) = cookie.split_first_chunk_mut::<CLIENT_COOKIE>()?;
        *own = *client;
        let (fixed, hash) = ours.split_first_chunk_mut::<8>()?;
        let [t1, t2, t3, t4] = now.to_be_bytes();
        *fixed = [VERSION, 0, 0, 0, t1, t2, t3, t4];
        hash.copy_from_slice(&self.hash(client, fixed, address).to_le_bytes());
        Some(cookie)
    }

    /// What a client's cookie is worth.
    pub(crate) fn judge(&self, cookie: &[u8], address: IpAddr, now: u32) -> Standing {
        let at = cookie
            .get(CLIENT_COOKIE + 4..CLIENT_COOKIE + 8)
            .and_then(|octets| octets.first_chunk())
            .map(|octets| u32::from_be_bytes(*octets));
        let Some(at) = at else {
            return Standing::Unknown;
        };
        // Serial number arithmetic (RFC 1982).
        let fresh = now.wrapping_sub(at) <= OLDEST || at.wrapping_sub(now) <= NEWEST;
        let made = self.make(cookie, address, at);
        if fresh && made.is_some_and(|made| made == cookie) {
            Standing::Known
        } else {
            Standing::Unknown
        }
    }

    fn hash(&self, client: &[u8; 8], fixed: &[u8; 8], address: IpAddr) -> u64 {
        let mut message = [0; 32];
        let mut at = 0;
        let mut put = |octets: &[u8]| {
            if let Some(place) = message.get_mut(at..at + octets.len()) {
                place.copy_from_slice(octets);
                at += octets.len();
            }
        };
        put(client);
        put(fixed);
        match address {
            IpAddr::V4(v4) => put(&v4.octets()),
            IpAddr::V6(v6) => put(&v6.octets()),
        }
        sip_hash(self.0, message.get(..at).unwrap_or_default())
    }
}

/// SipHash-2-4 (Aumasson and Bernstein, 2012).
fn sip_hash([k0, k1]: [u64; 2], message: &[u8]) -> u64 {
    let mut state = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let mut words = message.chunks_exact(8);
    for word in words.by_ref() {
        let word = word
            .first_chunk()
            .map_or(0, |word| u64::from_le_bytes(*word));
        absorb(&mut state, word);
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(words.remainder()) {
        *to = *from;
    }
    let length = (message.len() as u64 & 0xff) << 56;
    absorb(&mut state, u64::from_le_bytes(last) | length);
    state[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut state);
    }
    state.iter().fold(0, |all, word| all ^ word)
}

fn absorb(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    round(state);
    round(state);
    state[0] ^= word;
}

fn round([v0, v1, v2, v3]: &mut [u64; 4]) {
    *v0 = v0.wrapping_add(*v1);
    *v1 = v1.rotate_left(13) ^ *v0;
    *v0 = v0.rotate_left(32);
    *v2 = v2.wrapping_add(*v3);
    *v3 = v3.rotate_left(16) ^ *v2;
    *v0 = v0.wrapping_add(*v3);
    *v3 = v3.rotate_left(21) ^ *v0;
    *v2 = v2.wrapping_add(*v1);
    *v1 = v1.rotate_left(17) ^ *v2;
    *v2 = v2.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets<const N: usize>(hex: &str) -> [u8; N] {
        let digit = |at: usize| u8::from_str_radix(hex.get(at..at + 2).unwrap_or("0"), 16);
        std::array::from_fn(|index| digit(index * 2).unwrap_or(0))
    }

    /// The examples of RFC 9018, Appendix A.
    #[test]
    fn d18_cookies_are_those_of_rfc_9018() {
        let secret = CookieSecret::new(octets("e5e973e5a6b2a43f48e7dc849e37bfcf"));
        let address = IpAddr::from([198, 51, 100, 100]);
        let client: [u8; 8] = octets("2464c4abcf10c957");
        let now = 1_559_731_985;
        let cookie = secret.make(&client, address, now);
        let expected: [u8; 24] = octets("2464c4abcf10c957010000005cf79f111f8130c3eee29480");
        assert_eq!(cookie, Some(expected));

        for (at, standing) in [
            (now, Standing::Known),
            (now + 3600, Standing::Known),
            (now - 300, Standing::Known),
            (now + 3601, Standing::Unknown),
            (now - 301, Standing::Unknown),
        ] {
            assert_eq!(secret.judge(&expected, address, at), standing, "{at}");
        }
        let other = IpAddr::from([198, 51, 100, 101]);
        assert_eq!(secret.judge(&expected, other, now), Standing::Unknown);
        assert_eq!(secret.judge(&client, address, now), Standing::Unknown);
        let mut forged = expected;
        forged[23] ^= 1;
        assert_eq!(secret.judge(&forged, address, now), Standing::Unknown);

        let secret = CookieSecret::new(octets("dd3bdf9344b678b185a6f5cb60fca715"));
        let address: IpAddr = "2001:db8:220:1:59de:d0f4:8769:82b8".parse().unwrap();
        let expected: [u8; 24] = octets("22681ab97d52c298010000005cf7c57926556bd0934c72f8");
        let cookie = secret.make(&octets::<8>("22681ab97d52c298"), address, 1_559_741_817);
        assert_eq!(cookie, Some(expected));
    }
}
