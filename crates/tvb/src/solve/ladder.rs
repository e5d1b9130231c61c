//! The rungs of coded task vectors: bits of the tasks' own columns together with bits of the shared one that keeps their sum.
//! The more bits a task has, the less is left for the shared column to mend, so its bits go down as theirs go up. Between them
//! they cover a twentieth to a quarter of the float32 task vectors, and each next rung costs more and loses less.

use super::assess_coded::Parts;
use super::choose::MaxError;
use super::coding::Coding;
use super::identity::as_they_are;
use super::{Coefficients, Gram, assess};
use crate::columns::coded::column_bytes;
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;
use tvb_kernels::Rate;

/// How atoms are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rung {
    /// Of the atoms' own columns.
    pub rate: Rate,
    /// Of the shared column that keeps the sum; `None` keeps nothing.
    pub kept_rate: Option<Rate>,
}

/// The rungs that a budget chooses among, the smallest first. Those below one bit cost single tasks accuracy and are taken
/// only where nothing else fits.
pub const LADDER: [Rung; 9] = [
    Rung::new(Rate::Quarter, Some(Rate::Sixteen)),
    Rung::new(Rate::Half, Some(Rate::Sixteen)),
    Rung::new(Rate::Signs, Some(Rate::Eight)),
    Rung::new(Rate::Signs, Some(Rate::Sixteen)),
    Rung::new(Rate::Three, Some(Rate::Eight)),
    Rung::new(Rate::Four, Some(Rate::Eight)),
    Rung::new(Rate::Eight, Some(Rate::Four)),
    Rung::new(Rate::Sixteen, Some(Rate::Signs)),
    Rung::new(Rate::TwoFiveSix, None),
];

impl Rung {
    /// What is used where nobody says otherwise: 2+3.
    pub const DEFAULT: Rung = Rung::new(Rate::Four, Some(Rate::Eight));

    /// These bits.
    pub const fn new(rate: Rate, kept_rate: Option<Rate>) -> Rung {
        Rung { rate, kept_rate }
    }

    /// The same for this many atoms: nothing is kept of one, whose every edit is a multiple of what is coded.
    #[must_use]
    pub fn of(self, n_atoms: usize) -> Rung {
        if n_atoms > 1 { self } else { Rung::new(self.rate, None) }
    }

    /// Bytes of `n_atoms` coded atoms over stored tensors of these shapes, one shared column among them where the sum is kept.
    pub fn bytes<S: AsRef<[usize]>>(self, n_atoms: usize, shapes: &[S]) -> u64 {
        let own = column_bytes(shapes, self.rate, true).saturating_mul(n_atoms as u64);
        let shared = self.of(n_atoms).kept_rate.map_or(0, |rate| column_bytes(shapes, rate, false));
        own.saturating_add(shared)
    }

    /// Codes the atoms of `coefficients` on this rung; edits of these weights over tasks are kept, where it keeps any.
    pub fn coding(self, coefficients: &Coefficients, kept: &[Vec<f64>], seed: u64) -> Coding {
        match self.kept_rate {
            Some(kept_rate) => Coding::keeping(self.rate, kept_rate, coefficients, kept, seed),
            None => Coding::keeping(self.rate, self.rate, coefficients, &[], seed),
        }
    }

    /// What a user must be told of it.
    pub fn warning(self) -> Option<&'static str> {
        match self.rate {
            // Shared columns are made of two kinds of lines then, and their code is of no use to the small ones.
            Rate::Quarter => {
                Some("below 1 bit: single tasks lose accuracy, and what is kept comes back a tenth too long at 4 bits")
            }
            Rate::Half => Some("below 1 bit: single tasks lose accuracy"),
            _ => None,
        }
    }
}

/// `2+3`, or `8+off` where nothing is kept.
impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}+{}", self.rate.name(), self.kept_rate.map_or("off", Rate::name)))
    }
}

/// As it is written.
impl FromStr for Rung {
    type Err = Error;

    fn from_str(text: &str) -> Result<Rung> {
        let parsed = text.split_once('+').and_then(|(own, kept)| {
            let kept_rate = match kept.trim() {
                "off" => None,
                bits => Some(Rate::from_name(bits)?),
            };
            Some(Rung::new(Rate::from_name(own.trim())?, kept_rate))
        });
        parsed.ok_or_else(|| Error::usage(format!("BITS+BITS such as 2+3 or 8+off expected, {text:?} found")))
    }
}

/// The highest rung whose bytes, as `bytes_of` says, are within `limit_bytes`.
///
/// # Errors
/// Rejected: not even the lowest is; says what that needs.
pub fn rung_for_bytes(limit_bytes: u64, bytes_of: impl Fn(Rung) -> u64, n_tasks: usize) -> Result<Rung> {
    let rungs = LADDER.map(|rung| rung.of(n_tasks));
    let fitting = rungs.into_iter().rev().find(|&rung| bytes_of(rung) <= limit_bytes);
    fitting.ok_or_else(|| {
        let [least, ..] = rungs;
        Error::rejected(format!(
            "at most {limit_bytes} bytes asked for, {} needed for the smallest codes ({least} bits)",
            bytes_of(least)
        ))
        .hint("allow more bytes; --exclude leaves tensors out, and a mixture of fewer atoms (-m) takes less")
    })
}

