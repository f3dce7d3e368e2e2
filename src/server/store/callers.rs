//! Who calls: what was shown with the account behind it, in one statement.

use crate::api::id::{AccountId, SessionId};
use crate::api::time::Time;
use crate::server::store::api_tokens::{self, ApiTokenRow};
use crate::server::store::row::Row;
use crate::server::store::signing_keys::KeyState;
use crate::server::store::{StoreError, Tx};

/// Somebody's account, in what matters to whoever lets them in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The account.
    pub account_id: AccountId,
    /// By which name people know them.
    pub email: String,
    /// Whether they may operate the server.
    pub operator: bool,
}

/// The key that an access token names, and the session that it belongs to with its account, as far as they are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The public half of the key.
    pub public_key: String,
    /// What the key is good for.
    pub state: KeyState,
    /// Until when it verifies, where it is a former one.
    pub verifies_until: Option<Time>,
    /// Whose session it is, where that has not been ended.
    pub session_of: Option<AccountId>,
    /// The account.
    pub caller: Option<Caller>,
}

fn caller(row: &Row) -> Result<Caller, StoreError> {
    Ok(Caller {
        account_id: row.parse("account_id")?,
        email: row.text("email")?,
        operator: row.flag("operator")?,
    })
}

/// The token of that hash, ended or not, and its account where that is there.
///
/// # Errors
/// The statement fails or a row is damaged.
pub async fn find_by_token(
    tx: &mut Tx,
    token_hash: &str,
) -> Result<Option<(ApiTokenRow, Option<Caller>)>, StoreError> {
    let row = tx
        .fetch_optional(
            "SELECT api_tokens.*, accounts.email, accounts.operator FROM api_tokens
             LEFT JOIN accounts ON accounts.id = api_tokens.account_id WHERE token_hash = $1",
            vec![token_hash.into()],
        )
        .await?;
    row.map(|row| {
        let known = row.opt_text("email")?.is_some();
        let caller = if known { Some(caller(&row)?) } else { None };
        Ok((api_tokens::read(&row)?, caller))
    })
    .transpose()
}

/// What stands behind an access token of that key and session; `None` where there is no such key.
///
/// # Errors
/// The statement fails or a row is damaged.
pub async fn find_by_session(
    tx: &mut Tx,
    kid: &str,
    session: &SessionId,
) -> Result<Option<Shown>, StoreError> {
    let row = tx
        .fetch_optional(
            "SELECT signing_keys.public_key, signing_keys.state, signing_keys.verifies_until, sessions.account_id,
                 accounts.email, accounts.operator
             FROM signing_keys
             LEFT JOIN sessions ON sessions.id = $2 AND sessions.revoked_at IS NULL
             LEFT JOIN accounts ON accounts.id = sessions.account_id
             WHERE signing_keys.kid = $1",
            vec![kid.into(), session.as_str().into()],
        )
        .await?;
    row.map(|row| {
        let known = row.opt_text("email")?.is_some();
        Ok(Shown {
            public_key: row.text("public_key")?,
            state: row.word("state")?,
            verifies_until: row.opt_time("verifies_until")?,
            session_of: row.opt_parse("account_id")?,
            caller: if known { Some(caller(&row)?) } else { None },
        })
    })
    .transpose()
}
