//! Accounts, links, browsers, device logins, sessions, API tokens, keyed requests, purchases, settings.

use futures::FutureExt as _;
use systemprompt::api::checkout::{CheckoutRequest, CheckoutStatus};
use systemprompt::api::id::{AccountId, CheckoutId, OperationId, SessionId, TokenId};
use systemprompt::api::tenant::DatabaseKind;
use systemprompt::server::clock::Clock;
use systemprompt::server::store::accounts::{self, AccountRow};
use systemprompt::server::store::api_tokens::{self, ApiTokenRow};
use systemprompt::server::store::checkouts::{self, CheckoutRow, Made};
use systemprompt::server::store::device_grants::{self, Decision, DeviceGrantRow};
use systemprompt::server::store::idempotency_keys::{self, RequestKey, StoredAnswer};
use systemprompt::server::store::sessions::{self, SessionRow};
use systemprompt::server::store::web_sessions::{self, WebSessionRow};
use systemprompt::server::store::{Store, StoreError, Tx, settings, sign_in_links};

use crate::store::Case;
use crate::store::cases::{NOW, tenant};

pub(crate) const ALL: &[Case] = &[
    ("an address has one account", |store| one_account(store).boxed()),
    ("a link lets in once", |store| links(store).boxed()),
    ("a browser's session ends", |store| browsers(store).boxed()),
    ("a device login is decided and used once", |store| {
        device_logins(store).boxed()
    }),
    ("a refresh token changes once", |store| rotations(store).boxed()),
    ("an API token ends", |store| tokens(store).boxed()),
    ("a key is claimed once", |store| keys(store).boxed()),
    ("a purchase completes once", |store| purchases(store).boxed()),
    ("settings are replaced", |store| replaced(store).boxed()),
];

async fn account(tx: &mut Tx, clock: &Clock, email: &str) -> Result<AccountRow, StoreError> {
    let account = AccountRow {
        id: AccountId::new(clock.uuid()),
        email: email.to_owned(),
        password_hash: None,
        operator: true,
        created_at: NOW,
    };
    accounts::create(tx, &account).await?;
    Ok(account)
}

/// A transaction with one account in it.
async fn begun(store: &Store) -> (Tx, Clock, AccountId) {
    let clock = Clock::manual(NOW);
    let mut tx = store.begin().await.expect("begun");
    let account = account(&mut tx, &clock, "ada@example.test")
        .await
        .expect("account");
    (tx, clock, account.id)
}

async fn one_account(store: Store) {
    let clock = Clock::manual(NOW);
    let mut tx = store.begin().await.expect("begun");
    assert!(!accounts::exist(&mut tx).await.expect("asked"));
    let mut ada = account(&mut tx, &clock, "ada@example.test")
        .await
        .expect("account");
    accounts::set_password(&mut tx, &ada.id, "hash")
        .await
        .expect("set");
    tx.commit().await.expect("committed");
    ada.password_hash = Some("hash".to_owned());
    let mut tx = store.begin().await.expect("begun");
    assert_eq!(
        accounts::find(&mut tx, &ada.id).await.expect("read"),
        Some(ada.clone())
    );
    let by_email = accounts::find_by_email(&mut tx, "ada@example.test")
        .await
        .expect("read");
    assert_eq!(by_email, Some(ada));
    let again = account(&mut tx, &clock, "ada@example.test").await;
    assert!(matches!(again, Err(StoreError::Duplicate(_))));
}

async fn links(store: Store) {
    let (mut tx, _, ada) = begun(&store).await;
    let ends = NOW.plus_seconds(60);
    sign_in_links::create(&mut tx, "hash", &ada, NOW, ends)
        .await
        .expect("made");
    assert_eq!(
        sign_in_links::find(&mut tx, "hash", NOW).await.expect("read"),
        Some(ada.clone())
    );
    assert_eq!(
        sign_in_links::consume(&mut tx, "hash", ends)
            .await
            .expect("too late"),
        None
    );
    assert_eq!(
        sign_in_links::consume(&mut tx, "hash", NOW).await.expect("used"),
        Some(ada)
    );
    assert_eq!(
        sign_in_links::consume(&mut tx, "hash", NOW).await.expect("again"),
        None
    );
    assert_eq!(
        sign_in_links::find(&mut tx, "hash", NOW).await.expect("read"),
        None
    );
}

async fn browsers(store: Store) {
    let (mut tx, _, ada) = begun(&store).await;
    let session = WebSessionRow {
        token_hash: "hash".to_owned(),
        account_id: ada,
        csrf_token: "csrf".to_owned(),
        created_at: NOW,
        expires_at: NOW.plus_seconds(60),
        user_agent: "a browser".to_owned(),
        signed_in_by: "password".to_owned(),
    };
    web_sessions::create(&mut tx, &session).await.expect("made");
    let late = NOW.plus_seconds(60);
    assert_eq!(
        web_sessions::find(&mut tx, "hash", late).await.expect("read"),
        None
    );
    assert_eq!(
        web_sessions::find(&mut tx, "hash", NOW).await.expect("read"),
        Some(session)
    );
    assert_eq!(
        web_sessions::delete_expired(&mut tx, NOW).await.expect("swept"),
        0
    );
    assert_eq!(
        web_sessions::delete_expired(&mut tx, late).await.expect("swept"),
        1
    );
}

