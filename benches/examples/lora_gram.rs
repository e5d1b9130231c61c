//! The Gram matrix of T adapters of rank r on one n×n module, beside the same two products done by a library: seconds.
//! `cargo run --release -p tvb-benches --example lora_gram -- 64 16 4096`

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par};
use std::path::Path;
use std::time::Instant;
use tvb::checkpoint::{Budget, Checkpoint, Dtype, LowRank, Place, Tensor};
use tvb::ops::gram::gram;
use tvb::{Plan, Runtime, Selection, Silent, Task};

const N_THREADS: usize = 2;

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let &[n_tasks, rank, side] = numbers.as_slice() else { panic!("T r n expected") };
    let plan = plan(n_tasks, rank, side);
    let (mut own, mut library) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..5 {
        let runtime = Runtime::on_cpu(N_THREADS, 512 << 20);
        let start = Instant::now();
        let grams = gram(&plan, &runtime, &Silent).expect("a Gram matrix");
        own = own.min(start.elapsed().as_secs_f64());
        assert!(grams.triangles.iter().all(|value| value.is_finite()));
        library = library.min(products(n_tasks * rank, side));
    }
    println!(
        "T = {n_tasks}, r = {rank}, n = {side}: {own:.3} s, two full products {library:.3} s, {:.2} times",
        own / library
    );
}

/// LᵀL and RRᵀ in full, each thread with its share of the columns of the results.
fn products(ranks: usize, side: usize) -> f64 {
    let value = |i: usize, j: usize| ((i * 31 + j * 17) % 1009) as f64 / 1009.0 - 0.5;
    let stacks: [Mat<f64>; 2] = [Mat::from_fn(side, ranks, value), Mat::from_fn(side, ranks, value)];
    let mut results: [Mat<f64>; 2] = [Mat::zeros(ranks, ranks), Mat::zeros(ranks, ranks)];
    let start = Instant::now();
    for (stack, result) in stacks.iter().zip(&mut results) {
        let (half, other) = result.as_mut().split_at_col_mut(ranks / 2);
        let (left, right) = stack.as_ref().split_at_col(ranks / 2);
        std::thread::scope(|scope| {
            scope.spawn(|| matmul(half, Accum::Replace, stack.transpose(), left, 1.0, Par::Seq));
            matmul(other, Accum::Replace, stack.transpose(), right, 1.0, Par::Seq);
        });
    }
    start.elapsed().as_secs_f64()
}

fn plan(n_tasks: usize, rank: usize, side: usize) -> Plan {
    let shape = vec![side, side];
    let base = Checkpoint::of_zeros(Path::new("base"), &[("w".to_owned(), shape.clone())]).expect("a base");
    let budget = Budget::new(8 << 30);
    let tasks = (0..n_tasks).map(|task| {
        let value =
            |at: usize| ((at.wrapping_mul(2_654_435_761).wrapping_add(task * 97) >> 8) % 2001) as f32 / 1e3 - 1.0;
        let floats = |n: usize| (0..n).map(value).collect::<Vec<f32>>();
        let factors = LowRank::new(floats(side * rank), floats(side * rank), rank, 1.0, Path::new("a"), &budget);
        let place = Place::LowRank(factors.expect("factors"));
        let tensor = Tensor { name: "w".into(), dtype: Dtype::F32, shape: shape.clone(), place };
        Task { name: format!("t{task}"), checkpoint: base.with_tensors(vec![tensor]).expect("a column") }
    });
    Plan::new(base.clone(), tasks.collect(), &Selection::all()).expect("a plan")
}
