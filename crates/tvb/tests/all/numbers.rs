//! Numbers at the ends of their formats: values that overflow, deltas too small or too large to be squared in f32, weights
//! beyond f32, tasks that did not move, and memory caps that are too low.

use std::path::{Path, PathBuf};
use tvb::ErrorKind;
use tvb::basis::Basis;
use tvb::checkpoint::Checkpoint;
use tvb::columns::plan::{Plan, Selection, Task};
use tvb::jobs::compress::{CompressOptions, compress};
use tvb::jobs::edit::{Edit, EditJob, EditOutput, Source};
use tvb::jobs::gram::make_gram_file;
use tvb::jobs::interop::{ExportOptions, export_basis};
use tvb::jobs::recover::{RecoverOptions, recover};
use tvb::jobs::verify::{verify_errors, verify_files};
use tvb::ops::gram::gram;
use tvb::ops::range::Clipped;
use tvb::pass::{Runtime, least_bytes};
use tvb::progress::Silent;
use tvb::solve::{Coordinates, Method};
use tvb_kernels::Dtype;

pub(crate) fn runtime() -> Runtime {
    Runtime::on_cpu(2, 64 << 20)
}

/// One tensor's values and how they are stored.
type Tensor = (&'static str, Dtype, Vec<f64>);

/// A checkpoint of vectors.
fn write(path: &Path, tensors: &[Tensor]) -> Checkpoint {
    let stored: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, dtype, values)| {
            let exact: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            tvb_kernels::convert(&exact, Dtype::F64, *dtype)
        })
        .collect();
    let views = tensors.iter().zip(&stored).map(|((name, dtype, values), bytes)| {
        let dtype = match dtype {
            Dtype::F64 => safetensors::Dtype::F64,
            Dtype::F32 => safetensors::Dtype::F32,
            Dtype::F16 => safetensors::Dtype::F16,
            Dtype::Bf16 => safetensors::Dtype::BF16,
        };
        (*name, safetensors::tensor::TensorView::new(dtype, vec![values.len()], bytes).expect("a tensor"))
    });
    let bytes = safetensors::serialize(views.collect::<Vec<_>>(), None).expect("a safetensors file");
    std::fs::write(path, bytes).expect("written");
    Checkpoint::open(path).expect("a checkpoint")
}

pub(crate) fn read(checkpoint: &Checkpoint, name: &str) -> Vec<f64> {
    let tensor = checkpoint.get(name).expect("a tensor");
    let mut bytes = vec![0; tensor.n_bytes() as usize];
    checkpoint.read(tensor, 0, &mut bytes).expect("read");
    let exact = tvb_kernels::convert(&bytes, tensor.dtype.float().expect("a float"), Dtype::F64);
    exact.as_chunks::<8>().0.iter().map(|raw| f64::from_le_bytes(*raw)).collect()
}

fn plan(base: Checkpoint, tasks: Vec<Checkpoint>) -> Plan {
    let names = ["a", "b", "c", "d", "e"];
    let task = |(checkpoint, name): (Checkpoint, &&str)| Task { name: (*name).into(), checkpoint };
    Plan::new(base, tasks.into_iter().zip(&names).map(task).collect(), &Selection::default()).expect("a plan")
}

pub(crate) fn edit(alpha: &[f64], scale: f64) -> Edit {
    Edit::new(alpha.to_vec(), scale)
}

/// Numbers that repeat, from −1 to 1.
pub(crate) fn wave(n: usize, seed: usize) -> Vec<f64> {
    (0..n).map(|row| f64::from(((row * 37 + seed * 101) % 199) as f32 / 99.0 - 1.0)).collect()
}

/// A run of one f32 tensor at 0 and tasks at the given deltas.
pub(crate) fn run_of_deltas(folder: &Path, deltas: &[Vec<f64>]) -> Plan {
    let n = deltas[0].len();
    let base = write(&folder.join("base.safetensors"), &[("w", Dtype::F32, vec![0.0; n])]);
    let task = |(index, delta): (usize, &Vec<f64>)| {
        write(&folder.join(format!("{index}.safetensors")), &[("w", Dtype::F32, delta.clone())])
    };
    plan(base, deltas.iter().enumerate().map(task).collect())
}

