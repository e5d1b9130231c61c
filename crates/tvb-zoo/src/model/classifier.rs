//! The model ready to run: images in, one score per class out.

use crate::image::N_PIXELS;
use crate::model::encode::Encode;
use crate::model::layout::{EMBED, LOGIT_SCALE, WORD_TABLE};
use crate::model::tensors::Tensors;
use crate::model::weights::{Weights, floats};
use crate::tasks::words;
use crate::{Error, Result};

/// The encoder and the word table.
pub struct Model {
    weights: Weights,
    /// `[n_words, EMBED]`, each scaled to the length that turns a cosine into a logit.
    words: Vec<[f32; EMBED]>,
    arch: pulp::Arch,
}

impl Model {
    /// The model of these tensors.
    ///
    /// # Errors
    /// Failed, naming a tensor that is missing or has another size (`checkpoint::read` has checked names and shapes).
    pub fn new(tensors: &Tensors) -> Result<Self> {
        let scale = libm::expf(floats(tensors, LOGIT_SCALE, 1)?[0]);
        let rows = floats(tensors, WORD_TABLE, words().len() * EMBED)?.as_chunks::<EMBED>().0;
        let scaled = |row: &[f32; EMBED]| {
            let factor = scale / (dot(row, row) + 1e-12).sqrt();
            row.map(|value| value * factor)
        };
        let words = rows.iter().map(scaled).collect();
        Ok(Self { weights: Weights::new(tensors)?, words, arch: pulp::Arch::new() })
    }

    /// Unit vectors `[n, EMBED]` of images `[n, 256]`.
    pub fn encode(&self, pixels: &[f32]) -> Vec<[f32; EMBED]> {
        let mut embeddings = vec![[0.0; EMBED]; pixels.len() / N_PIXELS];
        let embedded = embeddings.as_flattened_mut();
        self.arch.dispatch(Encode { weights: &self.weights, pixels, embeddings: embedded });
        embeddings
    }

    /// Scaled cosines of images `[n, 256]` with the words in these rows of the table: one row per image, one cosine per
    /// word.
    ///
    /// # Errors
    /// Failed, where the table has no such row.
    pub fn logits(&self, pixels: &[f32], word_rows: &[u32]) -> Result<Vec<Vec<f32>>> {
        let word = |row: &u32| {
            self.words.get(*row as usize).ok_or_else(|| Error::failed(format!("the word table has no row {row}")))
        };
        let words: Vec<&[f32; EMBED]> = word_rows.iter().map(word).collect::<Result<_>>()?;
        let scores = |image: &[f32; EMBED]| words.iter().map(|word| dot(image, word)).collect();
        Ok(self.encode(pixels).iter().map(scores).collect())
    }
}

fn dot(a: &[f32; EMBED], b: &[f32; EMBED]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Model;
    use crate::checkpoint;
    use crate::data::{Split, eval_set};
    use crate::tasks::TASKS;

    /// Every instruction set that this processor has.
    fn archs() -> Vec<pulp::Arch> {
        let mut archs = vec![pulp::Arch::new(), pulp::Arch::Scalar];
        #[cfg(target_arch = "x86_64")]
        archs.extend(pulp::x86::V3::try_new().map(pulp::Arch::V3));
        archs
    }

    #[test]
    fn embeddings_are_the_same_bits_on_every_instruction_set_and_in_any_company() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints/base.safetensors");
        let mut model = Model::new(&checkpoint::read(&path).unwrap()).unwrap();
        let set = eval_set(&TASKS[0], Split::Val).unwrap();
        let bits = |model: &Model, n_images: usize| -> Vec<u32> {
            let pixels = (0..n_images).flat_map(|image| set.image(image)).copied().collect::<Vec<f32>>();
            model.encode(&pixels).as_flattened().iter().map(|value| value.to_bits()).collect()
        };
        let expected = bits(&model, 21);
        for arch in archs() {
            model.arch = arch;
            for n_images in [0, 1, 7, 8, 16, 21] {
                assert_eq!(bits(&model, n_images), expected[..n_images * 64], "{n_images} images");
            }
        }
    }
}
