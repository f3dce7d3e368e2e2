//! Building: what is in the image, and what is said when there is none.

use std::sync::Arc;
use std::time::Instant;

use systemprompt::image::binary;
use systemprompt::image::build::{build, find};
use systemprompt::image::endpoint::EngineEnvironment;
use systemprompt::image::engine::Engine;
use systemprompt::image::error::ImageError;

use crate::image::{Project, Seen, base, docker, engine};
use crate::need;

#[tokio::test]
async fn both_builders_make_an_image_and_name_its_steps() {
    need!(base());
    let base = base().expect("checked");
    for (buildkit, reference) in [(true, "sp-test/both:buildkit"), (false, "sp-test/both:classic")] {
        let dockerfile =
            format!("FROM {base}\nARG WORD=none\nCOPY a /a\nRUN cat /a && echo said-$WORD\nCMD cat /a\n");
        let project = Project::new(&[("Dockerfile", &dockerfile), ("a", "content\n")]);
        let engine = engine(buildkit).await;
        let seen = Arc::new(Seen::default());
        let mut request = project.request(reference);
        request.args.insert("WORD".to_owned(), "it".to_owned());
        let built = build(&engine, request, Arc::clone(&seen) as Arc<_>)
            .await
            .expect("it builds");

        assert!(
            built.image_id.starts_with("sha256:") && built.size_bytes > 1_000_000,
            "{built:?}"
        );
        assert_eq!(
            docker(&["image", "inspect", "--format", "{{.Id}}", reference]),
            built.image_id
        );
        assert_eq!(docker(&["run", "--rm", reference]), "content");
        let lines = seen.lines();
        assert!(lines.iter().any(|line| line == "said-it"), "{lines:#?}");
        assert!(
            lines
                .iter()
                .any(|line| line.contains("RUN cat /a") && line.starts_with('[')),
            "{lines:#?}"
        );
        assert_eq!(
            built.labels.get("io.systemprompt.test").map(String::as_str),
            Some("image")
        );
        assert_eq!(find(&engine, reference).await.expect("it looks"), Some(built));
        assert_eq!(find(&engine, "sp-test/none:x").await.expect("it looks"), None);
    }
}

#[tokio::test]
async fn a_step_that_fails_is_named_with_what_it_printed() {
    need!(base());
    let base = base().expect("checked");
    for buildkit in [true, false] {
        let dockerfile = format!("FROM {base}\nRUN echo fine\nRUN echo about-to-fail >&2; exit 7\n");
        let project = Project::new(&[("Dockerfile", &dockerfile)]);
        let error = project
            .build(&engine(buildkit).await, "sp-test/failing:x")
            .await
            .expect_err("it fails");
        let ImageError::BuildFailed {
            step,
            message,
            log_tail,
        } = &error
        else {
            panic!("{error:?}")
        };
        assert!(step.contains("RUN echo about-to-fail"), "{step}");
        assert!(message.contains('7'), "{message}");
        assert_eq!(log_tail, &["about-to-fail"]);
    }
}

