//! Values beyond what their format holds: found in every row before it is written, and refused or clipped.
//!
//! A row is formed from finite numbers, so an infinity or a NaN in it is a fault, but for one: what the base itself holds
//! (masks of −∞ are stored in some models) stays as it is where nothing else has changed it. Rows are looked at as they
//! are about to be written, whichever engine has made them; only where something is found are the inputs read again, and
//! the value formed in f64. That tells an overflow from an input that was not finite, and from sums that went beyond f32
//! on the way to a result within it. A pass goes on to its end, so that the error can say how much.

use crate::checkpoint::values_of;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use tvb_kernels::{Dtype, count_non_finite};

/// Values that were clipped to the largest finite one of their type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Clipped {
    /// How many values.
    pub n_values: u64,
    /// In how many tensors of how many outputs.
    pub n_tensors: u64,
}

impl Clipped {
    /// Whether nothing was.
    pub fn is_none(self) -> bool {
        self.n_values == 0
    }

    /// What was clipped in tensors of outputs; one that was clipped in several places counts once.
    pub fn of(found: impl IntoIterator<Item = ClippedTensor>) -> Clipped {
        let (mut n_values, mut tensors) = (0_u64, std::collections::BTreeSet::new());
        for ClippedTensor { output, tensor, n_values: own } in found {
            n_values = n_values.saturating_add(own);
            tensors.insert((output, tensor));
        }
        Clipped { n_values, n_tensors: tensors.len() as u64 }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Clipped) -> Clipped {
        Clipped { n_values: self.n_values + other.n_values, n_tensors: self.n_tensors + other.n_tensors }
    }
}

impl fmt::Display for Clipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |n: u64| if n == 1 { "" } else { "s" };
        let Clipped { n_values, n_tensors } = *self;
        write!(f, "{n_values} value{} of {n_tensors} tensor{} clipped to the", plural(n_values), plural(n_tensors))?;
        write!(f, " largest finite one of the type")
    }
}

/// What was clipped in one tensor of one output.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClippedTensor {
    /// Which output.
    pub output: usize,
    /// The tensor's name.
    pub tensor: String,
    /// How many values.
    pub n_values: u64,
}

/// Rows of one block that are about to be written.
#[derive(Debug)]
pub struct Rows<'a> {
    /// Which outputs: more than one where the same bytes go to several.
    pub outputs: Range<usize>,
    /// The tensor's name.
    pub tensor: &'a str,
    /// The block's first row.
    pub first_row: usize,
    /// How they are stored.
    pub dtype: Dtype,
    /// The bytes.
    pub bytes: &'a mut [u8],
}

/// What rows were formed from: one column's rows of the same block.
#[derive(Clone, Debug)]
pub struct Input {
    /// What the column is called.
    pub name: String,
    /// Its values.
    pub values: Vec<f64>,
    /// Whether the rows start from it, so that its own infinities and NaNs stay.
    pub is_base: bool,
}

/// What the rows of a block were formed from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The columns.
    pub inputs: Vec<Input>,
    /// \[n_rows\]: the rows in f64, before they were stored.
    pub exact: Vec<f64>,
}

/// What was found in one tensor of one output.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    dtype: Dtype,
    /// Values beyond the type that came of finite inputs: clipped, where that was asked for.
    n_beyond: u64,
    /// Infinities and NaNs of an input.
    n_inherited: u64,
    /// The first such input, and the element.
    inherited_from: Option<(String, usize)>,
}

/// Looks at every row of a pass; shared by its threads.
#[derive(Debug)]
pub struct RangeCheck {
    clip: bool,
    /// By output and tensor.
    found: Mutex<BTreeMap<(usize, String), Found>>,
}

impl RangeCheck {
    /// Clips what is beyond its type, or only counts it.
    pub fn new(clip: bool) -> RangeCheck {
        RangeCheck { clip, found: Mutex::default() }
    }

