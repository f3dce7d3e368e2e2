//! What the engine prints while it builds, from either builder: steps, their output, the image, the failure.

use std::collections::{BTreeMap, VecDeque};

use bollard::moby::buildkit::v1::{StatusResponse, Vertex};
use bollard::models::{BuildInfo, BuildInfoAux};

use crate::image::error::ImageError;
use crate::image::progress::{Progress, ProgressEvent};

/// How many lines of output an error carries.
const TAIL: usize = 30;
/// How many characters of a step are shown.
const LABEL: usize = 100;

/// Reads the engine's answer line by line.
pub(super) struct Lines<'a> {
    progress: &'a dyn Progress,
    steps: BTreeMap<String, Step>,
    /// The step that began last; the classic builder has no other.
    current: Option<String>,
    partial: String,
    image_id: Option<String>,
}

#[derive(Debug, Default)]
struct Step {
    name: String,
    has_begun: bool,
    is_done: bool,
    is_cached: bool,
    error: Option<String>,
    tail: VecDeque<String>,
    bytes: BTreeMap<String, (u64, u64)>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(progress: &'a dyn Progress) -> Self {
        Self {
            progress,
            steps: BTreeMap::new(),
            current: None,
            partial: String::new(),
            image_id: None,
        }
    }

    /// The image, once the engine has named it.
    pub(super) fn image_id(&self) -> Option<&str> {
        self.image_id.as_deref()
    }

    /// Takes one line.
    pub(super) fn take(&mut self, line: BuildInfo) {
        if let Some(text) = line.stream {
            self.partial.push_str(&text);
            while let Some((line, rest)) = self.partial.split_once('\n') {
                let line = line.to_owned();
                self.partial = rest.to_owned();
                self.classic(&plain(&line));
            }
        }
        match line.aux {
            Some(BuildInfoAux::Default(image)) => {
                if let Some(id) = image.id.filter(|id| id.starts_with("sha256:")) {
                    self.finish_current();
                    self.image_id = Some(id);
                }
            }
            Some(BuildInfoAux::BuildKit(status)) => self.buildkit(status),
            None => {}
        }
    }

    /// The failure that the engine tells of as `message`, with the step it happened in.
    pub(super) fn failure(&self, message: String) -> ImageError {
        let failed = self.steps.values().find(|step| step.error.is_some());
        let step = failed.or_else(|| self.steps.get(self.current.as_ref()?));
        let message = message.trim().trim_start_matches("failed to solve: ").to_owned();
        ImageError::BuildFailed {
            step: match step {
                Some(step) => format!("`{}`", shortened(&step.name)),
                None => "the Dockerfile".to_owned(),
            },
            message: plain(&message),
            log_tail: step
                .map(|step| step.tail.iter().cloned().collect())
                .unwrap_or_default(),
        }
    }

    fn classic(&mut self, line: &str) {
        if let Some((number, instruction)) =
            line.strip_prefix("Step ").and_then(|rest| rest.split_once(" : "))
        {
            self.finish_current();
            self.begin(&format!("step {number}"), format!("[{number}] {instruction}"));
            return;
        }
        let Some(id) = self.current.clone() else { return };
        match line.trim() {
            "---> Using cache" => {
                if let Some(step) = self.steps.get_mut(&id) {
                    step.is_cached = true;
                }
            }
            // The classic builder's own remarks: hashes of layers nobody asked for.
            text if text.starts_with("--->") || text.starts_with("Removing intermediate container ") => {}
            text if text.starts_with("Successfully built ") || text.is_empty() => {}
            _ => self.print(&id, line),
        }
    }

    fn buildkit(&mut self, status: StatusResponse) {
        for vertex in &status.vertexes {
            self.vertex(vertex);
        }
        for part in status.statuses {
            let Some(step) = self.steps.get_mut(&part.vertex) else {
                continue;
            };
            let bytes = |count: i64| u64::try_from(count).unwrap_or_default();
            step.bytes
                .insert(part.id, (bytes(part.current), bytes(part.total)));
            let done_bytes = step.bytes.values().map(|part| part.0).sum();
            let total_bytes = step.bytes.values().map(|part| part.1).sum();
            self.progress.report(ProgressEvent::Advanced {
                id: part.vertex,
                done_bytes,
                total_bytes: Some(total_bytes),
            });
        }
        for log in status.logs {
            for line in String::from_utf8_lossy(&log.msg).lines() {
                self.print(&log.vertex, &plain(line));
            }
        }
    }

