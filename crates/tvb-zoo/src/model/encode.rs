//! The encoder's forward pass, on one vector's worth of images at a time.
//!
//! The inner loops count with `while`: the dev profile inlines no iterators, and tests evaluate a great deal.

use pulp::{Simd, WithSimd};

use crate::image::{N_PIXELS, SIDE};
use crate::model::lanes::Lanes;
use crate::model::layout::{EMBED, HIDDEN, N_TOKENS, PATCH, WIDTH};
use crate::model::weights::{ALL_TOKENS, Block, HEAD, Head, PATCH_PIXELS, Weights};

/// `N` numbers of every token of an image.
type Rows<S, const N: usize> = [[Lanes<S>; N]; N_TOKENS];

/// Outputs of a product that are summed up together.
const TILE: usize = 4;

/// Images in the widest vector there is.
const MOST_LANES: usize = 16;

/// Turns images into unit vectors, on the processor's widest vectors.
pub(super) struct Encode<'a> {
    pub(super) weights: &'a Weights,
    /// `[n_images, 256]`
    pub(super) pixels: &'a [f32],
    /// `[n_images, EMBED]`, overwritten.
    pub(super) embeddings: &'a mut [f32],
}

impl WithSimd for Encode<'_> {
    type Output = ();

    // Everything is inlined into this function, which alone is compiled for the instruction set.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        const { assert!(S::F32_LANES <= MOST_LANES) };
        let n_images = Lanes::<S>::COUNT;
        let images = self.pixels.chunks(n_images * N_PIXELS);
        let mut buffers = Buffers::new(simd);
        for (pixels, embeddings) in images.zip(self.embeddings.chunks_mut(n_images * EMBED)) {
            buffers.gather(simd, pixels);
            buffers.encode(simd, self.weights);
            buffers.scatter(embeddings);
        }
    }
}

/// What the forward pass of one vector's worth of images works on.
struct Buffers<S: Simd> {
    patches: Rows<S, PATCH_PIXELS>,
    tokens: Rows<S, WIDTH>,
    /// The tokens standardised.
    rows: Rows<S, WIDTH>,
    /// One head's queries; then what each of them sees.
    queries: Rows<S, HEAD>,
    keys: Rows<S, HEAD>,
    values: Rows<S, HEAD>,
    embedding: [Lanes<S>; EMBED],
}

impl<S: Simd> Buffers<S> {
    #[inline(always)]
    fn new(simd: S) -> Self {
        let zero = Lanes::splat(simd, 0.0);
        let of_head = [[zero; HEAD]; N_TOKENS];
        Self {
            patches: [[zero; PATCH_PIXELS]; N_TOKENS],
            tokens: [[zero; WIDTH]; N_TOKENS],
            rows: [[zero; WIDTH]; N_TOKENS],
            queries: of_head,
            keys: of_head,
            values: of_head,
            embedding: [zero; EMBED],
        }
    }

    /// Takes the patches of these images, with pixels 0..1 made -1..1.
    #[inline(always)]
    fn gather(&mut self, simd: S, pixels: &[f32]) {
        let n_images = pixels.len() / N_PIXELS;
        // One pixel of every image.
        let mut levels = [0.0; MOST_LANES];
        for (token, patch) in self.patches.iter_mut().enumerate() {
            let (top, left) = (token / (SIDE / PATCH) * PATCH, token % (SIDE / PATCH) * PATCH);
            for (index, pixel) in patch.iter_mut().enumerate() {
                let place = (top + index / PATCH) * SIDE + left + index % PATCH;
                let mut image = 0;
                while image < n_images {
                    levels[image] = 2.0 * pixels[image * N_PIXELS + place] - 1.0;
                    image += 1;
                }
                *pixel = Lanes::load(simd, &levels[..n_images]);
            }
        }
    }

    /// Writes the embedding of each image.
    #[inline(always)]
    fn scatter(&self, embeddings: &mut [f32]) {
        let n_images = embeddings.len() / EMBED;
        let mut values = [0.0; MOST_LANES];
        for (index, lanes) in self.embedding.iter().enumerate() {
            lanes.store(&mut values[..Lanes::<S>::COUNT]);
            let mut image = 0;
            while image < n_images {
                embeddings[image * EMBED + index] = values[image];
                image += 1;
            }
        }
    }

