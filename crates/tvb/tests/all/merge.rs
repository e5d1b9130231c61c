//! Mergers against plain versions over whole vectors: thresholds and equals, signs, chances, rows, and coded tasks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tvb::Runtime;
use tvb::checkpoint::Checkpoint;
use tvb::columns::plan::Plan;
use tvb::jobs::edit::{EditOutput, Source};
use tvb::jobs::merge::{MergeJob, Method, Over, Rescale, RowWise, TensorSettings, Ties};
use tvb::progress::Silent;
use tvb_kernels::{decode, random_word};
use tvb_tests::small_models::{Random, Shape, Stored, shapes, values, write_model};

/// Values of every tensor, in f32.
pub(crate) type Model = BTreeMap<String, Vec<f32>>;

pub(crate) fn load(path: &Path) -> Model {
    let checkpoint = Checkpoint::open(path).expect("a checkpoint");
    let read = |tensor: &tvb::checkpoint::Tensor| {
        let mut bytes = vec![0; tensor.n_elements() * tensor.dtype.size()];
        checkpoint.read(tensor, 0, &mut bytes).expect("read");
        (tensor.name.clone(), decode(&bytes, tensor.dtype.float().expect("floats")))
    };
    checkpoint.tensors().iter().map(read).collect()
}

/// Base and task vectors of a run.
fn deltas(base: &Path, tasks: &[PathBuf]) -> (Model, Vec<Model>) {
    let base = load(base);
    let delta = |path: &PathBuf| -> Model {
        let model = load(path).into_iter();
        model.map(|(name, own)| (name.clone(), own.iter().zip(&base[&name]).map(|(a, b)| a - b).collect())).collect()
    };
    let tasks = tasks.iter().map(delta).collect();
    (base, tasks)
}

pub(crate) fn runtime() -> Runtime {
    Runtime::on_cpu(2, 256 << 20)
}

/// What differs from one merge to the next.
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) settings: TensorSettings,
    pub(crate) ties: Ties,
    pub(crate) seed: u64,
    pub(crate) only_for: Option<usize>,
}

pub(crate) fn asked(method: Method, n_tasks: usize) -> Asked {
    Asked { method, settings: TensorSettings::new(n_tasks), ties: Ties::Exact, seed: 5, only_for: None }
}

pub(crate) fn job<'a>(
    source: Source<'a>,
    base: &'a Checkpoint,
    asked: &Asked,
    settings: &'a tvb::jobs::merge::SettingsOf<'a>,
    output: &'a EditOutput,
) -> MergeJob<'a> {
    MergeJob {
        source,
        tasks: (0..asked.settings.weight.len()).collect(),
        method: asked.method,
        settings,
        of_models: false,
        with_base: false,
        ties: asked.ties,
        with_guards: false,
        seed: asked.seed,
        only_for: asked.only_for,
        orthogonalise: false,
        base,
        output,
        recipe: "a test".into(),
    }
}

/// Merges originals and answers what came out.
pub(crate) fn merged(folder: &Path, base: &Path, tasks: &[PathBuf], asked: &Asked) -> Model {
    let plan = Plan::open(base, tasks).expect("models");
    let target = folder.join(format!("out-{}.safetensors", asked.method));
    let output = EditOutput::new(&target).existing(tvb::checkpoint::Existing::Replace);
    let settings = |_: &str| Ok(asked.settings.clone());
    let opened = Checkpoint::open(base).expect("a base");
    job(Source::Checkpoints(&plan), &opened, asked, &settings, &output).write(&runtime(), &Silent).expect("merged");
    load(&target)
}

/// Places of a task's values in the order of their magnitudes, the largest first, equal ones as they come.
fn by_size(values: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].abs().total_cmp(&values[*a].abs()));
    order
}

fn only(values: &[f32], places: &[usize]) -> Vec<f32> {
    let mut kept = vec![0.0; values.len()];
    places.iter().for_each(|&at| kept[at] = values[at]);
    kept
}

