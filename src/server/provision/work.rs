//! What can be asked of a tenant, and the queue that it goes into: in the caller's own transaction.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::api::edge_session::EdgeSessions;
use crate::api::id::{OperationId, TenantId};
use crate::api::name::SecretKey;
use crate::api::operation::{OperationStatus, OperationSummary};
use crate::api::release::Strategy;
use crate::api::tenant::{DatabaseKind, TenantStatus};
use crate::server::clock::Clock;
use crate::server::failpoint;
use crate::server::provision::saga::saga_of;
use crate::server::store::tenants::TenantRow;
use crate::server::store::{StoreError, Tx, operation_steps, operations, tenants};

/// A piece of work.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Make its infrastructure.
    CreateTenant,
    /// Bring a release.
    Deploy(DeployParams),
    /// An earlier release whole, as a new one.
    Rollback(RollbackParams),
    /// The same image in a new release.
    Restart,
    /// The same image in a new release, with the secrets as they are now.
    ApplySecrets,
    /// The same image in a new release with other memory.
    ChangeMemory {
        /// In MB.
        memory_mb: u32,
    },
    /// Remove everything.
    DeleteTenant,
    /// Stop compute, keep data.
    Suspend,
    /// Start compute again.
    Activate,
    /// Another database login.
    RotateCredentials,
    /// What the ledger has and the provider has not.
    Repair,
    /// Another signing secret, beside the former one for so long.
    RotateJwtSecret {
        /// 0: the former one goes at once.
        overlap_seconds: u32,
    },
    /// The former signing secret goes.
    EndJwtOverlap,
    /// Who is let in by the edge; nobody is asked where it is nothing.
    SetSessions(Option<EdgeSessions>),
}

/// What a deploy must know. The handler has checked the reference and resolved the tag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployParams {
    /// The reference that was asked for; goes into the list of releases. `current` takes the one of the release
    /// that serves.
    pub image: String,
    /// What the tag points to; `None` takes the digest of the release that serves (`image: current`).
    pub digest: Option<String>,
    /// Why.
    pub message: Option<String>,
    /// Fingerprint of the inputs.
    pub fingerprint: Option<String>,
    /// What runs once before it serves; `None` is the default, an empty list is nothing.
    pub release_command: Option<Vec<String>>,
    /// The path that answers 2xx once it may serve.
    pub health_path: Option<String>,
    /// How it takes over.
    #[serde(default)]
    pub strategy: Option<Strategy>,
    /// Secrets of the running release that this one may lack.
    #[serde(default)]
    pub allow_missing: Vec<SecretKey>,
}

/// What a rollback must know. The handler has made its plan and found nothing against it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackParams {
    /// The release that is restored.
    pub release: u32,
    /// Why.
    pub message: Option<String>,
}

impl Work {
    /// The stored name of its kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::CreateTenant => "create-tenant",
            Self::Deploy(_) => "deploy",
            Self::Rollback(_) => "rollback",
            Self::Restart => "restart",
            Self::ApplySecrets => "apply-secrets",
            Self::ChangeMemory { .. } => "change-memory",
            Self::DeleteTenant => "delete-tenant",
            Self::Suspend => "suspend",
            Self::Activate => "activate",
            Self::RotateCredentials => "rotate-credentials",
            Self::Repair => "repair",
            Self::SetSessions(_) => "set-sessions",
            Self::RotateJwtSecret { .. } => "rotate-jwt-secret",
            Self::EndJwtOverlap => "end-jwt-overlap",
        }
    }

    fn params(&self) -> Json {
        match self {
            Self::Deploy(params) => serde_json::json!(params),
            Self::Rollback(params) => serde_json::json!(params),
            Self::RotateJwtSecret { overlap_seconds } => {
                serde_json::json!({ "overlap_seconds": overlap_seconds })
            }
            Self::SetSessions(sessions) => serde_json::json!({ "sessions": sessions }),
            Self::ChangeMemory { memory_mb } => serde_json::json!({ "memory_mb": memory_mb }),
            _ => serde_json::json!({}),
        }
    }
}

/// Work for a tenant.
#[derive(Clone, Debug)]
pub struct NewOperation {
    /// On which tenant.
    pub tenant_id: TenantId,
    /// What.
    pub work: Work,
    /// Who asks: an email, or the name of a token.
    pub requested_by: String,
}

/// Why work is not taken on.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// Another operation holds the tenant.
    #[error("the tenant is busy with `{}` (`{}`), asked for by {} at {}", .0.kind, .0.id, .0.requested_by, .0.created_at)]
    Busy(Box<OperationSummary>),
    /// The tenant is in a state in which this cannot be done.
    #[error("failed to begin `{kind}`: {why}")]
    NotNow {
        /// What was asked for.
        kind: &'static str,
        /// Why it cannot be done.
        why: String,
        /// The way out.
        hint: String,
    },
    /// The store failed.
    #[error("failed to queue the operation")]
    Store(#[from] StoreError),
}

