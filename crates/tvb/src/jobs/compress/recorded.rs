//! What decides a basis beside its inputs, as parts of a job record it: options with a budget replaced by what it came to.

use super::coding::{CodingOptions, KeptEdit};
use super::options::CompressOptions;
use super::size::Size;
use crate::checkpoint::Dtype;
use crate::error::{Error, Result};
use crate::ops::dtype_name;
use crate::solve::{Coordinates, MaxError, Method};
use crate::units::Amount;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The options that decide what a basis is. Where it is written, and how fast, is no part of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordedOptions {
    method: Method,
    size: RecordedSize,
    balance: bool,
    coordinates: Coordinates,
    #[serde(with = "dtype_name")]
    dtype: Dtype,
    coding: Option<RecordedCoding>,
    clip: bool,
    /// Of adapters that share spaces; such a basis is not divided, so it is only compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shared_rank: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RecordedSize {
    Atoms(usize),
    Ratio(f64),
    MeanError(f64),
    WorstError(f64),
    Bytes(u64),
    Percent(f64),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordedCoding {
    bits: String,
    /// The sum of all tasks where there is none.
    kept: Option<Vec<RecordedEdit>>,
    seed: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordedEdit {
    text: String,
    alpha: Vec<f64>,
}

impl RecordedOptions {
    /// Of options of which a budget has been replaced by what it comes to.
    pub(crate) fn of(options: &CompressOptions) -> RecordedOptions {
        let edit = |edit: &KeptEdit| RecordedEdit { text: edit.text.clone(), alpha: edit.alpha.clone() };
        RecordedOptions {
            method: options.method.clone(),
            size: match options.size {
                Size::Atoms(n_atoms) => RecordedSize::Atoms(n_atoms),
                Size::Ratio(ratio) => RecordedSize::Ratio(ratio),
                Size::MaxError(MaxError::Mean(target)) => RecordedSize::MeanError(target),
                Size::MaxError(MaxError::Worst(target)) => RecordedSize::WorstError(target),
                Size::MaxBytes(Amount::Bytes(limit)) => RecordedSize::Bytes(limit),
                Size::MaxBytes(Amount::Percent(share)) => RecordedSize::Percent(share),
            },
            balance: options.balance,
            coordinates: options.coordinates,
            dtype: options.dtype.into(),
            coding: options.coding.as_ref().map(|coding| RecordedCoding {
                bits: coding.rung.to_string(),
                kept: coding.kept.as_ref().map(|kept| kept.iter().map(edit).collect()),
                seed: coding.seed,
            }),
            clip: options.clip,
            shared_rank: options.shared_rank,
        }
    }

    /// The same options for a basis at `output`.
    ///
    /// # Errors
    /// Rejected: what no options are recorded as.
    pub(crate) fn options(&self, output: impl Into<PathBuf>) -> Result<CompressOptions> {
        let unknown = |what: &str| Error::rejected(format!("options as a part records them expected, {what} found"));
        let edit = |edit: &RecordedEdit| KeptEdit { text: edit.text.clone(), alpha: edit.alpha.clone() };
        let coding = match &self.coding {
            None => None,
            Some(RecordedCoding { bits, kept, seed }) => {
                let rung = bits.parse().map_err(|_| unknown("other bits"))?;
                let coding = CodingOptions::default().rung(rung).seed(*seed);
                Some(CodingOptions { kept: kept.as_ref().map(|kept| kept.iter().map(edit).collect()), ..coding })
            }
        };
        let dtype = self.dtype.float().ok_or_else(|| unknown("a type that atoms do not have"))?;
        Ok(CompressOptions::mixtures(output)
            .method(self.method.clone())
            .size(match self.size {
                RecordedSize::Atoms(n_atoms) => Size::Atoms(n_atoms),
                RecordedSize::Ratio(ratio) => Size::Ratio(ratio),
                RecordedSize::MeanError(target) => Size::MaxError(MaxError::Mean(target)),
                RecordedSize::WorstError(target) => Size::MaxError(MaxError::Worst(target)),
                RecordedSize::Bytes(limit) => Size::MaxBytes(Amount::Bytes(limit)),
                RecordedSize::Percent(share) => Size::MaxBytes(Amount::Percent(share)),
            })
            .balance(self.balance)
            .coordinates(self.coordinates)
            .dtype(dtype)
            .coding(coding)
            .clip(self.clip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Matrix;
    use crate::solve::{AeOptions, AnchoredOptions, Anneal};
    use tvb_kernels::Rate;

    #[test]
    fn options_come_back_to_the_last_bit() {
        let awkward = 0.1 + 0.2;
        let ae = AeOptions {
            anneal: Some(Anneal { every: 3, factor: awkward }),
            init: Some(Matrix::from_rows(&[[awkward, 1e-300], [-0.0, 1.0 / 3.0]]).unwrap()),
            ..AeOptions::paper()
        };
        let mut methods = Method::all();
        methods.push(Method::Ae(ae));
        methods.push(Method::Anchored(AnchoredOptions { weights: Some(vec![awkward, 2.0]) }));
        methods.push(Method::Random { seed: u64::MAX });
        let sizes = [
            Size::Atoms(3),
            Size::Ratio(awkward),
            Size::MaxError(MaxError::Mean(awkward)),
            Size::MaxError(MaxError::Worst(0.25)),
            Size::MaxBytes(Amount::Bytes(u64::MAX)),
            Size::MaxBytes(Amount::Percent(awkward)),
        ];
        let kept = vec![KeptEdit { text: "a - 0.5*b".to_owned(), alpha: vec![1.0, -awkward] }];
        let codings = [
            None,
            Some(CodingOptions::default().bits(Rate::Half).keep_bits(None).seed(7)),
            Some(CodingOptions::default().keep(kept)),
        ];
        for method in methods {
            for size in sizes {
                for coding in &codings {
                    let options = CompressOptions::mixtures("out")
                        .method(method.clone())
                        .size(size)
                        .balance(true)
                        .coordinates(Coordinates::Orthogonal)
                        .dtype(tvb_kernels::Dtype::Bf16)
                        .coding(coding.clone())
                        .clip(true);
                    let text = serde_json::to_string(&RecordedOptions::of(&options)).unwrap();
                    let read: RecordedOptions = serde_json::from_str(&text).unwrap();
                    let back = read.options("out").unwrap();
                    assert_eq!(
                        (&back.method, back.size, back.balance, back.coordinates, back.dtype, &back.coding, back.clip),
                        (&method, size, true, Coordinates::Orthogonal, options.dtype, coding, true)
                    );
                    assert_eq!(RecordedOptions::of(&back), read);
                }
            }
        }
    }
}
