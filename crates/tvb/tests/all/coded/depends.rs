//! What codes depend on, and what not: threads, memory, a Gram file that is given, where a run was stopped.

use super::models::{Kind, ODD, coded, kind, options, plan, runtime, words, write_models};
use std::sync::atomic::{AtomicUsize, Ordering};
use tvb::ErrorKind;
use tvb::basis::atoms::{CodeFiles, ColumnRates};
use tvb::checkpoint::Existing;
use tvb::digest::Digest;
use tvb::jobs::compress::compress;
use tvb::jobs::gram::make_gram_file;
use tvb::ops::code::{CodedFrom, code, find_code_bookmark};
use tvb::ops::gram::gram;
use tvb::pass::bookmark::{Bookmark, Bookmarks, NoBookmarks, PassName};
use tvb::pass::{Reads, Runtime};
use tvb::progress::Silent;
use tvb::solve::Coding;
use tvb_kernels::{Dtype, Rate};
use tvb_tests::small_models::contents;

/// Several chunks in several tensors, frozen ones between them and at the end.
const SOME: &[Kind] = &[
    kind("a", &[300, 150], Dtype::F32, 0.1),
    kind("frozen", &[200, 100], Dtype::F32, 0.0),
    kind("bias", &[20_000], Dtype::F32, 0.1),
    kind("b", &[100, 333], Dtype::F32, 0.1),
    kind("none", &[0, 3], Dtype::F32, 0.1),
    kind("scale", &[], Dtype::F32, 0.1),
    kind("last", &[70, 300], Dtype::F32, 0.0),
];

#[test]
fn codes_depend_on_the_inputs_and_the_options_alone() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = plan(&write_models(top.path(), SOME, 3, 1));
    let words = words(Rate::Four, Some(Rate::Eight), &["t0 + t2"]);
    let reference = top.path().join("reference");
    let made = coded(&plan, &reference, &words);
    assert_eq!(made.read_bytes, plan.n_bytes(), "one read of everything");
    let expected = contents(&reference);
    let gram_path = top.path().join("gram.safetensors");
    make_gram_file(&plan, &gram_path, Existing::Refuse, &runtime(), &Silent).expect("a Gram file");
    let runs = [
        (Runtime::on_cpu(1, 64 << 20), None),
        (Runtime::on_cpu(5, 64 << 20), None),
        (Runtime::on_cpu(2, 2 << 20), None),
        (Runtime::on_cpu(3, 1 << 30), Some(gram_path.clone())),
        (Runtime::on_cpu(1, 2 << 20), Some(gram_path)),
    ];
    for (run, (runtime, gram)) in runs.into_iter().enumerate() {
        let folder = top.path().join(format!("run{run}"));
        let is_given = gram.is_some();
        let made = compress(&plan, &options(&plan, &folder, &words).gram(gram), &runtime, &Silent).expect("a basis");
        assert!(contents(&folder) == expected, "run {run}");
        assert!(
            if is_given { made.read_bytes < plan.n_bytes() } else { made.read_bytes == plan.n_bytes() },
            "run {run}"
        );
    }
    // Another seed has other codes, and nothing else.
    let folder = top.path().join("seed");
    let names: Vec<String> = plan.tasks.iter().map(|task| task.name.clone()).collect();
    let other = words.options(&names, &[], 7).expect("codes");
    let seeded = options(&plan, &folder, &words).coding(Some(other));
    compress(&plan, &seeded, &runtime(), &Silent).expect("a basis");
    let found = contents(&folder);
    let differ: Vec<_> = found.iter().filter(|(name, bytes)| expected.get(*name) != Some(bytes)).collect();
    assert!(differ.len() == 6 && !differ.iter().any(|(name, _)| name.ends_with("coefficients.safetensors")));
}

/// Keeps bookmarks in memory, one after every chunk, and stops the run after so many.
#[derive(Default)]
struct InMemory {
    kept: Option<(PassName, Digest, Bookmark)>,
    left: AtomicUsize,
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
        if self.left.load(Ordering::Relaxed) == 0 {
            return Err(tvb::Error::interrupted());
        }
        self.left.fetch_sub(1, Ordering::Relaxed);
        self.kept = Some((pass, recipe, bookmark.clone()));
        Ok(())
    }
}

