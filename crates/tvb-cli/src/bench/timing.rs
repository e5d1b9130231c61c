//! How long something takes: the median of as many runs as fit a time.

use std::time::{Duration, Instant};
use tvb::error::Result;

/// How long to measure one thing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Samples are taken until this has passed.
    pub(super) time: Duration,
    /// At least so many.
    pub(super) least_samples: usize,
}

/// Samples there is no use in going beyond.
const MOST_SAMPLES: usize = 1000;

/// A measured time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Timed {
    /// The median of one run's time, in seconds.
    pub(crate) seconds: f64,
    /// Samples it is the median of.
    pub(crate) n_samples: usize,
}

/// Times `run`, which has been run before: what is made on first use is there.
///
/// # Errors
/// Those of `run`.
pub(super) fn measure(budget: Budget, mut run: impl FnMut() -> Result<()>) -> Result<Timed> {
    measure_repeated(budget, 1, |_| run())
}

/// Times `run(n)`, which does the same thing n times in one go, for devices on which one time is too short to see. A sample
/// is `most_together` runs at most, about 20 ms long, so that no watchdog of the driver bites. Where one run takes longer
/// than all samples should, it is the only sample.
///
/// # Errors
/// Those of `run`.
pub(super) fn measure_repeated(
    budget: Budget,
    most_together: u32,
    mut run: impl FnMut(u32) -> Result<()>,
) -> Result<Timed> {
    const SAMPLE_S: f64 = 0.02;
    const SLOW: f64 = 4.0;
    let started = Instant::now();
    run(1)?;
    let once = started.elapsed().as_secs_f64().max(1e-9);
    if once > budget.time.as_secs_f64() * SLOW {
        return Ok(Timed { seconds: once, n_samples: 1 });
    }
    let together = ((SAMPLE_S / once) as u32).clamp(1, most_together.max(1));
    let mut samples = Vec::new();
    let started = Instant::now();
    while samples.len() < budget.least_samples || (started.elapsed() < budget.time && samples.len() < MOST_SAMPLES) {
        let start = Instant::now();
        run(together)?;
        samples.push(start.elapsed().as_secs_f64() / f64::from(together));
    }
    samples.sort_by(f64::total_cmp);
    Ok(Timed { seconds: samples[samples.len() / 2], n_samples: samples.len() })
}
