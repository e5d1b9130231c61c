//! Gram matrices from factors against dense ones in f64, and what is true of them whatever the factors are.

use std::path::Path;
use tvb::checkpoint::{Budget, Checkpoint, Dtype, LowRank, Place, Tensor};
use tvb::ops::gram::{gram, reads_rows};
use tvb::{Grams, Plan, Runtime, Selection, Silent, Task};
use tvb_tests::small_models::Random;

/// A matrix of one task: rank 0 for one that is not moved.
pub(crate) struct Factors {
    sides: [usize; 2],
    rank: usize,
    scale: f64,
    left: Vec<f32>,
    right: Vec<f32>,
}

impl Factors {
    pub(crate) fn new([n, m]: [usize; 2], rank: usize, scale: f64, random: &mut Random) -> Factors {
        let mut floats = |n: usize| (0..n).map(|_| random.value()).collect();
        Factors { sides: [n, m], rank, scale, left: floats(n * rank), right: floats(rank * m) }
    }

    fn place(&self) -> Place {
        if self.rank == 0 {
            return Place::Unmoved;
        }
        let (left, right, path) = (self.left.clone(), self.right.clone(), Path::new("adapter"));
        Place::LowRank(LowRank::new(left, right, self.rank, self.scale, path, &Budget::default()).expect("factors"))
    }

    fn dense(&self) -> Vec<f64> {
        let ([n, m], rank) = (self.sides, self.rank);
        let at = (0..n).flat_map(|i| (0..m).map(move |j| (i, j)));
        let element = |(i, j)| -> f64 {
            (0..rank).map(|k| f64::from(self.left[i * rank + k]) * f64::from(self.right[k * m + j])).sum()
        };
        at.map(|at| self.scale * element(at)).collect()
    }
}

/// A plan whose base holds zeros; `tasks` is \[n_tasks\]\[n_tensors\].
pub(crate) fn plan(shapes: &[Vec<usize>], tasks: &[Vec<Factors>]) -> Plan {
    let named: Vec<(String, Vec<usize>)> =
        shapes.iter().enumerate().map(|(n, shape)| (format!("w{n:02}"), shape.clone())).collect();
    let base = Checkpoint::of_zeros(Path::new("base"), &named).expect("a base");
    let task = |(number, factors): (usize, &Vec<Factors>)| {
        let tensors = named.iter().zip(factors).map(|((name, shape), factors)| Tensor {
            name: name.clone(),
            dtype: Dtype::F32,
            shape: shape.clone(),
            place: factors.place(),
        });
        let checkpoint = base.with_tensors(tensors.collect()).expect("a column");
        Task { name: format!("t{number}"), checkpoint }
    };
    let tasks = tasks.iter().enumerate().map(task).collect();
    Plan::new(base.clone(), tasks, &Selection::all()).expect("a plan")
}

/// \[n_tensors\]\[T(T+1)/2\]
fn exact(tasks: &[Vec<Factors>]) -> Vec<f64> {
    let n_tensors = tasks.first().map_or(0, Vec::len);
    let mut triangles = Vec::new();
    for tensor in 0..n_tensors {
        let dense: Vec<Vec<f64>> = tasks.iter().map(|task| task[tensor].dense()).collect();
        for i in 0..tasks.len() {
            triangles.extend((0..=i).map(|j| dense[i].iter().zip(&dense[j]).map(|(a, b)| a * b).sum::<f64>()));
        }
    }
    triangles
}

fn gram_of(plan: &Plan) -> Grams {
    gram(plan, &Runtime::on_cpu(2, 256 << 20), &Silent).expect("a Gram matrix")
}

/// Errors in parts of ‖τi‖·‖τj‖.
#[track_caller]
fn check(tasks: &[Vec<Factors>], shapes: &[Vec<usize>], least: f64) {
    let plan = plan(shapes, tasks);
    assert!(!reads_rows(&plan), "rows are read");
    let (found, expected) = (gram_of(&plan), exact(tasks));
    assert_eq!(found.triangles.len(), expected.len());
    let (n_tasks, len) = (tasks.len(), tasks.len() * (tasks.len() + 1) / 2);
    for (found, expected) in found.triangles.chunks(len).zip(expected.chunks(len)) {
        let square = |i: usize| expected[i * (i + 1) / 2 + i];
        for i in 0..n_tasks {
            for j in 0..=i {
                let (at, norm) = (i * (i + 1) / 2 + j, (square(i) * square(j)).sqrt());
                assert!((found[at] - expected[at]).abs() <= least * norm, "{i} {j}: {} {}", found[at], expected[at]);
            }
        }
    }
}

#[test]
fn gram_matrices_from_factors_are_the_dense_ones() {
    let mut random = Random(3);
    // Rank 1, ranks that differ, tasks that do not move, one row, one column, a kernel, more rows than a slab.
    let shapes = [vec![64, 48], vec![1, 300], vec![300, 1], vec![24, 8, 3, 3], vec![1500, 40]];
    let sides = [[64, 48], [1, 300], [300, 1], [24, 72], [1500, 40]];
    let ranks = [[1, 1, 1, 2, 8], [3, 1, 1, 0, 1], [0, 0, 1, 5, 3], [2, 1, 1, 1, 4]];
    let task = |(t, ranks): (usize, &[usize; 5])| {
        let factors = sides.iter().zip(ranks);
        factors.map(|(sides, rank)| Factors::new(*sides, *rank, 0.5 + t as f64 / 3.0, &mut random)).collect()
    };
    let tasks: Vec<Vec<Factors>> = ranks.iter().enumerate().map(task).collect();
    check(&tasks, &shapes, 1e-12);
}

