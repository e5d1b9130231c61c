//! Made-up checkpoints for a measurement: a base and fine-tunes as safetensors files, quickly and without any crate.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// One block's tensors, over and over: ViT-B's, with its biases and norms.
const SHAPES: [(&str, &[usize]); 8] = [
    ("attn.in_proj_weight", &[2304, 768]),
    ("attn.in_proj_bias", &[2304]),
    ("attn.out_proj.weight", &[768, 768]),
    ("ln_1.weight", &[768]),
    ("mlp.c_fc.weight", &[3072, 768]),
    ("mlp.c_fc.bias", &[3072]),
    ("mlp.c_proj.weight", &[768, 3072]),
    ("mlp.c_proj.bias", &[768]),
];

/// Writes `base.safetensors`, `task000.safetensors`, … of `n_parameters` parameters in the shapes of a vision transformer's
/// blocks, a few large matrices and many small vectors, and answers with their paths, base first.
///
/// # Errors
/// Those of writing.
pub fn make_inputs(folder: &Path, n_tasks: usize, n_parameters: usize, is_bf16: bool) -> std::io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)?;
    let tensors = tensors(n_parameters);
    let tasks = (0..n_tasks).map(|task| format!("task{task:03}.safetensors"));
    let names = std::iter::once("base.safetensors".to_owned()).chain(tasks);
    names
        .enumerate()
        .map(|(column, name)| {
            let path = folder.join(name);
            write(&path, &tensors, column as u32, is_bf16)?;
            Ok(path)
        })
        .collect()
}

/// Names and shapes of `n_parameters` parameters; the last tensor takes what is left.
fn tensors(n_parameters: usize) -> Vec<(String, Vec<usize>)> {
    let mut tensors = Vec::new();
    let mut left = n_parameters;
    while left > 0 {
        let (name, shape) = SHAPES[tensors.len() % SHAPES.len()];
        let n = shape.iter().product::<usize>();
        let shape = if n <= left { shape.to_vec() } else { vec![left] };
        tensors.push((format!("blocks.{}.{name}", tensors.len() / SHAPES.len()), shape));
        left -= n.min(left);
    }
    tensors
}

fn write(path: &Path, tensors: &[(String, Vec<usize>)], column: u32, is_bf16: bool) -> std::io::Result<()> {
    let (size, dtype) = if is_bf16 { (2, "BF16") } else { (4, "F32") };
    let mut json = String::from("{\"__metadata__\":{\"format\":\"pt\"}");
    let mut begin = 0;
    for (name, shape) in tensors {
        let end = begin + shape.iter().product::<usize>() * size;
        let _ =
            write!(json, ",\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{begin},{end}]}}");
        begin = end;
    }
    json.push('}');
    while json.len() % 8 != 0 {
        json.push(' ');
    }
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    out.write_all(&(json.len() as u64).to_le_bytes())?;
    out.write_all(json.as_bytes())?;
    for row in 0..begin / size {
        let value = value(row as u32, column);
        match is_bf16 {
            true => out.write_all(&value.to_le_bytes()[2..])?,
            false => out.write_all(&value.to_le_bytes())?,
        }
    }
    out.flush()
}

/// The base's value, or one a few hundredths of it away.
fn value(row: u32, column: u32) -> f32 {
    let base = 0.05 * noise(row);
    if column == 0 { base } else { base + 0.002 * noise(row.wrapping_add(column.wrapping_mul(0x9e37_79b9))) }
}

/// A number in (−1, 1) for a place.
fn noise(place: u32) -> f32 {
    let mut x = place ^ 0x1656_67b1;
    x = (x ^ (x >> 16)).wrapping_mul(0x45d9_f3b3);
    x = (x ^ (x >> 16)).wrapping_mul(0x45d9_f3b3);
    x ^= x >> 16;
    (x >> 8) as f32 / (1u32 << 23) as f32 - 1.0
}
