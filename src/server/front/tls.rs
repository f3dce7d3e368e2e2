//! TLS with certificate files: read at the start, read again when they change. Open connections keep what they began with.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::api::time::Time;

/// Where the certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the certificate, then those that lead to its authority.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, unreadable, or not PEM.
    #[error("failed to read `{path}`")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no certificate in the file.
    #[error("there is no certificate in `{0}`")]
    Empty(PathBuf),
    /// They do not belong together, or the library cannot use them.
    #[error("the certificate in `{certificate}` cannot be served with the key in `{key}`")]
    Unfit {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// What new connections are served with.
#[derive(Clone)]
pub struct Tls {
    files: TlsFiles,
    now: Arc<RwLock<Now>>,
}

/// What was read, and when the files were last changed then.
struct Now {
    config: Arc<ServerConfig>,
    changed: Option<[SystemTime; 2]>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let changed = changed_at(&files);
        let config = read(&files)?;
        Ok(Self {
            files,
            now: Arc::new(RwLock::new(Now { config, changed })),
        })
    }

    /// What a new connection is served with.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// Reads the files again if they were changed; answers whether there is something new. Files that cannot be used
    /// leave everything as it is, and are read again when they change once more.
    ///
    /// # Errors
    /// They were changed and cannot be used.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        let changed = changed_at(&self.files);
        if changed.is_none() || changed == self.now.read().unwrap_or_else(PoisonError::into_inner).changed {
            return Ok(false);
        }
        let config = read(&self.files);
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        now.changed = changed;
        now.config = config?;
        Ok(true)
    }
}

fn changed_at(files: &TlsFiles) -> Option<[SystemTime; 2]> {
    let at = |path: &Path| std::fs::metadata(path).and_then(|file| file.modified()).ok();
    Some([at(&files.certificate)?, at(&files.key)?])
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = read_chain(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::File {
        path: files.key.clone(),
        source: Box::new(source),
    })?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|source| TlsError::Unfit {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            source,
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = |source: rustls::pki_types::pem::Error| TlsError::File {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let chain = CertificateDer::pem_file_iter(path)
        .map_err(file)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(file)?;
    if chain.is_empty() {
        return Err(TlsError::Empty(path.to_owned()));
    }
    Ok(chain)
}

/// Until when the certificate in the file is good; `None` where that cannot be told.
///
/// # Errors
/// There is no certificate in the file.
pub fn good_until(path: &Path) -> Result<Option<Time>, TlsError> {
    let chain = read_chain(path)?;
    Ok(chain.first().and_then(|certificate| not_after(certificate)))
}

/// `notAfter` of a certificate (RFC 5280 section 4.1): the second time of the fifth part of what is signed.
fn not_after(certificate: &[u8]) -> Option<Time> {
    let (whole, _) = element(certificate, 0x30)?;
    let (mut signed, _) = element(whole, 0x30)?;
    if signed.first() == Some(&0xa0) {
        signed = element(signed, 0xa0)?.1;
    }
    for tag in [0x02, 0x30, 0x30] {
        signed = element(signed, tag)?.1;
    }
    let (validity, _) = element(signed, 0x30)?;
    let after_first = [0x17, 0x18].iter().find_map(|tag| element(validity, *tag))?.1;
    let (century, digits) = match after_first.first()? {
        0x17 => {
            let digits = std::str::from_utf8(element(after_first, 0x17)?.0).ok()?;
            // Two digits: 50 to 99 are of the last century (section 4.1.2.5.1).
            (if digits < "50" { "20" } else { "19" }, digits)
        }
        _ => ("", std::str::from_utf8(element(after_first, 0x18)?.0).ok()?),
    };
    let text = format!("{century}{digits}");
    let part = |range: std::ops::Range<usize>| text.get(range);
    format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0..4)?,
        part(4..6)?,
        part(6..8)?,
        part(8..10)?,
        part(10..12)?,
        part(12..14)?
    )
    .parse()
    .ok()
}

/// The content of the DER element at the front, if it has that tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first()?;
    if *first != tag {
        return None;
    }
    let (length, rest) = if *length < 0x80 {
        (usize::from(*length), rest)
    } else {
        let count = usize::from(*length & 0x7f);
        if !(1..=4).contains(&count) || rest.len() < count {
            return None;
        }
        let (length, rest) = rest.split_at(count);
        let sum = length
            .iter()
            .fold(0usize, |sum, byte| (sum << 8) | usize::from(*byte));
        (sum, rest)
    };
    (rest.len() >= length).then(|| rest.split_at(length))
}

#[cfg(test)]
mod tests {
    use super::not_after;

    #[test]
    fn outside_bytes_as_certificate() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let good = made.cert.der().to_vec();
        assert!(not_after(&good).is_some());
        crate::mutation::torment(&[&good], |bytes| not_after(bytes).is_some());
    }
}
