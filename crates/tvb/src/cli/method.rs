//! `--method` and its options: one flat set of flags, checked against the method that was chosen.

use clap::ValueEnum;
use faer::Mat;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tvb::arithmetic::find_task;
use tvb::checkpoint::{Checkpoint, Dtype};
use tvb::solve::{Activation, AeOptions, Anneal, Coordinates, Method};
use tvb::{Error, Result};

/// How B and W are found, as typed.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Method")]
pub(super) struct MethodArgs {
    /// How the atoms are found
    #[arg(long, value_enum, default_value_t = MethodName::Anchored)]
    method: MethodName,
    /// Solve as if every task vector had the same length, so that none is dropped for being short
    #[arg(long)]
    pub balance: bool,
    /// anchored, exact: the same subspace as non-negative mixtures, or orthogonal for 16-bit storage
    #[arg(long, value_enum, default_value_t = CoordinatesName::Convex)]
    coordinates: CoordinatesName,
    /// exact, ae, sample, random, cluster, nmf: what chance is drawn from
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// anchored: what the atoms' sum is proportional to, such as cars:2,dtd:0.5; the rest weigh 1
    #[arg(long, value_name = "TASK:W", value_delimiter = ',')]
    weights: Vec<TaskWeight>,
    /// exact: random starts where no closed form exists
    #[arg(long, value_name = "N")]
    restarts: Option<usize>,
    /// ae, nmf, exact: most steps
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// ae: Adam's learning rate [default: 0.01]
    #[arg(long, value_name = "X")]
    lr: Option<f64>,
    /// ae: softmax temperature [default: 5]
    #[arg(long, value_name = "X")]
    tau: Option<f64>,
    /// ae: after every N steps multiply the temperature by this
    #[arg(long, value_name = "N:FACTOR")]
    anneal: Option<AnnealArg>,
    /// ae: train on this many random columns at a time
    #[arg(long, value_name = "N")]
    batch_columns: Option<usize>,
    /// ae: scale the gradient down to this norm
    #[arg(long, value_name = "X")]
    grad_clip: Option<f64>,
    /// ae: L2 penalty in the gradient
    #[arg(long, value_name = "X")]
    weight_decay: Option<f64>,
    /// ae: what turns the trained matrix A into B
    #[arg(long, value_enum)]
    encoder: Option<ActivationName>,
    /// ae: what turns the trained matrix into W
    #[arg(long, value_enum)]
    w_activation: Option<ActivationName>,
    /// ae: start from the matrix A [tasks, atoms] in this safetensors file
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// ae: the reference implementation's exact recipe
    #[arg(long)]
    paper: bool,
    /// cluster: choose the number of clusters by the largest eigengap, M at most
    #[arg(long)]
    eigengap: bool,
}

/// `--method`; one name for each of [`Method`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum MethodName {
    /// Non-negative atoms whose sum is exactly proportional to the sum of the tasks, close to the least loss
    Anchored,
    /// The least loss there is, in closed form
    Exact,
    /// The paper's softmax autoencoder
    Ae,
    /// Centred principal components and the mean: M + 1 stored vectors
    Pca,
    /// M of the tasks, picked at random
    Sample,
    /// Orthonormal Gaussian vectors: a control, regenerated and never stored
    Random,
    /// The means of M spectral clusters
    Cluster,
    /// Convex non-negative matrix factorisation
    Nmf,
    /// The tasks as they are, M = T
    Identity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CoordinatesName {
    Convex,
    Orthogonal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ActivationName {
    Softmax,
    Linear,
}

/// `TASK:W`; the weight follows the last colon.
#[derive(Clone, Debug, PartialEq)]
struct TaskWeight {
    task: String,
    weight: f64,
}

impl FromStr for TaskWeight {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::usage(format!("TASK:WEIGHT with a positive weight expected, {text:?} found"));
        let (task, weight) = text.rsplit_once(':').ok_or_else(wrong)?;
        let weight: f64 = weight.trim().parse().map_err(|_| wrong())?;
        if task.is_empty() || !weight.is_finite() || weight <= 0.0 {
            return Err(wrong());
        }
        Ok(TaskWeight { task: task.to_owned(), weight })
    }
}

/// `N:FACTOR`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct AnnealArg(Anneal);

impl FromStr for AnnealArg {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::usage(format!("STEPS:FACTOR such as 1000:0.5 expected, {text:?} found"));
        let (every, factor) = text.split_once(':').ok_or_else(wrong)?;
        let every: usize = every.trim().parse().map_err(|_| wrong())?;
        let factor: f64 = factor.trim().parse().map_err(|_| wrong())?;
        if every == 0 || !factor.is_finite() || factor <= 0.0 {
            return Err(wrong());
        }
        Ok(AnnealArg(Anneal { every, factor }))
    }
}

