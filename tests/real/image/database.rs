//! The database of a local tenant: made, found again, seen as Compose's own, removed.

use std::io::Write as _;
use std::path::Path;

use systemprompt::api::secret::SecretText;
use systemprompt::image::database::{DatabaseState, LocalDatabase};
use systemprompt::image::engine::Engine;
use systemprompt::image::progress::Silent;

use crate::image::{docker, engine};
use crate::need;

fn image() -> Result<&'static str, String> {
    crate::docker_available()?;
    let has = |image: &&str| crate::answers("docker", &["image", "inspect", image]).is_ok();
    ["postgres:16-alpine", "systemprompt-standin/postgres:15"]
        .into_iter()
        .find(has)
        .ok_or_else(|| "no PostgreSQL image; `scripts/setup` makes one".to_owned())
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::File::create(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .expect("written");
}

async fn planned(engine: &Engine, root: &Path, image: &str) -> LocalDatabase {
    let (database, is_stand_in) = LocalDatabase::plan(engine, root, "dev", Some(image), &Silent)
        .await
        .expect("a plan");
    assert!(!is_stand_in, "it was asked for by name");
    write(&database.compose_path(), &database.compose_text());
    write(&database.environment_path(), database.environment_text().expose());
    database
}

#[tokio::test]
async fn a_local_database_lives_and_is_seen_by_compose() {
    need!(image());
    let root = tempfile::tempdir().expect("a folder");
    let engine = engine(true).await;
    let image = image().expect("checked");
    let database = planned(&engine, root.path(), image).await;
    assert_eq!(
        database.state(&engine).await.expect("it looks"),
        DatabaseState::Absent
    );
    database.start(&engine, &Silent).await.expect("it starts");
    let id = |database: &LocalDatabase| {
        let project = format!("label=com.docker.compose.project={}", database.project);
        docker(&[
            "ps",
            "--all",
            "--no-trunc",
            "--quiet",
            "--filter",
            &project,
            "--filter",
            "label=com.docker.compose.service=postgres",
        ])
    };
    let first = id(&database);
    assert_eq!(first.len(), 64, "one container");
    let again = LocalDatabase::read(root.path(), "dev")
        .expect("readable")
        .expect("it is there");
    assert_eq!(again, database);
    again.start(&engine, &Silent).await.expect("it runs already");
    assert_eq!(id(&database), first, "nothing was made anew");

    database.stop(&engine).await.expect("it stops");
    assert_eq!(
        database.state(&engine).await.expect("it looks"),
        DatabaseState::Stopped
    );
    database.start(&engine, &Silent).await.expect("it starts again");

    // Another password than the one its data was made with.
    let wrong = LocalDatabase {
        password: SecretText::new("wrong"),
        ..database.clone()
    };
    let error = wrong
        .start(&engine, &Silent)
        .await
        .expect_err("it does not let us in");
    assert!(error.to_string().contains("another password"), "{error}");
    assert!(!error.to_string().contains(database.password.expose()));

    // A port that somebody else took meanwhile.
    database.stop(&engine).await.expect("it stops");
    let taken = std::net::TcpListener::bind(("127.0.0.1", database.port)).expect("the port is free");
    let error = database
        .start(&engine, &Silent)
        .await
        .expect_err("the port is taken");
    assert!(
        error.to_string().contains("is taken by another program"),
        "{error}"
    );
    drop(taken);

    database.remove(&engine, true).await.expect("it goes");
    database.remove(&engine, true).await.expect("it is gone already");
    assert_eq!(
        database.state(&engine).await.expect("it looks"),
        DatabaseState::Absent
    );
    let project = format!("label=com.docker.compose.project={}", database.project);
    assert_eq!(docker(&["volume", "ls", "--quiet", "--filter", &project]), "");
    assert_eq!(docker(&["network", "ls", "--quiet", "--filter", &project]), "");
}
