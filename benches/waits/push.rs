//! Pushing an image of 200 MB: for the first time, unchanged, and with one of ten layers new.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use systemprompt::api::id::TenantId;
use systemprompt::image::endpoint::EngineEnvironment;
use systemprompt::image::engine::Engine;
use systemprompt::image::progress::Silent;
use systemprompt::image::push::{PushRequest, push};
use systemprompt::server::clock::Clock;
use systemprompt::server::registry::{Gate, GateAccess, GateSettings};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::Scale;
use crate::harness::contest::{Contest, Measured, Outcome, Role, Unit};
use crate::harness::run::{ours, quietly, version};

const BASELINE: &str = "docker push to docker-registry";
const FLOOR: &str = "sha256, and the bytes to a sink";
/// What the bench's images are called on the engine.
const IMAGE: &str = "systemprompt-bench/push";
const LAYERS: usize = 10;

/// Two kinds of content, three kinds of push.
pub(crate) fn bench(scale: Scale) -> Outcome<Vec<Measured>> {
    if version("docker-registry").is_none() || version("docker").is_none() {
        println!(
            "skipped: there is no `docker` or no `docker-registry` (Debian's packages `docker.io` and `docker-registry`)"
        );
        return Ok(Vec::new());
    }
    let megabytes = if scale.quick { 40 } else { 200 };
    let bench = Bench::new()?;
    let mut all = Vec::new();
    for (kind, name) in [
        (Content::Noise, "incompressible"),
        (Content::Program, "compressible"),
    ] {
        let layer = bench.layer(kind, megabytes)?;
        let one = bench.image(&[&layer])?;
        let what = format!("{megabytes} MB layer, {name}");
        all.push(first(&bench, (&what, &layer), &one, scale.rounds(5))?);
        if kind == Content::Noise {
            all.push(unchanged(&bench, &what, &one, scale.rounds(15))?);
            all.push(one_of_ten(&bench, megabytes, scale.rounds(5))?);
        }
        std::fs::remove_file(layer)?;
    }
    Ok(all)
}

fn first(bench: &Bench, (what, layer): (&str, &Path), image: &str, rounds: usize) -> Outcome<Measured> {
    Contest::new(format!("First push, {what}"), Unit::Seconds)
        .with(Role::Ours, "systemprompt", || {
            let tenant = bench.tenant();
            bench.push(image, &tenant)
        })
        .with(Role::Baseline, BASELINE, || {
            // Another port: the engine remembers of every registry what it has.
            let registry = Registry::start(bench)?;
            bench.docker_push(image, &registry)
        })
        .timed(Role::Floor, FLOOR, || sink(layer))
        .goal(BASELINE, 0.5)
        .run(rounds)
}

fn unchanged(bench: &Bench, what: &str, image: &str, rounds: usize) -> Outcome<Measured> {
    let (tenant, registry) = (bench.tenant(), Registry::start(bench)?);
    Contest::new(format!("Push of what is there already, {what}"), Unit::Seconds)
        .with(Role::Ours, "systemprompt", || bench.push(image, &tenant))
        .with(Role::Baseline, BASELINE, || bench.docker_push(image, &registry))
        .goal(BASELINE, 1.0)
        .run(rounds)
}

fn one_of_ten(bench: &Bench, megabytes: usize, rounds: usize) -> Outcome<Measured> {
    let each = megabytes / LAYERS;
    let kept: Outcome<Vec<_>> = (1..LAYERS).map(|_| bench.layer(Content::Noise, each)).collect();
    let kept = kept?;
    let mut images = Vec::new();
    for _ in 0..=rounds {
        let new = bench.layer(Content::Noise, each)?;
        let layers: Vec<&Path> = kept.iter().chain([&new]).map(AsRef::as_ref).collect();
        images.push(bench.image(&layers)?);
        std::fs::remove_file(new)?;
    }
    let (tenant, registry) = (bench.tenant(), Registry::start(bench)?);
    let (mut ours, mut theirs) = (images.iter().cycle(), images.iter().cycle());
    let mut next = || ours.next().map(String::as_str).unwrap_or_default();
    let mut next_theirs = || theirs.next().map(String::as_str).unwrap_or_default();
    let title = format!("Push with one of {LAYERS} layers of {each} MB new, incompressible");
    Contest::new(title, Unit::Seconds)
        .with(Role::Ours, "systemprompt", || bench.push(next(), &tenant))
        .with(Role::Baseline, BASELINE, || {
            bench.docker_push(next_theirs(), &registry)
        })
        .goal(BASELINE, 1.0)
        .run(rounds)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Noise,
    /// Our own program, again and again.
    Program,
}

/// The engine, a gate in this process, and what was made for the bench.
struct Bench {
    runtime: Runtime,
    engine: Engine,
    gate: Gate,
    clock: Clock,
    host: String,
    folder: TempDir,
}

impl Bench {
    fn new() -> Outcome<Self> {
        let runtime = Runtime::new()?;
        let folder = tempfile::tempdir()?;
        let clock = Clock::system();
        let engine = runtime.block_on(Engine::connect(&EngineEnvironment::default()))?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let host = listener.local_addr()?.to_string();
        let settings = GateSettings {
            registry_host: host.clone(),
            realm: format!("http://{host}/v2/token"),
            directory: folder.path().join("gate"),
            signing_key: [7; 32],
        };
        let gate = runtime.block_on(Gate::open(settings, clock.clone()))?;
        let router = gate.router();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Ok(Self {
            runtime,
            engine,
            gate,
            clock,
            host,
            folder,
        })
    }

