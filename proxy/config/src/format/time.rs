//! `%START_TIME%`, `%EMIT_TIME%` and their local forms.
//!
//! The specifiers are those of the C library's `strftime`, and a few of Envoy's
//! own for fractions of a second and zones.

mod calendar;

use std::ffi::CString;
use std::time::{SystemTime, UNIX_EPOCH};

use calendar::BrokenDown;

use outrigger_types::TlsInfo;

use super::FormatContext;
use super::tls::{self, Side};
use super::value::{Value, append_number, append_padded};

/// Which time, in which zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    moment: Moment,
    local: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// When the stream began.
    Start,
    /// Now.
    Emit,
    /// Since when the peer's certificate is valid.
    ValidFrom(Side),
    /// Until when it is.
    ValidUntil(Side),
}

impl Clock {
    /// The clock of an operator; none if it is no operator about time.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (moment, local) = match name {
            "START_TIME" => (Moment::Start, false),
            "START_TIME_LOCAL" => (Moment::Start, true),
            "EMIT_TIME" => (Moment::Emit, false),
            "EMIT_TIME_LOCAL" => (Moment::Emit, true),
            name => match tls::side_of(name)? {
                (side, "PEER_CERT_V_START") => (Moment::ValidFrom(side), false),
                (side, "PEER_CERT_V_END") => (Moment::ValidUntil(side), false),
                _ => return None,
            },
        };
        Some(Self { moment, local })
    }
}

/// A compiled format of time.
#[derive(Debug)]
pub(super) struct TimeFormat(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    /// What the C library formats.
    Library(CString),
    /// Seconds since the epoch.
    Epoch,
    /// So many digits of the fraction of the second.
    Fraction(usize),
    /// The fraction without zeros at its end; one zero if there is none.
    ShortestFraction,
    /// Seconds and the shortest fraction; no point if there is none.
    ShortestSeconds,
    /// Seconds and so many digits of the fraction.
    Seconds(usize),
    /// `+hh:mm`
    Zone,
    /// `+hh:mm:ss`
    ZoneSeconds,
    /// `UTC`, where the C library would say GMT.
    Utc,
    /// `2026-11-22T23:53:30.643` in one go: every line of the default format
    /// has it.
    IsoMillis,
}

impl TimeFormat {
    /// Reads a format; an empty one is ISO 8601 with milliseconds.
    pub(super) fn parse(text: &str, clock: Clock) -> Result<Self, String> {
        if text.contains("%n") {
            return Err("Invalid header configuration. Format string contains newline.".into());
        }
        let mut builder = Builder::default();
        if text.is_empty() {
            builder.pieces.push(Piece::IsoMillis);
            builder.plain.push_str(if clock.local { "%z" } else { "Z" });
        }
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            builder.plain.push_str(&rest[..at]);
            rest = &rest[at..];
            rest = match own(rest, clock) {
                Some((piece, length)) => {
                    builder.push(piece)?;
                    &rest[length..]
                }
                None => builder.library(rest),
            };
        }
        builder.plain.push_str(rest);
        builder.finish()
    }

    /// The time of a stream.
    pub(super) fn read<'a>(&self, clock: Clock, context: &FormatContext<'a>) -> Value<'a> {
        let moment = match clock.moment {
            Moment::Start => context.info.start_wall,
            Moment::Emit => SystemTime::now(),
            Moment::ValidFrom(side) | Moment::ValidUntil(side) => {
                let session = side.session(context);
                let Some(peer) = session.and_then(TlsInfo::peer_leaf) else {
                    return Value::Missing;
                };
                match clock.moment {
                    Moment::ValidFrom(_) => peer.not_before,
                    _ => peer.not_after,
                }
            }
        };
        let mut out = Vec::with_capacity(32);
        self.append(&mut out, moment, clock.local);
        Value::Bytes(out.into())
    }

    fn append(&self, out: &mut Vec<u8>, moment: SystemTime, local: bool) {
        let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, nanos) = (since.as_secs(), since.subsec_nanos());
        let parts = BrokenDown::new(seconds, local);
        for piece in &self.0 {
            match piece {
                Piece::Library(format) => parts.append(out, format),
                Piece::Epoch => append_number(out, seconds),
                Piece::Fraction(digits) => append_fraction(out, nanos, *digits),
                Piece::ShortestFraction => append_fraction(out, nanos, shortest(nanos).max(1)),
                Piece::ShortestSeconds => {
                    append_padded(out, parts.second(), 2);
                    if nanos > 0 {
                        out.push(b'.');
                        append_fraction(out, nanos, shortest(nanos));
                    }
                }
                Piece::Seconds(digits) => {
                    append_padded(out, parts.second(), 2);
                    out.push(b'.');
                    append_fraction(out, nanos, *digits);
                }
                Piece::Zone => append_zone(out, parts.zone_offset(), false),
                Piece::ZoneSeconds => append_zone(out, parts.zone_offset(), true),
                Piece::Utc => out.extend_from_slice(b"UTC"),
                Piece::IsoMillis => append_iso(out, &parts, nanos),
            }
        }
    }
}

