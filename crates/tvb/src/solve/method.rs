//! Which methods there are and what each can be told.

use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::nearest::nearest;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// How a basis is found from the Gram matrix. B is \[n_tasks, n_atoms\], W is \[n_atoms, n_tasks\].
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(tag = "name", content = "options", rename_all = "snake_case")]
pub enum Method {
    /// Non-negative atoms whose sum is exactly proportional to the (weighted) sum of the tasks.
    Anchored(AnchoredOptions),
    /// Convex atoms spanning the top-M eigenvectors: the lowest loss there is.
    Exact(ExactOptions),
    /// The paper's softmax autoencoder, trained by Adam.
    Ae(AeOptions),
    /// Centred principal components plus the mean: M + 1 stored vectors.
    Pca,
    /// M of the tasks themselves, picked at random.
    Sample {
        /// Decides the pick.
        seed: u64,
    },
    /// Orthonormal Gaussian vectors that know nothing of the tasks; regenerated from the seed, never stored.
    Random {
        /// Decides the vectors.
        seed: u64,
    },
    /// Spectral clustering of the cosine matrix, the mean of each cluster.
    Cluster(ClusterOptions),
    /// Convex non-negative matrix factorisation: B ≥ 0 and W ≥ 0.
    Nmf(NmfOptions),
    /// The tasks as they are, M = T.
    Identity,
}

/// Options of [`Method::Anchored`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct AnchoredOptions {
    /// One positive weight per task: the atoms' sum is proportional to Σ weight·τ. `None` is all ones.
    pub weights: Option<Vec<f64>>,
}

/// Options of [`Method::Exact`]; they matter only where no strictly positive vector lies in the top-M eigenspace.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct ExactOptions {
    /// Decides the random starts of the numerical search.
    pub seed: u64,
    /// Random starts beside the fixed ones.
    pub restarts: usize,
    /// Most steps of the search from each start.
    pub max_steps: usize,
}

impl Default for ExactOptions {
    fn default() -> Self {
        ExactOptions { seed: 0, restarts: 4, max_steps: 200 }
    }
}

/// Options of [`Method::Ae`].
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct AeOptions {
    /// Adam steps; `None` is 6000, fewer past [`super::ae::FULL_STEPS_TASKS`] tasks.
    pub steps: Option<usize>,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// Softmax temperature τ at the start.
    pub tau: f64,
    /// τ is multiplied by the factor after every so many steps, down to 0.1; `None` keeps it.
    pub anneal: Option<Anneal>,
    /// Train on this many random columns of the error at a time, the loss divided by T times this number.
    pub batch_columns: Option<usize>,
    /// Scale the gradient down to this norm.
    pub grad_clip: Option<f64>,
    /// Added to the gradient as weight_decay·parameter (L2, not decoupled).
    pub weight_decay: f64,
    /// What turns A into B.
    pub encoder: Activation,
    /// What turns the trained matrix into W.
    pub decoder: Activation,
    /// Decides A's start and the random columns.
    pub seed: u64,
    /// A's start, \[n_tasks, n_atoms\]; `None` draws it from N(0, 1).
    pub init: Option<Matrix>,
    /// The reference's recipe: the Gram as it is (not scaled to trace 1), and W as trained (not the best for B).
    pub paper: bool,
}

/// What a trained matrix goes through before use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Softmax down each column.
    Softmax,
    /// Nothing.
    Linear,
}

/// A temperature schedule.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct Anneal {
    /// Steps between two changes.
    pub every: usize,
    /// What τ is multiplied by.
    pub factor: f64,
}

impl Anneal {
    /// Whether there are steps between two changes, and the factor is a positive finite number.
    pub fn is_usable(&self) -> bool {
        self.every > 0 && self.factor > 0.0 && self.factor.is_finite()
    }
}

/// `EVERY:FACTOR`.
impl FromStr for Anneal {
    type Err = Error;

    fn from_str(text: &str) -> Result<Anneal> {
        let parsed = text.split_once(':').and_then(|(every, factor)| {
            Some(Anneal { every: every.trim().parse().ok()?, factor: factor.trim().parse().ok()? })
        });
        parsed.ok_or_else(|| Error::usage(format!("EVERY:FACTOR such as 1000:0.5 expected, {text:?} found")))
    }
}

impl Default for AeOptions {
    fn default() -> Self {
        AeOptions {
            steps: None,
            learning_rate: 0.01,
            tau: 5.0,
            anneal: None,
            batch_columns: None,
            grad_clip: None,
            weight_decay: 0.0,
            encoder: Activation::Softmax,
            decoder: Activation::Linear,
            seed: 0,
            init: None,
            paper: false,
        }
    }
}

