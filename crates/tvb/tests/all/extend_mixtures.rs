//! Tasks join bases that are not coded, again and again; what such a basis says of itself is compared with its originals.

use crate::coded::models::{self, Kind, kind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tvb::basis::Basis;
use tvb::checkpoint::Existing;
use tvb::columns::plan::{Plan, Selection, Task};
use tvb::jobs::compress::{CompressOptions, compress};
use tvb::jobs::extend::{ExtendOptions, Extended, extend};
use tvb::progress::Silent;
use tvb::solve::{AeOptions, AnchoredOptions, ClusterOptions, ExactOptions, Method, NmfOptions};
use tvb::{ErrorKind, Result};
use tvb_kernels::Dtype;
use tvb_tests::small_models::{Random, contents};

const KINDS: &[Kind] = &[
    kind("embed", &[257, 67], Dtype::Bf16, 0.1),
    kind("bias", &[300], Dtype::F32, 0.1),
    kind("frozen", &[40, 40], Dtype::Bf16, 0.0),
    kind("empty", &[0, 4], Dtype::F32, 0.1),
    kind("head", &[130, 257], Dtype::F64, 0.1),
];

type Values = BTreeMap<String, Vec<f64>>;

/// A base and tasks that share directions, as fine-tunes do, with what they hold.
struct Models {
    paths: Vec<PathBuf>,
    /// Of every task, what it moved.
    deltas: Vec<Values>,
}

impl Models {
    fn write(folder: &Path, n_tasks: usize) -> Models {
        let paths = models::write_models(folder, KINDS, n_tasks, 7);
        let base = models::values_of(&paths[0]);
        let shared: Vec<Values> = paths[1..3].iter().map(|path| models::values_of(path)).collect();
        let mut random = Random(3);
        for path in &paths[1..] {
            let mut values = models::values_of(path);
            let strengths = [f64::from(random.value()), 1.0 + f64::from(random.value())];
            for (name, values) in &mut values {
                for (i, value) in values.iter_mut().enumerate() {
                    for (strength, shared) in strengths.iter().zip(&shared) {
                        *value += strength * (shared[name][i] - base[name][i]);
                    }
                }
            }
            let tensor = |kind: &Kind| (kind.name.into(), kind.dtype, kind.shape.to_vec(), values[kind.name].clone());
            models::write(path, &KINDS.iter().map(tensor).collect::<Vec<_>>());
        }
        // What was stored, not what was meant.
        let delta = |path: &PathBuf| {
            let less = |(name, values): (String, Vec<f64>)| {
                let moved = values.iter().zip(&base[&name]).map(|(value, base)| value - base).collect();
                (name, moved)
            };
            models::values_of(path).into_iter().map(less).collect()
        };
        Models { deltas: paths[1..].iter().map(delta).collect(), paths }
    }

    fn plan(&self, tasks: &[usize]) -> Plan {
        let open = |path: &Path| tvb::checkpoint::Checkpoint::open(path).expect("a checkpoint");
        let task = |task: &usize| Task { name: format!("t{task}"), checkpoint: open(&self.paths[task + 1]) };
        Plan::new(open(&self.paths[0]), tasks.iter().map(task).collect(), &Selection::default()).expect("a plan")
    }

    fn join(&self, basis: &Path, tasks: &[usize], options: ExtendOptions) -> Result<Extended> {
        extend(&Basis::open(basis)?, &self.plan(tasks), &options, &models::runtime(), &Silent)
    }
}

fn dot(a: &Values, b: &Values) -> f64 {
    a.iter().map(|(name, a)| b.get(name).map_or(0.0, |b| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>())).sum()
}

/// Σ weights·vectors.
fn mixed(vectors: &[Values], weights: impl Iterator<Item = f64>) -> Values {
    let mut sum = Values::new();
    for (vector, weight) in vectors.iter().zip(weights) {
        for (name, values) in vector {
            let sum = sum.entry(name.clone()).or_insert_with(|| vec![0.0; values.len()]);
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
        }
    }
    sum
}

fn squared_distance(a: &Values, b: &Values) -> f64 {
    dot(a, a) - 2.0 * dot(a, b) + dot(b, b)
}

/// Whether everything that a basis of the first tasks says of itself is true.
fn check(name: &str, folder: &Path, models: &Models, n_first: usize, rounding: f64) {
    let basis = Basis::open(folder).expect("a basis");
    let n_tasks = basis.n_tasks();
    let v = &models.deltas[..n_tasks];
    let atoms: Vec<Values> =
        basis.manifest.atoms.iter().map(|atom| models::values_of(&folder.join(&atom.file))).collect();
    let encode = &basis.coefficients.encode;
    for (m, atom) in atoms.iter().enumerate() {
        let formed = mixed(v, encode.column(m).iter().copied());
        let off = squared_distance(atom, &formed).max(0.0).sqrt() / dot(atom, atom).sqrt();
        assert!(off < rounding.max(1e-5), "{name}: atom {m} is off by {off:e} from what B' says");
    }
    let decode = &basis.coefficients.decode;
    for (t, record) in basis.manifest.tasks.iter().enumerate() {
        assert_eq!(record.name, format!("t{t}"));
        let norm = dot(&v[t], &v[t]).sqrt();
        let back = mixed(&atoms, decode.column(t).iter().copied());
        let found = squared_distance(&back, &v[t]).max(0.0).sqrt() / norm;
        let expected = record.relative_error.expect("an error").sqrt();
        let bound = record.error_bound.unwrap_or(expected);
        assert!((record.norm.expect("a norm") / norm - 1.0).abs() < 1e-4);
        assert!(found <= bound + 3e-3 + rounding, "{name}: task {t} is off by {found}, at most {bound} stated");
        assert!(expected <= bound + 3e-3, "{name}: task {t}: {expected} expected, at most {bound}");
        if t >= n_first {
            // Only what joined last is known exactly.
            let is_last = basis.manifest.history.last().expect("an event").tasks.contains(&record.name);
            assert!(!is_last || (found - expected).abs() < 3e-3 + rounding, "{name}: newcomer {t}: {found} {expected}");
        }
    }
    // Anchored atoms add up to the sum of the tasks, and those that are solved again to the sum of what is known of them.
    if basis.manifest.method.name == "anchored" && name.ends_with("F32") && !name.starts_with('1') {
        let ones = vec![1.0; n_tasks];
        let weights = basis.solved().expect("B and W").weights(&ones, tvb::solve::Rule::Projected);
        let (found, sum) = (mixed(&atoms, weights.into_iter()), mixed(v, ones.into_iter()));
        let off = squared_distance(&found, &sum).max(0.0) / dot(&sum, &sum);
        assert!(off < 1e-6, "{name}: the sum of all tasks is off by {off:e}");
    }
    let gram = basis.total_gram().expect("a Gram matrix");
    for i in 0..n_tasks {
        for j in 0..n_tasks {
            let (found, stated) = (dot(&v[i], &v[j]), gram[(i, j)]);
            let scale = (dot(&v[i], &v[i]) * dot(&v[j], &v[j])).sqrt();
            let bound = basis.coefficients.gram_errors.as_ref().map_or(0.0, |errors| errors.bound[(i, j)]);
            let off = (found - stated).abs();
            assert!(off <= bound + 1e-4 * scale, "{name}: ({i}, {j}) is off by {off:e}, at most {bound:e} stated");
        }
    }
    let files = tvb::jobs::verify::verify_files(&basis, &models::runtime(), &Silent).expect("verified");
    assert!(files.iter().all(|file| file.damage.is_none()), "{name}: {files:?}");
}

#[test]
fn mixtures_stay_true_through_a_chain_of_extensions() {
    let top = tempfile::tempdir().expect("a folder");
    let models = Models::write(top.path(), 8);
    let methods = [
        Method::Anchored(AnchoredOptions::default()),
        Method::Anchored(AnchoredOptions { weights: Some(vec![1.0, 2.0, 1.0, 0.5, 1.0]) }),
        Method::Exact(ExactOptions::default()),
        Method::Ae(AeOptions { steps: Some(300), ..AeOptions::default() }),
        Method::Pca,
        Method::Sample { seed: 1 },
        Method::Cluster(ClusterOptions::default()),
        Method::Nmf(NmfOptions::default()),
    ];
    for (index, method) in methods.into_iter().enumerate() {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let name = format!("{index}-{}-{dtype:?}", method.name());
            let folder = top.path().join(&name);
            let options = CompressOptions::mixtures(&folder).method(method.clone()).atoms(3).dtype(dtype);
            compress(&models.plan(&[0, 1, 2, 3, 4]), &options, &models::runtime(), &Silent).expect("a basis");
            let n_stored = Basis::open(&folder).expect("a basis").n_atoms();
            let rounding = if dtype == Dtype::F32 { 0.0 } else { 0.15 };
            for tasks in [&[5][..], &[6, 7]] {
                let done = models.join(&folder, tasks, ExtendOptions::default()).expect("extended");
                assert_eq!(done.n_new, tasks.len());
                assert_eq!(done.basis.n_atoms(), n_stored, "{name}: M is kept");
                check(&name, &folder, &models, 5, rounding);
            }
            let basis = Basis::open(&folder).expect("a basis");
            let estimates = basis.manifest.estimates.expect("estimates");
            // A task that is an atom is known in full, with the newcomers of the first extension.
            assert!((14..=17).contains(&estimates.n_pairs) && !estimates.unbiased, "{name}: {estimates:?}");
            assert_eq!(basis.manifest.history.len(), 3);
            assert!(contents(&folder).len() == 2 + n_stored, "{name}: nothing is left behind");
        }
    }
}