/// Queues work in the caller's transaction. Call [`crate::server::provision::Provision::wake`] after the commit.
///
/// # Errors
/// The tenant is busy, in the wrong state, or the store fails.
pub async fn enqueue(tx: &mut Tx, clock: &Clock, new: NewOperation) -> Result<OperationId, EnqueueError> {
    // Holds the tenant's row, so that two callers cannot both find it free.
    let tenant = tenants::get_locked(tx, &new.tenant_id).await?;
    if let Some(holder) = operations::find_unfinished(tx, &tenant.id).await? {
        return Err(EnqueueError::Busy(Box::new(holder.summary())));
    }
    check(tx, &tenant, &new.work).await?;
    let (id, now) = (OperationId::new(clock.uuid()), clock.now());
    let kind = new.work.kind();
    operations::insert(
        tx,
        (&id, &tenant.id),
        (kind, &new.work.params()),
        &new.requested_by,
        now,
    )
    .await?;
    let names: Vec<&str> = saga_of(kind)
        .map(|saga| saga.steps().iter().map(|step| step.name).collect())
        .unwrap_or_default();
    operation_steps::insert_all(tx, &id, &names, now).await?;
    failpoint::pass("queueing");
    Ok(id)
}

async fn check(tx: &mut Tx, tenant: &TenantRow, work: &Work) -> Result<(), EnqueueError> {
    use TenantStatus::{
        AwaitingDeploy, Deleted, Deleting, Deploying, Failed, Pending, Provisioning, Running, Suspended,
    };
    let refuse = |why: &str, hint: &str| {
        Err(EnqueueError::NotNow {
            kind: work.kind(),
            why: why.to_owned(),
            hint: hint.to_owned(),
        })
    };
    match (work, tenant.status) {
        (_, Deleted | Deleting) => refuse(
            "the tenant is deleted",
            "create another one: `systemprompt tenant create`",
        ),
        (Work::CreateTenant, Pending) if tenant.database == DatabaseKind::Sqlite => refuse(
            "this server has no encrypted SQLite databases yet",
            "choose `--database postgres`",
        ),
        (Work::CreateTenant, Pending) | (Work::DeleteTenant, _) => Ok(()),
        (Work::CreateTenant, _) => refuse("the tenant exists already", "deploy to it: `systemprompt deploy`"),
        (_, Pending | Provisioning) => refuse(
            "its infrastructure is not there yet",
            "follow it: `systemprompt tenant status`",
        ),
        (_, Failed) if !was_created(tx, tenant).await? => refuse(
            "its creation failed and nothing of it is there",
            "`systemprompt tenant retry`, or `systemprompt tenant delete`",
        ),
        (Work::Activate, Suspended | Failed) | (Work::Repair | Work::SetSessions(_), Suspended) => Ok(()),
        (Work::Activate, _) => refuse("the tenant is active already", "see `systemprompt tenant status`"),
        (Work::Suspend, Suspended) => Ok(()),
        (_, Suspended) => refuse(
            "the tenant is suspended",
            "activate it: `systemprompt tenant activate`",
        ),
        (Work::EndJwtOverlap, _) if tenant.jwt.former.is_none() => refuse(
            "no former signing secret is known any more",
            "a new one: `systemprompt tenant edit --rotate-jwt-secret`",
        ),
        (Work::RotateJwtSecret { overlap_seconds }, _)
            if *overlap_seconds > 0 && tenant.jwt.former.is_some() =>
        {
            refuse(
                "tokens that an earlier secret has signed are still good",
                "wait for `jwt_overlap_ended` in `systemprompt tenant events`, or end them all: `--overlap 0s`",
            )
        }
        (Work::Deploy(params), _) if params.digest.is_none() && tenant.current_release.is_none() => refuse(
            "no release serves, so there is no current image",
            "deploy an image: `systemprompt deploy`",
        ),
        (Work::Rollback(_) | Work::Restart | Work::ApplySecrets | Work::ChangeMemory { .. }, _)
            if tenant.current_release.is_none() =>
        {
            refuse("no release serves", "deploy an image: `systemprompt deploy`")
        }
        (_, AwaitingDeploy | Deploying | Running | Failed) => Ok(()),
    }
}

async fn was_created(tx: &mut Tx, tenant: &TenantRow) -> Result<bool, StoreError> {
    let created = operations::find_newest(tx, &tenant.id, Work::CreateTenant.kind()).await?;
    Ok(created.is_some_and(|operation| operation.status == OperationStatus::Succeeded))
}
