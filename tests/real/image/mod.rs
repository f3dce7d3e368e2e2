//! Images through a real engine: both builders, what goes into them, pushes that break off, programs that cannot run.

mod build;
mod database;
mod push;
mod sync;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use systemprompt::image::build::{BuildRequest, Built, build};
use systemprompt::image::context::Context;
use systemprompt::image::endpoint::EngineEnvironment;
use systemprompt::image::engine::Engine;
use systemprompt::image::error::ImageError;
use systemprompt::image::progress::{Progress, ProgressEvent};
use tempfile::TempDir;

/// Debian, from the network or as `scripts/setup` made it.
pub(crate) const BASES: [&str; 2] = [
    "debian:bookworm-slim",
    "systemprompt-standin/debian:bookworm-slim",
];

/// A project in a folder of its own, and the images that were made of it, which go with it.
pub(crate) struct Project {
    folder: TempDir,
    images: Mutex<Vec<String>>,
}

impl Project {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::File::create(path)
                .and_then(|mut file| file.write_all(text.as_bytes()))
                .expect("written");
        }
        Self {
            folder,
            images: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn context(&self) -> Context {
        Context::scan(self.path(), &self.path().join("Dockerfile")).expect("a context")
    }

    pub(crate) fn request(&self, reference: &str) -> BuildRequest {
        self.images.lock().expect("a lock").push(reference.to_owned());
        BuildRequest {
            context: self.context(),
            reference: reference.to_owned(),
            args: BTreeMap::new(),
            target: None,
            platform: None,
            no_cache: true,
            labels: BTreeMap::from([("io.systemprompt.test".to_owned(), "image".to_owned())]),
            cache: Some(self.path().join(".systemprompt/cache")),
        }
    }

    pub(crate) async fn build(&self, engine: &Engine, reference: &str) -> Result<Built, ImageError> {
        build(engine, self.request(reference), Arc::new(Seen::default())).await
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        for image in self.images.lock().expect("a lock").iter() {
            let _ = Command::new("docker")
                .args(["image", "rm", "--force", image])
                .output();
        }
    }
}

/// Remembers what it was told.
#[derive(Default)]
pub(crate) struct Seen(Mutex<Vec<ProgressEvent>>);

impl Seen {
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = |event: &ProgressEvent| match event {
            ProgressEvent::Started { label, .. } => Some(label.clone()),
            ProgressEvent::Line { text, .. } => Some(text.clone()),
            ProgressEvent::Finished { summary, .. } => Some(summary.clone()),
            ProgressEvent::Advanced { .. } => None,
        };
        self.0.lock().expect("a lock").iter().filter_map(text).collect()
    }
}

impl Progress for Seen {
    fn report(&self, event: ProgressEvent) {
        self.0.lock().expect("a lock").push(event);
    }
}

/// The engine, building in the wanted way.
pub(crate) async fn engine(buildkit: bool) -> Engine {
    let environment = EngineEnvironment {
        buildkit: (!buildkit).then(|| "0".to_owned()),
        ..EngineEnvironment::default()
    };
    let engine = Engine::connect(&environment).await.expect("the engine answers");
    assert_eq!(engine.info().buildkit, buildkit, "{:?}", engine.info());
    engine
}

/// `Err` says why tests that need a base image are skipped.
pub(crate) fn base() -> Result<&'static str, String> {
    crate::docker_available()?;
    let has = |image: &&str| crate::answers("docker", &["image", "inspect", image]).is_ok();
    BASES
        .into_iter()
        .find(has)
        .ok_or_else(|| "no Debian image; `scripts/setup` makes one".to_owned())
}

pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker")
        .args(arguments)
        .output()
        .expect("docker runs");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
