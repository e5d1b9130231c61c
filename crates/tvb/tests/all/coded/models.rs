//! Small models for these tests, written and read byte by byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tvb::checkpoint::Checkpoint;
use tvb::columns::plan::{Plan, Selection, Task};
use tvb::jobs::compress::{CodingWords, CompressOptions, Compressed, compress};
use tvb::pass::Runtime;
use tvb::progress::Silent;
use tvb_kernels::{Dtype, Rate};
use tvb_tests::small_models::Random;

pub(crate) fn runtime() -> Runtime {
    Runtime::on_cpu(2, 64 << 20)
}

/// A tensor: name, type, shape, values.
pub(crate) type Tensor = (String, Dtype, Vec<usize>, Vec<f64>);

/// Bytes as the type has them.
pub(crate) fn stored(values: &[f64], dtype: Dtype) -> Vec<u8> {
    let exact: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tvb_kernels::convert(&exact, Dtype::F64, dtype)
}

pub(crate) fn write(path: &Path, tensors: &[Tensor]) {
    let data: Vec<Vec<u8>> = tensors.iter().map(|(_, dtype, _, values)| stored(values, *dtype)).collect();
    let views = tensors.iter().zip(&data).map(|((name, dtype, shape, _), bytes)| {
        let dtype = match dtype {
            Dtype::F64 => safetensors::Dtype::F64,
            Dtype::F32 => safetensors::Dtype::F32,
            Dtype::F16 => safetensors::Dtype::F16,
            Dtype::Bf16 => safetensors::Dtype::BF16,
        };
        (name.as_str(), safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes).expect("a tensor"))
    });
    let bytes = safetensors::serialize(views.collect::<Vec<_>>(), None).expect("a safetensors file");
    std::fs::write(path, bytes).expect("written");
}

/// All float tensors of a checkpoint.
pub(crate) fn values_of(path: &Path) -> BTreeMap<String, Vec<f64>> {
    let checkpoint = Checkpoint::open(path).expect("a checkpoint");
    let values = |tensor: &tvb::checkpoint::Tensor| {
        let mut bytes = vec![0; tensor.n_bytes() as usize];
        checkpoint.read(tensor, 0, &mut bytes).expect("read");
        let exact = tvb_kernels::convert(&bytes, tensor.dtype.float().expect("a float"), Dtype::F64);
        exact.as_chunks::<8>().0.iter().map(|raw| f64::from_le_bytes(*raw)).collect()
    };
    checkpoint.tensors().iter().map(|tensor| (tensor.name.clone(), values(tensor))).collect()
}

/// What of a model is like.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) shape: &'static [usize],
    pub(crate) dtype: Dtype,
    /// Length of a delta's elements; 0 for a tensor that no task moves.
    pub(crate) delta: f64,
}

pub(crate) const fn kind(name: &'static str, shape: &'static [usize], dtype: Dtype, delta: f64) -> Kind {
    Kind { name, shape, dtype, delta }
}

/// Odd shapes in a bf16 base: tails of every kind, what is not coded, frozen ones in the middle and at the end.
pub(crate) const ODD: &[Kind] = &[
    kind("embed", &[257, 67], Dtype::Bf16, 0.1),
    kind("bias", &[300], Dtype::Bf16, 0.1),
    kind("frozen", &[40, 40], Dtype::Bf16, 0.0),
    kind("conv", &[3, 5, 7, 11], Dtype::F32, 0.02),
    kind("scale", &[], Dtype::F32, 0.1),
    kind("empty", &[0, 4], Dtype::F32, 0.1),
    kind("row", &[1, 256], Dtype::F16, 0.1),
    kind("head", &[130, 257], Dtype::F64, 0.1),
    kind("tiny", &[3, 3], Dtype::F32, 0.1),
    kind("last", &[64, 64], Dtype::Bf16, 0.0),
];

/// Writes a base and tasks `t0`, `t1`, … of it; answers their paths, the base first.
pub(crate) fn write_models(folder: &Path, kinds: &[Kind], n_tasks: usize, seed: u64) -> Vec<PathBuf> {
    let mut random = Random(seed);
    let n = |kind: &Kind| kind.shape.iter().product::<usize>();
    let base: Vec<Vec<f64>> =
        kinds.iter().map(|kind| (0..n(kind)).map(|_| f64::from(random.value())).collect()).collect();
    let mut paths = Vec::new();
    for column in 0..=n_tasks {
        let tensor = |(kind, base): (&Kind, &Vec<f64>), random: &mut Random| -> Tensor {
            let moved = |value: &f64, random: &mut Random| match column {
                0 => *value,
                _ if kind.delta == 0.0 => *value,
                _ => value + kind.delta * f64::from(random.value()),
            };
            let values = base.iter().map(|value| moved(value, random)).collect();
            (kind.name.to_owned(), kind.dtype, kind.shape.to_vec(), values)
        };
        let tensors: Vec<Tensor> = kinds.iter().zip(&base).map(|pair| tensor(pair, &mut random)).collect();
        let name = if column == 0 { "base".to_owned() } else { format!("t{}", column - 1) };
        let path = folder.join(format!("{name}.safetensors"));
        write(&path, &tensors);
        paths.push(path);
    }
    paths
}

/// The plan of these files.
pub(crate) fn plan(paths: &[PathBuf]) -> Plan {
    let task = |(index, path): (usize, &PathBuf)| Task {
        name: format!("t{index}"),
        checkpoint: Checkpoint::open(path).expect("a task"),
    };
    let tasks = paths[1..].iter().enumerate().map(task).collect();
    Plan::new(Checkpoint::open(&paths[0]).expect("a base"), tasks, &Selection::default()).expect("a plan")
}

/// Codes with the sum and these edits kept.
pub(crate) fn words(rate: Rate, kept_rate: Option<Rate>, keep: &[&str]) -> CodingWords {
    CodingWords {
        bits: Some(rate),
        keep_sum: Some(kept_rate),
        keep: keep.iter().map(|text| (*text).to_owned()).collect(),
    }
}

pub(crate) fn options(plan: &Plan, output: &Path, words: &CodingWords) -> CompressOptions {
    let names: Vec<String> = plan.tasks.iter().map(|task| task.name.clone()).collect();
    CompressOptions::new(output).coding(Some(words.options(&names, &[], 0x1_2345_6789).expect("codes")))
}

pub(crate) fn coded(plan: &Plan, output: &Path, words: &CodingWords) -> Compressed {
    compress(plan, &options(plan, output, words), &runtime(), &Silent).expect("a basis")
}
