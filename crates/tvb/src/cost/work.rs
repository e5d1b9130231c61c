//! A job as numbers, known from headers alone: its passes, over how many bytes of how many columns.

use crate::checkpoint::{Checkpoint, Place};
use crate::columns::plan::Plan;
use std::time::Instant;
use tvb_kernels::Dtype;

/// What a pass does, as far as its speed depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The Gram matrix of T columns.
    Gram,
    /// T columns → M atoms.
    Project,
    /// Atoms or tasks, and the base → edited checkpoints.
    Reconstruct,
    /// Tasks coded as they are, with their Gram matrix: one pass on the CPU, two on a GPU.
    Code,
    /// Codes and the base → an edited checkpoint. Its bytes are those of the elements in f32, as a code has no such width.
    Decode,
}

impl Stage {
    /// All of them.
    pub const ALL: [Stage; 5] = [Stage::Gram, Stage::Project, Stage::Reconstruct, Stage::Code, Stage::Decode];

    /// Its name in tables and files.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Gram => "gram",
            Stage::Project => "project",
            Stage::Reconstruct => "reconstruct",
            Stage::Code => "code",
            Stage::Decode => "decode",
        }
    }
}

/// Bytes of a stored element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Width {
    /// bf16 and f16.
    Two,
    /// f32.
    Four,
}

impl Width {
    /// Of this format; `None` for f64, which no shader computes in.
    pub const fn of(dtype: Dtype) -> Option<Width> {
        match dtype {
            Dtype::F64 => None,
            Dtype::F32 => Some(Width::Four),
            Dtype::F16 | Dtype::Bf16 => Some(Width::Two),
        }
    }

    /// Its name in tables and files.
    pub const fn name(self) -> &'static str {
        match self {
            Width::Two => "16-bit",
            Width::Four => "f32",
        }
    }
}

/// One pass, or several alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What is done.
    pub stage: Stage,
    /// T, or the number of atoms that an edit is formed from.
    pub n_columns: usize,
    /// Bytes that go in, by the width of their elements.
    pub in_bytes: Vec<(Width, u64)>,
    /// Bytes that come out.
    pub out_bytes: u64,
    /// Whether the same bytes went in before, so that a device may have kept them.
    pub again: bool,
    /// How often this is done.
    pub n_times: u64,
}

impl Step {
    /// Bytes that go in, all widths together.
    pub fn n_bytes(&self) -> u64 {
        self.in_bytes.iter().map(|(_, n_bytes)| n_bytes).sum()
    }
}

/// A job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work {
    /// Its passes on an engine, in order.
    pub steps: Vec<Step>,
    /// Why no GPU is asked, where that is so.
    pub only_on_cpu: Option<&'static str>,
    /// Whether the files are likely not in the page cache.
    pub on_disk: bool,
}

/// Bytes of one look at a file.
const LOOK_BYTES: usize = 64 << 10;
/// Bytes a second below which a look did not come out of memory.
const MEMORY_RATE: f64 = 300e6;
/// Columns that are looked at, at most.
const LOOKS: usize = 8;

impl Work {
    /// Work for the CPU engine, and why.
    pub fn only_on_cpu(why: &'static str) -> Work {
        Work { only_on_cpu: Some(why), ..Work::default() }
    }

    /// The same with one pass more.
    #[must_use]
    pub fn step(mut self, step: Step) -> Work {
        self.steps.push(step);
        self
    }

    /// This and `other`, one after the other.
    #[must_use]
    pub fn and(mut self, other: Work) -> Work {
        self.steps.extend(other.steps);
        Work { only_on_cpu: self.only_on_cpu.or(other.only_on_cpu), on_disk: self.on_disk || other.on_disk, ..self }
    }

    /// The same, once it was seen where these files are.
    #[must_use]
    pub fn looked_at<'a>(self, checkpoints: impl Iterator<Item = &'a Checkpoint>) -> Work {
        Work { on_disk: self.on_disk || is_on_disk(checkpoints), ..self }
    }

    /// The same of a plan's columns.
    #[must_use]
    pub fn looked_at_columns(self, plan: &Plan) -> Work {
        self.looked_at((0..plan.n_columns()).map(|column| plan.column_checkpoint(column)))
    }

    /// One pass of `stage` over the columns of a plan, `taking` of its tasks, writing `out_bytes`.
    pub fn over(plan: &Plan, stage: Stage, taking: usize, out_bytes: u64) -> Work {
        let n_tasks = plan.tasks.len().max(1);
        let mut in_bytes = vec![(Width::Two, 0u64), (Width::Four, 0u64)];
        for column in 0..plan.n_columns() {
            let checkpoint = plan.column_checkpoint(column);
            if checkpoint.of_adapter().is_some() {
                return Work::only_on_cpu("adapters are formed from their factors");
            }
            for tensor in &plan.tensors {
                let stored = plan.column_tensor(tensor, column);
                let Some(width) = stored.dtype.float().and_then(Width::of) else {
                    return Work::only_on_cpu("f64 is for the CPU");
                };
                let of_width = in_bytes.iter_mut().filter(|(known, _)| *known == width);
                of_width.for_each(|(_, n_bytes)| *n_bytes = n_bytes.saturating_add(stored.n_bytes()));
            }
        }
        let share = |n_bytes: u64| match taking >= n_tasks {
            true => n_bytes,
            false => (n_bytes as f64 * (taking + 1) as f64 / (n_tasks + 1) as f64) as u64,
        };
        in_bytes.iter_mut().for_each(|(_, n_bytes)| *n_bytes = share(*n_bytes));
        in_bytes.retain(|(_, n_bytes)| *n_bytes > 0);
        let step = Step { stage, n_columns: taking.min(n_tasks), in_bytes, out_bytes, again: false, n_times: 1 };
        Work::default().step(step)
    }
}

/// Whether a few reads spread over these files are slower than memory is. What was looked at is in the page cache afterwards;
/// it is little.
///
/// Not asked of the system: Linux alone says what is in its cache, and only where a file is mapped, which no reader here does.
fn is_on_disk<'a>(checkpoints: impl Iterator<Item = &'a Checkpoint>) -> bool {
    let mut bytes = vec![0; LOOK_BYTES];
    let mut times: Vec<f64> = Vec::new();
    for checkpoint in checkpoints.take(LOOKS) {
        let plain = checkpoint.tensors().iter().filter(|tensor| matches!(tensor.place, Place::Contiguous { .. }));
        let Some(largest) = plain.max_by_key(|tensor| tensor.n_bytes()) else { continue };
        let Some(last) = largest.n_bytes().checked_sub(LOOK_BYTES as u64) else { continue };
        for part in [1, 2] {
            let started = Instant::now();
            // Whole elements: the widest has 8 bytes.
            if checkpoint.read(largest, last / 3 * part / 8 * 8, &mut bytes).is_ok() {
                times.push(started.elapsed().as_secs_f64());
            }
        }
    }
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).is_some_and(|median| LOOK_BYTES as f64 / median.max(1e-9) < MEMORY_RATE)
}
