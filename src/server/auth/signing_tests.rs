//! Access tokens and the ring that signs them: rotation over two servers, and everything that is no token of ours.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::api::oauth::TokenResponse;
use crate::server::auth::keys::Keys;
use crate::server::auth::signing::OVERLAP_SECONDS;
use crate::server::auth::testing::{Bench, bench, signed_in};
use crate::server::auth::{Auth, AuthError};
use crate::server::store::signing_keys::KeyState;

/// Another server over the same database.
fn second(bench: &Bench) -> Auth {
    let keys = Arc::new(Keys::from_bytes([7; 32]));
    Auth::new(bench.auth.store.clone(), bench.clock.clone(), keys)
}

fn part(token: &str, number: usize) -> Value {
    let part = token.split('.').nth(number).expect("a part");
    serde_json::from_slice(&BASE64.decode(part).expect("base64url")).expect("JSON")
}

fn kid(token: &str) -> String {
    part(token, 0)["kid"].as_str().expect("a kid").to_owned()
}

#[tokio::test]
async fn a_rotation_ends_no_token_and_the_next_key_was_known() {
    let bench = bench().await;
    let (one, two) = (&bench.auth, second(&bench));
    let old = signed_in(one, &bench, "read").await;
    let published = one.public_keys().await.expect("published");
    assert_eq!(published.len(), 2);
    two.rotate_ring(false).await.expect("rotated");
    let new = signed_in(one, &bench, "read").await;
    let (old, new) = (old.access_token.expose(), new.access_token.expose());
    assert_ne!(kid(old), kid(new));
    assert!(
        published.iter().any(|key| key.kid == kid(new)),
        "known before it signs"
    );
    for auth in [one, &two] {
        for token in [old, new] {
            assert!(auth.authenticate(token).await.is_ok());
        }
    }
    // Whoever verifies by what is published comes to the same.
    let keys = one.public_keys().await.expect("published");
    assert_eq!(keys.len(), 3);
    for token in [old, new] {
        let key = keys.iter().find(|key| key.kid == kid(token)).expect("published");
        let key = serde_json::from_value(serde_json::to_value(key).expect("a document")).expect("a JWK");
        let key = jsonwebtoken::DecodingKey::from_jwk(&key).expect("a key");
        let mut validation = jsonwebtoken::Validation::new(Algorithm::EdDSA);
        validation.validate_exp = false;
        validation.set_audience(&["systemprompt"]);
        validation.set_issuer(&["systemprompt"]);
        let read = jsonwebtoken::decode::<Value>(token, &key, &validation).expect("verified");
        assert_eq!(read.claims["sub"], bench.account.to_string());
    }
    // The last moment at which the old key's last token may be good, and the end of the key.
    bench.clock.advance_seconds(659);
    assert!(one.authenticate(old).await.is_ok());
    bench.clock.advance_seconds(OVERLAP_SECONDS - 659);
    assert_eq!(one.public_keys().await.expect("published").len(), 2);
}

#[tokio::test]
async fn a_forgotten_ring_ends_every_token_and_no_session() {
    let bench = bench().await;
    let tokens = signed_in(&bench.auth, &bench, "read").await;
    second(&bench).rotate_ring(true).await.expect("forgotten");
    assert!(
        bench
            .auth
            .authenticate(tokens.access_token.expose())
            .await
            .is_err()
    );
    let refresh = tokens.refresh_token.expect("a refresh token");
    let fresh = bench.auth.refresh(refresh.expose()).await.expect("fresh pair");
    assert!(bench.auth.authenticate(fresh.access_token.expose()).await.is_ok());
}

#[tokio::test]
async fn rotations_at_once_leave_one_key_that_signs() {
    let bench = bench().await;
    let two = second(&bench);
    let (first, other) = tokio::join!(bench.auth.rotate_ring(false), two.rotate_ring(false));
    for done in [first, other] {
        assert!(
            matches!(done, Ok(()) | Err(AuthError::RotatedElsewhere)),
            "{done:?}"
        );
    }
    let ring = bench.auth.ring().await.expect("read");
    let count = |state| ring.iter().filter(|key| key.state == state).count();
    assert_eq!((count(KeyState::Signs), count(KeyState::Next)), (1, 1));
    let tokens = signed_in(&two, &bench, "read").await;
    assert!(
        bench
            .auth
            .authenticate(tokens.access_token.expose())
            .await
            .is_ok()
    );
}

/// A token with this header and these claims, signed as `algorithm` says with `key`.
fn forged(header: &Value, claims: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
    let part = |value: &Value| BASE64.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).expect("signed");
    format!("{message}.{signature}")
}

/// A good token, taken apart, and the key that has signed it.
struct Good {
    tokens: TokenResponse,
    header: Value,
    claims: Value,
    ours: EncodingKey,
}

impl Good {
    async fn of(bench: &Bench) -> Self {
        let tokens = signed_in(&bench.auth, bench, "read").await;
        let token = tokens.access_token.expose();
        let (header, claims) = (part(token, 0), part(token, 1));
        let good = Self {
            header,
            claims,
            ours: key_of(&bench.auth).await,
            tokens,
        };
        // The way of the forgeries is sound: with everything as it should be one is let in.
        let fine = good.with("kid", good.header["kid"].clone());
        assert!(bench.auth.authenticate(&fine).await.is_ok());
        good
    }

