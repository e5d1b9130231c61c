//! A basis in parts: the joined folder has the bytes of one run's, for every method and storage, whatever the parts, their order
//! and their machines, and wherever their rows were written; and what is said of parts that do not belong together.

use crate::factors::{self, Factors};
use crate::gpu_device::write_plan;
use std::path::{Path, PathBuf};
use tvb::checkpoint::Existing;
use tvb::jobs::compress::{CodingOptions, CompressOptions, Size, compress};
use tvb::jobs::gram::make_gram_file;
use tvb::jobs::parts::{JoinOptions, Joined, compress_part, join};
use tvb::pass::{Part, Runtime, SPAN_ROWS};
use tvb::progress::Silent;
use tvb::solve::{MaxError, Method};
use tvb::units::Amount;
use tvb::{ErrorKind, Plan, Rate};
use tvb_kernels::Dtype;
use tvb_tests::small_models::{Random, Shape, Stored, contents, values};

fn runtime() -> Runtime {
    Runtime::on_cpu(2, 512 << 20)
}

/// Every part by itself, with other threads and memory than the others.
fn parts(
    plan: &Plan,
    options: &dyn Fn(&Path) -> CompressOptions,
    n_parts: usize,
    folder: &Path,
    into: Option<&Path>,
) -> Vec<PathBuf> {
    let part = |part: Part| {
        let path = folder.join(format!("part-{}-of-{n_parts}", part.number()));
        let runtime = Runtime::on_cpu(1 + part.number() % 3, (128 << 20) << (part.number() % 3));
        compress_part(plan, &options(&path), part, into, &runtime, &Silent).expect("a part");
        path
    };
    Part::all(n_parts).expect("parts").into_iter().map(part).collect()
}

/// Joined parts are one run, in any order.
#[track_caller]
fn check(what: &str, plan: &Plan, options: &dyn Fn(&Path) -> CompressOptions, numbers: &[usize], shared: &[bool]) {
    let top = tempfile::tempdir().expect("a folder");
    let one = top.path().join("one");
    compress(plan, &options(&one), &runtime(), &Silent).expect("a basis");
    let expected = contents(&one);
    for &n_parts in numbers {
        for &is_shared in shared {
            let top = tempfile::tempdir().expect("a folder");
            let into = top.path().join("rows");
            let into = is_shared.then_some(into.as_path());
            let mut paths = parts(plan, options, n_parts, top.path(), into);
            let random = &mut Random(n_parts as u64);
            (1..paths.len()).rev().for_each(|at| paths.swap(at, random.below(at + 1)));
            let output = top.path().join("joined");
            let joined = join(&paths, &JoinOptions::new(&output), &runtime(), &Silent)
                .unwrap_or_else(|error| panic!("{what}, {n_parts} parts, shared {is_shared}: {error}"));
            assert!(matches!(joined, Joined::Basis(_)));
            let found = contents(&output);
            assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
            for (name, bytes) in &expected {
                assert!(found[name] == *bytes, "{what}, {n_parts} parts, shared {is_shared}: other bytes in {name:?}");
            }
            let n_left = std::fs::read_dir(top.path()).expect("a folder").count();
            assert_eq!(n_left, n_parts + 1, "{what}: something is left behind");
        }
    }
}

fn zoo() -> Plan {
    let path = |name: &str| format!("../tvb-zoo/checkpoints/{name}.safetensors");
    Plan::open(path("base"), ["digits", "letters", "mazes", "waves"].map(path)).expect("a plan")
}

fn gram_file(plan: &Plan, folder: &Path) -> PathBuf {
    let path = folder.join("all.gram");
    make_gram_file(plan, &path, Existing::Refuse, &runtime(), &Silent).expect("a Gram file");
    path
}