    fn tenant(&self) -> TenantId {
        TenantId::new(self.clock.uuid())
    }

    /// A file for a layer.
    fn layer(&self, content: Content, megabytes: usize) -> Outcome<std::path::PathBuf> {
        let path = self.folder.path().join(self.clock.uuid().to_string());
        let mut file = std::fs::File::create(&path)?;
        match content {
            Content::Noise => {
                let mut piece = vec![0; 1 << 20];
                for _ in 0..megabytes {
                    rand::fill(&mut piece);
                    file.write_all(&piece)?;
                }
            }
            Content::Program => {
                let program = std::fs::read(ours())?;
                let mut left = megabytes << 20;
                while left > 0 {
                    let count = left.min(program.len());
                    file.write_all(&program[..count])?;
                    left -= count;
                }
            }
        }
        Ok(path)
    }

    /// An image with a layer for each of the files.
    fn image(&self, layers: &[&Path]) -> Outcome<String> {
        let context = tempfile::tempdir_in(self.folder.path())?;
        let mut lines = "FROM scratch\n".to_owned();
        for layer in layers {
            let name = layer
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            std::fs::hard_link(layer, context.path().join(&name))?;
            lines.push_str(&format!("COPY {name} /{name}\n"));
        }
        std::fs::write(context.path().join("Dockerfile"), lines)?;
        let image = format!("{IMAGE}:{}", self.clock.uuid());
        let mut build = Command::new("docker");
        quietly(
            build
                .env("DOCKER_BUILDKIT", "0")
                .args(["build", "-t", &image])
                .arg(context.path()),
        )?;
        Ok(image)
    }

    fn push(&self, image: &str, tenant: &TenantId) -> Outcome<f64> {
        let request = PushRequest {
            registry: self.host.clone(),
            repository: "systemprompt-images".to_owned(),
            tag: format!("tenant-{tenant}"),
            username: "systemprompt".to_owned(),
            password: self.gate.mint(tenant, GateAccess::Push, 600).0,
            ca_file: None,
            resumes: false,
        };
        let name = format!("{}/{}:{}", request.registry, request.repository, request.tag);
        quietly(Command::new("docker").args(["tag", image, &name]))?;
        let begun = Instant::now();
        let pushed = self.runtime.block_on(push(&self.engine, &request, &Silent))?;
        let seconds = begun.elapsed().as_secs_f64();
        let stored = self.runtime.block_on(self.gate.resolve_tag(tenant))?;
        if stored.map(|stored| stored.digest) != Some(pushed.digest) {
            return Err("the gate has another image than was pushed".into());
        }
        quietly(Command::new("docker").args(["rmi", &name]))?;
        Ok(seconds)
    }

    fn docker_push(&self, image: &str, registry: &Registry) -> Outcome<f64> {
        let name = format!("{}/bench:1", registry.host);
        quietly(Command::new("docker").args(["tag", image, &name]))?;
        let begun = Instant::now();
        quietly(Command::new("docker").args(["push", "--quiet", &name]))?;
        let seconds = begun.elapsed().as_secs_f64();
        quietly(Command::new("docker").args(["rmi", &name]))?;
        Ok(seconds)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let filter = format!("reference={IMAGE}");
        let listed = Command::new("docker")
            .args(["images", "--quiet", "--filter", &filter])
            .output();
        let listed = listed.map(|listed| String::from_utf8_lossy(&listed.stdout).into_owned());
        for id in listed.unwrap_or_default().lines() {
            let _ = quietly(Command::new("docker").args(["rmi", "--force", id]));
        }
    }
}

/// Debian's registry over an empty folder.
struct Registry {
    host: String,
    process: Child,
    _folder: TempDir,
}

impl Registry {
    fn start(bench: &Bench) -> Outcome<Self> {
        let folder = tempfile::tempdir_in(bench.folder.path())?;
        let host = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let data = folder.path().join("data");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{host}'}}\n",
            data.display()
        );
        let config = folder.path().join("config.yml");
        std::fs::write(&config, text)?;
        let mut serve = Command::new("docker-registry");
        serve
            .arg("serve")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = serve.spawn()?;
        let registry = Self {
            host,
            process,
            _folder: folder,
        };
        let begun = Instant::now();
        while TcpStream::connect(&registry.host).is_err() {
            if begun.elapsed() > Duration::from_secs(10) {
                return Err("docker-registry does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The least that a push of the file can be: its digest, and its bytes to somebody who drops them.
fn sink(layer: &Path) -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut connection = TcpStream::connect(listener.local_addr()?)?;
    let (mut taken, _) = listener.accept()?;
    let swallowed = std::thread::spawn(move || std::io::copy(&mut taken, &mut std::io::sink()));
    let (mut file, mut hash) = (std::fs::File::open(layer)?, Sha256::new());
    let mut piece = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            break;
        }
        hash.update(&piece[..count]);
        connection.write_all(&piece[..count])?;
    }
    drop(connection);
    std::hint::black_box(hash.finalize());
    swallowed.join().map_err(|_| "the sink died")??;
    Ok(())
}
