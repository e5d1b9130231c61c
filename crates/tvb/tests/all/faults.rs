//! Faults put in on purpose: passes stopped at every chunk, flipped bits, inputs that change or shrink under the reader,
//! links that lead out of a basis.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use tvb::ErrorKind;
use tvb::basis::Basis;
use tvb::basis::atoms::AtomFiles;
use tvb::basis::gram_file;
use tvb::checkpoint::{Checkpoint, Dtype, Existing};
use tvb::columns::plan::{Plan, Selection, Task};
use tvb::digest::Digest;
use tvb::jobs::bookmarks::BookmarkFolder;
use tvb::jobs::compress::{CompressOptions, compress};
use tvb::jobs::edit::{Edit, EditJob, EditOutput, Source};
use tvb::jobs::gram::make_gram_file;
use tvb::jobs::recover::{RecoverOptions, recover};
use tvb::jobs::verify::{verify_errors, verify_files};
use tvb::ops::gram::{gram, gram_from};
use tvb::ops::project::{Projection, find_bookmark, project_from};
use tvb::pass::bookmark::{Bookmark, Bookmarks, PassName};
use tvb::pass::{Reads, Runtime};
use tvb::progress::{Progress, Silent};
use tvb::solve::Method;
use tvb_tests::small_models::{Random, Run, contents, write_run};

fn runtime() -> Runtime {
    Runtime::on_cpu(2, 64 << 20)
}

fn plan(run: &Run) -> Plan {
    let task = |(index, path): (usize, &PathBuf)| Task {
        name: format!("task{index}"),
        checkpoint: Checkpoint::open(path).expect("a task"),
    };
    let tasks = run.tasks.iter().enumerate().map(task).collect();
    Plan::new(Checkpoint::open(&run.base).expect("a base"), tasks, &Selection::default()).expect("a plan")
}

fn options(output: &Path) -> CompressOptions {
    CompressOptions::mixtures(output).method(Method::Pca).atoms(2)
}

/// Three chunks of the first tensor, two of the second, some small tensors.
const SHAPES: &[&[usize]] = &[&[40_000], &[3, 5], &[0], &[300, 100], &[2]];

/// Keeps bookmarks in memory, one after every chunk.
#[derive(Default)]
struct InMemory {
    kept: Option<(PassName, Digest, Bookmark)>,
    /// Told of every bookmark, so that a run can be stopped after so many.
    n_put: AtomicUsize,
}

impl Bookmarks for InMemory {
    fn find(&mut self, pass: PassName, recipe: Digest) -> Option<Bookmark> {
        let (kept_pass, kept_recipe, bookmark) = self.kept.as_ref()?;
        ((*kept_pass, *kept_recipe) == (pass, recipe)).then(|| bookmark.clone())
    }

    fn is_due(&self) -> bool {
        true
    }

    fn put(&mut self, pass: PassName, recipe: Digest, bookmark: &Bookmark) -> tvb::Result<()> {
        if self.n_put.load(Ordering::Relaxed) == 0 {
            return Err(tvb::Error::interrupted());
        }
        self.n_put.fetch_sub(1, Ordering::Relaxed);
        self.kept = Some((pass, recipe, bookmark.clone()));
        Ok(())
    }
}

impl InMemory {
    fn stopped_after(n_put: usize) -> InMemory {
        InMemory { kept: None, n_put: AtomicUsize::new(n_put) }
    }

    fn go_on(&mut self) {
        self.n_put.store(usize::MAX, Ordering::Relaxed);
    }
}