#[test]
fn every_method_and_storage_of_trained_models_is_one_run() {
    let plan = zoo();
    let top = tempfile::tempdir().expect("a folder");
    let gram = gram_file(&plan, top.path());
    check("codes", &plan, &|output| CompressOptions::new(output), &[2, 7], &[false, true]);
    for method in Method::all() {
        let mixed = |output: &Path| {
            CompressOptions::mixtures(output).method(method.clone()).gram(Some(gram.clone())).size(Size::Atoms(2))
        };
        check(method.name(), &plan, &mixed, &[3], &[false, true]);
        let bf16 = |output: &Path| mixed(output).dtype(Dtype::Bf16);
        check(&format!("{} in bf16", method.name()), &plan, &bf16, &[2], &[false]);
        if method.stores_atoms() {
            let coded = |output: &Path| mixed(output).coding(Some(CodingOptions::default().bits(Rate::Four)));
            check(&format!("{} coded", method.name()), &plan, &coded, &[2], &[false, true]);
        }
    }
    let with_gram = |output: &Path| CompressOptions::new(output).gram(Some(gram.clone()));
    let bytes = |percent| Size::MaxBytes(Amount::Percent(percent));
    check("a budget of bytes for codes", &plan, &|output| with_gram(output).size(bytes(9.0)), &[2], &[false]);
    check("the same in one pass", &plan, &|output| CompressOptions::new(output).size(bytes(9.0)), &[2], &[false]);
    for size in [bytes(60.0), Size::MaxError(MaxError::Mean(0.2)), Size::MaxError(MaxError::Worst(0.5))] {
        check("a budget for codes", &plan, &|output| with_gram(output).size(size), &[2], &[false]);
        let mixed = |output: &Path| CompressOptions::mixtures(output).gram(Some(gram.clone())).size(size);
        check("a budget for mixtures", &plan, &mixed, &[2], &[false]);
        check("a budget for any storage", &plan, &|output| mixed(output).any_storage(true), &[2], &[false]);
    }
}

/// Tensors of several spans, some of which no task moves: at both ends, and where parts are cut.
fn large(folder: &Path) -> Plan {
    let shape = |name: &str, shape: &[usize], stored| Shape { name: name.into(), shape: shape.to_vec(), stored };
    let shapes = [
        shape("a.frozen", &[40, 500], Stored::F32),
        shape("b", &[1100, 1000], Stored::Bf16),
        shape("c", &[300], Stored::F32),
        shape("d.frozen", &[2 * SPAN_ROWS + 77], Stored::Bf16),
        shape("e", &[0, 5], Stored::F32),
        shape("f", &[SPAN_ROWS + 70_000], Stored::F16),
        shape("g", &[], Stored::F32),
        shape("h", &[513, 700], Stored::F32),
        shape("i.frozen", &[SPAN_ROWS + 3], Stored::F32),
    ];
    let (base, mut tasks) = values(&shapes, 3, &mut Random(5));
    for task in &mut tasks {
        for (index, shape) in shapes.iter().enumerate().filter(|(_, shape)| shape.name.ends_with("frozen")) {
            assert!(shape.shape != [0]);
            task[index].clone_from(&base[index]);
        }
    }
    write_plan(folder, &shapes, &base, &tasks)
}

#[test]
fn codes_of_cut_and_frozen_tensors_are_one_run() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = large(top.path());
    let gram = gram_file(&plan, top.path());
    let coded = |output: &Path, coding: CodingOptions| CompressOptions::new(output).coding(Some(coding));
    check("2 bits", &plan, &|output| CompressOptions::new(output), &[1, 2, 3, 7], &[false, true]);
    let half = CodingOptions::default().bits(Rate::Half).keep_bits(Some(Rate::Sixteen));
    check("half a bit", &plan, &|output| coded(output, half.clone()), &[3], &[false]);
    let alone = CodingOptions::default().bits(Rate::Sixteen).keep_bits(None).seed(9);
    check("4 bits, nothing kept", &plan, &|output| coded(output, alone.clone()), &[3], &[true]);
    let known = |output: &Path| CompressOptions::new(output).gram(Some(gram.clone()));
    check("with the Gram file", &plan, &known, &[2, 7], &[false, true]);
    let mixed = |output: &Path| CompressOptions::mixtures(output).gram(Some(gram.clone())).atoms(2);
    check("mixtures coded", &plan, &|output| mixed(output).coding(Some(half.clone())), &[3], &[false, true]);
}

#[test]
fn atoms_of_cut_and_frozen_tensors_are_one_run() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = large(top.path());
    let gram = gram_file(&plan, top.path());
    let mixed = |output: &Path| CompressOptions::mixtures(output).gram(Some(gram.clone())).atoms(2);
    check("f32", &plan, &mixed, &[1, 2, 3, 7], &[false, true]);
    check("f16", &plan, &|output| mixed(output).dtype(Dtype::F16), &[3], &[false, true]);
    let identity = |output: &Path| mixed(output).method(Method::Identity).dtype(Dtype::Bf16);
    check("tasks in bf16", &plan, &identity, &[2], &[false]);
    let random = |output: &Path| mixed(output).method(Method::Random { seed: 4 });
    check("random", &plan, &random, &[1, 3, 7], &[false, true]);
}

