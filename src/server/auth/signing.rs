//! The ring of keys that access tokens are signed with (EdDSA, Ed25519), in the database that all servers share.
//!
//! One key signs. The next one is published already, so that whoever keeps a copy of the published keys knows it before
//! it signs. Former ones verify until the last token that they have signed has expired. A rotation is one transaction:
//! a server that is killed in it has rotated or has not, and every server looks at the ring for every token.

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::api::oauth::PublicKey;
use crate::api::time::Time;
use crate::server::auth::{Auth, AuthError, access};
use crate::server::store::signing_keys::{self, KeyState, SigningKeyRow};
use crate::server::store::{StoreError, Tx, acts};

const PURPOSE: &str = "access-token-ring";
/// What stands before the 32 bytes of an Ed25519 key in PKCS #8 (RFC 8410 section 7).
const PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// A server that has read the ring just before it was rotated has signed by then, in seconds.
const UNDER_WAY_SECONDS: i64 = 60;
/// How long a former key verifies, in seconds.
pub const OVERLAP_SECONDS: i64 = access::LIFE_SECONDS as i64 + access::SKEW_SECONDS + UNDER_WAY_SECONDS;
/// A thumbprint in base64url: what no key can be named is not looked for.
const KID_CHARS: usize = 43;

/// A key that signs now.
pub(super) struct Signer {
    pub(super) kid: String,
    pub(super) key: EncodingKey,
}

/// One key of the ring, as people are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RingKey {
    /// Names it in tokens.
    pub kid: String,
    /// What it is good for.
    pub state: KeyState,
    /// When it was made.
    pub created_at: Time,
    /// Since when it signs.
    pub signs_from: Option<Time>,
    /// Until when a former one verifies.
    pub verifies_until: Option<Time>,
}

impl From<SigningKeyRow> for RingKey {
    fn from(row: SigningKeyRow) -> Self {
        Self {
            kid: row.kid,
            state: row.state,
            created_at: row.created_at,
            signs_from: row.signs_from,
            verifies_until: row.verifies_until,
        }
    }
}

