//! Durations, timestamps and field masks as text.

/// Longest duration: about 10,000 years, in seconds.
const MAX_DURATION: i64 = 315_576_000_000;
/// Seconds of 0001-01-01T00:00:00Z.
const MIN_TIMESTAMP: i64 = -62_135_596_800;
/// Seconds of 9999-12-31T23:59:59Z.
const MAX_TIMESTAMP: i64 = 253_402_300_799;
const SECONDS_A_DAY: i64 = 86_400;

/// Up to nine digits behind the point, as nanoseconds.
fn nanoseconds(digits: &str) -> Option<i32> {
    if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{digits:0<9}").parse().ok()
}

/// Nanoseconds with a point and three, six or nine digits; nothing for zero.
fn fraction(nanos: u32) -> String {
    match nanos {
        0 => String::new(),
        n if n % 1_000_000 == 0 => format!(".{:03}", n / 1_000_000),
        n if n % 1_000 == 0 => format!(".{:06}", n / 1_000),
        n => format!(".{n:09}"),
    }
}

/// Reads `1.5s` as seconds and nanoseconds.
pub(super) fn read_duration(text: &str) -> Option<(i64, i32)> {
    let number = text.strip_suffix('s')?;
    let (negative, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number),
    };
    let (whole, digits) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole
        .parse()
        .ok()
        .filter(|seconds| *seconds <= MAX_DURATION)?;
    let nanos = nanoseconds(digits)?;
    Some(if negative {
        (-seconds, -nanos)
    } else {
        (seconds, nanos)
    })
}

/// Writes seconds and nanoseconds as `1.500s`.
pub(super) fn write_duration(seconds: i64, nanos: i32) -> String {
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    format!(
        "{sign}{}{}s",
        seconds.unsigned_abs(),
        fraction(nanos.unsigned_abs())
    )
}

/// Days from 1970-01-01 of a date of the proleptic Gregorian calendar.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March here, so that the leap day is the last of its year.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of a count of days from 1970-01-01.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// Exactly two digits within a range.
fn two(text: &str, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
    let whole = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|number| whole && range.contains(number))
}

/// Offset from UTC in seconds of `Z`, `+01:00` or `-01:00`.
fn zone(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    Some(sign * (two(hours, 0..=23)? * 3_600 + two(minutes, 0..=59)? * 60))
}

/// Reads RFC 3339 as seconds and nanoseconds.
pub(super) fn read_timestamp(text: &str) -> Option<(i64, i32)> {
    let (date, rest) = text.split_once('T')?;
    let mut date = date.splitn(3, '-');
    let year = date.next().filter(|year| year.len() == 4)?.parse().ok()?;
    let month = two(date.next()?, 1..=12)?;
    let day = two(date.next()?, 1..=31)?;
    if date_of(days_of(year, month, day)) != (year, month, day) {
        return None;
    }
    let at = rest.find(['Z', '+', '-'])?;
    let (clock, offset) = rest.split_at(at);
    let (clock, digits) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut clock = clock.splitn(3, ':');
    let hour = two(clock.next()?, 0..=23)?;
    let minute = two(clock.next()?, 0..=59)?;
    let second = two(clock.next()?, 0..=59)?;
    let seconds = days_of(year, month, day) * SECONDS_A_DAY + hour * 3_600 + minute * 60 + second
        - zone(offset)?;
    let nanos = nanoseconds(digits)?;
    (MIN_TIMESTAMP..=MAX_TIMESTAMP)
        .contains(&seconds)
        .then_some((seconds, nanos))
}

/// Writes seconds and nanoseconds as RFC 3339 in UTC.
pub(super) fn write_timestamp(seconds: i64, nanos: i32) -> String {
    let seconds = seconds.clamp(MIN_TIMESTAMP, MAX_TIMESTAMP);
    let (year, month, day) = date_of(seconds.div_euclid(SECONDS_A_DAY));
    let clock = seconds.rem_euclid(SECONDS_A_DAY);
    let (hour, minute, second) = (clock / 3_600, clock / 60 % 60, clock % 60);
    let fraction = fraction(nanos.unsigned_abs());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Reads `user.displayName,photo` as proto paths.
pub(super) fn read_field_mask(text: &str) -> Vec<String> {
    let snake = |path: &str| {
        path.chars().fold(String::new(), |mut out, letter| {
            if letter.is_ascii_uppercase() {
                out.push('_');
            }
            out.push(letter.to_ascii_lowercase());
            out
        })
    };
    text.split(',')
        .filter(|path| !path.is_empty())
        .map(snake)
        .collect()
}

/// Writes one proto path in lowerCamelCase.
pub(super) fn write_field_mask_path(path: &str) -> String {
    let mut out = String::new();
    let mut raise = false;
    for letter in path.chars() {
        match letter {
            '_' => raise = true,
            _ if raise => {
                out.push(letter.to_ascii_uppercase());
                raise = false;
            }
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_their_sign_and_digits() {
        for (text, parts) in [
            ("15s", (15, 0)),
            ("0.250s", (0, 250_000_000)),
            ("-0.000001s", (0, -1_000)),
            ("1.000000001s", (1, 1)),
        ] {
            assert_eq!(read_duration(text), Some(parts));
            assert_eq!(write_duration(parts.0, parts.1), text);
        }
        for text in [
            "15",
            "s",
            ".5s",
            "1.0000000001s",
            "1 s",
            "315576000001s",
            "+1s",
        ] {
            assert_eq!(read_duration(text), None, "{text}");
        }
    }

    #[test]
    fn timestamps_hold_leap_days_and_zones() {
        assert_eq!(read_timestamp("1970-01-01T00:00:00Z"), Some((0, 0)));
        assert_eq!(
            read_timestamp("2024-02-29T12:00:00.5+01:00"),
            Some((1_709_204_400, 500_000_000))
        );
        assert_eq!(
            write_timestamp(1_709_204_400, 500_000_000),
            "2024-02-29T11:00:00.500Z"
        );
        assert_eq!(write_timestamp(MAX_TIMESTAMP, 0), "9999-12-31T23:59:59Z");
        for text in [
            "2023-02-29T00:00:00Z",
            "2024-01-01",
            "2024-01-01T24:00:00Z",
            "2024-1-01T00:00:00Z",
        ] {
            assert_eq!(read_timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn field_masks_change_case_both_ways() {
        assert_eq!(
            read_field_mask("userName.id,photo"),
            ["user_name.id", "photo"]
        );
        assert_eq!(write_field_mask_path("user_name.id"), "userName.id");
    }
}
