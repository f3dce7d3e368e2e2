//! The management API: what it is made of, how it starts, and how it stops.

pub mod answering;
pub mod auth;
pub mod billing;
pub mod checklist;
pub mod clock;
pub mod config;
pub mod containers;
pub mod databases;
pub mod edge;
pub mod edge_door;
pub mod error;
pub mod failpoint;
pub mod front;
pub mod http;
pub mod installation;
pub mod listening;
pub mod maintenance;
pub mod opening;
pub mod providers;
pub mod provision;
pub mod registry;
pub mod replica;
pub mod rotation;
pub mod safety;
pub mod seats;
pub mod store;
pub mod vault;
pub mod web;
pub mod world;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::secret::SecretText;
use crate::server::answering::{Signals, answer, behind_front, listen};
use crate::server::auth::Auth;
use crate::server::auth::issuers::Issuers;
use crate::server::auth::providers::Providers;
pub use crate::server::auth::signing::RingKey;
use crate::server::billing::Billing;
use crate::server::clock::Clock;
use crate::server::config::exposure::BillingMode;
use crate::server::config::{
    DataFlags, DataSettings, Environment, LogFormat, ProviderKind, ServeFlags, Settings,
};
use crate::server::containers::{Engine, EngineSettings};
use crate::server::databases::fake::FakeDatabases;
use crate::server::databases::postgres::PostgresDatabases;
use crate::server::databases::{DatabaseSettings, TenantDatabases};
use crate::server::edge::caddy::CaddyEdge;
use crate::server::edge::fake::FakeEdge;
use crate::server::edge::{DOOR, Edge, EdgeSettings};
pub use crate::server::error::ServerError;
use crate::server::front::tls::Tls;
use crate::server::http::{App, Limits};
use crate::server::installation::{Hold, Installation};
pub use crate::server::maintenance::{Class, Copied, Maintenance, MaintenanceError};
use crate::server::opening::{
    first_account, master_key, metrics_recorder, newest_id, open_gate, open_store, signing_key, sweep,
    sweep_once, worker_name,
};
use crate::server::providers::Provider;
use crate::server::providers::docker::DockerProvider;
use crate::server::providers::fake::FakeProvider;
use crate::server::provision::{Provision, ProvisionSettings};
use crate::server::registry::Gate;
pub use crate::server::rotation::{KeyStatus, Rotated};
pub use crate::server::safety::{Finding, Standing};
pub use crate::server::store::roles::{Roles, check_name};
pub use crate::server::store::signing_keys::KeyState;
use crate::server::store::{Store, StoreError, settings};
use crate::server::vault::Vault;
use crate::server::world::World;

/// What is told once the server answers.
#[derive(Debug)]
pub struct Ready {
    /// Where the API answers.
    pub url: String,
    /// Where a tenant named `NAME` answers.
    pub tenant_url: String,
    /// The account that was made, and a link that lets it in once, at the first start.
    pub first: Option<FirstAccount>,
}

/// The operator account of a first start.
#[derive(Debug)]
pub struct FirstAccount {
    /// Signs in with it.
    pub email: String,
    /// Lets it in once; `None` where a password was given.
    pub link: Option<SecretText>,
}

/// The server, seen from outside.
pub struct Server;

impl Server {
    /// Opens an installation for work on its data; `make` makes one where there is none.
    ///
    /// # Errors
    /// The data directory cannot be used, or nobody has made it yet.
    pub async fn maintain(flags: DataFlags, make: bool, clock: Clock) -> Result<Maintenance, ServerError> {
        let data = DataSettings::resolve(flags, &Environment::read())?;
        let installation = if make || data.postgres.is_some() {
            Installation::open(&data.directory)?
        } else {
            Installation::find(&data.directory)?
        };
        let keys = signing_key(&installation, &data, &clock)?;
        match Maintenance::open(&installation, data.postgres.as_ref(), (keys, clock)).await {
            Ok(maintenance) => Ok(maintenance),
            Err(MaintenanceError::Installation(error)) => Err(error.into()),
            Err(MaintenanceError::Auth(error)) => Err(error.into()),
            Err(other) => Err(ServerError::Behind(other)),
        }
    }

    /// How the master key stands.
    ///
    /// # Errors
    /// The data directory cannot be used.
    pub async fn key_status(flags: DataFlags, clock: &Clock) -> Result<KeyStatus, ServerError> {
        let (store, vault) = opening::for_keys(flags, clock).await?;
        let status = rotation::status(&store, &vault).await;
        store.close().await;
        Ok(status?)
    }

    /// The keys of access tokens.
    ///
    /// # Errors
    /// The data directory cannot be used.
    pub async fn ring(flags: DataFlags, clock: &Clock) -> Result<Vec<RingKey>, ServerError> {
        Ok(opening::for_ring(flags, clock).await?.ring().await?)
    }

