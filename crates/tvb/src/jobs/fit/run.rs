//! The fit: generations of candidates formed and evaluated, several at once, every finished point kept.

use super::candidates::Candidates;
use super::options::FitOptions;
use super::point::{Fitted, Point, identity};
use super::results;
use super::search::{Asked, Search};
use super::starts::{shape, starts};
use crate::checkpoint::{Checkpoint, Existing, Inputs, OutputKind, check_output};
use crate::error::{Error, Result};
use crate::jobs::edit::{Combination, Mixer, Source};
use crate::jobs::evaluate::Session;
use crate::jobs::point_log::{Kind, PointLog, check_folder};
use crate::jobs::trying::Watched;
use crate::pass::Runtime;
use crate::progress::Progress;
use crate::units;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Finds coefficients over tasks or atoms of `source`, whose edit of `base` the evaluator likes best; writes results.json,
/// results.csv, plot.svg and coefficients.json, and keeps the best candidate.
///
/// # Errors
/// Usage: more coefficients than a search can have, unknown names. Rejected: the output holds something else, a damaged basis,
/// another base. Failed: the evaluator fails or lacks the metric, I/O, device. Interrupted. Finished points are kept whatever
/// happens.
pub fn fit(
    source: Source<'_>,
    base: &Checkpoint,
    options: &FitOptions,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Fitted> {
    let inputs = source.inputs().with(&base.inputs()).with(&options.protect);
    check_folder(Kind::Fit, &options.output)?;
    // The fit writes, replaces and removes files of several names in its folder.
    inputs.check_outside(&options.output)?;
    let shape = shape(source, options)?;
    let mixer = Mixer::new(source, shape.over, &shape.names, shape.blocks.as_deref())?;
    let (starts, sigma) = starts(source, &shape, &mixer, options)?;
    if starts.len() >= options.n_evaluations.get() {
        let (n, n_starts) = (options.n_evaluations, starts.len());
        progress.warn(&format!("{n} evaluations are not enough to search: {n_starts} starts are tried first"));
    }
    let search = Search::new(starts, sigma, options.seed)?;
    let identity = identity(source, &shape, base, options)?;
    let log = PointLog::<Point>::open(&options.output, &identity, options.existing)?;
    let save_existing = check_save(options, !log.points().is_empty(), &inputs)?;
    let candidates = Candidates { source, mixer, base, options, runtime, shape: &shape, forming: Mutex::new(()) };
    let n_before = log.points().len();
    let mut fitting = Fitting::new(&candidates, log, progress);
    let searched = fitting.search(search);
    let (log, searched) = (fitting.log.into_inner().unwrap_or_else(PoisonError::into_inner), searched);
    match searched {
        // Whatever went wrong after the user asked to stop went wrong because of that.
        Err(_) if progress.cancelled() => {
            return Err(Error::interrupted().hint(format!(
                "{} finished points are kept; the same command resumes from there",
                log.points().len()
            )));
        }
        searched => searched?,
    }
    let n_evaluated = log.points().len() - n_before;
    let mut points = log.points().to_vec();
    points.sort_by_key(|point| point.number.unwrap_or(usize::MAX));
    let best = best(&points, options)?;
    let (Some(position), Some(point)) = (best, best.and_then(|best| points.get(best))) else {
        return Err(Error::failed("a fit: a point or more expected, none found").hint("give it more --time"));
    };
    let best_path = candidates.best_path();
    candidates.form(&point.values, &best_path, &Watched::new(progress))?;
    let combination = Combination { values: point.values.clone(), ..shape.clone() };
    let fingerprint = identity.fingerprint();
    let fitted = Fitted { best: position, combination, best_path, n_evaluated, fingerprint, points };
    fitted.combination.write(&options.output.join("coefficients.json"), Existing::Replace, &inputs)?;
    results::write(&fitted, options, &inputs)?;
    if let Some(path) = &options.save {
        fitted.combination.write(path, save_existing, &inputs)?;
    }
    Ok(fitted)
}

/// Whether the best coefficients could be saved where they are to be, asked before the work. What a run of the same fit saved
/// there is replaced.
fn check_save(options: &FitOptions, is_resumed: bool, inputs: &Inputs) -> Result<Existing> {
    let Some(path) = &options.save else { return Ok(options.existing) };
    let is_ours = || Combination::read(path, &crate::checkpoint::Budget::default()).is_ok();
    let existing = if is_resumed && is_ours() { Existing::Replace } else { options.existing };
    check_output(OutputKind::File, path, existing, inputs).map_err(|error| error.context("--save"))?;
    Ok(existing)
}

/// The position of the best point: the one that is worth most, of equal ones that of the smaller coefficients, then the first.
fn best(points: &[Point], options: &FitOptions) -> Result<Option<usize>> {
    let mut best: Option<(usize, f64, f64)> = None;
    for (index, point) in points.iter().enumerate() {
        let (worth, squares) = (point.objective(options)?, point.squares());
        let is_better = best.is_none_or(|(_, most, least)| worth > most || (worth == most && squares < least));
        if is_better {
            best = Some((index, worth, squares));
        }
    }
    Ok(best.map(|(index, ..)| index))
}

/// A fit at work.
struct Fitting<'a> {
    candidates: &'a Candidates<'a>,
    log: Mutex<PointLog<Point>>,
    progress: &'a dyn Progress,
    watched: Watched<'a>,
    started: Instant,
    /// Seconds that runs before this one took.
    before: f64,
    n_evaluated: AtomicUsize,
}

