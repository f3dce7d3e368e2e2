//! `trust_rules`: CI jobs that may deploy to a tenant.

use crate::api::id::{AccountId, TenantId, TrustRuleId};
use crate::api::time::Time;
use crate::server::store::row::Row;
use crate::server::store::{StoreError, Tx};

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustRuleRow {
    /// Names the rule.
    pub id: TrustRuleId,
    /// To which tenant.
    pub tenant_id: TenantId,
    /// Whose rights the job has.
    pub account_id: AccountId,
    /// That account's address; read only.
    pub email: String,
    /// Who signs the jobs' identities.
    pub issuer: String,
    /// The job's repository.
    pub repository: String,
    /// The branch or tag that it runs for.
    pub git_ref: String,
    /// When the rule was made.
    pub created_at: Time,
}

fn read(row: &Row) -> Result<TrustRuleRow, StoreError> {
    Ok(TrustRuleRow {
        id: row.parse("id")?,
        tenant_id: row.parse("tenant_id")?,
        account_id: row.parse("account_id")?,
        email: row.text("email")?,
        issuer: row.text("issuer")?,
        repository: row.text("repository")?,
        git_ref: row.text("git_ref")?,
        created_at: row.time("created_at")?,
    })
}

/// Inserts a rule.
///
/// # Errors
/// The tenant has the same one (`Duplicate`), or the statement fails.
pub async fn insert(tx: &mut Tx, rule: &TrustRuleRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO trust_rules (id, tenant_id, account_id, issuer, repository, git_ref, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        vec![
            rule.id.as_str().into(),
            rule.tenant_id.as_str().into(),
            rule.account_id.as_str().into(),
            rule.issuer.as_str().into(),
            rule.repository.as_str().into(),
            rule.git_ref.as_str().into(),
            rule.created_at.into(),
        ],
    )
    .await
    .map(drop)
}

/// The tenant's rules, oldest first.
///
/// # Errors
/// The statement fails or a row is damaged.
pub async fn list(tx: &mut Tx, tenant: &TenantId) -> Result<Vec<TrustRuleRow>, StoreError> {
    tx.fetch_all(
        "SELECT trust_rules.*, accounts.email FROM trust_rules JOIN accounts ON accounts.id = trust_rules.account_id \
         WHERE tenant_id = $1 ORDER BY trust_rules.id",
        vec![tenant.as_str().into()],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

/// Removes a rule; `false` where the tenant has none of that id.
///
/// # Errors
/// The statement fails.
pub async fn delete(tx: &mut Tx, tenant: &TenantId, id: &TrustRuleId) -> Result<bool, StoreError> {
    let changed = tx
        .execute(
            "DELETE FROM trust_rules WHERE tenant_id = $1 AND id = $2",
            vec![tenant.as_str().into(), id.as_str().into()],
        )
        .await?;
    Ok(changed == 1)
}
