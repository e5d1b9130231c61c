//! Two published ways to store a task vector in few bits, written from their descriptions: what tvb's codes are compared
//! with.
//!
//! | | stores of each tensor |
//! |---|---|
//! | TVQ ("Task Vector Quantization for Memory-Efficient Model Merging", 2025) | 2 to 4 bits an element, on equal steps from the least to the greatest |
//! | BitDelta ("BitDelta: Your Fine-Tune May Only Be Worth One Bit", 2024), without its distillation | signs and their mean size; 16 bits where there is one dimension |
//!
//! Bytes are those of the numbers alone, without any header: what such a file cannot be smaller than.

use half::f16;

use crate::model::{Elements, Tensor, Tensors};
use crate::{Error, Result};

/// The names, as they are asked for.
pub const NAMES: [&str; 4] = ["tvq-2", "tvq-3", "tvq-4", "bitdelta"];

/// What fine-tuning moves.
const MOVED: &str = "visual.";

/// A way to store a task vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// TVQ at so many bits.
    Steps(u32),
    /// BitDelta.
    Signs,
}

impl Control {
    /// The control of this name.
    ///
    /// # Errors
    /// Usage, naming those there are.
    pub fn find(name: &str) -> Result<Self> {
        match NAMES.iter().position(|known| *known == name) {
            Some(index @ 0..=2) => Ok(Self::Steps(index as u32 + 2)),
            Some(_) => Ok(Self::Signs),
            None => Err(Error::usage(format!("no control is called {name:?}; there are {}", NAMES.join(", ")))),
        }
    }

    /// A fine-tune as it comes back, and the bytes that were stored of it.
    ///
    /// # Errors
    /// Failed, naming a tensor that the base lacks or has in another shape.
    pub fn stored(self, base: &Tensors, tuned: &Tensors) -> Result<(Tensors, u64)> {
        let mut recovered = base.clone();
        let mut n_bytes = 0;
        for (name, tensor) in tuned.iter().filter(|(name, _)| name.starts_with(MOVED)) {
            let Some(after) = tensor.floats() else { continue };
            let before = base.get(name).filter(|before| before.shape == tensor.shape).and_then(Tensor::floats);
            let before = before.ok_or_else(|| Error::failed(format!("tensor {name} is not the base's")))?;
            let deltas: Vec<f32> = after.iter().zip(before).map(|(after, before)| after - before).collect();
            let (decoded, of_tensor) = match self {
                Self::Steps(bits) => steps(&deltas, bits),
                Self::Signs if tensor.shape.len() > 1 => signs(&deltas),
                Self::Signs => {
                    (deltas.iter().map(|value| f16::from_f32(*value).to_f32()).collect(), 2 * deltas.len() as u64)
                }
            };
            n_bytes += of_tensor;
            let values = before.iter().zip(&decoded).map(|(before, delta)| before + delta).collect();
            recovered.insert(name.clone(), Tensor { shape: tensor.shape.clone(), elements: Elements::F32(values) });
        }
        Ok((recovered, n_bytes))
    }
}

/// Equal steps from the least to the greatest value, zero among them; a step and a zero point are stored beside.
fn steps(deltas: &[f32], bits: u32) -> (Vec<f32>, u64) {
    let n_steps = ((1_u32 << bits) - 1) as f32;
    let least = deltas.iter().copied().fold(0.0, f32::min);
    let greatest = deltas.iter().copied().fold(0.0, f32::max);
    let step = (greatest - least) / n_steps;
    let zero = if step > 0.0 { (-least / step).round() } else { 0.0 };
    let decoded = |value: &f32| match step > 0.0 {
        true => (((value / step).round() + zero).clamp(0.0, n_steps) - zero) * step,
        false => 0.0,
    };
    (deltas.iter().map(decoded).collect(), (deltas.len() as u64 * u64::from(bits)).div_ceil(8) + 8)
}

/// Signs times the mean size, which is stored beside.
fn signs(deltas: &[f32]) -> (Vec<f32>, u64) {
    let sum: f64 = deltas.iter().map(|value| f64::from(value.abs())).sum();
    let size = (sum / deltas.len().max(1) as f64) as f32;
    let decoded = deltas.iter().map(|value| if *value > 0.0 { size } else { -size }).collect();
    (decoded, (deltas.len() as u64).div_ceil(8) + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_hold_the_ends_and_zero() {
        let (decoded, n_bytes) = steps(&[-1.0, 0.1, 0.6, 2.0], 2);
        assert_eq!((decoded, n_bytes), (vec![-1.0, 0.0, 1.0, 2.0], 9));
        assert_eq!(steps(&[0.0; 16], 3), (vec![0.0; 16], 14));
        // More bits, less error: at most half a step.
        let values: Vec<f32> = (0..100).map(|i| (i as f32 * 0.7).sin()).collect();
        for bits in 2..=4 {
            let step = 2.0 / ((1 << bits) - 1) as f32;
            let (decoded, _) = steps(&values, bits);
            assert!(values.iter().zip(&decoded).all(|(a, b)| (a - b).abs() <= 1.01 * step), "{bits}");
        }
    }

    #[test]
    fn signs_keep_the_mean_size() {
        assert_eq!(signs(&[1.0, -3.0, 2.0]), (vec![2.0, -2.0, 2.0], 5));
        assert_eq!(signs(&[]), (vec![], 4));
    }

    #[test]
    fn only_what_moves_is_stored_and_vectors_keep_sixteen_bits() {
        let tensor = |shape: &[usize], values: &[f32]| Tensor {
            shape: shape.to_vec(),
            elements: Elements::F32(values.to_vec()),
        };
        let model = |of: &[f32; 2], words: f32| -> Tensors {
            [
                ("text.words".to_owned(), tensor(&[1], &[words])),
                ("visual.bias".to_owned(), tensor(&[2], of)),
                ("visual.weight".to_owned(), tensor(&[2, 1], of)),
            ]
            .into()
        };
        let (base, tuned) = (model(&[1.0, 1.0], 5.0), model(&[1.5, 4.0], 6.0));
        let (recovered, n_bytes) = Control::find("bitdelta").unwrap().stored(&base, &tuned).unwrap();
        assert_eq!(recovered["visual.bias"], tuned["visual.bias"]);
        assert_eq!(recovered["visual.weight"], tensor(&[2, 1], &[2.75, 2.75]));
        assert_eq!((&recovered["text.words"], n_bytes), (&base["text.words"], 4 + 5));
        assert!(Control::find("tvq-4").unwrap().stored(&Tensors::new(), &tuned).is_err());
        assert!(Control::find("tvq-5").is_err());
    }
}
