//! The master key: a document with all its versions, and a canary that tells whether it is the right one.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::api::secret::SecretText;
use crate::server::clock::Clock;
use crate::server::vault::VaultError;
use crate::server::vault::cipher::{Key, open, seal};

const KEY_FILE: &str = "master.key";
const CANARY_FILE: &str = "master.canary";
const CANARY_NAME: &str = "systemprompt:canary:v1";
const CANARY: &[u8] = b"the master key is the right one";

/// All versions of the master key.
pub(super) struct MasterKeys {
    current: (u32, Key),
    keys: BTreeMap<u32, Key>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    current: u32,
    keys: BTreeMap<u32, String>,
}

/// Where the master key comes from.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// `master.key` in a folder, made where nothing was ever sealed, with a canary beside it.
    Folder(PathBuf),
    /// A file, which must be there.
    File(PathBuf),
    /// A text of the environment.
    Text(SecretText),
    /// What a shell command prints.
    Command(String),
}

impl KeySource {
    /// The file that holds the key, where one does.
    pub(super) fn file(&self) -> Option<PathBuf> {
        match self {
            Self::Folder(folder) => Some(folder.join(KEY_FILE)),
            Self::File(file) => Some(file.clone()),
            Self::Text(_) | Self::Command(_) => None,
        }
    }
}

impl MasterKeys {
    /// Reads the key; in a folder, makes it where neither key nor canary is there.
    pub(super) fn open(source: &KeySource, clock: &Clock) -> Result<Self, VaultError> {
        match source {
            KeySource::Folder(folder) => Self::open_folder(folder, clock),
            KeySource::File(file) => match read(file)? {
                Some(document) => Self::parse(file, &document),
                None => Err(failed(file)(std::io::ErrorKind::NotFound.into())),
            },
            KeySource::Text(text) => Self::parse(Path::new("SYSTEMPROMPT_MASTER_KEY"), text.expose()),
            KeySource::Command(command) => Self::parse(Path::new(command), &printed(command)?),
        }
    }

    fn open_folder(directory: &Path, clock: &Clock) -> Result<Self, VaultError> {
        let (key_file, canary_file) = (directory.join(KEY_FILE), directory.join(CANARY_FILE));
        let canary = read(&canary_file)?;
        let document = match (read(&key_file)?, &canary) {
            (Some(document), _) => document,
            (None, Some(_)) => {
                return Err(VaultError::KeyMissing {
                    path: key_file.display().to_string(),
                });
            }
            (None, None) => {
                create(&key_file, &fresh_document(clock)?)?;
                // Read back: of two servers that start at once, one wrote the file that stays.
                read(&key_file)?.unwrap_or_default()
            }
        };
        let master = Self::parse(&key_file, &document)?;
        match canary {
            Some(canary) => master.check(&key_file, &canary)?,
            None => create(&canary_file, &master.canary(clock)?)?,
        }
        Ok(master)
    }

    /// All versions of the key.
    pub(super) fn versions(&self) -> Vec<u32> {
        self.keys.keys().copied().collect()
    }

    /// Writes a document of these versions and one more, which seals from now on; answers its number.
    pub(super) fn add_version(&self, file: &Path, clock: &Clock) -> Result<u32, VaultError> {
        let next = self.keys.keys().max().copied().unwrap_or(0) + 1;
        let fresh = Zeroizing::new(clock.random::<32>());
        let mut keys = self.texts(|_| true);
        keys.insert(next, STANDARD.encode(fresh.as_slice()));
        replace(file, &write_document(&Document { current: next, keys })?)?;
        Ok(next)
    }

    /// Writes a document of the current version only.
    pub(super) fn keep_current(&self, file: &Path) -> Result<(), VaultError> {
        let current = self.current.0;
        let keys = self.texts(|version| version == current);
        replace(file, &write_document(&Document { current, keys })?)
    }

    /// Writes the canary anew, sealed with the current version, where there is one.
    pub(super) fn renew_canary(&self, source: &KeySource, clock: &Clock) -> Result<(), VaultError> {
        match source {
            KeySource::Folder(folder) => replace(&folder.join(CANARY_FILE), &self.canary(clock)?),
            _ => Ok(()),
        }
    }

    fn texts(&self, wanted: impl Fn(u32) -> bool) -> BTreeMap<u32, String> {
        self.keys
            .iter()
            .filter(|(version, _)| wanted(**version))
            .map(|(version, key)| (*version, STANDARD.encode(key.as_slice())))
            .collect()
    }

    /// A known text, sealed.
    pub(super) fn canary(&self, clock: &Clock) -> Result<String, VaultError> {
        let (_, key) = self.current();
        seal(key, clock.random(), CANARY_NAME, CANARY)
    }

    /// Whether a canary was sealed with any version of this key.
    pub(super) fn opens(&self, canary: &str) -> bool {
        let opens =
            |key: &Key| open(key, CANARY_NAME, canary.trim()).is_some_and(|plain| plain.as_slice() == CANARY);
        self.keys.values().any(opens)
    }