#[test]
fn with_a_gram_file_nothing_is_estimated() {
    let top = tempfile::tempdir().expect("a folder");
    let models = Models::write(top.path(), 6);
    let (folder, gram) = (top.path().join("basis"), top.path().join("all.gram"));
    let options = CompressOptions::mixtures(&folder).atoms(3);
    compress(&models.plan(&[0, 1, 2, 3, 4]), &options, &models::runtime(), &Silent).expect("a basis");
    let all = models.plan(&[5, 0, 1, 2, 3, 4]);
    tvb::jobs::gram::make_gram_file(&all, &gram, Existing::Refuse, &models::runtime(), &Silent).expect("a Gram file");
    let output = top.path().join("known");
    let known = ExtendOptions::default().gram(Some(gram)).output(Some(output.clone()));
    let done = models.join(&folder, &[5], known).expect("extended");
    assert!(done.basis.manifest.estimates.is_none() && done.basis.coefficients.gram_errors.is_none());
    assert!(done.basis.manifest.tasks.iter().all(|task| task.error_bound.is_none()));
    check("known", &output, &models, 5, 0.0);
    let guessed = models.join(&folder, &[5], ExtendOptions::default()).expect("extended").basis;
    check("guessed", &folder, &models, 5, 0.0);
    assert!(guessed.manifest.estimates.is_some());
    let other = models.plan(&[5, 0, 1, 2, 3]);
    let gram = top.path().join("other.gram");
    tvb::jobs::gram::make_gram_file(&other, &gram, Existing::Refuse, &models::runtime(), &Silent).expect("a Gram file");
    let before = contents(&output);
    let options = ExtendOptions::default().gram(Some(gram));
    let error =
        extend(&Basis::open(&folder).expect("a basis"), &models.plan(&[4]), &options, &models::runtime(), &Silent);
    assert_eq!(error.expect_err("a name that is there").kind(), ErrorKind::Rejected);
    assert_eq!(contents(&output), before);
}