#[test]
fn values_beyond_their_type_are_counted_or_clipped() {
    let top = tempfile::tempdir().expect("a folder");
    let n = 20_000;
    let mut moved = wave(n, 1);
    (moved[3], moved[17_000], moved[19_999]) = (60_000.0, -60_000.0, 50_000.0);
    let rest = vec![1.0, 70_000.0, -1e20, f64::NEG_INFINITY];
    let tensors = |w: &[f64]| [("w", Dtype::F16, w.to_vec()), ("mask", Dtype::F32, rest.clone())];
    let base = write(&top.path().join("base.safetensors"), &tensors(&vec![0.0; n]));
    let tuned = write(&top.path().join("tuned.safetensors"), &tensors(&moved));
    // The mask is infinite and did not move: it takes no part.
    let selection = Selection::default().exclude("mask").expect("a pattern");
    let plan = Plan::new(base, vec![Task { name: "a".into(), checkpoint: tuned }], &selection).expect("a plan");
    let basis = compress(
        &plan,
        &CompressOptions::mixtures(top.path().join("basis")).method(Method::Identity),
        &runtime(),
        &Silent,
    )
    .expect("a basis")
    .basis;
    for (name, source) in [("originals", Source::Checkpoints(&plan)), ("basis", Source::Basis(&basis))] {
        let edit = edit(&[1.0], 2.0);
        let target = top.path().join(format!("{name}.safetensors"));
        let write = |output: EditOutput| {
            EditJob { source, edit: &edit, base: Some(&plan.base), output: &output }.write(&runtime(), &Silent)
        };
        // In the base's own type; the mask is copied as it is.
        let error = write(EditOutput::new(&target)).expect_err("three values beyond f16");
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert!(error.message().contains("tensor w: finite values expected, 3 beyond f16"), "{error}");
        assert!(!target.exists());
        let clipped = write(EditOutput::new(&target).clip(true)).expect("clipped");
        assert_eq!((clipped.n_values, clipped.n_tensors), (3, 1));
        let out = Checkpoint::open(&target).expect("an edited checkpoint");
        let w = read(&out, "w");
        assert_eq!((w[3], w[17_000], w[19_999]), (65_504.0, -65_504.0, 65_504.0));
        assert_eq!(read(&out, "mask").last(), Some(&f64::NEG_INFINITY));
        // Untouched tensors that are converted count too; an infinity of the base's own is no overflow.
        let target = top.path().join(format!("{name}-f16.safetensors"));
        let error = write(EditOutput::new(&target).dtype(Some(Dtype::F16))).expect_err("five values beyond f16");
        assert!(
            error.message().contains("tensor mask") && error.message().contains("5 values of 2 tensors"),
            "{error}"
        );
        let clipped = write(EditOutput::new(&target).dtype(Some(Dtype::F16)).clip(true)).expect("clipped");
        assert_eq!((clipped.n_values, clipped.n_tensors), (5, 2));
        let mask = read(&Checkpoint::open(&target).expect("an edited checkpoint"), "mask");
        assert_eq!(mask, [1.0, 65_504.0, -65_504.0, f64::NEG_INFINITY]);
        // A wider type holds everything.
        let target = top.path().join(format!("{name}-bf16.safetensors"));
        let clipped = write(EditOutput::new(&target).dtype(Some(Dtype::Bf16))).expect("all finite");
        assert_eq!(clipped, Clipped::default());
    }
    // Recovered task vectors and checkpoints.
    for (name, base) in [("vectors", None), ("checkpoints", Some(&plan.base))] {
        let options = RecoverOptions::new(vec![0], top.path().join(name)).dtype(Some(Dtype::F16));
        let outcome = recover(&basis, base, &options, &runtime(), &Silent);
        match base {
            None => assert!(outcome.expect("60,000 fits").clipped.is_none()),
            Some(_) => {
                let error = outcome.expect_err("the mask does not fit");
                assert!(error.message().contains("tensor mask: finite values expected, 2 beyond f16"), "{error}");
                let clipped = recover(&basis, base, &options.clip(true), &runtime(), &Silent).expect("clipped").clipped;
                assert_eq!((clipped.n_values, clipped.n_tensors), (2, 1));
            }
        }
    }
}

