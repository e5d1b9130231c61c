//! How good codes are: what the manifest says of gain and noise is what is found on the data, at every size of numbers.

use super::models::{Kind, ODD, coded, kind, options, plan, runtime, values_of, words, write, write_models};
use std::path::Path;
use tvb::ErrorKind;
use tvb::basis::Basis;
use tvb::checkpoint::{Checkpoint, Existing};
use tvb::columns::plan::{Plan, Selection, Task};
use tvb::jobs::compress::{CompressOptions, compress};
use tvb::jobs::edit::{Edit, EditJob, EditOutput, Source};
use tvb::jobs::recover::{RecoverOptions, recover};
use tvb::jobs::verify::{verify_errors, verify_files};
use tvb::progress::Silent;
use tvb_kernels::{Dtype, Rate};
use tvb_tests::small_models::{Random, Stored, shapes, values, write_model};

/// Whether what the manifest says of every task is what a look at the originals finds. The coder's noise is that of whole
/// blocks: in a tensor's last panel it counts what is missing there, `padding` of all elements.
#[track_caller]
fn check_measured(basis: &Basis, plan: &Plan, padding: f64, case: &str) {
    let checks = verify_files(basis, &runtime(), &Silent).expect("an answer");
    assert!(checks.iter().all(|check| check.damage.is_none()), "{case}: {checks:?}");
    let found = verify_errors(basis, plan, &runtime(), &Silent).expect("errors");
    for (task, found) in basis.manifest.tasks.iter().zip(found) {
        let (gain, noise) = (task.gain.expect("a gain"), task.noise.expect("a noise"));
        let Some(found_gain) = found.gain else { continue };
        let found_noise = found.measured - (1.0 - found_gain).powi(2);
        assert!((gain - found_gain).abs() < 1e-5, "{case}, {}: gain {gain}, {found_gain} found", task.name);
        let more = noise - found_noise;
        assert!(
            (-1e-5..1e-5 + 2.0 * padding * noise).contains(&more),
            "{case}, {}: noise {noise}, {found_noise} found",
            task.name
        );
        let recorded = task.relative_error.expect("an error");
        assert!((recorded - found.measured).abs() < 2e-5 + 2.0 * padding * noise, "{case}, {}", task.name);
    }
}

#[test]
fn gain_and_noise_are_what_verify_finds() {
    let whole: &[Kind] = &[kind("a", &[100, 256], Dtype::F32, 0.1), kind("b", &[7, 1024], Dtype::F32, 0.02)];
    for (name, kinds, padding) in [("whole", whole, 0.0), ("odd", ODD, 0.01)] {
        let top = tempfile::tempdir().expect("a folder");
        let plan = plan(&write_models(top.path(), kinds, 4, 11));
        for (index, rate) in Rate::ALL.into_iter().enumerate() {
            for kept in [None, Some(Rate::Eight)] {
                let folder = top.path().join(format!("{index}{}", kept.is_some()));
                let basis = coded(&plan, &folder, &words(rate, kept, &[])).basis;
                check_measured(&basis, &plan, padding, &format!("{name} {}", rate.name()));
                for task in &basis.manifest.tasks {
                    let (gain, noise) = (task.gain.expect("a gain"), task.noise.expect("a noise"));
                    let case = format!("{name} {}: gain {gain}, noise {noise}", rate.name());
                    assert!(noise < 1.3 * rate.noise() + 1e-4, "{case}");
                    if kept.is_none() {
                        assert!((gain - 1.0).abs() < 0.01 && noise > 0.5 * rate.noise() - 1e-4, "{case}");
                    }
                }
            }
        }
    }
}

/// A run whose deltas are as given, over a base of zeros: one matrix and one vector in each.
fn run_of(folder: &Path, deltas: &[Vec<f64>], shape: &[usize], dtype: Dtype) -> Plan {
    let n: usize = shape.iter().product();
    let mut paths = Vec::new();
    for (index, matrix) in std::iter::once(&vec![0.0; n]).chain(deltas).enumerate() {
        let name = if index == 0 { "base".to_owned() } else { format!("t{}", index - 1) };
        let path = folder.join(format!("{name}.safetensors"));
        let vector = matrix.iter().take(3).copied().collect();
        write(&path, &[("w".into(), dtype, shape.to_vec(), matrix.clone()), ("v".into(), dtype, vec![3], vector)]);
        paths.push(path);
    }
    plan(&paths)
}

fn noise(n: usize, seed: u64, size: f64) -> Vec<f64> {
    let mut random = Random(seed);
    (0..n).map(|_| size * f64::from(random.value())).collect()
}