    /// Whether anything was found so far.
    pub fn has_found(&self) -> bool {
        !self.found.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Looks at rows before they are written, and clips them where that was asked for. `origin` is asked for where something
    /// is found.
    ///
    /// # Errors
    /// Those of `origin`.
    pub fn look(&self, rows: Rows<'_>, origin: impl FnOnce() -> Result<Origin>) -> Result<()> {
        let Rows { outputs, tensor, first_row, dtype, bytes } = rows;
        if count_non_finite(bytes, dtype) == 0 {
            return Ok(());
        }
        let Origin { inputs, exact } = origin()?;
        let mut found = Found { dtype, n_beyond: 0, n_inherited: 0, inherited_from: None };
        for (row, value) in values_of(bytes, dtype).into_iter().enumerate().filter(|(_, value)| !value.is_finite()) {
            let is_bad = |input: &&Input| input.values.get(row).is_some_and(|value| !value.is_finite());
            // What is not the base's comes first: a base that holds infinities on purpose is no news.
            let bad = inputs.iter().filter(|input| !input.is_base).find(is_bad);
            match bad.or_else(|| inputs.iter().find(is_bad)) {
                Some(base) if base.is_base && is_same(base.values[row], value) => {}
                Some(input) => {
                    found.n_inherited += 1;
                    found.inherited_from.get_or_insert_with(|| (input.name.clone(), first_row + row));
                }
                None => {
                    let exact = exact.get(row).copied().filter(|exact| !exact.is_nan()).unwrap_or(value);
                    let mut stored = tvb_kernels::convert(&exact.to_le_bytes(), Dtype::F64, dtype);
                    if count_non_finite(&stored, dtype) > 0 {
                        found.n_beyond += 1;
                        if !self.clip {
                            continue;
                        }
                        let largest = dtype.largest().copysign(exact).to_le_bytes();
                        stored = tvb_kernels::convert(&largest, Dtype::F64, dtype);
                    }
                    bytes[row * dtype.size()..][..dtype.size()].copy_from_slice(&stored);
                }
            }
        }
        if found.n_beyond + found.n_inherited > 0 {
            outputs.for_each(|output| self.add((output, tensor.to_owned()), found.clone()));
        }
        Ok(())
    }

    fn add(&self, key: (usize, String), block: Found) {
        let mut all = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sum) = all.get_mut(&key) else {
            all.insert(key, block);
            return;
        };
        sum.n_beyond += block.n_beyond;
        sum.n_inherited += block.n_inherited;
        // Blocks come in any order: the first element is named whoever was first.
        let first = |found: &Option<(String, usize)>| found.as_ref().map_or(usize::MAX, |(_, row)| *row);
        if first(&block.inherited_from) < first(&sum.inherited_from) {
            sum.inherited_from = block.inherited_from;
        }
    }

    /// What was clipped. `output_name` names an output.
    ///
    /// # Errors
    /// Rejected: values that could not be stored, with the first such tensor, and how many there are.
    pub fn finish(self, output_name: impl Fn(usize) -> String) -> Result<Clipped> {
        self.finish_by_tensor(output_name).map(Clipped::of)
    }

    /// [`finish`](Self::finish), tensor by tensor.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn finish_by_tensor(self, output_name: impl Fn(usize) -> String) -> Result<Vec<ClippedTensor>> {
        let found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let is_fault = |found: &Found| found.n_inherited > 0 || (!self.clip && found.n_beyond > 0);
        let n_bad = |found: &Found| found.n_inherited + if self.clip { 0 } else { found.n_beyond };
        let faults: Vec<_> = found.iter().filter(|(_, found)| is_fault(found)).collect();
        let Some(((output, tensor), first)) = faults.first() else {
            let clipped = |((output, tensor), found): ((usize, String), Found)| ClippedTensor {
                output,
                tensor,
                n_values: found.n_beyond,
            };
            return Ok(found.into_iter().map(clipped).collect());
        };
        let n_all: u64 = faults.iter().map(|(_, found)| n_bad(found)).sum();
        let and_more = match faults.len() {
            1 => String::new(),
            n => format!("; {n_all} values of {n} tensors in all"),
        };
        let (what, hint) = first.explained();
        let where_ = output_name(*output);
        Err(Error::rejected(format!("{where_}, tensor {tensor}: finite values expected, {what}{and_more}")).hint(hint))
    }
}

impl Found {
    /// What was found, and what can be done.
    fn explained(&self) -> (String, String) {
        let Found { dtype, n_beyond, n_inherited, .. } = self;
        if let Some((input, row)) = &self.inherited_from {
            let what =
                format!("{n_inherited} formed of an infinite or NaN one found, of {input} at element {row} first");
            return (what, format!("repair {input} or leave it out, or leave out the tensor with --exclude"));
        }
        let largest = if *dtype == Dtype::F16 { "65504".to_owned() } else { format!("{:.1e}", dtype.largest()) };
        let what = format!("{n_beyond} beyond {} found (at most ±{largest})", dtype.name().to_lowercase());
        let wider = match dtype {
            Dtype::F16 => "--dtype bf16 or f32 holds larger ones",
            _ => "use smaller weights",
        };
        (what, format!("{wider}; --clip writes the largest finite value in their place"))
    }
}