#[test]
fn passes_stopped_after_any_chunk_end_with_the_same_bits() {
    let top = tempfile::tempdir().expect("a folder");
    let run = write_run(top.path(), SHAPES, 3, 1);
    let (plan, runtime) = (plan(&run), runtime());
    let whole = gram(&plan, &runtime, &Silent).expect("a Gram matrix");
    let expected = gram_file::to_bytes(&whole).expect("bytes");
    let n_chunks = 3 + 1 + 2 + 1;
    let mut n_stopped = 0;
    for n_put in 0..=n_chunks {
        let mut bookmarks = InMemory::stopped_after(n_put);
        match gram_from(&plan, &Reads::new(), &runtime, &Silent, &mut bookmarks) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Interrupted);
                n_stopped += 1;
            }
        }
        bookmarks.go_on();
        let resumed = gram_from(&plan, &Reads::new(), &runtime, &Silent, &mut bookmarks).expect("a Gram matrix");
        assert!(gram_file::to_bytes(&resumed).expect("bytes") == expected, "stopped after {n_put} chunks");
    }
    assert!(n_stopped >= 4, "{n_stopped} stops only: the chunks are not what this test thinks");

    let encode = tvb::matrix::Matrix::from_fn(3, 2, |t, m| 0.25 * (t + 2 * m) as f64 - 0.3);
    let projection =
        Projection { plan: &plan, grams: &whole, encode: &encode, dtype: tvb_kernels::Dtype::F32, clip: false };
    let stored = whole.tensors.iter().filter(|tensor| !tensor.frozen);
    let tensors: Vec<_> = stored.map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
    let folder = |name: &str| {
        let folder = top.path().join(name);
        std::fs::create_dir(&folder).expect("a folder");
        folder
    };
    let reference = folder("reference");
    let sink = AtomFiles::create(&reference, 2, &tensors, Dtype::F32).expect("a sink");
    let mut never = InMemory::default();
    never.go_on();
    let reads = Reads::new();
    let digests = project_from(&projection, &reads, &sink, None, &runtime, &Silent, &mut never).expect("atoms");
    let records = sink.finish(&digests.digests, &Silent).expect("atoms");
    for n_put in 0..=n_chunks {
        let folder = folder(&format!("stopped{n_put}"));
        let sink = AtomFiles::create(&folder, 2, &tensors, Dtype::F32).expect("a sink");
        let mut bookmarks = InMemory::stopped_after(n_put);
        let _ = project_from(&projection, &reads, &sink, None, &runtime, &Silent, &mut bookmarks);
        bookmarks.go_on();
        let bookmark = find_bookmark(&projection, &runtime, &mut bookmarks);
        assert_eq!(bookmark.is_some(), n_put > 0);
        let sink = AtomFiles::reopen(&folder, 2, &tensors, Dtype::F32).expect("what was left");
        let again =
            project_from(&projection, &reads, &sink, bookmark, &runtime, &Silent, &mut bookmarks).expect("atoms");
        let again = sink.finish(&again.digests, &Silent).expect("atoms");
        assert_eq!(again, records);
        assert!(contents(&folder) == contents(&reference), "stopped after {n_put} chunks");
    }
    // Another recipe, other tensors or another length: nothing to resume.
    let other = tvb::matrix::Matrix::from_fn(3, 2, |t, m| (t + m) as f64);
    assert!(find_bookmark(&Projection { encode: &other, ..projection }, &runtime, &mut never).is_none());
    assert!(AtomFiles::reopen(&reference, 2, &tensors[1..], Dtype::F32).is_none());
    assert!(AtomFiles::reopen(&reference, 3, &tensors, Dtype::F32).is_none());
    assert!(AtomFiles::reopen(&reference, 2, &tensors, Dtype::F16).is_none());
}

