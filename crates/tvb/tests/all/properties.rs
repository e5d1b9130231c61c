//! Whole runs on random models: any shapes, types, shards and numbers of tasks; and readers fed with mutilated files.
//!
//! `TVB_CASES` sets the number of random models, `TVB_MUTATIONS` that of mutilated inputs for each reader.

use proptest::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use tvb::basis::manifest::Manifest;
use tvb::basis::{Basis, gram_file, part_file, seal};
use tvb::checkpoint::{Budget, Checkpoint, Existing, ShardIndex};
use tvb::columns::plan::{Plan, Selection, Task};
use tvb::digest::Digest;
use tvb::jobs::batch::{Batch, JobFile};
use tvb::jobs::compress::{CompressOptions, compress};
use tvb::jobs::edit::{Edit, EditJob, EditOutput, Source};
use tvb::jobs::gram::make_gram_file;
use tvb::jobs::merge::recipe::Recipe;
use tvb::jobs::parts::gram_part;
use tvb::jobs::verify::{verify_errors, verify_files};
use tvb::pass::{Part, Runtime};
use tvb::progress::Silent;
use tvb::solve::Method;
use tvb_tests::small_models::{Random, Shape, Stored, contents, values, write_model};
use tvb_tests::{fixture, number};

fn runtime(n_threads: usize) -> Runtime {
    Runtime::on_cpu(n_threads, 64 << 20)
}

/// A random run: what its tensors are and how it lies on disk.
#[derive(Clone, Debug)]
struct Model {
    shapes: Vec<(Vec<usize>, usize)>,
    n_tasks: usize,
    n_shards: usize,
    seed: u64,
}

fn models() -> impl Strategy<Value = Model> {
    let shape = prop_oneof![
        6 => prop::collection::vec(1usize..40, 1..3),
        1 => Just(vec![20_000]),
        1 => Just(vec![0, 3]),
        1 => Just(vec![]),
    ];
    let shapes = prop::collection::vec((shape, 0usize..3), 1..6);
    (shapes, 1usize..6, 1usize..4, any::<u64>()).prop_map(|(shapes, n_tasks, n_shards, seed)| Model {
        shapes,
        n_tasks,
        n_shards,
        seed,
    })
}

/// Writes a model's run and plans it. Fine-tunes rotate through the types, so that columns differ.
fn plan(folder: &Path, model: &Model) -> Plan {
    const TYPES: [Stored; 3] = [Stored::F32, Stored::F16, Stored::Bf16];
    let shapes = |turn: usize| -> Vec<Shape> {
        let shape = |(index, (shape, stored)): (usize, &(Vec<usize>, usize))| Shape {
            name: format!("layer.{index}"),
            shape: shape.clone(),
            stored: TYPES[(stored + turn) % 3],
        };
        model.shapes.iter().enumerate().map(shape).collect()
    };
    let (base, tasks) = values(&shapes(0), model.n_tasks, &mut Random(model.seed));
    let open = |path: &Path| Checkpoint::open(path).expect("a checkpoint");
    let base = open(&write_model(folder, "base", &shapes(0), &base, model.n_shards));
    let tasks = tasks.iter().enumerate().map(|(task, values)| {
        let turn = if model.seed.is_multiple_of(2) { task } else { 0 };
        let name = format!("task{task}");
        let path = write_model(folder, &name, &shapes(turn), values, 1 + (model.n_shards + task) % 3);
        Task { name, checkpoint: open(&path) }
    });
    Plan::new(base, tasks.collect(), &Selection::default()).expect("a plan")
}

fn options(output: &Path, method: Method, n_atoms: usize) -> CompressOptions {
    CompressOptions::mixtures(output).method(method).atoms(n_atoms).existing(Existing::Replace)
}

