//! Programs that cannot run in the image they were copied into: found before the push, not by the tenant.

mod elf;

use std::io::{Cursor, Read as _};
use std::path::{Path, PathBuf};

use bollard::errors::Error as DockerError;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptions, DownloadFromContainerOptionsBuilder, RemoveContainerOptionsBuilder,
};
use futures::StreamExt as _;

use crate::image::binary::elf::{Elf, Version};
use crate::image::build::Built;
use crate::image::context::{self, Context, EntryKind};
use crate::image::dockerfile::BuildArgs;
use crate::image::engine::Engine;
use crate::image::error::ImageError;
use crate::image::ignore::clean;
use crate::image::pattern::Pattern;

/// A C library is some 2 MB; nothing larger is taken for one.
const LIBRARY_BYTES: usize = 64 * 1024 * 1024;
/// A library is a link to a link at most.
const LINKS: usize = 4;
/// Images that people know, by their glibc.
const BASES: [(Version, &str); 5] = [
    (Version(2, 31), "debian:bullseye-slim"),
    (Version(2, 35), "ubuntu:22.04"),
    (Version(2, 36), "debian:bookworm-slim"),
    (Version(2, 39), "ubuntu:24.04"),
    (Version(2, 41), "debian:trixie-slim"),
];

/// One program that the Dockerfile copies by its name.
struct Program {
    path: PathBuf,
    elf: Elf,
}

/// Compares every program that the Dockerfile copies by name with the image that was built.
pub async fn check(
    engine: &Engine,
    context: &Context,
    args: &BuildArgs,
    target: Option<&str>,
    image: &Built,
) -> Result<(), ImageError> {
    let programs = programs(context, args, target)?;
    for program in &programs {
        check_machine(program, &image.platform)?;
    }
    let dynamic: Vec<&Program> = programs
        .iter()
        .filter(|program| program.elf.interpreter.is_some())
        .collect();
    if dynamic.is_empty() {
        return Ok(());
    }
    let container = probe(engine, &image.image_id).await?;
    let mut outcome = Ok(());
    for program in dynamic {
        outcome = check_libraries(engine, &container, program).await;
        if outcome.is_err() {
            break;
        }
    }
    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    let removed = engine.docker().remove_container(&container, Some(options)).await;
    outcome?;
    removed.map_err(ImageError::engine(
        "remove the container that the image was looked into with",
    ))
}

/// The ELF files among what is copied by name. Folders are left alone: they may hold files for other machines.
fn programs(context: &Context, args: &BuildArgs, target: Option<&str>) -> Result<Vec<Program>, ImageError> {
    let mut programs = Vec::new();
    for copied in context.dockerfile().copied(args, target) {
        let source = clean(copied.source.trim_start_matches('/'));
        let Ok(pattern) = Pattern::parse(&source) else {
            continue;
        };
        for entry in context.entries() {
            let is_copied = entry.kind == EntryKind::File && pattern.matches(&entry.path.to_string_lossy());
            if !is_copied
                || programs
                    .iter()
                    .any(|program: &Program| *program.path == *entry.path)
            {
                continue;
            }
            let source = context.source(entry);
            let mut file = context::open(&source, entry)?;
            if let Some(elf) = Elf::read(&mut file).map_err(ImageError::file("read", &source))? {
                programs.push(Program {
                    path: entry.path.to_path_buf(),
                    elf,
                });
            }
        }
    }
    Ok(programs)
}

fn check_machine(program: &Program, platform: &str) -> Result<(), ImageError> {
    let wanted = platform.split('/').nth(1).unwrap_or_default();
    match program.elf.architecture() {
        Some(architecture) if architecture != wanted => Err(ImageError::WrongBinary {
            what: format!(
                "`{}` is made for {architecture}, the image is for {wanted}",
                program.path.display()
            ),
            hint: format!("build it for {wanted}, or the image with `--platform linux/{architecture}`"),
        }),
        _ => Ok(()),
    }
}

