//! Medians and tables.

use std::fmt::Write;

use crate::measure::Sample;
use crate::rows::Row;

/// What every round of one subject gave on one row, or why it gave nothing.
pub type Outcome = Result<Vec<Sample>, String>;

/// A row with the outcome of each subject, in the order of the subjects.
#[derive(Debug)]
pub struct Measured {
    /// The row.
    pub row: Row,
    /// Name of the subject and what it gave; none where it cannot do this row.
    pub outcomes: Vec<(String, Option<Outcome>)>,
}

/// The name against which ratios are taken.
const REFERENCE: &str = "envoy";

/// The middle value; the mean of the two in the middle of an even number.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// Three significant digits or so.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn figure(outcome: &Option<Outcome>, index: usize) -> Option<f64> {
    let samples = outcome.as_ref()?.as_ref().ok()?;
    Some(median(samples.iter().map(|s| s.figures[index])))
}

impl Measured {
    /// The figure of the reference subject, if it was measured.
    fn reference(&self, index: usize) -> Option<f64> {
        let (_, outcome) = self.outcomes.iter().find(|(name, _)| name == REFERENCE)?;
        figure(outcome, index)
    }

    /// Whether a subject that was asked failed.
    pub fn has_failure(&self) -> bool {
        self.outcomes.iter().any(|(_, o)| matches!(o, Some(Err(_))))
    }

    /// The lines that the terminal shows for this row.
    pub fn text(&self) -> String {
        let mut out = format!("{}  ({})\n", self.row.title, self.row.name);
        for (name, outcome) in &self.outcomes {
            match outcome {
                None => {}
                Some(Err(error)) => {
                    writeln!(out, "  {name:<12} failed: {error}").unwrap_or_default()
                }
                Some(Ok(samples)) => {
                    let figures =
                        (0..self.row.figures.len()).map(|i| self.figure_text(outcome, samples, i));
                    let figures = figures.collect::<Vec<_>>().join("  ");
                    writeln!(out, "  {name:<12} {figures}{}", shares(samples)).unwrap_or_default();
                }
            }
        }
        out
    }

    fn figure_text(&self, outcome: &Option<Outcome>, samples: &[Sample], index: usize) -> String {
        let values = || samples.iter().map(|s| s.figures[index]);
        let low = values().fold(f64::INFINITY, f64::min);
        let high = values().fold(f64::NEG_INFINITY, f64::max);
        let value = figure(outcome, index).unwrap_or(f64::NAN);
        let ratio = self
            .reference(index)
            .map_or(String::new(), |r| format!("  x{:.2}", value / r));
        let unit = self.row.figures[index];
        format!(
            "{:>7} {unit} ({} to {}){ratio}",
            short(value),
            short(low),
            short(high)
        )
    }
}

/// Throughput and shares of the cores, where traffic ran.
fn shares(samples: &[Sample]) -> String {
    let rate = median(samples.iter().map(|s| s.per_second));
    if rate == 0.0 {
        return String::new();
    }
    let subject = median(samples.iter().map(|s| s.subject_share)) * 100.0;
    let load = median(samples.iter().map(|s| s.load_share)) * 100.0;
    format!(
        "  {}/s  core 0 {subject:.0} %  core 1 {load:.0} %",
        short(rate)
    )
}

/// The whole of `RESULTS.md`.
pub fn markdown(measured: &[Measured], preamble: &[String]) -> String {
    let mut out = String::from(
        "# Side by side\n\nWritten by `cargo side-by-side --write`; the method is in `benches/src/lib.rs`.\n\n",
    );
    for line in preamble {
        writeln!(out, "- {line}").unwrap_or_default();
    }
    out.push_str("\nLess is better everywhere. A ratio is to Envoy in the same run.\n\n");
    ratios_table(measured, &mut out);
    out.push_str("\n## Throughput and cores\n\nThe subject has core 0, load and backend share core 1: near 100 % there, throughput is bounded by the load.\n\n");
    cores_table(measured, &mut out);
    for (row, name, error) in failures(measured) {
        writeln!(out, "\n{row}: {name} failed: {error}").unwrap_or_default();
    }
    out
}

