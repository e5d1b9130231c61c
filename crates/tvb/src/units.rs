//! Sizes, counts, rates and durations as people write and read them.
//!
//! Reading a size follows the GNU tools: a bare letter or an `iB` unit counts in 1024s (`512M` = `512MiB` =
//! 536,870,912 bytes), a `B` unit in 1000s (`5GB` = 5,000,000,000 bytes, the shard size of Hugging Face folders).
//! Written sizes are decimal (`1.41 GB`), as disks, links and shard sizes are, and read back as what they say.

use crate::error::{Error, Result};
use std::time::Duration;

/// Reads a size in bytes: `4096`, `512M`, `1.5GiB`, `5 GB`; letters of either case.
///
/// Fractions are exact and rounded down to a whole byte; a value that does not fit 64 bits is an error.
///
/// ```
/// # use tvb::units::parse_bytes;
/// assert_eq!(parse_bytes("512M").unwrap(), 512 << 20);
/// assert_eq!(parse_bytes("1.5GiB").unwrap(), 3 << 29);
/// assert_eq!(parse_bytes("5GB").unwrap(), 5_000_000_000);
/// ```
///
/// # Errors
/// Usage: text that is no size.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let bad =
        |why: &str| Error::usage(format!("size {text:?}: {why}")).hint("write sizes as 4096, 512M, 1.5GiB or 5GB");
    let (number, unit) = split_unit(text);
    let multiplier: u128 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(bad("unknown unit (known: K M G T, KiB MiB GiB TiB, kB MB GB TB)")),
    };
    let (whole, fraction) = parse_decimal(number).map_err(bad)?;
    if multiplier == 1 && fraction.digits > 0 {
        return Err(bad("not a whole number of bytes"));
    }
    let scaled = u128::from(whole)
        .checked_mul(multiplier)
        .and_then(|bytes| bytes.checked_add(u128::from(fraction.numerator) * multiplier / 10u128.pow(fraction.digits)));
    scaled.and_then(|bytes| u64::try_from(bytes).ok()).ok_or_else(|| bad("too large"))
}

/// A size as it may be asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// This many bytes.
    Bytes(u64),
    /// This many hundredths of a whole that is known later.
    Percent(f64),
}

impl Amount {
    /// In bytes, rounded down, where the whole has this many.
    pub fn of(self, whole_bytes: u64) -> u64 {
        match self {
            Amount::Bytes(bytes) => bytes,
            Amount::Percent(percent) => (percent * whole_bytes as f64 / 100.0) as u64,
        }
    }
}

/// Reads a size in bytes, or a share such as `6%` or `7.5%`.
///
/// ```
/// # use tvb::units::{Amount, parse_amount};
/// assert_eq!(parse_amount("500M").unwrap(), Amount::Bytes(500 << 20));
/// assert_eq!(parse_amount("6%").unwrap().of(1_000), 60);
/// ```
///
/// # Errors
/// Usage: text that is neither, or a share of nothing.
pub fn parse_amount(text: &str) -> Result<Amount> {
    let Some(number) = text.trim().strip_suffix('%') else {
        return parse_bytes(text).map(Amount::Bytes).map_err(|error| error.hint("write 4096, 512M, 5GB or 6%"));
    };
    let bad = |why: &str| Error::usage(format!("share {text:?}: {why}")).hint("write shares as 6% or 7.5%");
    let (whole, fraction) = parse_decimal(number.trim_end()).map_err(bad)?;
    let percent = whole as f64 + fraction.numerator as f64 / 10f64.powi(fraction.digits as i32);
    if percent > 0.0 { Ok(Amount::Percent(percent)) } else { Err(bad("more than nothing expected")) }
}

