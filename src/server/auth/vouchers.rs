//! Visitors for whom somebody else vouches: the tokens of an issuer that a tenant's owner has named, such as Directus.

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::api::edge_session::SessionIssuer;
use crate::api::secret::SecretText;
use crate::api::time::Time;
use crate::server::auth::exchange::Audience;
use crate::server::auth::issuers::{IssuerError, Issuers};
use crate::server::auth::visits::Visitor;

/// How far two clocks may differ, in seconds.
const SKEW_SECONDS: i64 = 60;
/// A shorter key can be guessed (RFC 7518 section 3.2).
pub const SHORTEST_KEY: usize = 32;
const LONGEST_SUBJECT: usize = 200;

/// Why nobody is vouched for.
#[derive(Debug, thiserror::Error)]
pub enum VoucherError {
    /// The token is no good.
    #[error("the token of `{issuer}` is not good: {why}")]
    Refused {
        /// Whose it says that it is.
        issuer: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It cannot be told.
    #[error("failed to tell whether a token is good: {0}")]
    Unknown(String),
}

/// What a token says, whoever has signed it.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    exp: i64,
    #[serde(default)]
    nbf: Option<i64>,
    #[serde(default)]
    aud: Option<Audience>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// What a token of the issuer that is good now calls its visitor; `key` is the one that it shares with the tenant.
///
/// # Errors
/// The token is not good, or its issuer's keys cannot be had.
pub async fn visitor(
    setting: &SessionIssuer,
    (issuers, key): (&Issuers, Option<&SecretText>),
    token: &str,
    now: Time,
) -> Result<Visitor, VoucherError> {
    let refused = |why| VoucherError::Refused {
        issuer: setting.issuer.clone(),
        why,
    };
    let claims: Claims = match (&setting.secret, key) {
        (None, _) => issuers
            .verify(&setting.issuer, token)
            .await
            .map_err(|error| match error {
                IssuerError::Unreadable | IssuerError::Signature => refused("it is not signed by them"),
                other => VoucherError::Unknown(other.to_string()),
            })?,
        (Some(name), None) => return Err(VoucherError::Unknown(format!("there is no secret `{name}`"))),
        (Some(name), Some(key)) if key.expose().len() < SHORTEST_KEY => {
            let why = format!("the secret `{name}` has less than {SHORTEST_KEY} characters");
            return Err(VoucherError::Unknown(why));
        }
        (Some(_), Some(key)) => read_shared(token, key).ok_or_else(|| refused("it is not signed by them"))?,
    };
    let seconds = now.as_millis().div_euclid(1000);
    if claims.iss.trim_end_matches('/') != setting.issuer {
        return Err(refused("it is of another issuer"));
    }
    if seconds >= claims.exp.saturating_add(SKEW_SECONDS) {
        return Err(refused("it has expired"));
    }
    if claims
        .nbf
        .is_some_and(|from| seconds.saturating_add(SKEW_SECONDS) < from)
    {
        return Err(refused("it is from the future"));
    }
    if let Some(wanted) = &setting.audience
        && !claims.aud.as_ref().is_some_and(|audience| audience.names(wanted))
    {
        return Err(refused("it is for another audience"));
    }
    let subject = match claims.more.get(setting.claim.as_deref().unwrap_or("sub")) {
        Some(Value::String(subject)) => subject.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => return Err(refused("it names nobody")),
    };
    let plain = subject.bytes().all(|b| b.is_ascii_graphic() && b != b'|');
    if !plain || !(1..=LONGEST_SUBJECT).contains(&subject.len()) {
        return Err(refused("it names nobody that can be written in a header"));
    }
    Ok(Visitor {
        user: format!("{}|{subject}", setting.issuer),
        email: None,
    })
}

/// What a token says that is signed with a shared key; how it is signed is not the token's to say.
fn read_shared(token: &str, key: &SecretText) -> Option<Claims> {
    let mut validation = Validation::new(Algorithm::HS256);
    // Times and audience are checked by the clock that was passed in, and by the tenant's setting.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let key = DecodingKey::from_secret(key.expose().as_bytes());
    let read = jsonwebtoken::decode::<Claims>(token, &key, &validation);
    read.ok().map(|data| data.claims)
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, EncodingKey, Header};
    use serde_json::{Value, json};