impl<'a> Fitting<'a> {
    fn new(candidates: &'a Candidates<'a>, log: PointLog<Point>, progress: &'a dyn Progress) -> Fitting<'a> {
        let before = log.points().iter().map(|point| point.elapsed).fold(0.0, f64::max);
        Fitting {
            candidates,
            log: Mutex::new(log),
            progress,
            watched: Watched::new(progress),
            started: Instant::now(),
            before,
            n_evaluated: AtomicUsize::new(0),
        }
    }

    fn elapsed(&self) -> f64 {
        self.before + self.started.elapsed().as_secs_f64()
    }

    fn is_late(&self) -> bool {
        self.candidates.options.time.is_some_and(|time| self.elapsed() >= time.as_secs_f64())
    }

    /// Asks for generations and evaluates them, as long as the budget lasts.
    fn search(&mut self, mut search: Search) -> Result<()> {
        let options = self.candidates.options;
        // The last evaluation is the mean's.
        let n_most = options.n_evaluations.get().saturating_sub(1).max(1);
        let evaluator = &options.evaluator;
        let mut sessions: Vec<Session<'_>> = (0..options.n_jobs.get()).map(|_| evaluator.session()).collect();
        let mut n_asked = 0;
        while n_asked < n_most {
            self.watched.check()?;
            let asked = search.ask()?;
            let n_todo = asked.len().min(n_most - n_asked);
            let points = self.evaluate_all(&mut sessions, n_asked, asked.get(..n_todo).unwrap_or_default())?;
            n_asked += n_todo;
            if n_todo < asked.len() || points.iter().any(Option::is_none) {
                break;
            }
            let losses: Vec<f64> = points
                .iter()
                .flatten()
                .map(|point| point.objective(options).map(|worth| -worth))
                .collect::<Result<_>>()?;
            search.tell(&losses)?;
            self.tell(&asked, n_asked)?;
        }
        let mean = search.mean().filter(|_| n_asked >= n_most).map(|values| self.candidates.rows(values));
        if let (Some(values), Some(session)) = (mean, sessions.first_mut()) {
            let is_known = |point: &Point| point.number.is_none() && point.values == values;
            let known = self.lock().points().iter().any(is_known);
            if !known && !self.is_late() {
                self.evaluate(session, None, "mean".to_owned(), values)?;
            }
        }
        sessions.into_iter().try_for_each(|session| session.finish(&self.watched))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, PointLog<Point>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The points of a generation, those of runs before this one out of the log; `None` for what there was no time for.
    fn evaluate_all(&self, sessions: &mut [Session<'_>], first: usize, asked: &[Asked]) -> Result<Vec<Option<Point>>> {
        let mut points: Vec<Option<Point>> = Vec::with_capacity(asked.len());
        for (index, asked) in asked.iter().enumerate() {
            points.push(self.found(first + index, asked)?);
        }
        let todo: Vec<usize> =
            points.iter().enumerate().filter(|(_, point)| point.is_none()).map(|(index, _)| index).collect();
        let next = AtomicUsize::new(0);
        let done: Mutex<Vec<(usize, Point)>> = Mutex::default();
        let failure: Mutex<Option<Error>> = Mutex::default();
        let work = |session: &mut Session<'_>| -> Result<()> {
            while let Some(&index) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.watched.check()?;
                let Some(asked) = asked.get(index).filter(|_| !self.is_late()) else { break };
                let values = self.candidates.rows(&asked.values);
                let point = self.evaluate(session, Some(first + index), asked.from.clone(), values)?;
                done.lock().unwrap_or_else(PoisonError::into_inner).push((index, point));
            }
            Ok(())
        };
        let watched = |session: &mut Session<'_>| {
            if let Err(error) = work(session) {
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                self.watched.stop();
            }
        };
        match (sessions, todo.len()) {
            (_, 0) => {}
            ([session], _) => watched(session),
            (sessions, n_todo) => std::thread::scope(|scope| {
                for session in sessions.iter_mut().take(n_todo) {
                    scope.spawn(|| watched(session));
                }
            }),
        }
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        for (index, point) in done.into_inner().unwrap_or_else(PoisonError::into_inner) {
            if let Some(place) = points.get_mut(index) {
                *place = Some(point);
            }
        }
        Ok(points)
    }

