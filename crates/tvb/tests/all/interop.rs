//! Bases that the method's published code really wrote, imported without PyTorch: every inner product of atoms, tasks and
//! recovered tasks as that code's own, and the same basis again after an export.

use serde_json::Value as Json;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use tvb::ErrorKind;
use tvb::basis::Basis;
use tvb::checkpoint::{Checkpoint, Existing};
use tvb::columns::plan::{Plan, Selection, Task};
use tvb::jobs::compress::{CompressOptions, Size, compress};
use tvb::jobs::edit::{Edit, EditJob, EditOutput, Source};
use tvb::jobs::interop::{ExportOptions, export_basis, export_checkpoint, import};
use tvb::jobs::recover::{RecoverOptions, recover};
use tvb::jobs::verify::{verify_errors, verify_files};
use tvb::pass::Runtime;
use tvb::progress::Silent;
use tvb::solve::{Coordinates, MaxError, Method, Rule};

/// How far inner products may be from the reference's, relative to the largest of their kind.
const TOLERANCE: f64 = 1e-5;

fn fixture(name: &str) -> PathBuf {
    tvb_tests::fixture("reference").join(name)
}

fn runtime() -> Runtime {
    Runtime::on_cpu(2, 64 << 20)
}

fn expected() -> Json {
    serde_json::from_str(&std::fs::read_to_string(fixture("expected.json")).unwrap()).unwrap()
}

fn keys(expected: &Json) -> Vec<String> {
    strings(&expected["keys"])
}

fn strings(json: &Json) -> Vec<String> {
    json.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

fn table(json: &Json) -> Vec<Vec<f64>> {
    let row = |row: &Json| row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    json.as_array().unwrap().iter().map(row).collect()
}

/// All tensors one after another, in f64.
fn flat(checkpoint: &Checkpoint, keys: &[String]) -> Vec<f64> {
    let mut out = Vec::new();
    for key in keys {
        let tensor = checkpoint.get(key).unwrap();
        let mut bytes = vec![0; tensor.n_bytes() as usize];
        checkpoint.read(tensor, 0, &mut bytes).unwrap();
        out.extend(bytes.chunks_exact(4).map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()))));
    }
    out
}

/// The task vectors in the reference's order.
fn task_vectors(expected: &Json, keys: &[String]) -> Vec<Vec<f64>> {
    let base = flat(&Checkpoint::open(&fixture("ViT-tiny/zeroshot.pt")).unwrap(), keys);
    let tuned = |task: &String| {
        let checkpoint = Checkpoint::open(&fixture(&format!("ViT-tiny/{task}Val/finetuned.pt"))).unwrap();
        flat(&checkpoint, keys).iter().zip(&base).map(|(tuned, base)| tuned - base).collect()
    };
    strings(&expected["tasks"]).iter().map(tuned).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn products(rows: &[Vec<f64>], columns: &[Vec<f64>]) -> Vec<Vec<f64>> {
    rows.iter().map(|row| columns.iter().map(|column| dot(row, column)).collect()).collect()
}

fn assert_close(what: &str, found: &[Vec<f64>], expected: &[Vec<f64>]) {
    assert_eq!((found.len(), found[0].len()), (expected.len(), expected[0].len()), "{what}");
    let largest = expected.iter().flatten().fold(0.0_f64, |largest, x| largest.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        for (j, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() <= TOLERANCE * largest, "{what}[{i}][{j}]: {found}, expected {expected}");
        }
    }
}

/// The published folders: the key in `expected.json`, the folder, the method's word here, the vectors stored.
const PUBLISHED: [(&str, &str, &str, usize); 4] = [
    ("AE", "ViT-tiny_AE_M4_8task", "ae", 4),
    ("PCA", "ViT-tiny_PCA_M4_8task", "pca", 5),
    ("Random", "ViT-tiny_Random_M4_8task", "random", 4),
    ("RandomSample", "ViT-tiny_RandomSample_M4_8task", "sample", 4),
];

