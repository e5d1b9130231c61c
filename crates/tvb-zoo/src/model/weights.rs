//! The encoder's weights, arranged for the forward pass: matrices of fixed size, each head by itself.

use crate::model::layout::{EMBED, HIDDEN, N_BLOCKS, N_HEADS, N_TOKENS, PATCH, WIDTH};
use crate::model::tensors::Tensors;
use crate::{Error, Result};

/// Pixels of one patch.
pub(super) const PATCH_PIXELS: usize = PATCH * PATCH;
/// Width of one attention head.
pub(super) const HEAD: usize = WIDTH / N_HEADS;
/// All tokens of an image side by side.
pub(super) const ALL_TOKENS: usize = N_TOKENS * WIDTH;

/// One row per output, of one weight per input.
pub(super) type Matrix<const N_INPUTS: usize, const N_OUTPUTS: usize> = Box<[[f32; N_INPUTS]; N_OUTPUTS]>;

/// The encoder; the gain of every norm is multiplied into the weights that follow it.
pub(super) struct Weights {
    /// A convolution whose stride is its size is a product with each patch.
    pub(super) conv1: Matrix<PATCH_PIXELS, WIDTH>,
    /// Where each token starts before its patch is added: the positional embedding and the convolution's bias.
    pub(super) places: Matrix<WIDTH, N_TOKENS>,
    pub(super) blocks: Vec<Block>,
    pub(super) proj: Matrix<ALL_TOKENS, EMBED>,
}

/// One transformer block.
pub(super) struct Block {
    pub(super) heads: Vec<Head>,
    pub(super) fc1: Matrix<WIDTH, HIDDEN>,
    pub(super) fc1_bias: [f32; HIDDEN],
    pub(super) fc2: Matrix<HIDDEN, WIDTH>,
}

/// One attention head.
pub(super) struct Head {
    /// Already divided by √HEAD.
    pub(super) query: Matrix<WIDTH, HEAD>,
    pub(super) key: Matrix<WIDTH, HEAD>,
    pub(super) value: Matrix<WIDTH, HEAD>,
    /// This head's part of the projection back to the token.
    pub(super) proj: Matrix<HEAD, WIDTH>,
}

impl Weights {
    /// The weights of these tensors.
    ///
    /// # Errors
    /// Failed, naming a tensor that is missing or has another size.
    pub(super) fn new(tensors: &Tensors) -> Result<Self> {
        let bias: [f32; WIDTH] = row(floats(tensors, "visual.conv1.bias", WIDTH)?, 0);
        let mut places: Matrix<WIDTH, N_TOKENS> = matrix(tensors, "visual.positional_embedding")?;
        for place in places.iter_mut() {
            *place = std::array::from_fn(|index| place[index] + bias[index]);
        }
        let norm_post = floats(tensors, "visual.norm_post.weight", WIDTH)?;
        let mut proj: Matrix<ALL_TOKENS, EMBED> = matrix(tensors, "visual.proj.weight")?;
        for weights in proj.as_flattened_mut().chunks_exact_mut(WIDTH) {
            multiply(weights, norm_post);
        }
        Ok(Self {
            conv1: matrix(tensors, "visual.conv1.weight")?,
            places,
            blocks: (0..N_BLOCKS).map(|index| Block::new(tensors, index)).collect::<Result<_>>()?,
            proj,
        })
    }
}

impl Block {
    fn new(tensors: &Tensors, index: usize) -> Result<Self> {
        let name = |part: &str| format!("visual.blocks.{index}.{part}");
        let mut qkv: Matrix<WIDTH, { 3 * WIDTH }> = matrix(tensors, &name("attn.qkv.weight"))?;
        let norm1 = floats(tensors, &name("norm1.weight"), WIDTH)?;
        qkv.iter_mut().for_each(|weights| multiply(weights, norm1));
        let mut fc1: Matrix<WIDTH, HIDDEN> = matrix(tensors, &name("mlp.fc1.weight"))?;
        let norm2 = floats(tensors, &name("norm2.weight"), WIDTH)?;
        fc1.iter_mut().for_each(|weights| multiply(weights, norm2));
        let attn_proj: Matrix<WIDTH, WIDTH> = matrix(tensors, &name("attn.proj.weight"))?;

        let part = |index: usize, head: usize, factor: f32| -> Matrix<WIDTH, HEAD> {
            let first = index * WIDTH + head * HEAD;
            Box::new(std::array::from_fn(|output| qkv[first + output].map(|weight| weight * factor)))
        };
        let head = |head: usize| Head {
            query: part(0, head, 1.0 / (HEAD as f32).sqrt()),
            key: part(1, head, 1.0),
            value: part(2, head, 1.0),
            proj: Box::new(std::array::from_fn(|output| row(&attn_proj[output], head * HEAD))),
        };
        Ok(Self {
            heads: (0..N_HEADS).map(head).collect(),
            fc1,
            fc1_bias: row(floats(tensors, &name("mlp.fc1.bias"), HIDDEN)?, 0),
            fc2: matrix(tensors, &name("mlp.fc2.weight"))?,
        })
    }
}

/// The parameters of the tensor of this name, which has `n_elements`.
///
/// # Errors
/// Failed, where it is missing or has another size (`checkpoint::read` has checked both).
pub(super) fn floats<'a>(tensors: &'a Tensors, name: &str, n_elements: usize) -> Result<&'a [f32]> {
    let values = tensors.get(name).and_then(|tensor| tensor.floats());
    let values = values.ok_or_else(|| Error::failed(format!("tensor {name} is missing")))?;
    if values.len() != n_elements {
        return Err(Error::failed(format!("tensor {name}: expected {n_elements} elements, found {}", values.len())));
    }
    Ok(values)
}

fn matrix<const N_INPUTS: usize, const N_OUTPUTS: usize>(
    tensors: &Tensors,
    name: &str,
) -> Result<Matrix<N_INPUTS, N_OUTPUTS>> {
    let values = floats(tensors, name, N_INPUTS * N_OUTPUTS)?;
    Ok(Box::new(std::array::from_fn(|output| row(values, output * N_INPUTS))))
}

/// `N` values from `start`; there are as many.
fn row<const N: usize>(values: &[f32], start: usize) -> [f32; N] {
    std::array::from_fn(|index| values[start + index])
}

fn multiply(weights: &mut [f32], gains: &[f32]) {
    for (weight, gain) in weights.iter_mut().zip(gains) {
        *weight *= gain;
    }
}