    fn vertex(&mut self, vertex: &Vertex) {
        // A step is announced long before it begins.
        let has_begun = self.steps.get(&vertex.digest).is_some_and(|step| step.has_begun);
        if !has_begun && (vertex.started.is_some() || vertex.cached) {
            self.begin(&vertex.digest, vertex.name.clone());
        }
        let step = self.steps.entry(vertex.digest.clone()).or_default();
        step.name.clone_from(&vertex.name);
        step.is_cached |= vertex.cached;
        if !vertex.error.is_empty() {
            step.error = Some(vertex.error.clone());
        }
        if vertex.completed.is_some() {
            self.finish(&vertex.digest);
        }
    }

    fn begin(&mut self, id: &str, name: String) {
        self.current = Some(id.to_owned());
        if is_shown(&name) {
            self.progress.report(ProgressEvent::Started {
                id: id.to_owned(),
                label: shortened(&name),
                total_bytes: None,
            });
        }
        let step = self.steps.entry(id.to_owned()).or_default();
        step.name = name;
        step.has_begun = true;
    }

    fn finish_current(&mut self) {
        if let Some(id) = self.current.clone() {
            self.finish(&id);
        }
    }

    fn finish(&mut self, id: &str) {
        let Some(step) = self.steps.get_mut(id).filter(|step| !step.is_done) else {
            return;
        };
        step.is_done = true;
        if is_shown(&step.name) {
            let summary = match (&step.error, step.is_cached) {
                (Some(_), _) => "failed",
                (None, true) => "cached",
                (None, false) => "done",
            };
            self.progress.report(ProgressEvent::Finished {
                id: id.to_owned(),
                summary: summary.to_owned(),
            });
        }
    }

    fn print(&mut self, id: &str, line: &str) {
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        let step = self.steps.entry(id.to_owned()).or_default();
        if step.tail.len() == TAIL {
            step.tail.pop_front();
        }
        step.tail.push_back(line.to_owned());
        self.progress.report(ProgressEvent::Line {
            id: id.to_owned(),
            text: line.to_owned(),
        });
    }
}

/// Steps are numbered; what is not is an errand of the builder's own.
fn is_shown(name: &str) -> bool {
    name.starts_with('[') && !name.starts_with("[internal]")
}

/// A step in one line that is not longer than people read.
fn shortened(name: &str) -> String {
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    match name.char_indices().nth(LABEL) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
        None => name,
    }
}

