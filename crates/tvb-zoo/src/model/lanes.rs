//! One number of each of several images: what the forward pass calculates with.
//!
//! A processor's vector holds one number of 4, 8 or 16 images. Nothing ever crosses from one image to another, products
//! and sums are rounded separately and the exponential is our own, so every processor gives the same bits.

use core::ops::{Add, Mul, Sub};

use pulp::Simd;

/// One number of each of [`Lanes::COUNT`] images.
#[derive(Clone, Copy)]
pub(super) struct Lanes<S: Simd> {
    simd: S,
    values: S::f32s,
}

impl<S: Simd> Lanes<S> {
    /// Images in one vector.
    pub(super) const COUNT: usize = S::F32_LANES;

    /// The same number of every image.
    #[inline(always)]
    pub(super) fn splat(simd: S, value: f32) -> Self {
        Self { simd, values: simd.splat_f32s(value) }
    }

    /// One number of each image; images that are not there have zeros.
    #[inline(always)]
    pub(super) fn load(simd: S, values: &[f32]) -> Self {
        Self { simd, values: simd.partial_load_f32s(values) }
    }

    /// The numbers of as many images as there is room for.
    #[inline(always)]
    pub(super) fn store(self, values: &mut [f32]) {
        self.simd.partial_store_f32s(values, self.values);
    }

    /// The larger of two numbers.
    #[inline(always)]
    pub(super) fn max(self, other: Self) -> Self {
        Self { values: self.simd.max_f32s(self.values, other.values), ..self }
    }

    /// 1/x.
    #[inline(always)]
    pub(super) fn reciprocal(self) -> Self {
        Self { values: self.simd.div_f32s(self.simd.splat_f32s(1.0), self.values), ..self }
    }

    /// √x.
    #[inline(always)]
    pub(super) fn sqrt(self) -> Self {
        Self { values: self.simd.sqrt_f32s(self.values), ..self }
    }

    /// eˣ for x ≤ 0, to a few units in the last place; 0 below -87, where f32 has hardly any numbers left.
    #[inline(always)]
    pub(super) fn exp(self) -> Self {
        // x = n·ln 2 + rest with a whole n, so that eˣ = 2ⁿ·e^rest. Adding this constant leaves no room for a fraction,
        // and n in the lowest bits.
        const ROUND: f32 = 12_582_912.0;
        // ln 2 in two parts, the first with so few bits that n times it is exact.
        const LN_2_HIGH: f32 = 355.0 / 512.0;
        const LN_2_LOW: f32 = -2.121_944_4e-4;
        // The Cephes library's polynomial for (e^rest − 1 − rest) / rest².
        const COEFFICIENTS: [f32; 6] =
            [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5];

        let simd = self.simd;
        let number = |value: f32| Self::splat(simd, value);
        let shifted = self * number(core::f32::consts::LOG2_E) + number(ROUND);
        let n = shifted - number(ROUND);
        let rest = self - n * number(LN_2_HIGH) - n * number(LN_2_LOW);
        let mut sum = number(COEFFICIENTS[0]);
        for coefficient in &COEFFICIENTS[1..] {
            sum = sum * rest + number(*coefficient);
        }
        let power = sum * rest * rest + rest + number(1.0);
        // 2ⁿ: n is added to the exponent. The rest of the constant's bits are shifted out.
        let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted.values), simd.splat_u32s(23));
        let bits = simd.add_u32s(simd.transmute_u32s_f32s(power.values), exponent);
        let power = simd.transmute_f32s_u32s(bits);
        let is_number = simd.equal_f32s(self.values, self.values);
        let power = simd.select_f32s(is_number, power, self.values);
        let is_tiny = simd.less_than_f32s(self.values, simd.splat_f32s(-87.0));
        Self { simd, values: simd.select_f32s(is_tiny, simd.splat_f32s(0.0), power) }
    }
}

impl<S: Simd> Add for Lanes<S> {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self { values: self.simd.add_f32s(self.values, other.values), ..self }
    }
}

impl<S: Simd> Sub for Lanes<S> {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self { values: self.simd.sub_f32s(self.values, other.values), ..self }
    }
}

impl<S: Simd> Mul for Lanes<S> {
    type Output = Self;

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self { values: self.simd.mul_f32s(self.values, other.values), ..self }
    }
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, Simd, WithSimd};

    use super::Lanes;

    struct Exp<'a>(&'a mut [f32]);

    impl WithSimd for Exp<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            for values in self.0.chunks_mut(Lanes::<S>::COUNT) {
                Lanes::load(simd, values).exp().store(values);
            }
        }
    }

    fn exp(mut values: Vec<f32>, arch: Arch) -> Vec<f32> {
        arch.dispatch(Exp(&mut values));
        values
    }

    #[test]
    fn exponentials_are_close_and_the_same_bits_on_every_instruction_set() {
        let xs: Vec<f32> = (0..=90_000).map(|step| -(step as f32) / 1000.0).collect();
        let found = exp(xs.clone(), Arch::new());
        for (x, found) in xs.iter().zip(&found) {
            let expected = f64::from(*x).exp();
            assert!((f64::from(*found) - expected).abs() <= 2e-7 * expected + 2e-38, "{x}: {found}, not {expected}");
        }
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&found), bits(&exp(xs, Arch::Scalar)));
        for arch in [Arch::new(), Arch::Scalar] {
            let odd = exp(vec![f32::NAN, f32::NEG_INFINITY, 0.0], arch);
            assert!(odd[0].is_nan());
            assert_eq!(odd[1..], [0.0, 1.0]);
        }
    }
}
