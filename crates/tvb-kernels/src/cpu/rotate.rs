//! The rotation of a panel: signs, then the Walsh–Hadamard transform of every block, which lies down the lines.
//!
//! Four stages run over sixteen lines held in registers, so the panel is read and written twice. The panel is in the
//! nearest cache; the additions take most of the time. Loops over plain arrays were left unvectorised by the compiler (a
//! quarter of the speed), and blocks of consecutive elements, which need shuffles within a vector, gave half.

use crate::panel::PANEL;
use pulp::Simd;

/// Blocks of a panel.
pub(super) const BLOCKS: usize = 16;
/// Lines of a panel.
pub(super) const LINES: usize = 256;

/// Σ|y| and Σy² of each block.
#[derive(Clone, Copy, Default)]
pub(super) struct BlockSums {
    pub(super) magnitude: [f32; BLOCKS],
    pub(super) energy: [f32; BLOCKS],
}

/// Four stages of the transform, over sixteen vectors.
#[inline(always)]
fn four_stages<S: Simd>(simd: S, lines: &mut [S::f32s; 16]) {
    macro_rules! stage {
        ($distance:literal) => {
            let mut i = 0;
            while i < 16 {
                if i & $distance == 0 {
                    let (a, b) = (lines[i], lines[i + $distance]);
                    lines[i] = simd.add_f32s(a, b);
                    lines[i + $distance] = simd.sub_f32s(a, b);
                }
                i += 1;
            }
        };
    }
    stage!(8);
    stage!(4);
    stage!(2);
    stage!(1);
}

/// The first four stages, over lines 16 apart. `input` gives vector v.
#[inline(always)]
fn far_stages<S: Simd>(simd: S, input: impl Fn(usize) -> S::f32s, out: &mut [S::f32s]) {
    let step = 16 * (BLOCKS / S::F32_LANES);
    for first in 0..step {
        let mut lines = [simd.splat_f32s(0.0); 16];
        for (j, line) in lines.iter_mut().enumerate() {
            *line = input(first + step * j);
        }
        four_stages(simd, &mut lines);
        for (j, line) in lines.iter().enumerate() {
            out[first + step * j] = *line;
        }
    }
}

/// y = H·(signs · (x − base)), and the sums over each block.
#[inline(always)]
pub(super) fn rotate_difference<S: Simd>(simd: S, x: &[f32], base: &[f32], signs: &[u32], y: &mut [f32]) -> BlockSums {
    let n = LINES * (BLOCKS / S::F32_LANES);
    let (x, base) = (&S::as_simd_f32s(&x[..PANEL]).0[..n], &S::as_simd_f32s(&base[..PANEL]).0[..n]);
    rotate_with(simd, |at| simd.sub_f32s(x[at], base[at]), signs, y)
}

/// y = H·(signs · x), and the sums over each block.
#[inline(always)]
pub(super) fn rotate<S: Simd>(simd: S, x: &[f32], signs: &[u32], y: &mut [f32]) -> BlockSums {
    let x = &S::as_simd_f32s(&x[..PANEL]).0[..LINES * (BLOCKS / S::F32_LANES)];
    rotate_with(simd, |at| x[at], signs, y)
}

#[inline(always)]
fn rotate_with<S: Simd>(simd: S, x: impl Fn(usize) -> S::f32s, signs: &[u32], y: &mut [f32]) -> BlockSums {
    let per_line = BLOCKS / S::F32_LANES;
    let n = LINES * per_line;
    let signs = &S::as_simd_u32s(&signs[..PANEL]).0[..n];
    let y = &mut S::as_mut_simd_f32s(&mut y[..PANEL]).0[..n];
    let signed = |at: usize| {
        let bits = simd.xor_u32s(simd.transmute_u32s_f32s(x(at)), signs[at]);
        simd.transmute_f32s_u32s(bits)
    };
    far_stages(simd, signed, y);
    let mut sums = BlockSums::default();
    let magnitude = S::as_mut_simd_f32s(&mut sums.magnitude).0;
    let energy = S::as_mut_simd_f32s(&mut sums.energy).0;
    for v in 0..per_line {
        // Sixteen lines together, then the sixteens in order: every engine adds in this order.
        let (mut all_magnitude, mut all_energy) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
        for p in 0..16 {
            let at = |q: usize| (16 * p + q) * per_line + v;
            let mut lines = [simd.splat_f32s(0.0); 16];
            for (q, line) in lines.iter_mut().enumerate() {
                *line = y[at(q)];
            }
            four_stages(simd, &mut lines);
            let (mut part_magnitude, mut part_energy) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
            for (q, &line) in lines.iter().enumerate() {
                y[at(q)] = line;
                part_magnitude = simd.add_f32s(part_magnitude, simd.abs_f32s(line));
                part_energy = simd.add_f32s(part_energy, simd.mul_f32s(line, line));
            }
            all_magnitude = simd.add_f32s(all_magnitude, part_magnitude);
            all_energy = simd.add_f32s(all_energy, part_energy);
        }
        magnitude[v] = all_magnitude;
        energy[v] = all_energy;
    }
    sums
}

/// x = signs · (H·z) / 256, in place: what [`rotate`] undoes.
#[inline(always)]
pub(super) fn rotate_back<S: Simd>(simd: S, z: &mut [f32], signs: &[u32]) {
    let per_line = BLOCKS / S::F32_LANES;
    let n = LINES * per_line;
    let signs = &S::as_simd_u32s(&signs[..PANEL]).0[..n];
    let z = &mut S::as_mut_simd_f32s(&mut z[..PANEL]).0[..n];
    let step = 16 * per_line;
    for first in 0..step {
        let mut lines = [simd.splat_f32s(0.0); 16];
        for (j, line) in lines.iter_mut().enumerate() {
            *line = z[first + step * j];
        }
        four_stages(simd, &mut lines);
        for (j, line) in lines.iter().enumerate() {
            z[first + step * j] = *line;
        }
    }
    let part = simd.splat_f32s(1.0 / LINES as f32);
    for v in 0..per_line {
        for p in 0..16 {
            let at = |q: usize| (16 * p + q) * per_line + v;
            let mut lines = [simd.splat_f32s(0.0); 16];
            for (q, line) in lines.iter_mut().enumerate() {
                *line = z[at(q)];
            }
            four_stages(simd, &mut lines);
            for (q, &line) in lines.iter().enumerate() {
                let bits = simd.xor_u32s(simd.transmute_u32s_f32s(simd.mul_f32s(line, part)), signs[at(q)]);
                z[at(q)] = simd.transmute_f32s_u32s(bits);
            }
        }
    }
}