/// Whether a reader of the basis says so: by opening it, by verifying it, by forming an edit.
#[track_caller]
fn check_noticed(folder: &Path, file: &str, base: &Checkpoint, what: &str) {
    let runtime = runtime();
    let target = folder.with_file_name("edited.safetensors");
    let error = match Basis::open(folder) {
        Err(error) => error,
        Ok(basis) => {
            let checks = verify_files(&basis, &runtime, &Silent).expect("an answer");
            let damaged: Vec<&str> = checks.iter().filter(|c| c.damage.is_some()).map(|c| c.file.as_str()).collect();
            assert_eq!(damaged, [file], "{what}");
            let edit = Edit::new(vec![1.0, 0.5, -1.0], 0.7);
            let output = EditOutput::new(&target);
            EditJob { source: Source::Basis(&basis), edit: &edit, base: Some(base), output: &output }
                .write(&runtime, &Silent)
                .expect_err(what)
        }
    };
    assert!(error.message().contains(file.trim_end_matches(".safetensors")), "{what}: {file} not named in: {error}");
    assert_eq!(error.message().lines().count(), 1, "{what}: {error}");
    assert!(
        !target.exists() && !folder.with_file_name("edited.safetensors.partial").exists(),
        "{what}: an output was left"
    );
}

#[test]
fn a_flipped_bit_anywhere_in_a_basis_is_noticed_and_named() {
    let top = tempfile::tempdir().expect("a folder");
    let run = write_run(top.path(), &[&[50, 30], &[17]], 3, 2);
    let folder = top.path().join("basis");
    compress(&plan(&run), &options(&folder), &runtime(), &Silent).expect("a basis");
    let base = Checkpoint::open(&run.base).expect("a base");
    let files = contents(&folder);
    assert_eq!(files.len(), 5, "{:?}", files.keys());
    let mut random = Random(3);
    let n_flips = tvb_tests::number("TVB_FLIPS", 24);
    for (name, bytes) in &files {
        let (name, path) = (name.to_string_lossy(), folder.join(name));
        for flip in 0..n_flips {
            // The first bytes, where lengths and headers are, as often as all others together.
            let at = random.below(if flip % 2 == 0 { bytes.len().min(64) } else { bytes.len() });
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << random.below(8);
            std::fs::write(&path, &damaged).expect("written");
            check_noticed(&folder, &name, &base, &format!("{name}: byte {at} flipped"));
        }
        for len in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..len]).expect("written");
            check_noticed(&folder, &name, &base, &format!("{name}: cut to {len} bytes"));
        }
        std::fs::remove_file(&path).expect("removed");
        check_noticed(&folder, &name, &base, &format!("{name}: removed"));
        std::fs::write(&path, bytes).expect("written");
    }
    let basis = Basis::open(&folder).expect("whole again");
    assert!(verify_files(&basis, &runtime(), &Silent).expect("an answer").iter().all(|check| check.damage.is_none()));
}

#[test]
fn a_run_with_other_threads_finds_the_bookmark_and_one_with_other_inputs_does_not() {
    let top = tempfile::tempdir().expect("a folder");
    let (run, other) = (write_run(top.path(), SHAPES, 2, 3), top.path().join("other"));
    std::fs::create_dir(&other).expect("a folder");
    let other = write_run(&other, SHAPES, 2, 3);
    let folder = |run: &Run, n_threads| {
        let runtime = runtime().with_threads(n_threads);
        BookmarkFolder::new(top.path().join("bookmarks"), &plan(run), &runtime)
    };
    let bookmark = Bookmark::start(3, 2, &[2]);
    folder(&run, 2).put(PassName::Gram, Digest(1), &bookmark).expect("put");
    assert_eq!(folder(&run, 7).find(PassName::Gram, Digest(1)), Some(bookmark));
    assert_eq!(folder(&run, 2).find(PassName::Gram, Digest(2)), None);
    assert_eq!(folder(&run, 2).find(PassName::Atoms, Digest(1)), None);
    assert_eq!(folder(&other, 2).find(PassName::Gram, Digest(1)), None);
}

