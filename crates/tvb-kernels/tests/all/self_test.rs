//! A device that gets a kernel wrong is found out before its first result: each fault is put into the text of a shader, as a driver
//! that miscompiles it would.

use crate::common::device::{device, turn};
use crate::common::{Case, Formats, make};
use tvb_kernels::{
    Base, Code, Columns, Consensus, Decode, DeviceSetup, Dtype, GpuEngine, Gram, Keep, KernelError, Merge, MergeTask,
    Project, Rate, Reconstruct, Work, shader_variants,
};

/// The work that a fault is to be found with.
#[derive(Clone, Copy, Debug)]
enum Of {
    Gram(usize),
    Project(usize),
    /// With weights of which some are 0.
    Sparse,
    Reconstruct(Dtype),
    Code,
    Decode,
    Merge,
}

fn run(engine: &GpuEngine, of: Of, dtype: Dtype) -> Result<(), KernelError> {
    let n_tasks = match of {
        Of::Gram(n_tasks) => n_tasks,
        Of::Decode => 0,
        _ => 3,
    };
    let made = make(&Case {
        n_tasks,
        segments: vec![40],
        formats: Formats::All(dtype),
        misaligned: false,
        seed: n_tasks as u64,
    });
    fn done<W: Work>(engine: &GpuEngine, work: &W, made: &crate::common::Made) -> Result<(), KernelError> {
        engine.run(work, made.chunk()).map(|_| ())
    }
    match of {
        Of::Gram(_) => done(engine, &Gram::ALL, &made),
        Of::Project(n_atoms) => {
            let weights = (0..3 * n_atoms).map(|at| 1.0 + at as f32).collect();
            done(engine, &Project { encode: weights, n_atoms, dtype: Dtype::Bf16 }, &made)
        }
        Of::Sparse => done(engine, &Project { encode: vec![1.0, 0.0, 1.0], n_atoms: 1, dtype: Dtype::F32 }, &made),
        Of::Reconstruct(row_dtype) => {
            let work = Reconstruct {
                weights: vec![1.0; 3],
                n_outputs: 1,
                columns: Columns::Checkpoints,
                base: Base::Added,
                dtype: Some(row_dtype),
            };
            done(engine, &work, &made)
        }
        Of::Code => {
            let work =
                Code { rate: Rate::Four, kept_rate: Rate::Four, kept: Vec::new(), n_kept: 0, n_carried: 0, seed: 1 };
            done(engine, &work, &made)
        }
        Of::Merge => {
            let task = MergeTask { factor: 1.0, weight: 1.0, keep: Keep::All };
            let (consensus, dtype) = (Consensus::Sum, Some(Dtype::F32));
            let work = Merge { tasks: vec![task; 3], variance: None, consensus, base: 1.0, lambda: 1.0, dtype };
            done(engine, &work, &made)
        }
        Of::Decode => {
            let work = Decode {
                rates: Vec::new(),
                weights: Vec::new(),
                n_outputs: 1,
                base: Base::Added,
                dtype: Some(Dtype::F16),
                seed: 1,
            };
            done(engine, &work, &made)
        }
    }
}

