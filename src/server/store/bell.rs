//! What replicas call to each other: "look at the table". `LISTEN`/`NOTIFY` on PostgreSQL; on SQLite nobody is there.
//!
//! A ring carries no truth and may get lost: whoever hears none looks at the table now and then all the same. Rings
//! are sent after the commit and in bundles, so that no transaction waits for the lock that `NOTIFY` takes at commit.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::Notify;

use crate::api::id::TenantId;
use crate::server::store::connections::{Connections, limited};
use crate::server::store::{Store, StoreError};

const CHANNEL: &str = "systemprompt_look";
/// A payload is at most 8000 bytes long; an id has 30.
const TENANTS_AT_ONCE: usize = 200;
/// Every server rings this often even when there is nothing to say…
const BEAT: Duration = Duration::from_secs(5);
/// …so one that hears nothing for so long, not even itself, has lost its connection.
const SILENCE: Duration = Duration::from_secs(16);
const LOST: &str = "lost the connection that hears other servers";
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// What there is to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ring {
    /// The table of operations.
    Work,
    /// The history of this tenant.
    Tenant(TenantId),
    /// All of it: rings may have been missed.
    Everything,
}

/// The bell of one server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bell(Option<Arc<Wire>>);

#[derive(Debug)]
struct Wire {
    connections: Connections,
    /// This server's own name: what it rings itself it has heard already.
    own: String,
    pending: Mutex<Pending>,
    rung: Notify,
    listening: AtomicBool,
}

#[derive(Debug, Default)]
struct Pending {
    work: bool,
    tenants: BTreeSet<TenantId>,
}

impl Bell {
    /// The bell of a server over `store`, called `own`.
    #[must_use]
    pub fn new(store: &Store, own: String) -> Self {
        Self(match store {
            Store::Sqlite { .. } => None,
            Store::Postgres(connections) => Some(Arc::new(Wire {
                connections: connections.clone(),
                own,
                pending: Mutex::default(),
                rung: Notify::new(),
                listening: AtomicBool::new(false),
            })),
        })
    }

    /// Tells the others to look at the table of operations.
    pub fn ring_work(&self) {
        self.ring(|pending| pending.work = true);
    }

    /// Tells the others to look at a tenant's history.
    pub fn ring_tenant(&self, tenant: &TenantId) {
        self.ring(|pending| {
            pending.tenants.insert(tenant.clone());
        });
    }

    /// Whether every ring is heard now, as far as one can know.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|wire| wire.listening.load(Ordering::Relaxed))
    }

    /// Sends what is rung here, and tells `heard` what others ring; until it is dropped.
    pub async fn run(&self, heard: impl Fn(Ring) + Send + Sync) {
        match &self.0 {
            None => std::future::pending().await,
            Some(wire) => {
                tokio::join!(wire.send(), wire.listen(&heard));
            }
        }
    }

    fn ring(&self, note: impl FnOnce(&mut Pending)) {
        if let Some(wire) = &self.0 {
            note(&mut wire.pending.lock().unwrap_or_else(PoisonError::into_inner));
            wire.rung.notify_one();
        }
    }
}

impl Wire {
    async fn send(&self) {
        loop {
            let _ = tokio::time::timeout(BEAT, self.rung.notified()).await;
            let pending = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
            for payload in payloads(&self.own, &pending) {
                // What cannot be sent is lost: with the database gone nobody could look anyway.
                if let Err(error) = self.notify(payload).await {
                    let error: &dyn std::error::Error = &error;
                    tracing::debug!(error, "failed to ring the other servers");
                    break;
                }
            }
        }
    }

    async fn notify(&self, payload: String) -> Result<(), StoreError> {
        let ring = sqlx::query("SELECT pg_notify($1, $2)")
            .bind(CHANNEL)
            .bind(payload);
        self.connections
            .alone(async |connection| ring.execute(connection).await)
            .await
            .map(drop)
            .map_err(StoreError::Statement)
    }

    async fn listen(&self, heard: &(impl Fn(Ring) + Send + Sync)) {
        let mut pause = FIRST_PAUSE;
        loop {
            let ended = self.listen_once(heard).await;
            if self.listening.swap(false, Ordering::Relaxed) {
                pause = FIRST_PAUSE;
                let error: &dyn std::error::Error = &ended;
                tracing::warn!(
                    error,
                    "lost the connection that hears other servers; looking now and then"
                );
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Listens until the connection is lost.
    async fn listen_once(&self, heard: &(impl Fn(Ring) + Send + Sync)) -> sqlx::Error {
        let mut listener = match self.connect().await {
            Ok(listener) => listener,
            Err(error) => return error,
        };
        self.listening.store(true, Ordering::Relaxed);
        // Whatever was rung while nobody listened.
        heard(Ring::Everything);
        loop {
            match tokio::time::timeout(SILENCE, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => self.tell(notification.payload(), heard),
                Ok(Ok(None)) => {
                    tracing::warn!("{LOST}, and made another");
                    heard(Ring::Everything);
                }
                Ok(Err(error)) => return error,
                Err(_) => return sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// A connection beside the others: it is never waited for, and never given back.
    async fn connect(&self) -> Result<PgListener, sqlx::Error> {
        let options = self.connections.options().clone();
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(SILENCE)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options)
            .await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.ignore_pool_close_event(true);
        limited(SILENCE, listener.listen(CHANNEL)).await?;
        Ok(listener)
    }

    fn tell(&self, payload: &str, heard: &impl Fn(Ring)) {
        let mut words = payload.split(' ');
        if words.next() == Some(self.own.as_str()) {
            return;
        }
        for word in words {
            match word {
                "work" => heard(Ring::Work),
                // A word of a newer server is none of ours.
                id => {
                    if let Ok(tenant) = id.parse() {
                        heard(Ring::Tenant(tenant));
                    }
                }
            }
        }
    }
}

/// `<who> work <tenant> <tenant> …`; at least one, which may say nothing.
fn payloads(own: &str, pending: &Pending) -> Vec<String> {
    let tenants: Vec<&TenantId> = pending.tenants.iter().collect();
    let mut bundles: Vec<&[&TenantId]> = tenants.chunks(TENANTS_AT_ONCE).collect();
    if bundles.is_empty() {
        bundles.push(&[]);
    }
    bundles
        .iter()
        .enumerate()
        .map(|(index, bundle)| {
            let mut payload = own.to_owned();
            if pending.work && index == 0 {
                payload.push_str(" work");
            }
            for tenant in *bundle {
                payload.push(' ');
                payload.push_str(tenant.as_str());
            }
            payload
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Pending, TENANTS_AT_ONCE, payloads};
    use crate::api::id::TenantId;

    #[test]
    fn a_payload_fits_and_all_are_in_one_of_them() {
        assert_eq!(payloads("me", &Pending::default()), ["me"]);
        let tenants = (0..2 * TENANTS_AT_ONCE as u128 + 1)
            .map(|number| TenantId::new(uuid::Uuid::from_u128(number)))
            .collect();
        let all = payloads(
            "0190b5a8-0000-7000-8000-000000000000",
            &Pending { work: true, tenants },
        );
        assert_eq!(all.len(), 3);
        assert!(all.iter().all(|payload| payload.len() < 8000));
        let ids = all.iter().flat_map(|payload| payload.split(' ').skip(1));
        assert_eq!(
            ids.filter(|word| word.starts_with("ten_")).count(),
            2 * TENANTS_AT_ONCE + 1
        );
        assert_eq!(all.iter().filter(|payload| payload.contains(" work")).count(), 1);
    }
}
