//! CI without a stored secret: which jobs a tenant trusts, and a job's identity in exchange for a token.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use reqwest::Method;
use serde::Deserialize;
use url::Url;

use crate::api::id::{TenantId, TrustRuleId};
use crate::api::oauth::{CLIENT_ID, EXCHANGE_GRANT, ID_TOKEN_TYPE, TokenRequest, TokenResponse};
use crate::api::secret::SecretText;
use crate::api::trust::{CreateTrustRule, TrustRule};
use crate::client::Client;
use crate::client::error::ClientError;
use crate::client::send::Call;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Where a job of GitHub Actions asks for its identity, and what it shows there.
#[derive(Clone, Debug)]
pub struct IdentityRequest {
    /// `ACTIONS_ID_TOKEN_REQUEST_URL`.
    pub url: Url,
    /// `ACTIONS_ID_TOKEN_REQUEST_TOKEN`.
    pub token: SecretText,
}

impl IdentityRequest {
    /// The job's identity for one audience, a new one every time.
    ///
    /// # Errors
    /// The job's own service does not answer with one.
    pub async fn identity(&self, audience: &str) -> Result<SecretText, reqwest::Error> {
        #[derive(Deserialize)]
        struct Answer {
            value: SecretText,
        }
        let http = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("audience", audience);
        let ask = || async {
            let answer = http
                .get(url.clone())
                .bearer_auth(self.token.expose())
                .send()
                .await?;
            answer.error_for_status()?.json::<Answer>().await
        };
        ask.retry(ExponentialBuilder::default().with_max_times(3))
            .when(|error: &reqwest::Error| {
                error.status().is_none_or(|status| status.is_server_error()) && !error.is_decode()
            })
            .await
            .map(|answer| answer.value)
            .map_err(reqwest::Error::without_url)
    }
}

impl Client {
    /// The CI jobs that may deploy to a tenant.
    pub async fn list_trust_rules(&self, id: &TenantId) -> Result<Vec<TrustRule>, ClientError> {
        self.all_pages(&format!("/api/v1/tenants/{id}/trust-rules")).await
    }

    /// Lets the jobs of a repository deploy.
    pub async fn create_trust_rule(
        &self,
        id: &TenantId,
        rule: &CreateTrustRule,
    ) -> Result<TrustRule, ClientError> {
        let path = format!("/api/v1/tenants/{id}/trust-rules");
        self.call(Call::change(Method::POST, &path).json(rule)?).await
    }

    /// Takes a rule back.
    pub async fn delete_trust_rule(&self, id: &TenantId, rule: &TrustRuleId) -> Result<(), ClientError> {
        let path = format!("/api/v1/tenants/{id}/trust-rules/{rule}");
        self.call::<serde::de::IgnoredAny>(Call::change(Method::DELETE, &path))
            .await
            .map(|_| ())
    }

    /// A job's identity for a token of one tenant, given by id or name (RFC 8693).
    pub async fn exchange_identity(
        &self,
        identity: SecretText,
        tenant: &str,
    ) -> Result<TokenResponse, ClientError> {
        let request = TokenRequest {
            grant_type: EXCHANGE_GRANT.to_owned(),
            client_id: CLIENT_ID.to_owned(),
            subject_token: Some(identity),
            subject_token_type: Some(ID_TOKEN_TYPE.to_owned()),
            audience: Some(tenant.to_owned()),
            ..TokenRequest::default()
        };
        self.token(&request).await
    }
}
