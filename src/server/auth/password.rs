//! Passwords: argon2id with the parameters that OWASP names (19 MiB, two passes), computed off the runtime's threads.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use tokio::sync::Semaphore;

use crate::api::secret::SecretText;
use crate::server::auth::AuthError;
use crate::server::clock::Clock;

/// The fewest characters of a new password (NIST SP 800-63B).
pub const MIN_LENGTH: usize = 8;
/// The most bytes that are hashed, so that nobody keeps the server busy with a long one.
pub const MAX_BYTES: usize = 1024;

/// A hash that no password has: verified against when there is no account, so that the answer takes as long.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// How many are computed at once: each takes 19 MiB and a processor. Others wait for their turn.
static TURNS: Semaphore = Semaphore::const_new(4);

fn argon2id() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT)
}

/// Hashes a new password into its PHC form.
///
/// # Errors
/// It is too short or too long.
pub async fn hash(clock: &Clock, password: SecretText) -> Result<String, AuthError> {
    if password.expose().chars().count() < MIN_LENGTH {
        return Err(AuthError::Invalid {
            field: "password",
            detail: format!("a password has at least {MIN_LENGTH} characters"),
        });
    }
    if password.expose().len() > MAX_BYTES {
        return Err(AuthError::Invalid {
            field: "password",
            detail: format!("a password has at most {MAX_BYTES} bytes"),
        });
    }
    let salt = clock.random::<16>();
    let _turn = TURNS.acquire().await.ok();
    let hashed = tokio::task::spawn_blocking(move || {
        argon2id()
            .hash_password_with_salt(password.expose().as_bytes(), &salt)
            .map(|hash| hash.to_string())
    })
    .await;
    match hashed {
        Ok(Ok(hash)) => Ok(hash),
        Ok(Err(error)) => Err(AuthError::Hash(error.to_string())),
        Err(error) => Err(AuthError::Hash(error.to_string())),
    }
}

/// Whether `password` is the one that `stored` was made from; takes as long where there is nothing stored.
pub async fn verify(stored: Option<&str>, password: SecretText) -> bool {
    let known = stored.is_some();
    let stored = stored.unwrap_or(NOBODY).to_owned();
    if password.expose().len() > MAX_BYTES {
        return false;
    }
    let _turn = TURNS.acquire().await.ok();
    let matched = tokio::task::spawn_blocking(move || {
        PasswordHash::new(&stored).is_ok_and(|hash| {
            argon2id()
                .verify_password(password.expose().as_bytes(), &hash)
                .is_ok()
        })
    })
    .await
    .unwrap_or(false);
    matched && known
}

#[cfg(test)]
mod tests {
    use super::{NOBODY, hash, verify};
    use crate::api::secret::SecretText;
    use crate::server::clock::Clock;

    #[tokio::test]
    async fn only_the_right_password_is_let_in() {
        let stored = hash(&Clock::system(), SecretText::new("correct horse"))
            .await
            .expect("hashed");
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(verify(Some(&stored), SecretText::new("correct horse")).await);
        assert!(!verify(Some(&stored), SecretText::new("correct horsf")).await);
        assert!(!verify(None, SecretText::new("correct horse")).await);
    }

    #[tokio::test]
    async fn short_ones_are_refused() {
        assert!(hash(&Clock::system(), SecretText::new("1234567")).await.is_err());
    }

    #[test]
    fn the_hash_of_nobody_is_well_formed() {
        assert!(argon2::password_hash::phc::PasswordHash::new(NOBODY).is_ok());
    }
}
