//! The build context through BuildKit's session: what is sent, what is not sent again, and the image either way.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use systemprompt::api::registry::{REPOSITORY, tenant_image, tenant_tag};
use systemprompt::image::build::{BuildRequest, build};
use systemprompt::image::context::Context;
use systemprompt::image::endpoint::EngineEnvironment;
use systemprompt::image::engine::Engine;
use systemprompt::image::progress::Silent;
use systemprompt::image::push::{PushRequest, push};
use systemprompt::server::clock::Clock;
use systemprompt::server::registry::GateAccess;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::gate::{serve, tenant};
use crate::image::{Project, Seen, docker, engine};
use crate::need;

/// Longer than files count as just changed, which are sent again to be sure.
const SETTLED: Duration = Duration::from_millis(2_200);
const DOCKERFILE: &str = "FROM scratch\nCOPY . /\nCMD [\"-\"]\n";

fn put(path: &Path, text: &str) {
    let file = File::create(path).and_then(|mut file| file.write_all(text.as_bytes()));
    file.expect("written");
}

fn write(project: &Project, name: &str, text: &str) {
    put(&project.path().join(name), text);
}

/// Builds and returns what was said of the context, with the layers' digests.
async fn built(engine: &Engine, request: BuildRequest) -> (String, String) {
    let reference = request.reference.clone();
    let seen = Arc::new(Seen::default());
    build(engine, request, Arc::clone(&seen) as Arc<_>)
        .await
        .unwrap_or_else(|error| panic!("{error}\n{:#?}", seen.lines()));
    let lines = seen.lines();
    let is_told = |line: &&String| line.contains(" files") || line.contains("all files");
    let told = lines.iter().find(is_told).cloned();
    let layers = docker(&["image", "inspect", "--format", "{{.RootFS.Layers}}", &reference]);
    (told.unwrap_or_else(|| panic!("{lines:#?}")), layers)
}

fn project() -> Project {
    let project = Project::new(&[
        ("Dockerfile", DOCKERFILE),
        (".dockerignore", "ignored\n"),
        ("a", "one\n"),
        ("a.b/c", "c\n"),
        ("é/ü", "ü\n"),
        ("deep/er/file", "deep\n"),
        ("empty", ""),
        ("ignored", "no\n"),
        ("run", "#!/bin/sh\n"),
    ]);
    write(&project, "large", &"0123456789".repeat(100_000));
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(project.path().join("run"), mode).expect("set");
    symlink("deep/er", project.path().join("link")).expect("a link");
    project
}

#[tokio::test]
async fn only_what_changed_is_sent_again() {
    need!(crate::docker_available());
    let engine = engine(true).await;
    let project = project();
    let request = || project.request("sp-test/sync:changes");
    tokio::time::sleep(SETTLED).await;

    let (told, _) = built(&engine, request()).await;
    assert!(
        told.ends_with(" in 9 files"),
        "the first goes as an archive: {told}"
    );
    let (told, first) = built(&engine, request()).await;
    assert!(told.starts_with("sent 9 of 9 files, 1.0 MB"), "{told}");
    let (told, again) = built(&engine, request()).await;
    assert!(told.starts_with("the engine has all 9 files"), "{told}");
    assert_eq!(again, first);

    // As large as before, and no older: only the content differs.
    let time = std::fs::metadata(project.path().join("a"))
        .expect("a file")
        .modified();
    write(&project, "a", "two\n");
    let file = std::fs::File::options()
        .write(true)
        .open(project.path().join("a"));
    file.expect("a file")
        .set_modified(time.expect("a time"))
        .expect("set");
    let (told, changed) = built(&engine, request()).await;
    assert!(told.starts_with("sent 1 of 9 files, 4 B of 1.0 MB"), "{told}");
    assert_ne!(changed, first);

    write(&project, "a", "one\n");
    let (_, back) = built(&engine, request()).await;
    assert_eq!(back, first, "the same files are the same layers");

    std::fs::remove_file(project.path().join("empty")).expect("removed");
    std::fs::remove_file(project.path().join("link")).expect("removed");
    write(&project, "link", "a file now\n");
    let (_, without) = built(&engine, request()).await;
    assert_ne!(without, first);
    let archive = project.path().join("ignored");
    docker(&[
        "save",
        "--output",
        &archive.display().to_string(),
        "sp-test/sync:changes",
    ]);
    let bytes = std::fs::read(archive).expect("an archive");
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("a file now") && has("a.b/c\0") && !has("empty\0") && !has("ignored\0"));
}

