//! Small random models for tests of whole runs: bases and fine-tunes with any shapes, types and shards, from a seed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A seeded generator (SplitMix64): the same numbers on every machine.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n.max(1) as u64) as usize
    }

    /// A number from −1 to 1.
    pub fn value(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// f32
    F32,
    /// f16
    F16,
    /// bf16
    Bf16,
}

/// One tensor of a model.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// How it is stored.
    pub stored: Stored,
}

/// f32 tensors called `t0`, `t1`, …
pub fn shapes(shapes: &[&[usize]]) -> Vec<Shape> {
    let shape = |(index, shape): (usize, &&[usize])| Shape {
        name: format!("t{index}"),
        shape: shape.to_vec(),
        stored: Stored::F32,
    };
    shapes.iter().enumerate().map(shape).collect()
}

/// Values of every tensor.
pub type Values = Vec<Vec<f32>>;

/// A base's values, and those of `n_tasks` fine-tunes near it.
pub fn values(shapes: &[Shape], n_tasks: usize, random: &mut Random) -> (Values, Vec<Values>) {
    let n = |shape: &Shape| shape.shape.iter().product::<usize>();
    let base: Values = shapes.iter().map(|shape| (0..n(shape)).map(|_| random.value()).collect()).collect();
    // Tasks that share a direction, as fine-tunes of one base do.
    let shared: Values = shapes.iter().map(|shape| (0..n(shape)).map(|_| random.value() * 0.05).collect()).collect();
    let tasks = (0..n_tasks).map(|task| {
        let tensors = base.iter().zip(&shared);
        let tensor = |(base, shared): (&Vec<f32>, &Vec<f32>), random: &mut Random| -> Vec<f32> {
            let strength = 0.3 + task as f32 * 0.2;
            base.iter().zip(shared).map(|(b, s)| b + s * strength + random.value() * 0.05).collect()
        };
        tensors.map(|pair| tensor(pair, random)).collect()
    });
    let tasks = tasks.collect();
    (base, tasks)
}

fn bytes(values: &[f32], stored: Stored) -> Vec<u8> {
    match stored {
        Stored::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Stored::F16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
        Stored::Bf16 => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
    }
}

/// Writes tensors `which` of a model into one safetensors file.
fn write_file(path: &Path, shapes: &[Shape], values: &Values, which: &[usize]) {
    let data: Vec<(usize, Vec<u8>)> = which.iter().map(|&i| (i, bytes(&values[i], shapes[i].stored))).collect();
    let views = data.iter().map(|(i, data)| {
        let dtype = match shapes[*i].stored {
            Stored::F32 => safetensors::Dtype::F32,
            Stored::F16 => safetensors::Dtype::F16,
            Stored::Bf16 => safetensors::Dtype::BF16,
        };
        let view = safetensors::tensor::TensorView::new(dtype, shapes[*i].shape.clone(), data).expect("a tensor");
        (shapes[*i].name.as_str(), view)
    });
    let bytes = safetensors::serialize(views.collect::<Vec<_>>(), None).expect("a safetensors file");
    std::fs::write(path, bytes).expect("written");
}

/// Writes a model as one file, or with `n_shards` > 1 as a folder with an index; answers its path.
pub fn write_model(folder: &Path, name: &str, shapes: &[Shape], values: &Values, n_shards: usize) -> PathBuf {
    if n_shards <= 1 {
        let path = folder.join(format!("{name}.safetensors"));
        write_file(&path, shapes, values, &(0..shapes.len()).collect::<Vec<_>>());
        return path;
    }
    let path = folder.join(name);
    std::fs::create_dir_all(&path).expect("a folder");
    let mut homes = BTreeMap::new();
    for shard in 0..n_shards {
        let which: Vec<usize> = (0..shapes.len()).filter(|index| index % n_shards == shard).collect();
        if which.is_empty() {
            continue;
        }
        let file = format!("model-{:05}-of-{n_shards:05}.safetensors", shard + 1);
        write_file(&path.join(&file), shapes, values, &which);
        which.iter().for_each(|&index| drop(homes.insert(shapes[index].name.clone(), file.clone())));
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": homes });
    std::fs::write(path.join("model.safetensors.index.json"), index.to_string()).expect("written");
    path
}

/// A base and fine-tunes on disk.
#[derive(Debug)]
pub struct Run {
    /// The base.
    pub base: PathBuf,
    /// The fine-tunes: `task0`, `task1`, …
    pub tasks: Vec<PathBuf>,
}

/// Writes a run of f32 models with these shapes into `folder`.
pub fn write_run(folder: &Path, shape_list: &[&[usize]], n_tasks: usize, seed: u64) -> Run {
    let shapes = shapes(shape_list);
    let (base, tasks) = values(&shapes, n_tasks, &mut Random(seed));
    let task = |(index, values): (usize, &Values)| write_model(folder, &format!("task{index}"), &shapes, values, 1);
    Run { base: write_model(folder, "base", &shapes, &base, 1), tasks: tasks.iter().enumerate().map(task).collect() }
}

/// Every file below `folder` with its bytes.
pub fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(
                contents(&path)
                    .into_iter()
                    .map(|(inner, bytes)| (Path::new(path.file_name().expect("a name")).join(inner), bytes)),
            );
        } else {
            found.insert(path.file_name().expect("a name").into(), std::fs::read(&path).expect("read"));
        }
    }
    found
}
