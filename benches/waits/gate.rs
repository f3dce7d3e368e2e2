//! The registry: a layer up and down, looking for a manifest, many pushes at once.

use std::cell::Cell;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::Scale;
use crate::harness::ask::ask;
use crate::harness::contest::{Contest, Measured, Outcome, Role, Unit};
use crate::harness::seed::{Database, accounts, tenant_id, tenants, token};
use crate::harness::served::{Folder, Served, free_port};
use crate::harness::wire::Wire;

const AGAINST_DEBIAN: f64 = 1.0;
const PUSHES: usize = 50;
const LAYER: usize = 2_000_000;
const READERS: usize = 16;
const DEBIAN: &str = "docker-registry";
const BYTES: &str = "application/octet-stream";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Everything against Debian's registry.
pub(crate) fn bench(scale: Scale) -> Outcome<Vec<Measured>> {
    let folder = Folder::new()?;
    let ours = Ours::start(&folder)?;
    let Some(debian) = Debian::start(&folder)? else {
        println!("  skipped: docker-registry is not installed (apt-get install docker-registry)");
        return Ok(Vec::new());
    };
    let (ours, debian): (&dyn Registry, &dyn Registry) = (&ours, &debian);
    let size = if scale.quick { 50_000_000 } else { 200_000_000 };
    let layer = noise(size);
    Ok(vec![
        uploads(ours, debian, &layer, scale)?,
        downloads(ours, debian, &layer, scale)?,
        heads(ours, debian, scale)?,
        pushes(ours, debian, scale)?,
    ])
}

/// A registry, and how one comes in; repositories have numbers from 1 on.
trait Registry: Sync {
    fn address(&self) -> &str;
    fn repository(&self, number: usize) -> String;
    fn token(&self, number: usize) -> Outcome<Option<String>>;
    fn tag(&self, number: usize) -> String;
}

struct Ours(Served);

impl Ours {
    fn start(folder: &Folder) -> Outcome<Self> {
        let data = folder.path().join("ours");
        std::fs::create_dir_all(&data)?;
        let database = Database::in_folder(&data);
        database.prepare(&data)?;
        database.run(&[accounts(1, 1, "read deploy"), tenants(PUSHES, 1, "pending")].concat())?;
        Ok(Self(database.serve(&data, &[])?))
    }
}

impl Registry for Ours {
    fn address(&self) -> &str {
        self.0.address()
    }

    fn repository(&self, _number: usize) -> String {
        "systemprompt-images".to_owned()
    }

    fn token(&self, number: usize) -> Outcome<Option<String>> {
        let url = &self.0.url;
        let minted = format!("{url}/api/v1/tenants/{}/registry-token", tenant_id(number));
        let minted = ask("GET", &minted, Some(&token(1)), None)?;
        let password = minted["token"].as_str().ok_or("no password")?;
        let scope = "scope=repository:systemprompt-images:pull,push";
        let address = format!(
            "http://systemprompt:{password}@{}/v2/token?{scope}",
            self.address()
        );
        let access = ask("GET", &address, None, None)?;
        Ok(access["token"].as_str().map(str::to_owned))
    }

    fn tag(&self, number: usize) -> String {
        format!("tenant-{}", tenant_id(number))
    }
}

struct Debian(Served);

impl Debian {
    fn start(folder: &Folder) -> Outcome<Option<Self>> {
        let program = std::path::Path::new("/usr/bin/docker-registry");
        if !program.exists() {
            return Ok(None);
        }
        let port = free_port()?;
        let data = folder.path().join("debian");
        std::fs::create_dir_all(&data)?;
        let config = data.join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            data.join("data").display()
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new(program);
        command.arg("serve").arg(&config);
        Served::on_port(command, port).map(|served| Some(Self(served)))
    }
}

impl Registry for Debian {
    fn address(&self) -> &str {
        self.0.address()
    }

    fn repository(&self, number: usize) -> String {
        format!("images-{number}")
    }

    fn token(&self, _number: usize) -> Outcome<Option<String>> {
        Ok(None)
    }

    fn tag(&self, _number: usize) -> String {
        "latest".to_owned()
    }
}

/// Bytes that no compression makes smaller.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

thread_local! {
    static SERIAL: Cell<u64> = const { Cell::new(1) };
}

