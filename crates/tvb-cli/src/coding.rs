//! Flags that say how atoms are coded, as typed, and the library's options they mean.

use crate::solving::TuningArgs;
pub(crate) use tvb::jobs::compress::parse_rate;
use tvb::jobs::compress::{CodingOptions, CodingWords};
use tvb::{Rate, Result, arithmetic};

/// How atoms are coded, as typed.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Codes")]
pub(crate) struct CodingArgs {
    /// Bits an element: 0.25, 0.5, 1, 1.6, 2, 3, 4, 5, 6 or 8 (default 2 where tasks are coded as they are)
    #[arg(long, value_name = "R", value_parser = parse_rate)]
    pub bits: Option<Rate>,
    /// Bits of the shared column that keeps the sum of all tasks exact, or off (default 3)
    #[arg(long, value_name = "BITS|off", value_parser = parse_kept)]
    pub keep_sum: Option<Kept>,
    /// An expression that is kept too, such as 'a + b'; `'a + b:4'` stores what is kept at 4 bits
    #[arg(long, value_name = "EXPR[:BITS]")]
    pub keep: Vec<String>,
}

/// `--keep-sum`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept(pub(crate) Option<Rate>);

/// BITS or off.
pub(crate) fn parse_kept(text: &str) -> Result<Kept> {
    if text == "off" { Ok(Kept(None)) } else { parse_rate(text).map(|rate| Kept(Some(rate))) }
}

impl CodingArgs {
    fn words(&self) -> CodingWords {
        CodingWords { bits: self.bits, keep_sum: self.keep_sum.map(|Kept(bits)| bits), keep: self.keep.clone() }
    }

    /// Whether anything was said.
    pub(crate) fn is_any(&self) -> bool {
        self.words().is_any()
    }

    /// What was meant: 2 bits and the sum kept at 3 where nothing was said.
    pub(crate) fn options(&self, names: &[String], tuning: &TuningArgs) -> Result<CodingOptions> {
        let weights: Vec<_> =
            tuning.weights.iter().map(|text| arithmetic::parse_weighted(text)).collect::<Result<_>>()?;
        self.words().options(names, &weights, tuning.seed.unwrap_or(0))
    }
}
