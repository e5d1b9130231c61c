//! The test of a device: every kernel on small cases against the CPU engine, at start-up for chunks of mixed formats and
//! before the first chunk of each single format; those of codes before the first chunk that needs them. Drivers have miscompiled shaders before, silently; a few milliseconds
//! find that out before anything is made of a result.

use super::context::Context;
use super::shader::{Kernel, Suite};
use super::stream::FirstUse;
use super::variant::Format;
use super::{eigh, single};
use crate::chunk::{Chunk, ChunkLayout, CodeSlice, Columns, Dtype, Segment, Slice};
use crate::code::{Code, Measured};
use crate::cpu::CpuEngine;
use crate::decode::Decode;
use crate::error::KernelError;
use crate::gram::Gram;
use crate::panel::{PANEL, n_blocks, scale_bits};
use crate::project::Project;
use crate::rate::Rate;
use crate::reconstruct::{Base, Reconstruct};
use crate::triangles::triangle_len;
use crate::work::Work;
use std::fmt::Display;
use std::sync::Arc;

/// Compares the device with the CPU engine on mixed formats, and its eigendecomposition.
pub(super) fn run(context: &Arc<Context>) -> Result<(), KernelError> {
    suite(context, Suite::Sums(Format::Mixed))?;
    let kernels = Kernel::all().into_iter().filter(|kernel| matches!(kernel, Kernel::Eigh { .. } | Kernel::EighRound));
    kernels.into_iter().try_for_each(|kernel| eigh::self_test(context, kernel))
}

/// Compares the device with the CPU engine on these kernels, if they have not passed that test yet.
pub(super) fn suite(context: &Arc<Context>, suite: Suite) -> Result<(), KernelError> {
    if context.has_passed(suite) {
        return Ok(());
    }
    match suite {
        Suite::Sums(format) => sums(context, format)?,
        Suite::Code(format) => code(context, format)?,
        Suite::Decode(format) => decode(context, format)?,
    }
    context.set_passed(suite);
    Ok(())
}

fn sums(context: &Arc<Context>, format: Format) -> Result<(), KernelError> {
    // Few tasks; several tiles of tasks.
    for n_tasks in [5, 70] {
        let (layout, bytes) = case(n_tasks, &[131, 30], format);
        let chunk = Chunk { layout: &layout, bytes: &bytes };
        let weights = |n: usize| (0..n_tasks * n).map(|at| ((at * 29) % 17) as f32 / 8.0 - 1.0).collect();
        let project = Project { encode: weights(3), n_atoms: 3, dtype: Dtype::Bf16 };
        let reconstruct = Reconstruct {
            weights: weights(2),
            n_outputs: 2,
            columns: Columns::Deltas,
            base: Base::Added,
            dtype: Some(Dtype::F32),
        };
        let [found, expected] = both(context, &Gram, chunk)?;
        same("gram", [&found.values, &expected.values], |at| {
            format!("entry {} of Gram {} of {n_tasks} tasks", at % triangle_len(n_tasks), at / triangle_len(n_tasks))
        })?;
        let byte_of_rows = |at| format!("byte {at} of the rows of {n_tasks} tasks");
        let [found, expected] = both(context, &project, chunk)?;
        same("project", [&found, &expected], byte_of_rows)?;
        let [found, expected] = both(context, &reconstruct, chunk)?;
        same("reconstruct", [&found, &expected], byte_of_rows)?;
    }
    Ok(())
}

/// A rate of each kind, with and without a shared column. Another order of additions may lead to another code here and there.
fn code(context: &Arc<Context>, format: Format) -> Result<(), KernelError> {
    let (layout, bytes) = case(3, &CODED_ROWS, format);
    let chunk = Chunk { layout: &layout, bytes: &bytes };
    let failed = |what: &str, rate: Rate| {
        let found = format!("{what} at {} bits are not those expected", rate.name());
        Err(KernelError::SelfTest { kernel: "code", found })
    };
    for (rate, kept) in [(Rate::Half, None), (Rate::Three, Some(Rate::Signs)), (Rate::SixtyFour, Some(Rate::Four))] {
        let n_kept = usize::from(kept.is_some());
        let weights = [0.5, -0.625, 0.75];
        let kept = kept.unwrap_or(rate);
        let work = Code { rate, kept_rate: kept, kept: weights[..3 * n_kept].to_vec(), n_kept, seed: 5 };
        let [found, expected] = both(context, &work, chunk)?;
        let n_other = found.words.iter().zip(&expected.words).filter(|(found, expected)| found != expected).count();
        if found.words.len() != expected.words.len() || n_other > expected.words.len() / 8 {
            return failed("words", rate);
        }
        // One step of a scale is 1/256 of it, or less.
        let n_far =
            found.scales.iter().zip(&expected.scales).filter(|(found, expected)| found.abs_diff(**expected) > 1);
        if found.scales.len() != expected.scales.len() || n_far.count() > 0 {
            return failed("scales", rate);
        }
        let sums = |measured: &Measured| [measured.energy, measured.product, measured.decoded];
        let is_close = |(found, expected): (&Measured, &Measured)| {
            let far = |(found, wanted): (f64, f64)| (found - wanted).abs() > 1e-2 * expected.energy;
            !sums(found).into_iter().zip(sums(expected)).any(far) && found.energy.is_finite()
        };
        if found.measured.len() != expected.measured.len()
            || !found.measured.iter().zip(&expected.measured).all(is_close)
        {
            return failed("measures", rate);
        }
    }
    Ok(())
}

