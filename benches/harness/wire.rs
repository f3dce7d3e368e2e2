//! HTTP/1.1 by hand over one connection: what is measured is the server, and not a client's machinery.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::harness::contest::Outcome;

/// A connection that is kept.
pub(crate) struct Wire {
    stream: TcpStream,
    host: String,
    authorization: Option<String>,
    buffer: Vec<u8>,
}

/// An answer whose body was thrown away.
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body_bytes: u64,
}

impl Answer {
    /// The header of that name, which is given in small letters.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Wire {
    pub(crate) fn open(address: &str, token: Option<&str>) -> Outcome<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            host: address.to_owned(),
            authorization: token.map(|token| format!("Authorization: Bearer {token}\r\n")),
            buffer: vec![0; 1 << 20],
        })
    }

    /// Sends a request with that body and reads its answer to the end; other than 2xx is an error.
    pub(crate) fn ask(&mut self, method: &str, path: &str, (kind, body): (&str, &[u8])) -> Outcome<Answer> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{}Accept: {kind}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            self.host,
            self.authorization.as_deref().unwrap_or_default(),
            body.len()
        );
        self.stream.write_all(head.as_bytes())?;
        self.stream.write_all(body)?;
        let answer = self.read(method == "HEAD")?;
        if !(200..300).contains(&answer.status) {
            return Err(format!("{method} {path}: {}", answer.head).into());
        }
        Ok(answer)
    }

    fn read(&mut self, head_only: bool) -> Outcome<Answer> {
        let mut had = 0;
        let end = loop {
            let read = self.stream.read(&mut self.buffer[had..])?;
            if read == 0 {
                return Err("the server has hung up".into());
            }
            had += read;
            if let Some(at) = self.buffer[..had].windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut answer = Answer {
            status: status.ok_or("no status")?,
            head,
            body_bytes: 0,
        };
        let length: u64 = answer
            .header("content-length")
            .and_then(|text| text.parse().ok())
            .unwrap_or_default();
        if head_only {
            return Ok(answer);
        }
        answer.body_bytes = (had - end) as u64;
        while answer.body_bytes < length {
            let read = self.stream.read(&mut self.buffer)?;
            if read == 0 {
                return Err("the body has ended early".into());
            }
            answer.body_bytes += read as u64;
        }
        Ok(answer)
    }
}
