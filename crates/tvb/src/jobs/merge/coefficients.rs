//! Weights of base and task vectors for one tensor, from its inner products.

use super::method::Method;
use super::settings::TensorSettings;
use crate::error::{Error, Result};
use crate::ops::merge::Stream;
use crate::solve::merge::{Mix, Of, Products, karcher, linear, model_stock, multislerp, nuslerp, slerp, task_sum};
use tvb_kernels::{Consensus, Keep, Merge, MergeTask};

/// What the vectors of the method are: of whole models where there is no base to take off.
pub(super) fn vectors_of(of_models: bool) -> Of {
    if of_models { Of::Models } else { Of::Tasks }
}

/// The weights for the stream's one tensor.
///
/// # Errors
/// Usage: another number of tasks than the method takes. Rejected: values that are not finite, directions that cancel out. Else as
/// [`Stream::sums`].
pub(super) fn mix_of_tensor(
    stream: &Stream<'_>,
    method: Method,
    of_models: bool,
    with_base: bool,
    settings: &TensorSettings,
) -> Result<Mix> {
    let TensorSettings { weight, lambda, normalize, base_weight, t, max_iter, tol, eps, .. } = settings;
    match method {
        Method::Linear => return linear(weight, *base_weight, *normalize),
        Method::TaskArithmetic => return Ok(task_sum(weight, *lambda, *normalize)),
        _ => {}
    }
    let products = products(stream)?;
    let n_tasks = products.n_tasks();
    let of = vectors_of(of_models);
    match method {
        Method::Slerp => slerp(&products, *t),
        Method::NuSlerp => nuslerp(&products, weight, of),
        Method::MultiSlerp => multislerp(&products, weight, *normalize, *eps, of),
        Method::Karcher => {
            let mut models = products.vectors(Of::Models);
            if with_base {
                models.push(Mix::base(n_tasks));
            }
            Ok(karcher(&products, &models, *max_iter, *tol))
        }
        Method::ModelStock => {
            let gram = products.of_tasks();
            let t = model_stock(n_tasks, |a, b| gram[(a, b)]);
            Ok(Mix { base: 1.0, tasks: vec![t / n_tasks.max(1) as f64; n_tasks] })
        }
        _ => Err(Error::failed(format!("{method}: a method of coefficients expected"))),
    }
}

/// Inner products of base and task vectors over all of a stream.
///
/// # Errors
/// Rejected: values that are not finite. Else as [`Stream::sums`].
pub(super) fn products(stream: &Stream<'_>) -> Result<Products> {
    let task = MergeTask { factor: 1.0, weight: 1.0, keep: Keep::All };
    let tasks = vec![task; stream.part.n_tasks()];
    let all = Merge { tasks, variance: None, consensus: Consensus::Sum, base: 1.0, lambda: 1.0, dtype: None };
    Products::of_triangle(&stream.sums(&all, true)?.products, stream.part.n_tasks())
}
