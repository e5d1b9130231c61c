//! The model a second time, as a graph of the tensor library that gradients can be taken of. `model/` is how it is
//! evaluated.

use std::collections::BTreeMap;

use candle_core::{D, DType, Device, Tensor};

use crate::image::SIDE;
use crate::model::{
    Elements, LOGIT_SCALE, N_BLOCKS, N_HEADS, N_TOKENS, PATCH, Tensor as Plain, Tensors, WIDTH, WORD_TABLE,
};
use crate::{Error, Result};

/// The tensors of one model by name, in the tensor library's form.
pub type Variables = BTreeMap<String, Tensor>;

/// A model in the tensor library's form.
///
/// # Errors
/// Failed, where a shape does not fit its elements.
pub fn variables(tensors: &Tensors) -> Result<Variables> {
    let convert = |tensor: &Plain| {
        let shape = tensor.shape.as_slice();
        match &tensor.elements {
            Elements::F32(values) => Tensor::from_slice(values, shape, &Device::Cpu),
            Elements::I64(values) => Tensor::from_slice(values, shape, &Device::Cpu),
        }
    };
    tensors.iter().map(|(name, tensor)| Ok((name.clone(), convert(tensor)?))).collect()
}

/// A model in plain form.
///
/// # Errors
/// Failed, from the tensor library.
pub(super) fn tensors(variables: &Variables) -> Result<Tensors> {
    let convert = |variable: &Tensor| -> Result<Plain> {
        let flat = variable.flatten_all()?;
        let elements = match variable.dtype() {
            DType::I64 => Elements::I64(flat.to_vec1()?),
            _ => Elements::F32(flat.to_vec1()?),
        };
        Ok(Plain { shape: variable.dims().to_vec(), elements })
    };
    variables.iter().map(|(name, variable)| Ok((name.clone(), convert(variable)?))).collect()
}

struct Block {
    /// `[3·WIDTH, WIDTH]`, the gain of the norm before it folded in.
    qkv: Tensor,
    attn_proj: Tensor,
    /// `[HIDDEN, WIDTH]`, the gain of the norm before it folded in.
    fc1: Tensor,
    fc1_bias: Tensor,
    fc2: Tensor,
}

/// The encoder and the word table; shares storage with the variables it was made from.
///
/// Training is mostly memory traffic at this size, and the tensor library sums gradients of broadcasts slowly. So
/// rows are repeated and summed by products with ones, and a norm's gain is multiplied into the next weight.
pub struct Graph {
    conv1: Tensor,
    conv1_bias: Tensor,
    positions: Tensor,
    blocks: Vec<Block>,
    norm_post: Tensor,
    proj: Tensor,
    words: Tensor,
    scale: Tensor,
}

impl Graph {
    /// The model of these variables.
    ///
    /// # Errors
    /// Failed, naming a tensor that is missing (`checkpoint::read` has checked names and shapes).
    pub fn new(variables: &Variables) -> Result<Self> {
        let get =
            |name: &str| variables.get(name).cloned().ok_or_else(|| Error::failed(format!("tensor {name} is missing")));
        let block = |index: usize| -> Result<Block> {
            let get = |name: &str| get(&format!("visual.blocks.{index}.{name}"));
            Ok(Block {
                qkv: get("attn.qkv.weight")?.broadcast_mul(&get("norm1.weight")?)?,
                attn_proj: get("attn.proj.weight")?,
                fc1: get("mlp.fc1.weight")?.broadcast_mul(&get("norm2.weight")?)?,
                fc1_bias: get("mlp.fc1.bias")?,
                fc2: get("mlp.fc2.weight")?,
            })
        };
        Ok(Self {
            // A convolution whose stride is its size is a product with each patch.
            conv1: get("visual.conv1.weight")?.reshape((WIDTH, PATCH * PATCH))?,
            conv1_bias: get("visual.conv1.bias")?,
            positions: get("visual.positional_embedding")?,
            blocks: (0..N_BLOCKS).map(block).collect::<Result<_>>()?,
            norm_post: get("visual.norm_post.weight")?,
            proj: get("visual.proj.weight")?,
            words: get(WORD_TABLE)?,
            scale: get(LOGIT_SCALE)?.exp()?,
        })
    }

    /// Unit vectors `[n, EMBED]` of images `[n, 256]`.
    ///
    /// # Errors
    /// Failed, from the tensor library.
    pub fn encode(&self, pixels: &Tensor) -> Result<Tensor> {
        let n_images = pixels.dim(0)?;
        let n_patches = SIDE / PATCH;
        let patches = pixels
            .reshape((n_images, n_patches, PATCH, n_patches, PATCH))?
            .transpose(2, 3)?
            .contiguous()?
            .reshape((n_images * N_TOKENS, PATCH * PATCH))?;
        // Pixels 0..1 to -1..1.
        let patches = patches.affine(2.0, -1.0)?;
        let places = self.positions.broadcast_add(&self.conv1_bias)?;
        let places = repeat(&places.flatten_all()?, n_images)?.reshape((n_images * N_TOKENS, WIDTH))?;
        let mut tokens = (linear(&patches, &self.conv1)? + places)?;
        for block in &self.blocks {
            tokens = (&tokens + block.attend(&standardise(&tokens)?, n_images)?)?;
            let hidden = linear(&standardise(&tokens)?, &block.fc1)?;
            let hidden = (&hidden + repeat(&block.fc1_bias, n_images * N_TOKENS)?)?.relu()?;
            tokens = (tokens + linear(&hidden, &block.fc2)?)?;
        }
        let rows = standardise(&tokens)?.reshape((n_images, N_TOKENS * WIDTH))?;
        let gains = self.norm_post.repeat(N_TOKENS)?;
        unit_rows(&linear(&rows, &self.proj.broadcast_mul(&gains)?)?)
    }

