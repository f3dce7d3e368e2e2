//! XChaCha20-Poly1305 with a random nonce: one format of sealed text, used for keys and for values.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::server::vault::VaultError;

/// A key, wiped when dropped.
pub(super) type Key = Zeroizing<[u8; 32]>;

/// Names the format, so that a later one can be told from this one.
const FORMAT: &str = "x1.";
const NONCE_BYTES: usize = 24;

/// Seals `plain` and binds it to `name`.
pub(super) fn seal(
    key: &Key,
    nonce: [u8; NONCE_BYTES],
    name: &str,
    plain: &[u8],
) -> Result<String, VaultError> {
    let cipher = XChaCha20Poly1305::new(&(**key).into());
    let payload = Payload {
        msg: plain,
        aad: name.as_bytes(),
    };
    let sealed = cipher
        .encrypt(&XNonce::from(nonce), payload)
        .map_err(|_| VaultError::TooLong)?;
    let mut bytes = nonce.to_vec();
    bytes.extend_from_slice(&sealed);
    Ok(format!("{FORMAT}{}", STANDARD_NO_PAD.encode(bytes)))
}

/// Opens what [`seal`] answered for the same name; `None` for anything else.
pub(super) fn open(key: &Key, name: &str, sealed: &str) -> Option<Zeroizing<Vec<u8>>> {
    let bytes = STANDARD_NO_PAD.decode(sealed.strip_prefix(FORMAT)?).ok()?;
    let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>()?;
    let cipher = XChaCha20Poly1305::new(&(**key).into());
    let payload = Payload {
        msg: sealed,
        aad: name.as_bytes(),
    };
    cipher
        .decrypt(&XNonce::from(*nonce), payload)
        .ok()
        .map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::{open, seal};

    #[test]
    fn every_changed_character_is_noticed() {
        let key = Zeroizing::new([7; 32]);
        let sealed = seal(&key, [9; 24], "name", b"value").expect("sealed");
        assert_eq!(
            open(&key, "name", &sealed).as_deref().map(Vec::as_slice),
            Some(b"value".as_slice())
        );
        for index in 0..sealed.len() {
            let mut changed: Vec<u8> = sealed.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert!(open(&key, "name", &changed).is_none(), "character {index}");
        }
        assert!(open(&key, "another", &sealed).is_none());
        assert!(open(&Zeroizing::new([8; 32]), "name", &sealed).is_none());
    }
}