#[test]
fn where_there_is_room_the_old_atoms_keep_their_bytes() {
    let top = tempfile::tempdir().expect("a folder");
    let models = Models::write(top.path(), 7);
    let cases = [
        ("mixtures", Method::Anchored(AnchoredOptions::default()), Some(5), Dtype::F32),
        ("tasks", Method::Identity, None, Dtype::F32),
        ("rounded", Method::Identity, None, Dtype::Bf16),
    ];
    for (name, method, n_atoms, dtype) in cases {
        let folder = top.path().join(name);
        let options = CompressOptions::mixtures(&folder).method(method).atoms(3).dtype(dtype);
        compress(&models.plan(&[0, 1, 2, 3, 4]), &options, &models::runtime(), &Silent).expect("a basis");
        let before = contents(&folder);
        let old = Basis::open(&folder).expect("a basis");
        let done = models.join(&folder, &[5, 6], ExtendOptions::default().n_atoms(n_atoms)).expect("extended");
        assert_eq!(done.basis.n_atoms(), old.n_atoms() + 2);
        let after = contents(&folder);
        for atom in &old.manifest.atoms {
            assert_eq!(after[Path::new(&atom.file)], before[Path::new(&atom.file)], "{name}");
        }
        check(name, &folder, &models, 5, if dtype == Dtype::F32 { 0.0 } else { 0.05 });
        assert_eq!(done.basis.manifest.estimates.is_none(), name == "tasks", "{name}");
        for (old, new) in old.manifest.tasks.iter().zip(&done.basis.manifest.tasks) {
            assert_eq!((old.relative_error, old.gain), (new.relative_error, new.gain), "{name}");
        }
        let newcomer = &done.basis.manifest.tasks[6];
        assert!(newcomer.relative_error.expect("an error") < 1e-6, "{name}: {newcomer:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_lost() {
    let top = tempfile::tempdir().expect("a folder");
    let models = Models::write(top.path(), 6);
    let folder = top.path().join("basis");
    let options = CompressOptions::mixtures(&folder).atoms(2);
    compress(&models.plan(&[0, 1, 2, 3]), &options, &models::runtime(), &Silent).expect("a basis");
    let random = top.path().join("random");
    let options = CompressOptions::mixtures(&random).method(Method::Random { seed: 1 }).atoms(2);
    compress(&models.plan(&[0, 1, 2, 3]), &options, &models::runtime(), &Silent).expect("a basis");
    let before = contents(top.path());
    let cases: [(&Path, ExtendOptions, ErrorKind, &str); 5] = [
        (&folder, ExtendOptions::default().n_atoms(Some(4)), ErrorKind::Usage, "1 to 3 atoms expected, 4 found"),
        (&folder, ExtendOptions::default().n_atoms(Some(0)), ErrorKind::Usage, "1 to 3 atoms expected, 0 found"),
        (&folder, ExtendOptions::default().weight(f64::NAN), ErrorKind::Usage, "finite"),
        (&folder, ExtendOptions::default().output(Some(random.clone())), ErrorKind::Rejected, "random"),
        (&random, ExtendOptions::default(), ErrorKind::Rejected, "made from a seed"),
    ];
    for (basis, options, kind, expected) in cases {
        let error = models.join(basis, &[5], options).expect_err(expected);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(expected), "{error}");
        assert_eq!(contents(top.path()), before, "{expected}");
    }
    // Another base, and a damaged atom.
    let mut other = models::values_of(&models.paths[0]);
    other.get_mut("frozen").expect("a tensor")[3] += 1.0;
    let tensor = |kind: &Kind| (kind.name.into(), kind.dtype, kind.shape.to_vec(), other[kind.name].clone());
    let path = top.path().join("other.safetensors");
    models::write(&path, &KINDS.iter().map(tensor).collect::<Vec<_>>());
    let mut paths = models.paths.clone();
    paths[0] = path;
    let elsewhere = Models { paths, deltas: Vec::new() };
    let error = elsewhere.join(&folder, &[5], ExtendOptions::default()).expect_err("another base");
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    let atom = folder.join("atom-01.safetensors");
    let mut bytes = std::fs::read(&atom).expect("an atom");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&atom, bytes).expect("written");
    let before = contents(&folder);
    let error = models.join(&folder, &[5], ExtendOptions::default()).expect_err("damage");
    assert!(error.message().contains("damaged"), "{error}");
    assert_eq!(contents(&folder), before);
}
