//! A world for the fakes: what a provider, a database server and an edge would hold, in memory or in a file.
//!
//! With a file, several processes share one world: a killed server finds it again, and a test may plan faults
//! in it and list it while the server runs. Secret values never get in, only their SHA-256.

mod fault;
mod state;

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::server::failpoint;
pub use crate::server::world::fault::{Broken, Fault};
pub use crate::server::world::state::{Chaos, Command, Database, Machine, Network, Printed, State, Volume};

/// Why the world's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The file or its lock cannot be read or written.
    #[error("failed to use the fake world's file `{path}`")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a world.
    #[error("failed to read the fake world's file `{path}`: it is not what this version writes")]
    Content {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// How often a call that waits for others looks for them.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(3);

/// What the fakes share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct World(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    file: Option<PathBuf>,
    /// The version of the file that `state` was read from.
    version: Mutex<Option<Version>>,
}

/// A file is replaced at every change, so that its inode tells one version from the next.
type Version = (u64, SystemTime);

impl World {
    /// An empty world that ends with the process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State::default()),
            file: None,
            version: Mutex::default(),
        }))
    }

    /// The world kept in `file`, which is made at the first change.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn open(file: &Path) -> Result<Self, WorldError> {
        if file.as_os_str() == ":memory:" {
            return Ok(Self::in_memory());
        }
        let world = Self(Arc::new(Inner {
            state: Mutex::new(State::default()),
            file: Some(file.to_owned()),
            version: Mutex::default(),
        }));
        world.change(|_| ())?;
        Ok(world)
    }

    /// Looks at the world, and perhaps changes it, while nobody else does.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn change<T>(&self, act: impl FnOnce(&mut State) -> T) -> Result<T, WorldError> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = &self.0.file else {
            return Ok(act(&mut state));
        };
        let _lock = lock(file)?;
        if let Some(stored) = read(file)? {
            *state = stored;
        }
        let answer = act(&mut state);
        write(file, &state)?;
        Ok(answer)
    }

    /// Looks at the world often: its file is read only when somebody has changed it, and never written.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn peek<T>(&self, look: impl FnOnce(&State) -> T) -> Result<T, WorldError> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &self.0.file {
            let mut seen = self.0.version.lock().unwrap_or_else(PoisonError::into_inner);
            let there = version(file);
            if *seen != there || there.is_none() {
                if let Some(stored) = read(file)? {
                    *state = stored;
                }
                *seen = there;
            }
        }
        Ok(look(&state))
    }

    /// One call of a fake: counts it, plays the fault that is planned for it, and acts.
    ///
    /// # Errors
    /// What `act` answers, or the planned fault.
    pub async fn call<T, E: From<Broken>>(
        &self,
        method: &'static str,
        act: impl FnOnce(&mut State) -> Result<T, E>,
    ) -> Result<T, E> {
        let (planned, mut is_held) = self
            .change(|state| (state.count_call(method), state.is_held(method)))
            .map_err(Broken::from)?;
        while is_held {
            tokio::time::sleep(LOOK_EVERY).await;
            is_held = self.peek(|state| state.is_held(method)).map_err(Broken::from)?;
        }
        match planned {
            Some(Fault::Retry) => return Err(Broken::Retry { method }.into()),
            Some(Fault::Fatal) => return Err(Broken::Fatal { method }.into()),
            Some(Fault::Delay { millis }) => {
                tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
            }
            Some(Fault::LostReply) | None => {}
        }
        failpoint::pass(&format!("{method}:called"));
        let answer = self.change(act).map_err(Broken::from)??;
        failpoint::pass(&format!("{method}:done"));
        if planned == Some(Fault::LostReply) {
            return Err(Broken::Retry { method }.into());
        }
        Ok(answer)
    }

    /// Plans that the `nth` call of `method` from now on (1 is the next one) goes wrong. Methods are named
    /// `provider.start_machine`, `databases.create`, `edge.attach` and so on.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn plan(&self, method: &str, nth: u64, fault: Fault) -> Result<(), WorldError> {
        self.change(|state| state.plan(method, nth, fault))
    }

    /// From now on calls of `method` wait until each of `others` was called as well. Their effects, and what is planned for
    /// them, come after that.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn hold(&self, method: &str, others: &[&str]) -> Result<(), WorldError> {
        self.change(|state| {
            for other in others {
                let so_far = state.calls.get(*other).copied().unwrap_or(0);
                state
                    .gates
                    .push((method.to_owned(), (*other).to_owned(), so_far + 1));
            }
        })
    }

    /// How often `method` was called.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn calls(&self, method: &str) -> Result<u64, WorldError> {
        self.change(|state| state.calls.get(method).copied().unwrap_or(0))
    }

    /// Everything there is, a line each (`machine sp-fake-acme-v1`), sorted. Pulled images are not counted.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn resources(&self) -> Result<Vec<String>, WorldError> {
        self.change(|state| state.resources())
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> WorldError {
    let path = path.display().to_string();
    move |source| WorldError::File { path, source }
}

