//! Requests as fast as they are answered, by wrk.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;

use crate::harness::contest::Outcome;

/// What a run of wrk has found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) per_second: f64,
    /// In seconds.
    pub(crate) p99: f64,
}

/// So many connections ask one server for so many seconds, each again as soon as it is answered.
pub(crate) fn wrk(url: &str, script: &Path, (connections, seconds): (u32, u32)) -> Outcome<Load> {
    let output = Command::new("wrk")
        .args([
            "-t1",
            &format!("-c{connections}"),
            &format!("-d{seconds}s"),
            "--latency",
        ])
        .args(["--timeout", "10s", "-s"])
        .arg(script)
        .arg(url)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if let Some(line) = text
        .lines()
        .find(|line| line.contains("Non-2xx") || line.contains("Socket errors"))
    {
        return Err(format!("{url}: {}", line.trim()).into());
    }
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line.map(|rest| rest.trim().to_owned())
            .ok_or_else(|| format!("wrk says nothing of {name}: {text}"))
    };
    Ok(Load {
        per_second: field("Requests/sec:")?.parse()?,
        p99: duration(&field("99%")?)?,
    })
}

fn duration(text: &str) -> Outcome<f64> {
    let at = text
        .find(|one: char| one.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return Err(format!("`{text}` is no duration").into()),
    };
    Ok(number.parse::<f64>()? * scale)
}

/// Figures of a contest that are a contest of their own: the same runs, looked at twice.
#[derive(Debug, Default)]
pub(crate) struct Kept(RefCell<VecDeque<f64>>);

impl Kept {
    pub(crate) fn put(&self, figure: f64) {
        self.0.borrow_mut().push_back(figure);
    }

    pub(crate) fn take(&self) -> Outcome<f64> {
        self.0
            .borrow_mut()
            .pop_front()
            .ok_or_else(|| "no figure was kept".into())
    }
}
