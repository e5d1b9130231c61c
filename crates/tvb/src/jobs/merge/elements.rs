//! Element by element: the rule of one tensor, from its settings and what surveys find.

use super::method::Method;
use super::settings::{Over, Rescale, TensorSettings};
use crate::digest::Digest;
use crate::error::Result;
use crate::ops::merge::{Stream, Threshold, Wanted, thresholds};
use tvb_kernels::{Bracket, Consensus, Dtype, Edge, Keep, Merge, MergeTask, Score};

/// How values that equal a threshold are dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ties {
    /// All stay, as where a value is compared with a threshold.
    All,
    /// As many as are needed for the exact share, those that come first in the tensor, as where values are sorted.
    Exact,
}

/// What all tensors of a merge share.
#[derive(Clone, Debug)]
pub(super) struct Rules<'a> {
    /// The merger.
    pub(super) method: Method,
    /// How equal values are dealt with.
    pub(super) ties: Ties,
    /// Seed of what is random.
    pub(super) seed: u64,
    /// The tasks' names, by which randomness is told apart.
    pub(super) names: &'a [String],
    /// The task that the result is for (tall, emr).
    pub(super) only_for: Option<usize>,
    /// Format of the output.
    pub(super) dtype: Option<Dtype>,
    /// Guards of mergekit against division by little, in place of none.
    pub(super) with_guards: bool,
}

/// The least sum of mergekit's that is divided by.
const LEAST_SUM: f64 = 1e-8;
/// The least norm and mean square of mergekit's that a share is made of.
const LEAST_NORM: f64 = 1e-7;
const LEAST_SQUARE: f64 = 1e-6;