impl MethodArgs {
    /// The method that is meant; `task_names` are those that `--weights` may speak of.
    ///
    /// # Errors
    /// Usage: an option that belongs to another method. Rejected: an unknown task, an unusable `--init` file.
    pub(super) fn meant(&self, task_names: &[String]) -> Result<Method> {
        self.check_options()?;
        let method = match (Method::parse(self.name())?, self.seed) {
            (method, Some(seed)) => method.with_seed(seed),
            (method, None) => method,
        };
        Ok(match method {
            Method::Anchored(mut options) => {
                options.weights = self.weights_of(task_names)?;
                Method::Anchored(options)
            }
            Method::Exact(mut options) => {
                options.restarts = self.restarts.unwrap_or(options.restarts);
                options.max_steps = self.steps.unwrap_or(options.max_steps);
                Method::Exact(options)
            }
            Method::Ae(options) => Method::Ae(self.ae(options)?),
            Method::Cluster(mut options) => {
                options.eigengap = self.eigengap;
                Method::Cluster(options)
            }
            Method::Nmf(mut options) => {
                options.max_steps = self.steps.unwrap_or(options.max_steps);
                Method::Nmf(options)
            }
            other @ (Method::Pca | Method::Sample { .. } | Method::Random { .. } | Method::Identity) => other,
        })
    }

    /// In which coordinates the atoms are wanted.
    pub(super) fn coordinates(&self) -> Coordinates {
        match self.coordinates {
            CoordinatesName::Convex => Coordinates::Convex,
            CoordinatesName::Orthogonal => Coordinates::Orthogonal,
        }
    }

    /// The method's word.
    fn name(&self) -> &'static str {
        match self.method {
            MethodName::Anchored => "anchored",
            MethodName::Exact => "exact",
            MethodName::Ae => "ae",
            MethodName::Pca => "pca",
            MethodName::Sample => "sample",
            MethodName::Random => "random",
            MethodName::Cluster => "cluster",
            MethodName::Nmf => "nmf",
            MethodName::Identity => "identity",
        }
    }

    /// An option that the chosen method does not have is a mistake worth stopping for.
    fn check_options(&self) -> Result<()> {
        use MethodName::{Ae, Anchored, Cluster, Exact, Nmf, Random, Sample};
        let is_orthogonal = self.coordinates == CoordinatesName::Orthogonal;
        let given: [(&str, bool, &[MethodName]); 16] = [
            ("--coordinates orthogonal", is_orthogonal, &[Anchored, Exact]),
            ("--seed", self.seed.is_some(), &[Exact, Ae, Sample, Random, Cluster, Nmf]),
            ("--weights", !self.weights.is_empty(), &[Anchored]),
            ("--restarts", self.restarts.is_some(), &[Exact]),
            ("--steps", self.steps.is_some(), &[Ae, Nmf, Exact]),
            ("--lr", self.lr.is_some(), &[Ae]),
            ("--tau", self.tau.is_some(), &[Ae]),
            ("--anneal", self.anneal.is_some(), &[Ae]),
            ("--batch-columns", self.batch_columns.is_some(), &[Ae]),
            ("--grad-clip", self.grad_clip.is_some(), &[Ae]),
            ("--weight-decay", self.weight_decay.is_some(), &[Ae]),
            ("--encoder", self.encoder.is_some(), &[Ae]),
            ("--w-activation", self.w_activation.is_some(), &[Ae]),
            ("--init", self.init.is_some(), &[Ae]),
            ("--paper", self.paper, &[Ae]),
            ("--eigengap", self.eigengap, &[Cluster]),
        ];
        match given.iter().find(|(_, is_given, methods)| *is_given && !methods.contains(&self.method)) {
            None => Ok(()),
            Some((flag, _, methods)) => {
                let known: Vec<String> = methods.iter().map(|name| format!("{name:?}").to_lowercase()).collect();
                let (known, chosen) = (known.join(", "), self.name());
                Err(Error::usage(format!("{flag} is an option of {known}; the method is {chosen}"))
                    .hint(format!("leave {flag} out, or choose its method with --method")))
            }
        }
    }

    /// One weight for each task, 1 where none was given; `None` where none was given at all.
    fn weights_of(&self, task_names: &[String]) -> Result<Option<Vec<f64>>> {
        if self.weights.is_empty() {
            return Ok(None);
        }
        let mut weights = vec![1.0; task_names.len()];
        for TaskWeight { task, weight } in &self.weights {
            weights[find_task(task_names, task)?] = *weight;
        }
        Ok(Some(weights))
    }

    fn ae(&self, defaults: AeOptions) -> Result<AeOptions> {
        let seed = defaults.seed;
        let defaults = if self.paper { AeOptions { seed, ..AeOptions::paper() } } else { defaults };
        Ok(AeOptions {
            steps: self.steps.or(defaults.steps),
            learning_rate: self.lr.unwrap_or(defaults.learning_rate),
            tau: self.tau.unwrap_or(defaults.tau),
            anneal: self.anneal.map(|anneal| anneal.0).or(defaults.anneal),
            batch_columns: self.batch_columns.or(defaults.batch_columns),
            grad_clip: self.grad_clip.or(defaults.grad_clip),
            weight_decay: self.weight_decay.unwrap_or(defaults.weight_decay),
            encoder: self.encoder.map_or(defaults.encoder, ActivationName::meant),
            decoder: self.w_activation.map_or(defaults.decoder, ActivationName::meant),
            init: self.init.as_deref().map(read_matrix).transpose()?,
            ..defaults
        })
    }
}

