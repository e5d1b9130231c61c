//! Eigendecompositions on the device that a job runs on: the same answers as the solvers' own, also where a device fails, and none of
//! them done on the host in secret.

use crate::gpu_device::{Notes, test_gpu, write_plan};
use tvb::basis::Basis;
use tvb::jobs::compress::{CompressOptions, compress};
use tvb::jobs::spectra::find_spectra;
use tvb::jobs::tensor_spectra::{TensorSpectra, tensor_spectra_of_basis, tensor_spectra_of_grams};
use tvb::matrix::Matrix;
use tvb::ops::gram::gram;
use tvb::pass::Runtime;
use tvb::solve::{Assessment, Gram, Method, SolveOptions, assess, solve, wanted_spectra};
use tvb_kernels::{CpuEngine, DeviceSetup, Engine, InjectedFault};
use tvb_tests::small_models::{Random, Shape, Stored, values};

/// Gram matrices of n tasks in so many dimensions; n, and what they are called.
fn grams() -> Vec<(&'static str, Gram)> {
    let of = |n: usize, n_rows: usize, entry: &dyn Fn(usize, usize) -> f64| {
        let inner = |i: usize, j: usize| (0..n_rows).map(|x| entry(x, i) * entry(x, j)).sum::<f64>();
        Gram::new(Matrix::from_fn(n, n, |i, j| inner(i.min(j), i.max(j)))).expect("a Gram matrix")
    };
    let wave = |x: usize, t: usize| ((13 * x + 7 * t * t + 3 * x * t) as f64 * 0.37).sin();
    let length = |t: usize| 10f64.powf(-(t as f64) / 4.0);
    vec![
        ("two tasks", of(2, 30, &wave)),
        ("plain", of(9, 60, &wave)),
        ("alike", of(20, 60, &|x, t| (x as f64).cos() + 0.3 * wave(x, t))),
        ("rank 4", of(20, 4, &wave)),
        ("lengths 1e4 apart", of(17, 60, &|x, t| length(t) * wave(x, t))),
        ("orthogonal", of(12, 12, &|x, t| f64::from(u8::from(x == t)))),
        ("large", of(40, 120, &wave)),
        ("zero", of(5, 1, &|_, _| 0.0)),
    ]
}

/// All that a solution loses.
fn errors(found: &Assessment) -> Vec<f64> {
    let all = [found.mean, found.worst, found.projected.cosine];
    all.iter().chain(&found.gains).chain(&found.noises).copied().collect()
}

#[test]
fn methods_find_the_same_on_a_gpu() {
    let Some((engine, _turn)) = test_gpu(DeviceSetup::default()) else { return };
    let (gpu, cpu) = (Engine::Gpu(engine.clone()), Engine::Cpu(CpuEngine::new()));
    assert!(gpu.decomposes(2) && gpu.decomposes(64) && !gpu.decomposes(1) && !cpu.decomposes(20));
    let methods =
        ["anchored", "exact", "pca", "sample", "cluster", "nmf"].map(|name| Method::parse(name).expect("known"));
    for (name, given) in grams() {
        let n = given.n_tasks();
        let own = given.clone();
        for balance in [false, true] {
            let n_wanted = wanted_spectra(&given, &methods, balance, true).len();
            assert!(n_wanted > 0, "{name}: nothing is wanted");
            assert_eq!(find_spectra(&given, &methods, (balance, true), &gpu), None, "{name}");
            assert!(wanted_spectra(&given, &methods, balance, true).is_empty(), "{name}: not given");
            assert_eq!(find_spectra(&own, &methods, (balance, true), &cpu), None, "{name}");
            for method in &methods {
                // Where eigenvalues are the same on both sides of M, any of their vectors are as good.
                let n_atoms = if n > 20 { 5 } else { n.div_ceil(2) };
                let options = SolveOptions { balance, ..SolveOptions::atoms(n_atoms) };
                let solved = |gram: &Gram| {
                    let found = solve(gram, method, &options, &|_| true).expect("solved");
                    let is_searched = found.notes.iter().any(|note| note.contains("numerical search"));
                    (assess(gram, &found).expect("assessed"), is_searched)
                };
                let ((found, is_searched), (expected, _)) = (solved(&given), solved(&own));
                let what = format!("{name}, {}, balance {balance}", method.name());
                let bounds = [found.spectral_bound, expected.spectral_bound];
                assert!((bounds[0] - bounds[1]).abs() <= 1e-13 * given.trace() / (n * n) as f64, "{what}: {bounds:?}");
                // A search goes its own way from the last bits on, and ends where it gains less than a millionth.
                let most = if is_searched { 1e-4 } else { 1e-8 };
                assert!(
                    (found.loss - expected.loss).abs() <= most * given.trace() / (n * n) as f64,
                    "{what}: {} {}",
                    found.loss,
                    expected.loss
                );
                if is_searched || name == "orthogonal" {
                    continue;
                }
                for (at, (found, expected)) in errors(&found).iter().zip(errors(&expected)).enumerate() {
                    assert!((found - expected).abs() <= 1e-6, "{what}: error {at}: {found} {expected}");
                }
            }
        }
        let (found, expected) = (given.spectrum(), own.spectrum());
        for (found, expected) in found.values.iter().zip(&expected.values) {
            assert!((found - expected).abs() <= 1e-10 * given.trace(), "{name}: {found} {expected}");
        }
    }
    assert_eq!(engine.n_eigh_on_host(), 0, "done on the host");
}