/// Signs are elected, and the agreeing are averaged with their weights.
fn elected(tasks: &[Vec<f32>], weights: &[f32]) -> Vec<f32> {
    let at = |x: usize| {
        let values: Vec<f32> = tasks.iter().zip(weights).map(|(task, weight)| task[x] * weight).collect();
        let sum: f32 = values.iter().sum();
        let agrees = |value: f32| if sum >= 0.0 { value > 0.0 } else { value < 0.0 };
        let (mut top, mut bottom) = (0.0f32, 0.0f32);
        for (value, weight) in values.iter().zip(weights).filter(|(value, _)| agrees(**value)) {
            top += value;
            bottom += weight;
        }
        if bottom == 0.0 { top } else { top / bottom }
    };
    (0..tasks[0].len()).map(at).collect()
}

fn sum(tasks: &[Vec<f32>], weights: &[f32]) -> Vec<f32> {
    (0..tasks[0].len()).map(|x| tasks.iter().zip(weights).map(|(task, weight)| task[x] * weight).sum()).collect()
}

/// That the difference from the base is what is expected.
#[track_caller]
fn check(found: &Model, base: &Model, expected: impl Fn(&str) -> Vec<f32>, tolerance: f32) {
    for (name, found) in found {
        let expected = expected(name);
        let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let difference = found - base[name][at];
            assert!(
                (difference - expected).abs() <= tolerance * largest + 2e-7,
                "{name}[{at}]: {difference} {expected}"
            );
        }
    }
}

/// Small tensors of every form, and one that is too large for its values to be listed.
fn small_and_large(stored: Stored) -> Vec<Shape> {
    let mut all = shapes(&[&[7], &[33, 65], &[1200, 1100], &[3, 4, 5]]);
    all.iter_mut().for_each(|shape| shape.stored = stored);
    all
}

fn run_of(folder: &Path, stored: Stored, n_tasks: usize) -> (PathBuf, Vec<PathBuf>) {
    let shapes = small_and_large(stored);
    let (base, tasks) = values(&shapes, n_tasks, &mut Random(11));
    let task = |(index, task)| write_model(folder, &format!("task{index}"), &shapes, task, 1);
    (write_model(folder, "base", &shapes, &base, 1), tasks.iter().enumerate().map(task).collect())
}

/// In bf16 many values are equal: exactly the share stays, the first ones of those that are.
#[test]
fn ties_is_trim_elect_and_merge() {
    for stored in [Stored::F32, Stored::Bf16] {
        let folder = tempfile::tempdir().expect("a folder");
        let (base, tasks) = run_of(folder.path(), stored, 3);
        let (weights, density) = ([1.0, 0.5, 2.0], [0.2, 0.5, 1.0]);
        let mut asked = asked(Method::Ties, 3);
        asked.settings.weight = weights.map(f64::from).to_vec();
        asked.settings.density = density.to_vec();
        asked.settings.normalize = true;
        let (theta, tau) = deltas(&base, &tasks);
        let expected = |name: &str| {
            let trim = |(tau, density): (&Model, &f64)| {
                let values = &tau[name];
                let k = ((density * values.len() as f64) as usize).max(1);
                only(values, &by_size(values)[..k])
            };
            elected(&tau.iter().zip(&density).map(trim).collect::<Vec<_>>(), &weights)
        };
        let found = merged(folder.path(), &base, &tasks, &asked);
        let tolerance = if stored == Stored::F32 { 1e-5 } else { 0.2 };
        check(&found, &theta, expected, tolerance);
        if stored == Stored::F32 {
            // One threshold for all tensors, and every value that reaches it.
            (asked.settings.over, asked.ties, asked.settings.density) = (Over::Model, Ties::All, vec![0.1; 3]);
            let cut: Vec<f32> = tau
                .iter()
                .map(|tau| {
                    let all: Vec<f32> = tau.values().flatten().copied().collect();
                    all[by_size(&all)[(0.1 * all.len() as f64) as usize - 1]].abs()
                })
                .collect();
            let expected = |name: &str| {
                let trim = |(tau, cut): (&Model, &f32)| {
                    tau[name].iter().map(|value| if value.abs() >= *cut { *value } else { 0.0 }).collect()
                };
                elected(&tau.iter().zip(&cut).map(trim).collect::<Vec<_>>(), &weights)
            };
            check(&merged(folder.path(), &base, &tasks, &asked), &theta, expected, 1e-5);
        }
    }
}

