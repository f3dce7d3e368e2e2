//! Tenant databases on PostgreSQL 15 and later: in a container of this installation, or on somebody's server.

mod cluster;
mod error;
mod managed;
mod names;
mod scram;
mod sql;

use std::time::Duration;

use async_trait::async_trait;
use sqlx::Connection as _;

use crate::api::id::TenantId;
use crate::api::secret::SecretText;
use crate::server::clock::Clock;
use crate::server::containers::Engine;
use crate::server::databases::postgres::cluster::{Cluster, Session};
use crate::server::databases::postgres::error::failed;
use crate::server::databases::postgres::names::Names;
use crate::server::databases::{DatabaseError, DatabaseSettings, LoginSlot, TenantDatabases};

/// Keeps tenants' databases on a PostgreSQL server.
#[derive(Clone, Debug)]
pub struct PostgresDatabases {
    cluster: Cluster,
}

/// How long sessions of a login that was locked may finish what they do.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

impl PostgresDatabases {
    /// Databases where `settings` say. Nothing is connected or started yet; the first call does, and `ping` is one.
    ///
    /// # Errors
    /// The settings cannot be read.
    pub fn new(settings: DatabaseSettings, engine: Engine, clock: Clock) -> Result<Self, DatabaseError> {
        Ok(Self {
            cluster: Cluster::new(settings, engine, clock)?,
        })
    }

    fn names(tenant: &TenantId) -> Result<Names, DatabaseError> {
        Names::new(tenant).ok_or_else(|| DatabaseError::Fatal {
            code: "invalid-name",
            what: format!("failed to derive database names from `{tenant}`"),
            hint: None,
            source: None,
        })
    }

    /// A session that has its turn with the tenant. Its end gives the turn on.
    async fn turn(&self, names: &Names) -> Result<Session, DatabaseError> {
        let mut session = self.cluster.session().await?;
        sql::lock(&mut session, names)
            .await
            .map_err(|source| failed("wait for the turn with the tenant's database", source))?;
        Ok(session)
    }

    /// Inside of the tenant's database.
    async fn open_schema(&self, names: &Names) -> Result<(), DatabaseError> {
        let mut inside = self.cluster.connect_to(names.database.as_str()).await?;
        let opened = sql::open_schema(&mut inside, names).await;
        let _ = inside.close().await;
        opened.map_err(|source| failed("open the schema of the tenant's database", source))
    }

    fn verifier(&self, password: &SecretText) -> Result<SecretText, DatabaseError> {
        scram::verifier(password, &self.cluster.clock().random::<16>(), scram::ITERATIONS).map_err(|source| {
            DatabaseError::Fatal {
                code: "unusable-password",
                what: "failed to make a verifier of the password".to_owned(),
                hint: None,
                source: Some(Box::new(source)),
            }
        })
    }

    async fn require_database(session: &mut sqlx::PgConnection, names: &Names) -> Result<(), DatabaseError> {
        let there = sql::has_database(session, &names.database).await;
        if there.map_err(|source| failed("look for the tenant's database", source))? {
            return Ok(());
        }
        Err(DatabaseError::Fatal {
            code: "database-not-found",
            what: format!("failed to find the database `{}`", names.database.as_str()),
            hint: None,
            source: None,
        })
    }
}

#[async_trait]
impl TenantDatabases for PostgresDatabases {
    async fn ping(&self) -> Result<String, DatabaseError> {
        let mut session = self.cluster.session().await?;
        let version: String = sqlx::query_scalar("SELECT current_setting('server_version')")
            .fetch_one(&mut *session)
            .await
            .map_err(|source| failed("ask PostgreSQL for its version", source))?;
        Ok(format!("PostgreSQL {version}"))
    }

    async fn create(
        &self,
        tenant: &TenantId,
        network: Option<&str>,
        login: LoginSlot,
        password: &SecretText,
    ) -> Result<Vec<(&'static str, String)>, DatabaseError> {
        let names = Self::names(tenant)?;
        let verifier = self.verifier(password)?;
        let mut session = self.turn(&names).await?;
        sql::make_owners(&mut session, &names)
            .await
            .map_err(|source| failed("make the tenant's roles", source))?;
        sql::make_database(&mut session, &names)
            .await
            .map_err(|source| failed("make the tenant's database", source))?;
        let role = names.login(login);
        let (opened, made) = tokio::join!(
            self.open_schema(&names),
            sql::make_login(&mut session, &names, role, &verifier),
        );
        opened?;
        made.map_err(|source| failed("make the tenant's login", source))?;
        if let Some(network) = network {
            self.cluster.attach(network).await?;
        }
        let made = |name: &names::Identifier| name.as_str().to_owned();
        Ok(vec![
            ("database-role", made(&names.owner)),
            ("database-role", made(&names.app)),
            ("database-role", made(role)),
            ("database", made(&names.database)),
        ])
    }