fn ratios_table(measured: &[Measured], out: &mut String) {
    let Some(first) = measured.first() else {
        return;
    };
    let names: Vec<_> = first
        .outcomes
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let others: Vec<_> = names
        .iter()
        .filter(|n| **n != REFERENCE)
        .map(|n| format!("{n} / {REFERENCE}"))
        .collect();
    writeln!(
        out,
        "| measure | unit | {} | {} |",
        names.join(" | "),
        others.join(" | ")
    )
    .unwrap_or_default();
    writeln!(
        out,
        "|---|---{}|",
        "|---:".repeat(names.len() + others.len())
    )
    .unwrap_or_default();
    for m in measured {
        for (index, unit) in m.row.figures.iter().enumerate() {
            let values: Vec<_> = m
                .outcomes
                .iter()
                .map(|(n, o)| (n, figure(o, index)))
                .collect();
            let cells = values.iter().map(|(_, v)| v.map_or("-".to_owned(), short));
            let ratio = |v: Option<f64>| {
                v.zip(m.reference(index))
                    .map_or("-".to_owned(), |(v, r)| format!("{:.2}", v / r))
            };
            let ratios = values
                .iter()
                .filter(|(n, _)| *n != REFERENCE)
                .map(|(_, v)| ratio(*v));
            let cells = cells.chain(ratios).collect::<Vec<_>>().join(" | ");
            writeln!(out, "| {} | {unit} | {cells} |", m.row.title).unwrap_or_default();
        }
    }
}

fn cores_table(measured: &[Measured], out: &mut String) {
    out.push_str("| measure | subject | per second | core 0 | core 1 | lowest to highest |\n|---|---|---:|---:|---:|---|\n");
    for m in measured {
        for (name, outcome) in &m.outcomes {
            let Some(Ok(samples)) = outcome else { continue };
            let mid = |f: fn(&Sample) -> f64| median(samples.iter().map(f));
            let spread = (0..m.row.figures.len()).map(|i| {
                let low = samples
                    .iter()
                    .map(|s| s.figures[i])
                    .fold(f64::INFINITY, f64::min);
                let high = samples
                    .iter()
                    .map(|s| s.figures[i])
                    .fold(f64::NEG_INFINITY, f64::max);
                format!("{} to {} {}", short(low), short(high), m.row.figures[i])
            });
            let spread = spread.collect::<Vec<_>>().join(", ");
            let (subject, load) = (
                mid(|s| s.subject_share) * 100.0,
                mid(|s| s.load_share) * 100.0,
            );
            let rate = mid(|s| s.per_second);
            let traffic = if rate > 0.0 {
                format!("{} | {subject:.0} % | {load:.0} %", short(rate))
            } else {
                "- | - | -".to_owned()
            };
            writeln!(out, "| {} | {name} | {traffic} | {spread} |", m.row.title)
                .unwrap_or_default();
        }
    }
}

fn failures(measured: &[Measured]) -> Vec<(&str, &str, &str)> {
    let mut found = Vec::new();
    for m in measured {
        for (name, outcome) in &m.outcomes {
            if let Some(Err(error)) = outcome {
                found.push((m.row.title, name.as_str(), error.as_str()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(figure: f64) -> Sample {
        Sample {
            figures: vec![figure],
            per_second: 10.0,
            subject_share: 1.0,
            load_share: 0.5,
        }
    }

    fn measured() -> Measured {
        let row = crate::rows::all().remove(0);
        let outcomes = vec![
            (
                "outrigger".to_owned(),
                Some(Ok(vec![sample(9.0), sample(10.0), sample(50.0)])),
            ),
            ("envoy".to_owned(), Some(Ok(vec![sample(40.0)]))),
            ("nginx".to_owned(), Some(Err("ended".to_owned()))),
        ];
        Measured { row, outcomes }
    }

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0]), 2.5);
        assert!(median([]).is_nan());
    }

    #[test]
    fn the_text_has_median_spread_and_ratio() {
        let text = measured().text();
        assert!(
            text.contains("10.0 CPU µs per request (9.00 to 50.0)  x0.25  10.0/s  core 0 100 %"),
            "{text}"
        );
        assert!(text.contains("nginx        failed: ended"), "{text}");
    }

    #[test]
    fn the_page_has_a_ratio_column_for_all_but_envoy() {
        let page = markdown(&[measured()], &["a machine".to_owned()]);
        assert!(
            page.contains(
                "| measure | unit | outrigger | envoy | nginx | outrigger / envoy | nginx / envoy |"
            ),
            "{page}"
        );
        assert!(
            page.contains("| CPU µs per request | 10.0 | 40.0 | - | 0.25 | - |"),
            "{page}"
        );
        assert!(page.contains("nginx failed: ended"), "{page}");
    }
}
