//! The audit: who did what, to which tenant, from where, and how it ended. A chain of rows that is only added to.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::{IntoParams, ToSchema};

use crate::api::id::{AccountId, TenantId};
use crate::api::time::Time;

/// How an act ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditResult {
    /// It was done; of work that takes time: it was begun.
    Done,
    /// It was not allowed, or not possible.
    Refused,
    /// The server failed.
    Failed,
}

impl AuditResult {
    /// As it is written everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// One act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// From 1 without gaps over the whole installation.
    pub seq: u64,
    /// When it began.
    pub at: Time,
    /// What was shown: `session`, `api_token`, `browser`, `push_token`, `console` (`systemprompt server` on the machine),
    /// `server` (the server itself, at its first start), `nobody` …
    pub actor: String,
    /// Which session, token or grant; at the console: which user of the machine.
    pub credential_id: Option<String>,
    /// Whose it is.
    pub account_id: Option<AccountId>,
    /// The account's address today; not part of the chain, gone with the account.
    pub email: Option<String>,
    /// As what: `owner`, `developer`, `viewer`, or `support sup_…`: an operator by the door that an owner had opened.
    pub role: Option<String>,
    /// What was done: the name of the operation in `/openapi.json`, or of the form or command.
    pub action: String,
    /// To which tenant.
    pub tenant_id: Option<TenantId>,
    /// To what in particular: a secret's name, a release, an operation; never a value.
    pub target: Option<String>,
    /// From which address.
    pub address: Option<String>,
    /// How it ended.
    pub result: AuditResult,
    /// Why it was refused: the problem's `code`.
    pub code: Option<String>,
    /// The `X-Request-Id` of the answer.
    pub request_id: String,
    /// The hash of the row before; empty in the first.
    pub previous_hash: String,
    /// Of this row, as [`AuditEntry::chained`] reckons it.
    pub hash: String,
}

impl AuditEntry {
    /// The hash that this row must have: SHA-256 in hex over its columns in their order, each written as
    /// `LENGTH:TEXT,` with the length in bytes (a netstring) and `-` where there is nothing.
    #[must_use]
    pub fn chained(&self) -> String {
        let (seq, at) = (self.seq.to_string(), self.at.as_millis().to_string());
        let columns = [
            Some(self.previous_hash.as_str()),
            Some(&seq),
            Some(&at),
            Some(&self.actor),
            self.credential_id.as_deref(),
            self.account_id.as_ref().map(AccountId::as_str),
            self.role.as_deref(),
            Some(&self.action),
            self.tenant_id.as_ref().map(TenantId::as_str),
            self.target.as_deref(),
            self.address.as_deref(),
            Some(self.result.as_str()),
            self.code.as_deref(),
            Some(&self.request_id),
        ];
        let mut hash = Sha256::new();
        for column in columns {
            match column {
                Some(text) => {
                    hash.update(format!("{}:", text.len()));
                    hash.update(text);
                    hash.update(",");
                }
                None => hash.update("-"),
            }
        }
        hex::encode(hash.finalize())
    }
}

/// Which acts are wanted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Only acts that began at this time or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// 1 to 200 entries; 50 unless told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// What the page before said in `next_cursor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// From where the chain is to be verified.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct VerifyQuery {
    /// After this row, which was verified before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

/// A place where the chain is broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditFault {
    /// The row.
    pub seq: u64,
    /// What is wrong there.
    pub what: String,
}

/// What verifying a stretch of the chain has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditVerdict {
    /// The last row that was looked at.
    pub verified_to: u64,
    /// Its hash: keep it elsewhere, and compare later.
    pub hash: String,
    /// Whether that is the end of the chain; else ask again with `after`.
    pub finished: bool,
    /// Every place where the chain is broken.
    pub faults: Vec<AuditFault>,
}

#[cfg(test)]
mod tests {
    use super::{AuditEntry, AuditResult};
    use crate::api::time::Time;

    fn entry() -> AuditEntry {
        AuditEntry {
            seq: 7,
            at: Time::from_millis(1_763_700_000_123),
            actor: "console".to_owned(),
            credential_id: None,
            account_id: None,
            email: None,
            role: None,
            action: "create_account".to_owned(),
            tenant_id: None,
            target: Some("é".to_owned()),
            address: None,
            result: AuditResult::Done,
            code: None,
            request_id: "req_1".to_owned(),
            previous_hash: String::new(),
            hash: String::new(),
        }
    }

    #[test]
    fn the_hash_is_as_documented() {
        // printf '0:,1:7,13:1763700000123,7:console,---14:create_account,-2:é,-4:done,-5:req_1,' | sha256sum
        assert_eq!(
            entry().chained(),
            "1c858b1ddff41c6c683533440b85a2fa961937c24b1bed6bddfc3c861fd63bc5"
        );
    }

    #[test]
    fn an_empty_text_is_not_nothing_and_no_column_runs_into_the_next() {
        let mut empty = entry();
        empty.code = Some(String::new());
        assert_ne!(empty.chained(), entry().chained());
        let mut moved = entry();
        moved.credential_id = moved.target.take();
        assert_ne!(moved.chained(), entry().chained());
    }
}
