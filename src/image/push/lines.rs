//! What the engine prints while it pushes: layers, the digest, the failure.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;

use crate::image::progress::{Progress, ProgressEvent};

/// Reads the engine's answer, one JSON object a line.
pub(super) struct Lines<'a> {
    progress: &'a dyn Progress,
    unread: BytesMut,
    layers: BTreeMap<String, (u64, u64)>,
    aux_digest: Option<String>,
    status_digest: Option<String>,
    error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    id: Option<String>,
    status: Option<String>,
    error: Option<String>,
    #[serde(rename = "errorDetail")]
    error_detail: Option<ErrorDetail>,
    #[serde(rename = "progressDetail")]
    progress_detail: Option<Detail>,
    aux: Option<Aux>,
}

#[derive(Debug, Deserialize)]
struct ErrorDetail {
    message: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Detail {
    current: u64,
    total: u64,
}

#[derive(Debug, Deserialize)]
struct Aux {
    #[serde(rename = "Digest")]
    digest: Option<String>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(progress: &'a dyn Progress) -> Self {
        Self {
            progress,
            unread: BytesMut::new(),
            layers: BTreeMap::new(),
            aux_digest: None,
            status_digest: None,
            error: None,
        }
    }

    /// Takes a piece of the answer; lines may be cut anywhere.
    pub(super) fn take(&mut self, piece: &Bytes) {
        self.unread.extend_from_slice(piece);
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line = self.unread.split_to(end + 1);
            // A line of another form says nothing about success: only a digest and the registry do.
            if let Ok(line) = serde_json::from_slice::<Line>(&line) {
                self.line(line);
            }
        }
    }

    /// The failure, if the answer had one in it: its status is 200 all the same.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// What was pushed as `tag`.
    pub(super) fn digest(&self, tag: &str) -> Option<&str> {
        let status = self.status_digest.as_deref().and_then(|status| {
            let digest = status.strip_prefix(tag)?.strip_prefix(": digest: ")?;
            digest.split_whitespace().next()
        });
        self.aux_digest.as_deref().or(status)
    }

    fn line(&mut self, line: Line) {
        if let Some(message) = line.error_detail.and_then(|detail| detail.message).or(line.error) {
            self.error = Some(message);
        }
        if let Some(digest) = line.aux.and_then(|aux| aux.digest) {
            self.aux_digest = Some(digest);
        }
        let Some(status) = line.status else { return };
        match line.id {
            None if status.contains(": digest: ") => self.status_digest = Some(status),
            None => {}
            Some(layer) => self.layer(&layer, &status, line.progress_detail.unwrap_or_default()),
        }
    }

    fn layer(&mut self, layer: &str, status: &str, detail: Detail) {
        let id = format!("layer {layer}");
        match status {
            "Pushing" => {
                if detail.total == 0 {
                    return;
                }
                let total_bytes = Some(detail.total);
                if !self.layers.contains_key(layer) {
                    let label = format!("Layer {layer}");
                    self.progress.report(ProgressEvent::Started {
                        id: id.clone(),
                        label,
                        total_bytes,
                    });
                }
                // Packing adds a little, so that more arrives than was announced.
                let done_bytes = detail.current.min(detail.total);
                self.layers.insert(layer.to_owned(), (done_bytes, detail.total));
                self.progress.report(ProgressEvent::Advanced {
                    id,
                    done_bytes,
                    total_bytes,
                });
            }
            "Pushed" | "Layer already exists" if self.layers.remove(layer).is_some() => {
                self.progress.report(ProgressEvent::Finished {
                    id,
                    summary: status.to_ascii_lowercase(),
                });
            }
            status if status.starts_with("Retrying in ") => {
                let text = format!("layer {layer}: {}", status.to_ascii_lowercase());
                self.progress.report(ProgressEvent::Line { id, text });
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::Lines;
    use crate::image::progress::Silent;

    fn read(text: &str, piece: usize) -> Lines<'static> {
        let mut lines = Lines::new(&Silent);
        text.as_bytes()
            .chunks(piece)
            .for_each(|piece| lines.take(&Bytes::copy_from_slice(piece)));
        lines
    }

    const PUSHED: &str = concat!(
        r#"{"status":"The push refers to repository [127.0.0.1:5000/x]"}"#,
        "\r\n",
        r#"{"status":"Pushing","progressDetail":{"current":512,"total":1024},"id":"0a1b"}"#,
        "\r\n",
        r#"{"status":"Pushed","progressDetail":{},"id":"0a1b"}"#,
        "\r\n",
        r#"{"status":"1: digest: sha256:aa size: 736"}"#,
        "\r\n",
    );
    const AUX: &str =
        "{\"progressDetail\":{},\"aux\":{\"Tag\":\"1\",\"Digest\":\"sha256:bb\",\"Size\":736}}\r\n";
    const FAILED: &str = "{\"errorDetail\":{\"message\":\"denied: no\"},\"error\":\"denied: no\"}\r\n";

    #[test]
    fn finds_the_digest_however_the_answer_is_cut() {
        for piece in [1, 7, 4096] {
            assert_eq!(read(PUSHED, piece).digest("1"), Some("sha256:aa"));
            assert_eq!(read(PUSHED, piece).digest("2"), None);
            assert_eq!(
                read(&format!("{PUSHED}{AUX}"), piece).digest("1"),
                Some("sha256:bb")
            );
        }
    }

    #[test]
    fn a_failure_inside_a_good_answer_is_seen() {
        assert_eq!(read(PUSHED, 64).error(), None);
        assert_eq!(read(&format!("{PUSHED}{FAILED}"), 64).error(), Some("denied: no"));
    }

    #[test]
    fn outside_bytes_as_answer_to_a_push() {
        struct Deaf;
        impl crate::image::progress::Progress for Deaf {
            fn report(&self, _: crate::image::progress::ProgressEvent) {}
        }
        let seeds: [&[u8]; 3] = [
            b"{\"status\":\"Pushing\",\"id\":\"3f2a\",\"progressDetail\":{\"current\":1,\"total\":2}}\n",
            b"{\"errorDetail\":{\"message\":\"denied\"},\"error\":\"denied\"}\n",
            b"{\"progressDetail\":{},\"aux\":{\"Tag\":\"1\",\"Digest\":\"sha256:00\",\"Size\":736}}\n1: digest: x\n",
        ];
        crate::mutation::torment(&seeds, |bytes| {
            let mut lines = super::Lines::new(&Deaf);
            for piece in bytes.chunks(7) {
                lines.take(&bytes::Bytes::copy_from_slice(piece));
            }
            (lines.error().is_some(), lines.digest("1").is_some())
        });
    }
}
