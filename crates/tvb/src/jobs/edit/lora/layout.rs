//! Where a product's factors lie in PEFT's file: names, shapes, and which side is A.

use super::gather::Change;
use crate::checkpoint::{Dtype, Form, TensorSpec};
use crate::solve::Product;

/// What PEFT puts before every name.
pub(super) const PREFIX: &str = "base_model.model.";

/// Names and shapes of A and B of one module at rank `rank`.
pub(super) fn specs(change: &Change, rank: usize, dtype: Dtype) -> [TensorSpec; 2] {
    let (n, m) = change.size();
    let name = &change.module.name;
    let spec = |end: &str, shape: Vec<usize>| TensorSpec { name: format!("{PREFIX}{name}.{end}"), dtype, shape };
    match change.module.form {
        Form::Linear => [spec("lora_A.weight", vec![rank, m]), spec("lora_B.weight", vec![n, rank])],
        Form::Transposed => [spec("lora_A.weight", vec![rank, n]), spec("lora_B.weight", vec![m, rank])],
        Form::Embedding => [spec("lora_embedding_A", vec![rank, n]), spec("lora_embedding_B", vec![m, rank])],
        Form::Convolution => {
            let kernel = change.shape.get(1..).unwrap_or_default();
            let ones = kernel.iter().skip(1).map(|_| 1);
            [
                spec("lora_A.weight", [rank].into_iter().chain(kernel.iter().copied()).collect()),
                spec("lora_B.weight", [n, rank].into_iter().chain(ones).collect()),
            ]
        }
    }
}

/// A and B, row-major: A has its ranks in rows, B in columns.
pub(super) fn values(change: &Change, product: &Product) -> [Vec<f64>; 2] {
    let (a, b) = match change.module.form {
        Form::Linear | Form::Convolution => (&product.right, &product.left),
        Form::Transposed | Form::Embedding => (&product.left, &product.right),
    };
    [a.columns().flatten().copied().collect(), b.rows().flatten().collect()]
}

/// The product that A and B as they were stored stand for.
pub(super) fn product(change: &Change, rank: usize, a: &[f64], b: &[f64]) -> Product {
    use crate::matrix::Matrix;
    let long = a.len() / rank.max(1);
    let a = Matrix::from_fn(long, rank, |i, k| a.get(k * long + i).copied().unwrap_or(0.0));
    let b = Matrix::of_rows(b.len() / rank.max(1), rank, b);
    match change.module.form {
        Form::Linear | Form::Convolution => Product { left: b, right: a },
        Form::Transposed | Form::Embedding => Product { left: a, right: b },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Budget, LowRank, Module};
    use crate::matrix::Matrix;

    fn change(form: Form, shape: &[usize]) -> Change {
        let (n, m) = (shape[0], shape[1..].iter().product::<usize>());
        let budget = Budget::default();
        let factors = LowRank::new(vec![1.0; n], vec![1.0; m], 1, 1.0, "x".as_ref(), &budget).unwrap();
        let module = Module { name: "m".into(), form };
        Change { tensor: "m.weight".into(), shape: shape.to_vec(), module, terms: vec![(factors, 1.0)] }
    }

    #[test]
    fn a_and_b_lie_as_each_form_has_them() {
        let cases: [(Form, &[usize], &[usize], &[usize]); 5] = [
            (Form::Linear, &[5, 3], &[2, 3], &[5, 2]),
            (Form::Transposed, &[5, 3], &[2, 5], &[3, 2]),
            (Form::Embedding, &[5, 3], &[2, 5], &[3, 2]),
            (Form::Convolution, &[5, 3, 4, 4], &[2, 3, 4, 4], &[5, 2, 1, 1]),
            (Form::Convolution, &[5, 3, 4], &[2, 3, 4], &[5, 2, 1]),
        ];
        for (form, shape, expected_a, expected_b) in cases {
            let change = change(form, shape);
            let (n, m) = change.size();
            let [a, b] = specs(&change, 2, Dtype::F32);
            assert_eq!((a.shape.as_slice(), b.shape.as_slice()), (expected_a, expected_b), "{form:?}");
            let end = if form == Form::Embedding { "lora_embedding_A" } else { "lora_A.weight" };
            assert_eq!(a.name, format!("base_model.model.m.{end}"));
            let side = |n: usize, start: usize| Matrix::from_fn(n, 2, |i, k| (start + 2 * i + k) as f64);
            let exact = Product { left: side(n, 0), right: side(m, 100) };
            let [a, b] = values(&change, &exact);
            assert_eq!((a.len(), b.len()), (expected_a.iter().product(), expected_b.iter().product()));
            let back = product(&change, 2, &a, &b);
            assert_eq!((back.left, back.right), (exact.left, exact.right), "{form:?}");
        }
    }
}
