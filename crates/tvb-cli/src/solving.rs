//! Flags that say how a basis is found, as typed, and the library's options they mean.

use clap::ValueEnum;
use std::path::PathBuf;
use tvb::jobs::compress::Size;
use tvb::jobs::method_options::MethodOptions;
use tvb::solve::{Activation, Anneal, Coordinates, MaxError, Method};
use tvb::units::Amount;
use tvb::{Error, Result, arithmetic, units};

/// How many atoms, as typed: one of these.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Size")]
#[group(multiple = false)]
pub(crate) struct SizeArgs {
    /// This many atoms
    #[arg(short = 'm', long = "atoms", value_name = "N")]
    pub atoms: Option<usize>,
    /// This share of the number of tasks (default 0.5 with --method)
    #[arg(long, value_name = "R")]
    pub ratio: Option<f64>,
    /// The fewest bits, or with --method the fewest bytes, whose relative squared error stays under E; `mean:E` or `worst:E`
    /// (default worst)
    #[arg(long, value_name = "E", value_parser = parse_max_error)]
    pub max_error: Option<MaxError>,
    /// The most that fits, such as 10G, or 6% of the float32 task vectors
    #[arg(long, value_name = "SIZE", value_parser = units::parse_amount)]
    pub max_bytes: Option<Amount>,
}

impl SizeArgs {
    /// Whether a number of atoms was given.
    pub(crate) fn counts_atoms(&self) -> bool {
        self.atoms.is_some() || self.ratio.is_some()
    }

    /// Whether a budget was given.
    pub(crate) fn is_budget(&self) -> bool {
        self.max_error.is_some() || self.max_bytes.is_some()
    }

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

/// `E`, `mean:E` or `worst:E`.
pub(crate) fn parse_max_error(text: &str) -> Result<MaxError> {
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

impl ActivationName {
    fn activation(self) -> Activation {
        match self {
            ActivationName::Softmax => Activation::Softmax,
            ActivationName::Linear => Activation::Linear,
        }
    }
}

/// How B and W are found, as typed.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Method")]
pub(crate) struct MethodArgs {
    /// Mix the tasks: anchored, exact, ae, pca, sample, random, cluster, nmf or identity (default with -m and --ratio: anchored)
    #[arg(long, value_name = "NAME")]
    pub method: Option<String>,
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
    /// Weight of a task in the sum that is kept (by a code, and by method anchored); 1 for tasks not named
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
    #[arg(long, value_name = "EVERY:FACTOR", value_parser = str::parse::<Anneal>)]
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
        let weights = self.weights.iter().map(|text| arithmetic::parse_weighted(text)).collect::<Result<_>>()?;
        let options = MethodOptions {
            balance: self.balance,
            coordinates: self.coordinates(),
            seed: self.seed,
            weights,
            restarts: self.restarts,
            eigengap: self.eigengap,
            paper: self.paper,
            steps: self.steps,
            lr: self.lr,
            tau: self.tau,
            anneal: self.anneal,
            batch_columns: self.batch_columns,
            grad_clip: self.grad_clip,
            weight_decay: self.weight_decay,
            encoder: self.encoder.map(ActivationName::activation),
            w_activation: self.w_activation.map(ActivationName::activation),
            init: self.init.clone(),
        };
        options.method(name, tasks)
    }
}
