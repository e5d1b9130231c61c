//! The model: a small vision transformer that turns a 16×16 image into a unit vector, and a frozen table of unit
//! vectors, one per class word. An image belongs to the class whose word is nearest.
//!
//! ```text
//! pixels [n, 256] → 16 patches of 4×4 → tokens [n, 16, 32] → 2 blocks → norm → side by side [n, 512] → embedding [n, 64]
//! ```
//! Fine-tuning moves `visual.*` only, so a task vector lives in the encoder and any merged encoder can be asked about
//! every task.

use std::collections::BTreeMap;

use candle_core::{D, DType, Device, Tensor};

use crate::image::SIDE;
use crate::random::Stream;
use crate::tasks::words;
use crate::{Error, Result};

/// Pixels along one side of a patch.
pub const PATCH: usize = 4;
/// Tokens per image.
pub const N_TOKENS: usize = (SIDE / PATCH) * (SIDE / PATCH);
/// Width of a token.
pub const WIDTH: usize = 32;
/// Attention heads.
pub const N_HEADS: usize = 2;
/// Width of a block's hidden layer.
pub const HIDDEN: usize = 96;
/// Transformer blocks.
pub const N_BLOCKS: usize = 2;
/// Width of the embedding that images and words share.
pub const EMBED: usize = 64;
/// The frozen table of class words, `[n_words, EMBED]`.
pub const WORD_TABLE: &str = "text.word_embedding.weight";
/// The frozen logarithm of the factor on cosines before the softmax, shape `[]`.
pub const LOGIT_SCALE: &str = "logit_scale";
/// The integer buffer of patch indices, `[N_TOKENS]`.
pub const POSITION_IDS: &str = "visual.position_ids";

/// How a tensor starts before the base is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// Normal with this standard deviation.
    Normal(f32),
    /// All the same.
    Constant(f32),
    /// 0, 1, 2, …, as 64-bit integers.
    Counting,
}

/// One tensor of a checkpoint.
#[derive(Clone, Debug)]
pub struct TensorSpec {
    /// Name in the state dict.
    pub name: String,
    /// Shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// How it starts.
    pub start: Start,
}

impl TensorSpec {
    /// True for what fine-tuning moves.
    pub fn is_trained(&self) -> bool {
        self.name.starts_with("visual.") && self.start != Start::Counting
    }
}

/// Every tensor of a checkpoint, in the order of the forward pass.
pub fn layout() -> Vec<TensorSpec> {
    let mut specs = Vec::new();
    let mut add = |name: &str, shape: &[usize], start: Start| {
        specs.push(TensorSpec { name: name.to_owned(), shape: shape.to_vec(), start });
    };
    // Deviations of 1/√(inputs) keep the variance; what writes to the residual stream starts smaller.
    let keep = |n_inputs: usize| Start::Normal(1.0 / (n_inputs as f32).sqrt());
    let quiet = |n_inputs: usize| Start::Normal(0.4 / (n_inputs as f32).sqrt());
    let (ones, zeros) = (Start::Constant(1.0), Start::Constant(0.0));

    add("visual.conv1.weight", &[WIDTH, 1, PATCH, PATCH], keep(PATCH * PATCH));
    add("visual.conv1.bias", &[WIDTH], zeros);
    add("visual.positional_embedding", &[N_TOKENS, WIDTH], Start::Normal(0.3));
    add(POSITION_IDS, &[N_TOKENS], Start::Counting);
    for block in 0..N_BLOCKS {
        let mut add = |name: &str, shape: &[usize], start| add(&format!("visual.blocks.{block}.{name}"), shape, start);
        add("norm1.weight", &[WIDTH], ones);
        add("attn.qkv.weight", &[3 * WIDTH, WIDTH], keep(WIDTH));
        add("attn.proj.weight", &[WIDTH, WIDTH], quiet(WIDTH));
        add("norm2.weight", &[WIDTH], ones);
        add("mlp.fc1.weight", &[HIDDEN, WIDTH], keep(WIDTH));
        add("mlp.fc1.bias", &[HIDDEN], zeros);
        add("mlp.fc2.weight", &[WIDTH, HIDDEN], quiet(HIDDEN));
    }
    add("visual.norm_post.weight", &[WIDTH], ones);
    add("visual.proj.weight", &[EMBED, N_TOKENS * WIDTH], keep(N_TOKENS * WIDTH));
    add(WORD_TABLE, &[words().len(), EMBED], Start::Normal(1.0));
    add(LOGIT_SCALE, &[], Start::Constant(16.0_f32.ln()));
    specs
}

/// The tensors of one model by name: f32, but for the integer buffer.
pub type Tensors = BTreeMap<String, Tensor>;

/// A model that has learned nothing yet.
///
/// # Errors
/// Failed, where memory runs out.
pub fn untrained(seed: u64) -> Result<Tensors> {
    let mut tensors = Tensors::new();
    for spec in layout() {
        let mut random = Stream::named(seed, &["start", &spec.name]);
        let n_elements: usize = spec.shape.iter().product();
        let shape = spec.shape.as_slice();
        let tensor = match spec.start {
            Start::Normal(deviation) => {
                let values: Vec<f32> = (0..n_elements).map(|_| deviation * random.normal()).collect();
                Tensor::from_vec(values, shape, &Device::Cpu)?
            }
            Start::Constant(value) => Tensor::full(value, shape, &Device::Cpu)?,
            Start::Counting => Tensor::from_vec((0..n_elements as i64).collect::<Vec<_>>(), shape, &Device::Cpu)?,
        };
        tensors.insert(spec.name, tensor);
    }
    Ok(tensors)
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

/// The encoder and the word table, ready to run; shares storage with the tensors it was made from.
///
/// Training is mostly memory traffic at this size, and the tensor library sums gradients of broadcasts slowly. So
/// rows are repeated and summed by products with ones, and a norm's gain is multiplied into the next weight.
pub struct Model {
    conv1: Tensor,
    conv1_bias: Tensor,
    positions: Tensor,
    blocks: Vec<Block>,
    norm_post: Tensor,
    proj: Tensor,
    words: Tensor,
    scale: Tensor,
}

impl Model {
    /// The model of these tensors.
    ///
    /// # Errors
    /// Failed, naming a tensor that is missing (`checkpoint::read` has checked names and shapes).
    pub fn new(tensors: &Tensors) -> Result<Self> {
        let get =
            |name: &str| tensors.get(name).cloned().ok_or_else(|| Error::failed(format!("tensor {name} is missing")));
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