#[test]
fn results_beyond_f32_are_no_silent_infinities() {
    let top = tempfile::tempdir().expect("a folder");
    let deltas = [vec![3e38, 1.0], vec![2e38, 1.0], vec![-3e38, 1.0]];
    let plan = run_of_deltas(top.path(), &deltas);
    let write = |alpha: &[f64], clip: bool, dtype: Option<Dtype>| {
        let target = top.path().join("out.safetensors");
        let output = EditOutput::new(&target).clip(clip).dtype(dtype).existing(tvb::checkpoint::Existing::Replace);
        let edit = edit(alpha, 1.0);
        EditJob { source: Source::Checkpoints(&plan), edit: &edit, base: Some(&plan.base), output: &output }
            .write(&runtime(), &Silent)?;
        Ok::<_, tvb::Error>(read(&Checkpoint::open(&target)?, "w"))
    };
    for dtype in [None, Some(Dtype::F32), Some(Dtype::Bf16)] {
        let error = write(&[1.0, 1.0, 0.0], false, dtype).expect_err("5e38");
        assert!(error.message().contains("tensor w: finite values expected, 1 beyond"), "{error}");
        let largest = dtype.unwrap_or(Dtype::F32).largest();
        assert_eq!(write(&[1.0, 1.0, 0.0], true, dtype).expect("clipped")[0], largest);
    }
    // 6e38 − 6e38 and 5e38 − 3e38 go beyond f32 on the way, and come back.
    assert_eq!(write(&[2.0, 0.0, 2.0], false, None).expect("zero"), [0.0, 4.0]);
    let back = write(&[1.0, 1.0, 1.0], false, None).expect("within f32");
    assert!((back[0] - 2e38).abs() < 1e32 && back[1] == 3.0, "{back:?}");
    // f64 tensors stored in a narrower type.
    let wide = |name: &str, values: &[f64]| write_one(top.path(), name, Dtype::F64, values);
    let base = wide("base64", &[1e300, 0.0, 1.0]);
    let tuned = wide("tuned64", &[1e300, 0.0, 1.0]);
    let target = top.path().join("narrow.safetensors");
    let wide = self::plan(base.clone(), vec![tuned]);
    let output = EditOutput::new(&target).dtype(Some(Dtype::F32));
    let edit = edit(&[1.0], 1.0);
    let job = EditJob { source: Source::Checkpoints(&wide), edit: &edit, base: Some(&base), output: &output };
    let error = job.write(&runtime(), &Silent).expect_err("1e300 is beyond f32");
    assert!(error.message().contains("1 beyond f32"), "{error}");
}

fn write_one(folder: &Path, name: &str, dtype: Dtype, values: &[f64]) -> Checkpoint {
    write(&folder.join(format!("{name}.safetensors")), &[("w", dtype, values.to_vec())])
}

#[test]
fn atoms_beyond_their_type_are_refused_or_clipped_and_say_so() {
    let top = tempfile::tempdir().expect("a folder");
    let mut large = wave(30_000, 1);
    (large[5], large[25_000]) = (1e5, -1e5);
    let plan = run_of_deltas(top.path(), &[large, wave(30_000, 2)]);
    let options =
        |name: &str| CompressOptions::mixtures(top.path().join(name)).method(Method::Identity).dtype(Dtype::F16);
    let error = compress(&plan, &options("refused"), &runtime(), &Silent).expect_err("1e5 is beyond f16");
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.message().contains("atom 0, tensor w: finite values expected, 2 beyond f16"), "{error}");
    assert!(!top.path().join("refused").exists());
    let basis = compress(&plan, &options("clipped").clip(true), &runtime(), &Silent).expect("a basis").basis;
    assert!(basis.manifest.notes.iter().any(|note| note.starts_with("2 values of 1 tensor clipped")));
    assert!(read(&basis.open_atom(0).expect("an atom"), "w").iter().all(|value| value.is_finite()));
    assert!(verify_files(&basis, &runtime(), &Silent).expect("an answer").iter().all(|file| file.damage.is_none()));
}

