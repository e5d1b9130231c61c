//! What a fit tries before it searches: the base, given coefficients, the sum at a few scales, every task alone.

use super::options::{Chosen, FitOptions};
use crate::error::{Error, Result};
use crate::jobs::edit::{Block, Combination, Mixer, Over, Source, blocks_by_layer};
use crate::shown::shown;
use std::collections::BTreeSet;

/// Scales of the sum of all tasks.
const SUM_SCALES: [f64; 4] = [0.1, 0.2, 0.4, 1.0];

/// Coefficients to begin with.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Start {
    pub name: String,
    /// \[n_rows · n_names\], row after row.
    pub values: Vec<f64>,
}

/// Which coefficients there are: their names and blocks; all of them zero.
pub(super) fn shape(source: Source<'_>, options: &FitOptions) -> Result<Combination> {
    let (over, names) = match &options.over {
        Chosen::Tasks => (Over::Tasks, Combination::names_in(source, Over::Tasks)?),
        Chosen::Atoms => (Over::Atoms, Combination::names_in(source, Over::Atoms)?),
        Chosen::Named(names) => (Over::Tasks, names.clone()),
    };
    let mut seen = BTreeSet::new();
    if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
        return Err(Error::usage(format!("--over: {} is there twice", shown(twice))));
    }
    let blocks = match options.n_blocks {
        None => None,
        Some(n_blocks) => {
            let blocks = blocks_by_layer(&Combination::tensors_of(source), n_blocks)?;
            let named = blocks.into_iter().enumerate();
            Some(named.map(|(index, tensors)| Block { name: format!("block{index}"), tensors }).collect::<Vec<_>>())
        }
    };
    let n_rows = blocks.as_ref().map_or(1, Vec::len);
    let values = vec![vec![0.0; names.len()]; n_rows];
    Ok(Combination { over, names, blocks, values })
}

/// The starts, and the length of a first step in one coefficient.
///
/// # Errors
/// Rejected: given coefficients that are for other names or blocks.
pub(super) fn starts(
    source: Source<'_>,
    shape: &Combination,
    mixer: &Mixer<'_>,
    options: &FitOptions,
) -> Result<(Vec<Start>, f64)> {
    let tasks = Combination::names_in(source, Over::Tasks)?;
    let n_rows = shape.values.len();
    // Of tasks that get a coefficient, or of all where atoms do.
    let is_chosen = |name: &String| shape.over == Over::Atoms || shape.names.contains(name);
    let chosen: Vec<&String> = tasks.iter().filter(|name| is_chosen(name)).collect();
    let row = |weight: &dyn Fn(&String) -> f64| -> Vec<f64> {
        match shape.over {
            Over::Tasks => shape.names.iter().map(weight).collect(),
            Over::Atoms => {
                let alpha: Vec<f64> = tasks.iter().map(weight).collect();
                mixer.over_atoms(&alpha).unwrap_or_default()
            }
        }
    };
    let start = |name: String, row: Vec<f64>| Start { name, values: row.repeat(n_rows) };
    let mut starts = vec![start("zero".to_owned(), row(&|_| 0.0))];
    if let Some(init) = &options.init {
        starts.push(Start { name: "given".to_owned(), values: given(init, shape)?.concat() });
    }
    if chosen.len() > 1 {
        starts.extend(SUM_SCALES.map(|scale| start(format!("{scale}*sum"), row(&|_| scale))));
    }
    let alone: Vec<Vec<f64>> = chosen.iter().map(|task| row(&|name| f64::from(u8::from(name == *task)))).collect();
    let length = |row: &Vec<f64>| row.iter().map(|value| value * value).sum::<f64>().sqrt();
    let mean_length = alone.iter().map(length).sum::<f64>() / alone.len().max(1) as f64;
    starts.extend(chosen.iter().zip(alone).map(|(task, row)| start((*task).clone(), row)));
    // A step of the whole row is a good half of a task.
    let sigma = STEP * mean_length / (shape.names.len().max(1) as f64).sqrt();
    Ok((starts, if sigma.is_finite() && sigma > 0.0 { sigma } else { STEP }))
}

/// The length of a first step, as a part of a task alone.
const STEP: f64 = 0.6;

/// Given coefficients as those that are fitted. Names that are not given are zero; where nothing is said of blocks, all begin
/// alike.
fn given(init: &Combination, shape: &Combination) -> Result<Vec<Vec<f64>>> {
    let in_words = |over: Over| if over == Over::Tasks { "tasks" } else { "atoms" };
    if init.over != shape.over {
        let (expected, found) = (in_words(shape.over), in_words(init.over));
        return Err(Error::rejected(format!("--init: coefficients over {expected} expected, over {found} found")));
    }
    if let Some(unknown) = init.names.iter().find(|name| !shape.names.contains(name)) {
        return Err(Error::rejected(format!("--init: {} gets no coefficient in this fit", shown(unknown)))
            .hint("--over says what does"));
    }
    let row = |row: &Vec<f64>| -> Vec<f64> {
        let value = |name: &String| init.names.iter().position(|known| known == name).and_then(|at| row.get(at));
        shape.names.iter().map(|name| value(name).copied().unwrap_or(0.0)).collect()
    };
    let sets = |block: &Block| block.tensors.iter().cloned().collect::<BTreeSet<String>>();
    match (&init.blocks, &shape.blocks) {
        (None, None) => Ok(init.values.iter().map(row).collect()),
        (None, Some(blocks)) => {
            let all = init.values.first().map(row).unwrap_or_default();
            Ok(vec![all; blocks.len()])
        }
        (Some(theirs), Some(ours))
            if theirs.len() == ours.len() && theirs.iter().zip(ours).all(|(a, b)| sets(a) == sets(b)) =>
        {
            Ok(init.values.iter().map(row).collect())
        }
        (Some(theirs), ours) => Err(Error::rejected(format!(
            "--init: {} blocks of tensors expected, {} others found",
            ours.as_ref().map_or(1, Vec::len),
            theirs.len()
        ))
        .hint("fit with the same --blocks")),
    }
}
