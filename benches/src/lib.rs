//! Made-up checkpoints for a measurement: a base and fine-tunes as safetensors files, quickly and without any crate.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// What the tensors look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shapes {
    /// A vision transformer's blocks: a few large matrices and many small vectors.
    Vit,
    /// A language model's: an embedding of 50 257 tokens, then wider blocks, as in GPT-2-medium.
    Gpt2,
}

/// One block's tensors, over and over: ViT-B's, with its biases and norms.
const VIT: [(&str, &[usize]); 8] = [
    ("attn.in_proj_weight", &[2304, 768]),
    ("attn.in_proj_bias", &[2304]),
    ("attn.out_proj.weight", &[768, 768]),
    ("ln_1.weight", &[768]),
    ("mlp.c_fc.weight", &[3072, 768]),
    ("mlp.c_fc.bias", &[3072]),
    ("mlp.c_proj.weight", &[768, 3072]),
    ("mlp.c_proj.bias", &[768]),
];

/// What comes before GPT-2-medium's blocks.
const GPT2_EMBEDDINGS: [(&str, &[usize]); 2] = [("wte.weight", &[50257, 1024]), ("wpe.weight", &[1024, 1024])];

/// One of its blocks.
const GPT2: [(&str, &[usize]); 12] = [
    ("ln_1.weight", &[1024]),
    ("ln_1.bias", &[1024]),
    ("attn.c_attn.weight", &[1024, 3072]),
    ("attn.c_attn.bias", &[3072]),
    ("attn.c_proj.weight", &[1024, 1024]),
    ("attn.c_proj.bias", &[1024]),
    ("ln_2.weight", &[1024]),
    ("ln_2.bias", &[1024]),
    ("mlp.c_fc.weight", &[1024, 4096]),
    ("mlp.c_fc.bias", &[4096]),
    ("mlp.c_proj.weight", &[4096, 1024]),
    ("mlp.c_proj.bias", &[1024]),
];

/// Writes `base.safetensors`, `task000.safetensors`, … of `n_parameters` parameters in these shapes, and answers with their
/// paths, base first.
///
/// # Errors
/// Those of writing.
pub fn make_inputs(
    folder: &Path,
    n_tasks: usize,
    n_parameters: usize,
    is_bf16: bool,
    shapes: Shapes,
) -> std::io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)?;
    let tensors = tensors(n_parameters, shapes);
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
fn tensors(n_parameters: usize, shapes: Shapes) -> Vec<(String, Vec<usize>)> {
    let (before, block, blocks): (&[_], &[_], _) = match shapes {
        Shapes::Vit => (&[], &VIT, "blocks"),
        Shapes::Gpt2 => (&GPT2_EMBEDDINGS, &GPT2, "h"),
    };
    let before = before.iter().map(|(name, shape)| ((*name).to_owned(), *shape));
    let blocks = (0..).flat_map(|at| block.iter().map(move |(name, shape)| (format!("{blocks}.{at}.{name}"), *shape)));
    let mut left = n_parameters;
    let mut tensors = Vec::new();
    for (name, shape) in before.chain(blocks) {
        if left == 0 {
            break;
        }
        let n = shape.iter().product::<usize>();
        tensors.push((name, if n <= left { shape.to_vec() } else { vec![left] }));
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
