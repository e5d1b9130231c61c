//! Small files that stand for a lot of memory, files that never end, and a basis of a program to come: refused for what they
//! are, with nothing left charged.

use std::path::Path;
use tvb::basis::manifest::Manifest;
use tvb::basis::{Basis, gram_file};
use tvb::checkpoint::torch::{SaveStorage, SaveTensor, SaveValue, TorchWriter};
use tvb::checkpoint::{Budget, Checkpoint, Dtype, Existing, OpenOptions};
use tvb::columns::plan::{Plan, Selection, Task};
use tvb::jobs::batch::JobFile;
use tvb::jobs::compress::{CompressOptions, compress};
use tvb::jobs::gram::make_gram_file;
use tvb::jobs::interop::import;
use tvb::pass::Runtime;
use tvb::progress::Silent;
use tvb::solve::Method;
use tvb::{Error, ErrorKind};
use tvb_tests::small_models::write_run;

fn runtime() -> Runtime {
    Runtime::on_cpu(2, 64 << 20)
}

fn plan(folder: &Path) -> Plan {
    let run = write_run(folder, &[&[50, 30], &[17]], 3, 2);
    let tasks = run.tasks.iter().enumerate().map(|(index, path)| Task {
        name: format!("task{index}"),
        checkpoint: Checkpoint::open(path).expect("a task"),
    });
    let base = Checkpoint::open(&run.base).expect("a base");
    Plan::new(base, tasks.collect(), &Selection::default()).expect("a plan")
}

/// A basis of three tasks in `FOLDER/basis`.
fn basis(folder: &Path) -> Basis {
    let options = CompressOptions::mixtures(folder.join("basis")).method(Method::Pca).atoms(2);
    compress(&plan(folder), &options, &runtime(), &Silent).expect("a basis").basis
}

fn put(basis: &Basis, manifest: &Manifest) {
    std::fs::write(basis.folder.join("basis.json"), manifest.to_bytes().expect("bytes")).expect("written");
}

#[track_caller]
fn check_refused<T>(result: Result<T, Error>, expected: &str) -> Error {
    let Err(error) = result else { panic!("{expected:?} expected") };
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert!(error.message().contains(expected), "expected {expected:?} in: {error}");
    assert!(!error.message().contains('\n') && error.message().len() < 1000, "{error}");
    error
}

