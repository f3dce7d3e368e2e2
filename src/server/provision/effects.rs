//! What a step answers: everything that the engine writes for it, in one transaction.

use serde_json::Value as Json;

use crate::api::edge_session::EdgeSessions;
use crate::api::id::AccountId;
use crate::api::operation::OperationError;
use crate::api::release::{MigrationMark, Release};
use crate::api::tenant::TenantStatus;
use crate::server::providers::Made;
use crate::server::store::credential_grants::GrantRow;
use crate::server::store::events::NewEvent;
use crate::server::store::secret_versions::{SecretRow, SecretScope};
use crate::server::store::tenant_life::JwtSecrets;
use crate::server::store::tenants::LoginSlot;
use crate::server::vault::SealedKey;

/// Everything that is written for a step, or for the end of an operation.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// What later steps, a repeat and the undo must know.
    pub(super) output: Json,
    /// Resources that are there now.
    pub(super) made: Vec<(String, String)>,
    /// Kinds of resource of which nothing is left.
    pub(super) gone_kinds: Vec<&'static str>,
    /// Resources that are gone.
    pub(super) gone: Vec<(String, String)>,
    /// The tenant's state from now on.
    pub(super) status: Option<TenantStatus>,
    /// Other rows.
    pub(super) changes: Vec<Change>,
    /// What is told, after everything else.
    pub(super) events: Vec<NewEvent>,
    /// What the operation made; at its end only.
    pub(super) result: Option<Json>,
    /// Why it ended badly, in the words of this operation; at its end only.
    pub(super) error: Option<OperationError>,
}

/// A row that changes beside the step log, the ledger and the tenant's state.
#[derive(Debug)]
pub(super) enum Change {
    /// A new release.
    Release(Box<Release>),
    /// A release that will not serve.
    ReleaseFailed(u32),
    /// The release that serves from now on.
    ReleaseActive(u32),
    /// What the command of a release did.
    Migrations(u32, Box<MigrationMark>),
    /// The machine of a release.
    Machine(u32, Option<String>),
    /// The login role in use.
    LoginSlot(LoginSlot),
    /// The secrets that its own tokens are signed with.
    Jwt(JwtSecrets),
    /// Who is let in by the edge.
    Sessions(Option<EdgeSessions>),
    /// The tenant's memory.
    Memory(u32),
    /// The tenant's data key.
    TenantKey(SealedKey),
    /// A version of a secret.
    Secret(SecretScope, Box<SecretRow>),
    /// A one-time grant.
    Grant(GrantRow),
    /// No one-time grant is good any more.
    RevokeGrants,
    /// The receipt of a deletion.
    Receipt(AccountId, Json),
    /// Secrets, grants and the data key are destroyed.
    ForgetSecrets,
    /// What it printed and used is forgotten.
    ForgetObserved,
    /// The name, the label and the network slot are free again.
    GiveBackNames,
}

impl Effects {
    /// Nothing but the step log.
    pub(super) fn none() -> Self {
        Self::default()
    }

    /// With an output.
    pub(super) fn output(mut self, output: Json) -> Self {
        self.output = output;
        self
    }

    /// With one more event.
    pub(super) fn event(mut self, event: NewEvent) -> Self {
        self.events.push(event);
        self
    }

    /// With a new state of the tenant.
    pub(super) const fn status(mut self, status: TenantStatus) -> Self {
        self.status = Some(status);
        self
    }

    /// With one more row.
    pub(super) fn change(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }

    /// With resources that are there now.
    pub(super) fn made(mut self, made: impl IntoIterator<Item = Made>) -> Self {
        let lines = made
            .into_iter()
            .map(|made| (made.kind.to_owned(), made.external_id));
        self.made.extend(lines);
        self
    }

    /// With a resource that is gone.
    pub(super) fn gone(mut self, kind: &str, external_id: impl Into<String>) -> Self {
        self.gone.push((kind.to_owned(), external_id.into()));
        self
    }

    /// With kinds of which nothing is left.
    pub(super) fn gone_kinds(mut self, kinds: &[&'static str]) -> Self {
        self.gone_kinds.extend_from_slice(kinds);
        self
    }
}