#[test]
fn what_was_clipped_in_parts_is_counted_as_in_one_run() {
    let top = tempfile::tempdir().expect("a folder");
    let shapes = [
        Shape { name: "w".into(), shape: vec![SPAN_ROWS + 5000], stored: Stored::F32 },
        Shape { name: "x".into(), shape: vec![500], stored: Stored::F32 },
    ];
    let (base, mut tasks) = values(&shapes, 2, &mut Random(1));
    for task in &mut tasks {
        (task[0][3], task[0][SPAN_ROWS + 4], task[1][7]) = (1e6, -1e6, 2e6);
    }
    let plan = write_plan(top.path(), &shapes, &base, &tasks);
    let gram = gram_file(&plan, top.path());
    let options = |output: &Path| {
        CompressOptions::mixtures(output).method(Method::Identity).gram(Some(gram.clone())).dtype(Dtype::F16).clip(true)
    };
    check("clipped", &plan, &options, &[2, 3], &[false, true]);
}

/// A folder of three parts, and how joining them fails after something was done to it.
fn fails(
    options: &dyn Fn(&Path) -> CompressOptions,
    into: bool,
    change: &dyn Fn(&Path, &mut Vec<PathBuf>),
) -> (ErrorKind, String, String) {
    let top = tempfile::tempdir().expect("a folder");
    let plan = zoo();
    let rows = top.path().join("rows");
    let mut paths = parts(&plan, options, 3, top.path(), into.then_some(rows.as_path()));
    change(top.path(), &mut paths);
    let before = contents(top.path());
    let error = join(&paths, &JoinOptions::new(top.path().join("joined")), &runtime(), &Silent).expect_err("no basis");
    assert!(contents(top.path()) == before, "something was changed: {error}");
    assert!(!error.message().contains('\n'), "{error}");
    (error.kind(), error.message().to_owned(), error.hint_text().unwrap_or_default().to_owned())
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("a file");
    bytes[at] ^= 1;
    std::fs::write(path, bytes).expect("written");
}

#[test]
fn parts_that_are_damaged_or_of_other_jobs_are_named() {
    type Change<'a> = (&'a str, &'a [&'a str], bool, &'a dyn Fn(&Path, &mut Vec<PathBuf>));
    let cases: [Change<'_>; 11] = [
        ("a byte of rows", &["part-2-of-3", "atom-01.rows", "damaged"], false, &|folder, _| {
            flip(&folder.join("part-2-of-3/atom-01.rows"), 10);
        }),
        ("rows cut short", &["part-3-of-3", "atom-00.rows", "bytes expected"], false, &|folder, _| {
            let file = std::fs::File::options().write(true).open(folder.join("part-3-of-3/atom-00.rows"));
            file.and_then(|file| file.set_len(5)).expect("cut");
        }),
        ("no rows", &["part-1-of-3", "atom-00.rows"], false, &|folder, _| {
            std::fs::remove_file(folder.join("part-1-of-3/atom-00.rows")).expect("removed");
        }),
        ("a damaged record", &["part-1-of-3", "damaged"], false, &|folder, _| {
            let path = folder.join("part-1-of-3/part.safetensors");
            let n = std::fs::metadata(&path).expect("a file").len() as usize;
            flip(&path, n - 3);
        }),
        ("no record", &["part-2-of-3"], false, &|folder, _| {
            std::fs::remove_file(folder.join("part-2-of-3/part.safetensors")).expect("removed");
        }),
        ("one twice", &["part 1/3 is there twice"], false, &|_, paths| paths.push(paths[0].clone())),
        ("two missing", &["parts 2, 3 of 3 are missing"], false, &|_, paths| paths.truncate(1)),
        ("other options", &["other options", "bits", "4+3", "2+3"], false, &|folder, paths| {
            let other = folder.join("other");
            let coding = CodingOptions::default().bits(Rate::Sixteen);
            let options = CompressOptions::new(&other).coding(Some(coding));
            let part = Part::new(2, 3).expect("a part");
            compress_part(&zoo(), &options, part, None, &runtime(), &Silent).expect("a part");
            paths[1] = other;
        }),
        ("another way of writing", &["other options", "shared"], false, &|folder, paths| {
            let (other, rows) = (folder.join("other"), folder.join("rows"));
            let part = Part::new(2, 3).expect("a part");
            let options = CompressOptions::new(&other);
            compress_part(&zoo(), &options, part, Some(&rows), &runtime(), &Silent).expect("a part");
            paths[1] = other;
        }),
        ("a byte that all wrote", &["part ", "rows/atom-0", "damaged"], true, &|folder, _| {
            let path = folder.join("rows/atom-02.safetensors");
            let n = std::fs::metadata(&path).expect("a file").len() as usize;
            flip(&path, n - 1);
        }),
        ("no folder of rows", &["rows", "is not there"], true, &|folder, _| {
            std::fs::remove_dir_all(folder.join("rows")).expect("removed");
        }),
    ];
    for (what, expected, into, change) in cases {
        let (kind, message, hint) = fails(&|output| CompressOptions::new(output), into, change);
        assert!(matches!(kind, ErrorKind::Rejected | ErrorKind::Failed), "{what}: {message}");
        assert!(expected.iter().all(|word| message.contains(word)), "{what}: {message}");
        assert!(!hint.is_empty(), "{what}: {message}");
    }
}