impl ActivationName {
    fn meant(self) -> Activation {
        match self {
            ActivationName::Softmax => Activation::Softmax,
            ActivationName::Linear => Activation::Linear,
        }
    }
}

/// A matrix is at most this large; T × M of a thousand tasks is far below.
const MAX_MATRIX_ELEMENTS: usize = 1 << 24;

/// The matrix `A` of a file, or the only tensor in it.
fn read_matrix(path: &Path) -> Result<Mat<f64>> {
    let rejected = |what: String| Error::rejected(format!("{}: {what}", path.display()));
    let file = Checkpoint::open(path)?;
    let tensor = match (file.get("A"), file.tensors()) {
        (Some(tensor), _) | (None, [tensor]) => tensor,
        (None, tensors) => return Err(rejected(format!("a tensor A expected, none among {} found", tensors.len()))),
    };
    let [n_rows, n_columns] = tensor.shape[..] else {
        return Err(rejected(format!("tensor {}: a matrix expected, shape {:?} found", tensor.name, tensor.shape)));
    };
    if tensor.n_elements() > MAX_MATRIX_ELEMENTS {
        return Err(rejected(format!("tensor {}: shape {:?} is too large", tensor.name, tensor.shape)));
    }
    let mut bytes = vec![0; tensor.n_elements() * tensor.dtype.size()];
    file.read(tensor, 0, &mut bytes)?;
    let values: Vec<f64> = match tensor.dtype {
        Dtype::F64 => bytes.as_chunks().0.iter().map(|&value| f64::from_le_bytes(value)).collect(),
        Dtype::F32 => bytes.as_chunks().0.iter().map(|&value| f64::from(f32::from_le_bytes(value))).collect(),
        other => return Err(rejected(format!("tensor {}: F64 or F32 expected, {other} found", tensor.name))),
    };
    Ok(Mat::from_fn(n_rows, n_columns, |row, column| values[row * n_columns + column]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use tvb::ErrorKind;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        method: MethodArgs,
    }

    fn meant(line: &str) -> Result<Method> {
        let words = std::iter::once("tvb").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| Error::usage(error.to_string()))?;
        line.method.meant(&["cars".to_owned(), "dtd".to_owned()])
    }

    #[test]
    fn every_method_has_its_word() {
        for method in Method::all() {
            assert_eq!(meant(&format!("--method {}", method.name())).unwrap(), method, "defaults of {}", method.name());
        }
    }

    #[test]
    fn options_reach_their_method() {
        let Method::Anchored(anchored) = meant("--weights dtd:2").unwrap() else { panic!("not anchored") };
        assert_eq!(anchored.weights, Some(vec![1.0, 2.0]));
        let Method::Ae(ae) = meant("--method ae --paper --seed 7 --tau 2 --anneal 100:0.5").unwrap() else {
            panic!("not ae")
        };
        assert_eq!((ae.seed, ae.tau, ae.weight_decay, ae.paper), (7, 2.0, 1e-6, true));
        assert_eq!(ae.anneal, Some(Anneal { every: 100, factor: 0.5 }));
        let Method::Exact(exact) = meant("--method exact --restarts 9 --seed 3").unwrap() else { panic!("not exact") };
        assert_eq!((exact.restarts, exact.seed), (9, 3));
    }

    #[test]
    fn mistakes() {
        let cases = [
            ("--tau 2", ErrorKind::Usage, "--tau is an option of ae"),
            ("--method pca --seed 1", ErrorKind::Usage, "the method is pca"),
            ("--method nmf --coordinates orthogonal", ErrorKind::Usage, "--coordinates orthogonal"),
            ("--weights mnist:1", ErrorKind::Rejected, "mnist"),
            ("--weights cars:-1", ErrorKind::Usage, "positive weight"),
            ("--method ae --anneal 0:0.5", ErrorKind::Usage, "STEPS:FACTOR"),
            ("--method ae --init /no/such/file", ErrorKind::Failed, "/no/such/file"),
        ];
        for (line, kind, part) in cases {
            let error = meant(line).unwrap_err();
            assert_eq!(error.kind(), kind, "{line}: {error}");
            assert!(error.message().contains(part), "{line}: {error}");
        }
    }
}
