//! What the work on an image tells while it runs; a reporter draws it, or writes it as lines.

/// Takes what the work tells. Called often and from several threads: it must return at once.
pub trait Progress: Send + Sync {
    /// One thing that happened.
    fn report(&self, event: ProgressEvent);
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgressEvent {
    /// A part of the work began. `total` is in bytes where it is known.
    Started {
        /// Names the part until it is finished: `context`, `build`, `push`, `layer 3f2a…`.
        id: String,
        /// For people: "Sending the build context".
        label: String,
        /// How much there is, in bytes.
        total_bytes: Option<u64>,
    },
    /// A part has come so far.
    Advanced {
        /// Which part.
        id: String,
        /// How much is done, in bytes.
        done_bytes: u64,
        /// How much there is, where that became known late.
        total_bytes: Option<u64>,
    },
    /// A line that a build step printed, or a step's own headline.
    Line {
        /// Which part.
        id: String,
        /// The line, without control sequences.
        text: String,
    },
    /// A part is done.
    Finished {
        /// Which part.
        id: String,
        /// For people: "82.1 MB in 1,204 files".
        summary: String,
    },
}

/// Takes everything and tells nobody.
pub struct Silent;

impl Progress for Silent {
    fn report(&self, _event: ProgressEvent) {}
}
