//! A weighted sum of tasks or of atoms whose weights may differ from block to block of tensors: what a file of coefficients says.

use super::weights::Source;
use crate::arithmetic::find_task;
use crate::basis::OpenAtoms;
use crate::basis::atoms::plain::stem;
use crate::checkpoint::shown;
use crate::error::{Error, Result};
use crate::nearest::nearest;
use crate::ops::reconstruct::Edits;
use crate::shown::shown_path;
use crate::solve::{Coefficients, Rule};
use std::collections::HashMap;

/// What coefficients are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Task vectors.
    Tasks,
    /// The stored atoms of a basis.
    Atoms,
}

/// Tensors that share one row of coefficients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What it is called.
    pub name: String,
    /// The names of its tensors.
    pub tensors: Vec<String>,
}

/// Σ c·τ, with a coefficient for each task or atom, or one for each in every block of tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Combination {
    /// What the names are names of.
    pub over: Over,
    /// The tasks or atoms that take part.
    pub names: Vec<String>,
    /// `None`: one row of coefficients for all tensors.
    pub blocks: Option<Vec<Block>>,
    /// \[n_blocks\]\[n_names\], or one row.
    pub values: Vec<Vec<f64>>,
}

impl Combination {
    /// The weights over tasks called `names`, where they are the same for all tensors: such an edit can be written down as an
    /// expression. Tasks that are not among the coefficients have none.
    ///
    /// # Errors
    /// Rejected: a task that is not among the names.
    pub fn alpha(&self, names: &[String]) -> Result<Option<Vec<f64>>> {
        let (Over::Tasks, None, [row]) = (self.over, &self.blocks, self.values.as_slice()) else { return Ok(None) };
        let mut alpha = vec![0.0; names.len()];
        for (name, value) in self.names.iter().zip(row) {
            if let Some(weight) = alpha.get_mut(find_task(names, name)?) {
                *weight = *value;
            }
        }
        Ok(Some(alpha))
    }

    /// The names of what coefficients may be for, in the order of the source.
    ///
    /// # Errors
    /// Usage: atoms of originals, which have none.
    pub fn names_in(source: Source<'_>, over: Over) -> Result<Vec<String>> {
        match (source, over) {
            (Source::Basis(basis), Over::Tasks) => Ok(basis.task_names()),
            (Source::Basis(basis), Over::Atoms) => {
                // Those that are made from a seed have no files, but rows.
                let n_atoms = basis.coefficients.decode.n_rows();
                Ok((0..n_atoms).map(|atom| stem(atom, n_atoms)).collect())
            }
            (Source::Checkpoints(plan), Over::Tasks) => Ok(plan.tasks.iter().map(|task| task.name.clone()).collect()),
            (Source::Checkpoints(_), Over::Atoms) => {
                Err(Error::usage("coefficients over atoms: a basis expected, originals found")
                    .hint("originals have no atoms; name a basis folder, or use coefficients over tasks"))
            }
        }
    }

    /// The tensors that coefficients move, in the order of the source.
    pub fn tensors_of(source: Source<'_>) -> Vec<String> {
        source.tensors()
    }

    /// What has to be streamed for `scale` times this, from `source`.
    ///
    /// # Errors
    /// Rejected: names or tensors that are not the source's, a tensor of it that is in no block, a damaged basis. Usage: weights
    /// beyond f32, atoms of originals. Failed: I/O.
    pub fn edits(&self, source: Source<'_>, scale: f64) -> Result<Edits> {
        let scaled: Vec<Vec<f64>> =
            self.values.iter().map(|row| row.iter().map(|value| value * scale).collect()).collect();
        Mixer::new(source, self.over, &self.names, self.blocks.as_deref())?.edits(&scaled)
    }
}

/// A source made ready for many combinations of the same names and blocks: its columns are open.
#[derive(Clone, Debug)]
pub struct Mixer<'a> {
    columns: Columns<'a>,
    over: Over,
    /// The place of each name in the source.
    places: Vec<usize>,
    /// Tasks or atoms of the source.
    n_names: usize,
    /// Of each block; nothing where there is one row for all tensors.
    blocks: Vec<Vec<String>>,
}

