//! What a user may say about how a basis is found, the same on the command line and in job files.

use crate::arithmetic::find_task;
use crate::error::Result;
use crate::jobs::matrix_file::read_matrix;
use crate::jobs::values::{anneal, named_numbers, number};
use crate::solve::{
    Activation, AeOptions, AnchoredOptions, Anneal, ClusterOptions, Coordinates, ExactOptions, Method, NmfOptions,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Options of all methods together; what is not given has the method's default, and each method takes what it has.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MethodOptions {
    /// Solve with every task vector scaled to one length.
    pub balance: bool,
    /// Coordinates of the atoms, for `anchored` and `exact`.
    pub coordinates: Coordinates,
    /// Seed of whatever is random in a method.
    pub seed: Option<u64>,
    /// `anchored`: weights of tasks in the sum that is kept, by name; 1 for tasks not named.
    #[serde(deserialize_with = "named_numbers")]
    pub weights: BTreeMap<String, f64>,
    /// `exact`: random starts of the numerical search.
    pub restarts: Option<usize>,
    /// `cluster`: let the eigengap choose the number of clusters.
    pub eigengap: bool,
    /// `ae`: the reference's exact recipe, before what else is said here.
    pub paper: bool,
    /// `ae`: Adam steps; `nmf`: most rounds of updates.
    pub steps: Option<usize>,
    /// `ae`: learning rate.
    #[serde(deserialize_with = "number")]
    pub lr: Option<f64>,
    /// `ae`: softmax temperature.
    #[serde(deserialize_with = "number")]
    pub tau: Option<f64>,
    /// `ae`: temperature schedule.
    #[serde(deserialize_with = "anneal")]
    pub anneal: Option<Anneal>,
    /// `ae`: columns per step.
    pub batch_columns: Option<usize>,
    /// `ae`: clip the gradient to this norm.
    #[serde(deserialize_with = "number")]
    pub grad_clip: Option<f64>,
    /// `ae`: weight decay, added to the gradient.
    #[serde(deserialize_with = "number")]
    pub weight_decay: Option<f64>,
    /// `ae`: activation of the encode.
    pub encoder: Option<Activation>,
    /// `ae`: activation of the decode.
    pub w_activation: Option<Activation>,
    /// `ae`: a file with the initial A, a JSON array of T rows of M numbers.
    pub init: Option<PathBuf>,
}

impl MethodOptions {
    /// The method called `name` with these options; `tasks` are the names of the T tasks, in column order.
    ///
    /// # Errors
    /// Usage: an unknown method. Rejected: a weight of an unknown task, a malformed initial A. Failed: I/O.
    pub fn method(&self, name: &str, tasks: &[String]) -> Result<Method> {
        let method = match Method::parse(name)? {
            Method::Anchored(_) => Method::Anchored(AnchoredOptions { weights: self.task_weights(tasks)? }),
            Method::Exact(default) => {
                Method::Exact(ExactOptions { restarts: self.restarts.unwrap_or(default.restarts), ..default })
            }
            Method::Ae(default) => Method::Ae(self.ae(if self.paper { AeOptions::paper() } else { default })?),
            Method::Cluster(default) => Method::Cluster(ClusterOptions { eigengap: self.eigengap, ..default }),
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

    /// \[n_tasks\], where any was given.
    fn task_weights(&self, tasks: &[String]) -> Result<Option<Vec<f64>>> {
        if self.weights.is_empty() {
            return Ok(None);
        }
        let mut weights = vec![1.0; tasks.len()];
        for (name, weight) in &self.weights {
            if let Some(of_task) = weights.get_mut(find_task(tasks, name)?) {
                *of_task = *weight;
            }
        }
        Ok(Some(weights))
    }

    fn ae(&self, default: AeOptions) -> Result<AeOptions> {
        Ok(AeOptions {
            steps: self.steps.or(default.steps),
            learning_rate: self.lr.unwrap_or(default.learning_rate),
            tau: self.tau.unwrap_or(default.tau),
            anneal: self.anneal.or(default.anneal),
            batch_columns: self.batch_columns.or(default.batch_columns),
            grad_clip: self.grad_clip.or(default.grad_clip),
            weight_decay: self.weight_decay.unwrap_or(default.weight_decay),
            encoder: self.encoder.unwrap_or(default.encoder),
            decoder: self.w_activation.unwrap_or(default.decoder),
            init: self.init.as_deref().map(read_matrix).transpose()?,
            ..default
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_reaches_its_method() {
        let options: MethodOptions = toml::from_str(
            "seed = 7\nrestarts = 0\nsteps = 9\nlr = 1\ntau = 2.5\nanneal = '10:0.5'\nencoder = 'linear'\n\
             w_activation = 'softmax'\npaper = true\neigengap = true\ncoordinates = 'orthogonal'\nweights = { b = 3 }",
        )
        .unwrap();
        let names = ["a".to_owned(), "b".to_owned()];
        let method = |name: &str| options.method(name, &names).unwrap();
        assert_eq!(method("anchored"), Method::Anchored(AnchoredOptions { weights: Some(vec![1.0, 3.0]) }));
        assert_eq!(method("exact"), Method::Exact(ExactOptions { seed: 7, restarts: 0, ..Default::default() }));
        let ae = AeOptions {
            steps: Some(9),
            learning_rate: 1.0,
            tau: 2.5,
            anneal: Some(Anneal { every: 10, factor: 0.5 }),
            encoder: Activation::Linear,
            decoder: Activation::Softmax,
            seed: 7,
            ..AeOptions::paper()
        };
        assert_eq!(method("ae"), Method::Ae(ae));
        assert_eq!(method("cluster"), Method::Cluster(ClusterOptions { seed: 7, eigengap: true }));
        assert_eq!(method("nmf"), Method::Nmf(NmfOptions { seed: 7, max_steps: 9, ..Default::default() }));
        assert_eq!((method("sample"), method("pca")), (Method::Sample { seed: 7 }, Method::Pca));
        assert!(options.method("anchored", &names[..1]).unwrap_err().message().contains("unknown task \"b\""));
        for method in Method::all() {
            assert_eq!(MethodOptions::default().method(method.name(), &names).unwrap(), method);
        }
        assert!(toml::from_str::<MethodOptions>("lrr = 1").is_err());
    }
}
