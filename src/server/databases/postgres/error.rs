//! Which of PostgreSQL's errors may pass.

use crate::server::containers::EngineError;
use crate::server::databases::DatabaseError;

/// The SQLSTATE of an error of the server.
pub(super) fn code_of(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// A statement or connection that failed; `what` completes "failed to …".
pub(super) fn failed(what: &str, source: sqlx::Error) -> DatabaseError {
    let what = format!("failed to {what}");
    let code = code_of(&source);
    if is_passing(&source, code.as_deref()) {
        return DatabaseError::Retry {
            what,
            source: Some(Box::new(source)),
        };
    }
    let forbidden = matches!(code.as_deref(), Some("42501" | "28P01" | "28000"));
    DatabaseError::Fatal {
        code: if forbidden {
            "database-forbidden"
        } else {
            "database-refused"
        },
        what,
        hint: forbidden.then(|| {
            "the server's role on PostgreSQL needs a valid password and CREATEDB, CREATEROLE".to_owned()
        }),
        source: Some(Box::new(source)),
    }
}

fn is_passing(error: &sqlx::Error, code: Option<&str>) -> bool {
    match (error, code) {
        // Connections, resources, an operator's stop; deadlocks and time-outs; an object in use; and the internal
        // error "tuple concurrently updated" of two changes of one role.
        (_, Some(code)) => {
            ["08", "53", "57", "40"]
                .iter()
                .any(|class| code.starts_with(class))
                || ["55006", "55P03", "XX000"].contains(&code)
        }
        (
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Protocol(_),
            None,
        ) => true,
        _ => false,
    }
}

impl From<EngineError> for DatabaseError {
    fn from(error: EngineError) -> Self {
        let what = error.to_string();
        if error.is_retry() {
            return Self::Retry {
                what,
                source: error.source,
            };
        }
        Self::Fatal {
            code: error.code(),
            what,
            hint: error.hint(),
            source: error.source,
        }
    }
}