fn imported(folder: &str, output: &Path) -> Basis {
    let folder = fixture("published").join(folder);
    import(&folder, output, Existing::Refuse, &runtime(), &Silent).unwrap_or_else(|error| panic!("{error}"))
}

fn atoms(basis: &Basis, keys: &[String]) -> Vec<Vec<f64>> {
    (0..basis.n_atoms()).map(|atom| flat(&basis.open_atom(atom).unwrap(), keys)).collect()
}

/// Every recovered task vector, as `tvb recover` writes it.
fn recovered(basis: &Basis, folder: &Path, keys: &[String]) -> Vec<Vec<f64>> {
    let options = RecoverOptions::new((0..basis.n_tasks()).collect(), folder);
    let written = recover(basis, None, &options, &runtime(), &Silent).unwrap();
    written.written.iter().map(|path| flat(&Checkpoint::open(path).unwrap(), keys)).collect()
}

fn originals(names: &[String]) -> Plan {
    let open = |name: &str| Checkpoint::open(&fixture(name)).unwrap();
    let task =
        |name: &String| Task { name: name.clone(), checkpoint: open(&format!("ViT-tiny/{name}Val/finetuned.pt")) };
    Plan::new(open("ViT-tiny/zeroshot.pt"), names.iter().map(task).collect(), &Selection::default()).unwrap()
}

#[test]
fn published_bases_are_what_the_reference_made_of_them() {
    let expected = expected();
    let keys = keys(&expected);
    let tasks = task_vectors(&expected, &keys);
    for (key, folder, method, n_stored) in PUBLISHED {
        let run = &expected["runs"][key];
        let temporary = tempfile::tempdir().unwrap();
        let basis = imported(folder, &temporary.path().join("basis"));
        assert_eq!(basis.manifest.method.name, method);
        assert_eq!(basis.n_atoms(), n_stored);
        let checks = verify_files(&basis, &runtime(), &Silent).unwrap();
        assert!(checks.iter().all(|check| check.damage.is_none()), "{key}: {checks:?}");

        let atoms = atoms(&basis, &keys);
        let components = &atoms[..4];
        assert_close(&format!("{key}: atoms' Gram"), &products(components, components), &table(&run["gram_of_atoms"]));
        assert_close(&format!("{key}: atom · task"), &products(components, &tasks), &table(&run["atom_dot_task"]));

        // B, where there is one, makes the atoms of the tasks.
        let encode = &basis.coefficients.encode;
        let held: Vec<&Vec<f64>> = match key {
            "RandomSample" => {
                run["selected"].as_array().unwrap().iter().map(|t| &tasks[t.as_u64().unwrap() as usize]).collect()
            }
            _ => tasks.iter().collect(),
        };
        for (m, atom) in atoms.iter().enumerate().filter(|_| encode.n_columns() > 0) {
            let mixed: Vec<f64> =
                (0..atom.len()).map(|x| (0..held.len()).map(|t| encode[(t, m)] * held[t][x]).sum()).collect();
            let off: Vec<f64> = mixed.iter().zip(atom).map(|(a, b)| a - b).collect();
            assert!(dot(&off, &off) <= 1e-10 * dot(atom, atom), "{key}: atom {m} is not V·B");
        }

        let recovered = recovered(&basis, &temporary.path().join("recovered"), &keys);
        let measured = verify_errors(&basis, &originals(&basis.task_names()), &runtime(), &Silent).unwrap();
        assert!(measured.iter().all(|error| error.predicted.is_none()));
        if key == "RandomSample" {
            assert_eq!(basis.task_names(), ["Cars", "GTSRB", "SVHN", "SUN397"]);
            assert!(basis.manifest.notes[0].contains("DTD, EuroSAT, MNIST, RESISC45"), "{:?}", basis.manifest.notes);
            for (recovered, original) in recovered.iter().zip(&held) {
                assert!(recovered.iter().zip(*original).all(|(a, b)| (a - b).abs() < 1e-7));
            }
            continue;
        }
        assert_eq!(basis.task_names(), strings(&expected["tasks"]));
        assert_close(
            &format!("{key}: recovered · task"),
            &products(&recovered, &tasks),
            &table(&run["recovered_dot_task"]),
        );
        let squares: Vec<f64> = recovered.iter().map(|vector| dot(vector, vector)).collect();
        assert_close(&format!("{key}: ‖τ̂‖²"), &[squares], &table(&Json::from(vec![run["recovered_sq_norm"].clone()])));
        let errors: Vec<f64> = measured.iter().map(|error| error.measured).collect();
        assert_close(&format!("{key}: relative errors"), &[errors], &table(&Json::from(vec![run["rel_err"].clone()])));
    }
}

