//! A device as rates: what is believed of it, and the seconds that follow for a job.

use super::work::{Stage, Step, Width, Work};
use std::time::Duration;

/// Bytes a second that a disk is taken to give: any figure that keeps both engines waiting alike.
const DISK_RATE: f64 = 1e9;
/// Bytes a second, in 1e9, that one thread reads, digests and puts where an adapter finds them.
const FEED_PER_THREAD: f64 = 4.0;

/// How fast whole passes of one stage are at one number of columns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The stage.
    pub stage: Stage,
    /// Width of the elements that go in.
    pub width: Width,
    /// T, or the number of atoms.
    pub n_columns: usize,
    /// Seconds until the first chunk is under way: pipelines, buffers, files.
    pub begin_s: f64,
    /// Bytes that go in, from files in the page cache, in 1e9 a second.
    pub from_files: f64,
    /// The same where the device has kept them; `None` where it keeps nothing.
    pub kept: Option<f64>,
    /// Bytes that come out, into files, in 1e9 a second.
    pub out: f64,
}

/// What is believed of one device.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    /// Seconds to open and test it.
    pub open_s: f64,
    /// In any order.
    pub rates: Vec<Rate>,
}

impl Rates {
    /// The rate of a stage at any number of columns: between two that are known by a power law, below the least as there, above
    /// the largest falling as 1/T, as arithmetic does. Of another width where this one is not known.
    pub fn at(&self, stage: Stage, width: Width, n_columns: usize) -> Option<Rate> {
        let of_width = |wanted: Width| -> Vec<&Rate> {
            let mut found: Vec<&Rate> =
                self.rates.iter().filter(|rate| rate.stage == stage && rate.width == wanted).collect();
            found.sort_by_key(|rate| rate.n_columns);
            found
        };
        let mut known = of_width(width);
        if known.is_empty() {
            known = of_width(if width == Width::Two { Width::Four } else { Width::Two });
        }
        let n_columns = n_columns.max(1);
        let below = known.iter().rev().find(|rate| rate.n_columns <= n_columns);
        let above = known.iter().find(|rate| rate.n_columns >= n_columns);
        let found = match (below, above) {
            (Some(below), Some(above)) => between(below, above, n_columns),
            (None, Some(least)) => **least,
            (Some(most), None) => {
                let by = most.n_columns as f64 / n_columns as f64;
                Rate { from_files: most.from_files * by, kept: most.kept.map(|rate| rate * by), ..**most }
            }
            (None, None) => return None,
        };
        Some(Rate { width, n_columns, ..found })
    }

    /// The same device with this many of the `n_measured` threads that the rates are for; more than twice as fast than
    /// measured is not believed.
    #[must_use]
    pub fn with_threads(mut self, n_threads: usize, n_measured: usize) -> Rates {
        let by = (n_threads as f64 / n_measured.max(1) as f64).min(2.0);
        for rate in &mut self.rates {
            rate.from_files *= by;
            rate.out *= by;
        }
        self
    }

    /// The same adapter where this many threads read and feed it: no faster than they are.
    #[must_use]
    pub fn fed_by(mut self, n_threads: usize) -> Rates {
        let most = FEED_PER_THREAD * n_threads.max(1) as f64;
        self.rates.iter_mut().for_each(|rate| rate.from_files = rate.from_files.min(most));
        self
    }

    /// Seconds that `work` takes, the opening included, with `device_bytes` of room for what is kept between passes; `None`
    /// where a stage of it is not known.
    pub fn seconds(&self, work: &Work, device_bytes: u64) -> Option<f64> {
        let steps = work.steps.iter().map(|step| self.step_seconds(step, work.on_disk, device_bytes));
        Some(self.open_s + steps.sum::<Option<f64>>()?)
    }

    fn step_seconds(&self, step: &Step, on_disk: bool, device_bytes: u64) -> Option<f64> {
        // What has no room stays out, chunk by chunk.
        let kept_share = match (step.again, step.n_bytes()) {
            (false, _) | (_, 0) => 0.0,
            (true, n_bytes) => (device_bytes as f64 / n_bytes as f64).min(1.0),
        };
        let (mut begin_s, mut out_rate, mut through_s) = (0.0f64, f64::INFINITY, 0.0);
        let width = step.in_bytes.iter().max_by_key(|(_, n_bytes)| *n_bytes).map_or(Width::Four, |(width, _)| *width);
        for (width, n_bytes) in step.in_bytes.iter().copied().chain([(width, 0)]) {
            let rate = self.at(step.stage, width, step.n_columns)?;
            let n_bytes = n_bytes as f64 / 1e9;
            let kept_share = if rate.kept.is_some() { kept_share } else { 0.0 };
            through_s += n_bytes * (1.0 - kept_share) / rate.from_files;
            through_s += n_bytes * kept_share / rate.kept.unwrap_or(rate.from_files);
            (begin_s, out_rate) = (begin_s.max(rate.begin_s), out_rate.min(rate.out));
        }
        let read_s = if on_disk && !step.again { step.n_bytes() as f64 / DISK_RATE } else { 0.0 };
        let once = begin_s + through_s.max(read_s) + step.out_bytes as f64 / 1e9 / out_rate;
        Some(once * step.n_times as f64)
    }

    /// Whether every number can be one of a device.
    pub fn are_sane(&self) -> bool {
        let is_time = |seconds: f64| (0.0..1e4).contains(&seconds);
        let is_rate = |rate: f64| (1e-6..1e6).contains(&rate);
        let is_sane = |rate: &Rate| {
            let rates = [Some(rate.from_files), rate.kept, Some(rate.out)];
            is_time(rate.begin_s)
                && (1..=tvb_kernels::MAX_TASKS).contains(&rate.n_columns)
                && rates.into_iter().flatten().all(is_rate)
        };
        is_time(self.open_s) && self.rates.iter().all(is_sane)
    }
}

/// A rate between two: each figure a power of the number of columns.
fn between(below: &Rate, above: &Rate, n_columns: usize) -> Rate {
    let log = |n: usize| (n as f64).ln();
    let span = log(above.n_columns) - log(below.n_columns);
    let at = if span > 0.0 { (log(n_columns) - log(below.n_columns)) / span } else { 0.0 };
    let power = |below: f64, above: f64| (below.ln() * (1.0 - at) + above.ln() * at).exp();
    Rate {
        begin_s: below.begin_s * (1.0 - at) + above.begin_s * at,
        from_files: power(below.from_files, above.from_files),
        kept: below.kept.zip(above.kept).map(|(below, above)| power(below, above)),
        out: power(below.out, above.out),
        ..*below
    }
}

/// Seconds for people: `60 ms`, `1.2 s`.
pub(super) fn shown(seconds: f64) -> String {
    crate::units::duration(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}