    async fn attach(&self, network: Option<&str>) -> Result<(), DatabaseError> {
        match network {
            Some(network) => self.cluster.attach(network).await,
            None => Ok(()),
        }
    }

    async fn detach(&self, network: Option<&str>) -> Result<(), DatabaseError> {
        match network {
            Some(network) => self.cluster.detach(network).await,
            None => Ok(()),
        }
    }

    fn url(&self, tenant: &TenantId, login: LoginSlot, password: &SecretText) -> SecretText {
        let mut url = self.cluster.tenant_url();
        if let Some(names) = Names::new(tenant) {
            // Neither fails on a URL that has a host.
            let _ = url.set_username(names.login(login).as_str());
            let _ = url.set_password(Some(password.expose()));
            url.set_path(names.database.as_str());
        }
        SecretText::new(url)
    }

    async fn create_login(
        &self,
        tenant: &TenantId,
        login: LoginSlot,
        password: &SecretText,
    ) -> Result<(), DatabaseError> {
        let names = Self::names(tenant)?;
        let verifier = self.verifier(password)?;
        let mut session = self.turn(&names).await?;
        Self::require_database(&mut session, &names).await?;
        sql::make_login(&mut session, &names, names.login(login), &verifier)
            .await
            .map_err(|source| failed("make the tenant's login", source))
    }

    async fn lock_login(&self, tenant: &TenantId, login: LoginSlot) -> Result<(), DatabaseError> {
        let names = Self::names(tenant)?;
        let role = names.login(login);
        let mut session = self.turn(&names).await?;
        let lock = |source| failed("lock the tenant's login", source);
        if sql::refuse_login(&mut session, role).await.map_err(lock)? {
            sql::end_sessions(&mut session, role, LOCK_PATIENCE)
                .await
                .map_err(lock)?;
        }
        Ok(())
    }

    async fn drop_login(&self, tenant: &TenantId, login: LoginSlot) -> Result<(), DatabaseError> {
        let names = Self::names(tenant)?;
        let role = names.login(login);
        let mut session = self.turn(&names).await?;
        let drop = |source| failed("drop the tenant's login", source);
        if !sql::refuse_login(&mut session, role).await.map_err(drop)? {
            return Ok(());
        }
        sql::end_sessions(&mut session, role, Duration::ZERO)
            .await
            .map_err(drop)?;
        if sql::drop_role(&mut session, role).await.map_err(drop)? {
            return Ok(());
        }
        let mut inside = self.cluster.connect_to(names.database.as_str()).await?;
        let handed = sql::hand_over(&mut inside, &names, role).await;
        let _ = inside.close().await;
        handed.map_err(drop)?;
        if sql::drop_role(&mut session, role).await.map_err(drop)? {
            return Ok(());
        }
        Err(DatabaseError::Fatal {
            code: "role-in-use",
            what: format!(
                "failed to drop the role `{}`: it owns something elsewhere",
                role.as_str()
            ),
            hint: None,
            source: None,
        })
    }

    async fn set_connections(&self, tenant: &TenantId, allowed: bool) -> Result<(), DatabaseError> {
        let names = Self::names(tenant)?;
        let mut session = self.turn(&names).await?;
        Self::require_database(&mut session, &names).await?;
        sql::allow_connections(&mut session, &names, allowed)
            .await
            .map_err(|source| failed("open or close the tenant's database", source))
    }

    async fn drop(&self, tenant: &TenantId, network: Option<&str>) -> Result<(), DatabaseError> {
        let names = Self::names(tenant)?;
        let mut session = self.turn(&names).await?;
        sql::drop_all(&mut session, &names).await?;
        if let Some(network) = network {
            self.cluster.detach(network).await?;
        }
        Ok(())
    }

    async fn exists(&self, tenant: &TenantId) -> Result<bool, DatabaseError> {
        let names = Self::names(tenant)?;
        let mut session = self.cluster.session().await?;
        let look = |source| failed("look for what the tenant has on the database server", source);
        if sql::has_database(&mut session, &names.database)
            .await
            .map_err(look)?
        {
            return Ok(true);
        }
        for role in names.roles() {
            if sql::has_role(&mut session, role).await.map_err(look)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