#[test]
fn atoms_that_are_not_finite_go_no_further() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = run_of_deltas(top.path(), &[wave(100, 1), wave(100, 2)]);
    let folder = top.path().join("basis");
    let basis = compress(&plan, &CompressOptions::mixtures(&folder).method(Method::Identity), &runtime(), &Silent);
    let mut basis = basis.expect("a basis").basis;
    // As another program may write it: an infinite value, and its checksum in the manifest.
    let path = folder.join(&basis.manifest.atoms[1].file);
    let mut bytes = std::fs::read(&path).expect("an atom");
    let at = bytes.len() - 4 * 7;
    bytes[at..at + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    std::fs::write(&path, bytes).expect("written");
    let checks = verify_files(&basis, &runtime(), &Silent).expect("an answer");
    let damage = checks.iter().find_map(|check| check.damage.clone()).expect("a checksum that differs");
    let found = damage.split(", ").nth(1).and_then(|text| text.strip_suffix(" found")).expect("a checksum");
    basis.manifest.atoms[1].checksum = found.parse().expect("a checksum");
    basis.manifest.write(&folder).expect("a manifest");
    let basis = Basis::open(&folder).expect("a basis");
    for clip in [false, true] {
        let edit = edit(&[1.0, 1.0], 1.0);
        let output = EditOutput::new(top.path().join("out.safetensors")).clip(clip);
        let job = EditJob { source: Source::Basis(&basis), edit: &edit, base: Some(&plan.base), output: &output };
        let error = job.write(&runtime(), &Silent).expect_err("an infinite atom");
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert!(error.message().contains("atom-01.safetensors at element 93"), "{error}");
        let options = RecoverOptions::new(vec![0, 1], top.path().join("vectors")).clip(clip);
        let error = recover(&basis, None, &options, &runtime(), &Silent).expect_err("an infinite atom");
        assert!(error.message().contains("b.safetensors, tensor w: finite values expected, 1 formed of"), "{error}");
    }
    // The other task has no weight on that atom.
    let options = RecoverOptions::new(vec![0], top.path().join("vectors"));
    recover(&basis, Some(&plan.base), &options, &runtime(), &Silent).expect("a sound task");
}

#[test]
fn deltas_too_small_or_large_for_f32_squares_are_not_lost() {
    let (a, b, c) = (wave(20_000, 1), wave(20_000, 2), wave(20_000, 3));
    let times = |factor: f64, values: &[f64]| values.iter().map(|value| value * factor).collect::<Vec<f64>>();
    for (size, other) in
        [(1e-25, 1e-25), (1e-30, 1e-22), (1e-20, 1.0), (1e-38, 1e-38), (1e20, 1e20), (1e30, 1e-3), (1e20, 1e-25)]
    {
        let top = tempfile::tempdir().expect("a folder");
        let plan = run_of_deltas(top.path(), &[times(size, &a), times(other, &b), times(other, &c)]);
        let grams = gram(&plan, &runtime(), &Silent).expect("a Gram matrix");
        assert!(!grams.tensors[0].frozen);
        let total = grams.total();
        let (deltas, n) = ([(size, &a), (other, &b), (other, &c)], 3);
        for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let stored = |at: usize| deltas[at].1.iter().map(move |value| f64::from((value * deltas[at].0) as f32));
            let dot: f64 = stored(i).zip(stored(j)).map(|(x, y)| x * y).sum();
            let norms = (total[(i, i)] * total[(j, j)]).sqrt();
            assert!(
                (total[(i, j)] - dot).abs() <= 1e-5 * norms,
                "{size:e}, {other:e}: [{i}, {j}]: {} and {dot:e}",
                total[(i, j)]
            );
        }
        // And on to a basis that says how good it is.
        for method in [Method::parse("anchored").expect("a method"), Method::Pca, Method::Identity] {
            let folder = top.path().join(method.name());
            let options = CompressOptions::mixtures(&folder).method(method.clone()).atoms(2);
            let basis = match compress(&plan, &options, &runtime(), &Silent) {
                Ok(basis) => basis,
                // Norms further apart than f32 reaches: mixtures of these tasks cannot be formed.
                Err(error) if size / other > 1e38 && method.name() != "identity" => {
                    assert!(
                        error.message().starts_with("task ") && error.message().contains("too far apart"),
                        "{error}"
                    );
                    continue;
                }
                Err(error) => panic!("{size:e} {method:?}: {error}"),
            };
            let rounding = &basis.basis.manifest.diagnostics["rounding"][0]["relative_errors"];
            let errors = verify_errors(&basis.basis, &plan, &runtime(), &Silent).expect("errors");
            for (task, error) in errors.into_iter().enumerate() {
                // Atoms far larger than a task add their own rounding to it.
                let rounding = rounding[task].as_f64().expect("a number");
                let predicted = error.predicted.expect("predicted");
                let case = format!("{size:e} {other:e} {method:?} {error:?} {rounding:e}");
                assert!((error.measured - predicted).abs() <= 2e-3 * (1.0 + predicted) + 4.0 * rounding, "{case}");
            }
        }
    }
}

