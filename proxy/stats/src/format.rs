//! Numbers as Envoy writes them.

use std::fmt::Write;

/// The shortest text that reads back as the same number; with an exponent from 1e16 on
/// and below 1e-4.
pub(crate) fn shortest(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    let size = value.abs();
    if value == 0.0 || (1e-4..1e16).contains(&size) || size.is_infinite() {
        return value.to_string();
    }
    with_signed_exponent(&format!("{value:e}"))
}

/// The shorter of the plain form and the one with an exponent, as JSON has it.
pub(crate) fn json_number(value: f64) -> String {
    if !value.is_finite() {
        return "null".into();
    }
    let plain = value.to_string();
    let exponent = with_signed_exponent(&format!("{value:e}"));
    if exponent.len() < plain.len() {
        exponent
    } else {
        plain
    }
}

/// With `digits` significant digits and no zeros at the end, as `%g` does it.
pub(crate) fn general(value: f64, digits: usize) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value < 0.0 { "-inf" } else { "inf" }.into();
    }
    let text = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..digits as i32).contains(&exponent) {
        let places = (digits as i32 - 1 - exponent) as usize;
        return without_zeros(&format!("{value:.places$}")).to_owned();
    }
    with_signed_exponent(&format!("{}e{exponent}", without_zeros(mantissa)))
}

/// `1e5` as `1e+05`.
fn with_signed_exponent(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

fn without_zeros(text: &str) -> &str {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text,
    }
}

/// A quantile as the percentile of the text form: `99.5`.
pub(crate) fn percentile(quantile: f64) -> String {
    general(quantile * 100.0, 6)
}

/// Appends a value as a label of Prometheus has it.
pub(crate) fn escape_label(out: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

/// Appends `text` as a JSON string.
pub(crate) fn json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
