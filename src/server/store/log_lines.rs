//! How the lines of a chunk are written: one a line of text, many of them deflated.

use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

use crate::api::time::Time;

/// A line that is kept, without its number: that is its place in its chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptLine {
    /// When it was printed.
    pub at: Time,
    /// Whether it went to `stderr`.
    pub is_error: bool,
    /// The release that printed it; 0 where none did.
    pub release: u32,
    /// The line without its end.
    pub text: String,
}

/// Lines as a chunk holds them. Neither a line's end nor NUL, which PostgreSQL refuses, can be in a line.
#[must_use]
pub fn write(lines: &[KeptLine]) -> String {
    let mut text = String::new();
    for line in lines {
        let stream = if line.is_error { 'e' } else { 'o' };
        let clean = line.text.replace(['\n', '\0'], "\u{fffd}");
        text.push_str(&format!(
            "{}{stream}{} {clean}\n",
            line.at.as_millis(),
            line.release
        ));
    }
    text
}

/// The lines of a chunk; `None` when it is not one.
#[must_use]
pub fn read(text: &str) -> Option<Vec<KeptLine>> {
    text.split_terminator('\n').map(read_line).collect()
}

fn read_line(line: &str) -> Option<KeptLine> {
    let (head, text) = line.split_once(' ')?;
    let stream = head.find(['o', 'e'])?;
    Some(KeptLine {
        at: Time::from_millis(head[..stream].parse().ok()?),
        is_error: head[stream..].starts_with('e'),
        release: head[stream + 1..].parse().ok()?,
        text: text.to_owned(),
    })
}

/// Deflated, as text.
#[must_use]
pub fn pack(text: &str) -> String {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    // Writing into memory cannot fail.
    let _ = encoder.write_all(text.as_bytes());
    STANDARD_NO_PAD.encode(encoder.finish().unwrap_or_default())
}

/// What was packed; `None` when nothing was.
#[must_use]
pub fn unpack(packed: &str) -> Option<String> {
    let bytes = STANDARD_NO_PAD.decode(packed).ok()?;
    let mut text = String::new();
    DeflateDecoder::new(bytes.as_slice())
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::{KeptLine, pack, read, unpack, write};
    use crate::api::time::Time;

    #[test]
    fn lines_come_back_as_they_were() {
        let line = |millis, is_error, release, text: &str| KeptLine {
            at: Time::from_millis(millis),
            is_error,
            release,
            text: text.to_owned(),
        };
        let lines = vec![
            line(1_763_700_000_123, false, 3, "ready"),
            line(-5, true, 0, ""),
            line(7, false, 12, " o e 1 \u{1b}[31mred\r"),
        ];
        let text = write(&lines);
        assert_eq!(
            text,
            "1763700000123o3 ready\n-5e0 \n7o12  o e 1 \u{1b}[31mred\r\n"
        );
        assert_eq!(read(&text).as_ref(), Some(&lines));
        let packed = pack(&text);
        assert_eq!(unpack(&packed).as_deref(), Some(text.as_str()));
        assert_eq!(read("nonsense"), None);
        assert_eq!(unpack("!"), None);
    }

    #[test]
    fn what_cannot_be_kept_is_marked() {
        let line = KeptLine {
            at: Time::from_millis(1),
            is_error: false,
            release: 1,
            text: "a\0b\nc".to_owned(),
        };
        let kept = read(&write(&[line])).expect("lines");
        assert_eq!(kept[0].text, "a\u{fffd}b\u{fffd}c");
    }
}
