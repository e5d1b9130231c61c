//! A Gram pass in parts: the joined file has the bytes of one run's, whatever the parts, their order and their machines.

use crate::factors::{self, Factors};
use crate::gpu_device::write_plan;
use crate::lora::mixed;
use std::path::{Path, PathBuf};
use tvb::checkpoint::{Checkpoint, Existing, Tensor};
use tvb::jobs::gram::make_gram_file;
use tvb::jobs::parts::{JoinOptions, Joined, gram_part, join};
use tvb::ops::Per;
use tvb::ops::gram_part::{GramShape, factored};
use tvb::pass::{Part, Runtime, SPAN_ROWS};
use tvb::progress::Silent;
use tvb::{Plan, Selection, Task};
use tvb_tests::small_models::{Random, Shape, Stored, values, write_model};

/// Every part by itself, in another folder than the others', with other threads and memory.
fn parts(plan: &Plan, n_parts: usize, folder: &Path) -> Vec<PathBuf> {
    let part = |part: Part| {
        let path = folder.join(format!("part-{}-of-{n_parts}", part.number()));
        let n_threads = 1 + part.number() % 3;
        let runtime = Runtime::on_cpu(n_threads, (256 << 20) << (part.number() % 2));
        gram_part(plan, part, &path, Existing::Refuse, &runtime, &Silent).expect("a part");
        path
    };
    Part::all(n_parts).expect("parts").into_iter().map(part).collect()
}

/// Joined parts are one run, in any order.
#[track_caller]
fn check(plan: &Plan, numbers: &[usize]) -> Per {
    let top = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::on_cpu(2, 512 << 20);
    let one = top.path().join("one.gram");
    let grams = make_gram_file(plan, &one, Existing::Refuse, &runtime, &Silent).expect("a Gram file");
    let expected = std::fs::read(&one).expect("its bytes");
    for &n_parts in numbers {
        let mut paths = parts(plan, n_parts, top.path());
        let random = &mut Random(n_parts as u64);
        (1..paths.len()).rev().for_each(|at| paths.swap(at, random.below(at + 1)));
        let output = top.path().join(format!("joined-{n_parts}.gram"));
        let joined = join(&paths, &JoinOptions::new(&output), &runtime, &Silent).expect("a Gram file");
        assert!(matches!(joined, Joined::Grams(_)));
        let found = std::fs::read(&output).expect("its bytes");
        assert!(found == expected, "{n_parts} parts: other bytes");
    }
    let n_left = std::fs::read_dir(top.path()).expect("a folder").count();
    assert_eq!(n_left, 1 + numbers.iter().map(|n_parts| n_parts + 1).sum::<usize>(), "something is left behind");
    grams.per
}

/// More parts than there are spans: some are empty.
const ALL: [usize; 5] = [1, 2, 3, 7, 64];

fn zoo(name: &str) -> String {
    format!("../tvb-zoo/checkpoints/{name}.safetensors")
}

#[test]
fn parts_of_trained_models_are_one_run() {
    let tasks = ["digits", "letters", "mazes", "waves", "dice"].map(zoo);
    check(&Plan::open(zoo("base"), tasks).expect("a plan"), &ALL);
}

#[test]
fn parts_that_cut_tensors_are_one_run() {
    let top = tempfile::tempdir().expect("a folder");
    let shape = |name: &str, n_rows: usize, stored| Shape { name: name.into(), shape: vec![n_rows], stored };
    let shapes = [
        shape("a", 3 * SPAN_ROWS + 12_345, Stored::Bf16),
        shape("b", 7, Stored::F32),
        shape("c", 0, Stored::F32),
        shape("d", SPAN_ROWS + 1, Stored::F16),
        shape("e", 40_000, Stored::F32),
        shape("f", 2 * SPAN_ROWS, Stored::F32),
        shape("g", 0, Stored::Bf16),
    ];
    let (base, tasks) = values(&shapes, 3, &mut Random(5));
    let plan = write_plan(top.path(), &shapes, &base, &tasks);
    // The parts cut tensors, else this proves nothing.
    let shape = GramShape::new(&plan, &[false; 7], Part::new(2, 3).expect("a part"));
    assert!(shape.pieces.iter().any(|piece| !piece.is_whole()), "{:?}", shape.pieces);
    check(&plan, &ALL);
}

