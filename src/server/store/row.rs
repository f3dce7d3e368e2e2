//! Rows and arguments that are the same on both engines.

use sqlx::Row as _;

use crate::api::time::Time;
use crate::server::store::StoreError;

/// One argument of a statement.
#[derive(Clone, Debug)]
pub enum Value {
    /// TEXT, possibly NULL.
    Text(Option<String>),
    /// BIGINT, possibly NULL.
    Int(Option<i64>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.map(str::to_owned))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(Some(number))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Int(Some(i64::from(number)))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Self::Int(number)
    }
}

impl From<Time> for Value {
    fn from(time: Time) -> Self {
        Self::Int(Some(time.as_millis()))
    }
}

impl From<Option<Time>> for Value {
    fn from(time: Option<Time>) -> Self {
        Self::Int(time.map(Time::as_millis))
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Int(Some(i64::from(flag)))
    }
}

/// One row of an answer.
pub enum Row {
    /// From SQLite.
    Sqlite(sqlx::sqlite::SqliteRow),
    /// From PostgreSQL.
    Postgres(sqlx::postgres::PgRow),
}

impl Row {
    /// A TEXT column that may be NULL.
    ///
    /// # Errors
    /// The column is missing or not TEXT.
    pub fn opt_text(&self, column: &'static str) -> Result<Option<String>, StoreError> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
        .map_err(|source| StoreError::BadRow {
            column,
            value: String::new(),
            source: Box::new(source),
        })
    }

    /// A TEXT column.
    ///
    /// # Errors
    /// The column is missing, NULL or not TEXT.
    pub fn text(&self, column: &'static str) -> Result<String, StoreError> {
        self.opt_text(column)?
            .ok_or(StoreError::UnexpectedNull { column })
    }

    /// A BIGINT column that may be NULL.
    ///
    /// # Errors
    /// The column is missing or not BIGINT.
    pub fn opt_int(&self, column: &'static str) -> Result<Option<i64>, StoreError> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
        .map_err(|source| StoreError::BadRow {
            column,
            value: String::new(),
            source: Box::new(source),
        })
    }

    /// A BIGINT column.
    ///
    /// # Errors
    /// The column is missing, NULL or not BIGINT.
    pub fn int(&self, column: &'static str) -> Result<i64, StoreError> {
        self.opt_int(column)?.ok_or(StoreError::UnexpectedNull { column })
    }

    /// A time column.
    ///
    /// # Errors
    /// The column is missing, NULL or not BIGINT.
    pub fn time(&self, column: &'static str) -> Result<Time, StoreError> {
        Ok(Time::from_millis(self.int(column)?))
    }

    /// A time column that may be NULL.
    ///
    /// # Errors
    /// The column is missing or not BIGINT.
    pub fn opt_time(&self, column: &'static str) -> Result<Option<Time>, StoreError> {
        Ok(self.opt_int(column)?.map(Time::from_millis))
    }

    /// A number that fits `u32`.
    ///
    /// # Errors
    /// The column is missing, NULL, not BIGINT or out of range.
    pub fn u32(&self, column: &'static str) -> Result<u32, StoreError> {
        let number = self.int(column)?;
        u32::try_from(number).map_err(|source| StoreError::BadRow {
            column,
            value: number.to_string(),
            source: Box::new(source),
        })
    }

    /// A number that fits `u32`, or NULL.
    ///
    /// # Errors
    /// The column is missing, not BIGINT or out of range.
    pub fn opt_u32(&self, column: &'static str) -> Result<Option<u32>, StoreError> {
        match self.opt_int(column)? {
            None => Ok(None),
            Some(_) => self.u32(column).map(Some),
        }
    }

    /// A number that is not negative.
    ///
    /// # Errors
    /// The column is missing, NULL, not BIGINT or negative.
    pub fn u64(&self, column: &'static str) -> Result<u64, StoreError> {
        let number = self.int(column)?;
        u64::try_from(number).map_err(|source| StoreError::BadRow {
            column,
            value: number.to_string(),
            source: Box::new(source),
        })
    }

    /// A 0/1 column.
    ///
    /// # Errors
    /// The column is missing, NULL or not BIGINT.
    pub fn flag(&self, column: &'static str) -> Result<bool, StoreError> {
        Ok(self.int(column)? != 0)
    }

    /// A TEXT column parsed by its type's `FromStr` (ids, names).
    ///
    /// # Errors
    /// The column is missing, NULL, or its text is refused.
    pub fn parse<T>(&self, column: &'static str) -> Result<T, StoreError>
    where
        T: std::str::FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        let text = self.text(column)?;
        text.parse().map_err(|source| StoreError::BadRow {
            column,
            value: text,
            source: Box::new(source),
        })
    }

    /// A TEXT column parsed by its type's `FromStr`, or NULL.
    ///
    /// # Errors
    /// The column is missing, or its text is refused.
    pub fn opt_parse<T>(&self, column: &'static str) -> Result<Option<T>, StoreError>
    where
        T: std::str::FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        match self.opt_text(column)? {
            None => Ok(None),
            Some(_) => self.parse(column).map(Some),
        }
    }

    /// A TEXT column that holds one word of a serde enum, or a JSON document.
    ///
    /// # Errors
    /// The column is missing, NULL, or does not deserialize.
    pub fn json<T: serde::de::DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        let text = self.text(column)?;
        serde_json::from_str(&text).map_err(|source| StoreError::BadRow {
            column,
            value: text,
            source: Box::new(source),
        })
    }

    /// A TEXT column that holds a JSON document, or NULL.
    ///
    /// # Errors
    /// The column is missing or does not deserialize.
    pub fn opt_json<T: serde::de::DeserializeOwned>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, StoreError> {
        match self.opt_text(column)? {
            None => Ok(None),
            Some(_) => self.json(column).map(Some),
        }
    }

    /// A TEXT column that holds the bare word of a unit enum.
    ///
    /// # Errors
    /// The column is missing, NULL, or holds another word.
    pub fn word<T: serde::de::DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        let text = self.text(column)?;
        serde_json::from_value(serde_json::Value::String(text.clone())).map_err(|source| StoreError::BadRow {
            column,
            value: text,
            source: Box::new(source),
        })
    }
}

/// The bare word that stands for a unit enum in a TEXT column.
pub fn word_of<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
