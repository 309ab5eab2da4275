//! What is odd in the lines of a head and yet can be read in one way is written anew
//! before it is read: folds are joined, a bare CR is dropped from a value.

use super::options::H1Error;

/// Refuses a head with a byte that may stand nowhere in it.
pub(super) fn check_characters(head: &[u8]) -> Result<(), H1Error> {
    let control = |b: &u8| (*b < 0x20 && !matches!(b, b'\t' | b'\r' | b'\n')) || *b == 0x7f;
    match head.iter().any(control) {
        true => Err(H1Error::CHARACTERS),
        false => Ok(()),
    }
}

/// Writes the lines of fields to `out`, folds joined and bare CRs dropped from values.
/// What is odd in a name stays as it is, for the parser to refuse.
pub(super) fn fields(out: &mut Vec<u8>, lines: &[u8]) -> Result<(), H1Error> {
    let mut line = Line::default();
    let mut at = 0;
    while let [byte, rest @ ..] = &lines[at..] {
        at += 1;
        match (byte, rest) {
            (b'\r', [b'\n', ..]) => out.push(b'\r'),
            (b'\r', _) if line.in_value => line.check_cut(out, rest)?,
            (b'\n', [b' ' | b'\t', ..]) if line.in_value => {
                if out.last() == Some(&b'\r') {
                    out.pop();
                }
            }
            (b'\n', _) => {
                out.push(b'\n');
                line = Line {
                    start: out.len(),
                    ..Line::default()
                };
            }
            (b':', _) if !line.in_value => {
                line.begin_value(out);
                out.push(b':');
            }
            _ => out.push(*byte),
        }
    }
    Ok(())
}

/// Where in a line of a field.
#[derive(Default)]
struct Line {
    start: usize,
    in_value: bool,
    /// What a bare CR inside of the value leads to: a value that frames the message may
    /// not be read in two ways.
    refusal: Option<H1Error>,
}

impl Line {
    fn begin_value(&mut self, out: &[u8]) {
        self.in_value = true;
        let name = &out[self.start..];
        if name.eq_ignore_ascii_case(b"content-length") {
            self.refusal = Some(H1Error::CODEC);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.refusal = Some(H1Error::TRANSFER_ENCODING);
        }
    }

    /// Before a bare CR is dropped between `out` and `rest`.
    fn check_cut(&self, out: &[u8], rest: &[u8]) -> Result<(), H1Error> {
        let outer = |b: Option<&u8>| b.is_none_or(|b| is_blank(*b) || matches!(b, b'\r' | b'\n'));
        let at_edge = out.last() == Some(&b':') || outer(out.last()) || outer(rest.first());
        match self.refusal {
            Some(error) if !at_edge => Err(error),
            _ => Ok(()),
        }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mended(lines: &str) -> Result<String, H1Error> {
        let mut out = Vec::new();
        fields(&mut out, lines.as_bytes())?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    #[test]
    fn folds_are_joined_and_bare_crs_dropped_from_values_alone() {
        let table = [
            ("x: a\r\n b\r\n\r\n", "x: a b\r\n\r\n"),
            ("x: a\n\tb\n\n", "x: a\tb\n\n"),
            ("x: a\r\n \r\n\t \r\n b\r\n\r\n", "x: a \t  b\r\n\r\n"),
            ("x: a\rb\r\r\n\r\n", "x: ab\r\n\r\n"),
            ("x\r: a\r\n\r\n", "x\r: a\r\n\r\n"),
            ("\rx: a\r\n\r\n", "\rx: a\r\n\r\n"),
            ("x\r\n y: a\r\n\r\n", "x\r\n y: a\r\n\r\n"),
            ("content-length: \r5\r\n\r\n", "content-length: 5\r\n\r\n"),
        ];
        for (lines, expected) in table {
            assert_eq!(mended(lines).as_deref(), Ok(expected), "{lines:?}");
        }
    }

    #[test]
    fn a_bare_cr_inside_of_what_frames_a_message_is_refused() {
        let length = mended("Content-Length: 1\r5\r\n\r\n");
        assert_eq!(length, Err(H1Error::CODEC));
        let coding = mended("x: y\r\ntransfer-encoding: chun\rked\r\n\r\n");
        assert_eq!(coding, Err(H1Error::TRANSFER_ENCODING));
    }

    #[test]
    fn control_characters_are_refused() {
        assert_eq!(check_characters(b"x: a\tb\r\n"), Ok(()));
        assert_eq!(check_characters("x: \u{e9}\r\n".as_bytes()), Ok(()));
        for bad in [0, 1, 0x0b, 0x1f, 0x7f] {
            assert_eq!(check_characters(&[b'x', bad]), Err(H1Error::CHARACTERS));
        }
    }
}
