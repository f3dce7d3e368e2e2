//! SCRAM-SHA-256 verifiers (RFC 5802, RFC 7677) as PostgreSQL stores them: a password never leaves this process.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::api::secret::SecretText;

/// What PostgreSQL itself uses; our passwords are random, so more rounds would protect nothing.
pub(super) const ITERATIONS: u32 = 4096;

/// A password that would have to be normalized first (SASLprep), which ours never need.
#[derive(Debug, thiserror::Error)]
#[error("a database password is made of printable ASCII characters and has at least one")]
pub(super) struct UnusablePassword;

/// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`. It is a secret itself, if a lesser one.
pub(super) fn verifier(
    password: &SecretText,
    salt: &[u8],
    iterations: u32,
) -> Result<SecretText, UnusablePassword> {
    let text = password.expose();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(UnusablePassword);
    }
    let salted = salted_password(text.as_bytes(), salt, iterations);
    let stored_key = Sha256::digest(hmac(&salted, b"Client Key"));
    let server_key = hmac(&salted, b"Server Key");
    Ok(SecretText::new(format!(
        "SCRAM-SHA-256${iterations}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored_key),
        STANDARD.encode(server_key)
    )))
}

/// `Hi()` of RFC 5802: PBKDF2 with HMAC-SHA-256 and one block.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut first = salt.to_vec();
    first.extend(1_u32.to_be_bytes());
    let mut round = hmac(password, &first);
    let mut all = round;
    for _ in 1..iterations {
        round = hmac(password, &round);
        for (sum, byte) in all.iter_mut().zip(round) {
            *sum ^= byte;
        }
    }
    all
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length: there is no error to come.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return [0; 32];
    };
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::Deserialize;

    use super::{ITERATIONS, verifier};
    use crate::api::secret::SecretText;

    #[derive(Deserialize)]
    struct File {
        vectors: Vec<Vector>,
    }

    #[derive(Deserialize)]
    struct Vector {
        name: String,
        password: String,
        salt_b64: String,
        iterations: u32,
        verifier: String,
    }

    fn vectors() -> Vec<Vector> {
        let text = include_str!("../../../../tests/data/postgres/scram-verifier-vectors.json");
        serde_json::from_str::<File>(text).expect("vectors").vectors
    }

    #[test]
    fn agrees_with_verifiers_that_postgresql_let_in() {
        let (plain, others): (Vec<_>, Vec<_>) = vectors()
            .into_iter()
            .partition(|vector| vector.password.bytes().all(|b| b.is_ascii_graphic()));
        assert_eq!((plain.len(), others.len()), (4, 5));
        for vector in plain {
            let salt = STANDARD.decode(&vector.salt_b64).expect("base64");
            let made = verifier(&SecretText::new(vector.password), &salt, vector.iterations).expect("plain");
            assert_eq!(made.expose(), vector.verifier, "{}", vector.name);
        }
        for vector in others {
            let refused = verifier(&SecretText::new(vector.password), &[0; 16], ITERATIONS);
            assert!(refused.is_err(), "{}", vector.name);
        }
    }

    #[test]
    fn an_empty_password_is_none() {
        assert!(verifier(&SecretText::new(""), &[0; 16], ITERATIONS).is_err());
    }
}