async fn check_libraries(engine: &Engine, container: &str, program: &Program) -> Result<(), ImageError> {
    let Some(interpreter) = &program.elf.interpreter else {
        return Ok(());
    };
    if interpreter.contains("ld-musl") {
        return match fetch(engine, container, interpreter).await? {
            Some(_) => Ok(()),
            None => Err(lacks(
                program,
                "musl",
                &format!("the image has no `{interpreter}`"),
                "alpine",
            )),
        };
    }
    let Some(needed) = program.elf.newest_glibc() else {
        return Ok(());
    };
    let mut library = None;
    for path in program.elf.library_paths() {
        if let Some(bytes) = fetch(engine, container, &path).await? {
            library =
                Elf::read(&mut Cursor::new(bytes)).map_err(ImageError::file("read from the image", path))?;
            break;
        }
    }
    let base = BASES
        .iter()
        .find(|(version, _)| *version >= needed)
        .map_or("a newer one", |(_, base)| *base);
    let Some(had) = library.as_ref().and_then(Elf::own_glibc) else {
        return Err(lacks(
            program,
            &format!("glibc {needed}"),
            "the image has no glibc",
            base,
        ));
    };
    if had >= needed {
        return Ok(());
    }
    Err(lacks(
        program,
        &format!("glibc {needed} or newer"),
        &format!("the image has {had}"),
        base,
    ))
}

fn lacks(program: &Program, needs: &str, has: &str, base: &str) -> ImageError {
    let path = program.path.display();
    ImageError::WrongBinary {
        what: format!("`{path}` needs {needs}, and {has}: it would not start"),
        hint: format!(
            "use a base image that has it (`{base}`), build `{path}` on a system as old as the base image, or link \
             it statically (`RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --target \
             x86_64-unknown-linux-gnu`)"
        ),
    }
}

/// A container that never runs: the engine shows the files of containers, not of images.
async fn probe(engine: &Engine, image: &str) -> Result<String, ImageError> {
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(vec!["-".to_owned()]),
        labels: Some([("io.systemprompt.role".to_owned(), "image-probe".to_owned())].into()),
        ..ContainerCreateBody::default()
    };
    engine
        .docker()
        .create_container(None::<CreateContainerOptions>, body)
        .await
        .map(|container| container.id)
        .map_err(ImageError::engine("look into the image"))
}

/// One file of the image, links followed.
async fn fetch(engine: &Engine, container: &str, path: &str) -> Result<Option<Vec<u8>>, ImageError> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let Some(archive) = download(engine, container, &path).await? else {
            return Ok(None);
        };
        let mut archive = tar::Archive::new(archive.as_slice());
        let failed = || ImageError::file("read from the image", path.clone());
        let mut entries = archive.entries().map_err(failed())?;
        let Some(entry) = entries.next() else {
            return Ok(None);
        };
        let mut entry = entry.map_err(failed())?;
        let link = entry
            .link_name()
            .ok()
            .flatten()
            .filter(|_| entry.header().entry_type().is_symlink());
        let Some(link) = link else {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(failed())?;
            return Ok(Some(bytes));
        };
        let folder = Path::new(&path).parent().unwrap_or(Path::new("/"));
        path = clean(&folder.join(link).to_string_lossy());
    }
    Ok(None)
}

async fn download(engine: &Engine, container: &str, path: &str) -> Result<Option<Vec<u8>>, ImageError> {
    let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
    let mut pieces = engine.docker().download_from_container(container, Some(options));
    let mut archive = Vec::new();
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) if archive.len() + piece.len() <= LIBRARY_BYTES => archive.extend_from_slice(&piece),
            Ok(_) => return Ok(None),
            Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => return Ok(None),
            Err(error) => return Err(ImageError::engine(format!("read `{path}` from the image"))(error)),
        }
    }
    Ok(Some(archive))
}