#[derive(Default)]
struct Builder {
    pieces: Vec<Piece>,
    /// What the C library formats, so far.
    plain: String,
}

impl Builder {
    fn push(&mut self, piece: Piece) -> Result<(), String> {
        self.flush()?;
        self.pieces.push(piece);
        Ok(())
    }

    /// Leaves one specifier (at least `%` and what follows) to the C library,
    /// and returns the rest.
    fn library<'a>(&mut self, text: &'a str) -> &'a str {
        let length = text.chars().take(2).map(char::len_utf8).sum();
        self.plain.push_str(&text[..length]);
        &text[length..]
    }

    fn flush(&mut self) -> Result<(), String> {
        if !self.plain.is_empty() {
            let format = CString::new(std::mem::take(&mut self.plain))
                .map_err(|_| "a format of time has a NUL")?;
            self.pieces.push(Piece::Library(format));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<TimeFormat, String> {
        self.flush()?;
        Ok(TimeFormat(self.pieces))
    }
}

/// A specifier that the C library does not know, and its length.
fn own(text: &str, clock: Clock) -> Option<(Piece, usize)> {
    let bytes = text.as_bytes();
    let digit = |at: usize| match bytes.get(at) {
        Some(digit @ b'1'..=b'9') => Some(usize::from(digit - b'0')),
        _ => None,
    };
    for (name, piece) in [
        ("%s", Piece::Epoch),
        ("%f", Piece::Fraction(9)),
        ("%E*f", Piece::ShortestFraction),
        ("%E*S", Piece::ShortestSeconds),
        ("%Ez", Piece::Zone),
        ("%:z", Piece::Zone),
        ("%E*z", Piece::ZoneSeconds),
        ("%::z", Piece::ZoneSeconds),
    ] {
        if text.starts_with(name) {
            return Some((piece, name.len()));
        }
    }
    let library = |format: &str, length| Some((Piece::Library(CString::new(format).ok()?), length));
    match (digit(1), bytes.get(2)) {
        (Some(digits), Some(b'f')) => return Some((Piece::Fraction(digits), 3)),
        _ if text.starts_with("%E4Y") => return library("%Y", 4),
        _ if text.starts_with("%ET") => return library("T", 3),
        _ if text.starts_with("%Z") && !clock.local => return Some((Piece::Utc, 2)),
        _ => {}
    }
    match (text.starts_with("%E"), digit(2), bytes.get(3)) {
        (true, Some(digits), Some(b'f')) => Some((Piece::Fraction(digits), 4)),
        (true, Some(digits), Some(b'S')) => Some((Piece::Seconds(digits), 4)),
        _ => None,
    }
}

/// Digits of the fraction that are not zeros at its end.
fn shortest(nanos: u32) -> usize {
    let (mut nanos, mut digits) = (nanos, 9);
    while digits > 0 && nanos.is_multiple_of(10) {
        nanos /= 10;
        digits -= 1;
    }
    digits
}

fn append_fraction(out: &mut Vec<u8>, nanos: u32, digits: usize) {
    let digits = digits.min(9);
    let scale = 10_u32.pow(9 - digits as u32);
    append_padded(out, (nanos / scale).into(), digits);
}

fn append_zone(out: &mut Vec<u8>, offset: i64, seconds: bool) {
    out.push(if offset < 0 { b'-' } else { b'+' });
    let offset = offset.unsigned_abs();
    append_padded(out, offset / 3600, 2);
    out.push(b':');
    append_padded(out, offset / 60 % 60, 2);
    if seconds {
        out.push(b':');
        append_padded(out, offset % 60, 2);
    }
}

fn append_iso(out: &mut Vec<u8>, parts: &BrokenDown, nanos: u32) {
    let fields = parts.fields();
    let separators = [b'-', b'-', b'T', b':', b':', b'.'];
    for (index, (number, separator)) in fields.into_iter().zip(separators).enumerate() {
        append_padded(out, number, if index == 0 { 4 } else { 2 });
        out.push(separator);
    }
    append_fraction(out, nanos, 3);
}
