//! The connection to the tenants' database server, wherever that is.

use std::ops::{Deref, DerefMut};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use crate::api::secret::SecretText;
use crate::server::clock::Clock;
use crate::server::containers::Engine;
use crate::server::databases::postgres::error::{code_of, failed};
use crate::server::databases::postgres::managed::{ALIAS, Managed};
use crate::server::databases::{DatabaseError, DatabaseSettings};

/// The server that holds the tenants' databases. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Cluster(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    place: Place,
    tenant_url: url::Url,
    clock: Clock,
    /// Sessions at once.
    permits: Arc<Semaphore>,
    /// How the server was reached last. Given up with the first connection that fails: the managed container has
    /// another port after every start.
    options: Mutex<Option<PgConnectOptions>>,
}

#[derive(Debug)]
enum Place {
    Managed(Managed),
    External(Box<PgConnectOptions>),
}

/// A session of the administrating role. There is no pool: sessions hold locks, and end with the work they are for.
pub(super) struct Session {
    connection: PgConnection,
    _permit: OwnedSemaphorePermit,
}

impl Deref for Session {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

const SESSIONS: usize = 16;
const START_PATIENCE: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

impl Cluster {
    pub(super) fn new(
        settings: DatabaseSettings,
        engine: Engine,
        clock: Clock,
    ) -> Result<Self, DatabaseError> {
        let (place, tenant_url) = match settings {
            DatabaseSettings::Managed { image, directory } => {
                let managed = Managed {
                    engine,
                    image,
                    directory,
                };
                (
                    Place::Managed(managed),
                    parse(&format!("postgresql://{ALIAS}:5432"))?,
                )
            }
            DatabaseSettings::External { url, tenant_address } => external(&url, tenant_address.as_deref())?,
        };
        Ok(Self(Arc::new(Inner {
            place,
            tenant_url,
            clock,
            permits: Arc::new(Semaphore::new(SESSIONS)),
            options: Mutex::new(None),
        })))
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// A session on the administrating database.
    pub(super) async fn session(&self) -> Result<Session, DatabaseError> {
        let permit = Arc::clone(&self.0.permits).acquire_owned().await;
        let permit = permit.map_err(|_| DatabaseError::Retry {
            what: "failed to get a session on the tenants' database server".to_owned(),
            source: None,
        })?;
        let connection = match connect(&self.options().await?).await {
            // It may have been started again meanwhile.
            Err(DatabaseError::Retry { .. }) => {
                *self.0.options.lock().await = None;
                connect(&self.options().await?).await?
            }
            other => other?,
        };
        Ok(Session {
            connection,
            _permit: permit,
        })
    }

    /// A connection of the administrating role to another database.
    pub(super) async fn connect_to(&self, database: &str) -> Result<PgConnection, DatabaseError> {
        connect(&self.options().await?.database(database)).await
    }

    /// What a tenant's URL begins with: scheme, host, port and transport settings.
    pub(super) fn tenant_url(&self) -> url::Url {
        self.0.tenant_url.clone()
    }

    /// Lets a tenant's network reach the server.
    pub(super) async fn attach(&self, network: &str) -> Result<(), DatabaseError> {
        if let Place::Managed(managed) = &self.0.place {
            // Its container is made where it is not there yet.
            self.options().await?;
            managed
                .engine
                .connect(network, &managed.name(), &[ALIAS.to_owned()])
                .await?;
        }
        Ok(())
    }

    /// Takes that way away.
    pub(super) async fn detach(&self, network: &str) -> Result<(), DatabaseError> {
        if let Place::Managed(managed) = &self.0.place {
            managed.engine.disconnect(network, &managed.name()).await?;
        }
        Ok(())
    }

    async fn options(&self) -> Result<PgConnectOptions, DatabaseError> {
        // One at a time: the others wait for what the first one finds.
        let mut slot = self.0.options.lock().await;
        if let Some(options) = &*slot {
            return Ok(options.clone());
        }
        let (options, patience) = match &self.0.place {
            Place::Managed(managed) => (managed.ensure(&self.0.clock).await?, START_PATIENCE),
            Place::External(options) => (options.as_ref().clone(), Duration::ZERO),
        };
        let options = options
            .application_name("systemprompt")
            .disable_statement_logging();
        let mut session = first_session(&options, patience).await?;
        close_to_tenants(&mut session).await?;
        let _ = session.close().await;
        *slot = Some(options.clone());
        Ok(options)
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, DatabaseError> {
    let what = "connect to the tenants' database server";
    match tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await {
        Ok(connected) => connected.map_err(|source| failed(what, source)),
        Err(_) => Err(failed(what, sqlx::Error::PoolTimedOut)),
    }
}

/// A container that was just made initializes its data first.
async fn first_session(
    options: &PgConnectOptions,
    patience: Duration,
) -> Result<PgConnection, DatabaseError> {
    let mut waited = Duration::ZERO;
    let step = Duration::from_millis(250);
    loop {
        match connect(options).await {
            Err(DatabaseError::Retry { .. }) if waited < patience => tokio::time::sleep(step).await,
            other => return other,
        }
        waited += step;
    }
}

/// Once per cluster: without this every tenant may connect to these databases and see what is in them.
async fn close_to_tenants(session: &mut PgConnection) -> Result<(), DatabaseError> {
    for database in ["postgres", "template1"] {
        if !is_open(session, database).await? {
            continue;
        }
        let statement = format!("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC");
        let revoked = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone()))
            .execute(&mut *session)
            .await;
        // Only the superuser may. Without the right to it, the statement fails, or does nothing and only warns.
        match revoked {
            Err(source) if code_of(&source).as_deref() != Some("42501") => {
                return Err(failed("close the databases that no tenant may see", source));
            }
            _ => {}
        }
        if is_open(session, database).await? {
            tracing::warn!(
                database,
                statement,
                "tenants can connect to this database: let its superuser run the statement"
            );
        }
    }
    Ok(())
}

async fn is_open(session: &mut PgConnection, database: &str) -> Result<bool, DatabaseError> {
    sqlx::query_scalar("SELECT has_database_privilege('public', $1, 'CONNECT')")
        .bind(database)
        .fetch_one(session)
        .await
        .map_err(|source| failed("look at the privileges of the database server", source))
}

/// What a foreign server's URL says to us, and what of it a tenant may know.
fn external(url: &SecretText, tenant_address: Option<&str>) -> Result<(Place, url::Url), DatabaseError> {
    let options = PgConnectOptions::from_str(url.expose()).map_err(|source| unreadable(source.into()))?;
    let full = parse(url.expose())?;
    let address = match (tenant_address, full.host_str()) {
        (Some(address), _) => address.to_owned(),
        (None, Some(host)) => format!("{host}:{}", full.port().unwrap_or(5432)),
        (None, None) => return Err(unreadable("it names no host".into())),
    };
    let mut tenant_url = parse(&format!("postgresql://{address}"))?;
    // How the connection is protected holds for tenants too; nothing else of ours does.
    for (name, value) in full.query_pairs() {
        if matches!(&*name, "sslmode" | "channel_binding") {
            tenant_url.query_pairs_mut().append_pair(&name, &value);
        }
    }
    Ok((Place::External(Box::new(options)), tenant_url))
}

fn parse(url: &str) -> Result<url::Url, DatabaseError> {
    url::Url::parse(url).map_err(|source| unreadable(source.into()))
}

fn unreadable(source: Box<dyn std::error::Error + Send + Sync>) -> DatabaseError {
    DatabaseError::Fatal {
        code: "invalid-setting",
        what: "failed to read `--tenant-database-url`".to_owned(),
        hint: Some("write `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`".to_owned()),
        source: Some(source),
    }
}

#[cfg(test)]
mod tests {
    use super::external;
    use crate::api::secret::SecretText;

    #[test]
    fn tenants_learn_nothing_of_the_provisioner() {
        let url =
            SecretText::new("postgresql://prov:word@db.example:6432/admin?sslmode=require&options=-c%20a=b");
        let (_, tenant) = external(&url, None).expect("readable");
        assert_eq!(tenant.as_str(), "postgresql://db.example:6432?sslmode=require");
        let (_, tenant) = external(&url, Some("10.0.0.1:5432")).expect("readable");
        assert_eq!(tenant.as_str(), "postgresql://10.0.0.1:5432?sslmode=require");
    }
}