    /// The same with one word of the header changed, signed by our key all the same.
    fn with(&self, name: &str, value: Value) -> String {
        let mut header = self.header.clone();
        header[name] = value;
        forged(&header, &self.claims, &self.ours, Algorithm::EdDSA)
    }
}

async fn key_of(auth: &Auth) -> EncodingKey {
    let mut tx = auth.store.begin().await.expect("transaction");
    auth.signer(&mut tx).await.expect("the key").key
}

async fn refuses(bench: &Bench, forgeries: &[(&str, String)]) {
    for (what, token) in forgeries {
        let refused = bench.auth.authenticate(token).await;
        assert!(
            matches!(refused, Err(AuthError::Unauthenticated(_))),
            "{what}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn how_a_token_is_signed_is_not_its_own_to_say() {
    let bench = bench().await;
    let good = Good::of(&bench).await;
    let public = bench.auth.public_keys().await.expect("published");
    let signs = public.iter().find(|key| good.header["kid"] == key.kid);
    let x = &signs.expect("published").x;
    let known = EncodingKey::from_secret(&BASE64.decode(x).expect("base64url"));
    let as_text = EncodingKey::from_secret(x.as_bytes());
    let before = EncodingKey::from_secret(&Keys::from_bytes([7; 32]).derive("access-token"));
    let mut hmac = good.header.clone();
    hmac["alg"] = json!("HS256");
    let mut none = good.header.clone();
    none["alg"] = json!("none");
    let old = serde_json::to_value(Header::new(Algorithm::HS256)).expect("a header");
    let with = |header: &Value, key| forged(header, &good.claims, key, Algorithm::HS256);
    let encoded = |value: &Value| BASE64.encode(value.to_string());
    let whole = good.tokens.access_token.expose();
    let forgeries = [
        ("the public key as a secret", with(&hmac, &known)),
        ("its text as a secret", with(&hmac, &as_text)),
        ("as it was before there was a ring", with(&old, &before)),
        ("EdDSA in the header only", with(&good.header, &known)),
        (
            "no signature",
            format!("{}.{}.", encoded(&none), encoded(&good.claims)),
        ),
        (
            "a signature cut off",
            whole.rsplit_once('.').expect("a signature").0.to_owned() + ".",
        ),
    ];
    refuses(&bench, &forgeries).await;
    // The session goes on after an upgrade: access tokens of the old kind are refused, and had anew.
    let refresh = good.tokens.refresh_token.expect("a refresh token");
    assert!(bench.auth.refresh(refresh.expose()).await.is_ok());
}

#[tokio::test]
async fn a_token_names_a_key_that_signs_and_what_it_is() {
    let bench = bench().await;
    let good = Good::of(&bench).await;
    let public = bench.auth.public_keys().await.expect("published");
    let next = public.iter().find(|key| good.header["kid"] != key.kid);
    let next = &next.expect("published").kid;
    let other = key_of(&self::bench().await.auth).await;
    let forgeries = [
        (
            "another key under our name",
            forged(&good.header, &good.claims, &other, Algorithm::EdDSA),
        ),
        ("a key that does not sign yet", good.with("kid", json!(next))),
        ("an unknown key", good.with("kid", json!("a".repeat(43)))),
        ("a key named in SQL", good.with("kid", json!("' OR 1=1 --"))),
        ("a key of no name", good.with("kid", Value::Null)),
        ("another kind of token", good.with("typ", json!("JWT"))),
        ("an identity", good.with("typ", json!("id_token+jwt"))),
        ("no kind", good.with("typ", Value::Null)),
    ];
    refuses(&bench, &forgeries).await;
}

#[tokio::test]
async fn a_key_that_has_signed_for_long_is_rotated_by_one_server() {
    const DAYS: i64 = 90 * 24 * 3600;
    let bench = bench().await;
    let (one, two) = (&bench.auth, second(&bench));
    let old = signed_in(one, &bench, "read").await;
    let kids = async || {
        let keys = one.public_keys().await.expect("published");
        keys.into_iter().map(|key| key.kid).collect::<Vec<_>>()
    };
    let before = kids().await;
    bench.clock.advance_seconds(DAYS - 60);
    assert!(!one.rotate_ring_after(DAYS).await.expect("looked"));
    assert_eq!(kids().await, before);
    let fresh = signed_in(one, &bench, "read").await;
    assert_eq!(kid(fresh.access_token.expose()), kid(old.access_token.expose()));
    bench.clock.advance_seconds(60);
    let (first, second) = tokio::join!(one.rotate_ring_after(DAYS), two.rotate_ring_after(DAYS));
    let rotated = [first.expect("looked"), second.expect("looked")];
    assert_eq!(rotated.iter().filter(|rotated| **rotated).count(), 1);
    assert!(!two.rotate_ring_after(DAYS).await.expect("looked"));
    assert_eq!(kids().await.len(), 3, "signs, next, former");
    // What was signed a minute ago is good on both, and what is signed now was published before.
    let new = signed_in(&two, &bench, "read").await;
    assert_ne!(kid(new.access_token.expose()), kid(fresh.access_token.expose()));
    assert!(before.contains(&kid(new.access_token.expose())));
    for auth in [one, &two] {
        for token in [&fresh, &new] {
            assert!(auth.authenticate(token.access_token.expose()).await.is_ok());
        }
    }
}