/// One column of every rate, with whatever codes, in f32 and in 16 bits.
fn decode(context: &Arc<Context>, format: Format) -> Result<(), KernelError> {
    let (mut layout, mut bytes) = case(0, &CODED_ROWS, format);
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    for segment in &layout.segments {
        let n_blocks = n_blocks(segment.n_rows);
        for rate in Rate::ALL {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            let words = bytes.len();
            bytes.extend((0..rate.words() * n_blocks).flat_map(|_| (next() << 16 | next()).to_le_bytes()));
            let scales = bytes.len();
            bytes.extend((0..n_blocks).flat_map(|_| scale_bits(8.0 + (next() % 9) as f32).to_le_bytes()));
            layout.codes.push(CodeSlice { words, scales });
        }
    }
    layout.n_bytes = bytes.len();
    let chunk = Chunk { layout: &layout, bytes: &bytes };
    let weights = (0..20).map(|at| ((at * 29) % 17) as f32 / 8.0 - 1.0).collect();
    let mut work = Decode {
        rates: Rate::ALL.to_vec(),
        weights,
        n_outputs: 2,
        base: Base::Added,
        dtype: Some(Dtype::F32),
        seed: 5,
    };
    for (dtype, tolerance) in [(Dtype::F32, 1e-4), (Dtype::Bf16, 0.1)] {
        work.dtype = Some(dtype);
        let [found, expected] = both(context, &work, chunk)?.map(|rows| crate::cpu::decode(&rows, dtype));
        let is_close = |(found, expected): (&f32, &f32)| (found - expected).abs() < tolerance;
        if found.len() != expected.len() || !found.iter().zip(&expected).all(is_close) {
            let found = format!("rows in {dtype} are not those expected");
            return Err(KernelError::SelfTest { kernel: "decode", found });
        }
    }
    Ok(())
}

/// A whole panel, one of an odd number of blocks, and less than a block.
const CODED_ROWS: [usize; 2] = [PANEL + 2200, 30];

/// A chunk of segments of these lengths.
fn case(n_tasks: usize, rows: &[usize], format: Format) -> (ChunkLayout, Vec<u8>) {
    let n_columns = n_tasks + 1;
    let mut layout = ChunkLayout {
        n_columns,
        segments: rows.iter().map(|&n_rows| Segment::new(n_rows)).collect(),
        slices: vec![Slice::new(0, Dtype::F32); rows.len() * n_columns],
        n_bytes: 0,
        ..ChunkLayout::default()
    };
    let mut bytes = Vec::new();
    for column in 0..n_columns {
        for (segment, &n_rows) in rows.iter().enumerate() {
            let dtype = match format {
                Format::F32 => Dtype::F32,
                Format::F16 => Dtype::F16,
                Format::Bf16 => Dtype::Bf16,
                Format::Mixed => [Dtype::F32, Dtype::F16, Dtype::Bf16][(column + segment) % 3],
            };
            bytes.resize(bytes.len().next_multiple_of(dtype.size()), 0);
            layout.slices[segment * n_columns + column] = Slice::new(bytes.len(), dtype);
            for row in 0..n_rows {
                // Multiples of 1/64 between −2 and 2: exact in every format.
                let value = ((row * 37 + column * 101 + row * column * 11) % 257) as f32 / 64.0 - 2.0;
                match dtype {
                    Dtype::F16 => bytes.extend(half::f16::from_f32(value).to_le_bytes()),
                    Dtype::Bf16 => bytes.extend(half::bf16::from_f32(value).to_le_bytes()),
                    Dtype::F32 | Dtype::F64 => bytes.extend(value.to_le_bytes()),
                }
            }
        }
    }
    layout.n_bytes = bytes.len();
    (layout, bytes)
}

/// What the device and the CPU engine find, in this order.
fn both<W: Work>(context: &Arc<Context>, work: &W, chunk: Chunk<'_>) -> Result<[W::Output; 2], KernelError> {
    let cpu = CpuEngine::new();
    let mut expected = W::Output::default();
    cpu.run(work, chunk, &mut cpu.scratch(), &mut expected)?;
    let found = single::run(Arc::clone(context), &cpu, work, chunk, FirstUse::IsTest)?;
    Ok([found, expected])
}

/// Fails where what the device found differs from what was expected. All values are multiples of 1/512 below 2^14, so
/// every product and sum is exact in f32 in whatever order, and the results must be equal to the bit.
fn same<V: PartialEq + Display>(
    kernel: &'static str,
    [found, expected]: [&[V]; 2],
    name: impl Fn(usize) -> String,
) -> Result<(), KernelError> {
    let failed = |found| Err(KernelError::SelfTest { kernel, found });
    if found.len() != expected.len() {
        return failed(format!("{} values where {} were expected", found.len(), expected.len()));
    }
    match found.iter().zip(expected).position(|(found, expected)| found != expected) {
        Some(at) => failed(format!("{} is {} where {} was expected", name(at), found[at], expected[at])),
        None => Ok(()),
    }
}
