//! Sparklines: numbers in time as a row of bars, the same in a pipe and on a terminal.

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// One bar for each of `values`, the highest for `most` (or for the largest of them, when that is larger). A time in
/// which nothing was seen is a dot.
#[must_use]
pub fn sparkline(values: &[Option<f64>], most: f64) -> String {
    let most = values.iter().flatten().copied().fold(most, f64::max);
    values
        .iter()
        .map(|value| value.map_or('·', |value| bar(value, most)))
        .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of eight bars is a small number"
)]
fn bar(value: f64, most: f64) -> char {
    if most <= 0.0 || value <= 0.0 {
        return BARS[0];
    }
    let place = (value / most * 8.0).ceil() as usize;
    BARS[place.clamp(1, 8) - 1]
}

#[cfg(test)]
mod tests {
    use super::sparkline;

    #[test]
    fn bars_are_as_high_as_their_share() {
        let values = [Some(0.0), None, Some(1.0), Some(4.0), Some(8.0), Some(0.01)];
        assert_eq!(sparkline(&values, 0.0), "▁·▁▄█▁");
        assert_eq!(sparkline(&values, 16.0), "▁·▁▂▄▁");
        assert_eq!(sparkline(&[Some(0.0), Some(0.0)], 0.0), "▁▁");
        assert_eq!(sparkline(&[], 1.0), "");
    }
}
