//! The API over HTTP: the routers of every resource under the same layers. Handlers answer or enqueue.

pub mod access;
pub mod account;
pub mod acts;
pub mod audit;
pub mod checkout;
pub mod deploys;
pub mod error;
pub mod events;
pub mod extract;
pub mod health;
pub mod histories;
pub mod idempotency;
pub mod identities;
pub mod layers;
pub mod limits;
pub mod logs;
pub mod members;
pub mod metrics;
pub mod oauth;
pub mod openapi;
pub mod operations;
pub mod page;
pub mod problem;
pub mod reconcile;
pub mod releases;
pub mod secrets;
pub mod sessions;
mod shares;
pub mod shown;
pub mod support;
pub mod tenant_actions;
pub mod tenant_views;
pub mod tenants;
pub mod trust;

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use utoipa_axum::router::OpenApiRouter;

use crate::server::auth::Auth;
use crate::server::auth::issuers::Issuers;
use crate::server::auth::providers::Providers;
use crate::server::billing::Billing;
use crate::server::clock::Clock;
use crate::server::http::limits::{Limiter, Policy};
use crate::server::provision::Provision;
use crate::server::registry::Gate;
use crate::server::seats::{Room, Seats};
use crate::server::store::Store;

/// How many streams an account may have open, at one server.
const STREAMS_EACH: u32 = 100;
/// How many streams of events and lines are served at once, unless the server is told another number.
pub const STREAMS: u32 = 2000;
/// The longest body of a request.
const MAX_BODY_BYTES: usize = 1 << 20;

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
    /// Who signs the identities of CI jobs.
    pub issuers: Issuers,
    /// Who vouches for people.
    pub providers: Providers,
    /// What is bought.
    pub billing: Billing,
    /// Where images are pushed to.
    pub gate: Gate,
    /// Work on tenants.
    pub provision: Provision,
    /// How often.
    pub limits: Limits,
    /// What many read at once.
    pub histories: histories::Histories,
    /// Counters.
    pub metrics: PrometheusHandle,
    /// The server's own address, without a slash at its end.
    pub public_url: String,
    /// Whether the database takes writes.
    pub ready: health::Readiness,
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

/// How often everybody may ask, and how many at once.
pub struct Limits {
    /// Every credential, on all routes that need one.
    pub general: Limiter,
    /// Every address, on the routes by which programs sign in.
    pub sign_in: Limiter,
    /// Every address, on routes that ask the world.
    pub health: Limiter,
    /// Every address and every known browser, on the page that takes passwords.
    pub password: Limiter,
    /// Every address and every browser, on the page that takes device codes (RFC 8628 section 5.1).
    pub user_code: Limiter,
    /// Every address, of requests with a credential that is none.
    pub refused: Limiter,
    /// Every account: streams of events and of lines that are followed.
    pub streams: Seats,
    /// Every address: programs that sign in.
    pub signing_in: Seats,
    /// Every address and every known browser: passwords that are verified.
    pub passwords: Seats,
}

impl Limits {
    /// The limits that hold unless a test sets others.
    #[must_use]
    pub fn new(clock: &Clock, store: &Store) -> Self {
        let limiter = |name, quota, window_seconds| {
            let policy = Policy {
                name,
                quota,
                window_seconds,
            };
            Limiter::new(policy, clock.clone()).shared(store)
        };
        let seats = |name, each, all| Seats::new(Room { name, each, all });
        Self {
            general: limiter("default", 3000, 60),
            sign_in: limiter("sign-in", 120, 60),
            health: limiter("health", 240, 60),
            password: limiter("password", 20, 300),
            user_code: limiter("user-code", 10, 300),
            refused: limiter("unauthenticated", 1000, 60),
            streams: seats("streams", STREAMS_EACH, STREAMS),
            signing_in: seats("sign-ins", 32, 256),
            passwords: seats("passwords", 4, 64),
        }
    }

    /// The same with room for so many streams of all accounts together.
    #[must_use]
    pub fn with_streams(mut self, all: u32) -> Self {
        self.streams = Seats::new(Room {
            name: "streams",
            each: STREAMS_EACH,
            all,
        });
        self
    }
}

/// Routes for callers who are signed in.
fn guarded_routes() -> OpenApiRouter<App> {
    health::routes()
        .merge(account::routes())
        .merge(sessions::routes())
        .merge(identities::routes())
        .merge(checkout::routes())
        .merge(tenants::routes())
        .merge(tenant_actions::routes())
        .merge(tenant_views::routes())
        .merge(members::routes())
        .merge(support::routes())
        .merge(events::routes())
        .merge(logs::routes())
        .merge(metrics::routes())
        .merge(deploys::routes())
        .merge(releases::routes())
        .merge(trust::routes())
        .merge(secrets::routes())
        .merge(operations::routes())
        .merge(audit::routes())
        .merge(reconcile::routes())
}

/// Every route as it is described, without its layers.
fn every_route() -> OpenApiRouter<App> {
    health::open_routes()
        .merge(health::limited_routes())
        .merge(oauth::open_routes())
        .merge(oauth::limited_routes())
        .merge(openapi::routes())
        .merge(guarded_routes())
}

/// The router of the API. What every request of the server passes through is added by [`observed`].
pub fn router(app: &App) -> Router {
    let limited = |limiter: &Limiter| from_fn_with_state(limiter.clone(), layers::limit_by_address);
    let recorded = || from_fn_with_state(app.clone(), acts::record);
    let guarded = guarded_routes()
        .route_layer(recorded())
        .route_layer(from_fn_with_state(app.clone(), idempotency::replay_or_do))
        .route_layer(from_fn_with_state(app.clone(), layers::authenticate));
    let router: Router<App> = health::open_routes()
        .merge(health::limited_routes().route_layer(limited(&app.limits.health)))
        .merge(oauth::open_routes())
        .merge(
            oauth::limited_routes()
                .route_layer(recorded())
                .route_layer(from_fn_with_state(
                    app.limits.signing_in.clone(),
                    layers::limit_at_once,
                ))
                .route_layer(limited(&app.limits.sign_in)),
        )
        .merge(openapi::routes())
        .merge(guarded)
        .into();
    router
        .layer(from_fn(layers::limit_time))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(app.clone())
}

/// The registry's router, whose pushes are recorded.
pub fn recorded(gate: Router, app: &App) -> Router {
    gate.layer(from_fn_with_state(app.clone(), acts::record_push))
}

/// Adds to the whole server's router what every request passes through.
pub fn observed(router: Router, app: &App) -> Router {
    router
        .fallback(layers::no_route)
        .method_not_allowed_fallback(layers::no_method)
        .layer(from_fn_with_state(app.clone(), layers::observe))
}
