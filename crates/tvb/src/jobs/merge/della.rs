//! DELLA: values fall by chance, small ones of a row more often than large ones.

use super::elements::{Rules, chance, l1_factor};
use super::settings::{Rescale, TensorSettings};
use crate::error::Result;
use crate::ops::merge::{RowGroup, Rows, Stream};
use crate::ops::outputs::Outputs;
use crate::ops::range::RangeCheck;
use crate::pass::device_error;
use tvb_kernels::{Chunk, ChunkLayout, Consensus, CpuEngine, Dtype, Merge, Segment, Slice, random_word};

/// Chances to stay in one tensor.
struct Chances<'a> {
    rules: &'a Rules<'a>,
    tensor: &'a str,
    settings: &'a TensorSettings,
    rows: Rows,
}

/// Merges the stream's one tensor and writes it.
///
/// # Errors
/// As [`Stream::for_rows`].
pub(super) fn merge(
    stream: &Stream<'_>,
    rules: &Rules<'_>,
    (tensor, shape): (&str, &[usize]),
    settings: &TensorSettings,
    outputs: Outputs<'_>,
    range: &RangeCheck,
) -> Result<()> {
    let rows = Rows::of_shape(shape);
    let chances = Chances { rules, tensor, settings, rows };
    let n_tasks = settings.weight.len();
    let mut factors = vec![1.0; n_tasks];
    if settings.rescale == Rescale::L1 {
        let (mut all, mut kept) = (vec![0.0; n_tasks], vec![0.0; n_tasks]);
        let norm = |values: &[f32]| values.iter().map(|value| f64::from(value.abs())).sum::<f64>();
        stream.for_rows(
            rows,
            |mut group| {
                let before: Vec<f64> = group.tasks.iter().map(|values| norm(values)).collect();
                chances.drop_some(&mut group, &factors);
                Ok((before, group.tasks.iter().map(|values| norm(values)).collect::<Vec<f64>>()))
            },
            |(before, after)| {
                all.iter_mut().zip(before).for_each(|(all, own)| *all += own);
                kept.iter_mut().zip(after).for_each(|(kept, own)| *kept += own);
                Ok(())
            },
        )?;
        factors
            .iter_mut()
            .zip(all.iter().zip(&kept))
            .for_each(|(factor, (all, kept))| *factor = l1_factor(*all, *kept));
    }
    let whole = rules.of_kept(settings);
    stream.for_rows(
        rows,
        |mut group| {
            chances.drop_some(&mut group, &factors);
            let delta = reduced(&group, &whole)?;
            stream.write_rows(&group, rows, &delta, 1.0, outputs, range)
        },
        |()| Ok(()),
    )
}

impl Chances<'_> {
    /// Zeroes what falls, and scales what stays.
    fn drop_some(&self, group: &mut RowGroup, factors: &[f64]) {
        let length = self.rows.length;
        let mut order: Vec<u32> = Vec::with_capacity(length);
        for (task, values) in group.tasks.iter_mut().enumerate() {
            let at = |list: &[f64]| list.get(task).copied().unwrap_or(1.0);
            let (density, epsilon) = (at(&self.settings.density), at(&self.settings.epsilon));
            if density >= 1.0 {
                continue;
            }
            let (key, weight) = (self.rules.key(task, self.tensor), at(factors));
            for (row, values) in values.chunks_exact_mut(length).enumerate() {
                order.clear();
                order.extend(0..length as u32);
                let bits = |at: &u32| values.get(*at as usize).map_or(0, |value| value.to_bits() & 0x7fff_ffff);
                order.sort_by_key(bits);
                let first = ((group.first + row) * length) as u64;
                for (rank, &at) in order.iter().enumerate() {
                    let share = if length > 1 { rank as f64 / (length - 1) as f64 } else { 0.5 };
                    let stays = density - epsilon + 2.0 * epsilon * share;
                    let Some(value) = values.get_mut(at as usize) else { continue };
                    // What is not finite stays, so that it is found.
                    let falls = random_word(key, first + u64::from(at)) >= chance(stays) && value.is_finite();
                    let by_chance = if self.settings.rescale == Rescale::Chance { 1.0 / stays } else { 1.0 };
                    *value = if falls { 0.0 } else { (f64::from(*value) * by_chance * weight) as f32 };
                }
            }
        }
    }
}

impl Rules<'_> {
    /// The rule for values of which those that stay have been chosen.
    fn of_kept(&self, settings: &TensorSettings) -> Merge {
        let mut merge = self.plain(settings, self.consensus(settings));
        merge.base = 0.0;
        merge.dtype = Some(Dtype::F32);
        if merge.consensus == Consensus::Sum && settings.normalize {
            merge.lambda = self.divided(settings);
        }
        merge
    }
}

/// The merged task vector of a group of rows.
fn reduced(group: &RowGroup, merge: &Merge) -> Result<Vec<f32>> {
    let n_rows = group.tasks.first().map_or(0, Vec::len);
    // A base of nothing, then the tasks.
    let mut bytes = vec![0_u8; 4 * n_rows];
    group.tasks.iter().flatten().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
    let deltas = (0..group.tasks.len()).map(|task| Slice::of_delta(4 * n_rows * (task + 1)));
    let layout = ChunkLayout {
        n_columns: group.tasks.len() + 1,
        segments: vec![Segment::new(n_rows)],
        slices: std::iter::once(Slice::new(0, Dtype::F32)).chain(deltas).collect(),
        codes: Vec::new(),
        factors: Vec::new(),
        n_bytes: bytes.len(),
    };
    let (engine, mut out) = (CpuEngine::new(), Vec::new());
    let chunk = Chunk { layout: &layout, bytes: &bytes };
    engine.run(merge, chunk, &mut engine.scratch(), &mut out).map_err(device_error)?;
    Ok(tvb_kernels::decode(&out, Dtype::F32))
}
