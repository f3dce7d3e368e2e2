//! The programs and browsers that are signed in to the account, and the identities that let in to it.

use reqwest::Method;

use crate::api::account::{Identity, Session};
use crate::api::page::Page;
use crate::client::Client;
use crate::client::error::ClientError;
use crate::client::send::Call;

const SESSIONS: &str = "/api/v1/sessions";
const IDENTITIES: &str = "/api/v1/identities";

impl Client {
    /// All of them, the newest first.
    pub async fn list_sessions(&self) -> Result<Vec<Session>, ClientError> {
        let page: Page<Session> = self.call(Call::get(SESSIONS)).await?;
        Ok(page.data)
    }

    /// Ends one.
    pub async fn end_session(&self, id: &str) -> Result<(), ClientError> {
        self.remove_of(SESSIONS, id).await
    }

    /// The identities that let in to the account.
    pub async fn list_identities(&self) -> Result<Vec<Identity>, ClientError> {
        let page: Page<Identity> = self.call(Call::get(IDENTITIES)).await?;
        Ok(page.data)
    }

    /// Takes one away.
    pub async fn remove_identity(&self, id: &str) -> Result<(), ClientError> {
        self.remove_of(IDENTITIES, id).await
    }

    async fn remove_of(&self, list: &str, id: &str) -> Result<(), ClientError> {
        let id: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
        let path = format!("{list}/{id}");
        self.call::<serde::de::IgnoredAny>(Call::change(Method::DELETE, &path))
            .await
            .map(|_| ())
    }
}
