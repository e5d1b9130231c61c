//! Which points are asked for: the starts, then CMA-ES from the best of them, and from the next best one where it stalls. Pure.

use super::starts::Start;
use crate::error::{Error, Result};
use crate::solve::CmaEs;

/// A search has stalled after this many generations without a better point, and a few more where there are many coefficients.
const PATIENCE: usize = 5;
/// Improvements below this part of a value are none.
const TIE: f64 = 1e-12;

/// A point that is to be evaluated.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Asked {
    /// Where it comes from.
    pub from: String,
    pub values: Vec<f64>,
}

/// The state of a search.
#[derive(Debug)]
pub(super) struct Search {
    starts: Vec<Start>,
    sigma: f64,
    seed: u64,
    /// Positions of the starts, the best first, once they were told.
    order: Option<Vec<usize>>,
    run: Option<Run>,
    n_runs: usize,
}

/// One search by CMA-ES.
#[derive(Debug)]
struct Run {
    cma: CmaEs,
    generation: usize,
    best: f64,
    /// Generations without a better point.
    n_idle: usize,
}

impl Search {
    pub(super) fn new(starts: Vec<Start>, sigma: f64, seed: u64) -> Result<Search> {
        // What cannot be searched is refused before anything is evaluated.
        let first = starts.first().ok_or_else(|| Error::usage("a search: a start expected, none found"))?;
        CmaEs::new(&first.values, sigma, seed)?;
        Ok(Search { starts, sigma, seed, order: None, run: None, n_runs: 0 })
    }

    /// The next points, to be told all together.
    pub(super) fn ask(&mut self) -> Result<Vec<Asked>> {
        let Some(order) = &self.order else {
            let asked = |start: &Start| Asked { from: format!("start: {}", start.name), values: start.values.clone() };
            return Ok(self.starts.iter().map(asked).collect());
        };
        let run = match &mut self.run {
            Some(run) => run,
            None => {
                let start = order.get(self.n_runs % order.len().max(1)).and_then(|&at| self.starts.get(at));
                let start = start.ok_or_else(|| Error::usage("a search: a start expected, none found"))?;
                let cma = CmaEs::new(&start.values, self.sigma, self.seed.wrapping_add(self.n_runs as u64))?;
                self.n_runs += 1;
                self.run.insert(Run { cma, generation: 0, best: f64::INFINITY, n_idle: 0 })
            }
        };
        run.generation += 1;
        let from = format!("run {}, generation {}", self.n_runs, run.generation);
        Ok(run.cma.ask().into_iter().map(|values| Asked { from: from.clone(), values }).collect())
    }

    /// What the points of the last [`ask`](Search::ask) lose, in their order.
    pub(super) fn tell(&mut self, losses: &[f64]) -> Result<()> {
        let Some(run) = &mut self.run else {
            if self.order.is_some() || losses.len() != self.starts.len() {
                let (expected, found) = (self.starts.len(), losses.len());
                return Err(Error::usage(format!("a search: {expected} values expected, {found} found")));
            }
            let mut order: Vec<(usize, f64)> = losses.iter().copied().enumerate().collect();
            order.sort_by(|a, b| a.1.total_cmp(&b.1));
            self.order = Some(order.into_iter().map(|(at, _)| at).collect());
            return Ok(());
        };
        run.cma.tell(losses)?;
        let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
        if least < run.best - TIE * run.best.abs().min(1.0) || run.best.is_infinite() {
            (run.best, run.n_idle) = (least, 0);
        } else {
            run.n_idle += 1;
        }
        let patience = PATIENCE + 10 * run.cma.mean().len() / run.cma.population().max(1);
        if run.n_idle > patience {
            self.run = None;
        }
        Ok(())
    }

    /// The middle of the running search, once it has learnt from a generation.
    pub(super) fn mean(&self) -> Option<&[f64]> {
        self.run.as_ref().filter(|run| run.generation > 0).map(|run| run.cma.mean())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts() -> Vec<Start> {
        [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
            .map(|values| Start { name: format!("{values:?}"), values: values.to_vec() })
            .to_vec()
    }

    #[test]
    fn the_best_start_is_searched_from_and_the_next_one_where_that_stalls() {
        let mut search = Search::new(starts(), 0.1, 1).unwrap();
        let first = search.ask().unwrap();
        assert_eq!(first.len(), 3);
        assert!(search.mean().is_none() && search.tell(&[1.0]).is_err());
        search.tell(&[2.0, 1.0, 1.5]).unwrap();
        let near = |asked: &[Asked], at: [f64; 2]| {
            asked.iter().all(|asked| asked.values.iter().zip(at).all(|(value, at)| (value - at).abs() < 0.7))
        };
        let asked = search.ask().unwrap();
        assert!(near(&asked, [1.0, 0.0]) && asked[0].from == "run 1, generation 1", "{asked:?}");
        search.tell(&vec![1.0; asked.len()]).unwrap();
        // Nothing gets better: another run begins at the next start.
        let mut n = 0;
        let next = loop {
            let asked = search.ask().unwrap();
            if asked[0].from == "run 2, generation 1" {
                break asked;
            }
            search.tell(&vec![1.0; asked.len()]).unwrap();
            n += 1;
            assert!(n < 50);
        };
        assert!(near(&next, [0.0, 1.0]), "{next:?}");
    }

    #[test]
    fn it_goes_where_the_losses_fall() {
        let mut search = Search::new(starts(), 0.3, 1).unwrap();
        let loss = |values: &[f64]| (values[0] - 0.4).powi(2) + (values[1] + 0.2).powi(2);
        for _ in 0..40 {
            let losses: Vec<f64> = search.ask().unwrap().iter().map(|asked| loss(&asked.values)).collect();
            search.tell(&losses).unwrap();
        }
        assert!(loss(search.mean().unwrap()) < 1e-4, "{:?}", search.mean());
    }

    #[test]
    fn too_many_coefficients_are_refused_at_once() {
        let many = vec![Start { name: "zero".into(), values: vec![0.0; crate::solve::DIMENSIONS_MAX + 1] }];
        assert!(Search::new(many, 0.1, 1).is_err());
    }
}
