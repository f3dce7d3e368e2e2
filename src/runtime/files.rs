//! The web folder: static files with their types, tags for caches, and no way out of the folder.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, StatusCode, header};
use tokio_util::io::ReaderStream;

/// Below `assets/` builders write names that carry a digest of the content: those never change.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// Everything else is asked for again, and answered with 304 when it is the same.
const ASK_AGAIN: &str = "no-cache";

/// Answers `GET path` from `folder`, or `None` where there is no such file.
///
/// `release` goes into the tags: images give all files one time, so length and time alone would not tell two releases apart.
pub async fn serve(folder: &Path, path: &str, headers: &HeaderMap, release: &str) -> Option<Response> {
    let relative = relative_path(path)?;
    let wanted = folder.join(&relative);
    // A link inside the folder must not lead out of it.
    let real = tokio::fs::canonicalize(&wanted).await.ok()?;
    if !real.starts_with(tokio::fs::canonicalize(folder).await.ok()?) {
        return None;
    }
    let file = tokio::fs::File::open(&real).await.ok()?;
    let metadata = file.metadata().await.ok()?;
    if !metadata.is_file() {
        return None;
    }
    let changed = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let tag = format!("W/\"{release}-{:x}-{:x}\"", metadata.len(), changed.as_nanos());
    let cache = if relative.starts_with("assets") {
        FOR_EVER
    } else {
        ASK_AGAIN
    };
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|tags| tags.split(',').any(|known| known.trim() == tag));
    let common: [(HeaderName, String); 2] = [(header::ETAG, tag), (header::CACHE_CONTROL, cache.to_owned())];
    if known {
        return Some((StatusCode::NOT_MODIFIED, common).into_response());
    }
    let own = [
        (header::CONTENT_TYPE, content_type(&real).to_owned()),
        (header::CONTENT_LENGTH, metadata.len().to_string()),
    ];
    Some((common, own, Body::from_stream(ReaderStream::new(file))).into_response())
}

/// The path below the folder that a request means; `None` for anything that could lead elsewhere or is hidden.
fn relative_path(path: &str) -> Option<PathBuf> {
    let decoded = percent_decode(path)?;
    let mut relative = PathBuf::new();
    for part in decoded.split('/').filter(|part| !part.is_empty()) {
        if part.starts_with('.') || part.contains(['\\', '\0', ':']) {
            return None;
        }
        relative.push(part);
    }
    if relative.as_os_str().is_empty() || decoded.ends_with('/') {
        relative.push("index.html");
    }
    Some(relative)
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = rest.get(2..)?;
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn content_type(path: &Path) -> &'static str {
    let end = path
        .extension()
        .map(|end| end.to_string_lossy().to_ascii_lowercase());
    match end.as_deref().unwrap_or_default() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "gif" => "image/gif",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        "xml" => "application/xml",
        "txt" | "md" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{content_type, relative_path};

    #[test]
    fn a_path_stays_inside_the_folder() {
        for path in [
            "/../secret",
            "/a/../../secret",
            "/%2e%2e/secret",
            "/a%2f..%2f..%2fsecret",
            "/.env",
            "/a/.git/config",
            "/a\\..\\b",
            "/%00",
            "/%zz",
            "/%",
            "/c:/windows",
        ] {
            assert_eq!(relative_path(path), None, "{path}");
        }
    }

    #[test]
    fn a_folder_means_its_index() {
        assert_eq!(relative_path("/").as_deref(), Some(Path::new("index.html")));
        assert_eq!(
            relative_path("/docs/").as_deref(),
            Some(Path::new("docs/index.html"))
        );
        assert_eq!(relative_path("/a%20b.css").as_deref(), Some(Path::new("a b.css")));
    }

    #[test]
    fn types_do_not_depend_on_case() {
        assert_eq!(content_type(Path::new("LOGO.SVG")), "image/svg+xml");
        assert_eq!(content_type(Path::new("none")), "application/octet-stream");
    }
}
