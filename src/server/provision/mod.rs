//! Provisioning: durable operations on tenants. The only module that touches the world; handlers see only this.
//!
//! A handler queues work with [`enqueue`] in its own transaction and calls [`Provision::wake`] after the commit.
//! The engine claims the operation, asks [`saga`] what comes next, runs those steps side by side, and writes step log, ledger,
//! events and the tenant's state in one transaction under the operation's fencing number.

mod act;
mod activate;
mod apply;
mod collect;
mod context;
mod course;
mod create_tenant;
mod decide;
mod delete_tenant;
mod deploy;
mod drive;
mod effects;
mod engine;
mod environment;
mod follow;
mod handover;
mod held;
mod images;
mod kept_secrets;
mod logs;
mod migrations;
mod observe;
mod outcomes;
mod patience;
mod plan;
mod readiness;
mod reconcile;
mod record;
mod repair;
mod report;
mod restart;
mod rollback;
mod rollback_plan;
mod rollout;
mod rotate_credentials;
mod rotate_jwt;
mod saga;
mod secrets;
mod set_sessions;
mod standstill;
mod suspend;
mod told;
mod work;
mod written;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use tokio::sync::{Notify, watch};
use tokio_util::task::TaskTracker;

use crate::api::id::TenantId;
use crate::server::failpoint;
pub use crate::server::provision::collect::CollectError;
use crate::server::provision::context::Case;
pub use crate::server::provision::context::{Parts, ProvisionSettings};
pub use crate::server::provision::decide::{DecideError, Decision};
pub use crate::server::provision::drive::Checkpoint;
use crate::server::provision::drive::Signals;
pub use crate::server::provision::images::Images;
pub use crate::server::provision::kept_secrets::{LostSecret, losses_hint, losses_told};
pub use crate::server::provision::logs::{LogError, LogLines};
pub use crate::server::provision::observe::Sampler;
use crate::server::provision::plan::Plan;
pub use crate::server::provision::reconcile::{ReconcileError, Reconciled};
pub use crate::server::provision::report::{TenantParts, WorldHealth};
pub use crate::server::provision::rollback_plan::RollbackError;
pub use crate::server::provision::saga::operations;
pub use crate::server::provision::secrets::SecretError;
pub use crate::server::provision::work::{
    DeployParams, EnqueueError, NewOperation, RollbackParams, Work, enqueue,
};
use crate::server::store::Tx;
use crate::server::store::bell::{Bell, Ring};

/// Provisioning. Cheap to clone.
#[derive(Clone)]
pub struct Provision(Arc<Inner>);

struct Inner {
    parts: Parts,
    bell: Bell,
    wake: Notify,
    /// A machine may have come or gone: look who prints.
    observe: Notify,
    /// Changes when lines were kept. It carries no data: read the table.
    lines: watch::Sender<()>,
    watchers: Mutex<HashMap<TenantId, watch::Sender<u64>>>,
    tracker: TaskTracker,
    signals: Signals,
    hold: Option<Hold>,
}

/// Called at every [`Checkpoint`] of a worker, which goes on when the answer is there. For tests that end it there.
pub type Hold = Arc<dyn Fn(Checkpoint) -> BoxFuture<'static, ()> + Send + Sync>;

impl Inner {
    /// Tells who watches the tenant here and on other servers.
    fn announce(&self, tenant: &TenantId) {
        self.announce_here(tenant);
        self.bell.ring_tenant(tenant);
    }

    /// The same where an operation has gone on, which may have started a machine.
    fn announce_work(&self, case: &Case) {
        self.announce(&case.tenant.id);
        let starts_machines = Plan::of(case).is_none_or(|plan| plan.makes("machine"));
        if starts_machines {
            self.observe.notify_one();
        }
    }

    fn announce_here(&self, tenant: &TenantId) {
        let watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = watchers.get(tenant) {
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Another server has rung.
    fn hear(&self, ring: &Ring) {
        match ring {
            Ring::Work => self.wake.notify_one(),
            Ring::Tenant(tenant) => self.announce_here(tenant),
            Ring::Everything => {
                self.wake.notify_one();
                let watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
                for sender in watchers.values() {
                    sender.send_modify(|count| *count = count.wrapping_add(1));
                }
            }
        }
    }

    async fn checkpoint(&self, checkpoint: Checkpoint) {
        // `Acted` is the place after the last call into the world: it has that one's name.
        let place = match checkpoint {
            Checkpoint::Claimed => Some("claimed"),
            Checkpoint::Begun => Some("begun"),
            Checkpoint::Acted => None,
            Checkpoint::Recorded => Some("recorded"),
            Checkpoint::Concluded => Some("concluded"),
        };
        if let Some(place) = place {
            failpoint::pass(place);
        }
        if let Some(hold) = &self.hold {
            hold(checkpoint).await;
        }
    }
}

impl Provision {
    /// Provisioning over `parts`. Nothing runs before [`Provision::start`].
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self::made(parts, None)
    }

    /// The same with a hold at every checkpoint.
    #[must_use]
    pub fn held(parts: Parts, hold: Hold) -> Self {
        Self::made(parts, Some(hold))
    }

    fn made(parts: Parts, hold: Option<Hold>) -> Self {
        Self(Arc::new(Inner {
            bell: Bell::new(&parts.store, parts.clock.uuid().to_string()),
            parts,
            wake: Notify::new(),
            observe: Notify::new(),
            lines: watch::Sender::new(()),
            watchers: Mutex::default(),
            tracker: TaskTracker::new(),
            signals: Signals::default(),
            hold,
        }))
    }

    /// Queues work in the caller's transaction; see [`enqueue`].
    ///
    /// # Errors
    /// The tenant is busy, in the wrong state, or the store fails.
    pub async fn enqueue(
        &self,
        tx: &mut Tx,
        new: NewOperation,
    ) -> Result<crate::api::id::OperationId, EnqueueError> {
        enqueue(tx, &self.0.parts.clock, new).await
    }

    /// Says that the table of operations has changed: look now.
    pub fn wake(&self) {
        self.0.wake.notify_one();
        self.0.bell.ring_work();
    }

    /// Whether [`Provision::changes`] hears of every change now, wherever it was made; if not, look now and then.
    #[must_use]
    pub fn hears_everything(&self) -> bool {
        self.0.bell.is_listening()
    }

    /// Changes whenever the tenant's history may have a new line. It carries no data: read the table.
    #[must_use]
    pub fn changes(&self, tenant: &TenantId) -> watch::Receiver<u64> {
        let mut watchers = self.0.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|_, sender| sender.receiver_count() > 0);
        watchers
            .entry(tenant.clone())
            .or_insert_with(|| watch::channel(0).0)
            .subscribe()
    }

    /// Tells who watches the tenant that its history may have a new line, after a commit that wrote one.
    pub fn announce(&self, tenant: &TenantId) {
        self.0.announce(tenant);
    }

    /// The name under which a tenant of that label answers.
    #[must_use]
    pub fn hostname(&self, label: &str) -> String {
        self.0.parts.edge.hostname(label)
    }

    /// Where a tenant of that label answers.
    #[must_use]
    pub fn url(&self, label: &str) -> String {
        self.0.parts.edge.url(label)
    }

    /// The same with TLS.
    #[must_use]
    pub fn secure_url(&self, label: &str) -> String {
        self.0.parts.edge.secure_url(label)
    }

    /// What runs new tenants: `docker`, `fake` …
    #[must_use]
    pub fn provider_name(&self) -> &'static str {
        self.0.parts.provider.name()
    }
}