    /// The point of this number as the log has it.
    fn found(&self, number: usize, asked: &Asked) -> Result<Option<Point>> {
        let log = self.lock();
        let Some(point) = log.points().iter().find(|point| point.number == Some(number)) else { return Ok(None) };
        if point.values != self.candidates.rows(&asked.values) {
            let folder = crate::shown::shown_path(&self.candidates.options.output);
            return Err(Error::rejected(format!(
                "{folder}: point {number} of points.jsonl is not the one this search asks for"
            ))
            .hint("another version of tvb made it; --overwrite starts over"));
        }
        Ok(Some(point.clone()))
    }

    /// Forms and evaluates one point; it is on the disk afterwards.
    fn evaluate(
        &self,
        session: &mut Session<'_>,
        number: Option<usize>,
        from: String,
        values: Vec<Vec<f64>>,
    ) -> Result<Point> {
        let begun = Instant::now();
        let name = number.map_or_else(|| "mean".to_owned(), |number| format!("point-{number}"));
        let metrics = self.candidates.evaluate(session, &name, &values, &self.watched)?;
        let (seconds, elapsed) = (begun.elapsed().as_secs_f64(), self.elapsed());
        let point = Point { number, from, values, metrics, seconds, elapsed };
        self.lock().push(point.clone())?;
        // Only now, so that nothing that was paid for is lost.
        point.metric(self.candidates.options)?;
        self.n_evaluated.fetch_add(1, Ordering::Relaxed);
        Ok(point)
    }

    /// Says how far the fit is.
    fn tell(&self, asked: &[Asked], n_asked: usize) -> Result<()> {
        let options = self.candidates.options;
        let n_evaluated = self.n_evaluated.load(Ordering::Relaxed);
        // Points of runs before this one pass in no time.
        if n_evaluated == 0 {
            return Ok(());
        }
        let log = self.lock();
        let best = best(log.points(), options)?.and_then(|best| log.points().get(best));
        let from = asked.first().map_or("", |asked| asked.from.split(':').next().unwrap_or_default());
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = n_evaluated as f64 / seconds.max(1e-9);
        let n_all = options.n_evaluations.get();
        let of_points = n_all.saturating_sub(n_asked) as f64 / rate;
        let left = options.time.map_or(of_points, |time| of_points.min((time.as_secs_f64() - self.elapsed()).max(0.0)));
        if let Some(best) = best {
            self.progress.note(&format!(
                "{from}: best {} {:.4} ({}); {n_asked} of {n_all} points, {rate:.1} a second, {} left",
                options.metric,
                best.metric(options)?,
                best.name(),
                units::duration(std::time::Duration::from_secs_f64(left.clamp(0.0, 1e9)))
            ));
        }
        Ok(())
    }
}
