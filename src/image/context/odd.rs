//! Trees that are not as trees should be: what is in the archive is right, or the deploy is refused.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::image::context::pieces::{Pool, pieces};
use crate::image::context::{Context, read_small};
use crate::image::dockerfile::BuildArgs;
use crate::image::error::ImageError;
use crate::image::fingerprint::{BuildInputs, Fingerprint, take};

fn put(root: &Path, name: impl AsRef<Path>, text: &str) {
    File::create(root.join(name))
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .expect("written");
}

fn project() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a folder");
    put(root.path(), "Dockerfile", "FROM scratch\n");
    put(root.path(), "a", "one");
    put(root.path(), "b", "two");
    root
}

fn scan(root: &Path) -> Context {
    Context::scan(root, &root.join("Dockerfile")).expect("a context")
}

/// How many bytes the archive has, in pieces of which none stays.
fn send(context: &Context) -> Result<u64, ImageError> {
    let mut count = 0;
    for piece in pieces(context, Pool::default(), (0, 1)) {
        count += piece?.into_bytes().len() as u64;
    }
    Ok(count)
}

fn print(context: &Context, cache: &Path) -> Result<Fingerprint, ImageError> {
    let args = BuildArgs::new();
    let inputs = BuildInputs {
        args: &args,
        target: None,
        platform: None,
        release: &[],
    };
    take(context, inputs, &cache.join("cache/files"))
}

#[track_caller]
fn is_refused<T: std::fmt::Debug>(outcome: Result<T, ImageError>, name: &str) {
    match outcome {
        Err(error @ ImageError::ContextChanged { .. }) => {
            assert!(
                error.to_string().contains(&format!("`{name}` changed")),
                "{error}"
            );
            assert!(error.hint().is_some());
        }
        other => panic!("{other:?}"),
    }
}

/// Does this to the file `a` after it was seen, and then wants it refused by both readers.
#[track_caller]
fn refused_after(change: impl Fn(&Path)) {
    let (root, cache) = (project(), tempfile::tempdir().expect("a folder"));
    let context = scan(root.path());
    change(&root.path().join("a"));
    is_refused(send(&context), "a");
    is_refused(print(&context, cache.path()), "a");
    assert!(
        !cache.path().join("cache/files").exists(),
        "nothing half is remembered"
    );
}

#[test]
fn a_file_that_is_not_what_was_seen_is_refused() {
    refused_after(|path| std::fs::remove_file(path).expect("removed"));
    refused_after(|path| put(path, path, "longer than before"));
    refused_after(|path| put(path, path, ""));
    refused_after(|path| {
        std::thread::sleep(Duration::from_millis(20));
        put(path, path, "eno");
    });
    refused_after(|path| {
        std::fs::remove_file(path).expect("removed");
        std::fs::create_dir(path).expect("made");
    });
    refused_after(|path| {
        std::fs::remove_file(path).expect("removed");
        symlink("b", path).expect("linked");
    });
}

#[test]
fn a_pipe_or_a_socket_in_the_place_of_a_file_is_not_waited_for() {
    refused_after(|path| {
        std::fs::remove_file(path).expect("removed");
        mkfifo(path, Mode::S_IRWXU).expect("a pipe");
    });
    refused_after(|path| {
        std::fs::remove_file(path).expect("removed");
        drop(std::os::unix::net::UnixListener::bind(path).expect("a socket"));
    });
    let root = project();
    let pipe = root.path().join(".dockerignore");
    mkfifo(&pipe, Mode::S_IRWXU).expect("a pipe");
    let refused = Context::scan(root.path(), &root.path().join("Dockerfile"));
    assert!(matches!(refused, Err(ImageError::File { .. })), "{refused:?}");
    let refused = Context::scan(root.path(), &pipe);
    assert!(matches!(refused, Err(ImageError::File { .. })), "{refused:?}");
}

#[test]
fn an_ignore_file_that_nobody_wrote_is_not_read_whole() {
    let root = project();
    let path = root.path().join(".dockerignore");
    File::create(&path)
        .and_then(|file| file.set_len(20_000_000_000))
        .expect("a sparse file");
    let refused = read_small(&path).expect_err("it is too large");
    assert_eq!(refused.kind(), std::io::ErrorKind::FileTooLarge);
}

#[test]
fn pipes_and_sockets_stay_here_and_loops_are_not_followed() {
    let root = project();
    mkfifo(&root.path().join("pipe"), Mode::S_IRWXU).expect("a pipe");
    let _socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).expect("a socket");
    std::fs::create_dir(root.path().join("folder")).expect("made");
    symlink("..", root.path().join("folder/up")).expect("linked");
    symlink("self", root.path().join("self")).expect("linked");
    symlink("nowhere", root.path().join("broken")).expect("linked");
    let context = scan(root.path());
    let names: Vec<_> = context.paths().map(|path| path.display().to_string()).collect();
    assert_eq!(
        names,
        ["Dockerfile", "a", "b", "broken", "folder", "folder/up", "self"]
    );
    send(&context).expect("an archive");
    let looped = Context::scan(root.path(), &root.path().join("self"));
    assert!(matches!(looped, Err(ImageError::File { .. })), "{looped:?}");
}

