//! The grid of scales λ: `START:STOP:STEP` or a list, as exact decimals.

use crate::error::{Error, Result};

/// Points of the grid where nothing is said: 0 to 1 in steps of 0.05.
pub const DEFAULT_SCALES: &str = "0:1:0.05";
/// More points than this are a slip of the pen.
pub const MAX_SCALES: usize = 1000;
/// Scales closer together than this are one.
const RESOLUTION: f64 = 1e-9;

/// Whether two scales are the same point of a grid.
pub(super) fn is_same_scale(a: f64, b: f64) -> bool {
    (a - b).abs() <= RESOLUTION
}

/// Reads `0:1:0.05` (the end is a point too, where a step meets it) or `0.1,0.3,1`; ascending, each point once.
///
/// # Errors
/// Usage: not numbers, a step that is not positive, an end before the start, or more than [`MAX_SCALES`] points.
///
/// ```
/// # use tvb::jobs::sweep::parse_scales;
/// assert_eq!(parse_scales("0:0.3:0.1").unwrap(), [0.0, 0.1, 0.2, 0.3]);
/// assert_eq!(parse_scales("1,0.5").unwrap(), [0.5, 1.0]);
/// ```
pub fn parse_scales(text: &str) -> Result<Vec<f64>> {
    let bad = |what: String| {
        Error::usage(format!("scales {text:?}: {what}"))
            .hint("write scales as START:STOP:STEP, such as 0:1:0.05, or as a list, such as 0.3,0.5")
    };
    let number = |word: &str| match word.trim().parse::<f64>() {
        Ok(number) if number.is_finite() && number.abs() < 1e6 => Ok(number),
        _ => Err(bad(format!("a number expected, {:?} found", word.trim()))),
    };
    let mut scales: Vec<f64> = match text.split(':').collect::<Vec<_>>()[..] {
        [start, stop, step] => {
            let (start, stop, step) = (number(start)?, number(stop)?, number(step)?);
            if step < RESOLUTION * 10.0 || stop < start {
                return Err(bad("a positive step from a start to a later end expected".into()));
            }
            let n_steps = ((stop - start) / step + 1e-9).floor();
            if n_steps >= MAX_SCALES as f64 {
                return Err(bad(format!("at most {MAX_SCALES} points expected, {} found", n_steps + 1.0)));
            }
            (0..=n_steps as usize).map(|index| rounded(start + index as f64 * step)).collect()
        }
        [list] => list.split(',').map(|word| number(word).map(rounded)).collect::<Result<_>>()?,
        _ => return Err(bad("two colons or none expected".into())),
    };
    scales.sort_by(f64::total_cmp);
    scales.dedup_by(|a, b| is_same_scale(*a, *b));
    if scales.len() > MAX_SCALES {
        return Err(bad(format!("at most {MAX_SCALES} points expected, {} found", scales.len())));
    }
    Ok(scales)
}

/// The decimal that was meant: steps such as 0.05 have no exact binary form, and their sums drift.
fn rounded(scale: f64) -> f64 {
    // A negative zero would have a name of its own.
    format!("{scale:.12}").parse::<f64>().unwrap_or(scale) + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_exact_decimals() {
        let cases: [(&str, &[f64]); 6] = [
            ("0:0.35:0.05", &[0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35]),
            ("-0.1:0.1:0.1", &[-0.1, 0.0, 0.1]),
            ("0.5:0.5:1", &[0.5]),
            ("0:1:0.3", &[0.0, 0.3, 0.6, 0.9]),
            (" 1, 0.5,0.5 ", &[0.5, 1.0]),
            ("-0.0", &[0.0]),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_scales(text).unwrap(), expected, "{text}");
        }
        assert_eq!(parse_scales(DEFAULT_SCALES).unwrap().len(), 21);
        let names: Vec<String> = parse_scales("0:1:0.05").unwrap().iter().map(f64::to_string).collect();
        assert!(names.iter().all(|name| name.len() <= 4), "{names:?}");
        assert_eq!(parse_scales("-0").unwrap()[0].to_string(), "0");
    }

    #[test]
    fn what_is_no_grid_is_refused() {
        for text in
            ["", "a", "0:1", "0:1:0", "1:0:0.1", "0:1:-0.1", "0:1:nan", "0:1:1e-9", "1e300", "0:1:0.1:2", "0:10:0.001"]
        {
            assert_eq!(parse_scales(text).expect_err(text).kind(), crate::ErrorKind::Usage, "{text}");
        }
    }
}