    /// Lets the next key sign access tokens; `forget`: none that was signed so far is good any more.
    ///
    /// # Errors
    /// The data directory cannot be used, or another rotation was faster.
    pub async fn rotate_ring(
        flags: DataFlags,
        clock: &Clock,
        forget: bool,
    ) -> Result<Vec<RingKey>, ServerError> {
        let auth = opening::for_ring(flags, clock).await?;
        Ok(rotation::rotate_ring(&auth, clock, forget).await?)
    }

    /// Seals every tenant's key with a new version of the master key; `told` how many are done.
    ///
    /// # Errors
    /// The data directory cannot be used, or the rotation stopped; the next one goes on.
    pub async fn rotate_key(
        flags: DataFlags,
        clock: &Clock,
        forget: bool,
        told: impl Fn(u64),
    ) -> Result<Rotated, ServerError> {
        let (store, vault) = opening::for_keys(flags, clock).await?;
        let rotated = rotation::rotate(&store, (&vault, clock), forget, told).await;
        store.close().await;
        Ok(rotated?)
    }

    /// The whole security checklist, with the settings that the server would be started with.
    ///
    /// # Errors
    /// The settings cannot be used, or there is no installation.
    pub async fn check(flags: ServeFlags, clock: &Clock) -> Result<Vec<Finding>, ServerError> {
        checklist::check(flags, clock).await
    }

    /// Copies the database of a data directory into an empty PostgreSQL.
    ///
    /// # Errors
    /// A server runs on it, the target is not empty, or one of the two fails.
    pub async fn copy(flags: DataFlags) -> Result<Copied, ServerError> {
        let data = DataSettings::resolve(flags, &Environment::read())?;
        let installation = Installation::find(&data.directory)?;
        maintenance::copy_to(&installation, data.postgres.as_ref())
            .await
            .map_err(ServerError::Behind)
    }

