//! A store in memory's place, one account and a clock that stands still, for this module's tests.

use std::sync::Arc;

use crate::api::id::AccountId;
use crate::api::oauth::TokenResponse;
use crate::api::time::Time;
use crate::server::auth::Auth;
use crate::server::auth::keys::Keys;
use crate::server::clock::Clock;
use crate::server::store::Store;

pub(crate) struct Bench {
    pub(crate) auth: Auth,
    pub(crate) clock: Clock,
    pub(crate) account: AccountId,
    _directory: tempfile::TempDir,
}

/// A program that has signed in to the account.
pub(crate) async fn signed_in(auth: &Auth, bench: &Bench, scopes: &str) -> TokenResponse {
    let mut tx = auth.store.begin().await.expect("transaction");
    let tokens = auth
        .start_session(&mut tx, &bench.account, scopes, "laptop")
        .await
        .expect("session");
    tx.commit().await.expect("committed");
    tokens
}

pub(crate) async fn bench() -> Bench {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = Store::open_sqlite(&directory.path().join("test.db"))
        .await
        .expect("opened");
    store.migrate_up().await.expect("migrated");
    let clock = Clock::manual(Time::from_millis(1_763_700_000_000));
    let auth = Auth::new(store, clock.clone(), Arc::new(Keys::from_bytes([7; 32])));
    let account = auth
        .create_account("ada@example.org", None, false)
        .await
        .expect("account")
        .id;
    Bench {
        auth,
        clock,
        account,
        _directory: directory,
    }
}
