//! A tenant on this machine alone: no server, no account, a PostgreSQL that Compose knows.

use crate::installation::docker;
use crate::journey::place::{labelled, remove};
use crate::journey::project::Project;
use crate::need;

/// Removes what a failed test leaves.
struct Left(Project);

impl Left {
    fn on_engine(&self) -> Vec<String> {
        // Compose's own label: the folder that the project is in.
        let containers = docker(&[
            "ps",
            "--all",
            "--filter",
            "label=com.docker.compose.project",
            "--format",
            r#"{{.Label "com.docker.compose.project"}} {{.Label "com.docker.compose.project.working_dir"}}"#,
        ]);
        let folder = self.0.path(".systemprompt/docker").display().to_string();
        let ours = |line: &str| {
            let (project, at) = line.split_once(' ')?;
            (at == folder).then(|| project.to_owned())
        };
        let project = containers.lines().find_map(ours);
        project.map_or_else(Vec::new, |project| {
            labelled(&format!("com.docker.compose.project={project}"))
        })
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        remove(&self.on_engine());
    }
}

#[test]
fn a_local_tenant_needs_no_server() {
    need!(crate::journey::place::available());
    let left = Left(Project::empty());
    let project = &left.0;
    let create = ["tenant", "create", "dev", "--type", "local", "--json"];
    let said = project.run(&create).ok();
    let id = said.json()["tenant"]["id"].as_str().expect("an id").to_owned();

    let secrets = project.read(".systemprompt/profiles/dev/secrets.json");
    let secrets: serde_json::Value = serde_json::from_str(&secrets).expect("JSON");
    let url = secrets["database_url"].as_str().expect("a URL").to_owned();
    assert!(!said.whole().contains(&url), "{}", said.whole());
    let password = url.split([':', '@']).nth(2).expect("a password");
    assert!(!said.whole().contains(password), "{}", said.whole());

    let found = left.on_engine();
    let kinds: Vec<&str> = found.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(kinds, ["container", "network", "volume"], "{found:?}");
    let container = found[0].split(' ').nth(1).expect("a name").to_owned();
    // From outside, with what the secrets say.
    let migrated = project
        .command(&["services", "db", "migrate"])
        .env("DATABASE_URL", &url)
        .env(
            "SYSTEMPROMPT_SERVICES_PATH",
            concat!(env!("CARGO_MANIFEST_DIR"), "/services"),
        )
        .output()
        .expect("the program runs");
    assert!(migrated.status.success(), "{migrated:?}");
    let sql = "SELECT count(*) FROM visits";
    let ask = [
        "exec",
        &container,
        "psql",
        "--username",
        "app",
        "--tuples-only",
        "--command",
        sql,
    ];
    assert_eq!(docker(&ask).trim(), "0");
    seen_by_compose(project);

    // The same again finds what is there; its data stays.
    let again = project.run(&create).ok();
    assert_eq!(again.json()["tenant"]["id"], id.as_str(), "{}", again.whole());
    assert_eq!(docker(&ask).trim(), "0");
    let status = project.run(&["tenant", "status", "dev", "--json"]).ok();
    assert_eq!(
        status.json()["database"]["state"],
        "running",
        "{}",
        status.whole()
    );

    project.run(&["tenant", "delete", "dev", "--yes"]).ok();
    let name = format!("label=com.docker.compose.project={}", project_of(&container));
    for kind in [&["ps", "--all"][..], &["volume", "ls"], &["network", "ls"]] {
        let arguments = [kind, &["--quiet", "--filter", &name]].concat();
        assert_eq!(docker(&arguments), "", "{kind:?}");
    }
    assert!(!project.path(".systemprompt/profiles/dev").exists());
    assert!(!project.path(".systemprompt/docker/dev.env").exists());
}

/// `systemprompt-dev-0a1b2c-postgres-1` belongs to `systemprompt-dev-0a1b2c`.
fn project_of(container: &str) -> &str {
    container.strip_suffix("-postgres-1").expect("Compose's name")
}

fn seen_by_compose(project: &Project) {
    if let Err(reason) = crate::answers("docker", &["compose", "version"]) {
        println!("skipped the look through Compose: {reason}");
        return;
    }
    let file = project
        .path(".systemprompt/docker/dev.yaml")
        .display()
        .to_string();
    let seen = docker(&["compose", "--file", &file, "ps", "--format", "json"]);
    assert!(seen.contains("postgres") && seen.contains("running"), "{seen}");
}