#[test]
fn the_temperature_that_was_not_saved_is_told() {
    let temporary = tempfile::tempdir().unwrap();
    let basis = imported("ViT-tiny_AE_M4_8task", &temporary.path().join("basis"));
    assert!(basis.manifest.notes[0].contains("A and B give 5.0000"), "{:?}", basis.manifest.notes);
    assert_eq!(basis.manifest.base.fingerprint, None);
    assert!(basis.manifest.tasks.iter().all(|task| task.relative_error.is_none() && task.norm.is_none()));
}

#[test]
fn the_plain_sum_of_pca_atoms_leaves_the_mean_out() {
    let expected = expected();
    let keys = keys(&expected);
    let temporary = tempfile::tempdir().unwrap();
    let basis = imported("ViT-tiny_PCA_M4_8task", &temporary.path().join("basis"));
    let target = temporary.path().join("sum.safetensors");
    let edit = Edit { alpha: vec![1.0; 8], scale: 1.0, rule: Rule::Sum, by_tensor: None };
    let output = EditOutput::new(&target).delta(true);
    assert!(edit.predict(&basis).unwrap().is_none(), "nothing is known of the true tasks");
    EditJob { source: Source::Basis(&basis), edit: &edit, base: None, output: &output }
        .write(&runtime(), &Silent)
        .unwrap();
    let sum = flat(&Checkpoint::open(&target).unwrap(), &keys);
    let atoms = atoms(&basis, &keys);
    for (x, value) in sum.iter().enumerate() {
        assert!((value - (0..4).map(|m| atoms[m][x]).sum::<f64>()).abs() < 1e-7);
    }
}

#[test]
fn an_exported_basis_is_imported_as_it_was() {
    let expected = expected();
    let keys = keys(&expected);
    for (key, folder, _, n_stored) in PUBLISHED {
        let temporary = tempfile::tempdir().unwrap();
        let first = imported(folder, &temporary.path().join("first"));
        let published = temporary.path().join("published");
        let options = ExportOptions::new(&published);
        let exported = export_basis(&first, &options, &runtime(), &Silent).unwrap();
        assert_eq!(exported.method, if key == "PCA" { "PCABasisMethod" } else { "AutoencoderBasisMethod" });
        let second =
            import(&published, &temporary.path().join("second"), Existing::Refuse, &runtime(), &Silent).unwrap();
        assert_eq!(second.task_names(), first.task_names());
        assert_eq!(second.n_atoms(), n_stored);
        assert_eq!(atoms(&second, &keys), atoms(&first, &keys), "{key}");
        let (old, new) = (&first.coefficients, &second.coefficients);
        assert_eq!(old.decode, new.decode, "{key}");
        if old.encode.n_columns() > 0 {
            let pairs = old.encode.columns().zip(new.encode.columns()).flat_map(|(a, b)| a.iter().zip(b));
            assert!(pairs.map(|(a, b)| (a - b).abs()).all(|difference| difference < 1e-7), "{key}");
        }
    }
}

