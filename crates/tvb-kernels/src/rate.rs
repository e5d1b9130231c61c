//! The rates of a code: how many levels an element has, where they lie, and what they cost.
//!
//! After the rotation a block is close to Gaussian, so each rate has one codebook for every block of every model: magnitudes in
//! units of the block's standard deviation, and a sign. Up to 16 levels they are those of Lloyd and Max: bounds half-way
//! between levels, levels the means of their cells. From 32 levels on, where a search among bounds would cost more than it
//! gains, a smooth function says which cell a magnitude falls into ([`compand`]); the error is 1 to 2 % above the least.
//!
//! The levels are part of the file format; a test computes them anew.

mod levels;

use levels::*;

/// How the elements of a rotated block are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rate {
    /// Signs of a quarter of the block's lines: 0.25 bits an element.
    Quarter,
    /// Signs of half of the block's lines: 0.5 bits.
    Half,
    /// Signs: 1 bit.
    Signs,
    /// 3 levels: 20 elements in 32 bits.
    Three,
    /// 4 levels: 2 bits.
    Four,
    /// 8 levels: 3 bits.
    Eight,
    /// 16 levels: 4 bits.
    Sixteen,
    /// 32 levels: 5 bits.
    ThirtyTwo,
    /// 64 levels: 6 bits.
    SixtyFour,
    /// 256 levels: 8 bits.
    TwoFiveSix,
}

/// Words of a block at the highest rate.
pub(crate) const MOST_WORDS: usize = Rate::TwoFiveSix.words();

/// Elements of a block.
pub const BLOCK: usize = 256;

/// How a rate's magnitudes are found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Book {
    /// One magnitude, 1, for some lines of the block.
    Signs {
        /// Lines that are coded.
        n_lines: usize,
    },
    /// By search among bounds.
    Search {
        /// Magnitudes, ascending.
        levels: &'static [f32],
        /// Between them.
        bounds: &'static [f32],
    },
    /// By [`compand`].
    Compand {
        /// Magnitudes, ascending.
        levels: &'static [f32],
    },
}

impl Rate {
    /// Every rate, the smallest first.
    pub const ALL: [Rate; 10] = [
        Rate::Quarter,
        Rate::Half,
        Rate::Signs,
        Rate::Three,
        Rate::Four,
        Rate::Eight,
        Rate::Sixteen,
        Rate::ThirtyTwo,
        Rate::SixtyFour,
        Rate::TwoFiveSix,
    ];

    /// Its name in flags and files: bits an element.
    pub const fn name(self) -> &'static str {
        match self {
            Rate::Quarter => "0.25",
            Rate::Half => "0.5",
            Rate::Signs => "1",
            Rate::Three => "1.6",
            Rate::Four => "2",
            Rate::Eight => "3",
            Rate::Sixteen => "4",
            Rate::ThirtyTwo => "5",
            Rate::SixtyFour => "6",
            Rate::TwoFiveSix => "8",
        }
    }

    /// The rate of that name.
    pub fn from_name(name: &str) -> Option<Rate> {
        Rate::ALL.into_iter().find(|rate| rate.name() == name)
    }

    /// 32-bit words that the codes of one block take; its scale is stored apart.
    pub const fn words(self) -> usize {
        match self {
            Rate::Quarter => 2,
            Rate::Half => 4,
            // 13 words of 20 elements each, the last one not full.
            Rate::Three => 13,
            _ => 8 * self.n_planes(),
        }
    }

    /// Bits that an element's index takes where every bit is a plane of its own; 0 for [`Rate::Three`], whose indices are
    /// digits.
    pub const fn n_planes(self) -> usize {
        match self {
            Rate::Quarter | Rate::Half | Rate::Signs => 1,
            Rate::Three => 0,
            Rate::Four => 2,
            Rate::Eight => 3,
            Rate::Sixteen => 4,
            Rate::ThirtyTwo => 5,
            Rate::SixtyFour => 6,
            Rate::TwoFiveSix => 8,
        }
    }

    /// Lines of a block that are coded: all, or a seeded part.
    pub const fn n_lines(self) -> usize {
        match self {
            Rate::Quarter => BLOCK / 4,
            Rate::Half => BLOCK / 2,
            _ => BLOCK,
        }
    }

    /// The magnitudes, ascending, in units of the stored scale.
    pub fn levels(self) -> &'static [f32] {
        match self.book() {
            Book::Signs { .. } => &[1.0],
            Book::Search { levels, .. } | Book::Compand { levels } => levels,
        }
    }

    /// ρ: the noise of a Gaussian block that is coded without bias, ‖x̂ − x‖²/‖x‖². Measured with this coder on 2 million
    /// Gaussian elements: a block of 256 fits its own scale, so it is up to 2.5 % below d/(1 − d) of the codebook alone (and
    /// above it for parts, π/(2p) − 1).
    pub const fn noise(self) -> f64 {
        match self {
            Rate::Quarter => 5.425,
            Rate::Half => 2.164,
            Rate::Signs => 0.5703,
            Rate::Three => 0.2331,
            Rate::Four => 0.1316,
            Rate::Eight => 0.035_09,
            Rate::Sixteen => 0.009_355,
            Rate::ThirtyTwo => 0.002_519,
            Rate::SixtyFour => 0.000_642_6,
            Rate::TwoFiveSix => 0.000_041_31,
        }
    }

    /// d: the part of a Gaussian block's energy that is lost with the least-squares scale, ρ/(1 + ρ).
    pub const fn distortion(self) -> f64 {
        self.noise() / (1.0 + self.noise())
    }

    pub(crate) fn book(self) -> Book {
        match self {
            Rate::Quarter | Rate::Half | Rate::Signs => Book::Signs { n_lines: self.n_lines() },
            Rate::Three => Book::Search { levels: &THREE_LEVELS, bounds: &THREE_BOUNDS },
            Rate::Four => Book::Search { levels: &FOUR_LEVELS, bounds: &FOUR_BOUNDS },
            Rate::Eight => Book::Search { levels: &EIGHT_LEVELS, bounds: &EIGHT_BOUNDS },
            Rate::Sixteen => Book::Search { levels: &SIXTEEN_LEVELS, bounds: &SIXTEEN_BOUNDS },
            Rate::ThirtyTwo => Book::Compand { levels: &LEVELS_32 },
            Rate::SixtyFour => Book::Compand { levels: &LEVELS_64 },
            Rate::TwoFiveSix => Book::Compand { levels: &LEVELS_256 },
        }
    }
}

