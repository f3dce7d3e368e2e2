//! Work on an installation's own data without a running server: migrations, accounts, links, tokens.

use std::path::PathBuf;
use std::sync::Arc;

use crate::api::account::CreateToken;
use crate::api::id::{AccountId, RequestId};
use crate::api::secret::SecretText;
use crate::server::auth::keys::Keys;
use crate::server::auth::{Auth, AuthError, accounts as auth_accounts, api_tokens as auth_tokens};
use crate::server::clock::Clock;
use crate::server::installation::{Installation, InstallationError};
use crate::server::store::acts::{self, Act};
use crate::server::store::copy::{self, CopiedTable, CopyError};
use crate::server::store::migrate::Applied;
use crate::server::store::postgres::PostgresSettings;
use crate::server::store::settings;
use crate::server::store::{Store, StoreError, accounts, members};

/// Where the server last said that it is reached.
pub const PUBLIC_URL: &str = "public-url";

/// Why the work was not done.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Installation(#[from] InstallationError),
    /// Accounts refused it.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The database failed.
    #[error("failed to read or write the database")]
    Store(#[from] StoreError),
    /// Nobody says where to copy to.
    #[error("no PostgreSQL database is named")]
    NoTarget,
    /// The copy was refused or has failed.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// There is no such account.
    #[error("there is no account `{0}`")]
    NoAccount(String),
    /// The account has no such tenant.
    #[error("the account has no tenant `{0}`")]
    NoTenant(String),
    /// The database lacks migrations.
    #[error("the database is behind this binary: migrations that it lacks: {0}")]
    Behind(usize),
    /// The database lacks migrations, and this role may not change tables.
    #[error("the database lacks migrations ({0}), and the role of this server may not apply them")]
    MayNotMigrate(usize),
}

/// Whose fault a failure is, as far as scripts care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Anything that has no class of its own.
    Failed,
    /// A setting or an argument.
    Input,
    /// What was named is not there.
    Absent,
    /// Somebody else has it.
    Conflict,
}

impl MaintenanceError {
    /// Whose fault it is.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::NoAccount(_) | Self::NoTenant(_) => Class::Absent,
            Self::Auth(AuthError::AccountExists(_))
            | Self::Copy(CopyError::NotEmpty(_))
            | Self::Installation(InstallationError::Held { .. }) => Class::Conflict,
            Self::Installation(InstallationError::Absent { .. }) => Class::Absent,
            Self::Copy(_) => Class::Failed,
            Self::NoTarget | Self::Auth(AuthError::Invalid { .. }) => Class::Input,
            Self::Installation(_)
            | Self::Auth(_)
            | Self::Store(_)
            | Self::Behind(_)
            | Self::MayNotMigrate(_) => Class::Failed,
        }
    }

    /// The next thing to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoAccount(email) => Some(format!("make it: `systemprompt server account create {email}`")),
            Self::NoTarget => Some(
                "name it with `SYSTEMPROMPT_DATABASE_URL` or `--database-url-file FILE`".to_owned(),
            ),
            Self::Copy(CopyError::NotEmpty(_)) => Some(
                "name an empty database; if this one holds an earlier copy, drop it and create it again".to_owned(),
            ),
            Self::Behind(_) => Some("run `systemprompt server migrate up`".to_owned()),
            Self::MayNotMigrate(_) => Some(
                "run `systemprompt server migrate up` with the URL of the role that owns the tables, then start again"
                    .to_owned(),
            ),
            Self::Installation(error) => error.hint(),
            _ => None,
        }
    }
}

/// What a copy to PostgreSQL has done.
#[derive(Debug)]
pub struct Copied {
    /// Every table.
    pub tables: Vec<CopiedTable>,
    /// Where the file is now.
    pub aside: PathBuf,
}

/// Copies the database of an installation, which no server may use meanwhile, into an empty PostgreSQL.
///
/// # Errors
/// A server runs, the target is not empty, or one of the two fails; then nothing has changed.
pub async fn copy_to(
    installation: &Installation,
    postgres: Option<&PostgresSettings>,
) -> Result<Copied, MaintenanceError> {
    let postgres = postgres.ok_or(MaintenanceError::NoTarget)?;
    let _held = installation.hold(false)?;
    let source = installation.store(None).await?;
    let target = installation.store(Some(postgres)).await?;
    source.migrate_up().await?;
    target.migrate_up().await?;
    let tables = copy::copy(&source, &target).await?;
    target.close().await;
    // Closed, SQLite has everything in the one file.
    source.close().await;
    Ok(Copied {
        tables,
        aside: installation.put_aside()?,
    })
}

/// An installation that is open for work on its data.
pub struct Maintenance {
    store: Store,
    auth: Auth,
    clock: Clock,
}

