//! Secrets: write-only values, and the one-time credentials of a new tenant.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use utoipa::{IntoParams, ToSchema};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::api::id::OperationId;
use crate::api::name::SecretKey;
use crate::api::time::Time;

/// A text that must not be seen: no `Display`, a masked `Debug`, wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// Wraps a text that must not be seen.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself; every call is a place to look at in a review.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // serde's own words repeat a value of another type, and this one may be a secret all the same.
        String::deserialize(deserializer)
            .map(Self)
            .map_err(|_| D::Error::custom("must be a text"))
    }
}

impl utoipa::PartialSchema for SecretText {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .format(Some(utoipa::openapi::SchemaFormat::KnownFormat(
                utoipa::openapi::KnownFormat::Password,
            )))
            .into()
    }
}

impl ToSchema for SecretText {}

/// `POST /tenants/{id}/secrets`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSecret {
    /// Its name.
    pub key: SecretKey,
    /// Its value, at most 32 KiB.
    pub value: SecretText,
}

/// `PATCH /tenants/{id}/secrets/{key}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateSecret {
    /// Its new value, at most 32 KiB.
    pub value: SecretText,
}

/// `POST /tenants/{id}/secrets/{key}/restore`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreSecret {
    /// The version whose value it gets again.
    pub version: u32,
}

/// Whether a change waits for the next deploy.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StageQuery {
    /// `true`: do not restart now, the next deploy takes it along.
    #[serde(default)]
    pub stage: bool,
}

/// What is shown of a secret: everything but its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Secret {
    /// Its name.
    pub key: SecretKey,
    /// Counts the values that it has had.
    pub version: u32,
    /// First 12 hex digits of HMAC-SHA256 of the value under the tenant's key: equal values look equal here only.
    pub digest: String,
    /// Who set it.
    pub set_by: String,
    /// When.
    pub set_at: Time,
    /// `true` while no release has taken it along.
    pub staged: bool,
}

/// One value that a secret has had, without the value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretVersion {
    /// From 1.
    pub version: u32,
    /// As in the secret itself; empty where the secret was removed.
    pub digest: String,
    /// Who set or removed it.
    pub set_by: String,
    /// When.
    pub set_at: Time,
    /// `true` for the version in which the secret was removed.
    pub removed: bool,
}

/// The answer to a change of secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretChange {
    /// The secret as it is now; absent when it was removed.
    pub secret: Option<Secret>,
    /// The operation that applies it, unless it is staged or nothing runs.
    pub operation_id: Option<OperationId>,
}

/// `GET /tenants/{id}/credentials/{token}`: once, until confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Credentials {
    /// How to reach the tenant's database.
    pub database_url: SecretText,
    /// Signs the tenant's own tokens.
    pub jwt_secret: SecretText,
}
