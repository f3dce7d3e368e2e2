//! Tenant databases that are only written down, with faults on request.

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

use crate::api::id::TenantId;
use crate::api::secret::SecretText;
use crate::server::databases::{DatabaseError, LoginSlot, TenantDatabases};
use crate::server::world::{Broken, Database, State, World};

/// Keeps the databases of all tenants in a fake world.
#[derive(Clone, Debug)]
pub struct FakeDatabases {
    world: World,
}

impl FakeDatabases {
    /// Databases in `world`.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self { world }
    }
}

impl From<Broken> for DatabaseError {
    fn from(broken: Broken) -> Self {
        let what = "failed to change a tenant database in the fake world".to_owned();
        match broken {
            Broken::Retry { .. } => Self::Retry {
                what,
                source: Some(Box::new(broken)),
            },
            Broken::Fatal { .. } | Broken::World(_) => Self::Fatal {
                code: "planned-fault",
                what,
                hint: None,
                source: Some(Box::new(broken)),
            },
        }
    }
}

fn not_found(code: &'static str, what: String) -> DatabaseError {
    DatabaseError::Fatal {
        code,
        what,
        hint: None,
        source: None,
    }
}

fn digest(password: &SecretText) -> String {
    hex::encode(Sha256::digest(password.expose().as_bytes()))
}

fn name(tenant: &TenantId) -> String {
    format!("t_{}", tenant.as_str().trim_start_matches(TenantId::PREFIX))
}

fn find<'a>(state: &'a mut State, tenant: &TenantId) -> Result<&'a mut Database, DatabaseError> {
    state.databases.get_mut(tenant.as_str()).ok_or_else(|| {
        not_found(
            "database-not-found",
            format!("failed to find the database of `{tenant}`"),
        )
    })
}

fn join(state: &mut State, network: Option<&str>) -> Result<(), DatabaseError> {
    let Some(network) = network else { return Ok(()) };
    let joined = state.networks.get_mut(network).ok_or_else(|| {
        not_found(
            "network-not-found",
            format!("failed to join the database server to the network `{network}`"),
        )
    })?;
    joined.attached.insert("postgres".to_owned());
    Ok(())
}

fn leave(state: &mut State, network: Option<&str>) {
    if let Some(network) = network.and_then(|name| state.networks.get_mut(name)) {
        network.attached.remove("postgres");
    }
}

#[async_trait]
impl TenantDatabases for FakeDatabases {
    async fn ping(&self) -> Result<String, DatabaseError> {
        self.world
            .call("databases.ping", |_| Ok("fake databases".to_owned()))
            .await
    }

    async fn create(
        &self,
        tenant: &TenantId,
        network: Option<&str>,
        login: LoginSlot,
        password: &SecretText,
    ) -> Result<Vec<(&'static str, String)>, DatabaseError> {
        let act = |state: &mut State| {
            join(state, network)?;
            let database = state
                .databases
                .entry(tenant.to_string())
                .or_insert_with(|| Database {
                    logins: [].into(),
                    connections: true,
                });
            database
                .logins
                .insert(login.as_str().to_owned(), (digest(password), true));
            let name = name(tenant);
            Ok(vec![
                ("database-role", format!("{name}_owner")),
                ("database-role", format!("{name}_app")),
                ("database-role", format!("{name}_app_{}", login.as_str())),
                ("database", name),
            ])
        };
        self.world.call("databases.create", act).await
    }

    async fn attach(&self, network: Option<&str>) -> Result<(), DatabaseError> {
        self.world
            .call("databases.attach", |state| join(state, network))
            .await
    }

    async fn detach(&self, network: Option<&str>) -> Result<(), DatabaseError> {
        let act = |state: &mut State| {
            leave(state, network);
            Ok(())
        };
        self.world.call("databases.detach", act).await
    }

    fn url(&self, tenant: &TenantId, login: LoginSlot, password: &SecretText) -> SecretText {
        let name = name(tenant);
        let (slot, password) = (login.as_str(), password.expose());
        SecretText::new(format!(
            "postgresql://{name}_app_{slot}:{password}@postgres.internal:5432/{name}"
        ))
    }

    async fn create_login(
        &self,
        tenant: &TenantId,
        login: LoginSlot,
        password: &SecretText,
    ) -> Result<(), DatabaseError> {
        let act = |state: &mut State| {
            let entry = (digest(password), true);
            find(state, tenant)?
                .logins
                .insert(login.as_str().to_owned(), entry);
            Ok(())
        };
        self.world.call("databases.create_login", act).await
    }

    async fn lock_login(&self, tenant: &TenantId, login: LoginSlot) -> Result<(), DatabaseError> {
        let act = |state: &mut State| {
            if let Some(entry) = find(state, tenant)?.logins.get_mut(login.as_str()) {
                entry.1 = false;
            }
            Ok(())
        };
        self.world.call("databases.lock_login", act).await
    }

    async fn drop_login(&self, tenant: &TenantId, login: LoginSlot) -> Result<(), DatabaseError> {
        let act = |state: &mut State| {
            if let Some(database) = state.databases.get_mut(tenant.as_str()) {
                database.logins.remove(login.as_str());
            }
            Ok(())
        };
        self.world.call("databases.drop_login", act).await
    }

    async fn set_connections(&self, tenant: &TenantId, allowed: bool) -> Result<(), DatabaseError> {
        let act = |state: &mut State| {
            find(state, tenant)?.connections = allowed;
            Ok(())
        };
        self.world.call("databases.set_connections", act).await
    }

    async fn drop(&self, tenant: &TenantId, network: Option<&str>) -> Result<(), DatabaseError> {
        let act = |state: &mut State| {
            state.databases.remove(tenant.as_str());
            leave(state, network);
            Ok(())
        };
        self.world.call("databases.drop", act).await
    }

    async fn exists(&self, tenant: &TenantId) -> Result<bool, DatabaseError> {
        let act = |state: &mut State| Ok(state.databases.contains_key(tenant.as_str()));
        self.world.call("databases.exists", act).await
    }
}