/// Without folders: engines before 23 give those of their copy the time of copying.
#[tokio::test]
async fn a_session_and_an_archive_make_the_same_layers() {
    need!(crate::docker_available());
    let engine = engine(true).await;
    let project = Project::new(&[
        ("Dockerfile", DOCKERFILE),
        ("a", "one\n"),
        ("b c", ""),
        ("ü", "x"),
    ]);
    symlink("nowhere/at/all", project.path().join("link")).expect("a link");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let request = || BuildRequest {
        cache: Some(elsewhere.path().to_owned()),
        ..project.request("sp-test/sync:same")
    };
    let (told, by_archive) = built(&engine, request()).await;
    assert!(!told.starts_with("sent "), "{told}");
    let (told, by_session) = built(&engine, request()).await;
    assert!(told.starts_with("sent "), "{told}");
    assert_eq!(by_session, by_archive);
}

#[tokio::test]
async fn a_dockerfile_from_outside_and_an_ignore_file_of_its_own_are_found() {
    need!(crate::docker_available());
    let engine = engine(true).await;
    let outside = Project::new(&[
        ("app/a", "a\n"),
        ("Dockerfile", "FROM scratch\nCOPY a /\nCMD [\"-\"]\n"),
    ]);
    let root = outside.path().join("app");
    let context = Context::scan(&root, &outside.path().join("Dockerfile")).expect("a context");
    let request = BuildRequest {
        context,
        ..outside.request("sp-test/sync:outside")
    };
    built(&engine, request.clone()).await;
    let (told, _) = built(&engine, request).await;
    assert!(told.starts_with("sent 1 of "), "{told}");

    let inside = Project::new(&[
        ("build/Dockerfile", "FROM scratch\nCOPY *s /\nCMD [\"-\"]\n"),
        ("build/Dockerfile.dockerignore", "nos\n"),
        ("Dockerfile", "FROM scratch\n"),
        (".dockerignore", "*\n"),
        ("nos", "no\n"),
        ("yes", "yes\n"),
    ]);
    let dockerfile = inside.path().join("build/Dockerfile");
    let request = || BuildRequest {
        context: Context::scan(inside.path(), &dockerfile).expect("a context"),
        ..inside.request("sp-test/sync:inside")
    };
    let (_, by_archive) = built(&engine, request()).await;
    let (told, by_session) = built(&engine, request()).await;
    assert!(told.starts_with("sent "), "{told}");
    assert_eq!(by_session, by_archive);
}

/// An engine that opens sessions and hangs up before it asks for anything.
async fn hangs_up(socket: &Path) -> JoinSet<()> {
    let listener = UnixListener::bind(socket).expect("a socket");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            open.spawn(async move {
                let mut engine = UnixStream::connect("/var/run/docker.sock")
                    .await
                    .expect("the engine");
                let mut head = [0; 4096];
                let count = client.read(&mut head).await.unwrap_or(0);
                engine.write_all(&head[..count]).await.expect("sent");
                if head.starts_with(b"POST ") && String::from_utf8_lossy(&head).contains("/session HTTP") {
                    // The engine writes its answer line by line: the session is open once the whole head is there.
                    let mut answer = Vec::new();
                    while !answer.ends_with(b"\r\n\r\n") {
                        answer.push(engine.read_u8().await.expect("a head"));
                    }
                    client.write_all(&answer).await.expect("answered");
                } else {
                    tokio::io::copy_bidirectional(&mut client, &mut engine).await.ok();
                }
            });
        }
    });
    tasks
}