#[test]
fn ranks_beyond_a_tile_are_cut() {
    let mut random = Random(4);
    let mut task = |rank| vec![Factors::new([40, 50], rank, 1.0, &mut random)];
    // 600 is cut, and the rest of it shares a group with what comes after.
    check(&[task(100), task(600), task(20), task(0), task(520), task(1)], &[vec![40, 50]], 1e-12);
}

#[test]
fn threads_and_memory_do_not_change_a_bit() {
    let mut random = Random(5);
    let tasks: Vec<Vec<Factors>> =
        (0..150).map(|t| vec![Factors::new([80, 70], 1 + t % 8, 1.0, &mut random)]).collect();
    let plan = plan(&[vec![80, 70]], &tasks);
    assert!(!reads_rows(&plan));
    let expected = gram(&plan, &Runtime::on_cpu(1, 256 << 20), &Silent).expect("a Gram matrix").triangles;
    for (n_threads, memory_bytes) in [(2, 256 << 20), (8, 64 << 20), (8, 6 << 20)] {
        let found = gram(&plan, &Runtime::on_cpu(n_threads, memory_bytes), &Silent).expect("a Gram matrix").triangles;
        assert!(found == expected, "{n_threads} threads, {memory_bytes} bytes: other bits");
    }
    let error = gram(&plan, &Runtime::on_cpu(1, 1 << 20), &Silent).expect_err("too little memory");
    assert!(error.message().contains("a tile of the factors"), "{}", error.message());
}

#[test]
fn scales_and_orders_go_through() {
    let mut random = Random(6);
    let tasks: Vec<Vec<Factors>> = (0..7).map(|t| vec![Factors::new([90, 60], 1 + t % 3, 1.0, &mut random)]).collect();
    let first = gram_of(&plan(&[vec![90, 60]], &tasks)).total();
    let order = [3, 0, 6, 2, 5, 1, 4];
    let scaled = |&at: &usize| {
        let f = &tasks[at][0];
        vec![Factors { left: f.left.clone(), right: f.right.clone(), scale: if at == 2 { -4.0 } else { 1.0 }, ..*f }]
    };
    let tasks: Vec<Vec<Factors>> = order.iter().map(scaled).collect();
    let second = gram_of(&plan(&[vec![90, 60]], &tasks)).total();
    let weight = |at: usize| if at == 2 { -4.0 } else { 1.0 };
    for (i, &a) in order.iter().enumerate() {
        for (j, &b) in order.iter().enumerate() {
            let (expected, found) = (first[(a, b)] * weight(a) * weight(b), second[(i, j)]);
            assert!((expected - found).abs() <= 1e-12 * (first[(a, a)] * first[(b, b)]).sqrt() * 16.0);
        }
    }
}

/// What is dense among the columns is read, the rest is not, and both make one answer.
#[test]
fn dense_tensors_are_read_and_the_others_are_not() {
    let mut random = Random(7);
    let tasks: Vec<Vec<Factors>> = (0..3)
        .map(|_| vec![Factors::new([90, 60], 2, 1.0, &mut random), Factors::new([5, 5], 0, 1.0, &mut random)])
        .collect();
    let mut plan = plan(&[vec![90, 60], vec![5, 5]], &tasks);
    let all = gram_of(&plan);
    assert!(all.tensors[1].frozen && !all.tensors[0].frozen);
    assert_eq!(all.base_fingerprint(), None);
    // The second tensor of the first task is one of a checkpoint now.
    let tensors = plan.tasks[0].checkpoint.tensors().to_vec();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("dense.safetensors");
    let ones: Vec<u8> = std::iter::repeat_n(1.0f32.to_le_bytes(), 25).flatten().collect();
    let view = safetensors(&ones);
    std::fs::write(&path, view).expect("written");
    let dense = Checkpoint::open(&path).expect("opened");
    let both = vec![tensors[0].clone(), dense.tensors()[0].clone()];
    plan.tasks[0].checkpoint = dense.with_tensors(both).expect("a column");
    let plan = Plan::new(plan.base.clone(), plan.tasks.clone(), &Selection::all()).expect("a plan");
    assert!(reads_rows(&plan));
    let mixed = gram_of(&plan);
    assert_eq!(mixed.triangle(0), all.triangle(0));
    assert_eq!(mixed.triangle(1), [25.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    // Digests of what is the same are the same, by whatever way.
    assert_eq!(mixed.digests.tensor(0), all.digests.tensor(0));
    assert_eq!(mixed.digests.tensor(1)[2..], all.digests.tensor(1)[2..]);
    assert_ne!(mixed.digests.tensor(1)[1], all.digests.tensor(1)[1]);
}

/// A file of one tensor, w01 [5, 5].
fn safetensors(bytes: &[u8]) -> Vec<u8> {
    let header = br#"{"w01":{"dtype":"F32","shape":[5,5],"data_offsets":[0,100]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.extend_from_slice(bytes);
    file
}
