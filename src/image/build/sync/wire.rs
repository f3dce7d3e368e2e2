//! The packets of `fsutil`, and what an entry of the context is in one.

use std::path::Path;

use bollard::fsutil::types::packet::PacketType;
use bollard::fsutil::types::{Packet, Stat};

use crate::image::context::{Context, Entry, EntryKind, FIXED_TIME_SECONDS};

/// Go's `fs.ModeDir` and `fs.ModeSymlink`.
const FOLDER: u32 = 1 << 31;
const LINK: u32 = 1 << 27;
const SECOND_NS: i64 = 1_000_000_000;

/// Whether all names can go into the protocol's texts.
pub(super) fn is_sendable(context: &Context) -> bool {
    context.entries().iter().all(|entry| {
        let target = match &entry.kind {
            EntryKind::Link(target) => Some(target),
            EntryKind::Folder | EntryKind::File => None,
        };
        entry.path.to_str().is_some() && target.is_none_or(|target| target.to_str().is_some())
    })
}

/// What there is. `build` stands where a time has nanoseconds.
pub(super) fn stat(entry: &Entry, build: u32, keeps_times: bool) -> Packet {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (kind, linkname, size) = match &entry.kind {
        EntryKind::Folder => (FOLDER | entry.mode, String::new(), 0),
        EntryKind::File => (entry.mode, String::new(), entry.stamp.size_bytes),
        // As the engine finds a link on its disk.
        EntryKind::Link(target) => (LINK | 0o777, text(target), target.as_os_str().len() as u64),
    };
    let seconds = if keeps_times {
        entry.stamp.modified_ns.div_euclid(SECOND_NS)
    } else {
        FIXED_TIME_SECONDS.cast_signed()
    };
    let stat = Stat {
        path: text(&entry.path),
        mode: kind,
        size: size.cast_signed(),
        mod_time: seconds.saturating_mul(SECOND_NS).saturating_add(i64::from(build)),
        linkname,
        ..Stat::default()
    };
    Packet {
        stat: Some(stat),
        ..packet(PacketType::PacketStat, 0)
    }
}

/// A packet of this kind about the entry that was told of as number `id`.
pub(super) fn packet(kind: PacketType, id: u32) -> Packet {
    Packet {
        r#type: kind.into(),
        id,
        ..Packet::default()
    }
}

/// Some bytes of a file; none mark its end.
pub(super) fn data(id: u32, data: Vec<u8>) -> Packet {
    Packet {
        data,
        ..packet(PacketType::PacketData, id)
    }
}

/// The work is over, and why.
pub(super) fn failure(text: &str) -> Packet {
    Packet {
        data: text.as_bytes().to_vec(),
        ..packet(PacketType::PacketErr, 0)
    }
}
