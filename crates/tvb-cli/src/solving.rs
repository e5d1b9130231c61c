//! Flags that say how a basis is found, as typed, and the library's options they mean.

use clap::ValueEnum;
use std::path::PathBuf;
use tvb::jobs::compress::Size;
use tvb::solve::{
    Activation, AeOptions, AnchoredOptions, Anneal, ClusterOptions, Coordinates, ExactOptions, MaxError, Method,
    NmfOptions,
};
use tvb::{Error, Result, units};

/// How many atoms, as typed: one of these.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Size")]
#[group(multiple = false)]
pub(crate) struct SizeArgs {
    /// This many atoms
    #[arg(short = 'm', long = "atoms", value_name = "N")]
    pub atoms: Option<usize>,
    /// This share of the number of tasks (default 0.5)
    #[arg(long, value_name = "R")]
    pub ratio: Option<f64>,
    /// The fewest atoms whose relative squared error stays under E; `mean:E` or `worst:E` (default worst)
    #[arg(long, value_name = "E", value_parser = parse_max_error)]
    pub max_error: Option<MaxError>,
    /// The most atoms that fit, such as 10G
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes)]
    pub max_bytes: Option<u64>,
}

impl SizeArgs {
    /// What was meant; half as many atoms as tasks where nothing was said.
    pub(crate) fn size(&self) -> Size {
        match (self.atoms, self.ratio, self.max_error, self.max_bytes) {
            (Some(atoms), ..) => Size::Atoms(atoms),
            (_, Some(ratio), ..) => Size::Ratio(ratio),
            (_, _, Some(target), _) => Size::MaxError(target),
            (_, _, _, Some(bytes)) => Size::MaxBytes(bytes),
            _ => Size::Ratio(0.5),
        }
    }
}

fn parse_max_error(text: &str) -> Result<MaxError> {
    let (word, number) = text.split_once(':').unwrap_or(("worst", text));
    let limit: f64 =
        number.trim().parse().ok().filter(|limit: &f64| limit.is_finite() && *limit >= 0.0).ok_or_else(|| {
            Error::usage(format!("an error such as 0.1, mean:0.1 or worst:0.1 expected, {text:?} found"))
        })?;
    match word.trim() {
        "mean" => Ok(MaxError::Mean(limit)),
        "worst" => Ok(MaxError::Worst(limit)),
        _ => Err(Error::usage(format!("mean or worst expected before the colon, {word:?} found"))),
    }
}

/// `--coordinates`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CoordinatesName {
    /// Non-negative mixtures of the tasks
    Convex,
    /// The same subspace, better conditioned for 16-bit storage
    Orthogonal,
}

/// `--encoder`, `--w-activation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ActivationName {
    Softmax,
    Linear,
}

/// How B and W are found, as typed.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Method")]
pub(crate) struct MethodArgs {
    /// anchored, exact, ae, pca, sample, random, cluster, nmf or identity
    #[arg(long, default_value = "anchored", value_name = "NAME")]
    pub method: String,
    #[command(flatten)]
    pub tuning: TuningArgs,
}

/// Options of the methods, as typed.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Method")]
pub(crate) struct TuningArgs {
    /// Solve with every task vector scaled to one length, so that none is dropped for being short
    #[arg(long)]
    pub balance: bool,
    /// Coordinates of the atoms, for anchored and exact (default convex)
    #[arg(long, value_enum, value_name = "WHICH")]
    pub coordinates: Option<CoordinatesName>,
    /// Seed of whatever is random in a method
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// anchored: weight of a task in the sum that is kept; 1 for tasks not named
    #[arg(long = "weight", value_name = "NAME:W")]
    pub weights: Vec<String>,
    /// exact: random starts of the numerical search
    #[arg(long, value_name = "N")]
    pub restarts: Option<usize>,
    /// cluster: let the eigengap choose the number of clusters
    #[arg(long)]
    pub eigengap: bool,
    /// ae: the reference's exact recipe
    #[arg(long)]
    pub paper: bool,
    /// ae: Adam steps
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// ae: learning rate
    #[arg(long, value_name = "X")]
    pub lr: Option<f64>,
    /// ae: softmax temperature
    #[arg(long, value_name = "X")]
    pub tau: Option<f64>,
    /// ae: multiply the temperature by FACTOR every EVERY steps, down to 0.1
    #[arg(long, value_name = "EVERY:FACTOR", value_parser = parse_anneal)]
    pub anneal: Option<Anneal>,
    /// ae: columns per step
    #[arg(long, value_name = "N")]
    pub batch_columns: Option<usize>,
    /// ae: clip the gradient to this norm
    #[arg(long, value_name = "X")]
    pub grad_clip: Option<f64>,
    /// ae: weight decay, added to the gradient
    #[arg(long, value_name = "X")]
    pub weight_decay: Option<f64>,
    /// ae: activation of the encode
    #[arg(long, value_enum, value_name = "WHICH")]
    pub encoder: Option<ActivationName>,
    /// ae: activation of the decode
    #[arg(long, value_enum, value_name = "WHICH")]
    pub w_activation: Option<ActivationName>,
    /// ae: initial A, a JSON array of T rows of M numbers
    #[arg(long, value_name = "FILE")]
    pub init: Option<PathBuf>,
}