    /// Scaled cosines `[n, n_classes]` of images `[n, 256]` with the words in these rows of the table.
    ///
    /// # Errors
    /// Failed, from the tensor library.
    pub fn logits(&self, pixels: &Tensor, word_rows: &Tensor) -> Result<Tensor> {
        let words = unit_rows(&self.words.index_select(word_rows, 0)?)?;
        linear(&self.encode(pixels)?, &words.broadcast_mul(&self.scale)?)
    }
}

impl Block {
    /// Self-attention over the tokens of each image: standardised tokens `[n·16, WIDTH]` to the same shape.
    ///
    /// One head after the other: slices of the weights are small, transposed activations would not be.
    fn attend(&self, standardised: &Tensor, n_images: usize) -> Result<Tensor> {
        const HEAD: usize = WIDTH / N_HEADS;
        let mut mixed: Option<Tensor> = None;
        for head in 0..N_HEADS {
            let part = |index: usize| -> Result<Tensor> {
                let weight = self.qkv.narrow(0, index * WIDTH + head * HEAD, HEAD)?;
                Ok(linear(standardised, &weight)?.reshape((n_images, N_TOKENS, HEAD))?)
            };
            let (query, key, value) = (part(0)?, part(1)?, part(2)?);
            let scores = query.affine(1.0 / (HEAD as f64).sqrt(), 0.0)?.matmul(&key.t()?)?;
            let seen = softmax(&scores)?.matmul(&value)?.reshape((n_images * N_TOKENS, HEAD))?;
            let written = linear(&seen, &self.attn_proj.narrow(1, head * HEAD, HEAD)?)?;
            mixed = Some(match mixed {
                Some(mixed) => (mixed + written)?,
                None => written,
            });
        }
        mixed.ok_or_else(|| Error::failed("a block has no attention heads"))
    }
}

/// x·Wᵀ.
fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    Ok(x.matmul(&weight.t()?)?)
}

/// The row `[width]`, `n_rows` times.
fn repeat(row: &Tensor, n_rows: usize) -> Result<Tensor> {
    Ok(Tensor::ones((n_rows, 1), DType::F32, &Device::Cpu)?.matmul(&row.unsqueeze(0)?)?)
}

/// Softmax over the last axis of `[n, 16, 16]`. The largest score is subtracted as a constant: its gradient would
/// cancel.
fn softmax(scores: &Tensor) -> Result<Tensor> {
    let dims = scores.dims3()?;
    let powers = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    let ones = Tensor::ones((dims.2, dims.2), DType::F32, &Device::Cpu)?;
    let powers = powers.reshape((dims.0 * dims.1, dims.2))?;
    Ok((&powers / powers.matmul(&ones)?)?.reshape(dims)?)
}

/// Rows divided by √(factor · Σ x² + floor).
fn scale_rows(x: &Tensor, factor: f64, floor: f64) -> Result<Tensor> {
    let width = x.dim(1)?;
    let sums = x.sqr()?.matmul(&Tensor::full(factor as f32, (width, 1), &Device::Cpu)?)?;
    let inverse = sums.affine(1.0, floor)?.sqrt()?.recip()?;
    Ok((x * inverse.matmul(&Tensor::ones((1, width), DType::F32, &Device::Cpu)?)?)?)
}

/// Rows of mean square 1: a root-mean-square norm without its gain.
fn standardise(x: &Tensor) -> Result<Tensor> {
    scale_rows(x, 1.0 / WIDTH as f64, 1e-5)
}

/// Rows scaled to length 1.
fn unit_rows(x: &Tensor) -> Result<Tensor> {
    scale_rows(x, 1.0, 1e-12)
}

/// A batch of images as a tensor `[n, 256]`.
///
/// # Errors
/// Failed, where memory runs out.
pub fn pixels_tensor(pixels: &[f32]) -> Result<Tensor> {
    let n_images = pixels.len() / (SIDE * SIDE);
    Ok(Tensor::from_slice(pixels, (n_images, SIDE * SIDE), &Device::Cpu)?)
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        // candle appends a backtrace on further lines where one is enabled; a user needs the first only.
        let text = error.to_string();
        Self::failed(text.lines().next().unwrap_or("tensor arithmetic failed"))
    }
}
