//! How the edge finds the release that serves a tenant: every release has an address of its own in the tenant's edge
//! network, and the edge is told which of them serves.
//!
//! An address of its own lets the edge send new requests to the new release alone, before the old one is asked to
//! end: no request is ever sent to somebody who is about to go. That it is an address and no name means that the
//! engine is not asked once per request, and need not answer at all for tenants to be reached.

use std::net::Ipv4Addr;

/// Releases that may be alive at once without sharing an address.
pub const ROUTES: u32 = 8;

/// The network itself, its gateway and the edge, which is the first to join, come before.
const FIRST: u32 = 3;
/// An edge network has 16 addresses.
const PREFIX: u32 = 28;

/// Where a release is in the edge network in which `member` is, too. Addresses return after [`ROUTES`] releases, so
/// that what the edge keeps is bounded.
#[must_use]
pub fn route(member: Ipv4Addr, release: u32) -> Ipv4Addr {
    let network = u32::from(member) & (u32::MAX << (32 - PREFIX));
    Ipv4Addr::from(network + FIRST + release % ROUTES)
}

/// The name of the network between a tenant and the edge. A label has no dot, so none can be another's.
#[must_use]
pub fn edge_network(instance: &str, label: &str) -> String {
    format!("sp-{instance}-{label}.edge")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::{ROUTES, route};

    #[test]
    fn neighbours_have_addresses_of_their_own() {
        let edge = Ipv4Addr::new(10, 213, 0, 18);
        let of = |release| route(edge, release).to_string();
        assert_eq!(
            [of(1), of(7), of(8), of(16)],
            ["10.213.0.20", "10.213.0.26", "10.213.0.19", "10.213.0.19"]
        );
        let network = Ipv4Addr::new(10, 213, 0, 16);
        assert_eq!(route(network, 7), route(edge, 7), "whoever is in it");
        let last = (0..ROUTES).map(|release| route(network, release)).max();
        assert!(
            last < Some(Ipv4Addr::new(10, 213, 0, 31)),
            "they end before the network does"
        );
    }
}