#[test]
fn breadcrumbs_drops_the_largest_and_the_smallest() {
    for stored in [Stored::F32, Stored::Bf16] {
        let folder = tempfile::tempdir().expect("a folder");
        let (base, tasks) = run_of(folder.path(), stored, 2);
        let mut asked = asked(Method::Breadcrumbs, 2);
        asked.settings.density = vec![0.3, 0.95];
        asked.settings.gamma = vec![0.1, 0.2];
        asked.settings.lambda = 0.5;
        let (theta, tau) = deltas(&base, &tasks);
        let expected = |name: &str| {
            let keep = |(tau, (density, gamma)): (&Model, (&f64, &f64))| {
                let values = &tau[name];
                let n = values.len();
                // From the smallest on, equal ones as they come.
                let mut order: Vec<usize> = (0..n).collect();
                order.sort_by(|a, b| values[*a].abs().total_cmp(&values[*b].abs()));
                let n_kept = (density * n as f64) as usize;
                let n_bottom = (n - n_kept).saturating_sub((gamma * n as f64) as usize);
                only(values, &order[n_bottom..n_bottom + n_kept])
            };
            let pairs = asked.settings.density.iter().zip(&asked.settings.gamma);
            sum(&tau.iter().zip(pairs).map(keep).collect::<Vec<_>>(), &[0.5, 0.5])
        };
        let tolerance = if stored == Stored::F32 { 1e-5 } else { 0.2 };
        check(&merged(folder.path(), &base, &tasks, &asked), &theta, expected, tolerance);
    }
}

#[test]
fn norms_are_kept_and_weights_divided_by() {
    let folder = tempfile::tempdir().expect("a folder");
    let (base, tasks) = run_of(folder.path(), Stored::F32, 2);
    let mut asked = asked(Method::Magnitude, 2);
    asked.settings.density = vec![0.4, 0.7];
    asked.settings.weight = vec![1.0, 3.0];
    asked.settings.normalize = true;
    asked.settings.rescale = Rescale::L1;
    let (theta, tau) = deltas(&base, &tasks);
    let norm = |values: &[f32]| values.iter().map(|value| f64::from(value.abs())).sum::<f64>();
    let expected = |name: &str| {
        let trim = |(tau, density): (&Model, &f64)| -> Vec<f32> {
            let values = &tau[name];
            let kept = only(values, &by_size(values)[..((density * values.len() as f64) as usize).max(1)]);
            let factor = norm(values) / norm(&kept);
            kept.iter().map(|value| (f64::from(*value) * factor) as f32).collect()
        };
        sum(&tau.iter().zip(&asked.settings.density).map(trim).collect::<Vec<_>>(), &[0.25, 0.75])
    };
    check(&merged(folder.path(), &base, &tasks, &asked), &theta, expected, 1e-5);
}

#[test]
fn sce_selects_calculates_and_erases() {
    let folder = tempfile::tempdir().expect("a folder");
    let (base, tasks) = run_of(folder.path(), Stored::F32, 3);
    let mut asked = asked(Method::Sce, 3);
    asked.settings.select_topk = 0.25;
    let (theta, tau) = deltas(&base, &tasks);
    let expected = |name: &str| {
        let tau: Vec<&Vec<f32>> = tau.iter().map(|tau| &tau[name]).collect();
        let n = tau[0].len();
        let variance = |x: usize| {
            let mean = tau.iter().map(|tau| tau[x]).sum::<f32>() / 3.0;
            tau.iter().map(|tau| (tau[x] - mean) * (tau[x] - mean)).sum::<f32>() / 3.0
        };
        let variances: Vec<f32> = (0..n).map(variance).collect();
        let chosen = &by_size(&variances)[..(0.25 * n as f64) as usize];
        let kept: Vec<Vec<f32>> = tau.iter().map(|tau| only(tau, chosen)).collect();
        let square = |values: &Vec<f32>| values.iter().map(|value| value * value).sum::<f32>();
        let total: f32 = kept.iter().map(square).sum();
        let shares: Vec<f32> =
            kept.iter().map(|kept| if total > 0.0 { square(kept) / total } else { 1.0 / 3.0 }).collect();
        let at = |x: usize| {
            let sum: f32 = kept.iter().map(|kept| kept[x]).sum();
            let agrees = |value: f32| if sum >= 0.0 { value > 0.0 } else { value < 0.0 };
            let own = || kept.iter().zip(&shares).filter(|(kept, _)| agrees(kept[x]));
            let bottom: f32 = own().map(|(_, share)| share).sum();
            if bottom > 0.0 { own().map(|(kept, share)| kept[x] * share).sum::<f32>() / bottom } else { 0.0 }
        };
        (0..n).map(at).collect()
    };
    check(&merged(folder.path(), &base, &tasks, &asked), &theta, expected, 1e-4);
}

