//! CI without a stored secret: a job's identity is exchanged for a token of one tenant, for ten minutes (RFC 8693).
//!
//! The issuer says who the job is, the tenant's trust rules say which jobs are let in, and the token has the rights of
//! the account that made the rule, as far as deploying goes. Every identity works once.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::api::account::CreateToken;
use crate::api::oauth::{ACCESS_TOKEN_TYPE, Scope, TokenResponse};
use crate::api::tenant::TenantStatus;
use crate::api::time::Time;
use crate::api::trust::means_ref;
use crate::server::auth::issuers::{IssuerError, Issuers};
use crate::server::auth::keys::hash_token;
use crate::server::auth::sessions::{GrantError, refused};
use crate::server::auth::{Auth, scope_words};
use crate::server::store::tenants::TenantRow;
use crate::server::store::trust_rules::TrustRuleRow;
use crate::server::store::{Tx, acts, tenants, trust_rules, used_identities};

/// Life of a job's token, in seconds.
pub const LIFE_SECONDS: u64 = 600;
/// What a job may do: see what it does, and do it.
const SCOPES: [Scope; 2] = [Scope::Read, Scope::Deploy];
/// How far two clocks may differ, in seconds.
const SKEW_SECONDS: i64 = 60;

const NO_RULE: GrantError = refused(
    "invalid_grant",
    "no trust rule of this tenant lets the job in: see `systemprompt tenant trust list`",
);

/// What an identity says, as GitHub and GitLab write it.
#[derive(Debug, Deserialize)]
struct Identity {
    aud: Audience,
    exp: i64,
    #[serde(default)]
    nbf: Option<i64>,
    #[serde(default)]
    jti: Option<String>,
    /// GitHub's name of it.
    #[serde(default)]
    repository: Option<String>,
    /// GitLab's.
    #[serde(default)]
    project_path: Option<String>,
    /// In full on GitHub; a bare name on GitLab.
    #[serde(default, rename = "ref")]
    git_ref: Option<String>,
    #[serde(default)]
    ref_type: Option<String>,
}

/// Whom an identity is for.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn any(&self, is_it: impl Fn(&String) -> bool) -> bool {
        match self {
            Self::One(one) => is_it(one),
            Self::Many(many) => many.iter().any(is_it),
        }
    }

    /// Whether it names exactly this one.
    pub(super) fn names(&self, name: &str) -> bool {
        self.any(|audience| audience == name)
    }
}

impl Identity {
    fn repository(&self) -> Option<&str> {
        self.repository.as_deref().or(self.project_path.as_deref())
    }

    /// `refs/heads/main`, whoever wrote it.
    fn git_ref(&self) -> Option<String> {
        let name = self.git_ref.as_deref()?;
        match self.ref_type.as_deref() {
            _ if name.starts_with("refs/") => Some(name.to_owned()),
            Some("branch") => Some(format!("refs/heads/{name}")),
            Some("tag") => Some(format!("refs/tags/{name}")),
            _ => None,
        }
    }

    fn is_for(&self, server: &str) -> bool {
        self.aud.any(|audience| audience.trim_end_matches('/') == server)
    }
}

impl Auth {
    /// Turns the identity of a CI job into a token of one tenant, given by id or name; `server` is its own address.
    ///
    /// # Errors
    /// No trust rule of the tenant lets the job in, or the identity is not good for it (any more).
    pub async fn exchange(
        &self,
        issuers: &Issuers,
        server: &str,
        (tenant, token): (&str, &str),
    ) -> Result<TokenResponse, GrantError> {
        let issuer = issuer_of(token).ok_or_else(|| not_believed(&IssuerError::Unreadable))?;
        let rules = self.rules_for(tenant, &issuer).await?;
        // Nobody is asked for keys, and nothing is said of the tenant, unless it trusts the issuer.
        let Some((tenant, rules)) = rules.filter(|(_, rules)| !rules.is_empty()) else {
            return Err(NO_RULE);
        };
        let identity: Identity = issuers
            .verify(&issuer, token)
            .await
            .map_err(|error| not_believed(&error))?;
        let now = self.clock.now();
        check(&identity, server, now)?;
        let rule = matching(&rules, &identity).ok_or_else(|| {
            tracing::warn!(
                tenant = %tenant.id, repository = identity.repository(), git_ref = identity.git_ref,
                "a CI job was not let in: no trust rule names it"
            );
            NO_RULE
        })?;
        self.let_in(&tenant, rule, (&issuer, &identity)).await
    }