/// The lowest rung of at least one bit on which the tasks of `gram`, coded as they are with edits of the weights `kept`
/// \[n_kept\]\[n_tasks\] kept, are predicted to meet `target`.
///
/// # Errors
/// Usage: a target that is not a number of 0 or more. Rejected: not even the highest meets it; says what that has.
pub fn rung_for_error(gram: &Gram, parts: &Parts, kept: &[Vec<f64>], target: MaxError) -> Result<Rung> {
    target.check()?;
    let coefficients = as_they_are(gram.n_tasks());
    let sizes = parts.sizes(&coefficients);
    let exact = assess(gram, &coefficients)?;
    let mut least = f64::INFINITY;
    for rung in LADDER.into_iter().filter(|rung| rung.rate >= Rate::Signs).map(|rung| rung.of(gram.n_tasks())) {
        let assessed = exact.clone().coded(gram, &coefficients, &rung.coding(&coefficients, kept, 0), &sizes)?;
        if target.is_met(&assessed) {
            return Ok(rung);
        }
        least = target.error(&assessed);
    }
    let [.., highest] = LADDER;
    Err(Error::rejected(format!("no code reaches an error of {}: {highest} bits have {least:.1e}", target.limit()))
        .hint("allow a larger error, or store the task vectors as they are: --method identity --dtype f32"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::matrix::Matrix;

    #[test]
    fn rungs_are_written_as_they_are_read_and_cost_ever_more() {
        let names = LADDER.map(|rung| rung.to_string());
        assert_eq!(names, ["0.25+4", "0.5+4", "1+3", "1+4", "1.6+3", "2+3", "3+2", "4+1", "8+off"]);
        for rung in LADDER {
            assert_eq!(rung.to_string().parse::<Rung>().unwrap(), rung);
            assert_eq!(rung.warning().is_some(), rung.rate < Rate::Signs);
        }
        for text in ["", "2", "2+", "2+7", "9+off", "+3", "2+3+1"] {
            assert_eq!(text.parse::<Rung>().unwrap_err().kind(), ErrorKind::Usage, "{text:?}");
        }
        let shapes = [vec![64, 64], vec![64]];
        for n_tasks in 1..40 {
            let bytes = LADDER.map(|rung| rung.bytes(n_tasks, &shapes));
            // Of one task nothing is kept, and two share what is kept of them: some rungs cost the same.
            let is_sorted = |pair: &[u64]| pair[0] < pair[1] || (n_tasks <= 2 && pair[0] == pair[1]);
            assert!(bytes.windows(2).all(is_sorted), "{n_tasks}: {bytes:?}");
        }
        // 16 blocks: 34 bytes own and 130 shared each; the vector in bf16 belongs to the tasks alone.
        assert_eq!(LADDER[3].bytes(8, &shapes), 8 * (16 * 34 + 128) + 16 * 130);
        assert_eq!(LADDER[3].bytes(1, &shapes), 16 * 34 + 128);
    }

    #[test]
    fn bytes_take_the_highest_rung_that_fits() {
        let shapes = [vec![64, 64]];
        let bytes_of = |rung: Rung| rung.bytes(8, &shapes);
        for (at, rung) in LADDER.into_iter().enumerate() {
            assert_eq!(rung_for_bytes(bytes_of(rung), bytes_of, 8).unwrap(), rung);
            if at > 0 {
                assert_eq!(rung_for_bytes(bytes_of(rung) - 1, bytes_of, 8).unwrap(), LADDER[at - 1]);
            }
        }
        let least = bytes_of(LADDER[0]);
        let error = rung_for_bytes(least - 1, bytes_of, 8).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected);
        let expected =
            format!("at most {} bytes asked for, {least} needed for the smallest codes (0.25+4 bits)", least - 1);
        assert_eq!(error.message(), expected);
        assert_eq!(rung_for_bytes(u64::MAX, bytes_of, 1).unwrap().to_string(), "8+off");
        assert_eq!(rung_for_bytes(600, |rung| rung.bytes(1, &shapes), 1).unwrap().to_string(), "1+off");
    }

    #[test]
    fn errors_take_the_lowest_rung_that_passes() {
        let n = 8;
        let gram = Gram::new(Matrix::from_fn(n, n, |i, j| if i == j { 2.0 } else { 0.4 })).unwrap();
        let parts = Parts { coded: gram.matrix().clone(), raw: Matrix::zeros(n, n) };
        let found = |target| rung_for_error(&gram, &parts, &[vec![1.0; n]], target).map(|rung| rung.to_string());
        for (limit, expected) in
            [(9.0, "1+3"), (0.55, "1+3"), (0.3, "1.6+3"), (0.15, "2+3"), (0.1, "3+2"), (0.01, "4+1"), (1e-4, "8+off")]
        {
            assert_eq!(found(MaxError::Worst(limit)).unwrap(), expected, "{limit}");
            assert_eq!(found(MaxError::Mean(limit)).unwrap(), expected, "{limit}");
        }
        let error = found(MaxError::Worst(1e-6)).unwrap_err();
        assert!(error.message().contains("8+off bits have 4.1e-5"), "{error}");
        assert_eq!(found(MaxError::Mean(f64::NAN)).unwrap_err().kind(), ErrorKind::Usage);
    }
}