#[tokio::test]
async fn where_a_session_breaks_off_everything_is_sent_and_a_person_is_told() {
    need!(crate::docker_available());
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("engine");
    let _engine = hangs_up(&socket).await;
    let environment = EngineEnvironment {
        host_flag: Some(format!("unix://{}", socket.display())),
        ..EngineEnvironment::default()
    };
    let engine = Engine::connect(&environment).await.expect("the engine answers");
    let project = Project::new(&[("Dockerfile", DOCKERFILE), ("a", "one\n")]);
    built(&engine, project.request("sp-test/sync:broken")).await;
    let seen = Arc::new(Seen::default());
    let request = project.request("sp-test/sync:broken");
    let answer = build(&engine, request, Arc::clone(&seen) as Arc<_>).await;
    let lines = seen.lines();
    answer.unwrap_or_else(|error| panic!("{error}: {lines:#?}"));
    let is_told = |line: &String| line.starts_with("the session with the engine failed (");
    assert_eq!(lines.iter().filter(|line| is_told(line)).count(), 1, "{lines:#?}");
    assert!(
        lines.iter().any(|line| line.ends_with(" in 2 files")),
        "{lines:#?}"
    );
}

#[tokio::test]
async fn two_builds_of_one_project_at_once_do_not_meet() {
    need!(crate::docker_available());
    let engine = engine(true).await;
    let project = project();
    built(&engine, project.request("sp-test/sync:one")).await;
    let (one, other) = tokio::join!(
        built(&engine, project.request("sp-test/sync:one")),
        built(&engine, project.request("sp-test/sync:other"))
    );
    // One had the engine's copy, the other sent an archive.
    let sent = [&one.0, &other.0]
        .into_iter()
        .filter(|told| told.starts_with("sent "));
    assert_eq!(sent.count(), 1, "{one:?} {other:?}");
}

#[tokio::test]
async fn a_base_image_in_a_registry_that_asks_for_a_password_is_found_either_way() {
    need!(crate::docker_available());
    let folder = tempfile::tempdir().expect("a folder");
    let (served, tenant) = (serve(folder.path()).await, tenant(&Clock::system()));
    let base = tenant_image(&served.host, &tenant);
    let project = Project::new(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\nCMD [\"-\"]\n")]);
    let plain = engine(true).await;
    project.build(&plain, &base).await.expect("it builds");
    let request = PushRequest {
        registry: served.host.clone(),
        repository: REPOSITORY.to_owned(),
        tag: tenant_tag(&tenant),
        username: "systemprompt".to_owned(),
        password: served.gate.mint(&tenant, GateAccess::Push, 300).0,
        ca_file: None,
        resumes: false,
    };
    push(&plain, &request, &Silent).await.expect("it is pushed");
    docker(&["image", "rm", "--force", &base]);

    let password = served.gate.mint(&tenant, GateAccess::Pull, 300).0;
    let login = STANDARD.encode(format!("systemprompt:{}", password.expose()));
    let config = serde_json::json!({ "auths": { served.host.clone(): { "auth": login } } });
    put(&folder.path().join("config.json"), &config.to_string());
    let environment = EngineEnvironment {
        config_directory: Some(folder.path().to_owned()),
        ..EngineEnvironment::default()
    };
    let knowing = Engine::connect(&environment).await.expect("the engine answers");
    let above = Project::new(&[("Dockerfile", &format!("FROM {base}\nCOPY a /\n")), ("a", "a")]);
    let archived = |reference: &str| BuildRequest {
        cache: None,
        ..above.request(reference)
    };
    let silent = || Arc::new(Silent);
    // The first of a project goes as an archive, so a session is the third's way.
    for request in [
        archived("sp-test/sync:no"),
        above.request("sp-test/sync:no"),
        above.request("sp-test/sync:no"),
    ] {
        build(&plain, request, silent())
            .await
            .expect_err("nobody said a password");
    }
    let by_archive = build(&knowing, archived("sp-test/sync:private"), silent()).await;
    by_archive.expect("it builds");
    let seen = Arc::new(Seen::default());
    let by_session = build(
        &knowing,
        above.request("sp-test/sync:private"),
        Arc::clone(&seen) as Arc<_>,
    )
    .await;
    by_session.expect("it builds");
    let lines = seen.lines();
    assert!(
        lines.iter().any(|line| line.starts_with("sent 2 of 2 files")),
        "{lines:#?}"
    );
}
