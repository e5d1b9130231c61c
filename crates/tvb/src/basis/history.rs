//! How a basis came to be what it is: one record for each time that tasks joined or left, and what has been estimated since.

use super::records::AdditionRecord;
use serde::{Deserialize, Serialize};

/// What happened to a basis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Happened {
    /// It was made of its first tasks.
    Made,
    /// Tasks joined.
    Extended,
    /// Tasks left.
    Dropped,
}

impl Happened {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Happened::Made => "made",
            Happened::Extended => "extended",
            Happened::Dropped => "dropped",
        }
    }
}

/// One event, and what the basis was after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// What happened.
    pub event: Happened,
    /// The tasks that came or went.
    pub tasks: Vec<String>,
    /// The program that did it.
    pub tool: String,
    /// T afterwards.
    pub n_tasks: usize,
    /// M afterwards.
    pub n_atoms: usize,
    /// Bytes of the atoms' files afterwards.
    pub bytes: u64,
    /// How faithful addition of all tasks was afterwards.
    pub addition: Option<AdditionRecord>,
    /// Mean of the tasks' relative errors afterwards.
    pub mean_error: Option<f64>,
    /// The largest of them.
    pub worst_error: Option<f64>,
    /// Pairs of tasks whose inner product was an estimate afterwards.
    #[serde(default)]
    pub n_estimated: usize,
    /// What the user should know of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What is known of the entries of a Gram matrix that are estimates. The entries' own errors are among the coefficients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimates {
    /// Pairs of tasks.
    pub n_pairs: usize,
    /// The largest standard error, as one of a cosine.
    pub cosine_error: f64,
    /// The most that a cosine can be off by, the largest of all; `None` where no bound is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosine_bound: Option<f64>,
    /// Whether the estimates are off by noise alone, and not to one side.
    pub unbiased: bool,
}

impl Estimates {
    /// Whether it is possible for so many tasks.
    pub(super) fn check(&self, n_tasks: usize) -> Result<(), String> {
        let most = n_tasks.saturating_mul(n_tasks.saturating_sub(1)) / 2;
        if self.n_pairs > most {
            return Err(format!("estimates of at most {most} pairs of tasks expected, of {} found", self.n_pairs));
        }
        let all = [Some(self.cosine_error), self.cosine_bound];
        match all.into_iter().flatten().all(|value| value.is_finite() && value >= 0.0) {
            true => Ok(()),
            false => Err("errors of estimates that are numbers from 0 on expected".into()),
        }
    }
}