#[test]
fn parts_of_tied_cut_and_unmatched_tensors_are_one_run() {
    let top = tempfile::tempdir().expect("a folder");
    let shape = |name: &str, shape: &[usize]| Shape { name: name.into(), shape: shape.to_vec(), stored: Stored::F32 };
    let of = |name: &str, n_words: usize, extra: &[usize]| {
        let shapes = [shape("emb", &[n_words, 64]), shape("extra", extra), shape("w", &[300, 50])];
        let (base, _) = values(&shapes, 1, &mut Random(n_words as u64));
        Checkpoint::open(&write_model(top.path(), name, &shapes, &base, 1)).expect("a checkpoint")
    };
    let task = |name: &str, n_words, extra: &[usize]| Task { name: name.into(), checkpoint: of(name, n_words, extra) };
    let tasks = vec![task("a", 1000, &[4]), task("b", 990, &[5])];
    let selection = Selection::all().common_vocab(true).skip_mismatched(true);
    let plan = Plan::new(of("base", 1010, &[4]), tasks, &selection).expect("a plan");
    assert!(!plan.fit.common_rows.is_empty() && !plan.skipped.is_empty(), "{:?}", plan.fit);
    check(&plan, &[1, 3]);
}

#[test]
fn parts_of_adapters_are_one_run() {
    let mut random = Random(3);
    let sides = [[64, 48], [1, 300], [300, 1], [24, 72], [1500, 40]];
    let shapes: Vec<Vec<usize>> = sides.iter().map(|sides| sides.to_vec()).collect();
    let ranks = [[1, 1, 1, 2, 8], [3, 1, 1, 0, 1], [0, 0, 1, 0, 3]];
    let mut tasks: Vec<Vec<Factors>> = Vec::new();
    for ranks in ranks {
        let own = sides.iter().zip(ranks);
        tasks.push(own.map(|(sides, rank)| Factors::new(*sides, rank, 0.5, &mut random)).collect());
    }
    let plan = factors::plan(&shapes, &tasks);
    assert!(factored(&plan).iter().all(|factored| *factored));
    check(&plan, &[1, 2, 3, 7]);
    // Beside full checkpoints rows are read.
    let top = tempfile::tempdir().expect("a folder");
    let plan = mixed(top.path(), "llama", "dora-llama");
    check(&plan, &[2, 5]);
}

/// One matrix for everything: tensors are folded in order all the same, those from factors last.
#[test]
fn parts_of_very_many_tasks_are_one_run() {
    const N_TASKS: usize = 1024;
    let mut random = Random(9);
    let shapes = vec![vec![6, 5]; 33];
    // Tasks beyond the first few move nothing.
    let mut task = |task: usize| -> Vec<Factors> {
        let rank = |tensor: usize| if task < 5 { 1 + (task + tensor) % 3 } else { 0 };
        (0..shapes.len()).map(|tensor| Factors::new([6, 5], rank(tensor), 0.25, &mut random)).collect()
    };
    let tasks: Vec<Vec<Factors>> = (0..N_TASKS).map(&mut task).collect();
    let plan = factors::plan(&shapes, &tasks);
    // The last task has every other tensor as it is, so that these are read.
    let top = tempfile::tempdir().expect("a folder");
    let shape = |tensor: &Tensor| Shape { name: tensor.name.clone(), shape: tensor.shape.clone(), stored: Stored::F32 };
    let of_base: Vec<Shape> = plan.base.tensors().iter().map(shape).collect();
    let (values, _) = values(&of_base, 1, &mut random);
    let base = Checkpoint::open(&write_model(top.path(), "base", &of_base, &values, 1)).expect("a base");
    let column = |(number, task): (usize, &Task)| {
        let pick = |(at, own): (usize, &Tensor)| match number + 1 == N_TASKS && at % 2 == 1 {
            true => base.get(&own.name).expect("the base's").clone(),
            false => own.clone(),
        };
        let tensors = task.checkpoint.tensors().iter().enumerate().map(pick).collect();
        Task { name: task.name.clone(), checkpoint: base.with_tensors(tensors).expect("a column") }
    };
    let tasks = plan.tasks.iter().enumerate().map(column).collect();
    let plan = Plan::new(base.clone(), tasks, &Selection::all()).expect("a plan");
    let factored = factored(&plan);
    assert!(factored.contains(&true) && factored.contains(&false));
    assert_eq!(check(&plan, &[3]), Per::Whole);
}