/// The coefficients of [`compand`], lowest first, over a/√6.
pub(crate) const COMPAND: [f32; 4] = [0.278_393, 0.230_389, 0.000_972, 0.078_108];
/// 1/√6.
pub(crate) const INV_SQRT_6: f32 = 0.408_248_3;

/// From a magnitude in standard deviations to \[0, 1): cell k of n is where n·compand(a) lies in \[k, k+1). Close to
/// erf(a/√6), which makes the best cells of a Gaussian when there are many (after Abramowitz and Stegun, 7.1.27). Steps of
/// f32 that every engine rounds alike, but for the division on some GPUs.
#[cfg(test)]
pub(crate) fn compand(a: f32) -> f32 {
    let x = a * INV_SQRT_6;
    let [c1, c2, c3, c4] = COMPAND;
    let t = 1.0 + x * (c1 + x * (c2 + x * (c3 + x * c4)));
    let t2 = t * t;
    1.0 - 1.0 / (t2 * t2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Integrals over the unit Gaussian's density by Simpson's rule: (probability, first moment) of \[from, to\].
    fn moments(from: f64, to: f64) -> (f64, f64) {
        const N: usize = 400;
        let density = |x: f64| (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let step = (to - from) / N as f64;
        let (mut mass, mut first) = (0.0, 0.0);
        for i in 0..=N {
            let x = from + step * i as f64;
            let weight = if i == 0 || i == N { 1.0 } else { 2.0 + 2.0 * (i % 2) as f64 } * step / 3.0;
            mass += weight * density(x);
            first += weight * density(x) * x;
        }
        (mass, first)
    }

    /// Beyond this nothing counts.
    const FAR: f64 = 14.0;

    fn bounds_of(rate: Rate) -> Vec<f64> {
        match rate.book() {
            Book::Signs { .. } => vec![0.0, FAR],
            Book::Search { bounds, .. } => {
                let inner = bounds.iter().map(|&bound| f64::from(bound));
                std::iter::once(0.0).chain(inner).chain([FAR]).collect()
            }
            Book::Compand { levels } => {
                let n = levels.len();
                let inner = (1..n).map(|k| {
                    let (mut low, mut high) = (0.0f64, FAR);
                    for _ in 0..60 {
                        let middle = (low + high) / 2.0;
                        let below = f64::from(compand(middle as f32)) < k as f64 / n as f64;
                        if below { low = middle } else { high = middle }
                    }
                    low
                });
                std::iter::once(0.0).chain(inner).chain([FAR]).collect()
            }
        }
    }

    #[test]
    fn levels_are_the_means_of_their_cells() {
        for rate in Rate::ALL.into_iter().filter(|rate| rate.n_lines() == BLOCK && *rate != Rate::Signs) {
            let levels = rate.levels();
            let cells = bounds_of(rate);
            let mut lost = 1.0;
            assert_eq!(cells.len(), levels.len() + 1, "{rate:?}");
            for (cell, &level) in cells.windows(2).zip(levels) {
                let (mass, first) = moments(cell[0], cell[1]);
                let expected = if level == 0.0 { 0.0 } else { first / mass };
                assert!((f64::from(level) - expected).abs() < 2e-5 * expected.max(1.0), "{rate:?}: {level} {expected}");
                lost -= 2.0 * mass * expected * expected;
            }
            // A block of 256 fits its own scale.
            let ratio = rate.distortion() / lost;
            assert!((0.97..1.005).contains(&ratio), "{rate:?}: {ratio}");
            if let Book::Search { bounds, levels } = rate.book() {
                for (&bound, pair) in bounds.iter().zip(levels.windows(2)) {
                    assert!((bound - (pair[0] + pair[1]) / 2.0).abs() < 1e-6, "{rate:?}: {bound}");
                }
            }
        }
    }

    #[test]
    fn names_lead_back() {
        for rate in Rate::ALL {
            assert_eq!(Rate::from_name(rate.name()), Some(rate));
        }
        assert_eq!(Rate::from_name("7"), None);
    }
}
