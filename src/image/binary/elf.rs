//! As much of an ELF file as says where it runs: machine, interpreter, the versions of glibc it needs or is.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

/// No table that is looked at is larger.
const TABLE_BYTES: u64 = 16 * 1024 * 1024;
const INTERPRETER: u32 = 3;
const VERSIONS_NEEDED: u32 = 0x6fff_fffe;
const VERSIONS_DEFINED: u32 = 0x6fff_fffd;
const WEAK: u16 = 2;

/// A version of glibc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u16, pub(super) u16);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Elf {
    machine: u16,
    /// The program that loads it; absent in static programs and most libraries.
    pub(super) interpreter: Option<String>,
    needed: Vec<String>,
    defined: Vec<String>,
}

impl Elf {
    /// Reads it; nothing where the file is no little-endian ELF file, or not a whole one.
    pub(super) fn read<R: Read + Seek>(file: &mut R) -> io::Result<Option<Self>> {
        let mut ident = Vec::new();
        file.by_ref().take(64).read_to_end(&mut ident)?;
        if ident.len() < 52 || !ident.starts_with(b"\x7fELF") || ident.get(5) != Some(&1) {
            return Ok(None);
        }
        let mut reader = Reader {
            file,
            is_wide: ident.get(4) == Some(&2),
        };
        match reader.elf(&Bytes(ident)) {
            Ok(elf) => Ok(elf),
            // A file that ends before its tables do is broken in a way that is not ours to explain.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As Docker calls it; nothing for machines that Docker does not know.
    pub(super) fn architecture(&self) -> Option<&'static str> {
        Some(match self.machine {
            3 => "386",
            21 => "ppc64le",
            40 => "arm",
            62 => "amd64",
            183 => "arm64",
            243 => "riscv64",
            _ => return None,
        })
    }

    /// Where images keep the C library for this machine.
    pub(super) fn library_paths(&self) -> Vec<String> {
        let triplet = match self.machine {
            3 => "i386-linux-gnu",
            21 => "powerpc64le-linux-gnu",
            40 => "arm-linux-gnueabihf",
            183 => "aarch64-linux-gnu",
            243 => "riscv64-linux-gnu",
            _ => "x86_64-linux-gnu",
        };
        let folders = [format!("/lib/{triplet}"), format!("/usr/lib/{triplet}")];
        let plain = ["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(str::to_owned);
        folders
            .into_iter()
            .chain(plain)
            .map(|folder| format!("{folder}/libc.so.6"))
            .collect()
    }

    /// The newest version of glibc that the file cannot do without.
    pub(super) fn newest_glibc(&self) -> Option<Version> {
        self.needed.iter().filter_map(|name| version(name)).max()
    }

    /// The version of glibc that the file is.
    pub(super) fn own_glibc(&self) -> Option<Version> {
        self.defined.iter().filter_map(|name| version(name)).max()
    }
}

/// `GLIBC_2.36`, `GLIBC_2.2.5`; not `GLIBC_PRIVATE`.
fn version(name: &str) -> Option<Version> {
    if name == "GLIBC_ABI_DT_RELR" {
        return Some(Version(2, 36));
    }
    let mut numbers = name.strip_prefix("GLIBC_")?.split('.');
    Some(Version(
        numbers.next()?.parse().ok()?,
        numbers.next()?.parse().ok()?,
    ))
}

struct Reader<'a, R> {
    file: &'a mut R,
    is_wide: bool,
}

struct Table {
    kind: u32,
    offset: u64,
    size: u64,
    link: u32,
}

impl<R: Read + Seek> Reader<'_, R> {
    fn elf(&mut self, header: &Bytes) -> io::Result<Option<Elf>> {
        let Some(machine) = header.u16(0x12) else {
            return Ok(None);
        };
        let sections = self.sections(header)?;
        let mut elf = Elf {
            machine,
            interpreter: self.interpreter(header)?,
            needed: Vec::new(),
            defined: Vec::new(),
        };
        for section in &sections {
            if section.kind != VERSIONS_NEEDED && section.kind != VERSIONS_DEFINED {
                continue;
            }
            let table = self.bytes(section.offset, section.size)?;
            let Some(names) = sections.get(section.link as usize) else {
                continue;
            };
            let names = self.bytes(names.offset, names.size)?;
            if section.kind == VERSIONS_NEEDED {
                elf.needed = needed(&table, &names);
            } else {
                elf.defined = defined(&table, &names);
            }
        }
        Ok(Some(elf))
    }

    fn sections(&mut self, header: &Bytes) -> io::Result<Vec<Table>> {
        let (offset, size, count) = if self.is_wide {
            (header.u64(0x28), header.u16(0x3a), header.u16(0x3c))
        } else {
            (
                header.u32(0x20).map(u64::from),
                header.u16(0x2e),
                header.u16(0x30),
            )
        };
        let (Some(offset), Some(size), Some(count)) = (offset, size, count) else {
            return Ok(Vec::new());
        };
        let table = self.bytes(offset, u64::from(size) * u64::from(count))?;
        let section = |index: u16| {
            let at = usize::from(index) * usize::from(size);
            Some(if self.is_wide {
                Table {
                    kind: table.u32(at + 4)?,
                    offset: table.u64(at + 0x18)?,
                    size: table.u64(at + 0x20)?,
                    link: table.u32(at + 0x28)?,
                }
            } else {
                Table {
                    kind: table.u32(at + 4)?,
                    offset: u64::from(table.u32(at + 0x10)?),
                    size: u64::from(table.u32(at + 0x14)?),
                    link: table.u32(at + 0x18)?,
                }
            })
        };
        Ok((0..count).map_while(section).collect())
    }

