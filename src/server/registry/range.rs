//! Byte ranges: of a download (RFC 9110 section 14), and of an upload (OCI writes `0-499`, without a unit).

/// What a `Range` header asks of something that is `length` bytes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Everything: there is no range, or one that we may leave aside.
    All,
    /// Bytes `first` to `last`, both included.
    Part {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// Nothing that is there.
    Unsatisfiable,
}

/// Reads a `Range` header. Several ranges at once are answered with everything, as RFC 9110 allows.
pub(super) fn wanted(header: Option<&str>, length: u64) -> Wanted {
    let Some(range) = header.and_then(|header| header.strip_prefix("bytes=")) else {
        return Wanted::All;
    };
    let Some((first, last)) = range.trim().split_once('-') else {
        return Wanted::All;
    };
    let (first, last) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) => (first, last.min(length.saturating_sub(1))),
        (Ok(first), Err(_)) if last.is_empty() => (first, length.saturating_sub(1)),
        (Err(_), Ok(count)) if first.is_empty() && count > 0 => {
            (length.saturating_sub(count), length.saturating_sub(1))
        }
        (Err(_), Ok(0)) if first.is_empty() => return Wanted::Unsatisfiable,
        _ => return Wanted::All,
    };
    match first <= last && first < length {
        true => Wanted::Part { first, last },
        false => Wanted::Unsatisfiable,
    }
}

/// Reads the `Content-Range` of a chunk: `<first>-<last>`, some clients with `bytes ` before it.
pub(super) fn chunk(header: &str) -> Option<(u64, u64)> {
    let text = header.strip_prefix("bytes ").unwrap_or(header);
    let text = text.split_once('/').map_or(text, |(range, _)| range);
    let (first, last) = text.trim().split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    // So that its length is a number too.
    (first <= last && last - first < u64::MAX).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::{Wanted, chunk, wanted};

    #[test]
    fn ranges_of_a_download() {
        let part = |first, last| Wanted::Part { first, last };
        let cases = [
            (None, Wanted::All),
            (Some("bytes=500-1499"), part(500, 1499)),
            (Some("bytes=500-"), part(500, 2047)),
            (Some("bytes=-500"), part(1548, 2047)),
            (Some("bytes=2000-5000"), part(2000, 2047)),
            (Some("bytes=-5000"), part(0, 2047)),
            (Some("bytes=500-0"), Wanted::Unsatisfiable),
            (Some("bytes=5000-10000"), Wanted::Unsatisfiable),
            (Some("bytes=2048-"), Wanted::Unsatisfiable),
            (Some("bytes=-0"), Wanted::Unsatisfiable),
            (Some("bytes=0-1,5-6"), Wanted::All),
            (Some("bytes=x-y"), Wanted::All),
            (Some("lines=1-2"), Wanted::All),
        ];
        for (header, expected) in cases {
            assert_eq!(wanted(header, 2048), expected, "{header:?}");
        }
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn ranges_of_a_chunk() {
        assert_eq!(chunk("0-499"), Some((0, 499)));
        assert_eq!(chunk("bytes 500-999/2000"), Some((500, 999)));
        assert_eq!(chunk("9-1"), None);
        assert_eq!(chunk("-1"), None);
        assert_eq!(chunk("nonsense"), None);
    }

    #[test]
    fn a_chunk_has_a_length() {
        assert_eq!(chunk("0-18446744073709551615"), None);
        assert_eq!(chunk("1-18446744073709551615"), Some((1, u64::MAX)));
    }

    #[test]
    fn outside_bytes_as_range() {
        let seeds: [&[u8]; 6] = [
            b"bytes=0-99",
            b"bytes=500-",
            b"bytes=-500",
            b"bytes=0-0,-1",
            b"0-1023",
            b"bytes 0-1/2",
        ];
        crate::mutation::torment(&seeds, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            for length in [0, 1, 1000, u64::MAX] {
                if let Wanted::Part { first, last } = wanted(Some(&text), length) {
                    assert!(first <= last && last < length);
                }
            }
            chunk(&text).map(|(first, last)| (last - first + 1) > 0)
        });
    }
}