impl Auth {
    /// Makes the ring where there is none yet.
    ///
    /// # Errors
    /// A key cannot be made or sealed, or the store fails.
    pub async fn prepare_ring(&self) -> Result<(), AuthError> {
        let mut tx = self.store.begin().await?;
        self.signing_row(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// The public halves of every key that a good token may be signed with, now or after the next rotation.
    ///
    /// # Errors
    /// The store fails.
    pub async fn public_keys(&self) -> Result<Vec<PublicKey>, AuthError> {
        let now = self.clock.now();
        let mut tx = self.store.begin_read().await?;
        let ring = signing_keys::list(&mut tx).await?;
        let published = ring.into_iter().filter(|key| !has_ended(key, now));
        Ok(published
            .map(|key| PublicKey::ed25519(key.kid, key.public_key))
            .collect())
    }

    /// Every key of the ring, the one that signs first.
    ///
    /// # Errors
    /// The store fails.
    pub async fn ring(&self) -> Result<Vec<RingKey>, AuthError> {
        let mut tx = self.store.begin_read().await?;
        let mut ring = signing_keys::list(&mut tx).await?;
        ring.sort_by_key(|key| key.state);
        Ok(ring.into_iter().map(RingKey::from).collect())
    }

    /// Lets the next key sign and makes a new next one; `forget`: both are new, and what any key has signed so far is
    /// good no more.
    ///
    /// # Errors
    /// Another rotation was faster, a key cannot be made, or the store fails.
    pub async fn rotate_ring(&self, forget: bool) -> Result<(), AuthError> {
        let mut tx = self.store.begin().await?;
        if forget {
            signing_keys::delete_all(&mut tx).await?;
            self.signing_row(&mut tx).await?;
            return Ok(tx.commit().await?);
        }
        self.turn_ring(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// The same where the key that signs has signed for so long, and for nobody else: `true` where it was rotated. Of two
    /// servers that find it at once one does it.
    ///
    /// # Errors
    /// A key cannot be made, or the store fails.
    pub async fn rotate_ring_after(&self, seconds: i64) -> Result<bool, AuthError> {
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        let signs = self.signing_row(&mut tx).await?;
        let since = signs.signs_from.unwrap_or(signs.created_at);
        if now.seconds_since(since) < seconds {
            return Ok(false);
        }
        match self.turn_ring(&mut tx).await {
            Err(AuthError::RotatedElsewhere) => return Ok(false),
            turned => turned?,
        }
        acts::about("by itself");
        tx.commit().await?;
        Ok(true)
    }

    /// Lets the next key sign, and makes a new next one.
    async fn turn_ring(&self, tx: &mut Tx) -> Result<(), AuthError> {
        let now = self.clock.now();
        signing_keys::delete_ended(tx, now).await?;
        let signs = self.signing_row(tx).await?;
        let next = signing_keys::find_in(tx, KeyState::Next).await?;
        let next = next.ok_or(AuthError::RotatedElsewhere)?;
        let until = now.plus_seconds(OVERLAP_SECONDS);
        if !signing_keys::retire(tx, &signs.kid, until).await?
            || !signing_keys::promote(tx, &next.kid, now).await?
            || !signing_keys::insert(tx, &self.new_key(KeyState::Next)?).await?
        {
            return Err(AuthError::RotatedElsewhere);
        }
        Ok(())
    }

    /// The key that signs.
    pub(super) async fn signer(&self, tx: &mut Tx) -> Result<Signer, AuthError> {
        let row = self.signing_row(tx).await?;
        let key = self
            .keys
            .open_sealed(PURPOSE, &row.sealed_key)
            .map(Zeroizing::new);
        let key = key.ok_or(AuthError::SealedElsewhere)?;
        Ok(Signer {
            kid: row.kid,
            key: EncodingKey::from_ed_der(&key),
        })
    }

    /// The key that verifies what was signed under this name, while it does.
    pub(super) async fn verifier(&self, tx: &mut Tx, kid: &str) -> Result<Option<DecodingKey>, StoreError> {
        if kid.len() != KID_CHARS {
            return Ok(None);
        }
        let now = self.clock.now();
        let found = signing_keys::find(tx, kid).await?;
        Ok(found
            .filter(|key| verifies(key.state, key.verifies_until, now))
            .and_then(|key| DecodingKey::from_ed_components(&key.public_key).ok()))
    }

    /// The row of the key that signs; the first one of a database makes the ring.
    async fn signing_row(&self, tx: &mut Tx) -> Result<SigningKeyRow, AuthError> {
        if let Some(row) = signing_keys::find_in(tx, KeyState::Signs).await? {
            return Ok(row);
        }
        for state in [KeyState::Signs, KeyState::Next] {
            // Where another server was faster, its key is there.
            signing_keys::insert(tx, &self.new_key(state)?).await?;
        }
        let made = signing_keys::find_in(tx, KeyState::Signs).await?;
        made.ok_or(AuthError::RotatedElsewhere)
    }

    fn new_key(&self, state: KeyState) -> Result<SigningKeyRow, AuthError> {
        let now = self.clock.now();
        let mut private = Zeroizing::new(PKCS8.to_vec());
        private.extend_from_slice(Zeroizing::new(self.clock.random::<32>()).as_slice());
        let key = EncodingKey::from_ed_der(&private);
        let public = Jwk::from_encoding_key(&key, Algorithm::EdDSA).map_err(AuthError::Sign)?;
        let AlgorithmParameters::OctetKeyPair(pair) = &public.algorithm else {
            return Err(AuthError::Seal);
        };
        Ok(SigningKeyRow {
            kid: public
                .thumbprint(ThumbprintHash::SHA256)
                .map_err(AuthError::Sign)?,
            public_key: pair.x.clone(),
            sealed_key: self.keys.seal(PURPOSE, &self.clock, &private)?,
            state,
            created_at: now,
            signs_from: (state == KeyState::Signs).then_some(now),
            verifies_until: None,
        })
    }
}

fn has_ended(key: &SigningKeyRow, now: Time) -> bool {
    key.verifies_until.is_some_and(|until| until <= now)
}

/// Whether a key of that state verifies what it has signed.
pub(super) fn verifies(state: KeyState, until: Option<Time>, now: Time) -> bool {
    state != KeyState::Next && until.is_none_or(|until| until > now)
}
