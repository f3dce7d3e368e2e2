//! Whose word about the caller's address is taken: that of proxies whose addresses were named, and of nobody else.

use std::net::IpAddr;
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// One address, or all of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// A text that is no address and no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither an address nor a network like `10.0.0.0/8`")]
pub struct InvalidNetwork(String);

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidNetwork(text.chars().take(64).collect());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address = address.trim().parse::<IpAddr>().map_err(|_| invalid())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => bits.trim().parse().map_err(|_| invalid())?,
        };
        if bits > most {
            return Err(invalid());
        }
        Ok(Self { address, bits })
    }
}

impl Network {
    /// Whether `address` is in it. An IPv4 address is the same in its IPv6 clothes.
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        let bits = u32::from(self.bits);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                bits == 0 || (own.to_bits() ^ other.to_bits()) >> (32 - bits) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                bits == 0 || (own.to_bits() ^ other.to_bits()) >> (128 - bits) == 0
            }
            _ => false,
        }
    }

    /// Whether it is so wide that it names nobody.
    #[must_use]
    pub const fn is_everybody(&self) -> bool {
        self.bits < 8
    }
}

/// The address of whoever asks: the last one in `X-Forwarded-For` that is not a trusted proxy's. Where the connection
/// itself does not come from one, nothing that the headers say counts.
#[must_use]
pub fn caller(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.holds(address));
    let mut caller = peer.to_canonical();
    // Several headers are one list (RFC 9110 section 5.3); proxies add at its end.
    let told: Vec<&str> = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .collect();
    for entry in told.into_iter().rev() {
        if !is_trusted(caller) {
            break;
        }
        match entry.trim().parse::<IpAddr>() {
            Ok(address) => caller = address.to_canonical(),
            // Whatever stands further left was written by whoever wrote this.
            Err(_) => break,
        }
    }
    caller
}

#[cfg(test)]
mod tests {
    use super::{Network, caller};
    use axum::http::{HeaderMap, HeaderValue};
    use std::net::IpAddr;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts
            .iter()
            .map(|text| text.parse().expect("a network"))
            .collect()
    }

    fn asked(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_str(value).expect("a value"));
        }
        caller(ip(peer), &headers, &networks(trusted)).to_string()
    }

    #[test]
    fn only_named_proxies_are_believed() {
        let proxy = ["10.0.0.0/8", "fd00::1"];
        assert_eq!(asked("203.0.113.9", &["1.2.3.4"], &proxy), "203.0.113.9");
        assert_eq!(asked("10.0.0.1", &["1.2.3.4"], &[]), "10.0.0.1");
        assert_eq!(asked("10.0.0.1", &["1.2.3.4"], &proxy), "1.2.3.4");
        assert_eq!(asked("::ffff:10.0.0.1", &["1.2.3.4"], &proxy), "1.2.3.4");
        assert_eq!(asked("fd00::1", &["2001:db8::7"], &proxy), "2001:db8::7");
        // What the caller wrote himself stands left of what the proxy has seen.
        assert_eq!(asked("10.0.0.1", &["9.9.9.9, 1.2.3.4"], &proxy), "1.2.3.4");
        assert_eq!(
            asked("10.0.0.1", &["9.9.9.9", "1.2.3.4, 10.0.0.2"], &proxy),
            "1.2.3.4"
        );
        assert_eq!(asked("10.0.0.1", &["1.2.3.4, unknown"], &proxy), "10.0.0.1");
        assert_eq!(asked("10.0.0.1", &[], &proxy), "10.0.0.1");
    }

    #[test]
    fn networks_are_read_strictly() {
        for bad in [
            "",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0/8",
            "all",
            "*",
            "10.0.0.0/-1",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        let all: Network = "0.0.0.0/0".parse().expect("a network");
        assert!(all.is_everybody() && all.holds(ip("8.8.8.8")) && !all.holds(ip("::1")));
        let one: Network = "192.0.2.7".parse().expect("an address");
        assert!(one.holds(ip("192.0.2.7")) && !one.holds(ip("192.0.2.8")) && !one.is_everybody());
    }

    #[test]
    fn outside_bytes_as_forwarded_for() {
        let seeds: [&[u8]; 4] = [
            b"9.9.9.9, 10.0.0.1",
            b"::1, ::ffff:10.0.0.1",
            b"unknown,,",
            b"10.0.0.1:80",
        ];
        let trusted = networks(&["10.0.0.0/8", "::/0"]);
        crate::mutation::torment(&seeds, |bytes| {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(bytes) {
                headers.insert("x-forwarded-for", value);
            }
            let network = String::from_utf8_lossy(bytes).parse::<Network>();
            (caller(ip("10.0.0.9"), &headers, &trusted), network.is_ok())
        });
    }
}