fn parse_anneal(text: &str) -> Result<Anneal> {
    let parsed = text.split_once(':').and_then(|(every, factor)| {
        Some(Anneal { every: every.trim().parse().ok()?, factor: factor.trim().parse().ok()? })
    });
    parsed.ok_or_else(|| Error::usage(format!("EVERY:FACTOR such as 1000:0.5 expected, {text:?} found")))
}

impl TuningArgs {
    /// The coordinates that were meant.
    pub(crate) fn coordinates(&self) -> Coordinates {
        match self.coordinates {
            Some(CoordinatesName::Orthogonal) => Coordinates::Orthogonal,
            Some(CoordinatesName::Convex) | None => Coordinates::Convex,
        }
    }

    /// The method called `name` with these options; `tasks` are the tasks' names, for weights.
    pub(crate) fn method(&self, name: &str, tasks: &[String]) -> Result<Method> {
        let method = match Method::parse(name)? {
            Method::Anchored(_) => Method::Anchored(AnchoredOptions { weights: self.task_weights(tasks)? }),
            Method::Exact(default) => {
                Method::Exact(ExactOptions { restarts: self.restarts.unwrap_or(default.restarts), ..default })
            }
            Method::Ae(_) => Method::Ae(self.ae()?),
            Method::Cluster(default) => {
                Method::Cluster(ClusterOptions { eigengap: self.eigengap || default.eigengap, ..default })
            }
            Method::Nmf(default) => {
                Method::Nmf(NmfOptions { max_steps: self.steps.unwrap_or(default.max_steps), ..default })
            }
            other => other,
        };
        Ok(match self.seed {
            Some(seed) => method.with_seed(seed),
            None => method,
        })
    }

    fn task_weights(&self, tasks: &[String]) -> Result<Option<Vec<f64>>> {
        if self.weights.is_empty() {
            return Ok(None);
        }
        let mut weights = vec![1.0; tasks.len()];
        for text in &self.weights {
            let (name, weight) = parse_weighted(text)?;
            weights[tvb::arithmetic::find_task(tasks, &name)?] = weight;
        }
        Ok(Some(weights))
    }

    fn ae(&self) -> Result<AeOptions> {
        let default = if self.paper { AeOptions::paper() } else { AeOptions::default() };
        let activation = |name: Option<ActivationName>, default| match name {
            Some(ActivationName::Softmax) => Activation::Softmax,
            Some(ActivationName::Linear) => Activation::Linear,
            None => default,
        };
        Ok(AeOptions {
            steps: self.steps.or(default.steps),
            learning_rate: self.lr.unwrap_or(default.learning_rate),
            tau: self.tau.unwrap_or(default.tau),
            anneal: self.anneal.or(default.anneal),
            batch_columns: self.batch_columns.or(default.batch_columns),
            grad_clip: self.grad_clip.or(default.grad_clip),
            weight_decay: self.weight_decay.unwrap_or(default.weight_decay),
            encoder: activation(self.encoder, default.encoder),
            decoder: activation(self.w_activation, default.decoder),
            init: self.init.as_deref().map(tvb::jobs::batch::read_matrix).transpose()?,
            ..default
        })
    }
}

/// `NAME` or `NAME:WEIGHT`; the last colon counts, where a number follows it.
pub(crate) fn parse_weighted(text: &str) -> Result<(String, f64)> {
    match text.rsplit_once(':') {
        Some((name, number)) => match number.trim().parse::<f64>() {
            Ok(weight) if weight.is_finite() => Ok((name.to_owned(), weight)),
            _ => Err(Error::usage(format!("NAME:WEIGHT such as mnist:0.5 expected, {text:?} found"))),
        },
        None => Ok((text.to_owned(), 1.0)),
    }
}
