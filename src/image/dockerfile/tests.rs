//! Tests of the Dockerfile reader.

use super::{BuildArgs, Dockerfile};

fn parse(text: &str) -> Dockerfile {
    Dockerfile::parse("Dockerfile", text)
}

fn copied(text: &str, args: &[(&str, &str)], target: Option<&str>) -> Vec<(usize, String)> {
    let args: BuildArgs = args
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    parse(text)
        .copied(&args, target)
        .into_iter()
        .map(|path| (path.line, path.source))
        .collect()
}

#[test]
fn puts_build_args_into_what_is_copied() {
    let text = "ARG BINARY=global\nFROM scratch\nARG BINARY=target/release/app\nENV WEB=web/dist\n\
                COPY --chown=1:1 ${BINARY} /app/\nCOPY $WEB \"a b\" ${NONE:-c} /app/\n";
    assert_eq!(
        copied(text, &[], None).first(),
        Some(&(5, "target/release/app".to_owned()))
    );
    let given = copied(text, &[("BINARY", "target/debug/app")], None);
    let sources: Vec<&str> = given.iter().map(|(_, source)| source.as_str()).collect();
    assert_eq!(sources, ["target/debug/app", "web/dist", "a b", "c"]);
}

#[test]
fn follows_the_stages_that_the_image_stands_on() {
    let text = "FROM rust AS build\nCOPY src src\nFROM debian AS base\nCOPY etc /etc\n\
                FROM base\nCOPY --from=build /x /x\nADD https://example.org/a [\"no\"]\nCOPY [\"a b\", \"c\", \"/d/\"]\n";
    assert_eq!(
        copied(text, &[], None),
        [(8, "a b".to_owned()), (8, "c".to_owned()), (4, "etc".to_owned())]
    );
    assert_eq!(copied(text, &[], Some("build")), [(2, "src".to_owned())]);
    assert_eq!(copied(text, &[], Some("nowhere")), []);
}

#[test]
fn names_the_base_images() {
    let text = "ARG BASE=debian:bookworm\nFROM --platform=linux/amd64 ${BASE} AS one\nFROM one\nFROM scratch\nFROM alpine\n";
    assert_eq!(
        parse(text).base_images(&BuildArgs::new()),
        ["debian:bookworm", "alpine"]
    );
    let args = BuildArgs::from([("BASE".to_owned(), "other".to_owned())]);
    assert_eq!(parse(text).base_images(&args), ["other", "alpine"]);
}

#[test]
fn lines_may_go_on_and_hold_texts() {
    let text = "# escape=`\nFROM scratch\nCOPY a `\n  # a comment\n\n  b /x\nRUN <<EOF cat > y\nCOPY no /no\nEOF\n\
                COPY <<-\"END\" /z\n\tCOPY no /no\n\tEND\nCOPY c /x\n";
    let sources: Vec<(usize, String)> = copied(text, &[], None);
    assert_eq!(
        sources,
        [(3, "a".to_owned()), (3, "b".to_owned()), (13, "c".to_owned())]
    );
}

#[test]
fn refuses_files_of_secrets_and_names_the_line() {
    for line in [
        "COPY .systemprompt/profiles/prod/secrets.json /app/",
        "ADD [\".systemprompt/credentials.json\", \"/\"]",
        "COPY --chown=1 a .systemprompt/profiles/*/Secrets.json /app/",
        "RUN --mount=type=bind,source=.systemprompt/credentials.json,target=/x cat /x",
    ] {
        let error = parse(&format!("FROM scratch\n{line}\n"))
            .check_secrets()
            .expect_err(line);
        assert!(error.to_string().starts_with("Dockerfile:2: "), "{error}");
    }
    for line in [
        "COPY --from=build /secrets.json /",
        "RUN cat secrets.json",
        "COPY web /app/secrets.json",
    ] {
        assert_eq!(
            parse(&format!("FROM scratch\n{line}\n"))
                .check_secrets()
                .expect(line),
            Vec::<String>::new()
        );
    }
    let notes = parse("FROM scratch\nCOPY .systemprompt/profiles /app/\n")
        .check_secrets()
        .expect("folders are fine");
    assert_eq!(notes.len(), 1);
}

#[test]
fn sees_cache_mounts() {
    assert!(parse("FROM x\nRUN --mount=type=cache,target=/t make\n").has_cache_mounts());
    assert!(!parse("FROM x\nRUN --mount=type=bind,source=a make\n").has_cache_mounts());
}

#[test]
fn outside_bytes_as_dockerfile() {
    let seeds: [&[u8]; 4] = [
        b"# syntax=x\nARG A=1\nFROM debian:${A:-2} AS base\nCOPY --from=base --chown=a:b a b /c/\nRUN --mount=type=cache,target=/x true\n",
        b"FROM scratch\nCOPY [\"a b\", \"/c\"]\nADD https://x/y /z\nENV A=\"b\\\n c\" D='e'\n",
        b"FROM a\nRUN <<EOF cat <<-'X'\necho\nEOF\n\tX\nCOPY <<A <<B /d/\nA\nB\n",
        b"# escape=`\nFROM a\nCOPY a` \n  b c\n",
    ];
    crate::mutation::torment(&seeds, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let file = parse(&text);
        let args: BuildArgs = [("A".to_owned(), "${A}".to_owned())].into();
        (
            file.base_images(&args).len(),
            file.copied(&args, Some("base")).len(),
            file.has_cache_mounts(),
            file.check_secrets().map(|found| found.len()).is_ok(),
        )
    });
}
