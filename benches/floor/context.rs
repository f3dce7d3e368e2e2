//! A build context to an engine's socket, twice: as this program's library sends it, and the least that can do it, a
//! plain tar of the same files over a plain socket.
//!
//! `context ours|floor SOCKET ROOT`

use std::error::Error;
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use systemprompt::image::build::{BuildRequest, build};
use systemprompt::image::context::Context;
use systemprompt::image::dockerfile::BuildArgs;
use systemprompt::image::endpoint::EngineEnvironment;
use systemprompt::image::engine::Engine;
use systemprompt::image::progress::Silent;

/// What the ignore files of the trees that are measured leave out.
const IGNORED: [&str; 3] = ["node_modules", "target", ".git"];
const PIECE: usize = 256 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    match words.as_slice() {
        [who, socket, root] if who == "ours" => ours(Path::new(socket), Path::new(root)),
        [who, socket, root] if who == "floor" => floor(Path::new(socket), Path::new(root)),
        _ => Err("usage: context ours|floor SOCKET ROOT".into()),
    }
}

fn ours(socket: &Path, root: &Path) -> Result<(), Box<dyn Error>> {
    let context = Context::scan(root, &root.join("Dockerfile"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let environment = EngineEnvironment {
            host_flag: Some(format!("unix://{}", socket.display())),
            buildkit: Some("0".to_owned()),
            ..EngineEnvironment::default()
        };
        let engine = Engine::connect(&environment).await?;
        let request = BuildRequest {
            context,
            reference: "systemprompt-bench/context:1".to_owned(),
            args: BuildArgs::new(),
            target: None,
            platform: None,
            no_cache: false,
            labels: [].into(),
            cache: None,
        };
        build(&engine, request, Arc::new(Silent)).await?;
        Ok(())
    })
}

fn floor(socket: &Path, root: &Path) -> Result<(), Box<dyn Error>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(
        b"POST /build HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    let mut archive = tar::Builder::new(BufWriter::with_capacity(PIECE, Chunks(&stream)));
    archive.follow_symlinks(false);
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in root.join(&folder).read_dir()? {
            let entry = entry?;
            let name = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                if IGNORED.iter().any(|ignored| Path::new(ignored) == name) {
                    continue;
                }
                archive.append_dir(&name, entry.path())?;
                folders.push(name);
            } else {
                archive.append_path_with_name(entry.path(), &name)?;
            }
        }
    }
    archive.into_inner()?.flush()?;
    stream.write_all(b"0\r\n\r\n")?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    if answer.ends_with(b"200") {
        Ok(())
    } else {
        Err("the sink did not take it".into())
    }
}

/// What is written, as chunks of an HTTP body.
struct Chunks<'a>(&'a UnixStream);

impl Write for Chunks<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write_all(format!("{:x}\r\n", data.len()).as_bytes())?;
        self.0.write_all(data)?;
        self.0.write_all(b"\r\n")?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
