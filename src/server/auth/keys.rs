//! The installation's signing key: one file of the data directory, from which a key for every purpose is derived.

use std::io::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use chacha20poly1305::aead::Aead as _;
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::ZeroizeOnDrop;

use crate::server::auth::AuthError;
use crate::server::clock::Clock;

/// File of the data directory that holds the signing key.
pub const FILE: &str = "signing.key";
const NONCE_BYTES: usize = 24;

/// The signing key.
#[derive(ZeroizeOnDrop)]
pub struct Keys([u8; 32]);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Keys {
    /// Reads the key from `directory`, making it (mode 0600) where there is none yet.
    ///
    /// # Errors
    /// The file cannot be read or written, or is not 64 hex digits.
    pub fn open(directory: &Path, clock: &Clock) -> Result<Self, AuthError> {
        let path = directory.join(FILE);
        let failed = |source| AuthError::KeyFile {
            path: path.display().to_string(),
            source,
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(text.trim()).ok_or_else(|| failed(malformed())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = clock.random::<32>();
                // A temporary file is made with mode 0600 and only then gets its name.
                let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
                file.write_all(hex::encode(key).as_bytes())
                    .and_then(|()| file.as_file().sync_all())
                    .map_err(failed)?;
                match file.persist_noclobber(&path) {
                    Ok(_) => Ok(Self(key)),
                    // Another process was faster by a moment.
                    Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
                        Self::open(directory, clock)
                    }
                    Err(error) => Err(failed(error.error)),
                }
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Reads the key from `file`, which must be there.
    ///
    /// # Errors
    /// The file cannot be read, or is not 64 hex digits.
    pub fn open_file(file: &Path) -> Result<Self, AuthError> {
        std::fs::read_to_string(file)
            .and_then(|text| Self::parse(text.trim()).ok_or_else(malformed))
            .map_err(|source| AuthError::KeyFile {
                path: file.display().to_string(),
                source,
            })
    }

    /// A key from its bytes, for tests.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut key = [0; 32];
        hex::decode_to_slice(text, &mut key).ok()?;
        Some(Self(key))
    }

    /// A key that serves one purpose only and says nothing about the others.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        self.mac(purpose, &[])
    }

    /// Seals `plain` under the key of `purpose`, for what the store keeps and nobody else may read.
    ///
    /// # Errors
    /// It is longer than the cipher takes (256 GiB).
    pub fn seal(&self, purpose: &str, clock: &Clock, plain: &[u8]) -> Result<String, AuthError> {
        let nonce = clock.random::<NONCE_BYTES>();
        let sealed = XChaCha20Poly1305::new(&self.derive(purpose).into())
            .encrypt(&XNonce::from(nonce), plain)
            .map_err(|_| AuthError::Seal)?;
        Ok(STANDARD_NO_PAD.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// Opens what [`Keys::seal`] answered for the same purpose; `None` for anything else.
    #[must_use]
    pub fn open_sealed(&self, purpose: &str, sealed: &str) -> Option<Vec<u8>> {
        let bytes = STANDARD_NO_PAD.decode(sealed).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>()?;
        XChaCha20Poly1305::new(&self.derive(purpose).into())
            .decrypt(&XNonce::from(*nonce), sealed)
            .ok()
    }

    /// HMAC-SHA256 of `parts` under the key of `purpose`; every part is framed by its length.
    #[must_use]
    pub fn mac(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = new_mac(&self.0);
        mac.update(purpose.as_bytes());
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

fn malformed() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, "it does not hold 64 hex digits")
}

#[expect(
    clippy::expect_used,
    reason = "HMAC takes keys of any length: there is no error to pass on"
)]
fn new_mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// SHA-256 of a token in hex: what the store keeps instead of it.
#[must_use]
pub fn hash_token(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

/// 256 random bits as 43 characters that need no quoting in a URL, a header or a shell.
#[must_use]
pub fn random_token(clock: &Clock) -> String {
    clock.random_text::<32>()
}

#[cfg(test)]
mod tests {
    use super::{FILE, Keys};
    use crate::server::clock::Clock;

    #[test]
    fn the_file_is_made_once_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("temporary directory");
        let first = Keys::open(directory.path(), &Clock::system()).expect("made");
        let again = Keys::open(directory.path(), &Clock::system()).expect("read");
        assert_eq!(first.derive("a"), again.derive("a"));
        assert_ne!(first.derive("a"), first.derive("b"));
        let mode = std::fs::metadata(directory.path().join(FILE))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_is_sealed_opens_for_its_purpose_only() {
        let keys = Keys::from_bytes([7; 32]);
        let sealed = keys.seal("a", &Clock::system(), b"answer").expect("sealed");
        assert_eq!(
            keys.open_sealed("a", &sealed).as_deref(),
            Some(b"answer".as_slice())
        );
        assert_eq!(keys.open_sealed("b", &sealed), None);
        assert_eq!(keys.open_sealed("a", "AAAA"), None);
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let keys = Keys::from_bytes([7; 32]);
        assert_ne!(keys.mac("p", &[b"ab", b"c"]), keys.mac("p", &[b"a", b"bc"]));
    }
}