#[cfg(unix)]
#[test]
fn links_out_of_a_basis_are_refused() {
    let top = tempfile::tempdir().expect("a folder");
    let run = write_run(top.path(), &[&[50]], 3, 4);
    let folder = top.path().join("basis");
    compress(&plan(&run), &options(&folder), &runtime(), &Silent).expect("a basis");
    for name in ["atom-01.safetensors", "coefficients.safetensors", "basis.json"] {
        let (inside, outside) = (folder.join(name), top.path().join("outside"));
        std::fs::rename(&inside, &outside).expect("moved");
        std::os::unix::fs::symlink(&outside, &inside).expect("linked");
        let error = Basis::open(&folder).and_then(|basis| basis.open_atom(1)).expect_err("a link out");
        assert!(error.message().contains("symbolic link out of the folder"), "{error}");
        std::fs::remove_file(&inside).expect("removed");
        std::fs::rename(&outside, &inside).expect("moved");
    }
}

#[test]
fn inputs_that_change_between_the_passes_are_refused() {
    let top = tempfile::tempdir().expect("a folder");
    let run = write_run(top.path(), SHAPES, 3, 5);
    let gram_path = top.path().join("gram.safetensors");
    make_gram_file(&plan(&run), &gram_path, Existing::Refuse, &runtime(), &Silent).expect("a Gram file");
    let output = top.path().join("basis");
    let with_gram = options(&output).gram(Some(gram_path));
    for (path, name) in [(&run.base, "base"), (&run.tasks[1], "task task1")] {
        let original = std::fs::read(path).expect("read");
        let mut changed = original.clone();
        let at = changed.len() - 3;
        changed[at] ^= 1;
        std::fs::write(path, &changed).expect("written");
        let error = compress(&plan(&run), &with_gram, &runtime(), &Silent).expect_err("another input");
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert!(error.message().contains(name) && error.message().contains("tensor t"), "{error}");
        assert!(!output.exists() && !top.path().join("basis.partial").exists());
        std::fs::write(path, &original).expect("written");
    }
    compress(&plan(&run), &with_gram, &runtime(), &Silent).expect("the inputs are what they were");
}

/// Does something once, when the first bytes of a stage are done.
struct Meanwhile<F: Fn() + Sync> {
    stage: &'static str,
    act: F,
    is_running: std::sync::atomic::AtomicBool,
}

impl<F: Fn() + Sync> Progress for Meanwhile<F> {
    fn begin(&self, stage: &'static str, _total_bytes: u64) {
        self.is_running.store(stage == self.stage, Ordering::SeqCst);
    }
    fn advance(&self, n_bytes: u64) {
        if n_bytes > 0 && self.is_running.swap(false, Ordering::SeqCst) {
            (self.act)();
        }
    }
    fn finish(&self) {}
    fn note(&self, _line: &str) {}
}

#[test]
fn inputs_that_change_or_shrink_while_they_are_read_are_noticed() {
    let top = tempfile::tempdir().expect("a folder");
    let cut =
        |path: &Path| std::fs::File::options().write(true).open(path).and_then(|file| file.set_len(1000)).expect("cut");
    let touch = |path: &Path| {
        let mut bytes = std::fs::read(path).expect("read");
        bytes.push(0);
        std::fs::write(path, &bytes).expect("written");
    };
    let remove = |path: &Path| std::fs::remove_file(path).expect("removed");
    type Act<'a> = &'a (dyn Fn(&Path) + Sync);
    let cases: [(&'static str, Act<'_>, &str); 4] = [
        ("gram", &cut, "task1.safetensors"),
        ("gram", &touch, "task1.safetensors: changed while it was in use"),
        ("gram", &remove, "task1.safetensors: changed while it was in use: it was removed"),
        ("project", &cut, "task1"),
    ];
    for (number, (stage, act, message)) in cases.into_iter().enumerate() {
        let folder = top.path().join(number.to_string());
        std::fs::create_dir(&folder).expect("a folder");
        let run = write_run(&folder, &[&[40_000], &[40_000], &[400_000]], 2, 6);
        let path = run.tasks[1].clone();
        let meanwhile = Meanwhile { stage, act: || act(&path), is_running: false.into() };
        let output = folder.join("basis");
        // Too little memory to keep the inputs: they are read again in the second pass.
        let one_thread = Runtime::on_cpu(1, 4 << 20);
        let error = compress(&plan(&run), &options(&output), &one_thread, &meanwhile).expect_err("a changed input");
        assert!(error.message().contains(message), "{stage}: {message:?} expected, found {error}");
        assert_eq!(error.message().lines().count(), 1);
        assert!(!output.exists() && !folder.join("basis.partial").exists(), "{stage}");
    }
}

