//! The sweep: candidates formed and evaluated, several at once, every finished point kept.

use super::candidates::Candidates;
use super::choose::{choose, metric, with_normalized};
use super::log::{Point, find, identity};
use super::options::{SweepOptions, Swept};
use super::results;
use super::scales::is_same_scale;
use crate::checkpoint::{Budget, Checkpoint, CheckpointWriter, Existing, check_output};
use crate::error::{Error, Result};
use crate::jobs::edit::{Edit, Source};
use crate::jobs::evaluate::{Metrics, Session, parse_metrics};
use crate::jobs::point_log::{Kind, PointLog, check_folder};
use crate::jobs::trying::{Watched, remove};
use crate::pass::Runtime;
use crate::progress::Progress;
use crate::units;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// A file of metrics larger than this is something else.
const MAX_METRICS_BYTES: u64 = 16 << 20;

/// Evaluates `edit` (its own scale is not used) over the grid, writes results.json, results.csv and plot.svg, and keeps
/// the best candidate. When no point keeps the control there is no best one, and that is no error.
///
/// # Errors
/// Rejected: the output holds something else, a damaged basis, another base. Failed: the evaluator fails or lacks a
/// metric, I/O, device. Interrupted. Finished points are kept whatever happens.
pub fn sweep(
    source: Source<'_>,
    edit: &Edit,
    base: &Checkpoint,
    options: &SweepOptions,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Swept> {
    let inputs = source.inputs().with(&base.inputs()).with(&options.protect);
    check_folder(Kind::Sweep, &options.output)?;
    // The sweep writes, replaces and removes files of several names in its folder.
    inputs.check_outside(&options.output)?;
    options.scales.iter().try_for_each(|&scale| Edit { scale, ..edit.clone() }.check(source))?;
    let identity = identity(source, edit, base, options.dtype, &options.evaluator.command);
    let log = PointLog::<Point>::open(&options.output, &identity, options.existing)?;
    let needs_base =
        options.zero_shot || options.goal.control.as_ref().is_some_and(|control| control.reference.is_none());
    let mut wanted = options.scales.clone();
    if needs_base && !wanted.iter().any(|scale| is_same_scale(*scale, 0.0)) {
        wanted.insert(0, 0.0);
    }
    // Points that a finished run left may lack what is asked for now.
    log.points().iter().try_for_each(|point| check_metrics(point, options))?;
    let todo: Vec<f64> = wanted.into_iter().filter(|scale| find(log.points(), *scale).is_none()).collect();
    let candidates = Candidates::new(source, edit, base, options, runtime);
    let log = evaluate_all(&candidates, &todo, log, progress)?;

    let extended = |point: &Point| Point {
        metrics: with_normalized(&point.metrics, options.fine_tuned.as_ref()),
        ..point.clone()
    };
    let points: Vec<Point> =
        options.scales.iter().filter_map(|scale| find(log.points(), *scale)).map(extended).collect();
    let zero_shot = needs_base.then(|| find(log.points(), 0.0)).flatten().map(|point| extended(point).metrics);
    let given = options.goal.control.as_ref().and_then(|control| control.reference.as_ref());
    let given = given.map(|reference| with_normalized(reference, options.fine_tuned.as_ref()));
    let choice = choose(&points, &options.goal, given.as_ref().or(zero_shot.as_ref()))?;
    let path = candidates.best_path();
    let best_path = match choice.best.and_then(|best| points.get(best)) {
        Some(best) => {
            candidates.form(best.scale, &path, &Watched::new(progress))?;
            Some(path)
        }
        // What another choice of metric left would be taken for this one's.
        // What a user has put into it stays.
        None => {
            check_output(CheckpointWriter::kind(&path)?, &path, Existing::Replace, &inputs)?;
            remove(&path).map(|()| None)?
        }
    };
    let n_evaluated = todo.len();
    let swept = Swept { points, zero_shot, choice, best_path, n_evaluated, fingerprint: identity.fingerprint() };
    results::write(&swept, options, &inputs)?;
    Ok(swept)
}

/// Evaluates what is left to do, several candidates at once; the first failure stops the others.
fn evaluate_all(
    candidates: &Candidates<'_>,
    todo: &[f64],
    log: PointLog<Point>,
    progress: &dyn Progress,
) -> Result<PointLog<Point>> {
    let (watched, started) = (Watched::new(progress), Instant::now());
    let (next, n_done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let log = Mutex::new(log);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let one = |session: &mut Session<'_>, scale: f64| -> Result<()> {
        let begun = Instant::now();
        let metrics = candidates.evaluate(session, scale, &watched)?;
        let point = Point { scale, metrics, seconds: begun.elapsed().as_secs_f64() };
        log.lock().unwrap_or_else(PoisonError::into_inner).push(point.clone())?;
        check_metrics(&point, candidates.options)?;
        let n_done = n_done.fetch_add(1, Ordering::Relaxed) + 1;
        let left = started.elapsed().mul_f64((todo.len() - n_done) as f64 / n_done as f64);
        let shown = with_normalized(&point.metrics, candidates.options.fine_tuned.as_ref());
        let name = &candidates.options.goal.metric;
        let value = shown.get(name).copied().unwrap_or(f64::NAN);
        progress.note(&format!(
            "scale {scale}: {name} {value:.4} ({n_done} of {}, {} left)",
            todo.len(),
            units::duration(left)
        ));
        Ok(())
    };
    let all = || -> Result<()> {
        let mut session = candidates.options.evaluator.session();
        while let Some(&scale) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
            watched.check()?;
            one(&mut session, scale)?;
        }
        session.finish(&watched)
    };
    let work = || {
        if let Err(error) = all() {
            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            watched.stop();
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..candidates.options.n_jobs.get().min(todo.len()) {
            scope.spawn(work);
        }
    });
    let log = log.into_inner().unwrap_or_else(PoisonError::into_inner);
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        // Whatever went wrong after the user asked to stop went wrong because of that.
        Some(_) if progress.cancelled() => Err(Error::interrupted()
            .hint(format!("{} finished points are kept; the same command resumes from there", log.points().len()))),
        Some(error) => Err(error),
        None => Ok(log),
    }
}

/// Whether a point has what the choice will need.
fn check_metrics(point: &Point, options: &SweepOptions) -> Result<()> {
    let all = with_normalized(&point.metrics, options.fine_tuned.as_ref());
    let control = options.goal.control.as_ref().map(|control| &control.name);
    for name in std::iter::once(&options.goal.metric).chain(control) {
        metric(&all, name).map_err(|error| error.context(format!("evaluator at scale {}", point.scale)))?;
    }
    Ok(())
}

/// Reads a file that holds one flat JSON object of numbers, as evaluators print them.
///
/// # Errors
/// Rejected: anything else. Failed: the system cannot read it.
pub fn read_metrics(path: &Path, budget: &Budget) -> Result<Metrics> {
    let text = crate::checkpoint::read_capped_or_pipe(path, "metrics", MAX_METRICS_BYTES, budget)?;
    parse_metrics(&String::from_utf8_lossy(&text)).map_err(|what| {
        Error::rejected(format!("{}: {what}", path.display())).hint("save what the evaluator prints on its last line")
    })
}