#[test]
fn what_16_bits_lose_of_small_deltas_is_predicted() {
    // Deltas far below f16's step vanish when they are stored; at about the step they are mostly noise.
    for (size, least, most) in [(1e-9, 0.9, 1.1), (3e-8, 0.05, 1.1), (1e-5, 1e-6, 1e-4), (1.0, 1e-9, 1e-6)] {
        let top = tempfile::tempdir().expect("a folder");
        let deltas = [1, 2].map(|seed| wave(20_000, seed).iter().map(|value| value * size).collect::<Vec<f64>>());
        let plan = run_of_deltas(top.path(), &deltas);
        let options = CompressOptions::mixtures(top.path().join("basis")).method(Method::Identity).dtype(Dtype::F16);
        let basis = compress(&plan, &options, &runtime(), &Silent).expect("a basis").basis;
        let rounding = &basis.manifest.diagnostics["rounding"];
        let stored = rounding.as_array().expect("a list").iter().find(|one| one["stored"] == true).expect("the type");
        let predicted = stored["worst"].as_f64().expect("a number");
        assert!((least..most).contains(&predicted), "{size:e}: {predicted:e}");
        let measured = verify_errors(&basis, &plan, &runtime(), &Silent).expect("errors")[0].measured;
        assert!(measured <= 2.0 * predicted && measured >= 0.1 * predicted, "{size:e}: {measured:e}, {predicted:e}");
        assert_eq!(basis.manifest.notes.iter().any(|note| note.contains("storage in f16")), size < 1e-7, "{size:e}");
    }
}

#[test]
fn weights_that_f32_cannot_hold_name_the_task_and_its_file() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = run_of_deltas(top.path(), &[wave(100, 1), wave(100, 2)]);
    let folder = top.path().join("basis");
    let basis =
        compress(&plan, &CompressOptions::mixtures(&folder).atoms(1), &runtime(), &Silent).expect("a basis").basis;
    for (source, file) in [(Source::Basis(&basis), "basis"), (Source::Checkpoints(&plan), "1.safetensors")] {
        for (alpha, scale) in [
            ([0.0, 1.0], 1e300),
            ([0.0, 1e39], 1.0),
            ([0.0, -1e25], 1e20),
            ([1.0, f64::NAN], 1.0),
            ([0.0, 1e-50], 1.0),
            ([1.0, 1e-30], 1e-30),
        ] {
            let edit = edit(&alpha, scale);
            let output = EditOutput::new(top.path().join("out.safetensors"));
            let job = EditJob { source, edit: &edit, base: Some(&plan.base), output: &output };
            let error = job.write(&runtime(), &Silent).expect_err("no weight in f32");
            assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
            let told = if scale == 1e-30 { "task a" } else { "task b" };
            assert!(error.message().contains(told) || scale == 1e-30, "{error}");
            assert!(error.message().contains(file) || scale == 1e-30, "{error}");
            if let Source::Basis(basis) = source {
                assert_eq!(edit.predict(basis).expect_err("no weight in f32").kind(), ErrorKind::Usage);
            }
        }
        for (alpha, scale) in [([1.0, 0.0], 0.0), ([1e-30, 1.0], 1.0), ([1e30, 0.0], 1e-30)] {
            edit(&alpha, scale).check(source).expect("weights in f32");
        }
    }
}

