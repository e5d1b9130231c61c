//! How many atoms, and in which format: `-m`, `--ratio`, `--max-error`, `--max-bytes`, `--dtype`.

use clap::ValueEnum;
use std::str::FromStr;
use tvb::compress::Size;
use tvb::solve::MaxError;
use tvb::{Error, Result, units};

/// How many atoms, as typed: at most one of these.
#[derive(Clone, Debug, clap::Args)]
#[group(multiple = false)]
#[command(next_help_heading = "Size of the basis")]
pub(super) struct SizeArgs {
    /// This many atoms
    #[arg(long, short = 'm', value_name = "M")]
    atoms: Option<usize>,
    /// This share of the number of tasks, rounded up [default: 0.5]
    #[arg(long, value_name = "R")]
    ratio: Option<f64>,
    /// The fewest atoms that keep ‖τ̂−τ‖²/‖τ‖² of the worst task (or the mean over the tasks) under this
    #[arg(long, value_name = "E[:worst|:mean]")]
    max_error: Option<Target>,
    /// The most atoms whose files stay under this size together
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes)]
    max_bytes: Option<u64>,
}

impl SizeArgs {
    /// Half the number of tasks where nothing was said.
    pub(super) fn meant(&self) -> Size {
        if let Some(n_atoms) = self.atoms {
            return Size::Atoms(n_atoms);
        }
        if let Some(Target(target)) = self.max_error {
            return Size::MaxError(target);
        }
        if let Some(max_bytes) = self.max_bytes {
            return Size::MaxBytes(max_bytes);
        }
        Size::Ratio(self.ratio.unwrap_or(0.5))
    }
}

/// `--max-error`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Target(MaxError);

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (number, over) = text.split_once(':').unwrap_or((text, "worst"));
        let limit: f64 = number.trim().parse().map_err(|_| Error::usage(format!("{number:?} is no number")))?;
        if !(limit >= 0.0 && limit.is_finite()) {
            return Err(Error::usage(format!("a finite number of 0 or more expected, {limit} found")));
        }
        match over {
            "worst" => Ok(Target(MaxError::Worst(limit))),
            "mean" => Ok(Target(MaxError::Mean(limit))),
            _ => Err(Error::usage(format!("worst or mean expected after the colon, {over:?} found"))),
        }
    }
}

/// `--dtype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StoredDtype {
    F32,
    Bf16,
    F16,
}

impl StoredDtype {
    pub(super) fn meant(self) -> tvb_kernels::Dtype {
        match self {
            StoredDtype::F32 => tvb_kernels::Dtype::F32,
            StoredDtype::Bf16 => tvb_kernels::Dtype::Bf16,
            StoredDtype::F16 => tvb_kernels::Dtype::F16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let cases = [
            ("0.1", Some(MaxError::Worst(0.1))),
            ("0.1:worst", Some(MaxError::Worst(0.1))),
            ("1e-3:mean", Some(MaxError::Mean(1e-3))),
            ("0", Some(MaxError::Worst(0.0))),
            ("-0.1", None),
            ("nan", None),
            ("inf:mean", None),
            ("0.1:median", None),
            ("x", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Target>().ok().map(|target| target.0), expected, "{text:?}");
        }
    }
}