/// Reads a duration: `90` (seconds), `500ms`, `2.5s`, `5m`, `1h30m`.
///
/// ```
/// # use std::time::Duration;
/// # use tvb::units::parse_duration;
/// assert_eq!(parse_duration("1h30m").unwrap(), Duration::from_secs(5_400));
/// assert_eq!(parse_duration("500ms").unwrap(), Duration::from_millis(500));
/// ```
///
/// # Errors
/// Usage: text that is no duration.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let bad =
        |why: &str| Error::usage(format!("duration {text:?}: {why}")).hint("write durations as 90, 500ms, 5m or 1h30m");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad("no number"));
    }
    let mut total_ns: u128 = 0;
    let mut is_first = true;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let unit_ns: u128 = match unit {
            "" if is_first && tail.is_empty() => 1_000_000_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" | "min" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(bad("unknown unit (known: ms, s, m, h)")),
        };
        let (whole, fraction) = parse_decimal(number).map_err(bad)?;
        let part_ns =
            u128::from(whole) * unit_ns + u128::from(fraction.numerator) * unit_ns / 10u128.pow(fraction.digits);
        total_ns = total_ns.checked_add(part_ns).ok_or_else(|| bad("too long"))?;
        rest = tail;
        is_first = false;
    }
    let seconds = u64::try_from(total_ns / 1_000_000_000).map_err(|_| bad("too long"))?;
    Ok(Duration::new(seconds, (total_ns % 1_000_000_000) as u32))
}

/// A size in bytes with three digits and a decimal unit: `999 B`, `1.41 GB`.
///
/// ```
/// assert_eq!(tvb::units::bytes(1_406_000_000), "1.41 GB");
/// ```
pub fn bytes(n_bytes: u64) -> String {
    scaled(n_bytes as f64, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// Bytes over a time as `1.41 GB/s`; `-` where no time has passed.
pub fn rate(n_bytes: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    if seconds == 0.0 {
        return "-".into();
    }
    format!("{}/s", scaled(n_bytes as f64 / seconds, &["B", "kB", "MB", "GB", "TB", "PB", "EB"]))
}

/// A count with its thousands apart: `87,849,216`.
///
/// ```
/// assert_eq!(tvb::units::count(87_849_216), "87,849,216");
/// ```
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A duration as short as it stays useful: `4 ms`, `12.3 s`, `4m05s`, `2h03m`.
///
/// ```
/// # use std::time::Duration;
/// assert_eq!(tvb::units::duration(Duration::from_millis(12_340)), "12.3 s");
/// ```
pub fn duration(elapsed: Duration) -> String {
    let ms = elapsed.as_millis();
    let seconds = (elapsed.as_secs_f64() + 0.5).floor() as u64;
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..59_950 => format!("{:.1} s", elapsed.as_secs_f64()),
        _ if seconds < 3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", (seconds + 30) / 3_600, (seconds + 30) % 3_600 / 60),
    }
}

/// A number and the letters after it, both without surrounding blanks.
fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let number_len = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_len);
    (number, unit.trim_start())
}

/// The part of a decimal number after the point: numerator / 10^digits.
struct Fraction {
    numerator: u64,
    digits: u32,
}

/// Digits after the point that still count; 10^15 times the largest unit stays far below 2^128.
const MAX_FRACTION_DIGITS: usize = 15;

/// `12.5` as whole part and fraction, exactly; what is wrong with it otherwise.
fn parse_decimal(number: &str) -> Result<(u64, Fraction), &'static str> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !is_digits(whole) || !is_digits(fraction) {
        return Err("no number");
    }
    // Digits only, so every place is between two of them.
    let kept = fraction.get(..MAX_FRACTION_DIGITS).unwrap_or(fraction);
    let whole = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| "too large")? };
    let numerator = if kept.is_empty() { 0 } else { kept.parse().map_err(|_| "too large")? };
    Ok((whole, Fraction { numerator, digits: kept.len() as u32 }))
}