/// Whether a value that is not finite came out as the same.
fn is_same(input: f64, output: f64) -> bool {
    input == output || (input.is_nan() && output.is_nan())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INF: f64 = f64::INFINITY;

    fn stored(values: &[f64], dtype: Dtype) -> Vec<u8> {
        let exact: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        tvb_kernels::convert(&exact, Dtype::F64, dtype)
    }

    fn input(name: &str, values: &[f64], is_base: bool) -> Input {
        Input { name: name.into(), values: values.to_vec(), is_base }
    }

    fn look(check: &RangeCheck, first_row: usize, values: &[f64], dtype: Dtype, inputs: &[Input]) -> Vec<f64> {
        let mut bytes = stored(values, dtype);
        let rows = Rows { outputs: 0..1, tensor: "w", first_row, dtype, bytes: &mut bytes };
        let exact = values.iter().map(|value| if value.is_nan() { 1.5 } else { *value }).collect();
        check.look(rows, || Ok(Origin { inputs: inputs.to_vec(), exact })).unwrap();
        values_of(&bytes, dtype)
    }

    #[test]
    fn overflow_is_counted_over_blocks_or_clipped() {
        let base = [input("base", &[1.0, 2.0, 3.0], true)];
        for dtype in [Dtype::F16, Dtype::Bf16, Dtype::F32] {
            for clip in [false, true] {
                let check = RangeCheck::new(clip);
                let first = look(&check, 0, &[1e39, -1e39, 3.0], dtype, &base);
                look(&check, 3, &[1.0, 2.0, 3.0], dtype, &base);
                look(&check, 6, &[1.0, 1e39, 3.0], dtype, &base);
                let finished = check.finish(|_| "out".into());
                if clip {
                    assert_eq!(first, [dtype.largest(), -dtype.largest(), 3.0]);
                    assert_eq!(finished.unwrap(), Clipped { n_values: 3, n_tensors: 1 });
                } else {
                    let error = finished.unwrap_err();
                    assert_eq!(error.kind(), crate::ErrorKind::Rejected);
                    assert!(error.message().starts_with("out, tensor w: finite values expected, 3 beyond"), "{error}");
                    assert!(error.hint_text().is_some_and(|hint| hint.contains("--clip")));
                }
            }
        }
    }

    #[test]
    fn sums_that_came_back_from_beyond_f32_are_formed_again() {
        let check = RangeCheck::new(false);
        let found = look(&check, 0, &[f64::NAN, 2.0], Dtype::F32, &[input("a", &[3e38, 2.0], false)]);
        assert_eq!(found, [1.5, 2.0]);
        assert!(!check.has_found() && check.finish(|_| "out".into()).unwrap().is_none());
    }

    #[test]
    fn the_bases_own_infinities_stay_and_others_are_named() {
        let base = input("base", &[-INF, f64::NAN, 3.0], true);
        let check = RangeCheck::new(false);
        let kept = look(&check, 0, &[-INF, f64::NAN, 3.0], Dtype::F32, std::slice::from_ref(&base));
        assert!(kept[0] == -INF && kept[1].is_nan());
        assert_eq!(check.finish(|_| "out".into()).unwrap(), Clipped::default());
        // −∞ − −∞ is no mask, and no clipping makes an infinite atom right.
        let cases: [(&[f64], Vec<Input>, &str); 3] = [
            (&[f64::NAN, 0.0, 0.0], vec![base.clone()], "of base at element 10 first"),
            (&[-INF, f64::NAN, 0.0], vec![base, input("task a", &[-INF, 0.0, 0.0], false)], "1 formed of an infinite"),
            (&[0.0, INF, INF], vec![input("atom-01", &[0.0, INF, INF], false)], "of atom-01 at element 11 first"),
        ];
        for (values, inputs, expected) in cases {
            for clip in [false, true] {
                let check = RangeCheck::new(clip);
                look(&check, 10, values, Dtype::F32, &inputs);
                assert!(check.has_found());
                let error = check.finish(|_| "out".into()).unwrap_err();
                assert!(error.message().contains(expected), "{error}");
            }
        }
    }
}