async fn device_logins(store: Store) {
    let (mut tx, _, ada) = begun(&store).await;
    let mut grant = DeviceGrantRow {
        device_code_hash: "hash".to_owned(),
        user_code: "BCDFGHJK".to_owned(),
        client_id: "systemprompt-cli".to_owned(),
        scopes: "read deploy".to_owned(),
        device_name: "laptop".to_owned(),
        decision: Decision::Pending,
        interval_seconds: 5,
        last_polled_at: None,
        created_at: NOW,
        expires_at: NOW.plus_seconds(900),
    };
    device_grants::create(&mut tx, &grant).await.expect("made");
    let waiting = device_grants::find_waiting(&mut tx, "BCDFGHJK", NOW)
        .await
        .expect("read");
    assert_eq!(waiting, Some(grant.clone()));
    let late = NOW.plus_seconds(900);
    assert_eq!(
        device_grants::find_waiting(&mut tx, "BCDFGHJK", late)
            .await
            .expect("read"),
        None
    );
    assert!(
        !device_grants::decide(&mut tx, "BCDFGHJK", &ada, true, late)
            .await
            .expect("too late")
    );
    device_grants::record_poll(&mut tx, "hash", 10, NOW)
        .await
        .expect("polled");
    assert!(
        device_grants::decide(&mut tx, "BCDFGHJK", &ada, true, NOW)
            .await
            .expect("decided")
    );
    assert!(
        !device_grants::decide(&mut tx, "BCDFGHJK", &ada, false, NOW)
            .await
            .expect("again")
    );
    grant.decision = Decision::Approved(ada);
    grant.interval_seconds = 10;
    grant.last_polled_at = Some(NOW);
    assert_eq!(
        device_grants::find(&mut tx, "hash").await.expect("read"),
        Some(grant)
    );
    assert!(device_grants::consume(&mut tx, "hash").await.expect("used"));
    assert!(!device_grants::consume(&mut tx, "hash").await.expect("again"));
}

async fn rotations(store: Store) {
    let (mut tx, clock, ada) = begun(&store).await;
    let mut session = SessionRow {
        id: SessionId::new(clock.uuid()),
        account_id: ada,
        scopes: "read".to_owned(),
        device_name: "laptop".to_owned(),
        refresh_hash: "one".to_owned(),
        previous_hash: None,
        rotated_at: NOW,
        created_at: NOW,
        expires_at: NOW.plus_seconds(60),
        revoked_at: None,
    };
    sessions::create(&mut tx, &session).await.expect("made");
    let later = NOW.plus_seconds(1);
    assert!(
        sessions::rotate(&mut tx, &session.id, "one", "two", later)
            .await
            .expect("rotated")
    );
    assert!(
        !sessions::rotate(&mut tx, &session.id, "one", "three", later)
            .await
            .expect("again")
    );
    session.previous_hash = Some("one".to_owned());
    session.refresh_hash = "two".to_owned();
    session.rotated_at = later;
    assert_eq!(
        sessions::find(&mut tx, &session.id).await.expect("read"),
        Some(session.clone())
    );
    for end in [later, NOW.plus_seconds(9)] {
        sessions::revoke(&mut tx, &session.id, end).await.expect("ended");
    }
    session.revoked_at = Some(later);
    assert_eq!(
        sessions::find(&mut tx, &session.id).await.expect("read"),
        Some(session.clone())
    );
    assert!(
        !sessions::rotate(&mut tx, &session.id, "two", "three", later)
            .await
            .expect("ended")
    );
}

async fn tokens(store: Store) {
    let (mut tx, clock, ada) = begun(&store).await;
    let token = |hash: &str| ApiTokenRow {
        id: TokenId::new(clock.uuid()),
        account_id: ada.clone(),
        name: "ci".to_owned(),
        token_hash: hash.to_owned(),
        scopes: "read".to_owned(),
        tenant_id: None,
        created_at: NOW,
        expires_at: NOW.plus_seconds(60),
        last_used_at: None,
        revoked_at: None,
    };
    let (first, second) = (token("one"), token("two"));
    for token in [&first, &second] {
        api_tokens::create(&mut tx, token).await.expect("made");
    }
    let all = api_tokens::list(&mut tx, &ada, "", 10).await.expect("listed");
    assert_eq!(all, [first.clone(), second.clone()]);
    let rest = api_tokens::list(&mut tx, &ada, first.id.as_str(), 10)
        .await
        .expect("listed");
    assert_eq!(rest, std::slice::from_ref(&second));
    api_tokens::touch(&mut tx, &first.id, NOW).await.expect("touched");
    let other = AccountId::new(clock.uuid());
    assert!(
        !api_tokens::revoke(&mut tx, &other, &first.id, NOW)
            .await
            .expect("not theirs")
    );
    assert!(
        api_tokens::revoke(&mut tx, &ada, &first.id, NOW)
            .await
            .expect("ended")
    );
    assert!(
        !api_tokens::revoke(&mut tx, &ada, &first.id, NOW)
            .await
            .expect("again")
    );
    let ended = api_tokens::find_by_hash(&mut tx, "one")
        .await
        .expect("read")
        .expect("kept");
    assert_eq!((ended.last_used_at, ended.revoked_at), (Some(NOW), Some(NOW)));
    assert_eq!(
        api_tokens::list(&mut tx, &ada, "", 10).await.expect("listed"),
        [second]
    );
}

