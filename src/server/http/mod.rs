//! The API over HTTP: the routers of every resource under the same layers. Handlers answer or enqueue.

pub mod error;
pub mod extract;
pub mod idempotency;
pub mod layers;
pub mod limits;
pub mod page;
pub mod problem;

use std::ops::Deref;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::server::auth::Auth;
use crate::server::clock::Clock;
use crate::server::http::limits::{Limiter, Policy};
use crate::server::store::Store;

/// What every handler can reach.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// The parts of the server that answering needs.
pub struct Parts {
    /// Time, ids and chance.
    pub clock: Clock,
    /// The tables.
    pub store: Store,
    /// Who calls.
    pub auth: Auth,
    /// How often.
    pub limits: Limits,
    /// The server's own address, without a slash at its end.
    pub public_url: String,
    /// Cancelled when the server stops: streams end.
    pub stopping: CancellationToken,
    /// Work that goes on when its caller has gone.
    pub tasks: TaskTracker,
}

impl App {
    /// From its parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// How often everybody may ask.
pub struct Limits {
    /// Every credential, on all routes that need one.
    pub general: Limiter,
    /// Every address, on the routes by which one signs in.
    pub sign_in: Limiter,
}

impl Limits {
    /// The limits that hold unless a test sets others.
    #[must_use]
    pub fn new(clock: &Clock) -> Self {
        let limiter = |name, quota, window_seconds| {
            let policy = Policy {
                name,
                quota,
                window_seconds,
            };
            Limiter::new(policy, clock.clone())
        };
        Self {
            general: limiter("default", 3000, 60),
            sign_in: limiter("sign-in", 120, 60),
        }
    }
}