/// The same bytes with a number in front that no other has, and their digest.
fn unique(bytes: &[u8]) -> (Vec<u8>, String) {
    let serial = SERIAL.replace(SERIAL.get() + 1);
    let mut bytes = bytes.to_vec();
    bytes[..8].copy_from_slice(&serial.to_le_bytes());
    let digest = digest(&bytes);
    (bytes, digest)
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn upload(wire: &mut Wire, repository: &str, (bytes, digest): (&[u8], &str)) -> Outcome<()> {
    let begun = wire.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), (BYTES, b""))?;
    let place = begun.header("location").ok_or("no place to send to")?;
    let path = match place.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => place,
    };
    let joint = if path.contains('?') { '&' } else { '?' };
    wire.ask("PUT", &format!("{path}{joint}digest={digest}"), (BYTES, bytes))
        .map(drop)
}

#[expect(clippy::cast_precision_loss, reason = "less than 2^52 bytes")]
fn megabytes(bytes: usize, took: Duration) -> f64 {
    bytes as f64 / 1e6 / took.as_secs_f64()
}

fn uploads(ours: &dyn Registry, debian: &dyn Registry, layer: &[u8], scale: Scale) -> Outcome<Measured> {
    let one = |registry: &dyn Registry| {
        let mut wire = Wire::open(registry.address(), registry.token(1)?.as_deref())?;
        let (bytes, digest) = unique(layer);
        let began = Instant::now();
        upload(&mut wire, &registry.repository(1), (&bytes, &digest))?;
        Ok(megabytes(bytes.len(), began.elapsed()))
    };
    let title = format!("registry: a layer of {} MB up", layer.len() / 1_000_000);
    Contest::new(title, Unit::MegabytesPerSecond)
        .with(Role::Ours, "systemprompt", || one(ours))
        .with(Role::Baseline, DEBIAN, || one(debian))
        .with(Role::Floor, "a sink on loopback", || sunk(layer))
        .goal(DEBIAN, AGAINST_DEBIAN)
        .run(scale.rounds(5))
}

/// The same bytes to somebody who throws them away.
fn sunk(layer: &[u8]) -> Outcome<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let sink = thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        std::io::copy(&mut stream, &mut std::io::sink())
    });
    let began = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(layer)?;
    drop(stream);
    sink.join().map_err(|_| "the sink is gone")??;
    Ok(megabytes(layer.len(), began.elapsed()))
}

fn downloads(ours: &dyn Registry, debian: &dyn Registry, layer: &[u8], scale: Scale) -> Outcome<Measured> {
    let digest = digest(layer);
    for registry in [ours, debian] {
        let mut wire = Wire::open(registry.address(), registry.token(1)?.as_deref())?;
        upload(&mut wire, &registry.repository(1), (layer, &digest))?;
    }
    let one = |registry: &dyn Registry| {
        let mut wire = Wire::open(registry.address(), registry.token(1)?.as_deref())?;
        let path = format!("/v2/{}/blobs/{digest}", registry.repository(1));
        let began = Instant::now();
        let answer = wire.ask("GET", &path, (BYTES, b""))?;
        let took = began.elapsed();
        if answer.body_bytes != layer.len() as u64 {
            return Err("not the whole layer came".into());
        }
        Ok(megabytes(layer.len(), took))
    };
    let mut file = tempfile::tempfile()?;
    file.write_all(layer)?;
    let title = format!("registry: a layer of {} MB down", layer.len() / 1_000_000);
    Contest::new(title, Unit::MegabytesPerSecond)
        .with(Role::Ours, "systemprompt", || one(ours))
        .with(Role::Baseline, DEBIAN, || one(debian))
        .with(Role::Floor, "sendfile", || sent(&file, layer.len()))
        .goal(DEBIAN, AGAINST_DEBIAN)
        .run(scale.rounds(7))
}

/// The same bytes by the kernel alone.
fn sent(file: &std::fs::File, length: usize) -> Outcome<f64> {
    use std::io::{Read as _, Seek as _};
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut file = file.try_clone()?;
    file.rewind()?;
    let sender = thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        std::io::copy(&mut file, &mut stream)
    });
    let began = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    let mut buffer = vec![0; 1 << 20];
    while stream.read(&mut buffer)? > 0 {}
    let took = began.elapsed();
    sender.join().map_err(|_| "the sender is gone")??;
    Ok(megabytes(length, took))
}