impl Maintenance {
    /// Opens the installation's database and keys.
    ///
    /// # Errors
    /// The data directory cannot be used.
    pub async fn open(
        installation: &Installation,
        postgres: Option<&PostgresSettings>,
        (keys, clock): (Keys, Clock),
    ) -> Result<Self, MaintenanceError> {
        let store = installation.store(postgres).await?;
        let auth = Auth::new(store.clone(), clock.clone(), Arc::new(keys));
        Ok(Self { store, auth, clock })
    }

    /// Every migration that this binary knows, applied or not.
    ///
    /// # Errors
    /// The database fails.
    pub async fn history(&self) -> Result<Vec<Applied>, MaintenanceError> {
        Ok(self.store.migration_history().await?)
    }

    /// Brings the database up to date; answers what was applied.
    ///
    /// # Errors
    /// A migration fails.
    pub async fn migrate_up(&self) -> Result<Vec<Applied>, MaintenanceError> {
        let before = self.history().await?;
        match self.store.migrate_up().await {
            Err(StoreError::MayNotMigrate(_)) => {
                let missing = before.iter().filter(|one| !one.applied).count();
                return Err(MaintenanceError::MayNotMigrate(missing));
            }
            done => done?,
        }
        let after = self.history().await?;
        Ok(after
            .into_iter()
            .filter(|one| {
                before
                    .iter()
                    .any(|was| was.version == one.version && !was.applied)
            })
            .collect())
    }

    /// Refuses work on a database that is not up to date.
    async fn require_current(&self) -> Result<(), MaintenanceError> {
        let missing = self.history().await?.iter().filter(|one| !one.applied).count();
        if missing > 0 {
            return Err(MaintenanceError::Behind(missing));
        }
        Ok(())
    }

    /// Makes an account.
    ///
    /// # Errors
    /// The address is malformed or taken, or the password too short.
    pub async fn create_account(
        &self,
        email: &str,
        password: Option<SecretText>,
        operator: bool,
    ) -> Result<AccountId, MaintenanceError> {
        self.require_current().await?;
        let act = Act {
            target: Some(email.trim().to_lowercase()),
            ..self.act("create_account")
        };
        let made = acts::perform_whole(act, self.auth.create_account(email, password, operator));
        Ok(made.await?.id)
    }

    /// Makes a one-time sign-in link; answers the path below the server's address, and that address if it is known.
    ///
    /// # Errors
    /// There is no such account.
    pub async fn create_link(&self, email: &str) -> Result<(SecretText, Option<String>), MaintenanceError> {
        self.require_current().await?;
        let act = Act {
            target: Some(email.trim().to_lowercase()),
            ..self.act("create_sign_in_link")
        };
        let token = match acts::perform_whole(act, self.auth.create_link(email)).await {
            Err(AuthError::NotFound { .. }) => return Err(MaintenanceError::NoAccount(email.to_owned())),
            other => other?,
        };
        let mut tx = self.store.begin_read().await?;
        let url = settings::find(&mut tx, PUBLIC_URL).await?;
        Ok((SecretText::new(sign_in_path(&token)), url))
    }

    /// Makes an API token for an account.
    ///
    /// # Errors
    /// There is no such account or tenant, or the token would live too long.
    pub async fn create_token(
        &self,
        email: &str,
        wanted: &CreateToken,
    ) -> Result<SecretText, MaintenanceError> {
        self.require_current().await?;
        auth_tokens::check(wanted)?;
        let email = auth_accounts::normal_email(email)?;
        let mut tx = self.store.begin().await?;
        let account = accounts::find_by_email(&mut tx, &email)
            .await?
            .ok_or(MaintenanceError::NoAccount(email))?;
        if let Some(id) = &wanted.tenant_id {
            members::role_of(&mut tx, id, &account.id)
                .await?
                .ok_or_else(|| MaintenanceError::NoTenant(id.to_string()))?;
        }
        let made = self.auth.create_api_token(&mut tx, &account.id, wanted).await?;
        let act = Act {
            account_id: Some(account.id),
            tenant_id: wanted.tenant_id.clone(),
            target: Some(made.row.id.to_string()),
            ..self.act("create_api_token")
        };
        acts::perform_whole(act, tx.commit()).await?;
        tracing::debug!(token = %made.row.id, at = %self.clock.now(), "made an API token");
        Ok(made.token)
    }

    /// An act of whoever uses this machine.
    fn act(&self, action: &str) -> Act {
        Act {
            actor: "console".to_owned(),
            credential_id: Some(format!("uid {}", nix::unistd::getuid().as_raw())),
            ..Act::new(
                action,
                RequestId::new(self.clock.uuid()).to_string(),
                self.clock.now(),
            )
        }
    }

    /// Closes the database.
    pub async fn close(self) {
        self.store.close().await;
    }
}

/// Where a one-time link leads, below the server's address.
#[must_use]
pub fn sign_in_path(token: &SecretText) -> String {
    format!("/sign-in/{}", token.expose())
}