fn floats(checkpoint: &Checkpoint, name: &str) -> (Vec<f32>, tvb_kernels::Dtype) {
    let tensor = checkpoint.get(name).expect("a tensor");
    let mut bytes = vec![0; tensor.n_bytes() as usize];
    checkpoint.read(tensor, 0, &mut bytes).expect("read");
    let dtype = tensor.dtype.float().expect("a float");
    (tvb_kernels::decode(&bytes, dtype), dtype)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: number("TVB_CASES", 12), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bases_are_intact_have_the_predicted_errors_and_add_like_the_originals(model in models(), which in 0usize..4, share in 0.0f64..1.0) {
        let top = tempfile::tempdir().expect("a folder");
        let plan = plan(top.path(), &model);
        let n_tasks = model.n_tasks;
        let method = [Method::parse("anchored"), Method::parse("exact"), Ok(Method::Pca), Ok(Method::Sample { seed: 1 })][which].clone().expect("a method");
        let n_atoms = 1 + (share * n_tasks as f64) as usize % n_tasks;
        let folder = top.path().join("basis");
        let basis = compress(&plan, &options(&folder, method.clone(), n_atoms), &runtime(2), &Silent);
        let moved = plan.tensors.iter().any(|tensor| tensor.n_rows > 0);
        let basis = match basis {
            Ok(made) => made.basis,
            // Nothing in any tensor, so nothing moved.
            Err(error) => { prop_assert!(!moved, "{error}"); return Ok(()); }
        };
        prop_assert!(verify_files(&basis, &runtime(2), &Silent).expect("an answer").iter().all(|check| check.damage.is_none()));
        for error in verify_errors(&basis, &plan, &runtime(1), &Silent).expect("errors") {
            let predicted = error.predicted.expect("predicted");
            prop_assert!((error.measured - predicted).abs() <= 2e-3 * (1.0 + predicted), "{method:?} M = {n_atoms} of {n_tasks}: {error:?}");
        }
        // The bits do not depend on threads.
        let again = top.path().join("again");
        compress(&plan, &options(&again, method, n_atoms), &runtime(1), &Silent).expect("a basis");
        prop_assert!(contents(&folder) == contents(&again));

        // With as many atoms as tasks nothing is lost.
        let full = compress(&plan, &options(&folder, Method::Identity, n_tasks), &runtime(2), &Silent).expect("a basis").basis;
        let alpha: Vec<f64> = (0..n_tasks).map(|task| [1.0, -0.5, 0.25][task % 3]).collect();
        let edit = Edit::new(alpha, 0.8);
        let outputs = [("basis", Source::Basis(&full)), ("originals", Source::Checkpoints(&plan))].map(|(name, source)| {
            let target = top.path().join(format!("{name}-edit"));
            let output = EditOutput::new(&target);
            let job = EditJob { source, edit: &edit, base: Some(&plan.base), output: &output };
            job.write(&runtime(2), &Silent).expect("an edit");
            Checkpoint::open(&target).expect("an edited checkpoint")
        });
        for tensor in &plan.tensors {
            let (a, dtype) = floats(&outputs[0], &tensor.name);
            let (b, _) = floats(&outputs[1], &tensor.name);
            let step = match dtype { tvb_kernels::Dtype::F32 | tvb_kernels::Dtype::F64 => 1e-6, tvb_kernels::Dtype::F16 => 1e-3, tvb_kernels::Dtype::Bf16 => 8e-3 };
            for (a, b) in a.iter().zip(&b) {
                prop_assert!((a - b).abs() <= step * (1.0 + b.abs()), "{}: {a} and {b}", tensor.name);
            }
        }
    }
}

/// Cuts, flips, doubles, swaps and writes over parts of a file; sometimes with pieces that mean something to a reader.
fn mutilate(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    const PIECES: [&[u8]; 16] = [
        b"../",
        b"\"",
        b"{",
        b"}",
        b"[",
        b"-1",
        b"0",
        b"18446744073709551615",
        b"1e999",
        b"null",
        b"\0",
        b"\\u0000",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b",",
        b"NaN",
        b"[[job]]\nname=",
    ];
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(12)).min(bytes.len());
        match random.below(7) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            4 if at < bytes.len() => bytes[at] = random.bits() as u8,
            5 => drop(bytes.splice(at..end, PIECES[random.below(PIECES.len())].iter().copied())),
            _ => drop(bytes.splice(at..at, PIECES[random.below(PIECES.len())].iter().copied())),
        }
    }
    bytes
}

/// Leaves the seeds of a fuzz target in the folder that `TVB_SEEDS` names, as `cargo xtask fuzz` asks for.
fn keep_seeds(target: &str, seeds: &[Vec<u8>]) {
    let Some(folder) = std::env::var_os("TVB_SEEDS") else { return };
    let folder = Path::new(&folder).join("corpus").join(target);
    std::fs::create_dir_all(&folder).expect("a folder");
    for seed in seeds {
        // Several tests have seeds for one target.
        std::fs::write(folder.join(format!("seed-{:032x}", Digest::of(seed).0)), seed).expect("written");
    }
}