    use super::{VoucherError, visitor};
    use crate::api::edge_session::SessionIssuer;
    use crate::api::secret::SecretText;
    use crate::api::time::Time;
    use crate::server::auth::issuers::Issuers;
    use crate::server::clock::Clock;

    const KEY: &str = "a-key-that-is-long-enough-for-hs256";
    const NOW: i64 = 1_763_700_000;

    fn directus() -> SessionIssuer {
        let setting = json!({"issuer": "directus", "secret": "DIRECTUS_SECRET", "claim": "id"});
        serde_json::from_value(setting).expect("a setting")
    }

    fn signed(algorithm: Algorithm, key: &str, change: &Value) -> String {
        let mut claims = json!({"iss": "directus", "id": "4b1c", "role": null, "app_access": true,
            "iat": NOW, "exp": NOW + 900});
        for (name, value) in change.as_object().expect("claims") {
            claims[name] = value.clone();
        }
        let key = EncodingKey::from_secret(key.as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).expect("signed")
    }

    async fn told(setting: &SessionIssuer, key: Option<&str>, token: &str) -> Result<String, VoucherError> {
        let issuers = Issuers::new(Vec::new(), Clock::system());
        let key = key.map(SecretText::new);
        let now = Time::from_millis(NOW * 1000);
        let told = visitor(setting, (&issuers, key.as_ref()), token, now).await;
        told.map(|visitor| visitor.user)
    }

    async fn with(change: Value) -> Result<String, VoucherError> {
        told(&directus(), Some(KEY), &signed(Algorithm::HS256, KEY, &change)).await
    }

    #[tokio::test]
    async fn directus_vouches_for_its_users() {
        assert_eq!(with(json!({})).await.expect("good"), "directus|4b1c");
        assert_eq!(with(json!({"id": 7})).await.expect("good"), "directus|7");
        for bad in [
            json!({"iss": "elsewhere"}),
            json!({"exp": NOW - 61}),
            json!({"nbf": NOW + 61}),
            json!({"id": null}),
            json!({"id": ""}),
            json!({"id": "a b"}),
            json!({"id": "x\r\nX-Evil: 1"}),
            json!({"id": "other|4b1c"}),
            json!({"exp": null}),
        ] {
            let refused = with(bad.clone()).await;
            assert!(
                matches!(refused, Err(VoucherError::Refused { .. })),
                "{bad}: {refused:?}"
            );
        }
    }

    #[tokio::test]
    async fn only_its_own_key_and_way_of_signing_count() {
        let setting = directus();
        let forged = signed(
            Algorithm::HS256,
            "another-key-that-is-long-enough-too",
            &json!({}),
        );
        let other_way = signed(Algorithm::HS512, KEY, &json!({}));
        let unsigned = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJkaXJlY3R1cyIsImlkIjoiMSIsImV4cCI6OTk5OTk5OTk5OX0.";
        for token in [forged.as_str(), &other_way, unsigned, "", "a.b.c"] {
            let refused = told(&setting, Some(KEY), token).await;
            assert!(
                matches!(refused, Err(VoucherError::Refused { .. })),
                "{token}: {refused:?}"
            );
        }
        // Nothing is made of a key that is not there, or that anybody can guess.
        for key in [None, Some("short")] {
            let token = signed(Algorithm::HS256, key.unwrap_or_default(), &json!({}));
            let unknown = told(&setting, key, &token).await;
            assert!(matches!(unknown, Err(VoucherError::Unknown(_))), "{unknown:?}");
        }
        let mut for_shop = directus();
        for_shop.audience = Some("shop".to_owned());
        let token = signed(Algorithm::HS256, KEY, &json!({"aud": ["blog", "shop"]}));
        assert!(told(&for_shop, Some(KEY), &token).await.is_ok());
        let token = signed(Algorithm::HS256, KEY, &json!({}));
        assert!(told(&for_shop, Some(KEY), &token).await.is_err());
    }
}