    #[inline(always)]
    fn encode(&mut self, simd: S, weights: &Weights) {
        for (token, place) in self.tokens.as_flattened_mut().iter_mut().zip(weights.places.as_flattened()) {
            *token = Lanes::splat(simd, *place);
        }
        product::<S, true, _, _>(simd, &weights.conv1, &self.patches, &mut self.tokens);
        for block in &weights.blocks {
            self.standardise(simd);
            for head in &block.heads {
                self.attend(simd, head);
            }
            self.standardise(simd);
            self.add_hidden(simd, block);
        }
        self.standardise(simd);
        let side_by_side = self.rows.as_flattened().as_chunks::<ALL_TOKENS>().0;
        let embedding = core::slice::from_mut(&mut self.embedding);
        product::<S, false, _, _>(simd, &weights.proj, side_by_side, embedding);
        let inverse = (sum_of_squares(simd, &self.embedding) + Lanes::splat(simd, 1e-12)).sqrt().reciprocal();
        for value in &mut self.embedding {
            *value = *value * inverse;
        }
    }

    /// Makes `rows` the tokens with mean square 1: a root-mean-square norm without its gain.
    #[inline(always)]
    fn standardise(&mut self, simd: S) {
        let (share, floor) = (Lanes::splat(simd, 1.0 / WIDTH as f32), Lanes::splat(simd, 1e-5));
        for (row, token) in self.rows.iter_mut().zip(&self.tokens) {
            let inverse = (sum_of_squares(simd, token) * share + floor).sqrt().reciprocal();
            let mut index = 0;
            while index < WIDTH {
                row[index] = token[index] * inverse;
                index += 1;
            }
        }
    }

    /// Adds what one head sees to the tokens.
    #[inline(always)]
    fn attend(&mut self, simd: S, head: &Head) {
        let Self { rows, queries, keys, values, tokens, .. } = self;
        product::<S, false, _, _>(simd, &head.query, rows, queries);
        product::<S, false, _, _>(simd, &head.key, rows, keys);
        product::<S, false, _, _>(simd, &head.value, rows, values);
        for query in queries.iter_mut() {
            let powers = softmax(simd, scores(simd, query, keys));
            *query = mixed(simd, &powers, values);
        }
        product::<S, true, _, _>(simd, &head.proj, queries, tokens);
    }

    /// Adds what the hidden layer makes of each token, two tokens at a time so that the layer stays in the cache.
    #[inline(always)]
    fn add_hidden(&mut self, simd: S, block: &Block) {
        let zero = Lanes::splat(simd, 0.0);
        let mut hidden = [[zero; HIDDEN]; 2];
        for (rows, tokens) in self.rows.chunks_exact(2).zip(self.tokens.chunks_exact_mut(2)) {
            product::<S, false, _, _>(simd, &block.fc1, rows, &mut hidden);
            for hidden in &mut hidden {
                let mut index = 0;
                while index < HIDDEN {
                    hidden[index] = (hidden[index] + Lanes::splat(simd, block.fc1_bias[index])).max(zero);
                    index += 1;
                }
            }
            product::<S, true, _, _>(simd, &block.fc2, &hidden, tokens);
        }
    }
}

/// A query's products with every key.
#[inline(always)]
fn scores<S: Simd>(simd: S, query: &[Lanes<S>; HEAD], keys: &Rows<S, HEAD>) -> [Lanes<S>; N_TOKENS] {
    let mut scores = [Lanes::splat(simd, 0.0); N_TOKENS];
    let mut token = 0;
    while token < N_TOKENS {
        let mut index = 0;
        while index < HEAD {
            scores[token] = scores[token] + query[index] * keys[token][index];
            index += 1;
        }
        token += 1;
    }
    scores
}

