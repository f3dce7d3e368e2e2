//! The access token: taken from where it is kept, refreshed before it ends or when it is refused.

use crate::api::oauth::{CLIENT_ID, REFRESH_GRANT, TokenRequest, TokenResponse};
use crate::api::secret::SecretText;
use crate::client::Client;
use crate::client::error::ClientError;
use crate::client::oauth;
use crate::client::send::Call;
use crate::client::session::{Credential, Tokens};

impl Client {
    /// The token to send; refreshed first when it is about to end.
    pub(super) async fn access_token(&self) -> Result<SecretText, ClientError> {
        let store = match &self.inner.credential {
            Credential::None => return Err(self.signed_out()),
            Credential::Token(token) => return Ok(token.clone()),
            Credential::Session(store) => store,
        };
        let mut held = self.inner.tokens.lock().await;
        let tokens = match held.take() {
            Some(tokens) => tokens,
            None => store
                .load()
                .await
                .map_err(ClientError::Store)?
                .ok_or_else(|| self.signed_out())?,
        };
        let now = self.inner.clock.now();
        let tokens = if tokens.is_stale(now) {
            self.refresh(tokens).await?
        } else {
            tokens
        };
        Ok(held.insert(tokens).access_token.clone())
    }

    /// Another token in place of a refused one; `None` when there is none to be had.
    pub(super) async fn renewed(&self, refused: &SecretText) -> Result<Option<SecretText>, ClientError> {
        let Credential::Session(_) = &self.inner.credential else {
            return Ok(None);
        };
        let mut held = self.inner.tokens.lock().await;
        match held.take() {
            // Another task was faster.
            Some(tokens) if tokens.access_token != *refused => {
                Ok(Some(held.insert(tokens).access_token.clone()))
            }
            Some(tokens) => {
                let tokens = self.refresh(tokens).await?;
                Ok(Some(held.insert(tokens).access_token.clone()))
            }
            None => Ok(None),
        }
    }

    /// Buys a new pair. One process at a time: whoever waited finds the pair that the other one bought.
    async fn refresh(&self, old: Tokens) -> Result<Tokens, ClientError> {
        let Credential::Session(store) = &self.inner.credential else {
            return Ok(old);
        };
        let _lock = store.lock().await.map_err(ClientError::Store)?;
        let kept = store.load().await.map_err(ClientError::Store)?;
        let kept = kept.ok_or_else(|| self.signed_out())?;
        // Two access tokens of one session made in the same second are the same text; refresh tokens never are.
        if kept.refresh_token != old.refresh_token
            || kept.access_token != old.access_token && kept.refresh_token.is_none()
        {
            return Ok(kept);
        }
        let Some(refresh_token) = kept.refresh_token else {
            let renewed = store.renew().await.map_err(ClientError::Store)?;
            let tokens = renewed.ok_or_else(|| self.session_ended())?;
            store.save(&tokens).await.map_err(ClientError::Store)?;
            return Ok(tokens);
        };
        let request = TokenRequest {
            grant_type: REFRESH_GRANT.to_owned(),
            client_id: CLIENT_ID.to_owned(),
            refresh_token: Some(refresh_token),
            ..TokenRequest::default()
        };
        let call = Call::form(oauth::TOKEN, &request)?;
        let bytes = match self.exchange(&call, None).await {
            Err(ClientError::OAuth { code, .. }) if code == "invalid_grant" => {
                return Err(self.session_ended());
            }
            answer => answer?,
        };
        let response: TokenResponse = self.read(call.path, &bytes)?;
        let tokens = Tokens::granted(response, self.inner.clock.now());
        store.save(&tokens).await.map_err(ClientError::Store)?;
        Ok(tokens)
    }

    fn signed_out(&self) -> ClientError {
        ClientError::SignedOut {
            server: self.inner.name.clone(),
        }
    }

    fn session_ended(&self) -> ClientError {
        ClientError::SessionEnded {
            server: self.inner.name.clone(),
        }
    }
}