#[tokio::test]
async fn mistakes_of_the_dockerfile_are_build_failures() {
    need!(crate::docker_available());
    for buildkit in [true, false] {
        let engine = engine(buildkit).await;
        for (text, wanted) in [
            ("FROM scratch\nFROB x\n", "unknown instruction: FROB"),
            ("FROM scratch\nCOPY missing /\n", "missing"),
            ("", "empty"),
        ] {
            let project = Project::new(&[("Dockerfile", text)]);
            let error = project
                .build(&engine, "sp-test/mistake:x")
                .await
                .expect_err("it fails");
            assert!(matches!(error, ImageError::BuildFailed { .. }), "{error:?}");
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }
}

#[tokio::test]
async fn secrets_are_in_no_layer_whatever_the_ignore_file_says() {
    need!(crate::docker_available());
    for buildkit in [true, false] {
        let secret = "{\"jwt_secret\":\"never-in-an-image\"}";
        let project = Project::new(&[
            ("Dockerfile", "FROM scratch\nCOPY . /all/\nCMD [\"-\"]\n"),
            (
                "Dockerfile.dockerignore",
                "**\n!**\n!.systemprompt/profiles/prod/secrets.json\n",
            ),
            (".systemprompt/profiles/prod/secrets.json", secret),
            (".systemprompt/profiles/prod/profile.yaml", "name: prod\n"),
            (".systemprompt/credentials.json", secret),
        ]);
        let reference = if buildkit {
            "sp-test/secrets:buildkit"
        } else {
            "sp-test/secrets:classic"
        };
        project
            .build(&engine(buildkit).await, reference)
            .await
            .expect("it builds");
        let archive = project.path().join("image.tar");
        docker(&["save", "--output", &archive.display().to_string(), reference]);
        let bytes = std::fs::read(archive).expect("an archive");
        let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(has("profile.yaml"), "the rest is there");
        assert!(!has("never-in-an-image"));
        assert!(
            !has("all/.systemprompt/profiles/prod/secrets.json")
                && !has("all/.systemprompt/credentials.json")
        );
    }
}

#[tokio::test]
async fn a_large_context_is_sent_and_a_file_that_shrinks_meanwhile_is_named() {
    need!(crate::docker_available());
    let project = Project::new(&[("Dockerfile", "FROM scratch\nCOPY large /\nCMD [\"-\"]\n")]);
    let large = std::fs::File::create(project.path().join("large")).expect("a file");
    large.set_len(64 * 1024 * 1024).expect("it grows");
    let request = project.request("sp-test/large:x");
    let engine = engine(true).await;
    let built = build(&engine, request.clone(), Arc::new(Seen::default()))
        .await
        .expect("it builds");
    assert!(built.size_bytes >= 64 * 1024 * 1024);
    large.set_len(1024).expect("it shrinks");
    let error = build(&engine, request, Arc::new(Seen::default()))
        .await
        .expect_err("it shrank");
    assert_eq!(error.to_string(), "`large` changed while it was read");
}

#[tokio::test]
async fn a_program_that_would_not_start_is_found_before_the_push() {
    need!(base());
    let base = base().expect("checked");
    let engine = engine(true).await;
    let program = std::fs::read("/bin/ls").expect("a program");
    // The same program, asking for a glibc that nobody has yet.
    let position = program
        .windows(9)
        .position(|window| window == b"GLIBC_2.3")
        .expect("it needs some glibc");
    let mut newer = program.clone();
    newer[position..position + 9].copy_from_slice(b"GLIBC_9.9");
    let cases = [
        (base, &program, None),
        (base, &newer, Some("needs glibc 9.9")),
        ("scratch", &program, Some("the image has no glibc")),
    ];
    for (number, (from, content, wanted)) in cases.into_iter().enumerate() {
        let dockerfile =
            format!("FROM {from}\nARG BINARY=tool\nCOPY ${{BINARY}} /app/tool\nCMD [\"/app/tool\"]\n");
        let project = Project::new(&[("Dockerfile", &dockerfile)]);
        std::fs::File::create(project.path().join("tool"))
            .and_then(|mut file| std::io::Write::write_all(&mut file, content))
            .expect("written");
        let request = project.request(&format!("sp-test/binary:{number}"));
        let (context, args) = (request.context.clone(), request.args.clone());
        let built = build(&engine, request, Arc::new(Seen::default()))
            .await
            .expect("it builds");
        let checked = binary::check(&engine, &context, &args, None, &built).await;
        match (checked, wanted) {
            (Ok(()), None) => {}
            (Err(error), Some(wanted)) => {
                assert!(error.to_string().contains(wanted), "{error}");
                assert!(error.hint().expect("a mend").contains("static"));
            }
            other => panic!("{from}: {other:?}"),
        }
    }
    assert_eq!(
        docker(&[
            "ps",
            "--all",
            "--quiet",
            "--filter",
            "label=io.systemprompt.role=image-probe"
        ]),
        ""
    );
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_told_apart_from_one_that_is_closed() {
    let connect = |host: String| async move {
        let environment = EngineEnvironment {
            docker_host: Some(host),
            ..EngineEnvironment::default()
        };
        Engine::connect(&environment).await.expect_err("no engine")
    };
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("docker.sock");
    let host = format!("unix://{}", socket.display());
    assert!(matches!(
        connect(host.clone()).await,
        ImageError::EngineAbsent { .. }
    ));
    // A socket that nobody listens on any more.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
    let error = connect(host).await;
    assert!(matches!(error, ImageError::EngineAbsent { .. }), "{error:?}");
    assert!(error.hint().expect("a mend").contains("start"));

    let started = Instant::now();
    let error = connect("tcp://127.0.0.1:1".to_owned()).await;
    assert!(matches!(error, ImageError::EngineUnreachable { .. }), "{error:?}");
    assert!(started.elapsed().as_secs() < 5);
}
