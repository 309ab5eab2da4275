//! Two sides beside each other.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::observe::{Section, matches};

const WIDTH: usize = 78;

/// The differences of two sides, none when they agree; `differs` names the sections
/// in which they may.
///
/// The last part of the result is what `differs` names although nothing differs.
#[must_use]
pub fn compare(
    oracle: &[Section],
    subject: &[Section],
    differs: &BTreeMap<String, String>,
) -> (String, Vec<String>) {
    let mut report = String::new();
    let mut unused: Vec<&String> = differs.keys().collect();
    for title in titles(oracle, subject) {
        let left = lines(oracle, title);
        let right = lines(subject, title);
        if left == right {
            continue;
        }
        let expected: Vec<&String> = differs.keys().filter(|p| matches(p, title)).collect();
        if expected.is_empty() {
            side_by_side(title, left, right, &mut report);
        } else {
            unused.retain(|pattern| !expected.contains(pattern));
        }
    }
    (report, unused.into_iter().cloned().collect())
}

/// All that one side showed, to read while a case is written.
#[must_use]
pub fn show(side: &[Section]) -> String {
    let mut out = String::new();
    for section in side {
        writeln!(
            out,
            "{}\n    {}",
            section.title,
            section.lines.join("\n    ")
        )
        .ok();
    }
    out
}

/// Titles of both in the order of the first, those of the second alone at the end.
fn titles<'a>(oracle: &'a [Section], subject: &'a [Section]) -> Vec<&'a str> {
    let mut out: Vec<&str> = Vec::new();
    for section in oracle.iter().chain(subject) {
        if !out.contains(&section.title.as_str()) {
            out.push(&section.title);
        }
    }
    out
}

fn lines<'a>(sections: &'a [Section], title: &str) -> &'a [String] {
    let found = sections.iter().find(|s| s.title == title);
    found.map_or(&[], |s| s.lines.as_slice())
}

/// Prints the lines of a section in two columns, those that differ marked.
fn side_by_side(title: &str, left: &[String], right: &[String], out: &mut String) {
    writeln!(out, "  {title}").ok();
    writeln!(out, "      {:WIDTH$} | outrigger", "envoy").ok();
    let long = left.len() + right.len() > 24;
    for (l, r) in align(left, right) {
        if l == r && long {
            continue;
        }
        let mark = if l == r { ' ' } else { '!' };
        let (l, r) = (l.map_or("", String::as_str), r.map_or("", String::as_str));
        let mut rows_left = wrap(l).into_iter();
        let mut rows_right = wrap(r).into_iter();
        loop {
            match (rows_left.next(), rows_right.next()) {
                (None, None) => break,
                (l, r) => {
                    let (l, r) = (l.unwrap_or_default(), r.unwrap_or_default());
                    writeln!(out, "    {mark} {l:WIDTH$} | {r}").ok();
                }
            }
        }
    }
}

fn wrap(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars
        .chunks(WIDTH)
        .map(|row| row.iter().collect())
        .collect()
}

type Row<'a> = (Option<&'a String>, Option<&'a String>);

/// Pairs equal lines in order (longest common subsequence) and puts the others beside each other.
fn align<'a>(left: &'a [String], right: &'a [String]) -> Vec<Row<'a>> {
    let mut best = vec![vec![0_usize; right.len() + 1]; left.len() + 1];
    for i in (0..left.len()).rev() {
        for j in (0..right.len()).rev() {
            best[i][j] = if left[i] == right[j] {
                best[i + 1][j + 1] + 1
            } else {
                best[i + 1][j].max(best[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut rows: Vec<Row<'a>> = Vec::new();
    let (mut only_left, mut only_right): (Vec<&String>, Vec<&String>) = (Vec::new(), Vec::new());
    while i < left.len() || j < right.len() {
        if i < left.len() && j < right.len() && left[i] == right[j] {
            flush(&mut rows, &mut only_left, &mut only_right);
            rows.push((Some(&left[i]), Some(&right[j])));
            i += 1;
            j += 1;
        } else if j == right.len() || (i < left.len() && best[i + 1][j] >= best[i][j + 1]) {
            only_left.push(&left[i]);
            i += 1;
        } else {
            only_right.push(&right[j]);
            j += 1;
        }
    }
    flush(&mut rows, &mut only_left, &mut only_right);
    rows
}

/// Puts unmatched lines beside each other, those of one name (`code=`, `date:`) first.
fn flush<'a>(rows: &mut Vec<Row<'a>>, left: &mut Vec<&'a String>, right: &mut Vec<&'a String>) {
    let name = |line: &str| line.split([':', '=']).next().unwrap_or("").to_owned();
    for l in left.drain(..) {
        let twin = right.iter().position(|r| name(r) == name(l));
        rows.push((Some(l), twin.map(|at| right.remove(at))));
    }
    rows.extend(right.drain(..).map(|r| (None, Some(r))));
}

/// Counts that may differ by a share of their sum: the difference in words, when too large.
#[must_use]
pub fn compare_tallies(
    oracle: &BTreeMap<String, usize>,
    subject: &BTreeMap<String, usize>,
    share: f64,
) -> String {
    let total: usize = oracle.values().sum();
    #[allow(clippy::cast_precision_loss, reason = "counts of a test are small")]
    let allowed = total as f64 * share;
    let mut report = String::new();
    let mut keys: Vec<&String> = oracle.keys().chain(subject.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let count = |side: &BTreeMap<String, usize>| side.get(key).copied().unwrap_or(0);
        let (left, right) = (count(oracle), count(subject));
        #[allow(clippy::cast_precision_loss, reason = "counts of a test are small")]
        let apart = left.abs_diff(right) as f64;
        if apart > allowed {
            writeln!(
                report,
                "  tally: {left} times with envoy, {right} with outrigger: {key}"
            )
            .ok();
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(title: &str, lines: &[&str]) -> Section {
        Section::new(title, lines.iter().map(|l| (*l).to_owned()).collect())
    }

    #[test]
    fn equal_sides_give_no_report() {
        let side = [section("a", &["x", "y"])];
        assert_eq!(
            compare(&side, &side, &BTreeMap::new()),
            (String::new(), Vec::new())
        );
    }

    #[test]
    fn a_missing_line_is_shown_beside_nothing() {
        let (report, _) = compare(
            &[section("a", &["x", "y", "z"])],
            &[section("a", &["x", "z"])],
            &BTreeMap::new(),
        );
        assert!(report.contains("! y "), "{report}");
        assert!(
            !report.contains("! x") && !report.contains("! z"),
            "{report}"
        );
    }

    #[test]
    fn a_section_that_differs_on_purpose_is_left_out_and_a_needless_one_reported() {
        let differs = BTreeMap::from([
            ("a".to_owned(), "reason".to_owned()),
            ("b*".to_owned(), "reason".to_owned()),
        ]);
        let (report, unused) = compare(&[section("a", &["x"])], &[section("a", &["y"])], &differs);
        assert_eq!(report, "");
        assert_eq!(unused, ["b*"]);
    }

    #[test]
    fn tallies_may_differ_by_their_share() {
        let side = |n| BTreeMap::from([("a".to_owned(), n), ("b".to_owned(), 100 - n)]);
        assert_eq!(compare_tallies(&side(50), &side(58), 0.1), "");
        assert!(compare_tallies(&side(50), &side(70), 0.1).contains("50 times"));
    }
}