/// Recovers every task and adds them all up, as checkpoints and as bare edits; answers the tasks' `w`.
#[track_caller]
fn use_all(basis: &Basis, plan: &Plan, top: &Path, case: &str) -> Vec<Vec<f64>> {
    let n_tasks = basis.n_tasks();
    for base in [Some(&plan.base), None] {
        let edit = Edit::new(vec![1.0; n_tasks], 0.5);
        let output = EditOutput::new(top.join("sum.safetensors")).delta(base.is_none()).existing(Existing::Replace);
        let job = EditJob { source: Source::Basis(basis), edit: &edit, base, output: &output };
        job.write(&runtime(), &Silent).unwrap_or_else(|error| panic!("{case}: {error}"));
    }
    let options = RecoverOptions::new((0..n_tasks).collect(), top.join("tasks")).existing(Existing::Replace);
    let written = recover(basis, None, &options, &runtime(), &Silent).unwrap_or_else(|error| panic!("{case}: {error}"));
    written.written.iter().map(|path| values_of(path).remove("w").unwrap_or_default()).collect()
}

#[test]
fn huge_tiny_and_constant_deltas_come_back() {
    let n = 70 * 129;
    let constant = |value: f64| vec![value; n];
    let mut spike = vec![0.0; n];
    spike[1234] = 1e15;
    let runs: [(&str, Vec<Vec<f64>>); 9] = [
        ("huge", vec![noise(n, 1, 1e15), noise(n, 2, 1e15)]),
        ("tiny", vec![noise(n, 1, 1e-30), noise(n, 2, 1e-30)]),
        ("huge and tiny", vec![noise(n, 1, 1e15), noise(n, 2, 1e-15)]),
        ("constant", vec![constant(0.5), constant(-3.0)]),
        ("a spike", vec![spike, noise(n, 2, 1.0)]),
        ("one task", vec![noise(n, 3, 0.1)]),
        ("alike", vec![noise(n, 3, 0.1), noise(n, 3, 0.1)]),
        ("opposite", vec![noise(n, 3, 0.1), noise(n, 3, -0.1)]),
        ("one of three zero", vec![noise(n, 4, 0.1), constant(0.0), noise(n, 5, 0.1)]),
    ];
    for (case, deltas) in runs {
        let top = tempfile::tempdir().expect("a folder");
        let plan = run_of(top.path(), &deltas, &[70, 129], Dtype::F32);
        for rate in [Rate::Signs, Rate::Three, Rate::Sixteen, Rate::TwoFiveSix] {
            let folder = top.path().join("basis");
            let options = options(&plan, &folder, &words(rate, Some(Rate::Sixteen), &[])).existing(Existing::Replace);
            let made = compress(&plan, &options, &runtime(), &Silent);
            let basis = made.unwrap_or_else(|error| panic!("{case}: {error}")).basis;
            assert!(!std::fs::read_to_string(folder.join("basis.json")).expect("read").contains("NaN"));
            for (task, (found, delta)) in use_all(&basis, &plan, top.path(), case).iter().zip(&deltas).enumerate() {
                assert_eq!(found.len(), n, "{case}");
                let (mut product, mut energy, mut error) = (0.0, 0.0, 0.0);
                for (found, delta) in found.iter().zip(delta) {
                    product += found * delta;
                    energy += delta * delta;
                    error += (found - delta) * (found - delta);
                }
                if energy == 0.0 {
                    // What the others lack of the sum is shared by all.
                    continue;
                }
                let case = format!("{case}, task {task}, {} bits", rate.name());
                let (gain, relative) = (product / energy, error / energy);
                // What the sum's column has of the others' noise is shared by all: a small task beside a large one feels it.
                let mean = deltas.iter().flatten().map(|delta| delta * delta).sum::<f64>() / deltas.len() as f64;
                let felt = mean / energy / deltas.len() as f64;
                let bound = 2.0 * rate.noise() * (1.0 + felt) + 0.02;
                assert!((gain - 1.0).abs() < bound.sqrt().max(0.3), "{case}: gain {gain}");
                assert!(relative < bound, "{case}: {relative}");
            }
        }
    }
}