#[test]
fn a_checkpoint_becomes_a_state_dict() {
    let temporary = tempfile::tempdir().unwrap();
    let output = temporary.path().join("zeroshot.pt");
    let source = Checkpoint::open(&fixture("state_dicts/zeroshot.safetensors")).unwrap();
    export_checkpoint(&source, &output, Existing::Refuse, &Silent).unwrap();
    let written = Checkpoint::open(&output).unwrap();
    let names =
        |checkpoint: &Checkpoint| checkpoint.in_key_order().map(|tensor| tensor.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&written), names(&source));
    assert_eq!(flat(&written, &names(&source)), flat(&source, &names(&source)));
    let error = export_checkpoint(&source, &output, Existing::Refuse, &Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
}

fn four_random_atoms(output: PathBuf) -> CompressOptions {
    CompressOptions::mixtures(output).method(Method::Random { seed: 7 }).atoms(4)
}

#[test]
fn random_atoms_are_made_again_wherever_they_are_needed() {
    let expected = expected();
    let names = strings(&expected["tasks"]);
    let plan = originals(&names);
    let temporary = tempfile::tempdir().unwrap();
    let options = four_random_atoms(temporary.path().join("basis"));
    let basis = compress(&plan, &options, &runtime(), &Silent).unwrap().basis;
    assert_eq!((basis.n_atoms(), basis.manifest.n_vectors()), (0, 4), "nothing is stored");
    let is_moved = |key: &String| !basis.manifest.frozen.contains(key);
    let keys: Vec<String> = keys(&expected).into_iter().filter(is_moved).collect();
    let tasks = task_vectors(&expected, &keys);

    // Orthonormal atoms have orthogonal projections: τ̂·τ = ‖τ̂‖², as W says and as the data says.
    let decode = &basis.coefficients.decode;
    let recovered = recovered(&basis, &temporary.path().join("recovered"), &keys);
    for (t, (recovered, task)) in recovered.iter().zip(&tasks).enumerate() {
        let square: f64 = (0..4).map(|m| decode[(m, t)].powi(2)).sum();
        let norm = dot(task, task);
        assert!((dot(recovered, recovered) - square).abs() < 1e-6 * norm);
        assert!((dot(recovered, task) - square).abs() < 1e-6 * norm);
        assert!(square < 0.01 * norm, "{t}: random directions hold next to nothing");
    }
    for error in verify_errors(&basis, &plan, &runtime(), &Silent).unwrap() {
        assert!((error.measured - error.predicted.unwrap()).abs() < 1e-6, "{error:?}");
    }

    // The edited base is the base and the bare edit; another base is noticed.
    let edit = Edit::new(vec![1.0; 8], 0.5);
    let output = |name: &str, delta| EditOutput::new(temporary.path().join(name)).delta(delta);
    let written = |name: &str, base: &str, delta| {
        let base = Checkpoint::open(&fixture(base)).unwrap();
        let job =
            EditJob { source: Source::Basis(&basis), edit: &edit, base: Some(&base), output: &output(name, delta) };
        job.write(&runtime(), &Silent)?;
        Ok::<_, tvb::Error>(flat(&Checkpoint::open(&temporary.path().join(name)).unwrap(), &keys))
    };
    let edited = written("edited.safetensors", "state_dicts/zeroshot.safetensors", false).unwrap();
    let bare = written("bare.safetensors", "state_dicts/zeroshot.safetensors", true).unwrap();
    let base = flat(&Checkpoint::open(&fixture("state_dicts/zeroshot.safetensors")).unwrap(), &keys);
    for x in 0..base.len() {
        let sum: f64 = recovered.iter().map(|vector| 0.5 * vector[x]).sum();
        assert!((bare[x] - sum).abs() < 1e-7);
        assert!((edited[x] - base[x] - bare[x]).abs() < 1e-6);
    }
    let error = written("other.safetensors", "ViT-tiny/CarsVal/finetuned.pt", false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");

    // The reference's layout knows stored atoms only: they are written out, and recover the same.
    let base = Checkpoint::open(&fixture("state_dicts/zeroshot.safetensors")).unwrap();
    let folder = temporary.path().join("exported");
    let options = ExportOptions::new(&folder).base(Some(base));
    export_basis(&basis, &options, &runtime(), &Silent).unwrap();
    let names: HashSet<String> =
        std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(
        names,
        ["AWB.pt", "basis_vectors.pt", "method_info.json"].map(str::to_owned).into(),
        "no scratch is left"
    );
    let again = import(&folder, &temporary.path().join("again"), Existing::Refuse, &runtime(), &Silent).unwrap();
    assert_eq!(again.n_atoms(), 4);
    let stored = self::recovered(&again, &temporary.path().join("recovered again"), &keys);
    for (made, stored) in recovered.iter().zip(&stored) {
        assert!(made.iter().zip(stored).all(|(made, stored)| (made - stored).abs() < 1e-7));
    }
}

#[test]
fn what_does_not_fit_random_atoms_is_refused_before_anything_is_read() {
    let plan = originals(&strings(&expected()["tasks"]));
    let temporary = tempfile::tempdir().unwrap();
    let random = four_random_atoms(temporary.path().join("basis"));
    for options in [
        random.clone().balance(true),
        random.clone().coordinates(Coordinates::Orthogonal),
        random.clone().size(Size::MaxError(MaxError::Mean(0.1))),
        random.clone().size(Size::MaxBytes(tvb::units::Amount::Bytes(1 << 30))),
    ] {
        let error = compress(&plan, &options, &runtime(), &Silent).unwrap_err();
        assert_eq!((error.kind(), error.hint_text().is_some()), (ErrorKind::Usage, true), "{error}");
    }
    let options = random.atoms(9);
    assert_eq!(compress(&plan, &options, &runtime(), &Silent).unwrap_err().kind(), ErrorKind::Rejected);
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "nothing was begun");
}

