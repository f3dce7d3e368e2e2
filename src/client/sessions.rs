//! The programs and browsers that are signed in to the account.

use reqwest::Method;

use crate::api::account::Session;
use crate::api::page::Page;
use crate::client::Client;
use crate::client::error::ClientError;
use crate::client::send::Call;

impl Client {
    /// All of them, the newest first.
    pub async fn list_sessions(&self) -> Result<Vec<Session>, ClientError> {
        let page: Page<Session> = self.call(Call::get("/api/v1/sessions")).await?;
        Ok(page.data)
    }

    /// Ends one.
    pub async fn end_session(&self, id: &str) -> Result<(), ClientError> {
        let id: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
        let path = format!("/api/v1/sessions/{id}");
        self.call::<serde::de::IgnoredAny>(Call::change(Method::DELETE, &path))
            .await
            .map(|_| ())
    }
}