/// The share that falls, the scale of what stays, and the same values whatever the threads.
#[test]
fn dare_and_della_drop_by_chance() {
    let folder = tempfile::tempdir().expect("a folder");
    let (base, tasks) = run_of(folder.path(), Stored::F32, 2);
    let (theta, tau) = deltas(&base, &tasks);
    for method in [Method::DareLinear, Method::DellaLinear] {
        let mut asked = asked(method, 2);
        asked.settings.density = vec![0.3, 0.3];
        asked.settings.epsilon = vec![0.1, 0.1];
        asked.settings.weight = vec![1.0, 0.0];
        asked.settings.rescale = Rescale::Chance;
        let found = merged(folder.path(), &base, &tasks, &asked);
        let name = "t2";
        let n = tau[0][name].len() as f64;
        let differences = || found[name].iter().zip(&theta[name]).map(|(found, base)| f64::from(found - base));
        let n_kept = differences().filter(|difference| *difference != 0.0).count() as f64;
        assert!((n_kept - 0.3 * n).abs() < 5.0 * (0.21 * n).sqrt(), "{method}: {n_kept} of {n}");
        // What stays makes up for what falls: the mean of each value is itself.
        let (mut product, mut square) = (0.0, 0.0);
        for (difference, tau) in differences().zip(&tau[0][name]) {
            product += difference * f64::from(*tau);
            square += f64::from(*tau) * f64::from(*tau);
        }
        assert!((product / square - 1.0).abs() < 0.02, "{method}: {}", product / square);
        if method == Method::DellaLinear {
            // Of each row's larger half more stay: 0.35 on average, and 0.25 of the smaller.
            let (mut large, mut all) = (0.0, 0.0);
            for (row, tau) in tau[0][name].chunks(1100).enumerate() {
                for &at in &by_size(tau)[..550] {
                    all += 1.0;
                    large += f64::from(u8::from(found[name][row * 1100 + at] != theta[name][row * 1100 + at]));
                }
            }
            assert!((large / all - 0.35).abs() < 0.005, "{}", large / all);
        }
        assert!(found == merged(folder.path(), &base, &tasks, &asked));
        asked.seed += 1;
        assert!(found != merged(folder.path(), &base, &tasks, &asked));
    }
    assert_ne!(random_word(1, 2), random_word(2, 1));
}