/// Positive weights that sum up to 1.
#[inline(always)]
fn softmax<S: Simd>(simd: S, scores: [Lanes<S>; N_TOKENS]) -> [Lanes<S>; N_TOKENS] {
    let mut highest = scores[0];
    let mut token = 1;
    while token < N_TOKENS {
        highest = highest.max(scores[token]);
        token += 1;
    }
    let (mut powers, mut sum) = (scores, Lanes::splat(simd, 0.0));
    token = 0;
    while token < N_TOKENS {
        powers[token] = (scores[token] - highest).exp();
        sum = sum + powers[token];
        token += 1;
    }
    let inverse = sum.reciprocal();
    token = 0;
    while token < N_TOKENS {
        powers[token] = powers[token] * inverse;
        token += 1;
    }
    powers
}

/// The values under these weights.
#[inline(always)]
fn mixed<S: Simd>(simd: S, weights: &[Lanes<S>; N_TOKENS], values: &Rows<S, HEAD>) -> [Lanes<S>; HEAD] {
    let mut sums = [Lanes::splat(simd, 0.0); HEAD];
    let mut token = 0;
    while token < N_TOKENS {
        let mut index = 0;
        while index < HEAD {
            sums[index] = sums[index] + weights[token] * values[token][index];
            index += 1;
        }
        token += 1;
    }
    sums
}

#[inline(always)]
fn sum_of_squares<S: Simd, const N: usize>(simd: S, row: &[Lanes<S>; N]) -> Lanes<S> {
    let mut sum = Lanes::splat(simd, 0.0);
    let mut index = 0;
    while index < N {
        sum = sum + row[index] * row[index];
        index += 1;
    }
    sum
}

/// W·x of each row x of `inputs`: added to the row of `outputs` where `ADDS`, else put in its place.
#[inline(always)]
fn product<S: Simd, const ADDS: bool, const N_INPUTS: usize, const N_OUTPUTS: usize>(
    simd: S,
    weights: &[[f32; N_INPUTS]; N_OUTPUTS],
    inputs: &[[Lanes<S>; N_INPUTS]],
    outputs: &mut [[Lanes<S>; N_OUTPUTS]],
) {
    let mut row = 0;
    while row + 2 <= inputs.len() {
        let (from, to) = ([&inputs[row], &inputs[row + 1]], &mut outputs[row..row + 2]);
        product_of_rows::<S, ADDS, 2, N_INPUTS, N_OUTPUTS>(simd, weights, from, to);
        row += 2;
    }
    if row < inputs.len() {
        product_of_rows::<S, ADDS, 1, N_INPUTS, N_OUTPUTS>(simd, weights, [&inputs[row]], &mut outputs[row..]);
    }
}

/// The product by tiles whose sums stay in registers: `N_ROWS` rows by 4 outputs.
#[inline(always)]
fn product_of_rows<S: Simd, const ADDS: bool, const N_ROWS: usize, const N_INPUTS: usize, const N_OUTPUTS: usize>(
    simd: S,
    weights: &[[f32; N_INPUTS]; N_OUTPUTS],
    inputs: [&[Lanes<S>; N_INPUTS]; N_ROWS],
    outputs: &mut [[Lanes<S>; N_OUTPUTS]],
) {
    const { assert!(N_OUTPUTS.is_multiple_of(TILE)) };
    let mut first = 0;
    while first < N_OUTPUTS {
        let mut sums = [[Lanes::splat(simd, 0.0); TILE]; N_ROWS];
        let mut index = 0;
        while index < N_INPUTS {
            let mut output = 0;
            while output < TILE {
                let weight = Lanes::splat(simd, weights[first + output][index]);
                let mut row = 0;
                while row < N_ROWS {
                    sums[row][output] = sums[row][output] + weight * inputs[row][index];
                    row += 1;
                }
                output += 1;
            }
            index += 1;
        }
        let mut row = 0;
        while row < N_ROWS {
            let mut output = 0;
            while output < TILE {
                let sum = sums[row][output];
                let total = &mut outputs[row][first + output];
                *total = if ADDS { *total + sum } else { sum };
                output += 1;
            }
            row += 1;
        }
        first += TILE;
    }
}
