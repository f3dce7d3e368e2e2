//! Identifiers: a kind prefix and a UUIDv7 (RFC 9562) in 26 characters of Crockford base32, so they sort by age.
//!
//! An id names something; it is never a secret and never grants anything.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use uuid::Uuid;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH: usize = 26;
/// Whether a byte is one of the alphabet. Ids are read with every row.
const IS_DIGIT: [bool; 256] = {
    let mut table = [false; 256];
    let mut at = 0;
    while at < ALPHABET.len() {
        table[ALPHABET[at] as usize] = true;
        at += 1;
    }
    table
};

/// A text that is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id of the form `{prefix}` and 26 characters of 0-9a-hjkmnp-tv-z")]
pub struct InvalidId {
    prefix: &'static str,
    text: String,
}

fn encode(uuid: Uuid) -> String {
    let mut bits = uuid.as_u128();
    let mut text = [b'0'; LENGTH];
    for slot in text.iter_mut().rev() {
        *slot = ALPHABET[(bits & 31) as usize];
        bits >>= 5;
    }
    text.iter().map(|byte| char::from(*byte)).collect()
}

fn decode(text: &str) -> Uuid {
    let digit = |byte| {
        ALPHABET
            .iter()
            .position(|letter| *letter == byte)
            .unwrap_or_default()
    };
    Uuid::from_u128(
        text.bytes()
            .fold(0, |bits, byte| (bits << 5) | digit(byte) as u128),
    )
}

fn is_encoded(text: &str) -> bool {
    // 26 characters hold 130 bits: the first may only use the lowest 3 of its 5.
    text.len() == LENGTH
        && text.bytes().all(|byte| IS_DIGIT[usize::from(byte)])
        && text
            .as_bytes()
            .first()
            .is_some_and(|first| (b'0'..=b'7').contains(first))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// What every id of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// The id that carries `uuid`.
            #[must_use]
            pub fn new(uuid: Uuid) -> Self {
                Self(format!("{}{}", $prefix, encode(uuid)))
            }

            /// The id as it is written everywhere.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// What it carries.
            #[must_use]
            pub fn uuid(&self) -> Uuid {
                decode(&self.0[$prefix.len()..])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text.strip_prefix($prefix) {
                    Some(rest) if is_encoded(rest) => Ok(Self(text.to_owned())),
                    _ => Err(InvalidId { prefix: $prefix, text: text.chars().take(64).collect() }),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some(concat!("^", $prefix, "[0-9a-hjkmnp-tv-z]{26}$")))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}

id!(/** One customer project's isolated stack. */ TenantId, "ten_");
id!(/** One durable piece of work on a tenant. */ OperationId, "op_");
id!(/** Somebody who signs in. */ AccountId, "acc_");
id!(/** One signed-in session of an account (its refresh-token family). */ SessionId, "ses_");
id!(/** One API token. */ TokenId, "tok_");
id!(/** One purchase that brings a tenant into being. */ CheckoutId, "chk_");
id!(/** One HTTP request, echoed in `X-Request-Id`. */ RequestId, "req_");
id!(/** One rule that lets CI jobs deploy. */ TrustRuleId, "tru_");
id!(/** A door that an owner has opened for operators. */ SupportGrantId, "sup_");
id!(/** One resource that a tenant owns, as the ledger lists it. */ ResourceId, "res_");

#[cfg(test)]
mod tests {
    use super::{OperationId, TenantId};
    use uuid::Uuid;

    #[test]
    fn round_trips_and_sorts_by_age() {
        let older = TenantId::new(Uuid::from_u128(1));
        let newer = TenantId::new(Uuid::from_u128(u128::MAX));
        assert_eq!(older.as_str(), "ten_00000000000000000000000001");
        assert_eq!(newer.as_str(), "ten_7zzzzzzzzzzzzzzzzzzzzzzzzz");
        assert_eq!(newer.as_str().parse::<TenantId>(), Ok(newer.clone()));
        assert!(older < newer);
    }

    #[test]
    fn refuses_another_kind_and_other_letters() {
        let text = TenantId::new(Uuid::from_u128(7)).to_string();
        assert!(text.parse::<OperationId>().is_err());
        assert!("ten_8zzzzzzzzzzzzzzzzzzzzzzzzz".parse::<TenantId>().is_err());
        assert!("ten_0000000000000000000000000l".parse::<TenantId>().is_err());
        assert!("ten_../../etc/passwd".parse::<TenantId>().is_err());
    }
}
