//! One wait, measured for us, for what people would use instead, and for the least work that can do it: in turn, so that
//! what else the machine does meets all of them alike.

use std::error::Error;
use std::fmt;
use std::time::Instant;

/// Whatever went wrong: the contest ends and says so.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// What a sample is, and with it whether more is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    MegabytesPerSecond,
    PerSecond,
    Megabytes,
}

/// Whose samples they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Ours,
    /// What a person would use instead.
    Baseline,
    /// The least work that can do it.
    Floor,
    /// Shown for comparison; no goal is about it.
    Beside,
}

/// What has to hold between our median and that of another.
#[derive(Clone, Debug)]
pub(crate) struct Goal {
    /// The contender that is compared with.
    pub(crate) against: String,
    pub(crate) ratio: f64,
}

type Work<'a> = Box<dyn FnMut() -> Outcome<f64> + 'a>;

struct Contender<'a> {
    name: String,
    role: Role,
    work: Work<'a>,
    samples: Vec<f64>,
}

/// A wait and those who take part in measuring it.
pub(crate) struct Contest<'a> {
    /// What the contest is called on the command line's report and in the document.
    title: String,
    unit: Unit,
    contenders: Vec<Contender<'a>>,
    goals: Vec<Goal>,
    notes: Vec<String>,
}

impl<'a> Contest<'a> {
    pub(crate) fn new(title: impl Into<String>, unit: Unit) -> Self {
        Self {
            title: title.into(),
            unit,
            contenders: Vec::new(),
            goals: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Whoever takes part; the work gives one sample in the contest's unit each time.
    pub(crate) fn with(
        mut self,
        role: Role,
        name: impl Into<String>,
        work: impl FnMut() -> Outcome<f64> + 'a,
    ) -> Self {
        self.contenders.push(Contender {
            name: name.into(),
            role,
            work: Box::new(work),
            samples: Vec::new(),
        });
        self
    }

    /// Whoever takes part, timed from outside in seconds.
    pub(crate) fn timed(
        self,
        role: Role,
        name: impl Into<String>,
        mut work: impl FnMut() -> Outcome<()> + 'a,
    ) -> Self {
        self.with(role, name, move || {
            let begun = Instant::now();
            work()?;
            Ok(begun.elapsed().as_secs_f64())
        })
    }

    /// At most this ratio to the other where less is better, at least where more is.
    pub(crate) fn goal(mut self, against: impl Into<String>, ratio: f64) -> Self {
        let against = against.into();
        self.goals.push(Goal { against, ratio });
        self
    }

    /// A sentence under the table: what bounds the figure, or how it was made.
    pub(crate) fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// Everybody in turn, each round beginning with the next one; the first round warms up and is not counted.
    pub(crate) fn run(mut self, rounds: usize) -> Outcome<Measured> {
        let before = load();
        let count = self.contenders.len();
        for round in 0..=rounds {
            for place in 0..count {
                let contender = &mut self.contenders[(round + place) % count];
                let sample = (contender.work)()
                    .map_err(|error| format!("{}: {}: {error}", self.title, contender.name))?;
                if round > 0 {
                    contender.samples.push(sample);
                }
            }
        }
        Ok(Measured::new(self, rounds, before))
    }
}

/// One row of a result.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) median: f64,
    /// A quarter of the samples is below, a quarter above.
    pub(crate) quartiles: (f64, f64),
    /// Our median divided by this one, and the quartiles of the ratios of the single rounds.
    pub(crate) ratio: Option<(f64, f64, f64)>,
    pub(crate) goal: Option<f64>,
}

/// The result of a contest.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) title: String,
    pub(crate) unit: Unit,
    pub(crate) rounds: usize,
    pub(crate) rows: Vec<Row>,
    pub(crate) notes: Vec<String>,
    /// The load average of the last minute, before and after.
    pub(crate) load: (f64, f64),
}

impl Measured {
    fn new(contest: Contest<'_>, rounds: usize, before: f64) -> Self {
        let ours = contest.contenders.iter().find(|one| one.role == Role::Ours);
        let ours = ours.map(|one| one.samples.clone()).unwrap_or_default();
        let rows = contest.contenders.iter().map(|one| Row {
            name: one.name.clone(),
            role: one.role,
            median: quantile(&one.samples, 0.5),
            quartiles: (quantile(&one.samples, 0.25), quantile(&one.samples, 0.75)),
            ratio: (one.role != Role::Ours && !ours.is_empty()).then(|| ratio(&ours, &one.samples)),
            goal: contest
                .goals
                .iter()
                .find(|goal| goal.against == one.name)
                .map(|goal| goal.ratio),
        });
        Self {
            rows: rows.collect(),
            title: contest.title,
            unit: contest.unit,
            rounds,
            notes: contest.notes,
            load: (before, load()),
        }
    }

    /// Whether each goal was reached: against whom, and the answer.
    pub(crate) fn goals(&self) -> impl Iterator<Item = (&Row, bool)> {
        let at_most = matches!(self.unit, Unit::Seconds | Unit::Megabytes);
        self.rows.iter().filter_map(move |row| {
            let (goal, (ratio, ..)) = (row.goal?, row.ratio?);
            Some((row, if at_most { ratio <= goal } else { ratio >= goal }))
        })
    }
}

fn ratio(ours: &[f64], other: &[f64]) -> (f64, f64, f64) {
    let rounds: Vec<f64> = ours.iter().zip(other).map(|(ours, other)| ours / other).collect();
    let medians = quantile(ours, 0.5) / quantile(other, 0.5);
    (medians, quantile(&rounds, 0.25), quantile(&rounds, 0.75))
}

/// Between the two nearest samples, linearly.
pub(crate) fn quantile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    #[expect(clippy::cast_precision_loss, reason = "no contest has 2^52 rounds")]
    let place = last as f64 * part;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and `last`"
    )]
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * place.fract()
}

fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|one| one.parse().ok())
        .unwrap_or(f64::NAN)
}

impl Unit {
    /// The figure as a person reads it.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Seconds if value < 0.001 => format!("{:.0} µs", value * 1e6),
            Self::Seconds if value < 0.1 => format!("{:.1} ms", value * 1e3),
            Self::Seconds if value < 1.0 => format!("{:.0} ms", value * 1e3),
            Self::Seconds => format!("{value:.2} s"),
            Self::MegabytesPerSecond => format!("{value:.0} MB/s"),
            Self::PerSecond if value < 10.0 => format!("{value:.2} /s"),
            Self::PerSecond => format!("{value:.0} /s"),
            Self::Megabytes => format!("{value:.1} MB"),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Ours => "ours",
            Self::Baseline => "baseline",
            Self::Floor => "floor",
            Self::Beside => "",
        })
    }
}