impl AeOptions {
    /// The reference implementation's exact recipe: 6000 steps on the Gram as it is, weight decay 1e-6, W as trained.
    pub fn paper() -> Self {
        AeOptions { steps: Some(6000), weight_decay: 1e-6, paper: true, ..AeOptions::default() }
    }
}

/// Options of [`Method::Cluster`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ClusterOptions {
    /// Decides the k-means starts.
    pub seed: u64,
    /// Choose the number of clusters by the largest eigengap, with n_atoms as the most, in place of exactly n_atoms.
    pub eigengap: bool,
}

/// Options of [`Method::Nmf`].
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct NmfOptions {
    /// Decides the start (that of the clustering it starts from).
    pub seed: u64,
    /// Most rounds of multiplicative updates.
    pub max_steps: usize,
    /// Stop when ten rounds lower the loss by less than this part of it.
    pub tolerance: f64,
}

impl Default for NmfOptions {
    fn default() -> Self {
        NmfOptions { seed: 0, max_steps: 2000, tolerance: 1e-6 }
    }
}

impl Method {
    /// Every method with its default options, in the order of the documentation.
    pub fn all() -> Vec<Method> {
        vec![
            Method::Anchored(AnchoredOptions::default()),
            Method::Exact(ExactOptions::default()),
            Method::Ae(AeOptions::default()),
            Method::Pca,
            Method::Sample { seed: 0 },
            Method::Random { seed: 0 },
            Method::Cluster(ClusterOptions::default()),
            Method::Nmf(NmfOptions::default()),
            Method::Identity,
        ]
    }

    /// The word for it on the command line and in files.
    pub fn name(&self) -> &'static str {
        match self {
            Method::Anchored(_) => "anchored",
            Method::Exact(_) => "exact",
            Method::Ae(_) => "ae",
            Method::Pca => "pca",
            Method::Sample { .. } => "sample",
            Method::Random { .. } => "random",
            Method::Cluster(_) => "cluster",
            Method::Nmf(_) => "nmf",
            Method::Identity => "identity",
        }
    }

    /// The method of that name with its default options.
    ///
    /// # Errors
    /// Usage: an unknown name; lists the known ones.
    pub fn parse(name: &str) -> Result<Method> {
        Method::all().into_iter().find(|method| method.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Method::all().iter().map(Method::name).collect();
            let error = Error::usage(format!("unknown method '{name}': expected one of {}", names.join(", ")));
            error.hint(match nearest(name, names.iter().copied()) {
                Some(near) => format!("did you mean '{near}'? methods: {}", names.join(", ")),
                None => format!("methods: {}", names.join(", ")),
            })
        })
    }

    /// The only number of atoms the method makes sense for, where there is one: T for `identity`.
    pub fn fixed_atoms(&self, n_tasks: usize) -> Option<usize> {
        matches!(self, Method::Identity).then_some(n_tasks)
    }

    /// Whether its atoms are files; those of `random` are made again from their seed wherever they are needed.
    pub fn stores_atoms(&self) -> bool {
        !matches!(self, Method::Random { .. })
    }

    /// The same method drawing from another seed; methods without chance are returned as they are.
    #[must_use]
    pub fn with_seed(mut self, new_seed: u64) -> Method {
        match &mut self {
            Method::Exact(options) => options.seed = new_seed,
            Method::Ae(options) => options.seed = new_seed,
            Method::Sample { seed } | Method::Random { seed } => *seed = new_seed,
            Method::Cluster(options) => options.seed = new_seed,
            Method::Nmf(options) => options.seed = new_seed,
            Method::Anchored(_) | Method::Pca | Method::Identity => {}
        }
        self
    }
}

/// In which coordinates the atoms of one and the same subspace are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Coordinates {
    /// Non-negative mixtures of the tasks.
    #[default]
    Convex,
    /// Orthogonal atoms of equal length: best conditioned for 16-bit storage, but no longer non-negative.
    Orthogonal,
}

/// What every method is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SolveOptions {
    /// M, 1 to T.
    pub n_atoms: usize,
    /// Solve as if every task vector had the same length, so that no task is dropped for being short.
    pub balance: bool,
    /// For `anchored` and `exact` only.
    pub coordinates: Coordinates,
}

impl SolveOptions {
    /// `n_atoms` atoms, not balanced, convex.
    pub fn atoms(n_atoms: usize) -> Self {
        SolveOptions { n_atoms, balance: false, coordinates: Coordinates::Convex }
    }
}
