//! Flags that say how atoms are coded, as typed, and the library's options they mean.

use crate::solving::TuningArgs;
use tvb::jobs::compress::{CodingOptions, KeptEdit};
use tvb::{Error, Rate, Result, arithmetic};

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

/// `--bits`.
pub(crate) fn parse_rate(text: &str) -> Result<Rate> {
    Rate::from_name(text.trim()).ok_or_else(|| {
        let known: Vec<&str> = Rate::ALL.iter().map(|rate| rate.name()).collect();
        Error::usage(format!("bits: one of {} expected, {text:?} found", known.join(", ")))
    })
}

pub(crate) fn parse_kept(text: &str) -> Result<Kept> {
    if text == "off" { Ok(Kept(None)) } else { parse_rate(text).map(|rate| Kept(Some(rate))) }
}

impl CodingArgs {
    /// Whether anything was said.
    pub(crate) fn is_any(&self) -> bool {
        self.bits.is_some() || self.keep_sum.is_some() || !self.keep.is_empty()
    }

    /// What was meant: 2 bits and the sum kept at 3 where nothing was said.
    pub(crate) fn options(&self, names: &[String], tuning: &TuningArgs) -> Result<CodingOptions> {
        let default = CodingOptions::default();
        let mut kept = Vec::new();
        let mut bits = None;
        if let Some(Kept(Some(rate))) = self.keep_sum {
            bits = Some(rate);
        }
        if self.keep_sum != Some(Kept(None)) {
            let weights: Vec<_> =
                tuning.weights.iter().map(|text| arithmetic::parse_weighted(text)).collect::<Result<_>>()?;
            kept.push(KeptEdit::sum(names, &weights)?);
        }
        for text in &self.keep {
            let (edit, own) = match text.rsplit_once(':') {
                Some((edit, own)) => (edit, Some(parse_rate(own)?)),
                None => (text.as_str(), None),
            };
            if let (Some(bits), Some(own)) = (bits, own)
                && bits != own
            {
                return Err(Error::usage(format!(
                    "--keep: the same bits for all that is kept expected, {} and {} found",
                    bits.name(),
                    own.name()
                ))
                .hint("give the same bits to --keep-sum and every --keep"));
            }
            bits = bits.or(own);
            kept.push(KeptEdit::expression(names, edit)?);
        }
        let kept_rate = if kept.is_empty() { None } else { bits.or(default.rung.kept_rate) };
        let rate = self.bits.unwrap_or(default.rung.rate);
        Ok(default.bits(rate).keep_bits(kept_rate).keep(kept).seed(tuning.seed.unwrap_or(0)))
    }
}
