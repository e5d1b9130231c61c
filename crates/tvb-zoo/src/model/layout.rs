//! What a checkpoint holds: every tensor's name, its shape, and how it starts before training.

use crate::image::SIDE;
use crate::tasks::words;

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