    /// Runs the server until it is told to stop (SIGTERM, SIGINT). `tell` is called once it answers.
    ///
    /// # Errors
    /// It cannot start.
    pub async fn run(flags: ServeFlags, clock: Clock, tell: impl FnOnce(Ready)) -> Result<(), ServerError> {
        // From the first moment on: the first process of a container is not ended by a signal that nobody waits for.
        let mut signals = Signals::wait_for()?;
        let booted = tokio::select! {
            booted = boot(flags, clock, tell) => booted?,
            // What is half made is found and completed by the next start, as after a crash.
            () = signals.told() => {
                tracing::info!("told to stop before it answered");
                return Ok(());
            }
        };
        let Booted {
            listener,
            tls,
            router,
            app,
            held: _held,
        } = booted;
        answer((listener, tls), router, &app, signals).await;
        app.store.close().await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// A server that may answer; nobody else works on its data while it holds it.
struct Booted {
    listener: TcpListener,
    tls: Option<Tls>,
    router: axum::Router,
    app: App,
    held: Hold,
}

async fn boot(flags: ServeFlags, clock: Clock, tell: impl FnOnce(Ready)) -> Result<Booted, ServerError> {
    let settings = Settings::resolve(flags, &Environment::read())?;
    log_to_stderr(&settings);
    if let Some(folder) = settings.failpoints.clone() {
        failpoint::watch(folder);
        failpoint::move_clock(&clock);
    }
    let installation = Installation::open(&settings.data.directory)?;
    let held = installation.hold(settings.data.postgres.is_some())?;
    let listener = listen(settings.listen).await?;
    let address = listener.local_addr().map_err(ServerError::Serve)?;
    let public_url = settings.public_url_at(address);
    let tls = settings.exposure.tls.clone().map(Tls::open).transpose()?;
    let vault = master_key(&installation, &settings.data, &clock)?;
    if safety::is_exposed(&settings, address) {
        let findings = safety::of_settings(&settings, &public_url, vault.is_weak());
        ServerError::refuse_careless(findings)?;
    }
    let store = open_store(&installation, &settings).await?;
    if let Some(id) = newest_id(&store).await? {
        clock.continue_after(id);
    }
    sweep_once(&store, clock.now(), matches!(store, Store::Sqlite { .. })).await?;
    let keys = Arc::new(signing_key(&installation, &settings.data, &clock)?);
    let instance = replica::agree(&installation, (&store, &clock), (&keys, &vault)).await?;
    let auth = Auth::new(store.clone(), clock.clone(), keys.clone()).known_as(&public_url);
    auth.prepare_ring().await?;
    let first = first_account(&auth, &settings, (&public_url, &clock)).await?;
    remember_url(&store, &public_url).await?;
    let gate = open_gate(&settings, &public_url, (&keys, &clock)).await?;
    let parts = (&store, &gate, vault, instance);
    let (provision, edge) = provision(&installation, &settings, parts, &clock).await?;
    let app = App::new(http::Parts {
        limits: Limits::new(&clock, &store).with_streams(settings.exposure.max_streams),
        billing: Billing::new(clock.clone(), provision.clone(), keys.derive("pay-page"))?
            .with_sandbox(settings.exposure.billing == BillingMode::Sandbox),
        metrics: metrics_recorder()?,
        issuers: Issuers::new(settings.exposure.ci_issuers.clone(), clock.clone()),
        providers: Providers::new(settings.providers.clone(), &clock),
        clock,
        store: store.clone(),
        auth,
        gate: gate.clone(),
        provision: provision.clone(),
        public_url: public_url.clone(),
        histories: http::histories::Histories::default(),
        ready: http::health::Readiness::default(),
        stopping: CancellationToken::new(),
        tasks: TaskTracker::new(),
    });
    provision.start().await?;
    provision.observe();
    app.tasks.spawn(sweep(app.clone(), settings.signing_key_days));
    open_door(&installation, &app)?;
    let registry = http::recorded(gate.router(), &app);
    let router = http::router(&app).merge(web::router(&app)).merge(registry);
    let router = behind_front(http::observed(router, &app), &settings, &public_url);
    tell(Ready {
        url: public_url,
        tenant_url: edge.url("NAME"),
        first,
    });
    Ok(Booted {
        listener,
        tls,
        router,
        app,
        held,
    })
}

/// The edge asks at a socket of its own who visits: nobody else can.
fn open_door(installation: &Installation, app: &App) -> Result<(), ServerError> {
    let folder = edge_door::folder(installation.directory()).map_err(ServerError::Door)?;
    let (router, stopping) = (web::door(app), app.stopping.clone());
    app.tasks
        .spawn(edge_door::keep_open(folder, DOOR, router, stopping));
    Ok(())
}

fn log_to_stderr(settings: &Settings) {
    let filter = tracing_subscriber::EnvFilter::try_new(&settings.log_filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second server in one process (tests) keeps the first one's log.
    let _ = match settings.log_format {
        LogFormat::Text => builder.compact().with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Keeps the address for `systemprompt server link`, which has no server to ask.
async fn remember_url(store: &Store, public_url: &str) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    settings::put(&mut tx, maintenance::PUBLIC_URL, public_url).await?;
    tx.commit().await
}

async fn provision(
    installation: &Installation,
    settings: &Settings,
    (store, gate, vault, instance): (&Store, &Gate, Vault, String),
    clock: &Clock,
) -> Result<(Provision, Arc<dyn Edge>), ServerError> {
    let edge = EdgeSettings {
        http_port: settings.edge_http_port,
        https_port: settings.edge_https_port,
        image: settings.edge_image.clone(),
        door: Some(edge_door::folder(installation.directory()).map_err(ServerError::Door)?),
        ..EdgeSettings::default()
    };
    let (provider, databases, edge): (Arc<dyn Provider>, Arc<dyn TenantDatabases>, Arc<dyn Edge>) =
        match settings.provider {
            ProviderKind::Fake => {
                let world = World::open(&settings.world_file)?;
                (
                    Arc::new(FakeProvider::new(world.clone())),
                    Arc::new(FakeDatabases::new(world.clone())),
                    Arc::new(FakeEdge::new(world, edge)),
                )
            }
            ProviderKind::Docker => {
                let engine = Engine::new(EngineSettings {
                    endpoint: settings.docker_host.clone(),
                    instance,
                });
                let databases = match &settings.tenant_database_url {
                    Some(url) => DatabaseSettings::External {
                        url: url.clone(),
                        tenant_address: None,
                    },
                    None => DatabaseSettings::Managed {
                        image: settings.postgres_image.clone(),
                        directory: installation.directory().to_owned(),
                    },
                };
                (
                    Arc::new(DockerProvider::new(
                        engine.clone(),
                        settings.address_pool.parse()?,
                    )?),
                    Arc::new(PostgresDatabases::new(databases, engine.clone(), clock.clone())?),
                    Arc::new(CaddyEdge::new(engine, edge)?),
                )
            }
        };
    provider.ping().await?;
    let (databases_up, edge_up) = tokio::join!(databases.ping(), edge.ping());
    tracing::info!(
        databases = databases_up?,
        edge = edge_up?,
        "tenants have what they stand on"
    );
    let provision = Provision::new(provision::Parts {
        store: store.clone(),
        clock: clock.clone(),
        vault,
        images: Arc::new(gate.clone()),
        databases,
        edge: edge.clone(),
        provider,
        settings: ProvisionSettings {
            worker: worker_name(),
            ..ProvisionSettings::default()
        },
    });
    Ok((provision, edge))
}