/// Without colours and cursor movements; of a line that was drawn over, what is seen at the end.
fn plain(line: &str) -> String {
    let line = console::strip_ansi_codes(line.trim_end_matches(['\r', '\n'])).into_owned();
    line.rsplit('\r')
        .find(|part| !part.is_empty())
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bollard::moby::buildkit::v1::{StatusResponse, Vertex, VertexLog};
    use bollard::models::{BuildInfo, BuildInfoAux, ImageId};

    use super::{Lines, TAIL, plain};
    use crate::image::error::ImageError;
    use crate::image::progress::{Progress, ProgressEvent};

    #[derive(Default)]
    struct Seen(Mutex<Vec<String>>);

    impl Progress for Seen {
        fn report(&self, event: ProgressEvent) {
            let text = match event {
                ProgressEvent::Started { label, .. } => format!("+ {label}"),
                ProgressEvent::Advanced { done_bytes, .. } => format!("… {done_bytes}"),
                ProgressEvent::Line { text, .. } => format!("| {text}"),
                ProgressEvent::Finished { summary, .. } => format!("- {summary}"),
            };
            self.0.lock().expect("a lock").push(text);
        }
    }

    fn stream(text: &str) -> BuildInfo {
        BuildInfo {
            stream: Some(text.to_owned()),
            ..BuildInfo::default()
        }
    }

    #[test]
    fn reads_the_classic_builder() {
        let seen = Seen::default();
        let mut lines = Lines::new(&seen);
        for text in [
            "Step 1/3 : FROM scratch\n",
            " ---> \n",
            "Step 2/3 : COPY a /\n",
            " ---> Using cache\n ---> 0a1b\n",
            "Step 3/3 : RUN x",
            "\n ---> Running in 0a1b\n",
            "\u{1b}[91mhe",
            "llo\n\u{1b}[0m",
            "\n",
        ] {
            lines.take(stream(text));
        }
        assert_eq!(lines.image_id(), None);
        let aux = Some(BuildInfoAux::Default(ImageId {
            id: Some("sha256:1".to_owned()),
        }));
        lines.take(BuildInfo {
            aux,
            ..BuildInfo::default()
        });
        assert_eq!(lines.image_id(), Some("sha256:1"));
        let wanted = [
            "+ [1/3] FROM scratch",
            "- done",
            "+ [2/3] COPY a /",
            "- cached",
            "+ [3/3] RUN x",
            "| hello",
            "- done",
        ];
        assert_eq!(*seen.0.lock().expect("a lock"), wanted);
    }

    #[test]
    fn a_failure_of_the_classic_builder_names_the_last_step() {
        let seen = Seen::default();
        let mut lines = Lines::new(&seen);
        lines.take(stream("Step 1/1 : RUN make\n"));
        for number in 0..50 {
            lines.take(stream(&format!("line {number}\n")));
        }
        let error = lines.failure("The command 'make' returned a non-zero code: 2".to_owned());
        assert_eq!(
            error.to_string(),
            "the build failed at `[1/1] RUN make`: The command 'make' returned a non-zero code: 2"
        );
        let ImageError::BuildFailed { log_tail, .. } = error else {
            panic!("another error")
        };
        assert_eq!(
            (log_tail.len(), log_tail.last().map(String::as_str)),
            (TAIL, Some("line 49"))
        );
    }

    #[test]
    fn a_failure_of_buildkit_names_the_step_with_the_error() {
        let seen = Seen::default();
        let mut lines = Lines::new(&seen);
        let vertex = |digest: &str, name: &str, error: &str| Vertex {
            digest: digest.to_owned(),
            name: name.to_owned(),
            error: error.to_owned(),
            started: Some(Default::default()),
            completed: Some(Default::default()),
            ..Vertex::default()
        };
        let log = VertexLog {
            vertex: "b".to_owned(),
            msg: b"one\ntwo\n".to_vec(),
            ..VertexLog::default()
        };
        let status = StatusResponse {
            vertexes: vec![
                Vertex {
                    started: None,
                    completed: None,
                    ..vertex("b", "[2/3] RUN make", "")
                },
                vertex("a", "[internal] load build definition", ""),
                vertex("b", "[2/3] RUN make", "exit code: 2"),
                vertex("c", "[1/3] FROM x", ""),
            ],
            logs: vec![log],
            ..StatusResponse::default()
        };
        lines.take(BuildInfo {
            aux: Some(BuildInfoAux::BuildKit(status)),
            ..BuildInfo::default()
        });
        let error = lines.failure("failed to solve: exit code: 2".to_owned());
        assert_eq!(
            error.to_string(),
            "the build failed at `[2/3] RUN make`: exit code: 2"
        );
        let ImageError::BuildFailed { log_tail, .. } = error else {
            panic!("another error")
        };
        assert_eq!(log_tail, ["one", "two"]);
        let wanted = [
            "+ [2/3] RUN make",
            "- failed",
            "+ [1/3] FROM x",
            "- done",
            "| one",
            "| two",
        ];
        assert_eq!(*seen.0.lock().expect("a lock"), wanted);
    }

    #[test]
    fn lines_come_without_colours_and_overdrawn_parts() {
        assert_eq!(plain("\u{1b}[1;31mred\u{1b}[0m\r"), "red");
        assert_eq!(plain(" 10%\r 50%\r100%"), "100%");
    }
}