#[test]
fn coding_stopped_after_any_chunk_ends_with_the_same_bytes() {
    let top = tempfile::tempdir().expect("a folder");
    let (plan, runtime) = (plan(&write_models(top.path(), SOME, 3, 2)), runtime());
    let grams = gram(&plan, &runtime, &Silent).expect("a Gram matrix");
    let coding = Coding::new(Rate::Three, Rate::Sixteen, 3, &[vec![1.0; 3]], 9);
    let rates = ColumnRates { rate: coding.rate, n_own: 3, kept_rate: coding.kept_rate, n_kept: 1 };
    let named = |moved_only: bool| -> Vec<(String, Vec<usize>)> {
        let all = grams.tensors.iter().filter(|tensor| !(moved_only && tensor.frozen));
        all.map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
    };
    let stored = named(true);
    let encode = tvb::matrix::Matrix::from_fn(3, 3, |t, m| if t == m { 1.0 } else { 0.1 });
    let sources = [
        (CodedFrom::Tasks(None), named(false)),
        (CodedFrom::Tasks(Some(&grams)), stored.clone()),
        (CodedFrom::Mixtures(&grams, &encode), stored.clone()),
    ];
    for (number, (from, tensors)) in sources.into_iter().enumerate() {
        let reference = top.path().join(format!("reference{number}"));
        std::fs::create_dir(&reference).expect("a folder");
        let mut files = CodeFiles::create(&reference, rates, &tensors).expect("files");
        let reads = Reads::new();
        let made = code(&plan, from, &coding, &reads, &mut files, None, &runtime, &Silent, &mut NoBookmarks);
        let made = made.expect("codes");
        let records = files.finish(&stored, &made.digests, &Silent).expect("atoms");
        let mut n_stopped = 0;
        for n_put in 0..20 {
            let folder = top.path().join(format!("stopped{number}-{n_put}"));
            std::fs::create_dir(&folder).expect("a folder");
            let mut bookmarks = InMemory { left: AtomicUsize::new(n_put), ..InMemory::default() };
            let mut files = CodeFiles::create(&folder, rates, &tensors).expect("files");
            let stopped = code(&plan, from, &coding, &reads, &mut files, None, &runtime, &Silent, &mut bookmarks);
            drop(files);
            match stopped {
                Ok(_) => break,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}"),
            }
            n_stopped += 1;
            bookmarks.left.store(usize::MAX, Ordering::Relaxed);
            let found = find_code_bookmark(&plan, from, &coding, &runtime, &mut bookmarks);
            assert_eq!(found.is_some(), n_put > 0);
            let (mut files, bookmark) = match found {
                Some((bookmark, resumed)) => {
                    (CodeFiles::reopen(&folder, rates, &tensors, &resumed).expect("what was left"), Some(bookmark))
                }
                None => {
                    std::fs::remove_dir_all(&folder).expect("removed");
                    std::fs::create_dir(&folder).expect("a folder");
                    (CodeFiles::create(&folder, rates, &tensors).expect("files"), None)
                }
            };
            let again = code(&plan, from, &coding, &reads, &mut files, bookmark, &runtime, &Silent, &mut bookmarks);
            let again = again.expect("codes");
            assert_eq!(again.measured, made.measured);
            assert_eq!(files.finish(&stored, &again.digests, &Silent).expect("atoms"), records);
            assert!(contents(&folder) == contents(&reference), "source {number}, stopped after {n_put} chunks");
            // Another recipe has nothing to resume.
            let other = Coding { seed: 10, ..coding.clone() };
            assert!(find_code_bookmark(&plan, from, &other, &runtime, &mut bookmarks).is_none());
        }
        assert!(n_stopped >= 4, "{n_stopped} stops only");
    }
}

#[test]
fn frozen_tensors_take_no_room_wherever_they_are() {
    let top = tempfile::tempdir().expect("a folder");
    for (name, kinds) in [("odd", ODD), ("some", SOME)] {
        let folder = top.path().join(name);
        std::fs::create_dir(&folder).expect("a folder");
        let paths = write_models(&folder, kinds, 2, 6);
        let all = plan(&paths);
        let whole = folder.join("whole");
        let basis = coded(&all, &whole, &words(Rate::Signs, Some(Rate::Four), &[])).basis;
        let bytes = std::fs::read(whole.join("atom-00.safetensors")).expect("read");
        assert_eq!(bytes.len() as u64, basis.manifest.atoms[0].bytes);
        let shapes: Vec<Vec<usize>> =
            basis.manifest.coded.expect("codes").tensors.into_iter().map(|tensor| tensor.shape).collect();
        let n_codes = tvb::columns::coded::column_bytes(&shapes, Rate::Signs, true);
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("a length"));
        assert_eq!(bytes.len() as u64, header + n_codes, "{name}");
    }
}
