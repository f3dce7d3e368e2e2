//! How the edge finds the release that serves a tenant: the provider gives its container a name in the tenant's
//! edge network, and the edge is told which name serves.
//!
//! A name of its own for every release lets the edge send new requests to the new one alone, before the old one
//! is asked to end: no request is ever sent to somebody who is about to go.

/// Releases that may be alive at once without sharing a name.
pub const ROUTES: u32 = 8;

/// The route of a release. Numbers return after [`ROUTES`] releases, so that what the edge keeps is bounded.
#[must_use]
pub fn route(release: u32) -> String {
    format!("r{}", release % ROUTES)
}

/// The name under which the edge reaches a route of a tenant. `.internal` is nobody's on the internet, so that a
/// release that is not there is nobody else either.
#[must_use]
pub fn upstream(route: &str, label: &str) -> String {
    format!("{route}.{label}.internal")
}

#[cfg(test)]
mod tests {
    use super::{route, upstream};

    #[test]
    fn neighbours_have_names_of_their_own() {
        assert_eq!(upstream(&route(7), "acme"), "r7.acme.internal");
        assert_ne!(route(7), route(8));
        assert_eq!(route(8), route(16));
    }
}
