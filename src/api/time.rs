//! Points in time: RFC 3339 UTC on the wire, milliseconds since the epoch in the store.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A point in time with millisecond resolution, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

impl Time {
    /// From milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This time moved by `seconds` (which may be negative).
    #[must_use]
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1000)))
    }

    /// Whole seconds from `earlier` to this time; negative when `earlier` is later.
    #[must_use]
    pub const fn seconds_since(self, earlier: Self) -> i64 {
        (self.0 - earlier.0) / 1000
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(timestamp) => write!(f, "{timestamp:.3}"),
            Err(_) => write!(f, "invalid-time({})", self.0),
        }
    }
}

impl FromStr for Time {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.parse::<jiff::Timestamp>()?.as_millisecond()))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

impl utoipa::PartialSchema for Time {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .format(Some(utoipa::openapi::SchemaFormat::KnownFormat(
                utoipa::openapi::KnownFormat::DateTime,
            )))
            .into()
    }
}

impl utoipa::ToSchema for Time {}

#[cfg(test)]
mod tests {
    use super::Time;

    #[test]
    fn is_rfc_3339_with_milliseconds() {
        let time = Time::from_millis(1_763_700_000_123);
        assert_eq!(time.to_string(), "2025-11-21T04:40:00.123Z");
        assert_eq!(
            "2025-11-21T04:40:00.123Z".parse::<Time>().expect("valid time"),
            time
        );
    }

    #[test]
    fn outside_bytes_as_time_id_or_name() {
        let seeds: [&[u8]; 5] = [
            b"2026-11-21T09:11:00.087Z",
            b"-9999-12-31T23:59:59+99:99",
            b"ten_01m7yf8m6vebvts9qd0abfmdcn",
            b"my-project-2",
            b"OPENAI_API_KEY",
        ];
        crate::mutation::torment(&seeds, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            (
                text.parse::<Time>().map(|time| time.to_string().len()).is_ok(),
                text.parse::<crate::api::id::TenantId>().is_ok(),
                text.parse::<crate::api::name::TenantName>().is_ok(),
                text.parse::<crate::api::name::SecretKey>().is_ok(),
            )
        });
    }
}
