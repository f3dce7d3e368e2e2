//! Packs a layer on all processors while it streams: pieces become members of one gzip file (RFC 1952, section 2.2).

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// What is packed in one go.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// A first piece that loses less than this in packing is of a layer that is sent as it is.
const WORTH_PERCENT: usize = 93;

/// How much work is spent on making a layer small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Effort(u32);

impl Effort {
    /// To a registry on this machine the bytes cost little; over a line they cost more than the packing.
    pub(super) fn to(is_loopback: bool) -> Self {
        Self(if is_loopback { 1 } else { 6 })
    }
}

/// One member. Members one after the other unpack to the pieces one after the other.
pub(super) fn member(piece: &[u8], effort: Effort) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(piece.len() / 2), Compression::new(effort.0));
    encoder.write_all(piece)?;
    Ok(Bytes::from(encoder.finish()?))
}

/// Whether a layer that begins so is worth packing.
pub(super) fn is_worth(piece: &[u8], effort: Effort) -> bool {
    member(piece, effort).is_ok_and(|packed| packed.len() * 100 < piece.len() * WORTH_PERCENT)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::MultiGzDecoder;

    use super::{Effort, is_worth, member};

    #[test]
    fn members_unpack_to_the_whole() {
        let pieces: [&[u8]; 3] = [b"one ", b"", b"three"];
        let effort = Effort::to(true);
        let packed: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| member(piece, effort).expect("packed"))
            .collect();
        let mut unpacked = String::new();
        MultiGzDecoder::new(packed.as_slice())
            .read_to_string(&mut unpacked)
            .expect("unpacked");
        assert_eq!(unpacked, "one three");
    }

    #[test]
    fn what_does_not_shrink_is_sent_as_it_is() {
        let mut noise = vec![0_u8; 1 << 16];
        rand::fill(&mut noise);
        assert!(!is_worth(&noise, Effort::to(true)));
        assert!(is_worth(&vec![b'a'; 1 << 16], Effort::to(false)));
        assert!(!is_worth(b"", Effort::to(true)));
    }
}
