//! Progress: bars on a terminal, plain lines elsewhere. Work on an image and steps of an operation share it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{DecimalBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::image::progress::{Progress, ProgressEvent};

/// A part that takes long says how far it is this often where there are no bars.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Draws progress, or writes it as lines, or is quiet.
#[derive(Debug)]
pub struct Reporter {
    way: Way,
    parts: Mutex<BTreeMap<String, Part>>,
}

#[derive(Debug)]
enum Way {
    Bars(MultiProgress),
    Lines,
    Quiet,
}

#[derive(Debug)]
struct Part {
    label: String,
    total: Option<u64>,
    said: Instant,
    bar: Option<ProgressBar>,
}

impl Reporter {
    /// Bars on a terminal, lines elsewhere.
    #[must_use]
    pub fn new(quiet: bool, terminal: bool) -> Self {
        let way = match (quiet, terminal) {
            (true, _) => Way::Quiet,
            (false, true) => Way::Bars(MultiProgress::with_draw_target(ProgressDrawTarget::stderr())),
            (false, false) => Way::Lines,
        };
        Self {
            way,
            parts: Mutex::new(BTreeMap::new()),
        }
    }

    /// Runs `write` while no bar is in its way.
    pub fn suspend<R>(&self, write: impl FnOnce() -> R) -> R {
        match &self.way {
            Way::Bars(bars) => bars.suspend(write),
            Way::Lines | Way::Quiet => write(),
        }
    }

    /// Takes every bar off the terminal.
    pub fn clear(&self) {
        for (_, part) in std::mem::take(&mut *self.parts()) {
            if let Some(bar) = part.bar {
                bar.finish_and_clear();
            }
        }
        if let Way::Bars(bars) = &self.way {
            let _ = bars.clear();
        }
    }

    /// Writes one line above the bars.
    pub fn line(&self, text: &str) {
        if matches!(self.way, Way::Quiet) {
            return;
        }
        self.suspend(|| {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        });
    }

    /// Whether there are bars.
    #[must_use]
    pub const fn draws(&self) -> bool {
        matches!(self.way, Way::Bars(_))
    }

    /// Shows that we wait for something; the text takes the place of the one before. Nothing without a terminal.
    pub fn wait(&self, id: &str, text: &str) {
        let Way::Bars(bars) = &self.way else { return };
        let mut parts = self.parts();
        let part = parts.entry(id.to_owned()).or_insert_with(|| {
            let bar = bars.add(ProgressBar::new_spinner());
            bar.enable_steady_tick(Duration::from_millis(100));
            Part {
                label: String::new(),
                total: None,
                said: Instant::now(),
                bar: Some(bar),
            }
        });
        if let Some(bar) = &part.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// Takes what [`Reporter::wait`] shows off the terminal.
    pub fn wait_over(&self, id: &str) {
        if let Some(Part { bar: Some(bar), .. }) = self.parts().remove(id) {
            bar.finish_and_clear();
        }
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<String, Part>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn started(&self, id: String, label: String, total: Option<u64>) {
        let bar = match &self.way {
            Way::Quiet => return,
            Way::Lines => {
                self.line(&label);
                None
            }
            Way::Bars(bars) => {
                let bar = bars.add(match total {
                    Some(total) => ProgressBar::new(total).with_style(bytes_style()),
                    None => ProgressBar::new_spinner(),
                });
                bar.set_message(label.clone());
                bar.enable_steady_tick(Duration::from_millis(100));
                Some(bar)
            }
        };
        self.parts().insert(
            id,
            Part {
                label,
                total,
                said: Instant::now(),
                bar,
            },
        );
    }

    fn advanced(&self, id: &str, done: u64, total: Option<u64>) {
        let mut parts = self.parts();
        let Some(part) = parts.get_mut(id) else { return };
        if let (Some(_), None, Some(bar)) = (total, part.total, &part.bar) {
            bar.set_style(bytes_style());
        }
        part.total = total.or(part.total);
        if let Some(bar) = &part.bar {
            if let Some(total) = part.total {
                bar.set_length(total);
            }
            bar.set_position(done);
        } else if part.said.elapsed() >= SAY_EVERY {
            part.said = Instant::now();
            let of = part
                .total
                .map(|total| format!(" of {}", DecimalBytes(total)))
                .unwrap_or_default();
            self.line(&format!("{}: {}{of}", part.label, DecimalBytes(done)));
        }
    }

    fn finished(&self, id: &str, summary: &str) {
        let Some(part) = self.parts().remove(id) else {
            return;
        };
        if let Some(bar) = part.bar {
            bar.finish_and_clear();
        }
        self.line(&format!("{}: {summary}", part.label));
    }
}

impl Progress for Reporter {
    fn report(&self, event: ProgressEvent) {
        match event {
            ProgressEvent::Started {
                id,
                label,
                total_bytes,
            } => self.started(id, label, total_bytes),
            ProgressEvent::Advanced {
                id,
                done_bytes,
                total_bytes,
            } => {
                self.advanced(&id, done_bytes, total_bytes);
            }
            ProgressEvent::Line { text, .. } => self.line(&format!("  {text}")),
            ProgressEvent::Finished { id, summary } => self.finished(&id, &summary),
        }
    }
}

fn bytes_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
