//! Where the table goes: redrawn in place on a terminal, now and then in plain output.

use std::io::{IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

/// Between two tables in plain output.
const PLAIN_PAUSE: Duration = Duration::from_secs(5);
/// Lines of the table longer than this are cut on a terminal: one that wraps could not be redrawn in place.
const TERMINAL_WIDTH: usize = 110;

/// Standard output.
#[derive(Debug)]
pub struct Screen {
    terminal: bool,
    /// Lines of the table that stands on the terminal.
    drawn: usize,
    /// When plain output had its last table.
    last_plain: Instant,
}

impl Screen {
    /// A terminal if standard output is one, unless plain output is asked for.
    pub fn new(plain: bool) -> Self {
        Self {
            terminal: !plain && stdout().is_terminal(),
            drawn: 0,
            last_plain: Instant::now(),
        }
    }

    /// Shows the table.
    pub fn table(&mut self, lines: &[String]) {
        if self.terminal {
            let text = redraw(self.drawn, lines);
            self.drawn = lines.len();
            write(&text);
        } else if self.last_plain.elapsed() >= PLAIN_PAUSE {
            self.table_now(lines);
        }
    }

    /// Shows the table even if plain output has had one a moment ago.
    pub fn table_now(&mut self, lines: &[String]) {
        if self.terminal {
            return self.table(lines);
        }
        self.last_plain = Instant::now();
        write(&format!("\n{}\n\n", lines.join("\n")));
    }

    /// Shows a table that stays: what comes next goes below it.
    pub fn last_table(&mut self, lines: &[String]) {
        self.table_now(lines);
        self.drawn = 0;
    }

    /// Prints a line that stays.
    pub fn event(&mut self, line: &str) {
        let clear = if self.drawn > 0 {
            up_and_clear(self.drawn)
        } else {
            String::new()
        };
        self.drawn = 0;
        write(&format!("{clear}{line}\n"));
    }
}

/// A reader that has gone away is no reason to leave processes behind: output is then lost.
fn write(text: &str) {
    let mut out = stdout().lock();
    let _lost = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Back to the table's first line, and everything below it cleared.
fn up_and_clear(lines: usize) -> String {
    format!("\x1b[{lines}A\x1b[J")
}

fn redraw(drawn: usize, lines: &[String]) -> String {
    let mut text = if drawn > 0 {
        up_and_clear(drawn)
    } else {
        String::new()
    };
    for line in lines {
        text.extend(line.chars().take(TERMINAL_WIDTH));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redraws_over_what_stands_there() {
        let lines = ["a".to_owned(), "b".repeat(300)];
        assert_eq!(redraw(0, &lines[..1]), "a\n");
        let again = redraw(2, &lines);
        assert!(again.starts_with("\x1b[2A\x1b[Ja\n"));
        assert_eq!(again.lines().last().unwrap().len(), TERMINAL_WIDTH);
    }
}
