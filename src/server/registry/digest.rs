//! Digests as OCI writes them, and hashing while bytes go by.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256, Sha512};

/// The hash functions that content may be named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Algorithm {
    /// The usual one.
    Sha256,
    /// Where the client asks for it.
    Sha512,
}

impl Algorithm {
    /// As it stands before the colon.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The algorithm of that name, if we know it.
    pub(super) fn find(name: &str) -> Option<Self> {
        [Self::Sha256, Self::Sha512]
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
    }

    fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// `sha256:` and 64, or `sha512:` and 128 lowercase hex digits. Nothing else gets to a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Digest {
    algorithm: Algorithm,
    hex: String,
}

impl Digest {
    /// The digest of `bytes`.
    pub(super) fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// By which hash function.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The part after the colon.
    pub(super) fn hex(&self) -> &str {
        &self.hex
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.as_str(), self.hex)
    }
}

/// A text that is no digest.
#[derive(Debug, thiserror::Error)]
#[error("not a digest of the form `sha256:` and 64, or `sha512:` and 128 lowercase hex digits")]
pub(super) struct InvalidDigest;

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, hex) = text.split_once(':').ok_or(InvalidDigest)?;
        let algorithm = Algorithm::find(name).ok_or(InvalidDigest)?;
        let digits = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if hex.len() != algorithm.hex_length() || !digits {
            return Err(InvalidDigest);
        }
        Ok(Self {
            algorithm,
            hex: hex.to_owned(),
        })
    }
}

/// A hash that is still being fed.
#[derive(Clone)]
pub(super) enum Hasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Sha512),
}

impl Hasher {
    /// One that has seen nothing.
    pub(super) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// Which function it computes.
    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Takes the next bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of all that it has seen.
    pub(super) fn finish(self) -> Digest {
        let (algorithm, hex) = match self {
            Self::Sha256(hasher) => (Algorithm::Sha256, hex::encode(hasher.finalize())),
            Self::Sha512(hasher) => (Algorithm::Sha512, hex::encode(hasher.finalize())),
        };
        Digest { algorithm, hex }
    }
}

#[cfg(test)]
mod tests {
    use super::{Algorithm, Digest};

    #[test]
    fn knows_the_digest_of_the_empty_descriptor() {
        // image-spec v1.1, "Guidance for an Empty Descriptor".
        let digest = Digest::of(Algorithm::Sha256, b"{}");
        let text = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse::<Digest>().expect("a digest"), digest);
    }

    #[test]
    fn refuses_everything_that_could_be_a_path() {
        let short = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8";
        let upper = format!("sha256:{}", "A".repeat(64));
        let other = format!("md5:{}", "a".repeat(32));
        let wrong = format!("sha512:{}", "a".repeat(64));
        for text in [
            short,
            &upper,
            &other,
            &wrong,
            "sha256:../../../../etc/passwd",
            "latest",
            "sha256:",
            "",
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