#[test]
fn tasks_that_did_not_move_or_are_alike_are_compressed_and_recovered() {
    let (zero, a, b) = (vec![0.0; 300], wave(300, 1), wave(300, 2));
    let negative: Vec<f64> = a.iter().map(|value| -value).collect();
    let runs: [(&str, Vec<Vec<f64>>); 7] = [
        ("one of three zero", vec![a.clone(), zero.clone(), b.clone()]),
        ("all zero", vec![zero.clone(), zero.clone()]),
        ("one, zero", vec![zero.clone()]),
        ("one", vec![a.clone()]),
        ("two alike", vec![a.clone(), a.clone(), b.clone()]),
        ("opposite", vec![a.clone(), negative]),
        ("two zero", vec![zero.clone(), a.clone(), zero, b]),
    ];
    let parse = |name: &str| Method::parse(name).expect("a method");
    let methods = ["anchored", "pca", "ae", "exact", "sample", "cluster", "nmf", "random", "identity"];
    // Every combination for the run that is the likeliest; fewer for the others, since each is written to the disk.
    for (what, deltas) in runs {
        let top = tempfile::tempdir().expect("a folder");
        let plan = run_of_deltas(top.path(), &deltas);
        for method in methods.iter().filter_map(|name| Method::parse(name).ok().map(|_| parse(name))) {
            let plain = [(false, Coordinates::Convex)];
            let all = [plain[0], (true, Coordinates::Convex), (false, Coordinates::Orthogonal)];
            for &(balance, coordinates) in if what == "one of three zero" { &all[..] } else { &plain } {
                let most = if what.ends_with("zero") && !balance { deltas.len() } else { 1 };
                for n_atoms in (1..=deltas.len()).filter(|&n_atoms| n_atoms == 1 || n_atoms == most) {
                    let case = format!("{what}: {} m={n_atoms} balance={balance} {coordinates:?}", method.name());
                    let folder = top.path().join("basis");
                    let options = CompressOptions::mixtures(&folder)
                        .method(method.clone())
                        .atoms(n_atoms)
                        .balance(balance)
                        .coordinates(coordinates)
                        .existing(tvb::checkpoint::Existing::Replace);
                    let basis = match compress(&plan, &options, &runtime(), &Silent) {
                        Ok(made) => made.basis,
                        // Options that do not go together.
                        Err(error) if error.kind() == ErrorKind::Usage => continue,
                        // Random columns of no rows at all.
                        Err(_) if method.name() == "random" && what.ends_with("all zero") => continue,
                        Err(_) if method.name() == "random" && what == "one, zero" => continue,
                        Err(error) => panic!("{case}: {error}"),
                    };
                    check_recovered(&case, &plan, &basis, &deltas, top.path());
                }
            }
        }
    }
}

/// Everything that is said of a basis is a number, and a zero task comes back as the base.
fn check_recovered(case: &str, plan: &Plan, basis: &Basis, deltas: &[Vec<f64>], top: &Path) {
    let manifest = std::fs::read_to_string(basis.folder.join("basis.json")).expect("a manifest");
    assert!(!manifest.contains("NaN"), "{case}");
    for task in &basis.manifest.tasks {
        assert!(task.relative_error.is_some_and(f64::is_finite) && task.norm.is_some_and(f64::is_finite), "{case}");
    }
    let errors = verify_errors(basis, plan, &runtime(), &Silent).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(errors.iter().all(|error| error.measured.is_finite()), "{case}: {errors:?}");
    // Alone, a zero task has no weight on any atom.
    for task in (0..deltas.len()).filter(|&task| deltas[task].iter().all(|delta| *delta == 0.0)) {
        let options = RecoverOptions::new(vec![task], top.join("alone")).existing(tvb::checkpoint::Existing::Replace);
        recover(basis, None, &options, &runtime(), &Silent).unwrap_or_else(|error| panic!("{case}: {error}"));
    }
    let is_simple = matches!(basis.manifest.method.name.as_str(), "anchored" | "identity");
    for (name, base) in [("vectors", None), ("checkpoints", Some(&plan.base))] {
        if base.is_some() && !is_simple {
            continue;
        }
        let all = (0..deltas.len()).collect();
        let options = RecoverOptions::new(all, top.join(name)).existing(tvb::checkpoint::Existing::Replace);
        let written =
            recover(basis, base, &options, &runtime(), &Silent).unwrap_or_else(|error| panic!("{case}: {error}"));
        for (path, delta) in written.written.iter().zip(deltas) {
            let found = Checkpoint::open(path).expect("a checkpoint");
            if delta.iter().any(|value| *value != 0.0) || basis.manifest.method.name == "random" {
                continue;
            }
            match (found.get("w"), base) {
                (None, None) => {}
                (None, Some(_)) => panic!("{case}: the base's tensor is not there"),
                (Some(_), _) => {
                    let largest = read(&found, "w").into_iter().fold(0.0, |most: f64, value| most.max(value.abs()));
                    let error =
                        basis.manifest.tasks.iter().map(|task| task.relative_error.unwrap_or(0.0)).fold(0.0, f64::max);
                    assert!(largest <= 1e-6 + 3.0 * error.sqrt() * 10.0, "{case}: {largest} of a zero task");
                }
            }
        }
    }
    let ones = edit(&vec![1.0; deltas.len()], 1.0);
    let fidelity = ones.predict(basis).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(fidelity.is_none_or(|fidelity| !fidelity.cosine.is_nan() && !fidelity.norm_ratio.is_nan()), "{case}");
    if !is_simple {
        return;
    }
    let output = EditOutput::new(top.join("sum.safetensors")).existing(tvb::checkpoint::Existing::Replace);
    EditJob { source: Source::Basis(basis), edit: &ones, base: Some(&plan.base), output: &output }
        .write(&runtime(), &Silent)
        .unwrap_or_else(|error| panic!("{case}: {error}"));
}

