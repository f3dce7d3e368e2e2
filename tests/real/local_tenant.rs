//! A local tenant through the real program on a terminal: no server, no login, a real PostgreSQL.

use std::process::{Command, Stdio};

use rexpect::session::{Options, PtySession, spawn_with_options};

use crate::need;

const PROGRAM: &str = env!("CARGO_BIN_EXE_systemprompt");

fn image() -> Result<&'static str, String> {
    crate::docker_available()?;
    let has = |image: &&str| crate::answers("docker", &["image", "inspect", image]).is_ok();
    ["postgres:16-alpine", "systemprompt-standin/postgres:15"]
        .into_iter()
        .find(has)
        .ok_or_else(|| "no PostgreSQL image; `scripts/setup` makes one".to_owned())
}

struct Project(tempfile::TempDir);

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("home")).expect("a folder");
        std::fs::create_dir_all(folder.path().join("shop/.systemprompt")).expect("a folder");
        Self(folder)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .current_dir(self.0.path().join("shop"))
            .env("HOME", self.0.path().join("home"))
            .env("TERM", "xterm")
            .env("NO_COLOR", "1");
        // Nobody is signed in anywhere, and nobody says that this is a machine without people.
        for name in [
            "SYSTEMPROMPT_TOKEN",
            "SYSTEMPROMPT_API_URL",
            "XDG_CONFIG_HOME",
            "CI",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// Without a terminal: nobody can be asked.
    fn quiet(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.quiet(arguments).output().expect("runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn on_terminal(&self, arguments: &[&str]) -> PtySession {
        let options = Options::new()
            .timeout_ms(Some(60_000))
            .strip_ansi_escape_codes(true);
        spawn_with_options(self.command(arguments), options).expect("a terminal")
    }
}

/// Whatever happens, the container and its data go.
impl Drop for Project {
    fn drop(&mut self) {
        let _ = self.quiet(&["tenant", "delete", "shop", "--yes"]).output();
    }
}

#[test]
fn a_local_tenant_is_made_in_the_menu_used_and_deleted() {
    need!(image());
    let project = Project::new();
    let image = image().expect("checked");
    let mut terminal = project.on_terminal(&["tenant", "create", "--image", image]);
    terminal.exp_string("Which kind of tenant?").expect("asks");
    terminal.send("j\n").expect("down, and enter");
    terminal.flush().expect("sends");
    terminal.exp_string("Name of the tenant").expect("asks");
    terminal.send_line("").expect("the folder's name");
    terminal
        .exp_string("is ready: PostgreSQL on 127.0.0.1:")
        .expect("ready");
    terminal.exp_eof().expect("ends");

    let shown = project.run(&["tenant", "show", "--secrets", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let url = document["secrets"]["database_url"]
        .as_str()
        .expect("a URL")
        .to_owned();
    if crate::answers("psql", &["--version"]).is_ok() {
        let answer = Command::new("psql")
            .args([&url, "-Atc", "SELECT 40 + 2"])
            .output()
            .expect("psql");
        assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), "42");
    }
    assert!(project.run(&["tenant", "status"]).contains("running"));
    // Again is the same one, not a second one.
    project.run(&["tenant", "create", "shop", "--type", "local", "--image", image]);
    let again = project.run(&["tenant", "show", "--secrets", "--json"]);
    assert_eq!(again, shown);

    let mut terminal = project.on_terminal(&["tenant", "delete", "shop"]);
    terminal.exp_string("Type its name").expect("asks");
    terminal.send_line("shop").expect("sends");
    terminal.exp_string("its data are gone").expect("deleted");
    terminal.exp_eof().expect("ends");
    let left = crate::answers("psql", &[&url, "-c", "SELECT 1"]);
    assert!(left.is_err(), "nothing answers there any more");
    assert!(
        !project
            .0
            .path()
            .join("shop/.systemprompt/docker/shop.yaml")
            .exists()
    );
}