impl Rules<'_> {
    /// A rule that keeps everything.
    pub(super) fn plain(&self, settings: &TensorSettings, consensus: Consensus) -> Merge {
        let task = |weight: &f64| MergeTask { factor: *weight as f32, weight: *weight as f32, keep: Keep::All };
        Merge {
            tasks: settings.weight.iter().map(task).collect(),
            variance: None,
            consensus,
            base: 1.0,
            lambda: settings.lambda as f32,
            dtype: self.dtype,
        }
    }

    /// λ, divided by the sum of all weights.
    pub(super) fn divided(&self, settings: &TensorSettings) -> f32 {
        let sum: f64 = settings.weight.iter().sum();
        (settings.lambda / if sum.abs() < LEAST_SUM { 1.0 } else { sum }) as f32
    }

    /// How values become one.
    pub(super) fn consensus(&self, settings: &TensorSettings) -> Consensus {
        let task = self.only_for.map(|task| task as u32);
        let lambda = settings.mask_lambda as f32;
        match (self.method, task) {
            (Method::Ties | Method::DareTies | Method::BreadcrumbsTies | Method::Della | Method::SignConsensus, _) => {
                Consensus::Elected { divides: settings.normalize }
            }
            (Method::Sce, _) => Consensus::Erased { floor: if self.with_guards { LEAST_SQUARE as f32 } else { 0.0 } },
            (Method::Consensus, _) => Consensus::Needed { k: u32::try_from(settings.k).unwrap_or(u32::MAX), lambda },
            (Method::Tall, Some(task)) => Consensus::NeededBy { task, lambda },
            (Method::Emr, Some(task)) => Consensus::LargestFor { task },
            (Method::Emr, None) => Consensus::Largest,
            _ => Consensus::Sum,
        }
    }

    /// The rule of the stream's one tensor. `whole` are thresholds of whole task vectors, where they were asked for.
    ///
    /// # Errors
    /// As [`Stream::count`].
    pub(super) fn of_tensor(
        &self,
        stream: &Stream<'_>,
        name: &str,
        settings: &TensorSettings,
        whole: Option<&[Keep]>,
    ) -> Result<Merge> {
        let mut merge = self.plain(settings, self.consensus(settings));
        let keeps = match (whole, self.method) {
            (Some(whole), _) => whole.to_vec(),
            (None, Method::Ties | Method::Magnitude | Method::Breadcrumbs | Method::BreadcrumbsTies) => {
                self.bands(stream, settings)?
            }
            (None, Method::DareLinear | Method::DareTies) => self.random(name, &settings.density),
            _ => Vec::new(),
        };
        merge.tasks.iter_mut().zip(keeps).for_each(|(task, keep)| task.keep = keep);
        self.rescale(stream, settings, &mut merge)?;
        if self.method == Method::Sce {
            self.select(stream, settings, &mut merge)?;
        }
        if merge.consensus == Consensus::Sum && settings.normalize {
            merge.lambda = self.divided(settings);
        }
        Ok(merge)
    }

    /// Each task's values by size.
    fn bands(&self, stream: &Stream<'_>, settings: &TensorSettings) -> Result<Vec<Keep>> {
        let n = stream.n_rows();
        let cuts: Vec<Option<Cut>> = settings
            .density
            .iter()
            .zip(&settings.gamma)
            .map(|(density, gamma)| self.cut(n, *density, *gamma))
            .collect();
        // The smallest that goes at the top, and the smallest that stays.
        let wanted: Vec<Wanted> = cuts
            .iter()
            .enumerate()
            .filter_map(|(task, cut)| Some((task, (*cut)?)))
            .flat_map(|(task, cut)| {
                [cut.n_top, cut.n_top + cut.n_kept].map(|k| Wanted { score: Score::Magnitude { task }, k })
            })
            .filter(|wanted| wanted.k > 0)
            .collect();
        let found: Vec<Threshold> = thresholds(&[*stream], &wanted)?;
        let find = |task: usize, k: u64| {
            let is_it = |wanted: &&Wanted| wanted.k == k && wanted.score == Score::Magnitude { task };
            wanted.iter().position(|wanted| is_it(&wanted)).and_then(|at| found.get(at)).copied().unwrap_or_default()
        };
        // Edges first, then the places of the equals at all of them, in one pass.
        let mut edges: Vec<Equals> = Vec::new();
        let mut edge = |at: Equals| {
            edges.push(at);
            edges.len() - 1
        };
        let planned = |(task, cut): (usize, Option<Cut>)| {
            let Some(Cut { n_kept, n_top }) = cut else { return Planned::All };
            if n_kept == 0 {
                return Planned::Nothing;
            }
            let score = Score::Magnitude { task };
            let high = (n_top > 0).then(|| {
                let at = find(task, n_top);
                // Sorted from the smallest on, the last of the equals go.
                edge(Equals { score, at, n_stay: at.n_equal - (n_top - at.n_above), which: Which::First })
            });
            let at = find(task, n_top + n_kept);
            let n_stay = n_top + n_kept - at.n_above;
            let (n_stay, which) = match (self.ties, self.is_breadcrumbs()) {
                // Sorted from the smallest on, the first of the equals go.
                (_, true) => (n_stay, Which::Last),
                (Ties::Exact, false) => (n_stay, Which::First),
                (Ties::All, false) => (at.n_equal, Which::First),
            };
            Planned::Band { low: edge(Equals { score, at, n_stay, which }), high }
        };
        let planned: Vec<Planned> = cuts.into_iter().enumerate().map(planned).collect();
        let edges = found_edges(stream, &edges)?;
        let at = |index: usize| edges.get(index).cloned().unwrap_or_else(|| Edge::with_ties(0));
        let keep = |planned: Planned| match planned {
            Planned::All => Keep::All,
            Planned::Nothing => Keep::Random { key: 0, chance: 0 },
            Planned::Band { low, high } => Keep::Band { low: at(low), high: high.map(at) },
        };
        Ok(planned.into_iter().map(keep).collect())
    }

    fn is_breadcrumbs(&self) -> bool {
        matches!(self.method, Method::Breadcrumbs | Method::BreadcrumbsTies)
    }

    /// How many of `n` values stay, and how many larger ones go; `None` where all stay.
    fn cut(&self, n: u64, density: f64, gamma: f64) -> Option<Cut> {
        if density >= 1.0 || n == 0 {
            return None;
        }
        let n_kept = (density * n as f64) as u64;
        if self.is_breadcrumbs() {
            // So many of the largest go, but never so many that fewer than the share stay.
            let n_bottom = n.saturating_sub(n_kept).saturating_sub((gamma * n as f64) as u64);
            return Some(Cut { n_kept, n_top: n - n_kept - n_bottom });
        }
        Some(Cut { n_kept: n_kept.max(1), n_top: 0 })
    }

    /// Each task's values by chance.
    fn random(&self, tensor: &str, density: &[f64]) -> Vec<Keep> {
        let keep = |(task, density): (usize, &f64)| match *density >= 1.0 {
            true => Keep::All,
            false => Keep::Random { key: self.key(task, tensor), chance: chance(*density) },
        };
        density.iter().enumerate().map(keep).collect()
    }

    /// The key of one task's randomness in one tensor: of their names, so that it does not depend on what else is merged.
    pub(super) fn key(&self, task: usize, tensor: &str) -> u32 {
        let name = self.names.get(task).map_or("", String::as_str);
        Digest::of_parts([&self.seed.to_le_bytes()[..], name.as_bytes(), b"\0", tensor.as_bytes()]).0 as u32
    }

    /// Sets factors that make up for what goes.
    fn rescale(&self, stream: &Stream<'_>, settings: &TensorSettings, merge: &mut Merge) -> Result<()> {
        match settings.rescale {
            Rescale::No => {}
            Rescale::Chance => {
                for (task, density) in merge.tasks.iter_mut().zip(&settings.density) {
                    if matches!(task.keep, Keep::Random { .. }) {
                        task.factor = (f64::from(task.weight) / density) as f32;
                    }
                }
            }
            Rescale::L1 => {
                if merge.tasks.iter().all(|task| task.keep == Keep::All) {
                    return Ok(());
                }
                let mut bare = merge.clone();
                bare.tasks.iter_mut().for_each(|task| task.factor = 1.0);
                let sums = stream.sums(&bare, false)?;
                for ((task, all), kept) in merge.tasks.iter_mut().zip(&sums.l1).zip(&sums.kept_l1) {
                    task.factor = (f64::from(task.weight) * l1_factor(*all, *kept)) as f32;
                }
            }
        }
        Ok(())
    }

    /// SCE: which elements stay by their variance, and what each task counts by what stays of it.
    fn select(&self, stream: &Stream<'_>, settings: &TensorSettings, merge: &mut Merge) -> Result<()> {
        merge.tasks.iter_mut().for_each(|task| task.factor = 1.0);
        if settings.select_topk < 1.0 {
            let zeros = Bracket { score: Score::Variance, low: 0, high: 1, shift: None, most_listed: 0 };
            let n_zeros: u64 = stream.count(&[zeros])?.iter().map(|found| found.n_inside).sum();
            let k = ((stream.n_rows() - n_zeros) as f64 * settings.select_topk) as u64;
            merge.variance = Some(match k {
                0 => Edge { bits: u32::MAX, ties: 0..0 },
                k => {
                    let wanted = Wanted { score: Score::Variance, k };
                    let at = thresholds(&[*stream], &[wanted])?.first().copied().unwrap_or_default();
                    let equals = Equals { score: wanted.score, at, n_stay: k - at.n_above, which: Which::First };
                    found_edges(stream, &[equals])?.pop().unwrap_or_else(|| Edge::with_ties(at.bits))
                }
            });
        }
        let squares = stream.sums(merge, false)?.kept_squares;
        let n_tasks = squares.len().max(1) as f64;
        let mean_square = squares.iter().sum::<f64>() / (stream.n_rows() as f64).max(1.0);
        let least = if self.with_guards { LEAST_SQUARE } else { 0.0 };
        let total: f64 = squares.iter().sum();
        for ((task, square), weight) in merge.tasks.iter_mut().zip(&squares).zip(&settings.weight) {
            let share = if mean_square <= least { 1.0 / n_tasks } else { square / total };
            task.weight = (share * weight) as f32;
        }
        Ok(())
    }
}

