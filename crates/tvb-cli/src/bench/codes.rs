//! A decoder of codes of its own, in f64, that follows the words on the format and nothing else; slow and plain, for checks.

use tvb_kernels::{BLOCK, Code, Codes, PANEL, Place, Rate, n_blocks, scale_from_bits};

/// The codes of some rows of one tensor, a whole number of panels or up to the tensor's end.
#[derive(Clone, Debug)]
pub(super) struct Piece<'a> {
    /// Where the rows lie, for their signs.
    pub(super) place: Place,
    /// The first of them among those of the measurement's values.
    pub(super) row: usize,
    /// How many there are.
    pub(super) n_rows: usize,
    /// Those of the tasks, then the shared ones.
    pub(super) columns: Vec<Column<'a>>,
}

/// One column's codes: of a rate whose every bit is a plane of all lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column<'a> {
    pub(super) rate: Rate,
    /// For each panel of k blocks, \[word, block\].
    pub(super) words: &'a [u32],
    /// One for each block.
    pub(super) scales: &'a [u16],
}

impl<'a> Piece<'a> {
    /// What was coded of a chunk that is one segment; `None` where it is too short or too long.
    pub(super) fn of_chunk(code: &Code, codes: &'a Codes, row: usize, n_rows: usize) -> Option<Piece<'a>> {
        let n_tasks = code.kept.len() / code.n_kept;
        let n_blocks = n_blocks(n_rows);
        let mut columns = Vec::with_capacity(n_tasks + code.n_kept);
        let (mut words, mut scales) = (&codes.words[..], &codes.scales[..]);
        for column in 0..n_tasks + code.n_kept {
            let rate = if column < n_tasks { code.rate } else { code.kept_rate };
            let (own_words, own_scales);
            (own_words, words) = words.split_at_checked(n_blocks * rate.words())?;
            (own_scales, scales) = scales.split_at_checked(n_blocks)?;
            columns.push(Column { rate, words: own_words, scales: own_scales });
        }
        (words.is_empty() && scales.is_empty()).then_some(Piece { place: Place::default(), row, n_rows, columns })
    }

    /// Where its panels begin.
    pub(super) fn panels(&self) -> Vec<usize> {
        (0..self.n_rows).step_by(PANEL).collect()
    }

    /// The panel that begins `start` rows into it.
    pub(super) fn panel(&self, seed: u64, start: usize) -> Panel {
        Panel::new(seed, self.place, start, PANEL.min(self.n_rows - start))
    }
}

/// Up to 4,096 elements of a tensor, seen as 256 lines of `width`: column b of them is block b.
#[derive(Debug)]
pub(super) struct Panel {
    start: usize,
    /// Elements, which may be fewer than the lines hold.
    pub(super) n_rows: usize,
    /// Blocks.
    pub(super) width: usize,
    /// Of 32 lines of a block each; 1 is minus.
    signs: Vec<u32>,
}

impl Panel {
    fn new(seed: u64, place: Place, start: usize, n_rows: usize) -> Panel {
        let width = n_rows.div_ceil(BLOCK);
        let tensor = mix(mix(mix(seed as u32).wrapping_add((seed >> 32) as u32)).wrapping_add(place.tensor));
        let number = (place.first_row + start as u64) / PANEL as u64;
        let key = mix(tensor.wrapping_add(number as u32));
        let signs = (0..8 * width as u32).map(|at| mix(key.wrapping_add(at.wrapping_mul(0x9e37_79b9)))).collect();
        Panel { start, n_rows, width, signs }
    }

    fn sign(&self, element: usize) -> f64 {
        let (line, block) = (element / self.width, element % self.width);
        let bit = self.signs[line / 32 * self.width + block] >> (line % 32) & 1;
        if bit == 1 { -1.0 } else { 1.0 }
    }

    /// Elements → lines of rotated elements, 16 times as large.
    pub(super) fn rotated(&self, elements: &[f32]) -> Vec<f64> {
        let mut lines = vec![0.0; BLOCK * self.width];
        for (at, (line, element)) in lines.iter_mut().zip(elements).enumerate() {
            *line = self.sign(at) * f64::from(*element);
        }
        self.transform(&mut lines);
        lines
    }

    /// The way back.
    pub(super) fn elements(&self, mut lines: Vec<f64>) -> Vec<f64> {
        self.transform(&mut lines);
        lines.truncate(self.n_rows);
        lines.iter_mut().enumerate().for_each(|(at, line)| *line *= self.sign(at) / BLOCK as f64);
        lines
    }

    /// Walsh and Hadamard's, of every block.
    fn transform(&self, lines: &mut [f64]) {
        for half in (0..8).map(|stage| self.width << stage) {
            for pair in lines.chunks_exact_mut(2 * half) {
                let (low, high) = pair.split_at_mut(half);
                low.iter_mut().zip(high).for_each(|(a, b)| (*a, *b) = (*a + *b, *a - *b));
            }
        }
    }

    /// What this panel of a column decodes to, still rotated.
    pub(super) fn coded(&self, column: Column<'_>) -> Vec<f64> {
        let Column { rate, words, scales } = column;
        let words = &words[self.start / BLOCK * rate.words()..][..self.width * rate.words()];
        let scales = &scales[self.start / BLOCK..][..self.width];
        let scales: Vec<f64> = scales.iter().map(|&bits| f64::from(scale_from_bits(bits))).collect();
        let levels = rate.levels();
        let lines = (0..BLOCK).flat_map(|line| (0..self.width).map(move |block| (line, block)));
        let value = |(line, block): (usize, usize)| {
            let bit = |plane: usize| words[(8 * plane + line / 32) * self.width + block] >> (line % 32) & 1;
            let cell = (1..rate.n_planes()).fold(0, |cell, plane| 2 * cell + bit(plane) as usize);
            let magnitude = scales[block] * f64::from(levels[cell]);
            if bit(0) == 1 { -magnitude } else { magnitude }
        };
        lines.map(value).collect()
    }

    /// ⟨a, b⟩ in each block.
    pub(super) fn products(&self, a: &[f64], b: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; self.width];
        for (a, b) in a.chunks_exact(self.width).zip(b.chunks_exact(self.width)) {
            sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
        }
        sums
    }
}

/// 32 bits, mixed so that each reaches all.
fn mix(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}