/// Leaves a whole folder for fuzz targets that mutilate one file of it.
fn keep_probe(name: &str, from: &Path) {
    let Some(folder) = std::env::var_os("TVB_SEEDS") else { return };
    let folder = Path::new(&folder).join("probe").join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    for (file, bytes) in contents(from) {
        std::fs::write(folder.join(file), bytes).expect("written");
    }
}

/// Feeds a reader with mutilated copies of `seeds`; it may refuse, and must not panic. Answers how many it took.
fn feed(what: &str, seeds: &[Vec<u8>], read: impl Fn(&[u8]) -> bool) -> usize {
    let mut random = Random(Digest::of(what.as_bytes()).0 as u64 ^ u64::from(number::<u32>("TVB_SEED", 0)));
    let n_fed = number("TVB_MUTATIONS", 300);
    let mut n_taken = 0;
    for round in 0..n_fed {
        let bytes = mutilate(&seeds[random.below(seeds.len())], &mut random);
        match catch_unwind(AssertUnwindSafe(|| read(&bytes))) {
            Ok(taken) => n_taken += usize::from(taken),
            Err(_) => panic!("{what}: round {round} panics on {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
    println!("{what}: {n_fed} fed, {n_taken} taken");
    n_taken
}

/// Replaces the sealed digest by zeros and seals again, so that a damaged file gets past its checksum.
fn resealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let prefix = b"xxh3-128:";
    let checksum = bytes.windows(9).position(|w| w == b"checksum\"").map_or(0, |at| at);
    if let Some(at) = bytes[checksum..].windows(prefix.len()).position(|window| window == prefix) {
        let digits = checksum + at + prefix.len();
        if digits + 32 <= bytes.len() {
            bytes[digits..digits + 32].fill(b'0');
            seal::seal(&mut bytes);
        }
    }
    bytes
}

#[test]
fn readers_refuse_mutilated_files_and_never_panic() {
    let top = tempfile::tempdir().expect("a folder");
    let model = Model { shapes: vec![(vec![4, 3], 0), (vec![5], 1)], n_tasks: 3, n_shards: 2, seed: 4 };
    let plan = plan(top.path(), &model);
    let folder = top.path().join("basis");
    compress(&plan, &options(&folder, Method::Pca, 2), &runtime(1), &Silent).expect("a basis");
    let read = |path: &Path| std::fs::read(path).expect("read");
    let sealed = [read(&folder.join("basis.json"))];
    let path = Path::new("basis.json");
    keep_probe("basis", &folder);
    keep_seeds("basis_manifest", &sealed);
    feed("manifest as it is", &sealed, |bytes| Manifest::from_bytes(bytes, path).is_ok());
    let n_taken = feed("manifest, sealed anew", &sealed, |bytes| Manifest::from_bytes(&resealed(bytes), path).is_ok());
    assert!(n_taken > 0, "resealing gets nothing past the checksum");

    // A whole basis whose manifest was damaged and sealed again: everything that reads one.
    let probe = top.path().join("probe");
    std::fs::create_dir(&probe).expect("a folder");
    contents(&folder).iter().for_each(|(name, bytes)| std::fs::write(probe.join(name), bytes).expect("written"));
    feed("basis with a mutilated manifest", &sealed, |bytes| {
        std::fs::write(probe.join("basis.json"), resealed(bytes)).expect("written");
        let Ok(basis) = Basis::open(&probe) else { return false };
        let checks = verify_files(&basis, &runtime(1), &Silent);
        let edit = Edit::new(vec![1.0; basis.n_tasks()], 1.0);
        let _ = edit.predict(&basis);
        let _ = edit.edits(Source::Basis(&basis));
        checks.is_ok_and(|checks| checks.iter().all(|check| check.damage.is_none()))
    });
    let coefficients = [read(&folder.join("coefficients.safetensors"))];
    keep_seeds("basis_coefficients", &coefficients);
    feed("basis with mutilated coefficients", &coefficients, |bytes| {
        std::fs::write(probe.join("coefficients.safetensors"), bytes).expect("written");
        let manifest = String::from_utf8(sealed[0].clone()).expect("UTF-8");
        let mut stored: Manifest = serde_json::from_str(&manifest).expect("a manifest");
        stored.coefficients.checksum = Digest::of(bytes);
        std::fs::write(probe.join("basis.json"), stored.to_bytes().expect("bytes")).expect("written");
        Basis::open(&probe).and_then(|basis| basis.solved()).is_ok()
    });

    let gram_path = top.path().join("gram.safetensors");
    make_gram_file(&plan, &gram_path, Existing::Refuse, &runtime(1), &Silent).expect("a Gram file");
    let gram = [read(&gram_path)];
    keep_seeds("gram_file", &gram);
    let part_path = top.path().join("part");
    let part = Part::new(1, 2).expect("a part");
    gram_part(&plan, part, &part_path, Existing::Refuse, &runtime(1), &Silent).expect("a part");
    let part = [read(&part_path)];
    keep_seeds("part_file", &part);
    feed("part, sealed anew", &part, |bytes| {
        let record = part_file::from_bytes(&resealed(bytes));
        record.is_ok_and(|record| record.plan.plan(Path::new("part"), &Budget::default()).is_ok())
    });
    feed("Gram file, sealed anew", &gram, |bytes| gram_file::from_bytes(&resealed(bytes)).is_ok());

    let atom = [read(&folder.join("atom-00.safetensors"))];
    let header = atom.iter().map(|bytes| {
        let end = 8 + bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length) as usize);
        [&((bytes.len() - end) as u64).to_le_bytes(), &bytes[8..end]].concat()
    });
    keep_seeds("safetensors_header", &header.collect::<Vec<_>>());
    let file = top.path().join("mutilated.safetensors");
    feed("safetensors file", &atom, |bytes| {
        std::fs::write(&file, bytes).expect("written");
        Checkpoint::open(&file).is_ok()
    });
    let index = [read(&top.path().join("base/model.safetensors.index.json"))];
    keep_seeds("shard_index", &index);
    feed("shard index", &index, |bytes| ShardIndex::parse(bytes).is_ok());

    let jobs = [
        b"[defaults]\nbase='b'\ntasks=['a','b=c']\nm=[1,2]\noutput='o/{job}-{m}-{method}'\n[[job]]\nname='x'\nmethod=['pca','ae']\nlr=0.1\n[[job]]\nname='y'\nratio=0.5\ndtype='bf16'\nafter=[{add={tasks=['a:0.5'],scale=0.3,output='{job}'}},{analogy={tasks=['a','b','a'],output='q'}}]\n".to_vec(),
        b"work='w'\n[[job]]\nname='z'\nbase='b'\ntasks='a'\nweights={a=2}\noutput='o'\n[[job.after]]\napply={expression='a - 0.5*a',output='p',delta=true}\n".to_vec(),
    ];
    keep_seeds("job_file", &jobs);
    feed("job file", &jobs, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        JobFile::parse(text).and_then(|file| Batch::new(&file, Path::new("/nowhere/jobs.toml"))).is_ok()
    });
    let recipes = [
        b"models:\n- model: &b b\n- {model: a@v+c, parameters: {weight: [0, 1e-1], density: [{filter: mlp, value: .5}, {value: 1}]}}\nmerge_method: ties\nbase_model: *b\ndtype: float16\n".to_vec(),
        b"slices:\n- sources: [{model: a, layer_range: [0, 2]}, {model: 'b', layer_range: [0, 2]}]\n  parameters: {t: \"0.5\"}\nmerge_method: slerp\nbase_model: a\ntvb: {like: paper, rename: ['s/a/b/']}\n".to_vec(),
    ];
    keep_seeds("merge_recipe", &recipes);
    feed("recipe", &recipes, |bytes| {
        let Ok(recipe) =
            std::str::from_utf8(bytes).map_err(|_| ()).and_then(|text| Recipe::parse(text).map_err(|_| ()))
        else {
            return false;
        };
        let again = Recipe::parse(&recipe.to_yaml()).expect("a recipe that was written");
        assert_eq!(again.to_yaml(), recipe.to_yaml());
        recipe.settings("layers.1.mlp.w", Some((1, 2))).is_ok()
    });
    let names = ["a", "b c", "mnist"].map(String::from);
    let expressions = [b"a + 0.5*(b - 2*mnist) / 4 - -a".to_vec(), b"\"b c\" * 1e-3 + 'a'".to_vec()];
    keep_seeds("expression", &expressions);
    feed("expression", &expressions, |bytes| {
        std::str::from_utf8(bytes).is_ok_and(|text| tvb::arithmetic::expression(&names, text).is_ok())
    });
}