#[test]
fn masks_of_tasks_and_the_unified_vector() {
    let folder = tempfile::tempdir().expect("a folder");
    let (base, tasks) = run_of(folder.path(), Stored::F32, 3);
    let (theta, tau) = deltas(&base, &tasks);
    let whole = |name: &str| sum(&tau.iter().map(|tau| tau[name].clone()).collect::<Vec<_>>(), &[1.0; 3]);
    let needs =
        |name: &str, task: usize, x: usize, all: f32| tau[task][name][x].abs() > 0.4 * (all - tau[task][name][x]).abs();
    let consensus = |name: &str| {
        let all = whole(name);
        (0..all.len())
            .map(|x| if (0..3).filter(|&task| needs(name, task, x, all[x])).count() >= 2 { all[x] } else { 0.0 })
            .collect()
    };
    check(&merged(folder.path(), &base, &tasks, &asked(Method::Consensus, 3)), &theta, consensus, 1e-5);
    let tall = |name: &str| {
        let all = whole(name);
        (0..all.len()).map(|x| if needs(name, 1, x, all[x]) { all[x] } else { 0.0 }).collect()
    };
    let of_tall = Asked { only_for: Some(1), ..asked(Method::Tall, 3) };
    check(&merged(folder.path(), &base, &tasks, &of_tall), &theta, tall, 1e-5);
    let unified = |name: &str| -> Vec<f32> {
        let all = whole(name);
        let at = |x: usize| {
            let agrees = |value: f32| if all[x] >= 0.0 { value > 0.0 } else { value < 0.0 };
            let own = tau.iter().map(|tau| tau[name][x]).filter(|value| agrees(*value));
            own.fold(0.0f32, |most, value| if value.abs() > most.abs() { value } else { most })
        };
        (0..all.len()).map(at).collect()
    };
    check(&merged(folder.path(), &base, &tasks, &asked(Method::Emr, 3)), &theta, unified, 1e-5);
    // One task's part keeps that task's L1 norm over the model.
    let mut all = Model::new();
    for name in theta.keys() {
        let masked = unified(name)
            .iter()
            .zip(&tau[2][name])
            .map(|(uni, own)| if uni * own > 0.0 { *uni } else { 0.0 })
            .collect();
        all.insert(name.clone(), masked);
    }
    let norm = |model: &Model| model.values().flatten().map(|value| f64::from(value.abs())).sum::<f64>();
    let factor = (norm(&tau[2]) / norm(&all)) as f32;
    let of_task = |name: &str| all[name].iter().map(|value| value * factor).collect();
    let for_task = Asked { only_for: Some(2), ..asked(Method::Emr, 3) };
    check(&merged(folder.path(), &base, &tasks, &for_task), &theta, of_task, 1e-5);
}

#[test]
fn weights_by_inner_products_and_by_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let (base, tasks) = run_of(folder.path(), Stored::F32, 2);
    let (theta, tau) = deltas(&base, &tasks);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let stock = |a: &[f32], b: &[f32]| -> Vec<f32> {
        let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        let t = 2.0 * cosine / (1.0 + cosine);
        a.iter().zip(b).map(|(a, b)| (t / 2.0 * f64::from(a + b)) as f32).collect()
    };
    let whole = |name: &str| stock(&tau[0][name], &tau[1][name]);
    check(&merged(folder.path(), &base, &tasks, &asked(Method::ModelStock, 2)), &theta, whole, 1e-5);
    let lengths: BTreeMap<&str, usize> = [("t0", 7), ("t1", 65), ("t2", 1100), ("t3", 5)].into();
    let by_row = |name: &str| {
        let rows = tau[0][name].chunks(lengths[name]).zip(tau[1][name].chunks(lengths[name]));
        rows.flat_map(|(a, b)| stock(a, b)).collect()
    };
    let mut rows = asked(Method::ModelStock, 2);
    rows.settings.rows = RowWise::Rows;
    check(&merged(folder.path(), &base, &tasks, &rows), &theta, by_row, 1e-5);
    // Along the columns of a matrix.
    let slerp = |a: &[f32], b: &[f32], t: f64| -> Vec<f32> {
        let theta = (dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).acos();
        let (of_a, of_b) = (((1.0 - t) * theta).sin() / theta.sin(), (t * theta).sin() / theta.sin());
        a.iter().zip(b).map(|(a, b)| (of_a * f64::from(*a) + of_b * f64::from(*b)) as f32).collect()
    };
    let mut columns = asked(Method::NuSlerp, 2);
    columns.settings.rows = RowWise::Columns;
    columns.settings.weight = vec![1.0, 3.0];
    let found = merged(folder.path(), &base, &tasks, &columns);
    let width = 65;
    for column in [0, 17, 64] {
        let own = |values: &[f32]| values.iter().skip(column).step_by(width).copied().collect::<Vec<f32>>();
        let expected = slerp(&own(&tau[0]["t1"]), &own(&tau[1]["t1"]), 0.75);
        for ((found, base), expected) in own(&found["t1"]).iter().zip(own(&theta["t1"])).zip(&expected) {
            assert!((found - base - expected).abs() < 1e-6, "{found} {base} {expected}");
        }
    }
}