/// Three significant digits and the unit, stepping up by 1000 where rounding would need a fourth digit.
fn scaled(value: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1_000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", units.get(unit).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn sizes_are_read_exactly() {
        let cases: &[(&str, Option<u64>)] = &[
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("4096B", Some(4096)),
            ("1k", Some(1024)),
            ("512M", Some(512 << 20)),
            ("512m", Some(512 << 20)),
            ("1.5GiB", Some(3 << 29)),
            (" 5 GB ", Some(5_000_000_000)),
            ("5kB", Some(5_000)),
            (".5K", Some(512)),
            ("2.T", Some(2 << 40)),
            ("0.0000000000000000001T", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("16777216T", None),
            ("16777215.999T", Some(18_446_744_072_610_039_988)),
            ("1.5", None),
            ("", None),
            (".", None),
            ("G", None),
            ("-1G", None),
            ("1e9", None),
            ("1.2.3M", None),
            ("5Q", None),
            ("１K", None),
        ];
        for &(text, expected) in cases {
            match (parse_bytes(text), expected) {
                (Ok(found), Some(expected)) => assert_eq!(found, expected, "{text:?}"),
                (Err(error), None) => assert_eq!(error.kind(), ErrorKind::Usage, "{text:?}"),
                (found, expected) => panic!("{text:?}: found {found:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn amounts_are_sizes_or_shares() {
        let cases: &[(&str, Option<Amount>)] = &[
            ("500M", Some(Amount::Bytes(500 << 20))),
            ("6%", Some(Amount::Percent(6.0))),
            (" 7.5 % ", Some(Amount::Percent(7.5))),
            (".5%", Some(Amount::Percent(0.5))),
            ("150%", Some(Amount::Percent(150.0))),
            ("0%", None),
            ("%", None),
            ("-6%", None),
            ("6%%", None),
            ("6M%", None),
            ("nan%", None),
            ("", None),
        ];
        for &(text, expected) in cases {
            match (parse_amount(text), expected) {
                (Ok(found), Some(expected)) => assert_eq!(found, expected, "{text:?}"),
                (Err(error), None) => assert_eq!(error.kind(), ErrorKind::Usage, "{text:?}"),
                (found, expected) => panic!("{text:?}: found {found:?}, expected {expected:?}"),
            }
        }
        assert_eq!((Amount::Percent(50.0).of(u64::MAX), Amount::Percent(9e9).of(u64::MAX)), (1 << 63, u64::MAX));
        assert_eq!(Amount::Bytes(7).of(1), 7);
    }

    #[test]
    fn durations_are_read_exactly() {
        let cases: &[(&str, Option<u64>)] = &[
            ("90", Some(90_000)),
            ("1.5", Some(1_500)),
            ("500ms", Some(500)),
            ("2.5s", Some(2_500)),
            ("5m", Some(300_000)),
            ("1h30m", Some(5_400_000)),
            ("1h2m3s4ms", Some(3_723_004)),
            ("", None),
            ("s", None),
            ("1h30", None),
            ("5d", None),
            ("-5s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ];
        for &(text, expected_ms) in cases {
            let found = parse_duration(text).ok();
            assert_eq!(found, expected_ms.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn written_forms() {
        let sizes: &[(u64, &str)] = &[
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (9_994, "9.99 kB"),
            (9_996, "10.0 kB"),
            (99_960, "100 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (1_406_000_000, "1.41 GB"),
            (u64::MAX, "18.4 EB"),
        ];
        for &(n_bytes, expected) in sizes {
            assert_eq!(bytes(n_bytes), expected);
        }
        let counts: &[(u64, &str)] = &[(0, "0"), (999, "999"), (1_000, "1,000"), (87_849_216, "87,849,216")];
        for &(n, expected) in counts {
            assert_eq!(count(n), expected);
        }
        let durations: &[(u64, &str)] = &[
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (59_949, "59.9 s"),
            (59_960, "1m00s"),
            (245_000, "4m05s"),
            (3_599_700, "1h00m"),
            (7_380_000, "2h03m"),
        ];
        for &(ms, expected) in durations {
            assert_eq!(duration(Duration::from_millis(ms)), expected, "{ms} ms");
        }
        assert_eq!(rate(3_000_000_000, Duration::from_secs(2)), "1.50 GB/s");
        assert_eq!(rate(1, Duration::ZERO), "-");
    }

    #[test]
    fn what_is_written_reads_back_within_its_three_digits() {
        for shift in 15..63 {
            let n_bytes = 0x0123_4567_89ab_cdefu64 >> shift;
            let read = parse_bytes(&bytes(n_bytes)).unwrap();
            assert!(read.abs_diff(n_bytes) <= n_bytes / 190, "{n_bytes} -> {} -> {read}", bytes(n_bytes));
        }
    }
}
