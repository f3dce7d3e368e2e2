//! The session that the client refreshes, as this machine keeps it.

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::cli::ci_identity::Renewal;
use crate::client::session::{StoreError, TokenStore, Tokens};
use crate::workspace::credentials::{CredentialStore, Place, StoredSession};

/// The session with one server.
pub struct KeptSession {
    store: CredentialStore,
    server: String,
    /// How a CI job proves again who it is.
    renewal: Option<Renewal>,
    /// Where it was found, so that it is put back there.
    found: Mutex<Option<(StoredSession, Place)>>,
}

impl KeptSession {
    /// Nothing is read before the client needs a token.
    #[must_use]
    pub fn new(store: CredentialStore, server: String, renewal: Option<Renewal>) -> Self {
        Self {
            store,
            server,
            renewal,
            found: Mutex::new(None),
        }
    }
}

#[async_trait]
impl TokenStore for KeptSession {
    async fn load(&self) -> Result<Option<Tokens>, StoreError> {
        let found = self.store.find(&self.server).await?;
        let tokens = found.as_ref().map(|(session, _)| Tokens {
            access_token: session.access_token.clone(),
            refresh_token: session.refresh_token.clone(),
            expires_at: session.expires_at,
        });
        *self.found.lock().await = found;
        Ok(tokens)
    }

    async fn save(&self, tokens: &Tokens) -> Result<(), StoreError> {
        let found = self.found.lock().await;
        let (before, place) = match &*found {
            Some((session, place)) => (Some(session), *place),
            None => (None, Place::File),
        };
        let session = StoredSession {
            access_token: tokens.access_token.clone(),
            refresh_token: tokens.refresh_token.clone(),
            expires_at: tokens.expires_at,
            email: before.and_then(|session| session.email.clone()),
            ci_tenant: before.and_then(|session| session.ci_tenant.clone()),
        };
        self.store.save(&self.server, &session, place).await?;
        Ok(())
    }

    async fn renew(&self) -> Result<Option<Tokens>, StoreError> {
        let found = self.found.lock().await;
        let tenant = found.as_ref().and_then(|(session, _)| session.ci_tenant.clone());
        match (tenant, &self.renewal) {
            (Some(tenant), Some(renewal)) => Ok(Some(renewal.tokens(&tenant).await?)),
            _ => Ok(None),
        }
    }

    async fn lock(&self) -> Result<Box<dyn Send>, StoreError> {
        let store = self.store.clone();
        // Another process may hold it while it waits for the server.
        let lock = tokio::task::spawn_blocking(move || store.lock()).await??;
        Ok(Box::new(lock))
    }
}
