//! The signs of a rotation: one bit for each element, from a counter alone, so that any block can be decoded by itself on any
//! engine.
//!
//! Word w of panel p of tensor n under seed s is `mix(mix(key + p) + w·golden)` with `key = mix(mix(mix(s₀) + s₁) + n)`, where s₀ and s₁ are
//! the lower and the upper half of s and all arithmetic is that of 32 bits. They lie as a plane of codes does: in a panel of k
//! blocks, the sign of line i of block j is bit i mod 32 of word ⌊i/32⌋·k + j; 1 means minus.

use crate::panel::PANEL;

/// Where a segment lies: what its signs depend on beside the seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Number of the tensor among those of the basis.
    pub tensor: u32,
    /// First row (element) of the segment within the tensor.
    pub first_row: u64,
}

impl Place {
    /// The key of the signs of the panel that begins `start` rows into the segment.
    #[inline(always)]
    pub(crate) const fn panel_key(self, seed: u64, start: usize) -> u32 {
        let panel = (self.first_row / PANEL as u64) as u32;
        panel_key(tensor_key(seed, self.tensor), panel.wrapping_add((start / PANEL) as u32))
    }
}

/// 2³² divided by the golden ratio, made odd.
pub(crate) const GOLDEN: u32 = 0x9e37_79b9;

/// A mixing of 32 bits in which each input bit reaches every output bit (multipliers found by C. Wellons, "lowbias32").
#[inline(always)]
pub(crate) const fn mix(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// The key of one tensor's signs.
#[inline(always)]
const fn tensor_key(seed: u64, tensor: u32) -> u32 {
    mix(mix(mix(seed as u32).wrapping_add((seed >> 32) as u32)).wrapping_add(tensor))
}

/// The key of one panel's signs.
#[inline(always)]
const fn panel_key(tensor_key: u32, panel: u32) -> u32 {
    mix(tensor_key.wrapping_add(panel))
}

/// 32 signs of a panel: lines of one block.
#[inline(always)]
pub(crate) const fn sign_word(panel_key: u32, word: u32) -> u32 {
    mix(panel_key.wrapping_add(word.wrapping_mul(GOLDEN)))
}

/// Which lines of a panel a part of them is: line j of the part is line `(start + j·step) mod 256`, `step` odd.
#[inline(always)]
pub(crate) const fn part_lines(panel_key: u32) -> (u32, u32) {
    // A word that no element's sign comes from.
    let word = sign_word(panel_key, 128);
    (word & 0xff, (word >> 8) & 0xff | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Means and neighbours' products of many signs stay within a few standard deviations of nothing.
    #[test]
    fn signs_are_balanced_and_independent() {
        let key = tensor_key(7, 3);
        let word = |panel: u32, at: u32| sign_word(panel_key(key, panel), at);
        let (mut ones, mut same_word, mut same_panel, mut n_words) = (0u32, 0u32, 0u32, 0u32);
        for panel in 0..512 {
            for at in 0..128 {
                let bits = word(panel, at);
                ones += bits.count_ones();
                same_word += (bits ^ bits.rotate_left(1)).count_ones();
                same_panel += (bits ^ word(panel + 1, at)).count_ones();
                n_words += 1;
            }
        }
        let expected = f64::from(n_words) * 16.0;
        for count in [ones, same_word, same_panel] {
            assert!((f64::from(count) - expected).abs() < 5.0 * (expected / 2.0).sqrt(), "{count} {expected}");
        }
        // Another tensor and another seed have other signs.
        assert_ne!(tensor_key(7, 3), tensor_key(7, 4));
        assert_ne!(tensor_key(7, 3), tensor_key(7 | 1 << 32, 3));
    }
}
