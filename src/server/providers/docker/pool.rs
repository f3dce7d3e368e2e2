//! The installation's own address pool: every tenant gets a /27 of it, half for each of its two networks.
//!
//! Docker's default pool ends after about 30 networks; a /16 of ours holds 2048 tenants.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A range of addresses out of which tenants' networks are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPool {
    base: u32,
    prefix: u8,
}

/// A text that is not an address pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address pool: wanted is a network like `10.213.0.0/16`, between /8 and /27")]
pub struct InvalidPool(String);

impl Default for AddressPool {
    fn default() -> Self {
        Self {
            base: u32::from(Ipv4Addr::new(10, 213, 0, 0)),
            prefix: 16,
        }
    }
}

impl FromStr for AddressPool {
    type Err = InvalidPool;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let base = u32::from(address.parse::<Ipv4Addr>().ok()?);
            let prefix = prefix.parse::<u8>().ok()?;
            let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            ((8..=27).contains(&prefix) && base & host_bits == 0).then_some(Self { base, prefix })
        };
        parse().ok_or_else(|| InvalidPool(text.to_owned()))
    }
}

impl fmt::Display for AddressPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

/// The subnets of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnets {
    /// Of its private network.
    pub private: String,
    /// Of its edge network.
    pub edge: String,
}

impl AddressPool {
    /// How many tenants fit.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        1 << (27 - self.prefix)
    }

    /// The subnets of a slot; `None` when the pool has no such slot.
    #[must_use]
    pub fn subnets(&self, slot: u32) -> Option<Subnets> {
        if slot >= self.slots() {
            return None;
        }
        let first = self.base + slot * 32;
        Some(Subnets {
            private: format!("{}/28", Ipv4Addr::from(first)),
            edge: format!("{}/28", Ipv4Addr::from(first + 16)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::AddressPool;

    #[test]
    fn slots_do_not_overlap_and_end_with_the_pool() {
        let pool = AddressPool::default();
        let at = |slot| pool.subnets(slot).map(|it| (it.private, it.edge));
        let pair = |private: &str, edge: &str| Some((private.to_owned(), edge.to_owned()));
        assert_eq!(pool.slots(), 2048);
        assert_eq!(at(0), pair("10.213.0.0/28", "10.213.0.16/28"));
        assert_eq!(at(8), pair("10.213.1.0/28", "10.213.1.16/28"));
        assert_eq!(at(2047), pair("10.213.255.224/28", "10.213.255.240/28"));
        assert_eq!(at(2048), None);
    }

    #[test]
    fn pools_are_networks() {
        assert_eq!("10.213.0.0/16".parse(), Ok(AddressPool::default()));
        assert_eq!(
            "10.0.0.0/27".parse::<AddressPool>().map(|pool| pool.slots()),
            Ok(1)
        );
        for bad in [
            "10.213.0.1/16",
            "10.213.0.0",
            "10.213.0.0/28",
            "10.0.0.0/0",
            "::/16",
            "a/16",
            "10.0.0.0/33",
        ] {
            assert!(bad.parse::<AddressPool>().is_err(), "{bad}");
        }
    }
}
