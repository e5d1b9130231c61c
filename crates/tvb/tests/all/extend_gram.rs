//! A Gram file that new tasks join: the bytes of a fresh one of all tasks, and nothing taken from a file that is of other inputs.

use crate::factors::{self, Factors};
use crate::gpu_device::{test_gpu, write_plan};
use crate::lora::mixed;
use std::path::Path;
use tvb::basis::gram_file;
use tvb::checkpoint::{Checkpoint, Existing};
use tvb::jobs::gram::{extend_gram_file, make_gram_file};
use tvb::ops::Per;
use tvb::ops::extend_gram::extend_gram;
use tvb::ops::gram::gram;
use tvb::pass::bookmark::NoBookmarks;
use tvb::pass::{Runtime, SPAN_ROWS};
use tvb::progress::Silent;
use tvb::{ErrorKind, Grams, Plan, Selection, Task};
use tvb_kernels::{CpuEngine, DeviceSetup, Engine, triangle_len};
use tvb_tests::small_models::{Random, Shape, Stored, Values, shapes, values, write_model};

fn runtime() -> Runtime {
    Runtime::on_cpu(2, 512 << 20)
}

/// A plan over some of the tasks.
fn of_tasks(plan: &Plan, tasks: impl IntoIterator<Item = usize>) -> Plan {
    let tasks = tasks.into_iter().map(|task| plan.tasks[task].clone()).collect();
    Plan::new(plan.base.clone(), tasks, &Selection::all()).expect("a plan of fewer tasks")
}

fn first(plan: &Plan, n_tasks: usize) -> Plan {
    of_tasks(plan, 0..n_tasks)
}

fn extended(plan: &Plan, known: &Grams, runtime: &Runtime) -> tvb::Result<Grams> {
    extend_gram(plan, known, runtime, &Silent, &mut NoBookmarks)
}

/// Every number of known tasks, and tasks that join one after another.
#[track_caller]
fn check(plan: &Plan, runtime: impl Fn(usize) -> Runtime) {
    let (runtime, other) = (&runtime(2), &runtime(3));
    let fresh = gram_file::to_bytes(&gram(plan, runtime, &Silent).expect("a Gram matrix")).expect("bytes");
    let n_tasks = plan.tasks.len();
    let mut grown = gram(&first(plan, 1), runtime, &Silent).expect("a Gram matrix of one task");
    for n_known in 1..n_tasks {
        let known = gram(&first(plan, n_known), runtime, &Silent).expect("a Gram matrix");
        let found = extended(plan, &known, other).expect("an extended one");
        assert!(gram_file::to_bytes(&found).expect("bytes") == fresh, "{n_known} of {n_tasks} known: other bytes");
        grown = extended(&first(plan, n_known + 1), &grown, runtime).expect("one task more");
    }
    assert!(gram_file::to_bytes(&grown).expect("bytes") == fresh, "one after another: other bytes");
}

fn zoo(name: &str) -> String {
    format!("../tvb-zoo/checkpoints/{name}.safetensors")
}

#[test]
fn trained_models_join_with_the_bytes_of_a_fresh_file() {
    let tasks = ["digits", "letters", "mazes", "waves", "dice"].map(zoo);
    let plan = Plan::open(zoo("base"), tasks).expect("a plan");
    check(&plan, |n_threads| runtime().with_threads(n_threads));
    // A file that is replaced by what it becomes.
    let top = tempfile::tempdir().expect("a folder");
    let [file, fresh] = ["a.gram", "b.gram"].map(|name| top.path().join(name));
    make_gram_file(&plan, &fresh, Existing::Refuse, &runtime(), &Silent).expect("a fresh file");
    make_gram_file(&first(&plan, 3), &file, Existing::Refuse, &runtime(), &Silent).expect("a file of three");
    let known = gram_file::read(&file).expect("its matrices");
    let refused =
        extend_gram_file(&plan, &known, &file, Existing::Refuse, &runtime(), &Silent).expect_err("it is there");
    assert_eq!(refused.kind(), ErrorKind::Rejected);
    assert_eq!(gram_file::read(&file).expect("still whole").n_tasks(), 3);
    extend_gram_file(&plan, &known, &file, Existing::Replace, &runtime(), &Silent).expect("in its place");
    assert!(std::fs::read(&file).expect("read") == std::fs::read(&fresh).expect("read"));
    assert_eq!(std::fs::read_dir(top.path()).expect("a folder").count(), 2, "something is left behind");
}

/// Spans, all formats, empty tensors, and a tensor that only the last task moves: frozen before.
fn of_all_kinds(folder: &Path) -> Plan {
    let shape = |name: &str, n_rows: usize, stored| Shape { name: name.into(), shape: vec![n_rows], stored };
    let shapes = [
        shape("a", SPAN_ROWS + 12_345, Stored::Bf16),
        shape("b", 7, Stored::F32),
        shape("c", 0, Stored::F32),
        shape("d", 40_000, Stored::F16),
        shape("e", 20_000, Stored::F32),
    ];
    let (base, mut tasks) = values(&shapes, 7, &mut Random(5));
    for task in &mut tasks[..6] {
        task[4] = base[4].clone();
    }
    write_plan(folder, &shapes, &base, &tasks)
}

