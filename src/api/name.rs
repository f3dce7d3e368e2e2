//! Names that people choose: tenants and secret keys, checked by the same code on both sides.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Not 3 to 40 characters long.
    #[error("a tenant name has 3 to 40 characters, this one has {0}")]
    Length(usize),
    /// A character outside `a-z0-9-`.
    #[error("a tenant name is made of a-z, 0-9 and `-`; `{0}` is none of them")]
    Character(char),
    /// It begins or ends with a hyphen, or has two in a row.
    #[error("a tenant name begins with a letter, ends with a letter or digit and has no `--`")]
    Shape,
    /// The platform answers under this name itself.
    #[error("the name `{0}` is reserved by the platform")]
    Reserved(String),
    /// Not an environment variable name.
    #[error("a secret key is made of A-Z, 0-9 and `_`, begins with a letter and has at most 128 characters")]
    Key,
    /// The platform sets this variable itself.
    #[error("`{0}` is set by the platform and cannot be a secret")]
    ReservedKey(String),
}

/// The name of a tenant: 3 to 40 of `a-z0-9-`, usable as one DNS label (RFC 1123 section 2.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantName(String);

/// The name of a secret: `[A-Z][A-Z0-9_]{0,127}`, and none that the platform sets itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretKey(String);

const RESERVED_NAMES: [&str; 9] = [
    "api",
    "app",
    "www",
    "admin",
    "edge",
    "registry",
    "localhost",
    "postgres",
    "internal",
];

/// What a release finds the signing secret in that was rotated, while tokens of it are good.
pub const FORMER_JWT_SECRET: &str = "JWT_SECRET_PREVIOUS";

/// The variables that the platform puts into every tenant's environment.
pub const PLATFORM_VARIABLES: [&str; 15] = [
    "HOST",
    "PORT",
    "RUST_LOG",
    "SYSTEMPROMPT_SERVICES_PATH",
    "WEB_DIR",
    "DATABASE_URL",
    "DATABASE_TYPE",
    "JWT_SECRET",
    "JWT_ISSUER",
    "JWT_ACCESS_TOKEN_EXPIRATION",
    "API_SERVER_URL",
    "API_EXTERNAL_URL",
    "APP_URL",
    "TENANT_ID",
    "TENANT_NAME",
];

impl FromStr for TenantName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(bad) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            return Err(InvalidName::Character(bad));
        }
        if !(3..=40).contains(&text.len()) {
            return Err(InvalidName::Length(text.len()));
        }
        let starts_well = text.starts_with(|c: char| c.is_ascii_lowercase());
        if !starts_well || text.ends_with('-') || text.contains("--") {
            return Err(InvalidName::Shape);
        }
        if RESERVED_NAMES.contains(&text) {
            return Err(InvalidName::Reserved(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for SecretKey {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shaped = text.starts_with(|c: char| c.is_ascii_uppercase())
            && text.len() <= 128
            && text
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        if !shaped {
            return Err(InvalidName::Key);
        }
        if PLATFORM_VARIABLES.contains(&text)
            || text == FORMER_JWT_SECRET
            || text.starts_with("SYSTEMPROMPT_")
        {
            return Err(InvalidName::ReservedKey(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

macro_rules! checked_text {
    ($name:ident, $pattern:literal) => {
        impl $name {
            /// The checked text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(D::Error::custom)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some($pattern))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}

checked_text!(TenantName, "^[a-z](-?[a-z0-9])+$");
checked_text!(SecretKey, "^[A-Z][A-Z0-9_]{0,127}$");

#[cfg(test)]
mod tests {
    use super::{InvalidName, SecretKey, TenantName};

    #[test]
    fn names_are_dns_labels() {
        assert!("my-project-2".parse::<TenantName>().is_ok());
        assert_eq!("ab".parse::<TenantName>(), Err(InvalidName::Length(2)));
        assert_eq!(
            "My-project".parse::<TenantName>(),
            Err(InvalidName::Character('M'))
        );
        assert_eq!("-abc".parse::<TenantName>(), Err(InvalidName::Shape));
        assert_eq!("a--b".parse::<TenantName>(), Err(InvalidName::Shape));
        assert_eq!(
            "www".parse::<TenantName>(),
            Err(InvalidName::Reserved("www".into()))
        );
        assert_eq!("a".repeat(41).parse::<TenantName>(), Err(InvalidName::Length(41)));
    }

    #[test]
    fn keys_never_shadow_the_platform() {
        assert!("OPENAI_API_KEY".parse::<SecretKey>().is_ok());
        assert_eq!("openai".parse::<SecretKey>(), Err(InvalidName::Key));
        assert!(matches!(
            "DATABASE_URL".parse::<SecretKey>(),
            Err(InvalidName::ReservedKey(_))
        ));
    }
}
