//! How a tenant's parts are now, and how the world is on which all tenants stand.

use std::time::Duration;

use crate::api::tenant::{DatabaseKind, Part, TenantStatus};
use crate::server::providers::MachineState;
use crate::server::provision::Provision;
use crate::server::provision::context::Parts;
use crate::server::store::tenants::TenantRow;
use crate::server::store::{StoreError, releases, resources};

const WATCH_EDGE_EVERY: Duration = Duration::from_secs(15);

/// The parts of a [`crate::api::tenant::TenantReport`] that are looked at in the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantParts {
    /// What runs, as the provider sees it now.
    pub machine: Part,
    /// Its database.
    pub database: Part,
    /// The proxy in front of it.
    pub edge: Part,
    /// Its certificate.
    pub certificate: Part,
}

/// What everything stands on: `Ok` with what it says of itself, `Err` with what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorldHealth {
    /// What runs tenants.
    pub provider: Result<String, String>,
    /// The proxy in front of them.
    pub edge: Result<String, String>,
    /// Their databases.
    pub databases: Result<String, String>,
    /// The gate's object store.
    pub registry: Result<String, String>,
}

impl Provision {
    /// Looks at every part of a tenant. A part that cannot be looked at is `unknown`, never an error.
    ///
    /// # Errors
    /// The store fails.
    pub async fn report(&self, tenant: &TenantRow) -> Result<TenantParts, StoreError> {
        let parts = &self.0.parts;
        let machine_id = match tenant.current_release {
            None => None,
            Some(number) => {
                let mut tx = parts.store.begin_read().await?;
                let release = releases::find(&mut tx, &tenant.id, number).await?;
                release.and_then(|release| release.machine_id)
            }
        };
        let mut tx = parts.store.begin_read().await?;
        let ledger = resources::list(&mut tx, &tenant.id).await?;
        drop(tx);
        let made = ledger
            .iter()
            .any(|line| line.kind == "certificate" && line.state == "present");
        let (machine, database, edge, certificate) = tokio::join!(
            machine(parts, machine_id.as_deref()),
            database(parts, tenant),
            edge(parts),
            certificate(parts, tenant, made),
        );
        Ok(TenantParts {
            machine,
            database,
            edge,
            certificate,
        })
    }

    /// Looks after the edge now and then, until the server stops: all tenants stand behind it, and a look brings back one
    /// that is gone or that nobody can reach.
    pub(super) async fn watch_edge_for_ever(&self) {
        let mut is_up = true;
        loop {
            tokio::select! {
                () = tokio::time::sleep(WATCH_EDGE_EVERY) => {}
                () = self.0.signals.stop.cancelled() => return,
            }
            let looked = tokio::select! {
                looked = self.0.parts.edge.ping() => looked,
                () = self.0.signals.stop.cancelled() => return,
            };
            match &looked {
                Ok(_) if !is_up => tracing::info!("the edge answers again"),
                Err(error) if is_up => {
                    let error: &dyn std::error::Error = error;
                    tracing::warn!(error, "the edge does not answer: no tenant can be reached");
                }
                _ => {}
            }
            is_up = looked.is_ok();
        }
    }

    /// Asks everything that tenants stand on how it is.
    pub async fn health(&self) -> WorldHealth {
        let parts = &self.0.parts;
        let (provider, edge, databases, registry) = tokio::join!(
            parts.provider.ping(),
            parts.edge.ping(),
            parts.databases.ping(),
            parts.images.ping(),
        );
        WorldHealth {
            provider: provider.map_err(|error| error.to_string()),
            edge: edge.map_err(|error| error.to_string()),
            databases: databases.map_err(|error| error.to_string()),
            registry: registry
                .map(|()| "ok".to_owned())
                .map_err(|error| error.to_string()),
        }
    }
}

fn part(state: &str, detail: impl Into<String>) -> Part {
    Part {
        state: state.to_owned(),
        detail: detail.into(),
    }
}

async fn machine(parts: &Parts, machine_id: Option<&str>) -> Part {
    let Some(id) = machine_id else {
        return part("absent", "no machine runs");
    };
    match parts.provider.machine_state(id).await {
        Ok(MachineState::Running) => part("ok", format!("`{id}` runs")),
        Ok(MachineState::Absent) => part("absent", format!("`{id}` is not there")),
        Ok(MachineState::Exited {
            exit_code,
            out_of_memory,
        }) => {
            let why = if out_of_memory { ", out of memory" } else { "" };
            part(
                "unhealthy",
                format!("`{id}` ended with exit code {exit_code}{why}"),
            )
        }
        Err(error) => part("unknown", error.to_string()),
    }
}

async fn database(parts: &Parts, tenant: &TenantRow) -> Part {
    if tenant.database == DatabaseKind::Sqlite {
        return part("ok", "a file on the tenant's volume");
    }
    match parts.databases.exists(&tenant.id).await {
        Ok(true) if tenant.status == TenantStatus::Suspended => part("ok", "kept; connections are refused"),
        Ok(true) => part("ok", "there"),
        Ok(false) => part("absent", "there is none"),
        Err(error) => part("unknown", error.to_string()),
    }
}

async fn edge(parts: &Parts) -> Part {
    match parts.edge.ping().await {
        Ok(detail) => part("ok", detail),
        Err(error) => part("unknown", error.to_string()),
    }
}

async fn certificate(parts: &Parts, tenant: &TenantRow, made: bool) -> Part {
    if !made {
        return part("absent", "not asked for yet");
    }
    match parts.edge.certificate(&tenant.label).await {
        Ok(state) if state == "ready" => part("ok", "ready"),
        Ok(state) => part("starting", state),
        Err(error) => part("unknown", error.to_string()),
    }
}