#[test]
fn every_format_and_length_joins_on_every_engine() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = of_all_kinds(top.path());
    let known = gram(&first(&plan, 6), &runtime(), &Silent).expect("a Gram matrix");
    let found = extended(&plan, &known, &runtime()).expect("an extended one");
    let frozen = |grams: &Grams| -> Vec<String> {
        let mut names: Vec<String> = grams.tensors.iter().filter(|t| t.frozen).map(|t| t.name.clone()).collect();
        names.sort();
        names
    };
    assert_eq!((frozen(&known), frozen(&found)), (vec!["c".into(), "e".into()], vec!["c".into()]));
    for engine in CpuEngine::each() {
        check(&plan, |n_threads| Runtime::on(Engine::Cpu(engine)).with_threads(n_threads));
    }
}

#[test]
fn tasks_join_on_a_gpu_with_the_bytes_of_a_fresh_file() {
    let Some((engine, _turn)) = test_gpu(DeviceSetup::default()) else { return };
    let top = tempfile::tempdir().expect("a folder");
    check(&of_all_kinds(top.path()), |n| Runtime::on(Engine::Gpu(engine.clone())).with_threads(n));
}

/// Squares of such deltas are nothing in f32, and their products with others' are little.
#[test]
fn products_with_deltas_too_small_for_f32_are_not_lost() {
    let top = tempfile::tempdir().expect("a folder");
    let shapes = shapes(&[&[300, 100]]);
    let zeros: Values = vec![vec![0.0; 30_000]];
    let mut random = Random(8);
    let mut of_size = |size: f32| -> Values { vec![(0..30_000).map(|_| size * (1.0 + random.value())).collect()] };
    let tasks = [of_size(1e-3), of_size(1e-25), of_size(1e-20), of_size(1e-3)];
    let plan = write_plan(top.path(), &shapes, &zeros, &tasks);
    let exact = |i: usize, j: usize| -> f64 {
        tasks[i][0].iter().zip(&tasks[j][0]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    for order in [[0, 1, 2], [1, 0, 2], [1, 3, 0], [3, 0, 1], [2, 0, 1]] {
        let plan = of_tasks(&plan, order);
        let fresh = gram(&plan, &runtime(), &Silent).expect("a Gram matrix");
        for n_known in [1, 2] {
            let known = gram(&first(&plan, n_known), &runtime(), &Silent).expect("a Gram matrix");
            let found = extended(&plan, &known, &runtime()).expect("an extended one");
            for (i, j) in (0..3).flat_map(|i| (0..=i).map(move |j| (i, j))) {
                let at = triangle_len(i) + j;
                let expected = exact(order[i], order[j]);
                for value in [found.triangles[at], fresh.triangles[at]] {
                    assert!(
                        (value - expected).abs() <= 1e-6 * expected.abs(),
                        "{order:?}: ({i}, {j}): {value}, {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn adapters_join_up_to_rounding_in_f64() {
    let sides = [[64, 48], [1, 300], [300, 1], [24, 72], [1500, 40]];
    let shapes: Vec<Vec<usize>> = sides.iter().map(|sides| sides.to_vec()).collect();
    let mut random = Random(3);
    let mut task = |ranks: [usize; 5]| -> Vec<Factors> {
        sides.iter().zip(ranks).map(|(sides, rank)| Factors::new(*sides, rank, 0.5, &mut random)).collect()
    };
    let ranks = [[1, 1, 1, 2, 8], [3, 1, 1, 0, 1], [2, 0, 1, 0, 3], [600, 1, 1, 0, 700], [0, 1, 0, 4, 2]];
    let tasks: Vec<Vec<Factors>> = ranks.into_iter().map(&mut task).collect();
    let plan = factors::plan(&shapes, &tasks);
    close_at_every_cut(&plan);
    // Beside full checkpoints rows are read, whoever comes first.
    let top = tempfile::tempdir().expect("a folder");
    let plan = mixed(top.path(), "llama", "dora-llama");
    close_at_every_cut(&plan);
    close_at_every_cut(&of_tasks(&plan, (0..plan.tasks.len()).rev()));
}

#[track_caller]
fn close_at_every_cut(plan: &Plan) {
    let fresh = gram(plan, &runtime(), &Silent).expect("a Gram matrix");
    for n_known in 1..plan.tasks.len() {
        let known = gram(&first(plan, n_known), &runtime(), &Silent).expect("a Gram matrix");
        let found = extended(plan, &known, &runtime()).expect("an extended one");
        assert_eq!((&found.base, &found.tasks, &found.tensors), (&fresh.base, &fresh.tasks, &fresh.tensors));
        assert!(found.digests == fresh.digests, "{n_known} known: other digests");
        for slot in 0..fresh.n_slots() {
            let (found, fresh) = (found.triangle(slot), fresh.triangle(slot));
            let norm = |i: usize| fresh[triangle_len(i + 1) - 1].sqrt();
            for (i, j) in (0..plan.tasks.len()).flat_map(|i| (0..=i).map(move |j| (i, j))) {
                let (found, fresh) = (found[triangle_len(i) + j], fresh[triangle_len(i) + j]);
                // Rows are products in f32, and which tensors are read depends on all tasks.
                let most = 2e-7 * norm(i) * norm(j);
                assert!((found - fresh).abs() <= most, "{n_known} known, slot {slot}: ({i}, {j}): {found}, {fresh}");
            }
        }
    }
}

/// One matrix for each tensor becomes one for all, as there are more tasks.
#[test]
fn matrices_of_tensors_become_one_where_they_would_take_too_much_room() {
    let mut random = Random(9);
    let shapes = vec![vec![6, 5]; 33];
    let mut task = |task: usize| -> Vec<Factors> {
        let rank = |tensor: usize| if task % 200 < 3 { 1 + (task + tensor) % 3 } else { 0 };
        (0..shapes.len()).map(|tensor| Factors::new([6, 5], rank(tensor), 0.25, &mut random)).collect()
    };
    let tasks: Vec<Vec<Factors>> = (0..1024).map(&mut task).collect();
    let plan = factors::plan(&shapes, &tasks);
    let fresh = gram(&plan, &runtime(), &Silent).expect("a Gram matrix");
    for (n_known, per) in [(1000, Per::Tensor), (1020, Per::Whole)] {
        let known = gram(&first(&plan, n_known), &runtime(), &Silent).expect("a Gram matrix");
        assert_eq!((known.per, fresh.per), (per, Per::Whole));
        let found = extended(&plan, &known, &runtime()).expect("an extended one");
        assert_eq!((found.per, found.triangles.len()), (Per::Whole, fresh.triangles.len()));
        let most = fresh.triangles.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        let worst = found.triangles.iter().zip(&fresh.triangles).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst <= 1e-14 * most, "{n_known} known: {worst} of {most}");
    }
}

#[track_caller]
fn refused(plan: &Plan, known: &Grams, kind: ErrorKind, expected: &str) {
    let error = extended(plan, known, &runtime()).expect_err("refused");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.message().contains(expected), "{expected:?} expected, {error}");
    assert!(error.hint_text().is_some(), "{error}");
}

#[test]
fn files_of_other_inputs_are_refused() {
    let top = tempfile::tempdir().expect("a folder");
    let shapes = shapes(&[&[40, 30], &[50], &[20]]);
    let (base, mut tasks) = values(&shapes, 4, &mut Random(4));
    for task in &mut tasks[..3] {
        task[2] = base[2].clone();
    }
    let plan = write_plan(top.path(), &shapes, &base, &tasks);
    let known = gram(&first(&plan, 3), &runtime(), &Silent).expect("a Gram matrix");
    refused(&first(&plan, 3), &known, ErrorKind::Usage, "no new task");
    refused(&first(&plan, 2), &known, ErrorKind::Rejected, "`task2` expected, none found");
    refused(&of_tasks(&plan, [0, 2, 1, 3]), &known, ErrorKind::Rejected, "`task1` expected, task `task2` found");
    refused(&of_tasks(&plan, [0, 1, 3]), &known, ErrorKind::Rejected, "`task2` expected, task `task3` found");
    let fewer = |pattern: &str| {
        let selection = Selection::all().exclude(pattern).expect("a pattern");
        Plan::new(plan.base.clone(), plan.tasks.clone(), &selection).expect("a plan")
    };
    let name = &plan.tensors[1].name;
    refused(&fewer(&format!("^{name}$")), &known, ErrorKind::Rejected, &format!("2 found, without `{name}`"));

    // Other values under the same names: of a task, of the base, and of a tensor that nobody had moved.
    let with = |name: &str, values: &Values| {
        Checkpoint::open(&write_model(top.path(), name, &shapes, values, 1)).expect("opens")
    };
    let mut other = tasks[1].clone();
    other[1][7] += 0.5;
    let mut of_tasks = plan.tasks.clone();
    of_tasks[1] = Task { name: "task1".into(), checkpoint: with("other", &other) };
    let changed = Plan::new(plan.base.clone(), of_tasks, &Selection::all()).expect("a plan");
    refused(&changed, &known, ErrorKind::Rejected, &format!("task task1, tensor {name}: its data is not what it was"));
    for tensor in 0..3 {
        let mut other = base.clone();
        other[tensor][3] += 0.25;
        let changed = Plan::new(with("other-base", &other), plan.tasks.clone(), &Selection::all()).expect("a plan");
        let name = &plan.tensors[tensor].name;
        refused(&changed, &known, ErrorKind::Rejected, &format!("tensor {name}: its data is not what it was"));
    }
    // The job that takes a Gram file says what to do with one that lacks tasks.
    let error = tvb::ops::same_inputs::check_same_inputs(&plan, &known).expect_err("fewer tasks");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("tvb gram --extend")), "{error}");
}