#[test]
fn a_gram_file_of_a_part_that_was_swapped_is_noticed() {
    let top = tempfile::tempdir().expect("a folder");
    let gram = gram_file(&zoo(), top.path());
    let options = |output: &Path| CompressOptions::mixtures(output).gram(Some(gram.clone())).atoms(2);
    let (_, message, _) = fails(&options, false, &|folder, _| {
        let path = |name: &str| format!("../tvb-zoo/checkpoints/{name}.safetensors");
        let other = Plan::open(path("base"), ["dice", "letters", "mazes", "waves"].map(path)).expect("a plan");
        let path = folder.join("part-1-of-3/gram.safetensors");
        make_gram_file(&other, &path, Existing::Replace, &runtime(), &Silent).expect("a Gram file");
    });
    assert!(message.contains("not the Gram file of this job"), "{message}");
}

#[test]
fn what_is_not_made_in_parts_is_said_before_anything_is_read() {
    let top = tempfile::tempdir().expect("a folder");
    let (plan, part) = (zoo(), Part::new(1, 2).expect("a part"));
    let usage = |options: CompressOptions, into: Option<&Path>| {
        let error = compress_part(&plan, &options, part, into, &runtime(), &Silent).expect_err("no part");
        assert!(contents(top.path()).is_empty(), "{error}");
        (error.kind(), error.message().to_owned(), error.hint_text().unwrap_or_default().to_owned())
    };
    let output = top.path().join("part");
    let (kind, message, hint) = usage(CompressOptions::mixtures(&output), None);
    assert_eq!(kind, ErrorKind::Usage);
    assert!(message.contains("--gram FILE expected"), "{message}");
    assert!(["tvb gram --part", "tvb join", "tvb compress --part"].iter().all(|word| hint.contains(word)), "{hint}");
    let (kind, ..) = usage(CompressOptions::new(&output).size(Size::MaxError(MaxError::Mean(0.1))), None);
    assert_eq!(kind, ErrorKind::Usage);
    for into in [output.clone(), output.join("rows"), top.path().to_owned()] {
        let (kind, message, _) = usage(CompressOptions::new(&output), Some(&into));
        assert_eq!(kind, ErrorKind::Usage);
        assert!(message.contains("beside the folder that all parts write to"), "{message}");
    }
}

#[test]
fn a_folder_of_rows_is_of_one_job_and_a_part_may_be_made_again() {
    let top = tempfile::tempdir().expect("a folder");
    let at = |name: &str| top.path().join(name);
    let (plan, rows) = (zoo(), at("rows"));
    let make = |name: &str, number: usize, bits: Rate| {
        let options = CompressOptions::new(at(name)).coding(Some(CodingOptions::default().bits(bits)));
        let options = options.existing(Existing::Replace);
        compress_part(&plan, &options, Part::new(number, 2).expect("a part"), Some(&rows), &runtime(), &Silent)
    };
    make("a", 1, Rate::Four).expect("a part");
    let error = make("b", 2, Rate::Sixteen).expect_err("rows of another job");
    assert!(error.kind() == ErrorKind::Rejected && error.message().contains("rows of another job"), "{error}");
    assert!(!at("b").exists());
    make("b", 2, Rate::Four).expect("a part");
    make("a", 1, Rate::Four).expect("the same again, over a part of ours");
    join(&[at("b"), at("a")], &JoinOptions::new(at("joined")), &runtime(), &Silent).expect("a basis");
    assert!(!rows.exists());
    // Somebody's folder is no part.
    std::fs::write(at("a/mine"), b"").expect("written");
    let error = make("a", 1, Rate::Four).expect_err("a file of somebody's");
    assert!(error.message().contains("was not written by this program"), "{error}");
}