/// The small files of the published bases, one mutilated at a time.
#[test]
fn coded_atoms_that_are_mutilated_are_refused_or_read() {
    let top = tempfile::tempdir().expect("a folder");
    let read = |path: &Path| std::fs::read(path).expect("a file");
    let model = Model { shapes: vec![(vec![40, 30], 0), (vec![5], 1)], n_tasks: 2, n_shards: 1, seed: 4 };
    let folder = top.path().join("coded");
    compress(&plan(top.path(), &model), &CompressOptions::new(&folder), &runtime(1), &Silent).expect("a basis");
    keep_probe("coded", &folder);
    let manifest = [read(&folder.join("basis.json"))];
    keep_seeds("basis_manifest", &manifest);
    let use_it = || {
        let Ok(basis) = Basis::open(&folder) else { return false };
        let _ = verify_files(&basis, &runtime(1), &Silent);
        let edit = Edit::new(vec![1.0; basis.n_tasks()], 1.0);
        let _ = edit.predict(&basis);
        edit.edits(Source::Basis(&basis)).is_ok()
    };
    let n_taken = feed("basis with a mutilated manifest of codes", &manifest, |bytes| {
        std::fs::write(folder.join("basis.json"), resealed(bytes)).expect("written");
        use_it()
    });
    assert!(n_taken > 0, "nothing gets past the checksum");
    std::fs::write(folder.join("basis.json"), &manifest[0]).expect("written");
    let mut seeds = Vec::new();
    for (number, name) in ["atom-00.safetensors", "atom-02.safetensors"].into_iter().enumerate() {
        let whole = read(&folder.join(name));
        seeds.push([vec![number as u8], whole.clone()].concat());
        feed(&format!("coded {name}"), std::slice::from_ref(&whole), |bytes| {
            std::fs::write(folder.join(name), bytes).expect("written");
            use_it()
        });
        std::fs::write(folder.join(name), whole).expect("written");
    }
    keep_seeds("coded_atom", &seeds);
}