#[test]
fn names_that_are_not_text_are_sent_as_they_are() {
    let (root, cache) = (project(), tempfile::tempdir().expect("a folder"));
    let short = OsStr::from_bytes(b"\xff\xfe");
    let long = [b"\xff".repeat(150), b"-x".to_vec()].concat();
    put(root.path(), short, "short");
    put(root.path(), OsStr::from_bytes(&long), "long");
    symlink(
        OsStr::from_bytes(&[b"\xfe".repeat(120), long.clone()].concat()),
        root.path().join("link"),
    )
    .expect("linked");
    put(root.path(), ".dockerignore", "*-y\n");
    let context = scan(root.path());
    let mut bytes = Vec::new();
    for piece in pieces(&context, Pool::default(), (0, 1)) {
        bytes.extend(piece.expect("a piece").into_bytes());
    }
    let mut archive = tar::Archive::new(bytes.as_slice());
    let (mut names, mut targets) = (Vec::new(), Vec::new());
    for entry in archive.entries().expect("entries") {
        let entry = entry.expect("an entry");
        names.push(entry.path_bytes().into_owned());
        targets.extend(entry.link_name_bytes().map(|target| target.len()));
    }
    assert_eq!(targets, [272], "the link's target is whole");
    assert!(names.contains(&short.as_bytes().to_vec()), "{names:?}");
    assert!(names.contains(&long), "{names:?}");

    let first = print(&context, cache.path()).expect("a fingerprint");
    std::fs::rename(
        root.path().join(short),
        root.path().join(OsStr::from_bytes(b"\xff\xfd")),
    )
    .expect("renamed");
    let other = print(&scan(root.path()), cache.path()).expect("a fingerprint");
    assert_ne!(first.value, other.value, "two names that look alike are two");
}

#[test]
fn clocks_that_jump_change_nothing_but_how_much_is_read() {
    let (root, cache) = (project(), tempfile::tempdir().expect("a folder"));
    let first = print(&scan(root.path()), cache.path()).expect("a fingerprint");
    let century = Duration::from_secs(3_200_000_000);
    for time in [
        UNIX_EPOCH - Duration::from_secs(86_400),
        UNIX_EPOCH,
        UNIX_EPOCH + century,
    ] {
        let file = File::options().write(true).open(root.path().join("a"));
        file.and_then(|file| file.set_modified(time)).expect("set");
        let context = scan(root.path());
        let print = |context| print(context, cache.path()).expect("a fingerprint");
        assert_eq!(print(&context).value, first.value);
        // A file from the future is never trusted.
        assert_eq!(print(&scan(root.path())).value, first.value);
        send(&context).expect("an archive");
    }
}

#[test]
fn a_large_file_with_holes_is_sent_in_pieces() {
    let root = project();
    // More than the plain field of a tar header can tell, and no more than a test can wait for.
    let size = 20_000_000_000;
    File::create(root.path().join("large"))
        .and_then(|file| file.set_len(size))
        .expect("a sparse file");
    let context = scan(root.path());
    let mut count = 0;
    for (number, piece) in pieces(&context, Pool::default(), (0, 1)).enumerate().take(4) {
        let piece = piece.expect("a piece");
        count += piece.content_bytes;
        let bytes = piece.into_bytes();
        assert!(bytes.len() < 1_200_000, "{}", bytes.len());
        if number == 1 {
            let mut archive = tar::Archive::new(&*bytes);
            let mut entries = archive.entries().expect("entries");
            let header = entries.next().expect("an entry").expect("a header");
            assert_eq!(header.size(), size);
        }
    }
    assert!(count > 500_000, "{count}");
    // It becomes shorter in the middle.
    File::create(root.path().join("large")).expect("emptied");
    is_refused(send(&context), "large");
}

#[test]
fn what_goes_away_while_it_is_looked_for_is_left_out() {
    let root = project();
    let files = root.path().join("files");
    std::fs::create_dir(&files).expect("made");
    let stop = &std::sync::atomic::AtomicBool::new(false);
    let files = &files;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let folder = files.join("folder");
                std::fs::create_dir(&folder).expect("made");
                (0..20).for_each(|number| put(&folder, format!("f{number}"), "x"));
                std::fs::remove_dir_all(&folder).expect("removed");
            }
        });
        for _ in 0..200 {
            let paths: Vec<_> = scan(root.path()).paths().map(Path::to_owned).collect();
            assert!(
                paths.contains(&"a".into()) && paths.contains(&"b".into()),
                "{paths:?}"
            );
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
