//! Trees of files as projects have them: nine of ten files are ignored, and lie in folders that only tools write.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use tempfile::TempDir;

use crate::harness::contest::Outcome;

/// One program of this size is in every tree, beside its small files.
pub(crate) const BINARY_BYTES: usize = 80_000_000;
/// The folders whose contents are left out.
pub(crate) const IGNORED: [&str; 3] = ["node_modules", "target", ".git"];
const PER_FOLDER: usize = 25;

/// What is in a tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Files that are sent.
    pub(crate) included: usize,
    /// Files that are left out.
    pub(crate) ignored: usize,
    /// Whether a rule brings one file of the ignored back.
    pub(crate) brings_back: bool,
}

impl Shape {
    /// This many files, of which nine of ten are left out.
    pub(crate) fn of(files: usize) -> Self {
        Self {
            included: files / 10,
            ignored: files - files / 10,
            brings_back: false,
        }
    }
}

/// Makes the tree, with a Dockerfile that takes all of it.
pub(crate) fn make(shape: Shape) -> Outcome<TempDir> {
    let folder = tempfile::Builder::new().prefix("systemprompt-tree-").tempdir()?;
    fill(folder.path(), shape)?;
    Ok(folder)
}

/// The same in a folder that is there.
pub(crate) fn fill(root: &Path, shape: Shape) -> Outcome<()> {
    let mut noise = Noise(7);
    small_files(root, "src", shape.included, &mut noise)?;
    let share = shape.ignored / IGNORED.len();
    for (index, name) in IGNORED.iter().enumerate() {
        let rest = if index == 0 {
            shape.ignored - share * IGNORED.len()
        } else {
            0
        };
        small_files(root, name, share + rest, &mut noise)?;
    }
    std::fs::create_dir_all(root.join("bin"))?;
    let mut binary = File::create(root.join("bin/app"))?;
    for _ in 0..BINARY_BYTES / 1_000_000 {
        binary.write_all(&noise.bytes(1_000_000))?;
    }
    std::fs::write(root.join("Dockerfile"), "FROM scratch\nCOPY . /app\n")?;
    rules(root, shape.brings_back)
}

/// Writes the ignore file.
pub(crate) fn rules(root: &Path, brings_back: bool) -> Outcome<()> {
    let mut rules = IGNORED.join("\n");
    if brings_back {
        rules.push_str("\n!target/d0/f0");
    }
    Ok(std::fs::write(root.join(".dockerignore"), rules)?)
}

fn small_files(root: &Path, top: &str, count: usize, noise: &mut Noise) -> Outcome<()> {
    for number in 0..count {
        let place = number / PER_FOLDER;
        // Every fourth folder is deeper, as packages are.
        let folder = match place % 4 {
            0 => root.join(top).join(format!("d{place}")),
            _ => root
                .join(top)
                .join(format!("d{}/n{}", place - place % 4, place % 4)),
        };
        if number % PER_FOLDER == 0 {
            std::fs::create_dir_all(&folder)?;
        }
        let size = noise.next() as usize % 8_000;
        let size = if top == "src" { size + 200 } else { size % 64 };
        let file = folder.join(format!("f{}", number % PER_FOLDER));
        File::create(file)?.write_all(&noise.bytes(size))?;
    }
    Ok(())
}

/// Numbers that are the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    /// Half of it can be compressed, as programs can.
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_le_bytes());
            bytes.extend_from_slice(b"text");
        }
        bytes.truncate(count);
        bytes
    }
}