    /// The version that seals, and its number.
    pub(super) fn current(&self) -> (u32, &Key) {
        (self.current.0, &self.current.1)
    }

    /// A version that opens.
    pub(super) fn version(&self, version: u32) -> Result<&Key, VaultError> {
        self.keys
            .get(&version)
            .ok_or(VaultError::UnknownVersion { version })
    }

    fn parse(path: &Path, text: &str) -> Result<Self, VaultError> {
        let malformed = |source: Box<dyn std::error::Error + Send + Sync>| VaultError::Malformed {
            path: path.display().to_string(),
            source,
        };
        let document = match in_one_line(text) {
            Some(document) => document,
            None => serde_json::from_str(text).map_err(|source| malformed(Box::new(source)))?,
        };
        let mut keys = BTreeMap::new();
        for (version, text) in &document.keys {
            let bytes = Zeroizing::new(
                STANDARD
                    .decode(text)
                    .map_err(|source| malformed(Box::new(source)))?,
            );
            let key = <[u8; 32]>::try_from(bytes.as_slice())
                .map_err(|_| malformed(format!("version {version} is not 32 bytes long").into()))?;
            keys.insert(*version, Zeroizing::new(key));
        }
        let Some(current) = keys.get(&document.current).cloned() else {
            let missing = format!("its current version {} is not in it", document.current);
            return Err(malformed(missing.into()));
        };
        Ok(Self {
            current: (document.current, current),
            keys,
        })
    }

    /// The canary may be older than the current version: any version that opens it proves the file.
    fn check(&self, path: &Path, canary: &str) -> Result<(), VaultError> {
        if self.opens(canary) {
            return Ok(());
        }
        Err(VaultError::WrongKey {
            path: path.display().to_string(),
        })
    }
}

fn fresh_document(clock: &Clock) -> Result<String, VaultError> {
    let key = Zeroizing::new(clock.random::<32>());
    let document = Document {
        current: 1,
        keys: [(1, STANDARD.encode(key.as_slice()))].into(),
    };
    write_document(&document)
}

fn write_document(document: &Document) -> Result<String, VaultError> {
    serde_json::to_string_pretty(document).map_err(|source| VaultError::Malformed {
        path: KEY_FILE.to_owned(),
        source: Box::new(source),
    })
}

/// `1:BASE64,2:BASE64`, for a variable of the environment: the last one seals.
fn in_one_line(text: &str) -> Option<Document> {
    let keys = text
        .trim()
        .split(',')
        .map(|entry| {
            let (version, key) = entry.trim().split_once(':')?;
            Some((version.parse().ok()?, key.trim().to_owned()))
        })
        .collect::<Option<BTreeMap<u32, String>>>()?;
    let current = *keys.keys().next_back()?;
    Some(Document { current, keys })
}

/// What a shell command prints; what it complains about goes to the server's own log.
fn printed(command: &str) -> Result<Zeroizing<String>, VaultError> {
    let refused = |source: std::io::Error| VaultError::Command {
        command: command.to_owned(),
        source,
    };
    let output = std::process::Command::new("sh")
        .args(["-c", command])
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(refused)?;
    if !output.status.success() {
        return Err(refused(std::io::Error::other(format!(
            "it ended with {}",
            output.status
        ))));
    }
    String::from_utf8(output.stdout)
        .map(Zeroizing::new)
        .map_err(|_| refused(std::io::Error::other("what it prints is not text")))
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> VaultError {
    let path = path.display().to_string();
    move |source| VaultError::File { path, source }
}

fn read(path: &Path) -> Result<Option<String>, VaultError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path)(error)),
    }
}

/// Writes a file, whole or not at all, readable by its owner only, whatever was there before.
fn replace(path: &Path, text: &str) -> Result<(), VaultError> {
    let directory: PathBuf = path.parent().map(Path::to_owned).unwrap_or_default();
    let mut file = tempfile::NamedTempFile::new_in(&directory).map_err(failed(path))?;
    file.write_all(text.as_bytes()).map_err(failed(path))?;
    file.as_file().sync_all().map_err(failed(path))?;
    file.persist(path).map_err(|error| failed(path)(error.error))?;
    std::fs::File::open(&directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed(path))
}

/// Writes a file that is not there yet, whole or not at all, readable by its owner only.
fn create(path: &Path, text: &str) -> Result<(), VaultError> {
    let directory: PathBuf = path.parent().map(Path::to_owned).unwrap_or_default();
    // Temporary files are made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(&directory).map_err(failed(path))?;
    file.write_all(text.as_bytes()).map_err(failed(path))?;
    file.as_file().sync_all().map_err(failed(path))?;
    match file.persist_noclobber(path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(failed(path)(error.error)),
    }
    std::fs::File::open(&directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed(path))
}