    async fn rules_for(
        &self,
        tenant: &str,
        issuer: &str,
    ) -> Result<Option<(TenantRow, Vec<TrustRuleRow>)>, GrantError> {
        let mut tx = self.store.begin_read().await?;
        let Some(tenant) = find(&mut tx, tenant).await? else {
            return Ok(None);
        };
        let mut rules = trust_rules::list(&mut tx, &tenant.id).await?;
        rules.retain(|rule| rule.issuer == issuer);
        Ok(Some((tenant, rules)))
    }

    async fn let_in(
        &self,
        tenant: &TenantRow,
        rule: &TrustRuleRow,
        (issuer, identity): (&str, &Identity),
    ) -> Result<TokenResponse, GrantError> {
        const NO_NUMBER: GrantError = refused("invalid_grant", "the identity has no number (`jti`)");
        let number = identity
            .jti
            .as_deref()
            .filter(|it| !it.is_empty())
            .ok_or(NO_NUMBER)?;
        let ends = Time::from_millis(identity.exp.saturating_add(SKEW_SECONDS + 1).saturating_mul(1000));
        let mut tx = self.store.begin().await?;
        // The rule may have been taken back meanwhile.
        if !trust_rules::list(&mut tx, &tenant.id).await?.contains(rule) {
            return Err(NO_RULE);
        }
        acts::by("ci", Some(rule.id.as_str()), &rule.account_id);
        acts::on_tenant(&tenant.id, Some("ci"));
        let used = hash_token(&format!("{issuer}\n{number}"));
        if !used_identities::use_up(&mut tx, &used, ends).await? {
            return Err(refused(
                "invalid_grant",
                "the identity was used before: each works once",
            ));
        }
        let name = format!(
            "CI of {} at {}",
            rule.repository,
            identity.git_ref().unwrap_or_default()
        );
        let wanted = CreateToken {
            name: name.chars().take(100).collect(),
            scopes: SCOPES.to_vec(),
            tenant_id: Some(tenant.id.clone()),
            expires_in_seconds: LIFE_SECONDS,
        };
        let made = self.create_api_token(&mut tx, &rule.account_id, &wanted).await?;
        acts::about(made.row.id.as_str());
        tx.commit().await?;
        Ok(TokenResponse {
            access_token: made.token,
            token_type: "Bearer".to_owned(),
            expires_in: LIFE_SECONDS,
            refresh_token: None,
            scope: scope_words(&SCOPES.into()),
            issued_token_type: Some(ACCESS_TOKEN_TYPE.to_owned()),
        })
    }
}

async fn find(tx: &mut Tx, tenant: &str) -> Result<Option<TenantRow>, GrantError> {
    let found = if let Ok(id) = tenant.parse() {
        tenants::find(tx, &id).await?
    } else if let Ok(name) = tenant.parse() {
        tenants::find_by_live_name(tx, &name).await?
    } else {
        None
    };
    Ok(found.filter(|tenant| tenant.status != TenantStatus::Deleted))
}

/// What stands in the token, before anybody has looked whether it is true.
fn issuer_of(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        iss: String,
    }
    let payload = token.split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    Some(claims.iss.trim_end_matches('/').to_owned())
}

fn check(identity: &Identity, server: &str, now: Time) -> Result<(), GrantError> {
    let now = now.as_millis().div_euclid(1000);
    if now >= identity.exp.saturating_add(SKEW_SECONDS) {
        return Err(refused("invalid_grant", "the identity has expired"));
    }
    if identity
        .nbf
        .is_some_and(|from| now.saturating_add(SKEW_SECONDS) < from)
    {
        return Err(refused("invalid_grant", "the identity is from the future"));
    }
    if !identity.is_for(server) {
        return Err(refused(
            "invalid_grant",
            "the identity is for another audience: it must be this server's address",
        ));
    }
    Ok(())
}

fn matching<'a>(rules: &'a [TrustRuleRow], identity: &Identity) -> Option<&'a TrustRuleRow> {
    let (repository, git_ref) = (identity.repository()?, identity.git_ref()?);
    rules
        .iter()
        .find(|rule| rule.repository == repository && means_ref(&rule.git_ref, &git_ref))
}

fn not_believed(error: &IssuerError) -> GrantError {
    match error {
        IssuerError::NotAllowed => refused("invalid_grant", "the issuer is not one that this server allows"),
        IssuerError::Unreadable => refused(
            "invalid_request",
            "the identity is not a signed token that can be read",
        ),
        IssuerError::Signature => refused("invalid_grant", "the identity is signed by no key of its issuer"),
        IssuerError::Keys { .. } | IssuerError::Refused { .. } => {
            tracing::warn!(%error, "a CI job could not be let in");
            refused(
                "temporarily_unavailable",
                "the keys of the issuer cannot be had now",
            )
        }
    }
}
