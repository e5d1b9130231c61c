//! Exact thresholds in bounded memory: the k-th largest magnitude of a tensor, or of all tensors.
//!
//! A sample says between which two magnitudes it must be; a pass counts those above and lists those between. Where the sample
//! was wrong the search goes on beside the bracket, and where there are too many to list (in low formats many values are equal)
//! they are counted in bins, which become finer with every pass, unless the one that counts holds a single magnitude. Most thresholds
//! take one pass over the values.
//!
//! Tried: one histogram of the upper 16 bits for all values and a second one of the rest. It costs an increment for every value
//! in place of a comparison, and always a second pass.

use super::passes::Stream;
use crate::error::{Error, Result};
use tvb_kernels::{Bracket, Found, Score};

/// A threshold that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Of which values.
    pub score: Score,
    /// k: the k-th largest, from 1.
    pub k: u64,
}

/// The k-th largest value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Threshold {
    /// Its magnitude's bits.
    pub bits: u32,
    /// Values above it.
    pub n_above: u64,
    /// Values that equal it.
    pub n_equal: u64,
}

/// One more than the largest magnitude's bits, NaN among them.
const END: u32 = 1 << 31;
/// Bins of one count, at most.
const N_BINS: u32 = 1 << 17;
/// Bytes of all lists of one count.
const LIST_BYTES: usize = 16 << 20;
/// Runs of values in a sample, at least.
const SAMPLED: u64 = 48;
/// Standard errors of a sample's share that the bracket is wide, on each side: rows of a matrix differ, so more than for
/// independent values.
const WIDTH: f64 = 8.0;

/// Where a threshold is known to be.
#[derive(Clone, Copy, Debug)]
struct Search {
    wanted: Wanted,
    low: u32,
    high: u32,
    /// Values between: counted, or guessed.
    n_inside: u64,
    done: Option<Threshold>,
}

/// The thresholds of the values of all `streams` together: \[n_wanted\].
///
/// # Errors
/// As [`Stream::count`].
pub fn thresholds(streams: &[Stream<'_>], wanted: &[Wanted]) -> Result<Vec<Threshold>> {
    let n_values: u64 = streams.iter().map(Stream::n_rows).sum();
    let n_threads = streams.first().map_or(1, |stream| stream.runtime.n_threads).max(1);
    let most_listed = (LIST_BYTES / 4 / wanted.len().max(1) / n_threads).max(1 << 12);
    let mut searches: Vec<Search> = wanted
        .iter()
        .map(|wanted| Search { wanted: *wanted, low: 0, high: END, n_inside: n_values, done: None })
        .collect();
    if n_values > most_listed as u64 {
        guess(streams, &mut searches, n_values)?;
    }
    loop {
        let open: Vec<usize> =
            (0..searches.len()).filter(|&at| searches.get(at).is_some_and(|s| s.done.is_none())).collect();
        if open.is_empty() {
            return Ok(searches.into_iter().filter_map(|search| search.done).collect());
        }
        let brackets: Vec<Bracket> =
            open.iter().filter_map(|&at| searches.get(at)).map(|search| search.bracket(most_listed)).collect();
        let mut found = vec![Found::default(); brackets.len()];
        for stream in streams {
            for ((sum, found), bracket) in found.iter_mut().zip(stream.count(&brackets)?).zip(&brackets) {
                sum.add(found, bracket.most_listed);
            }
        }
        for ((&at, found), bracket) in open.iter().zip(found).zip(&brackets) {
            if let Some(search) = searches.get_mut(at) {
                search.narrow(found, bracket)?;
            }
        }
    }
}

/// Brackets from a sample.
fn guess(streams: &[Stream<'_>], searches: &mut [Search], n_values: u64) -> Result<()> {
    let all = |search: &Search| Bracket {
        score: search.wanted.score,
        low: 0,
        high: END,
        shift: None,
        most_listed: usize::MAX,
    };
    let brackets: Vec<Bracket> = searches.iter().map(all).collect();
    let mut samples = vec![Vec::new(); brackets.len()];
    for stream in streams {
        // A model's streams are large or few; each gives its share.
        let n_runs = (4 * SAMPLED * stream.n_rows() / n_values.max(1)).max(SAMPLED);
        for (all, more) in samples.iter_mut().zip(stream.sample(&brackets, n_runs as usize)?) {
            all.extend(more);
        }
    }
    for (search, mut sample) in searches.iter_mut().zip(samples) {
        let n = sample.len() as f64;
        let share = 1.0 - search.wanted.k as f64 / n_values as f64;
        let error = WIDTH * (share * (1.0 - share) / n.max(1.0)).sqrt() + 4.0 / n.max(1.0);
        if sample.len() < 64 {
            continue;
        }
        let mut at = |share: f64| *sample.select_nth_unstable((share * n).clamp(0.0, n - 1.0) as usize).1;
        let (low, high) = (at(share - error), at(share + error));
        search.low = if share > error { low } else { 0 };
        search.high = if share + error < 1.0 { high.saturating_add(1).min(END) } else { END };
        search.n_inside = (2.0 * error * n_values as f64) as u64;
    }
    Ok(())
}

impl Search {
    fn bracket(&self, most_listed: usize) -> Bracket {
        let Search { wanted, low, high, n_inside, .. } = *self;
        let width = high - low;
        let is_listed = n_inside <= most_listed as u64;
        let shift = (width.div_ceil(N_BINS)).next_power_of_two().trailing_zeros();
        Bracket { score: wanted.score, low, high, shift: (!is_listed).then_some(shift), most_listed }
    }

    /// Takes what was found into account.
    fn narrow(&mut self, found: Found, bracket: &Bracket) -> Result<()> {
        let k = self.wanted.k;
        let Bracket { low, high, shift, most_listed, .. } = *bracket;
        if found.n_above >= k {
            (self.low, self.high, self.n_inside) = (high, END, found.n_above);
        } else if found.n_above + found.n_inside < k {
            // Fewer values than k: only where k is wrong.
            if low == 0 {
                return Err(Error::failed(format!("value number {k} expected, fewer found")));
            }
            (self.low, self.high, self.n_inside) = (0, low, self.n_inside.saturating_mul(2));
        } else if let Some(shift) = shift {
            let mut n_above = found.n_above;
            for (at, bin) in found.bins.iter().enumerate().rev() {
                if n_above + bin.n < k {
                    n_above += bin.n;
                    continue;
                }
                let start = low + ((at as u32) << shift);
                (self.low, self.high, self.n_inside) = (start, (start + (1 << shift)).min(high), bin.n);
                if !bin.is_mixed {
                    self.done = Some(Threshold { bits: bin.bits, n_above, n_equal: bin.n });
                }
                break;
            }
        } else if found.n_inside > most_listed as u64 {
            (self.low, self.high, self.n_inside) = (low, high, found.n_inside);
        } else {
            let mut listed = found.listed;
            let rank = (k - found.n_above - 1) as usize;
            if rank >= listed.len() {
                return Err(Error::failed(format!(
                    "{} values expected in a list, {} found",
                    found.n_inside,
                    listed.len()
                )));
            }
            let (larger, bits, smaller) = listed.select_nth_unstable_by(rank, |a, b| b.cmp(a));
            let bits = *bits;
            let n_equal = |values: &[u32]| values.iter().filter(|value| **value == bits).count() as u64;
            let (before, after) = (n_equal(larger), n_equal(smaller));
            let n_above = found.n_above + larger.len() as u64 - before;
            self.done = Some(Threshold { bits, n_above, n_equal: before + 1 + after });
        }
        Ok(())
    }
}
