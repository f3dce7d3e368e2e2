//! Places at which a server can be told to die, so that tests end it between any two of its writes and around every
//! call into the world.
//!
//! They are there in builds with debug assertions only: tests need no build of their own, and no build that is shipped
//! has them. `SYSTEMPROMPT_FAILPOINTS` names a folder: every place that is passed is written to `passed` in it, and the
//! process kills itself at the place that `armed` names. What the file `forgotten` in it lists, the server does not know, as
//! one of an older version; by what the file `clock` says, in seconds, the server's clock goes wrong.

#[cfg(not(debug_assertions))]
pub use crate::server::failpoint::absent::{call, folder, forgets, move_clock, pass, watch, within};
#[cfg(debug_assertions)]
pub use crate::server::failpoint::armed::{call, folder, forgets, move_clock, pass, watch, within};

#[cfg(debug_assertions)]
mod armed {
    use std::fs::OpenOptions;
    use std::future::Future;
    use std::io::Write as _;
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::time::Duration;

    use crate::server::clock::Clock;

    /// The variable that names the folder.
    const VARIABLE: &str = "SYSTEMPROMPT_FAILPOINTS";

    static FOLDER: OnceLock<PathBuf> = OnceLock::new();

    tokio::task_local! {
        static SCOPE: String;
    }

    /// The folder that the environment names.
    pub fn folder(variable: impl FnOnce(&str) -> Option<String>) -> Option<PathBuf> {
        variable(VARIABLE).map(PathBuf::from)
    }

    /// Watches this folder from now on.
    pub fn watch(folder: PathBuf) {
        let _ = FOLDER.set(folder);
    }

    /// From now on the clock goes wrong by as many seconds as the file `clock` says, whenever it says so.
    pub fn move_clock(clock: &Clock) {
        let Some(folder) = FOLDER.get() else { return };
        let (clock, file) = (clock.clone(), folder.join("clock"));
        let obey = move || {
            let said = std::fs::read_to_string(&file).unwrap_or_default();
            clock.put(said.trim().parse().unwrap_or(0));
        };
        obey();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(20));
                obey();
            }
        });
    }

    /// Everything that `work` passes belongs to `scope`: an operation's step, or a route.
    pub async fn within<T>(scope: impl FnOnce() -> String, work: impl Future<Output = T>) -> T {
        if FOLDER.get().is_none() {
            return work.await;
        }
        SCOPE.scope(scope(), work).await
    }

    /// A place; outside of any scope it has no name and is not one.
    pub fn pass(place: &str) {
        let Some(folder) = FOLDER.get() else { return };
        let Ok(name) = SCOPE.try_with(|scope| format!("{scope}:{place}")) else {
            return;
        };
        let passed = OpenOptions::new()
            .append(true)
            .create(true)
            .open(folder.join("passed"));
        if let Ok(mut passed) = passed {
            // One write, so that lines of several workers do not mix.
            let _ = passed.write_all(format!("{name}\n").as_bytes());
        }
        let armed = folder.join("armed");
        if std::fs::read_to_string(&armed).is_ok_and(|armed| armed == name) {
            // Renamed first: the next process must live.
            let _ = std::fs::rename(&armed, folder.join("fired"));
            let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        }
    }

    /// Whether this process behaves as an older version that does not know this step of an operation (`deploy/start`), or
    /// no step of this kind (`deploy`): a line of the file `forgotten`.
    pub fn forgets(step: &str) -> bool {
        let Some(folder) = FOLDER.get() else { return false };
        let forgotten = std::fs::read_to_string(folder.join("forgotten")).unwrap_or_default();
        let kind = step.split('/').next();
        forgotten.lines().any(|line| line == step || Some(line) == kind)
    }

    /// A call into the world, with a place on either side of it.
    pub async fn call<T>(method: &str, work: impl Future<Output = T>) -> T {
        pass(&format!("{method}:called"));
        let answer = work.await;
        pass(&format!("{method}:done"));
        answer
    }
}

#[cfg(not(debug_assertions))]
mod absent {
    use std::future::Future;
    use std::path::PathBuf;

    use crate::server::clock::Clock;

    /// None.
    pub fn folder(_variable: impl FnOnce(&str) -> Option<String>) -> Option<PathBuf> {
        None
    }

    /// Does nothing.
    pub fn watch(_folder: PathBuf) {}

    /// Does the work.
    pub async fn within<T>(_scope: impl FnOnce() -> String, work: impl Future<Output = T>) -> T {
        work.await
    }

    /// Does nothing.
    pub fn move_clock(_clock: &Clock) {}

    /// Does nothing.
    pub fn pass(_place: &str) {}

    /// It does not.
    pub fn forgets(_step: &str) -> bool {
        false
    }

    /// Does the work.
    pub async fn call<T>(_method: &str, work: impl Future<Output = T>) -> T {
        work.await
    }
}