fn lock(file: &Path) -> Result<File, WorldError> {
    let path = file.with_extension("lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed(&path))?;
    lock.lock().map_err(failed(&path))?;
    Ok(lock)
}

fn version(file: &Path) -> Option<Version> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.ino(), metadata.modified().ok()?))
}

fn read(file: &Path) -> Result<Option<State>, WorldError> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(file)(error)),
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|source| WorldError::Content {
            path: file.display().to_string(),
            source,
        })
}

fn write(file: &Path, state: &State) -> Result<(), WorldError> {
    let text = serde_json::to_string_pretty(state).map_err(|source| WorldError::Content {
        path: file.display().to_string(),
        source,
    })?;
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary = tempfile::NamedTempFile::new_in(directory).map_err(failed(file))?;
    temporary.write_all(text.as_bytes()).map_err(failed(file))?;
    temporary
        .persist(file)
        .map_err(|error| failed(file)(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Broken, Fault, World};

    #[tokio::test]
    async fn faults_come_when_planned_and_once() {
        let world = World::in_memory();
        world.plan("edge.attach", 2, Fault::Retry).expect("planned");
        let call = async || world.call("edge.attach", |_| Ok::<_, Broken>(())).await;
        assert!(call().await.is_ok());
        assert!(matches!(call().await, Err(Broken::Retry { .. })));
        assert!(call().await.is_ok());
        assert_eq!(world.calls("edge.attach").expect("counted"), 3);
    }

    #[tokio::test]
    async fn a_lost_reply_has_had_its_effect() {
        let world = World::in_memory();
        world
            .plan("provider.pull_image", 1, Fault::LostReply)
            .expect("planned");
        let answer = world
            .call("provider.pull_image", |state| {
                state.images.insert("image".to_owned());
                Ok::<_, Broken>(())
            })
            .await;
        assert!(matches!(answer, Err(Broken::Retry { .. })));
        assert!(
            world
                .change(|state| state.images.contains("image"))
                .expect("read")
        );
    }

    #[tokio::test]
    async fn a_held_call_waits_for_the_others() {
        let world = World::in_memory();
        world.hold("edge.join", &["edge.know"]).expect("planned");
        let call = |method| world.call(method, |_| Ok::<_, Broken>(()));
        let mut held = Box::pin(call("edge.join"));
        let waited = tokio::time::timeout(std::time::Duration::from_millis(30), &mut held).await;
        assert!(waited.is_err(), "nobody has called the other one");
        assert!(call("edge.know").await.is_ok());
        assert!(held.await.is_ok());
    }

    #[test]
    fn a_second_process_finds_the_same_world() {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("world.json");
        let first = World::open(&file).expect("opened");
        let second = World::open(&file).expect("opened");
        first
            .change(|state| state.routes.insert("acme".into(), "n".into()))
            .expect("changed");
        second.plan("edge.attach", 1, Fault::Fatal).expect("planned");
        assert_eq!(second.resources().expect("read"), ["route acme"]);
        assert_eq!(
            first
                .change(|state| state.count_call("edge.attach"))
                .expect("read"),
            Some(Fault::Fatal)
        );
    }
}