    fn interpreter(&mut self, header: &Bytes) -> io::Result<Option<String>> {
        let (offset, size, count) = if self.is_wide {
            (header.u64(0x20), header.u16(0x36), header.u16(0x38))
        } else {
            (
                header.u32(0x1c).map(u64::from),
                header.u16(0x2a),
                header.u16(0x2c),
            )
        };
        let (Some(offset), Some(size), Some(count)) = (offset, size, count) else {
            return Ok(None);
        };
        let table = self.bytes(offset, u64::from(size) * u64::from(count))?;
        for at in (0..usize::from(count)).map(|index| index * usize::from(size)) {
            if table.u32(at) != Some(INTERPRETER) {
                continue;
            }
            let (start, length) = if self.is_wide {
                (table.u64(at + 8), table.u64(at + 0x20))
            } else {
                (
                    table.u32(at + 4).map(u64::from),
                    table.u32(at + 0x10).map(u64::from),
                )
            };
            let (Some(start), Some(length)) = (start, length) else {
                return Ok(None);
            };
            return Ok(self.bytes(start, length)?.text(0));
        }
        Ok(None)
    }

    fn bytes(&mut self, offset: u64, size: u64) -> io::Result<Bytes> {
        if size > TABLE_BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file
            .seek(SeekFrom::Start(offset))
            .map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let mut bytes = Vec::new();
        self.file.by_ref().take(size).read_to_end(&mut bytes)?;
        Ok(Bytes(bytes))
    }
}

/// Both tables are lists of lists, chained by distances; a distance of 0 ends a list.
fn needed(table: &Bytes, names: &Bytes) -> Vec<String> {
    let mut found = Vec::new();
    chain(0, |at| {
        let first = at + table.u32(at + 8)? as usize;
        chain(first, |at| {
            if table.u16(at + 4)? & WEAK == 0 {
                found.extend(names.text(table.u32(at + 8)? as usize));
            }
            table.u32(at + 12)
        });
        table.u32(at + 12)
    });
    found
}

fn defined(table: &Bytes, names: &Bytes) -> Vec<String> {
    let mut found = Vec::new();
    chain(0, |at| {
        let name = at + table.u32(at + 12)? as usize;
        found.extend(names.text(table.u32(name)? as usize));
        table.u32(at + 16)
    });
    found
}

/// Goes from one to the next until there is none. A broken table ends it too: distances only grow.
fn chain(mut at: usize, mut step: impl FnMut(usize) -> Option<u32>) {
    while let Some(distance) = step(at).filter(|distance| *distance > 0) {
        at += distance as usize;
    }
}

struct Bytes(Vec<u8>);

impl Bytes {
    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }

    fn text(&self, at: usize) -> Option<String> {
        let text = self.0.get(at..)?.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::{Elf, Version, version};

    #[test]
    fn reads_this_very_program() {
        let path = std::env::current_exe().expect("a path");
        let mut file = std::fs::File::open(path).expect("a file");
        let elf = Elf::read(&mut file).expect("readable").expect("an ELF file");
        let known = [("x86_64", "amd64"), ("aarch64", "arm64")];
        let wanted = known
            .iter()
            .find(|(rust, _)| *rust == std::env::consts::ARCH)
            .map(|(_, docker)| *docker);
        assert_eq!(elf.architecture(), wanted);
        if elf
            .interpreter
            .as_deref()
            .is_some_and(|interpreter| interpreter.contains("ld-linux"))
        {
            let library = elf
                .library_paths()
                .into_iter()
                .find(|path| std::path::Path::new(path).exists());
            let mut library = std::fs::File::open(library.expect("the C library")).expect("a file");
            let library = Elf::read(&mut library).expect("readable").expect("an ELF file");
            assert!(library.own_glibc() >= elf.newest_glibc(), "it runs");
            assert!(elf.newest_glibc() >= Some(Version(2, 17)));
        }
    }

    #[test]
    fn other_and_broken_files_are_nothing() {
        let read = |bytes: &[u8]| Elf::read(&mut Cursor::new(bytes)).expect("readable");
        assert_eq!(read(b"#!/bin/sh\n"), None);
        assert_eq!(read(b"\x7fELF"), None);
        let mut broken = b"\x7fELF\x02\x01\x01".to_vec();
        broken.resize(64, 0xff);
        assert_eq!(read(&broken), None);
        // Every cut of a real file is survived.
        let path = std::env::current_exe().expect("a path");
        let whole = std::fs::read(path).expect("a file");
        for size in [52, 63, 64, 100, 1000, 100_000, whole.len() / 2] {
            let _ = read(whole.get(..size).unwrap_or(&whole));
        }
    }

    #[test]
    fn versions_are_numbers() {
        assert_eq!(version("GLIBC_2.2.5"), Some(Version(2, 2)));
        assert!(version("GLIBC_2.10") > version("GLIBC_2.9"));
        assert_eq!(version("GLIBC_PRIVATE"), None);
        assert_eq!(version("GCC_3.0"), None);
    }

    #[test]
    fn outside_bytes_as_program() {
        let own = std::fs::read("/bin/true").expect("a program");
        let whole = own.as_slice();
        let seeds: [&[u8]; 2] = [whole, b"\x7fELF\x02\x01\x01"];
        let broken: Vec<Vec<u8>> = (0..64)
            .map(|at| {
                let mut bytes = whole[..whole.len().min(4096)].to_vec();
                bytes[at] = 0xff;
                bytes
            })
            .collect();
        let seeds: Vec<&[u8]> = seeds
            .into_iter()
            .chain(broken.iter().map(Vec::as_slice))
            .collect();
        crate::mutation::torment(&seeds, |bytes| {
            let read = super::Elf::read(&mut std::io::Cursor::new(bytes));
            read.ok()
                .flatten()
                .map(|elf| (elf.architecture(), elf.library_paths().len()))
        });
    }
}