#[derive(Clone, Debug)]
enum Columns<'a> {
    Basis(Box<(OpenAtoms<'a>, Coefficients)>),
    Originals(Box<Edits>),
}

impl<'a> Mixer<'a> {
    /// For coefficients of these names and blocks.
    ///
    /// # Errors
    /// As [`Combination::edits`].
    pub fn new(source: Source<'a>, over: Over, names: &[String], blocks: Option<&[Block]>) -> Result<Mixer<'a>> {
        let known = Combination::names_in(source, over)?;
        let place = |name: &String| match over {
            Over::Tasks => find_task(&known, name),
            Over::Atoms => known.iter().position(|known| known == name).ok_or_else(|| {
                Error::rejected(format!("unknown atom {}", shown(name))).hint(format!(
                    "the basis has {} atoms: {}",
                    known.len(),
                    first_and_last(&known)
                ))
            }),
        };
        let places = names.iter().map(place).collect::<Result<_>>()?;
        let columns = match source {
            Source::Basis(basis) => Columns::Basis(Box::new((OpenAtoms::new(basis)?, basis.solved()?))),
            Source::Checkpoints(plan) => Columns::Originals(Box::new(Edits::from_checkpoints(plan, &[]))),
        };
        let blocks = blocks.map_or(Ok(Vec::new()), |blocks| tensors_by_block(source, blocks))?;
        Ok(Mixer { columns, over, places, n_names: known.len(), blocks })
    }

    /// Numbers in a row.
    pub fn n_names(&self) -> usize {
        self.places.len()
    }

    /// Rows of coefficients.
    pub fn n_rows(&self) -> usize {
        self.blocks.len().max(1)
    }

    /// The weights over atoms \[n_atoms\] that stand for weights over tasks \[n_tasks\]; `None` for originals.
    pub fn over_atoms(&self, alpha: &[f64]) -> Option<Vec<f64>> {
        match &self.columns {
            Columns::Basis(basis) => Some(basis.1.weights(alpha, Rule::Projected)),
            Columns::Originals(_) => None,
        }
    }

    /// What has to be streamed for `values` \[n_rows\]\[n_names\].
    ///
    /// # Errors
    /// Usage: another number of rows or of values than there are blocks and names, weights beyond f32.
    pub fn edits(&self, values: &[Vec<f64>]) -> Result<Edits> {
        let (n_rows, n_names) = (self.n_rows(), self.n_names());
        if values.len() != n_rows || values.iter().any(|row| row.len() != n_names) {
            let found = values.iter().map(Vec::len).max().unwrap_or(0);
            return Err(Error::usage(format!(
                "coefficients: {n_rows} x {n_names} numbers expected, {} x {found} found",
                values.len()
            )));
        }
        if let Some(bad) = values.iter().flatten().find(|value| !(**value as f32).is_finite()) {
            return Err(Error::usage(format!("coefficients: at most ±{:.1e} expected, {bad:e} found", f32::MAX)));
        }
        let all = |row: &Vec<f64>| {
            let mut all = vec![0.0; self.n_names];
            self.places.iter().zip(row).for_each(|(&place, value)| {
                if let Some(weight) = all.get_mut(place) {
                    *weight = *value;
                }
            });
            all
        };
        let rows: Vec<Vec<f64>> = values.iter().map(all).collect();
        let edits = match &self.columns {
            Columns::Basis(basis) => {
                let (atoms, solved) = basis.as_ref();
                match self.over {
                    Over::Atoms => atoms.edits(&rows),
                    Over::Tasks => {
                        let over_atoms: Vec<_> = rows.iter().map(|row| solved.weights(row, Rule::Projected)).collect();
                        atoms.edits(&over_atoms)
                    }
                }
            }
            Columns::Originals(edits) => Edits { weights: rows, ..Edits::clone(edits) },
        };
        if self.blocks.is_empty() { Ok(edits) } else { edits.in_blocks(self.blocks.clone()) }
    }
}

fn first_and_last(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [first, .., last] => format!("{first} to {last}"),
    }
}

/// The source's tensors in each block. Blocks may name tied tensors by either name, and tensors that nothing moves.
fn tensors_by_block(source: Source<'_>, blocks: &[Block]) -> Result<Vec<Vec<String>>> {
    let label = match source {
        Source::Basis(basis) => shown_path(&basis.folder),
        Source::Checkpoints(plan) => shown_path(plan.base.path()),
    };
    let tensors = Combination::tensors_of(source);
    let twins = source.fit().twins.iter().map(|twin| (twin.name.as_str(), twin.of.as_str()));
    let own = tensors.iter().map(|name| (name.as_str(), name.as_str()));
    let known: HashMap<&str, &str> = twins.chain(own).collect();
    let is_still = |name: &str| match source {
        Source::Basis(basis) => basis.manifest.frozen.iter().any(|frozen| frozen == name),
        Source::Checkpoints(_) => false,
    };
    let mut block_of: HashMap<&str, usize> = HashMap::new();
    for (index, block) in blocks.iter().enumerate() {
        for name in &block.tensors {
            let Some(&first) = known.get(name.as_str()) else {
                if is_still(name) {
                    continue;
                }
                let error =
                    Error::rejected(format!("{label}: block {}: no tensor {}", shown(&block.name), shown(name)));
                return Err(match nearest(name, known.keys().copied()) {
                    Some(near) => error.hint(format!("did you mean {}?", shown(near))),
                    None => error.hint("the coefficients are for another model"),
                });
            };
            if block_of.insert(first, index).is_some_and(|other| other != index) {
                return Err(Error::rejected(format!("{label}: tensor {}: one block expected, two found", shown(name))));
            }
        }
    }
    let mut found = vec![Vec::new(); blocks.len()];
    for name in &tensors {
        match block_of.get(name.as_str()).and_then(|&index| found.get_mut(index)) {
            Some(block) => block.push(name.clone()),
            None => {
                return Err(Error::rejected(format!("{label}: tensor {}: it is in no block", shown(name)))
                    .hint("nothing would move it; every tensor of the basis must be in a block"));
            }
        }
    }
    Ok(found)
}