#[test]
fn tasks_none_of_which_moved_make_a_basis_of_nothing() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = run_of(top.path(), &[vec![0.0; 600], vec![0.0; 600]], &[2, 300], Dtype::F32);
    let basis = coded(&plan, &top.path().join("basis"), &words(Rate::Four, Some(Rate::Eight), &[])).basis;
    assert_eq!((basis.manifest.stored.tensors.len(), basis.manifest.frozen.len()), (0, 2));
    let checks = verify_files(&basis, &runtime(), &Silent).expect("an answer");
    assert!(checks.iter().all(|check| check.damage.is_none()), "{checks:?}");
    let edit = Edit::new(vec![1.0; 2], 1.0);
    let target = top.path().join("sum.safetensors");
    let output = EditOutput::new(&target);
    let job = EditJob { source: Source::Basis(&basis), edit: &edit, base: Some(&plan.base), output: &output };
    job.write(&runtime(), &Silent).expect("an edit");
    assert_eq!(values_of(&target), values_of(&top.path().join("base.safetensors")));
}

#[test]
fn every_type_of_input_is_coded() {
    let top = tempfile::tempdir().expect("a folder");
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::F64] {
        let folder = top.path().join(format!("{dtype:?}"));
        std::fs::create_dir(&folder).expect("a folder");
        let kinds: &[Kind] = &[
            Kind { dtype, ..kind("w", &[90, 256], Dtype::F32, 0.1) },
            Kind { dtype, ..kind("v", &[40], Dtype::F32, 0.1) },
        ];
        let plan = plan(&write_models(&folder, kinds, 3, 21));
        let basis = coded(&plan, &folder.join("basis"), &words(Rate::Sixteen, Some(Rate::Four), &["t0 - t1"])).basis;
        check_measured(&basis, &plan, 0.0, &format!("{dtype:?}"));
        use_all(&basis, &plan, &folder, &format!("{dtype:?}"));
    }
}

#[test]
fn sharded_folders_are_coded_like_single_files() {
    let top = tempfile::tempdir().expect("a folder");
    let mut all = shapes(&[&[300, 70], &[50], &[129, 65], &[20, 20]]);
    all.iter_mut().for_each(|shape| shape.stored = Stored::Bf16);
    let (base, tasks) = values(&all, 3, &mut Random(5));
    let files: Vec<_> = [1, 3]
        .into_iter()
        .map(|n_shards| {
            let name = |name: &str| format!("{name}-{n_shards}");
            let open = |values, what: &str| {
                Checkpoint::open(&write_model(top.path(), &name(what), &all, values, n_shards)).expect("a checkpoint")
            };
            let task =
                |(index, values)| Task { name: format!("t{index}"), checkpoint: open(values, &format!("t{index}")) };
            let tasks = tasks.iter().enumerate().map(task).collect();
            let plan = Plan::new(open(&base, "base"), tasks, &Selection::default()).expect("a plan");
            let folder = top.path().join(name("basis"));
            coded(&plan, &folder, &words(Rate::Four, Some(Rate::Eight), &[]));
            ["atom-00", "atom-02", "atom-03"]
                .map(|atom| std::fs::read(folder.join(format!("{atom}.safetensors"))).expect("an atom"))
        })
        .collect();
    // The same values in another order of tensors: the bytes are of the same number.
    assert_eq!(files[0].each_ref().map(Vec::len), files[1].each_ref().map(Vec::len));
}

#[test]
fn deltas_that_are_not_finite_name_task_and_tensor() {
    let top = tempfile::tempdir().expect("a folder");
    let n = 30 * 300;
    for (case, value) in
        [("nan", f64::NAN), ("infinite", f64::INFINITY), ("too large", 3e38), ("squares too large", 1e30)]
    {
        for (name, at) in [("w", 4000), ("v", 1)] {
            let folder = top.path().join(format!("{case}-{name}"));
            std::fs::create_dir(&folder).expect("a folder");
            let mut deltas = vec![noise(n, 1, 0.1), noise(n, 2, 0.1)];
            if name == "v" && case.contains("too large") {
                continue;
            }
            // `v` is a copy of the first elements of `w`.
            deltas[1][at] = value;
            let mut plan = run_of(&folder, &deltas, &[30, 300], Dtype::F32);
            if name == "v" {
                let only = Selection::all().include("v").expect("a pattern");
                plan = Plan::new(plan.base.clone(), plan.tasks.clone(), &only).expect("a plan");
            }
            let output = folder.join("basis");
            let options: CompressOptions = options(&plan, &output, &words(Rate::Four, Some(Rate::Eight), &[]));
            let error = compress(&plan, &options, &runtime(), &Silent).expect_err(case);
            assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
            assert!(
                error.message().contains("t1") && error.message().replace('`', "").contains(&format!("tensor {name}")),
                "{case}: {error}"
            );
            assert_eq!(error.message().lines().count(), 1);
            assert!(!output.exists() && !folder.join("basis.partial").exists(), "{case}");
        }
    }
}