#[test]
fn a_device_that_fails_costs_no_solve() {
    let Some((engine, _turn)) = test_gpu(DeviceSetup::default()) else { return };
    let gpu = Engine::Gpu(engine.clone());
    let (_, undisturbed) = grams().swap_remove(2);
    let methods = [Method::Pca];
    let fresh = || Gram::new(undisturbed.matrix().clone()).expect("a Gram matrix");
    assert_eq!(find_spectra(&undisturbed, &methods, (false, false), &gpu), None);
    // Lost: reopened, and the same bits.
    engine.inject_fault(1, InjectedFault::Lost);
    let gram = fresh();
    let said = find_spectra(&gram, &methods, (false, false), &gpu).expect("a warning");
    assert!(said.contains("was reopened"), "{said}");
    assert_eq!(gram.spectrum(), undisturbed.spectrum());
    assert_eq!(engine.check(), Ok(()));
}

#[test]
fn every_tensor_has_its_spectrum() {
    let top = tempfile::tempdir().expect("a folder");
    let shape = |name: &str, shape: &[usize]| Shape { name: name.into(), shape: shape.to_vec(), stored: Stored::F32 };
    let shapes = [shape("wide", &[40, 50]), shape("alike", &[30, 20]), shape("still", &[9])];
    let (base, mut tasks) = values(&shapes, 4, &mut Random(5));
    // The same change for all in one tensor, none in another.
    let first = tasks[0][1].clone();
    for task in &mut tasks {
        task[1].clone_from(&first);
        task[2].clone_from(&base[2]);
    }
    let plan = write_plan(top.path(), &shapes, &base, &tasks);
    let (runtime, notes) = (Runtime::on_cpu(2, 64 << 20), Notes::default());
    let grams = gram(&plan, &runtime, &notes).expect("Gram matrices");
    let options = CompressOptions::mixtures(top.path().join("basis")).method(Method::Pca).atoms(2);
    let basis: Basis = compress(&plan, &options, &runtime, &notes).expect("a basis").basis;
    let cpu = Engine::Cpu(CpuEngine::new());
    let check = |found: &TensorSpectra| {
        assert_eq!((found.n_decomposed, &found.warning), (2, &None));
        let share: f64 = found.tensors.iter().map(|tensor| tensor.share).sum();
        assert!((share - 1.0).abs() < 1e-12);
        let of = |name: &str| found.tensors.iter().find(|tensor| tensor.tensor == name).expect("a tensor that moves");
        assert!((of("alike").effective_rank.expect("found") - 1.0).abs() < 1e-5);
        assert!((of("alike").first_share.expect("found") - 1.0).abs() < 1e-5);
        assert!(of("wide").effective_rank.expect("found") > 1.5);
        assert!(found.tensors.iter().all(|tensor| tensor.tensor != "still"));
        assert!(found.tensors.is_sorted_by(|a, b| a.share >= b.share));
    };
    let of_grams = tensor_spectra_of_grams(&grams, &cpu).expect("by tensor");
    check(&of_grams);
    assert_eq!(tensor_spectra_of_basis(&basis, &cpu), Some(of_grams.clone()));
    let Some((engine, _turn)) = test_gpu(DeviceSetup::default()) else { return };
    let on_gpu = tensor_spectra_of_basis(&basis, &Engine::Gpu(engine.clone())).expect("by tensor");
    check(&on_gpu);
    assert_eq!(engine.n_eigh_on_host(), 0, "done on the host");
    for (found, expected) in on_gpu.tensors.iter().zip(&of_grams.tensors) {
        let (found, expected) = (found.effective_rank.expect("found"), expected.effective_rank.expect("found"));
        assert!((found - expected).abs() < 1e-9, "{found} {expected}");
    }
    // A device that stays broken: the CPU's answer, and a word.
    engine.inject_fault(1, InjectedFault::OutOfMemory);
    let broken = tensor_spectra_of_basis(&basis, &Engine::Gpu(engine)).expect("by tensor");
    assert!(broken.warning.as_ref().is_some_and(|said| said.contains("out of memory")), "{:?}", broken.warning);
}