/// What is found wrong, and in which kernel, with a piece of the shaders replaced.
const FAULTS: &[(&str, &str, Of, Dtype, &str)] = &[
    // The last row of every run is left out.
    ("run.n_rows", "(run.n_rows - 1u)", Of::Gram(3), Dtype::F32, "gram"),
    ("run.n_rows", "(run.n_rows - 1u)", Of::Gram(40), Dtype::Bf16, "gram"),
    ("run.n_rows", "(run.n_rows - 1u)", Of::Project(9), Dtype::F16, "project"),
    ("run.n_rows", "(run.n_rows - 1u)", Of::Reconstruct(Dtype::Bf16), Dtype::Bf16, "reconstruct"),
    ("run.n_rows", "(run.n_rows - 1u)", Of::Code, Dtype::F32, "code"),
    ("run.n_rows", "(run.n_rows - 1u)", Of::Decode, Dtype::F32, "decode"),
    // A term of a sum is taken off.
    ("sum += part", "sum -= part", Of::Gram(60), Dtype::F32, "gram"),
    // A subnormal f16 is taken for 0; an infinite one for a large number.
    ("select(normal, bitcast<u32>(lifted)", "select(normal, 0u", Of::Gram(3), Dtype::F16, "gram"),
    ("select(normal, bitcast<u32>(lifted)", "select(normal, 0u", Of::Project(1), Dtype::F16, "project"),
    ("magnitude >= (31u << 23u)", "false", Of::Gram(3), Dtype::F16, "gram"),
    // The halves of a word change places.
    (
        "bitcast<f32>(word << 16u), bitcast<f32>(word & 0xffff0000u)",
        "bitcast<f32>(word & 0xffff0000u), bitcast<f32>(word << 16u)",
        Of::Project(1),
        Dtype::Bf16,
        "project",
    ),
    // Ties go away from zero; what overflows stays large; a NaN becomes an infinity.
    ("+ ((bits >> 16u) & 1u)", "+ 1u", Of::Project(5), Dtype::F32, "project"),
    ("+ ((bits >> 16u) & 1u)", "+ 1u", Of::Project(1), Dtype::F32, "project"),
    ("+ ((magnitude >> 13u) & 1u)", "+ 1u", Of::Reconstruct(Dtype::F16), Dtype::F32, "reconstruct"),
    ("|| (cut == half && (kept & 1u) == 1u)", "", Of::Reconstruct(Dtype::F32), Dtype::F32, "reconstruct"),
    ("magnitude >= 0x477ff000u", "magnitude >= 0x7f000000u", Of::Reconstruct(Dtype::F32), Dtype::F32, "reconstruct"),
    ("(bits & 0x7fffffffu) > 0x7f800000u", "false", Of::Project(1), Dtype::F32, "project"),
    ("+ ((magnitude >> 13u) & 1u)", "+ 1u", Of::Decode, Dtype::F32, "decode"),
    ("magnitude > 0x7f800000u", "false", Of::Decode, Dtype::F32, "decode"),
    // Other words decide about what falls; equals of an edge go; the losing sign wins; what is not finite is passed over.
    ("* 0x7feb352du", "* 0x7feb352fu", Of::Merge, Dtype::F32, "merge"),
    ("first <= place && place < behind", "false", Of::Merge, Dtype::Bf16, "merge"),
    ("select(below, above, sums >= zero)", "select(above, below, sums >= zero)", Of::Merge, Dtype::F16, "merge"),
    ("vec2<u32>(0x7fc00000u), faulty", "vec2<u32>(0x7fc00000u), vec2<bool>(false)", Of::Merge, Dtype::F32, "merge"),
    ("abs(values) > others", "abs(values) < others", Of::Merge, Dtype::F32, "merge"),
    // 0 times infinity.
    ("SKIP_ZEROS == 1u", "false", Of::Sparse, Dtype::F32, "project"),
    // The base is not taken off; a difference loses the base once more.
    ("FORMAT != MIXED || slice.dtype < DELTA", "true", Of::Gram(3), Dtype::F64, ""),
];

#[test]
fn a_miscompiled_kernel_is_found_out() {
    let _turn = turn();
    let variants = shader_variants().expect("sound shaders");
    let Some(engine) = device(DeviceSetup::default()) else { return };
    let mut missed = Vec::new();
    for &(piece, by, of, dtype, kernel) in FAULTS {
        assert!(variants.iter().any(|variant| variant.source.contains(piece)), "no shader has {piece:?}");
        engine.miscompile(piece, by);
        let found = run(&engine, of, dtype);
        let is_right = match kernel {
            // No kernel of this work has it.
            "" => found.is_ok(),
            _ => matches!(&found, Err(KernelError::SelfTest { kernel: named, .. }) if *named == kernel),
        };
        if !is_right {
            missed.push(format!("{piece:?} -> {by:?}, {of:?} in {dtype}: {found:?}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    // The text as it is passes, with every kind of work, and the test is done once.
    engine.miscompile("", "");
    for &(_, _, of, dtype, _) in FAULTS {
        assert_eq!(run(&engine, of, dtype), Ok(()), "{of:?} in {dtype}");
    }
}