/// An image of one layer.
struct Image {
    layer: (Vec<u8>, String),
    config: (Vec<u8>, String),
    manifest: Vec<u8>,
}

impl Image {
    fn new(noise: &[u8]) -> Self {
        let layer = unique(noise);
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [layer.1] },
        });
        let config = config.to_string().into_bytes();
        let config_digest = digest(&config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": config_digest, "size": config.len() },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.1, "size": layer.0.len(),
            }],
        });
        Self {
            manifest: manifest.to_string().into_bytes(),
            config: (config, config_digest),
            layer,
        }
    }

    fn push(&self, wire: &mut Wire, repository: &str, tag: &str) -> Outcome<()> {
        upload(wire, repository, (&self.layer.0, &self.layer.1))?;
        upload(wire, repository, (&self.config.0, &self.config.1))?;
        let path = format!("/v2/{repository}/manifests/{tag}");
        wire.ask("PUT", &path, (MANIFEST, &self.manifest)).map(drop)
    }
}

/// Runs the same on many threads; ends when all have ended.
fn together(count: usize, work: impl Fn(usize) -> Outcome<()> + Sync) -> Outcome<()> {
    let work = &work;
    thread::scope(|scope| {
        let running: Vec<_> = (1..=count)
            .map(|number| scope.spawn(move || work(number).map_err(|error| error.to_string())))
            .collect();
        for one in running {
            one.join().map_err(|_| "a thread is gone")??;
        }
        Ok(())
    })
}

fn heads(ours: &dyn Registry, debian: &dyn Registry, scale: Scale) -> Outcome<Measured> {
    let image = Image::new(&noise(1000));
    for registry in [ours, debian] {
        let mut wire = Wire::open(registry.address(), registry.token(1)?.as_deref())?;
        image.push(&mut wire, &registry.repository(1), &registry.tag(1))?;
    }
    let lasts = Duration::from_secs(if scale.quick { 1 } else { 2 });
    let one = |registry: &dyn Registry| {
        let token = registry.token(1)?;
        let path = format!("/v2/{}/manifests/{}", registry.repository(1), registry.tag(1));
        let asked = std::sync::atomic::AtomicU32::new(0);
        let began = Instant::now();
        together(READERS, |_| {
            let mut wire = Wire::open(registry.address(), token.as_deref())?;
            while began.elapsed() < lasts {
                wire.ask("HEAD", &path, (MANIFEST, b""))?;
                asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            Ok(())
        })?;
        Ok(f64::from(asked.into_inner()) / began.elapsed().as_secs_f64())
    };
    Contest::new(
        format!("registry: HEAD of a manifest, {READERS} at once"),
        Unit::PerSecond,
    )
    .with(Role::Ours, "systemprompt", || one(ours))
    .with(Role::Baseline, DEBIAN, || one(debian))
    .goal(DEBIAN, AGAINST_DEBIAN)
    .note("Ours checks a token at every request; docker-registry runs without any access control.")
    .run(scale.rounds(5))
}

fn pushes(ours: &dyn Registry, debian: &dyn Registry, scale: Scale) -> Outcome<Measured> {
    let noise = noise(LAYER);
    let one = |registry: &dyn Registry| {
        let tokens = (1..=PUSHES)
            .map(|number| registry.token(number))
            .collect::<Outcome<Vec<_>>>()?;
        let images: Vec<Image> = (0..PUSHES).map(|_| Image::new(&noise)).collect();
        let began = Instant::now();
        together(PUSHES, |number| {
            let mut wire = Wire::open(registry.address(), tokens[number - 1].as_deref())?;
            images[number - 1].push(&mut wire, &registry.repository(number), &registry.tag(number))
        })?;
        #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
        let count = PUSHES as f64;
        Ok(count / began.elapsed().as_secs_f64())
    };
    let title = format!(
        "registry: {PUSHES} pushes at once, a layer of {} MB each",
        LAYER / 1_000_000
    );
    Contest::new(title, Unit::PerSecond)
        .with(Role::Ours, "systemprompt", || one(ours))
        .with(Role::Baseline, DEBIAN, || one(debian))
        .goal(DEBIAN, AGAINST_DEBIAN)
        .run(scale.rounds(5))
}