#[test]
fn other_inputs_are_other_jobs() {
    let top = tempfile::tempdir().expect("a folder");
    let shapes = tvb_tests::small_models::shapes(&[&[300, 100], &[40]]);
    let (base, tasks) = values(&shapes, 2, &mut Random(3));
    let plan = write_plan(top.path(), &shapes, &base, &tasks);
    let at = |name: &str| top.path().join(name);
    let make = |plan: &Plan, number: usize| {
        let path = at(&format!("part-{number}"));
        let options = CompressOptions::new(&path);
        compress_part(plan, &options, Part::new(number, 2).expect("a part"), None, &runtime(), &Silent)
            .expect("a part");
        path
    };
    let first = make(&plan, 1);
    let mut other = tasks.clone();
    other[1].iter_mut().flatten().for_each(|value| *value += 0.5);
    let folder = at("other");
    std::fs::create_dir(&folder).expect("a folder");
    let other = write_plan(&folder, &shapes, &base, &other);
    let second = make(&other, 2);
    for copies in [false, true] {
        let mut options = JoinOptions::new(at("joined"));
        options.copies = copies;
        let error = join(&[first.clone(), second.clone()], &options, &runtime(), &Silent).expect_err("other inputs");
        assert!(error.kind() == ErrorKind::Rejected && error.message().contains("of other inputs"), "{error}");
    }
}

/// Adapters are not divided: the first part holds all of the basis, and the same script serves them.
#[test]
fn adapters_in_parts_are_one_run() {
    let mut random = Random(5);
    let sides = [[256, 192], [200, 160], [24, 72]];
    let shapes: Vec<Vec<usize>> = sides.iter().map(|sides| sides.to_vec()).collect();
    let mut task = |rank: usize| sides.map(|sides| Factors::new(sides, rank, 0.5, &mut random)).into();
    let plan = factors::plan(&shapes, &[task(2), task(1), task(3)]);
    check("factors", &plan, &|output| CompressOptions::new(output), &[1, 3], &[false]);
    let shared = |output: &Path| CompressOptions::new(output).shared_rank(Some(2));
    check("shared spaces", &plan, &shared, &[2], &[false]);
    check("coded adapters", &plan, &|output| CompressOptions::new(output).keep_factors(false), &[2], &[true, false]);

    let top = tempfile::tempdir().expect("a folder");
    let output = top.path().join("joined");
    let refused = |paths: &[PathBuf], word: &str| {
        let error = join(paths, &JoinOptions::new(&output), &runtime(), &Silent).expect_err("no basis");
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert!(error.message().contains(word) && error.hint_text().is_some() && !output.exists(), "{error}");
    };
    let named = parts(&plan, &|output| CompressOptions::new(output), 2, top.path(), None);
    let elsewhere = tempfile::tempdir().expect("a folder");
    let other = parts(&plan, &shared, 2, elsewhere.path(), None);
    refused(&[named[0].clone(), other[1].clone()], "made with other options");
    refused(&named[1..], "part 1 of 2 is missing");
    let held = named[0].join("atom-02.safetensors.undivided");
    let n_bytes = std::fs::metadata(&held).expect("a file").len() as usize;
    flip(&held, n_bytes - 1);
    refused(&named, "damaged");
    std::fs::write(&held, b"short").expect("written");
    refused(&named, "5 found");
    // A part that is made again replaces all that it was.
    let again = CompressOptions::new(&named[0]).existing(Existing::Replace);
    compress_part(&plan, &again, Part::new(1, 2).expect("a part"), None, &runtime(), &Silent).expect("made again");
    join(&named, &JoinOptions::new(&output), &runtime(), &Silent).expect("joined");
}
