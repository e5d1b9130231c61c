//! The book that code.wgsl and decode.wgsl read beside their tables: the ten rates, then what the work has to add.
//!
//! For each rate in the order of [`Rate::ALL`] four words: planes, coded lines, words of a block, and where its levels are. Then the
//! levels of each rate, with the bounds between them behind them where they are searched for. All as 32-bit words; it is sent
//! as floats, whose bits nobody looks at on the way.

use crate::rate::{Book, Rate};

/// The number of a rate in the book.
pub(super) fn rate_number(rate: Rate) -> u32 {
    rate as u32
}

/// Words before what the work adds.
pub(super) fn n_words() -> usize {
    rates().len()
}

/// The rates' part.
pub(super) fn rates() -> Vec<f32> {
    let word = f32::from_bits;
    let (mut heads, mut levels) = (Vec::new(), Vec::new());
    for rate in Rate::ALL {
        let at = 4 * Rate::ALL.len() + levels.len();
        heads.extend([rate.n_planes(), rate.n_lines(), rate.words(), at].map(|number| word(number as u32)));
        match rate.book() {
            Book::Signs { .. } => levels.push(1.0),
            Book::Search { levels: found, bounds } => {
                levels.extend(found);
                levels.extend(bounds);
            }
            Book::Compand { levels: found } => levels.extend(found),
        }
    }
    heads.extend(levels);
    heads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rate_is_where_its_number_says() {
        let book = rates();
        for (at, rate) in Rate::ALL.into_iter().enumerate() {
            assert_eq!(rate_number(rate), at as u32);
            let head: Vec<usize> = book[4 * at..][..4].iter().map(|word| word.to_bits() as usize).collect();
            assert_eq!(head[..3], [rate.n_planes(), rate.n_lines(), rate.words()]);
            let n_levels = if rate == Rate::Three { 2 } else { 1 << (rate.n_planes() - 1) };
            assert_eq!(&book[head[3]..][..n_levels], rate.levels(), "{rate:?}");
            if let Book::Search { bounds, .. } = rate.book() {
                assert_eq!(&book[head[3] + n_levels..][..n_levels - 1], bounds, "{rate:?}");
            }
        }
    }
}