#[test]
fn folders_that_are_no_published_basis_are_rejected() {
    let source = fixture("published/ViT-tiny_AE_M4_8task");
    type Spoil = fn(&Path);
    let cases: [(&str, Spoil); 7] = [
        ("method_info.json: expected, none found", |folder| {
            std::fs::remove_file(folder.join("method_info.json")).unwrap()
        }),
        ("not JSON", |folder| std::fs::write(folder.join("method_info.json"), "{").unwrap()),
        ("\"method\": AutoencoderBasisMethod", |folder| std::fs::write(folder.join("method_info.json"), "{}").unwrap()),
        ("AWB.pt expected, none found", |folder| std::fs::remove_file(folder.join("AWB.pt")).unwrap()),
        ("named twice", |folder| spoil_text(folder, "\"DTD\"", "\"Cars\"")),
        ("shape [7, 4] expected, [8, 4] found", |folder| spoil_text(folder, "\"DTD\",", "")),
        ("basis_vectors.pt", |folder| {
            let bytes = std::fs::read(folder.join("basis_vectors.pt")).unwrap();
            std::fs::write(folder.join("basis_vectors.pt"), &bytes[..bytes.len() / 2]).unwrap();
        }),
    ];
    for (expected, spoil) in cases {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("published");
        std::fs::create_dir(&folder).unwrap();
        for name in ["AWB.pt", "basis_vectors.pt", "method_info.json"] {
            std::fs::write(folder.join(name), std::fs::read(source.join(name)).unwrap()).unwrap();
        }
        spoil(&folder);
        let output = temporary.path().join("basis");
        let error = import(&folder, &output, Existing::Refuse, &runtime(), &Silent).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{expected}: {error}");
        assert!(error.message().contains(expected), "{expected}: {error}");
        assert!(!error.message().contains('\n'), "{error}");
        assert!(!output.exists(), "{expected}");
    }
}

fn spoil_text(folder: &Path, from: &str, to: &str) {
    let path = folder.join("method_info.json");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from));
    std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
}