#[test]
fn inputs_that_change_while_an_edit_is_formed_are_noticed() {
    let top = tempfile::tempdir().expect("a folder");
    let touch = |path: &Path| {
        let mut bytes = std::fs::read(path).expect("read");
        bytes.push(0);
        std::fs::write(path, &bytes).expect("written");
    };
    // Which file changes in which stage, and what is done then.
    let cases: [(&str, &str, &str); 9] = [
        ("reconstruct", "base", "edit of originals"),
        ("reconstruct", "task1", "edit of originals"),
        ("reconstruct", "base", "bare edit of originals"),
        ("reconstruct", "base", "edit of a basis"),
        ("reconstruct", "basis/atom-01", "edit of a basis"),
        ("reconstruct", "base", "edit of generated atoms"),
        ("reconstruct", "base", "recover"),
        ("verify", "task1", "verify"),
        ("random", "task0", "random"),
    ];
    for (number, (stage, changed, job)) in cases.into_iter().enumerate() {
        let folder = top.path().join(number.to_string());
        std::fs::create_dir(&folder).expect("a folder");
        let run = write_run(&folder, &[&[40_000], &[40_000], &[400_000]], 2, 6);
        // The last tensor takes no part: it is copied behind the pass.
        let selection = Selection::default().exclude("t2").expect("a pattern");
        let whole = plan(&run);
        let plan = Plan::new(whole.base, whole.tasks, &selection).expect("a plan");
        let random = CompressOptions::mixtures(folder.join("random")).method(Method::Random { seed: 1 }).atoms(1);
        let basis = || compress(&plan, &options(&folder.join("basis")), &runtime(), &Silent).expect("a basis").basis;
        let made = match job {
            "random" | "edit of originals" | "bare edit of originals" => None,
            "edit of generated atoms" => Some(compress(&plan, &random, &runtime(), &Silent).expect("a basis").basis),
            _ => Some(basis()),
        };
        let path = match changed {
            "base" => run.base.clone(),
            "task0" => run.tasks[0].clone(),
            "task1" => run.tasks[1].clone(),
            other => folder.join(format!("{other}.safetensors")),
        };
        let meanwhile = Meanwhile { stage, act: || touch(&path), is_running: false.into() };
        let one_thread = Runtime::on_cpu(1, 4 << 20);
        let target = folder.join("out.safetensors");
        let edit = Edit::new(vec![1.0, 0.5], 1.0);
        let source = made.as_ref().map_or(Source::Checkpoints(&plan), Source::Basis);
        let output = EditOutput::new(&target).delta(job.starts_with("bare"));
        let edit = EditJob { source, edit: &edit, base: Some(&plan.base), output: &output };
        let outcome = match (job, &made) {
            ("random", _) => compress(&plan, &random, &one_thread, &meanwhile).map(|_| ()),
            ("verify", Some(basis)) => verify_errors(basis, &plan, &one_thread, &meanwhile).map(|_| ()),
            ("recover", Some(basis)) => {
                let options = RecoverOptions::new(vec![0, 1], folder.join("recovered"));
                recover(basis, Some(&plan.base), &options, &one_thread, &meanwhile).map(|_| ())
            }
            _ => edit.write(&one_thread, &meanwhile).map(|_| ()),
        };
        let error = outcome.expect_err("a changed input");
        assert_eq!(error.kind(), ErrorKind::Rejected, "{job}: {error}");
        assert!(error.message().contains("changed while it was in use"), "{job}, {changed}: {error}");
        assert!(!target.exists() && !folder.join("recovered/task0.safetensors").exists(), "{job}, {changed}");
    }
}