#[test]
fn published_bases_with_a_mutilated_file_are_refused_or_read() {
    let fixtures = fixture("reference/published");
    let top = tempfile::tempdir().expect("a folder");
    let mut seeds = Vec::new();
    let files: [(&str, [&str; 3]); 4] = [
        ("AE", ["AWB.pt", "basis_vectors.pt", "method_info.json"]),
        ("PCA", ["pca_components.pt", "basis_vectors.pt", "method_info.json"]),
        ("Random", ["random_basis.pt", "basis_vectors.pt", "method_info.json"]),
        ("RandomSample", ["random_selection.json", "basis_vectors.pt", "method_info.json"]),
    ];
    for (index, (method, files)) in files.into_iter().enumerate() {
        let from = fixtures.join(format!("ViT-tiny_{method}_M4_8task"));
        keep_probe(method, &from);
        let probe = top.path().join(method);
        std::fs::create_dir(&probe).expect("a folder");
        contents(&from).iter().for_each(|(name, bytes)| std::fs::write(probe.join(name), bytes).expect("written"));
        for (number, file) in files.into_iter().enumerate().filter(|(_, file)| *file != "basis_vectors.pt") {
            let whole = std::fs::read(from.join(file)).expect("read");
            seeds.push([vec![(3 * index + number) as u8], whole.clone()].concat());
            let output = top.path().join("imported");
            feed(&format!("published {method}, {file}"), std::slice::from_ref(&whole), |bytes| {
                std::fs::write(probe.join(file), bytes).expect("written");
                // Stopped at the first chunk: what is read before it is what can be hostile.
                let result = tvb::jobs::interop::import(&probe, &output, Existing::Refuse, &runtime(1), &Stopped);
                assert!(!output.exists(), "something was left");
                result.is_err_and(|error| error.kind() == tvb::ErrorKind::Interrupted)
            });
            std::fs::write(probe.join(file), whole).expect("written");
        }
    }
    keep_seeds("published_basis", &seeds);
}

/// Stops every pass before its first chunk.
struct Stopped;

impl tvb::progress::Progress for Stopped {
    fn begin(&self, _stage: &'static str, _total_bytes: u64) {}
    fn advance(&self, _n_bytes: u64) {}
    fn finish(&self) {}
    fn note(&self, _line: &str) {}
    fn cancelled(&self) -> bool {
        true
    }
}
