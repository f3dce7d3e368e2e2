//! The connection to the tenants' database server, wherever that is.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, Postgres};
use tokio::sync::Mutex;

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
    /// The pool that works, once one does. It is given up with the first connection that fails: the managed
    /// container has another port after every start.
    pool: Mutex<Option<(PgPool, PgConnectOptions)>>,
}

#[derive(Debug)]
enum Place {
    Managed(Managed),
    External(PgConnectOptions),
}

const CONNECTIONS: u32 = 8;
const START_PATIENCE: Duration = Duration::from_secs(60);

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
            pool: Mutex::new(None),
        })))
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// A session of the administrating role, on the administrating database.
    pub(super) async fn session(&self) -> Result<PoolConnection<Postgres>, DatabaseError> {
        let pool = self.pool().await?.0;
        match pool.acquire().await {
            Ok(session) => Ok(session),
            Err(source) => {
                *self.0.pool.lock().await = None;
                Err(failed("connect to the tenants' database server", source))
            }
        }
    }

    /// A connection of the administrating role to another database.
    pub(super) async fn connect_to(&self, database: &str) -> Result<PgConnection, DatabaseError> {
        let options = self.pool().await?.1.database(database);
        let connected = PgConnection::connect_with(&options).await;
        connected.map_err(|source| failed("connect to the tenant's database", source))
    }

    /// What a tenant's URL begins with: scheme, host, port and transport settings.
    pub(super) fn tenant_url(&self) -> url::Url {
        self.0.tenant_url.clone()
    }

    /// Lets a tenant's network reach the server.
    pub(super) async fn attach(&self, network: &str) -> Result<(), DatabaseError> {
        if let Place::Managed(managed) = &self.0.place {
            self.pool().await?;
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

    async fn pool(&self) -> Result<(PgPool, PgConnectOptions), DatabaseError> {
        // One at a time: the others wait for what the first one makes.
        let mut slot = self.0.pool.lock().await;
        if let Some(pool) = &*slot {
            return Ok(pool.clone());
        }
        let options = match &self.0.place {
            Place::Managed(managed) => managed.ensure(&self.0.clock).await?,
            Place::External(options) => options.clone(),
        };
        let options = options
            .application_name("systemprompt")
            .disable_statement_logging();
        let pool = self.open(&options).await?;
        close_to_tenants(&pool).await?;
        *slot = Some((pool.clone(), options.clone()));
        Ok((pool, options))
    }

    /// A container that was just made initializes its data first.
    async fn open(&self, options: &PgConnectOptions) -> Result<PgPool, DatabaseError> {
        let pools = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(Duration::from_secs(10));
        let patience = match self.0.place {
            Place::Managed(_) => START_PATIENCE,
            Place::External(_) => Duration::ZERO,
        };
        let mut waited = Duration::ZERO;
        let step = Duration::from_millis(250);
        loop {
            let error = match pools.clone().connect_with(options.clone()).await {
                Ok(pool) => return Ok(pool),
                Err(source) => failed("connect to the tenants' database server", source),
            };
            if waited >= patience || matches!(error, DatabaseError::Fatal { .. }) {
                return Err(error);
            }
            tokio::time::sleep(step).await;
            waited += step;
        }
    }
}

/// Once per cluster: without this every tenant may connect to these databases and see what is in them.
async fn close_to_tenants(pool: &PgPool) -> Result<(), DatabaseError> {
    for database in ["postgres", "template1"] {
        let open: bool = sqlx::query_scalar("SELECT has_database_privilege('public', $1, 'CONNECT')")
            .bind(database)
            .fetch_one(pool)
            .await
            .map_err(|source| failed("look at the privileges of the database server", source))?;
        if !open {
            continue;
        }
        let statement = format!("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC");
        let revoked = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone()))
            .execute(pool)
            .await;
        // Only the superuser may; a foreign server's owner is told what to do. Without the right to it, the
        // statement may also do nothing and only warn.
        match revoked {
            Ok(_) => {}
            Err(error) if code_of(&error).as_deref() == Some("42501") => {}
            Err(source) => return Err(failed("close the databases that no tenant may see", source)),
        }
        let still_open: bool = sqlx::query_scalar("SELECT has_database_privilege('public', $1, 'CONNECT')")
            .bind(database)
            .fetch_one(pool)
            .await
            .map_err(|source| failed("look at the privileges of the database server", source))?;
        if still_open {
            tracing::warn!(
                database,
                statement,
                "tenants can connect to this database: let its superuser run the statement"
            );
        }
    }
    Ok(())
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
    Ok((Place::External(options), tenant_url))
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
