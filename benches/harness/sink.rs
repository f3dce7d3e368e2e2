//! A Docker Engine that takes a build context, throws it away and says that an image was built.

use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use tempfile::TempDir;

use crate::harness::contest::Outcome;

const IMAGE: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The engine; its threads end with the program.
pub(crate) struct Sink {
    folder: TempDir,
    taken: Arc<AtomicU64>,
}

impl Sink {
    pub(crate) fn start() -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let listener = UnixListener::bind(folder.path().join("engine.sock"))?;
        let taken = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&taken);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let count = Arc::clone(&count);
                // A client that hangs up in the middle says so itself.
                std::thread::spawn(move || drop(serve(&stream, &count)));
            }
        });
        Ok(Self { folder, taken })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("engine.sock")
    }

    /// How docker clients are told of it.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// How many bytes the last context had.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

fn serve(stream: &UnixStream, taken: &AtomicU64) -> Outcome<()> {
    let mut reader = BufReader::with_capacity(1 << 20, stream);
    loop {
        let Some((request, has_chunks, length)) = head(&mut reader)? else {
            return Ok(());
        };
        let bytes = if has_chunks {
            chunks(&mut reader)?
        } else {
            skip(&mut reader, length)?
        };
        let mut words = request.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = target.split('?').next().unwrap_or_default();
        if path.ends_with("/build") {
            taken.store(bytes, Ordering::Relaxed);
        }
        let body = answer(method, path);
        let status = if path.ends_with("/tag") {
            "201 Created"
        } else {
            "200 OK"
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nApi-Version: 1.41\r\nOstype: linux\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let body = if method == "HEAD" { String::new() } else { body };
        let mut stream = stream;
        stream.write_all(format!("{head}{body}").as_bytes())?;
    }
}

fn answer(method: &str, path: &str) -> String {
    let body = match path.rsplit('/').next().unwrap_or_default() {
        "_ping" => return "OK".to_owned(),
        "version" => {
            json!({ "Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12", "Os": "linux", "Arch": "amd64" })
        }
        "json" => json!({ "Id": IMAGE, "Os": "linux", "Architecture": "amd64", "Size": 1 }),
        "build" => {
            return format!(
                "{}\n{}\n{}\n",
                json!({ "stream": "Step 1/1 : FROM scratch\n" }),
                json!({ "aux": { "ID": IMAGE } }),
                json!({ "stream": "Successfully built 0123456789ab\n" })
            );
        }
        _ if method == "POST" => return String::new(),
        _ => json!({}),
    };
    body.to_string()
}

/// The first line, whether the body comes in chunks, and how long it is where it does not.
fn head(reader: &mut impl BufRead) -> Outcome<Option<(String, bool, u64)>> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let (mut has_chunks, mut length) = (false, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            return Ok(Some((first, has_chunks, length)));
        }
        has_chunks |= line == "transfer-encoding: chunked";
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse()?;
        }
    }
}

fn chunks(reader: &mut impl BufRead) -> Outcome<u64> {
    let mut total = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim(), 16)?;
        total += skip(reader, length)?;
        let mut end = [0; 2];
        reader.read_exact(&mut end)?;
        if length == 0 {
            return Ok(total);
        }
    }
}

fn skip(reader: &mut impl BufRead, length: u64) -> Outcome<u64> {
    let mut left = length;
    while left > 0 {
        let have = reader.fill_buf()?.len() as u64;
        if have == 0 {
            return Err("the client hung up".into());
        }
        let now = have.min(left);
        reader.consume(usize::try_from(now)?);
        left -= now;
    }
    Ok(length)
}