#[test]
fn headers_of_all_open_files_share_one_budget() {
    let top = tempfile::tempdir().expect("a folder");
    let path = top.path().join("many.safetensors");
    let names = (0..1000).map(|n| format!(r#""layer.{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#));
    let json = format!("{{{}}}", names.collect::<Vec<_>>().join(","));
    std::fs::write(&path, [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat()).expect("written");
    let options = OpenOptions { budget: Budget::new(8 << 20), ..OpenOptions::default() };
    let mut open = Vec::new();
    let error = loop {
        match Checkpoint::open_with(&path, &options) {
            Ok(checkpoint) => open.push(checkpoint),
            Err(error) => break error,
        }
        assert!(open.len() < 100);
    };
    assert!(error.message().contains("more memory needed") && error.kind() == ErrorKind::Rejected, "{error}");
    assert!(open.len() > 5, "{} of them", open.len());
    drop(open);
    assert_eq!(options.budget.left(), options.budget.limit());
}

/// An ordinary run is far from the budget: 64 checkpoints of three thousand tensors each.
#[test]
fn ordinary_runs_have_room() {
    let top = tempfile::tempdir().expect("a folder");
    let path = top.path().join("model.safetensors");
    let name = |n: usize| format!("model.layers.{}.self_attn.query_key_value.{n}.weight", n / 20);
    let entries =
        (0..3000).map(|n| format!(r#""{}":{{"dtype":"BF16","shape":[0,4096],"data_offsets":[0,0]}}"#, name(n)));
    let json = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
    std::fs::write(&path, [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat()).expect("written");
    let options = OpenOptions::default();
    let open: Vec<_> = (0..64).map(|_| Checkpoint::open_with(&path, &options).expect("room")).collect();
    assert!(options.budget.left() > options.budget.limit() / 2, "{:?} with {} open", options.budget, open.len());
}

#[test]
fn a_manifest_is_looked_at_before_it_is_read() {
    let top = tempfile::tempdir().expect("a folder");
    let basis = basis(top.path());
    let path = basis.folder.join("basis.json");
    // Without a seal that holds nothing is built of it, whatever is in it.
    let head = r#"{"format": "tvb-basis", "version": 1, "checksum": "xxh3-128:00000000000000000000000000000000""#;
    let bomb = format!("{head}, \"diagnostics\": [{}[]]}}", "[],".repeat(100_000));
    std::fs::write(&path, &bomb).expect("written");
    check_refused(Basis::open(&basis.folder), "its checksum does not match");
    let budget = Budget::new(1 << 20);
    let error = check_refused(Basis::open_within(&basis.folder, &budget), "more memory needed");
    assert!(error.message().ends_with("for a manifest"), "{error}");
    assert_eq!(budget.left(), budget.limit());
    for (text, expected) in [
        (r#"{"format": [[["x"]]]}"#.to_owned(), r#""format": "tvb-basis" expected, another value found"#),
        (format!(r#"{{"format": "{}"}}"#, "x".repeat(5000)), "expected, \"xxx"),
        ("{}".to_owned(), "nothing found"),
        (r#"{"format": "tvb-basis", "version": 5}"#.to_owned(), "\"version\": 1 to 4 expected, 5 found"),
        (r#"{"format": "tvb-basis", "version": 1}"#.to_owned(), "\"checksum\": a digest expected, nothing found"),
        ("[".repeat(100_000), "not a basis manifest"),
    ] {
        std::fs::write(&path, text).expect("written");
        check_refused(Basis::open(&basis.folder), expected);
    }

    // A sealed one of a method that is yet to be invented, and of more tasks than any program takes.
    let mut manifest = basis.manifest.clone();
    manifest.method.name = "quantum".into();
    put(&basis, &manifest);
    let error = check_refused(Basis::open(&basis.folder), "\"method\": \"quantum\" is not known to this program");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("newer")), "{error:?}");
    manifest.method.name = "pca".into();
    manifest.tasks = (0..1025).map(|_| manifest.tasks[0].clone()).collect();
    put(&basis, &manifest);
    check_refused(Basis::open(&basis.folder), "1 to 1024 tasks expected, 1025 found");
    let manifest = Manifest { atoms: vec![basis.manifest.atoms[0].clone(); 2000], ..basis.manifest.clone() };
    let stored = tvb::basis::manifest::StoredTensors { n_atoms: 2000, ..manifest.stored.clone() };
    put(&basis, &Manifest { stored, ..manifest });
    check_refused(Basis::open(&basis.folder), "at most 1025 atoms expected, 2000 found");
}

#[test]
fn a_basis_is_paid_for_while_it_is_open() {
    let top = tempfile::tempdir().expect("a folder");
    let folder = basis(top.path()).folder;
    let budget = Budget::new(1 << 20);
    let basis = Basis::open_within(&folder, &budget).expect("room");
    let with_small_files = budget.left();
    assert!(with_small_files < budget.limit());
    let atoms = basis.atoms().expect("atoms");
    assert!(budget.left() < with_small_files);
    drop((atoms, basis));
    assert_eq!(budget.left(), budget.limit());
    assert!(
        Basis::open_within(&folder, &Budget::cancelled_by(1 << 20, || true))
            .is_err_and(|error| error.kind() == ErrorKind::Interrupted)
    );
}

/// The metadata's `record` of a Gram file, changed and sealed again.
fn with_record(bytes: &[u8], change: impl Fn(&mut serde_json::Value)) -> Vec<u8> {
    let end = 8 + u64::from_le_bytes(*bytes.first_chunk().expect("a length")) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..end]).expect("JSON");
    let metadata = &mut header["__metadata__"];
    let mut record = serde_json::from_str(metadata["record"].as_str().expect("text")).expect("JSON");
    change(&mut record);
    metadata["record"] = record.to_string().into();
    metadata["checksum"] = tvb::basis::seal::UNSEALED.to_string().into();
    if record["tensors"].as_array().is_some_and(Vec::is_empty) {
        let n = record["tasks"].as_array().expect("a list").len();
        for (name, shape) in [("gram", vec![0, n, n]), ("digests", vec![0, n + 1, 16])] {
            header[name]["shape"] = shape.into();
            header[name]["data_offsets"] = vec![0, 0].into();
        }
    }
    let json = header.to_string();
    let data = if header["gram"]["data_offsets"][1] == 0 { &[][..] } else { &bytes[end..] };
    let mut bytes = [&(json.len() as u64).to_le_bytes(), json.as_bytes(), data].concat();
    assert!(tvb::basis::seal::seal(&mut bytes));
    bytes
}

#[test]
fn the_counts_of_a_gram_file_are_bounded() {
    let top = tempfile::tempdir().expect("a folder");
    let path = top.path().join("gram.safetensors");
    make_gram_file(&plan(top.path()), &path, Existing::Refuse, &runtime(), &Silent).expect("a Gram file");
    let bytes = std::fs::read(&path).expect("read");
    assert!(gram_file::from_bytes(&with_record(&bytes, |_| {})).is_ok());
    // No tensor, so that a matrix of any number of tasks takes no room in the file.
    let many = with_record(&bytes, |record| {
        let task = record["tasks"][0].clone();
        record["tasks"] = vec![task; 20_000].into();
        record["tensors"] = Vec::<i32>::new().into();
        record["groups"][0]["tensors"] = Vec::<i32>::new().into();
    });
    std::fs::write(&path, &many).expect("written");
    check_refused(gram_file::read(&path), "1 to 1024 tasks expected, 20000 found");
    let none = with_record(&bytes, |record| {
        record["tensors"] = Vec::<i32>::new().into();
        record["groups"][0]["tensors"] = Vec::<i32>::new().into();
    });
    assert_eq!(gram_file::from_bytes(&none).unwrap_err(), "at least one tensor expected, none found");
    for shape in [vec![u64::MAX, 2], vec![1 << 40, 1 << 40], vec![1 << 62]] {
        let huge = with_record(&bytes, |record| record["tensors"][0]["shape"] = shape.clone().into());
        assert!(gram_file::from_bytes(&huge).is_err(), "{shape:?}");
    }
    let twice = with_record(&bytes, |record| {
        for tensor in 0..2 {
            record["tensors"][tensor]["shape"] = vec![1u64 << 60].into();
        }
    });
    assert_eq!(gram_file::from_bytes(&twice).unwrap_err(), "its tensors have more elements than can be counted");
    let budget = Budget::new(10_000);
    std::fs::write(&path, &bytes).expect("written");
    check_refused(gram_file::read_within(&path, &budget), "more memory needed");
    assert_eq!(budget.left(), budget.limit());
}

/// Writes a published basis of `n_vectors` times the same dict of `n_tensors`, as one may say with a few bytes each.
fn publish(folder: &Path, n_vectors: usize, n_tensors: usize) {
    let tensor = |n_rows: usize, n_columns: usize| SaveTensor::contiguous(0, 0, Dtype::F32, &[n_rows, n_columns]);
    let save = |name: &str, n_elements: u64, value: SaveValue| {
        let storages = [SaveStorage { dtype: Dtype::F32, n_elements }];
        let writer = TorchWriter::create(&folder.join(name), "archive", &value, &storages).expect("created");
        writer.write_at(0, 0, &vec![0; 4 * n_elements as usize]).expect("written");
        writer.finish().expect("finished");
    };
    let text = |text: String| SaveValue::Str(text);
    let vector = || {
        let entry = |n: usize| (text(format!("layer.{n}.weight")), SaveValue::Tensor(tensor(1, 1)));
        SaveValue::Dict((0..n_tensors).map(entry).collect())
    };
    let vectors = SaveValue::List((0..n_vectors).map(|_| vector()).collect());
    save("basis_vectors.pt", 1, SaveValue::Dict(vec![(text("basis_vectors".into()), vectors)]));
    let matrix = || SaveValue::Tensor(tensor(n_vectors, n_vectors));
    let matrices = vec![(text("B".into()), matrix()), (text("W".into()), matrix())];
    save("AWB.pt", (n_vectors * n_vectors) as u64, SaveValue::Dict(matrices));
    let tasks: Vec<String> = (0..n_vectors).map(|n| format!("t{n}")).collect();
    let info = serde_json::json!({ "method": "AutoencoderBasisMethod", "datasets": tasks });
    std::fs::write(folder.join("method_info.json"), info.to_string()).expect("written");
}

#[test]
fn a_published_basis_is_read_once_and_paid_for() {
    let top = tempfile::tempdir().expect("a folder");
    let published = top.path().join("published");
    std::fs::create_dir(&published).expect("a folder");
    publish(&published, 20, 50);
    let output = top.path().join("basis");
    let basis = import(&published, &output, Existing::Refuse, &runtime(), &Silent).expect("a basis");
    assert_eq!((basis.n_atoms(), basis.stored_tensors().len()), (20, 50));
    // Twenty times as many values as one reading makes would not fit.
    let budget = Budget::new(2 << 20);
    let within = || runtime().with_budget(budget.clone());
    drop(import(&published, &output, Existing::Replace, &within(), &Silent).expect("room"));
    assert_eq!(budget.left(), budget.limit());
    let budget = Budget::new(300_000);
    let within = || runtime().with_budget(budget.clone());
    check_refused(import(&published, &output, Existing::Replace, &within(), &Silent), "more memory needed");
    assert_eq!(budget.left(), budget.limit());

    let info = serde_json::json!({ "method": "AutoencoderBasisMethod", "datasets": vec!["t"; 5000] });
    std::fs::write(published.join("method_info.json"), info.to_string()).expect("written");
    check_refused(import(&published, &output, Existing::Replace, &runtime(), &Silent), "at most 1024 datasets");
}

/// A pipe nobody writes to, and a device without an end, in the place of every small file.
#[cfg(target_os = "linux")]
#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let top = tempfile::tempdir().expect("a folder");
    let basis = basis(top.path());
    let pipe = top.path().join("pipe.pt");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    check_refused(Checkpoint::open(&pipe), "expected a regular file");
    check_refused(gram_file::read(&pipe), "expected a regular file");
    check_refused(gram_file::read(Path::new("/dev/zero")), "expected a regular file");
    check_refused(JobFile::read(&pipe), "expected a regular file");
    check_refused(JobFile::read(Path::new("/dev/zero")), "expected a regular file");
    check_refused(tvb::jobs::merge::recipe::Recipe::open(&pipe, &Budget::default()), "expected a regular file");
    check_refused(
        tvb::jobs::merge::recipe::of_card(Path::new("/dev/zero"), &Budget::default()),
        "expected a regular file",
    );
    for name in ["atom-01.safetensors", "coefficients.safetensors", "basis.json"] {
        let path = basis.folder.join(name);
        let kept = top.path().join("kept");
        std::fs::rename(&path, &kept).expect("moved");
        std::fs::rename(&pipe, &path).expect("moved");
        let opened = Basis::open(&basis.folder).and_then(|basis| basis.open_atom(1));
        check_refused(opened, "expected a regular file");
        std::fs::rename(&path, &pipe).expect("moved");
        std::fs::rename(&kept, &path).expect("moved");
    }
}

#[test]
fn a_job_file_is_bounded_in_what_it_asks_for() {
    let top = tempfile::tempdir().expect("a folder");
    let path = top.path().join("jobs.toml");
    std::fs::write(&path, b"[[job]]\nname = \"caf\xe9\"\n").expect("written");
    check_refused(JobFile::read(&path), "jobs.toml: not UTF-8");
    let many = |n: usize| (0..n).map(|n| format!("[[job]]\nname='j{n}'\n")).collect::<String>();
    let defaults = |n: usize| {
        let tasks: Vec<String> = (0..n).map(|n| format!("\"{}{n}\"", "p".repeat(100))).collect();
        format!("[defaults]\nbase='b'\noutput='o/{{job}}'\ntasks=[{}]\n", tasks.join(","))
    };
    assert_eq!(JobFile::parse(&(defaults(10) + &many(500))).expect("jobs").jobs.len(), 500);
    check_refused(JobFile::parse(&(defaults(1000) + &many(2000))), "[defaults]: at most");
    check_refused(JobFile::parse(&(defaults(1) + &many(10_001))), "at most 10000 jobs expected");
    let lists = format!("m=[{}1]\nmethod=[{}'pca']", "1,".repeat(2000), "'pca',".repeat(2000));
    let file = JobFile::parse(&(defaults(3) + "[[job]]\nname='j'\n" + &lists)).expect("a job");
    check_refused(tvb::jobs::batch::Batch::new(&file, &path), "at most 20000 outputs expected, 4004001 asked for");
}
