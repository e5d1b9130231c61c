//! The test of a device: every kernel on small cases against the CPU engine, at start-up for chunks of mixed formats and
//! before the first chunk of each single format. Drivers have miscompiled shaders before, silently; a few milliseconds
//! find that out before anything is made of a result.

use crate::gpu::variant::Format;
use crate::{
    Base, Chunk, ChunkLayout, Columns, CpuEngine, Dtype, GpuEngine, KernelError, Output, Project, Reconstruct, Segment,
    Slice, Work, triangle_len,
};

/// Compares the device with the CPU engine on mixed formats, and its eigendecomposition.
pub(crate) fn run(engine: &GpuEngine) -> Result<(), KernelError> {
    run_format(engine, Format::Mixed)?;
    eigh(engine, &CpuEngine::new()).map_err(|found| KernelError::SelfTest { kernel: "eigh", found })
}

/// Compares the device with the CPU engine on chunks of one format.
pub(crate) fn run_format(engine: &GpuEngine, format: Format) -> Result<(), KernelError> {
    let cpu = CpuEngine::new();
    // Few tasks; several tiles of tasks.
    for n_tasks in [5, 70] {
        let (layout, bytes) = case(n_tasks, format);
        let chunk = Chunk { layout: &layout, bytes: &bytes };
        for (kernel, work) in works(n_tasks) {
            let mut expected = Output::Rows(Vec::new());
            cpu.run(&work, chunk, &mut cpu.scratch(), &mut expected)?;
            let found = engine.run_untested(&work, chunk)?;
            compare(&found, &expected, n_tasks).map_err(|found| KernelError::SelfTest { kernel, found })?;
        }
    }
    Ok(())
}

/// A chunk of two segments, with odd lengths.
fn case(n_tasks: usize, format: Format) -> (ChunkLayout, Vec<u8>) {
    let n_columns = n_tasks + 1;
    let rows = [131, 30];
    let mut layout = ChunkLayout {
        n_columns,
        segments: rows.iter().enumerate().map(|(slot, &n_rows)| Segment { n_rows, slot }).collect(),
        slices: vec![Slice { offset: 0, dtype: Dtype::F32 }; 2 * n_columns],
        n_bytes: 0,
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
            layout.slices[segment * n_columns + column] = Slice { offset: bytes.len(), dtype };
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

fn works(n_tasks: usize) -> [(&'static str, Work); 3] {
    let weights = |n: usize| (0..n_tasks * n).map(|at| ((at * 29) % 17) as f32 / 8.0 - 1.0).collect();
    [
        ("gram", Work::Gram),
        ("project", Work::Project(Project { encode: weights(3), n_atoms: 3, dtype: Dtype::Bf16 })),
        (
            "reconstruct",
            Work::Reconstruct(Reconstruct {
                weights: weights(2),
                n_outputs: 2,
                columns: Columns::Deltas,
                base: Base::Added,
                dtype: Some(Dtype::F32),
            }),
        ),
    ]
}

/// What differs, if anything does. All values are multiples of 1/512 below 2^14, so every product and sum is exact in
/// f32 in whatever order, and the results must be equal to the bit.
fn compare(found: &Output, expected: &Output, n_tasks: usize) -> Result<(), String> {
    match (found, expected) {
        (Output::Gram(found), Output::Gram(expected)) if found.slots == expected.slots => {
            match found.values.iter().zip(&expected.values).position(|(found, expected)| found != expected) {
                Some(at) => Err(format!(
                    "entry {} of Gram {} of {n_tasks} tasks is {} where {} was expected",
                    at % triangle_len(n_tasks),
                    at / triangle_len(n_tasks),
                    found.values[at],
                    expected.values[at]
                )),
                None => Ok(()),
            }
        }
        (Output::Rows(found), Output::Rows(expected)) if found.len() == expected.len() => {
            match found.iter().zip(expected).position(|(found, expected)| found != expected) {
                Some(at) => Err(format!("rows of {n_tasks} tasks differ from byte {at} of {}", found.len())),
                None => Ok(()),
            }
        }
        _ => Err(format!("the result for {n_tasks} tasks has another shape")),
    }
}

fn eigh(engine: &GpuEngine, cpu: &CpuEngine) -> Result<(), String> {
    let n = 7;
    let matrix: Vec<f64> = (0..n * n).map(|at| 1.0 / (1.0 + (at / n) as f64 + (at % n) as f64)).collect();
    let (found, expected) = match (engine.eigh(&matrix, n, 1), cpu.eigh(&matrix, n, 1)) {
        (Ok(found), Ok(expected)) => (found, expected),
        (Err(error), _) | (_, Err(error)) => return Err(error.to_string()),
    };
    for (found, expected) in found[0].values.iter().zip(&expected[0].values) {
        if (found - expected).abs().partial_cmp(&(1e-9 * 2.0)).is_none_or(std::cmp::Ordering::is_gt) {
            return Err(format!("eigenvalue {found} where {expected} was expected"));
        }
    }
    Ok(())
}