async fn keys(store: Store) {
    let key = RequestKey {
        principal: "tok_1".to_owned(),
        route: "POST /x".to_owned(),
        key: "one".to_owned(),
    };
    let ends = NOW.plus_seconds(60);
    let mut tx = store.begin().await.expect("begun");
    assert_eq!(
        idempotency_keys::find(&mut tx, &key, NOW).await.expect("read"),
        None
    );
    idempotency_keys::claim(&mut tx, &key, "print", NOW, ends)
        .await
        .expect("claimed");
    tx.commit().await.expect("committed");
    let mut tx = store.begin().await.expect("begun");
    let again = idempotency_keys::claim(&mut tx, &key, "print", NOW, ends).await;
    assert!(matches!(again, Err(StoreError::Duplicate(_))));
    drop(tx);
    let mut tx = store.begin().await.expect("begun");
    let claimed = idempotency_keys::find(&mut tx, &key, NOW)
        .await
        .expect("read")
        .expect("there");
    assert_eq!((claimed.fingerprint.as_str(), claimed.answer), ("print", None));
    let answer = StoredAnswer {
        status: 201,
        headers: "{}".to_owned(),
        body: "sealed".to_owned(),
    };
    idempotency_keys::finish(&mut tx, &key, &answer)
        .await
        .expect("kept");
    let kept = idempotency_keys::find(&mut tx, &key, NOW)
        .await
        .expect("read")
        .expect("there");
    assert_eq!(kept.answer, Some(answer));
    assert_eq!(
        idempotency_keys::find(&mut tx, &key, ends).await.expect("ended"),
        None
    );
    // An answer is kept until its end; a claim without one only for so long.
    assert_eq!(
        idempotency_keys::delete_expired(&mut tx, NOW, NOW)
            .await
            .expect("swept"),
        0
    );
    let dead = RequestKey {
        key: "two".to_owned(),
        ..key
    };
    idempotency_keys::claim(&mut tx, &dead, "print", NOW, ends)
        .await
        .expect("claimed");
    assert_eq!(
        idempotency_keys::delete_expired(&mut tx, NOW, NOW)
            .await
            .expect("swept"),
        1
    );
    assert_eq!(
        idempotency_keys::delete_expired(&mut tx, ends, NOW)
            .await
            .expect("swept"),
        1
    );
}

async fn purchases(store: Store) {
    let clock = Clock::manual(NOW);
    let made = tenant(&store, &clock, "acme").await;
    let mut tx = store.begin().await.expect("begun");
    let mut checkout = CheckoutRow {
        id: CheckoutId::new(clock.uuid()),
        account_id: made.owner_id,
        status: CheckoutStatus::Open,
        request: CheckoutRequest {
            price_id: "pri_free".to_owned(),
            name: made.name,
            region: "local".to_owned(),
            memory_mb: Some(512),
            database: DatabaseKind::Postgres,
            redirect_uri: None,
        },
        pay_token_hash: Some("hash".to_owned()),
        made: None,
        created_at: NOW,
        expires_at: NOW.plus_seconds(60),
    };
    checkouts::create(&mut tx, &checkout).await.expect("begun");
    let found = checkouts::find_by_pay_token(&mut tx, "hash").await.expect("read");
    assert_eq!(found, Some(checkout.clone()));
    let result = Made {
        tenant_id: made.id,
        operation_id: OperationId::new(clock.uuid()),
    };
    assert!(
        checkouts::complete(&mut tx, &checkout.id, &result)
            .await
            .expect("completed")
    );
    assert!(
        !checkouts::complete(&mut tx, &checkout.id, &result)
            .await
            .expect("again")
    );
    checkout.status = CheckoutStatus::Complete;
    checkout.made = Some(result);
    let locked = checkouts::find_locked(&mut tx, &checkout.id).await.expect("read");
    assert_eq!(locked, Some(checkout.clone()));
    assert_eq!(
        checkouts::find(&mut tx, &checkout.id).await.expect("read"),
        Some(checkout)
    );
}

async fn replaced(store: Store) {
    let mut tx = store.begin().await.expect("begun");
    assert_eq!(settings::find(&mut tx, "a").await.expect("read"), None);
    for value in ["one", "two"] {
        settings::put(&mut tx, "a", value).await.expect("put");
    }
    assert_eq!(
        settings::find(&mut tx, "a").await.expect("read").as_deref(),
        Some("two")
    );
}