#[test]
fn a_memory_cap_that_is_too_low_is_refused_with_the_least_that_works() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = run_of_deltas(top.path(), &[wave(40_000, 1), wave(40_000, 2), wave(40_000, 3)]);
    let at = |n_bytes: u64| Runtime::on_cpu(2, n_bytes);
    let options = |name: &str| CompressOptions::mixtures(top.path().join(name)).atoms(2);
    let basis = compress(&plan, &options("basis"), &runtime(), &Silent).expect("a basis").basis;
    let edit = edit(&[1.0; 3], 1.0);
    let form = |runtime: &Runtime, source: Source<'_>| {
        let output = EditOutput::new(top.path().join("out.safetensors")).existing(tvb::checkpoint::Existing::Replace);
        EditJob { source, edit: &edit, base: Some(&plan.base), output: &output }.write(runtime, &Silent).map(|_| ())
    };
    let existing = tvb::checkpoint::Existing::Replace;
    let random = options("random").method(Method::Random { seed: 1 }).existing(existing);
    let jobs: [(&str, &dyn Fn(&Runtime) -> tvb::Result<()>); 9] = [
        ("gram", &|runtime| make_gram_file(&plan, &top.path().join("g"), existing, runtime, &Silent).map(|_| ())),
        ("compress", &|runtime| compress(&plan, &options("o").existing(existing), runtime, &Silent).map(|_| ())),
        ("random", &|runtime| compress(&plan, &random, runtime, &Silent).map(|_| ())),
        ("add", &|runtime| form(runtime, Source::Basis(&basis))),
        ("add from checkpoints", &|runtime| form(runtime, Source::Checkpoints(&plan))),
        ("recover", &|runtime| {
            let options = RecoverOptions::new(vec![0, 1], top.path().join("vectors")).existing(existing);
            recover(&basis, None, &options, runtime, &Silent).map(|_| ())
        }),
        ("verify", &|runtime| verify_files(&basis, runtime, &Silent).map(|_| ())),
        ("verify with originals", &|runtime| verify_errors(&basis, &plan, runtime, &Silent).map(|_| ())),
        ("export", &|runtime| {
            let output: PathBuf = top.path().join(format!("published-{}", runtime.memory_bytes));
            export_basis(&basis, &ExportOptions::new(output).existing(existing), runtime, &Silent).map(|_| ())
        }),
    ];
    for (name, job) in jobs {
        for n_bytes in [0, 1, 1000] {
            let error = job(&at(n_bytes)).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Usage, "{name}: {error}");
            let least: u64 = error
                .hint_text()
                .and_then(|hint| hint.strip_prefix("--memory ")?.split(' ').next()?.parse().ok())
                .unwrap_or_else(|| panic!("{name}: {error}"));
            job(&at(least)).unwrap_or_else(|error| panic!("{name} at its least: {error}"));
            assert_eq!(job(&at(least - 1)).expect_err(name).kind(), ErrorKind::Usage, "{name}");
        }
    }
    assert_eq!(least_bytes(&plan, 3, &at(1)), 16_384 * 4 * (4 + 3));
}