/// How many values stay, and how many larger ones go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    n_kept: u64,
    n_top: u64,
}

/// A share of all 32-bit words.
pub(super) fn chance(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * 4_294_967_296.0) as u32
}

/// What gives back the L1 norm; 1 where there is next to nothing.
pub(super) fn l1_factor(all: f64, kept: f64) -> f64 {
    if all < LEAST_NORM || kept < LEAST_NORM { 1.0 } else { all / kept }
}

/// What stays of a task, by the numbers of its edges.
enum Planned {
    All,
    Nothing,
    Band { low: usize, high: Option<usize> },
}

/// Which of the values that equal a threshold stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// The first ones.
    First,
    /// The last ones.
    Last,
}

/// An edge at a threshold, and how many of its equals stay.
#[derive(Clone, Copy, Debug)]
struct Equals {
    score: Score,
    at: Threshold,
    n_stay: u64,
    which: Which,
}

/// The edges: where not all equals of some stay, one pass says which do.
fn found_edges(stream: &Stream<'_>, equals: &[Equals]) -> Result<Vec<Edge>> {
    let is_cut = |equals: &&Equals| equals.n_stay < equals.at.n_equal;
    let asked: Vec<(Bracket, u64)> = equals
        .iter()
        .filter(is_cut)
        .map(|Equals { score, at, n_stay, which }| {
            let bracket =
                Bracket { score: *score, low: at.bits, high: at.bits.saturating_add(1), shift: None, most_listed: 0 };
            // The first that goes, or the first that stays.
            (bracket, if *which == Which::First { *n_stay } else { at.n_equal - n_stay })
        })
        .collect();
    let mut places = match asked.is_empty() {
        true => Vec::new(),
        false => stream.places_of_equals(&asked)?,
    }
    .into_iter();
    let edge = |equals: &Equals| {
        let bits = equals.at.bits;
        match (is_cut(&equals), equals.which) {
            (false, _) => Edge::with_ties(bits),
            (true, Which::First) => Edge { bits, ties: 0..places.next().unwrap_or(u64::MAX) },
            (true, Which::Last) => Edge { bits, ties: places.next().unwrap_or(0)..u64::MAX },
        }
    };
    Ok(equals.iter().map(edge).collect())
}

/// Bands of whole task vectors: each task's largest values over all tensors; values that equal the threshold stay.
///
/// # Errors
/// As [`Stream::count`].
pub(super) fn whole_bands(streams: &[Stream<'_>], density: &[f64]) -> Result<Vec<Keep>> {
    let n: u64 = streams.iter().map(Stream::n_rows).sum();
    let wanted: Vec<Wanted> = density
        .iter()
        .enumerate()
        .filter(|(_, density)| **density < 1.0 && n > 0)
        .map(|(task, density)| Wanted { score: Score::Magnitude { task }, k: ((density * n as f64) as u64).max(1) })
        .collect();
    let found = thresholds(streams, &wanted)?;
    let mut keeps = vec![Keep::All; density.len()];
    for (wanted, at) in wanted.iter().zip(found) {
        if let Score::Magnitude { task } = wanted.score
            && let Some(keep) = keeps.get_mut(task)
        {
            *keep = Keep::Band { low: Edge::with_ties(at.bits), high: None };
        }
    }
    Ok(keeps)
}

/// Whether thresholds of whole task vectors are asked for.
pub(super) fn is_whole(method: Method, settings: &TensorSettings) -> bool {
    settings.over == Over::Model && matches!(method, Method::Ties | Method::Magnitude)
}
