//! Damaged coded bases, sealed again so that only the check that is meant can notice: refused in one line, with nothing left.

use super::decoder::{checksum, manifest};
use super::models::{Kind, coded, kind, plan, runtime, words, write_models};
use serde_json::{Value, json};
use std::path::Path;
use tvb::ErrorKind;
use tvb::basis::{Basis, seal};
use tvb::checkpoint::Checkpoint;
use tvb::jobs::edit::{Edit, EditJob, EditOutput, Source};
use tvb::jobs::verify::verify_files;
use tvb::progress::Silent;
use tvb_kernels::{Dtype, Rate};
use tvb_tests::small_models::{Random, contents};

const KINDS: &[Kind] = &[
    kind("a", &[60, 300], Dtype::F32, 0.1),
    kind("frozen", &[20, 20], Dtype::F32, 0.0),
    kind("v", &[50], Dtype::F32, 0.1),
    kind("x", &[33, 41], Dtype::F32, 0.1),
];
/// Bytes of the words of the first piece of `a`, which is the first, at three levels: 64 blocks.
const FIRST_WORDS: usize = 64 * 4 * 13;

/// A basis of three tasks at three levels, the sum kept at three levels, beside its base.
fn basis(folder: &Path) -> (Basis, Checkpoint) {
    let plan = plan(&write_models(folder, KINDS, 3, 8));
    let basis = coded(&plan, &folder.join("basis"), &words(Rate::Three, Some(Rate::Three), &[])).basis;
    (basis, plan.base)
}

fn put(folder: &Path, mut manifest: Value) {
    manifest["checksum"] = seal::UNSEALED.to_string().into();
    let mut bytes = manifest.to_string().into_bytes();
    assert!(seal::seal(&mut bytes));
    std::fs::write(folder.join("basis.json"), bytes).expect("written");
}

/// Replaces the codes of an atom, with a header that fits and all checksums as they should be.
fn put_codes(folder: &Path, index: usize, codes: &[u8]) {
    let path = folder.join(format!("atom-{index:02}.safetensors"));
    let header = json!({ "codes": { "dtype": "U8", "shape": [codes.len()], "data_offsets": [0, codes.len()] } });
    let mut text = header.to_string();
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    let bytes = [&(text.len() as u64).to_le_bytes(), text.as_bytes(), codes].concat();
    std::fs::write(path, &bytes).expect("written");
    let mut manifest = manifest(folder);
    manifest["atoms"][index]["bytes"] = bytes.len().into();
    manifest["atoms"][index]["checksum"] = checksum(folder, index).to_string().into();
    put(folder, manifest);
}

fn codes(folder: &Path, index: usize) -> Vec<u8> {
    let (_, mut tensors) = super::decoder::load(&folder.join(format!("atom-{index:02}.safetensors")));
    tensors.remove("codes").expect("codes")
}

/// An edit of all tasks, with the base and without.
fn edit(basis: &Basis, base: &Checkpoint) -> tvb::Result<()> {
    let edit = Edit::new(vec![1.0, 0.5, -1.0], 0.7);
    for base in [Some(base), None] {
        let output = EditOutput::new(basis.folder.with_file_name("edited.safetensors")).delta(base.is_none());
        let job = EditJob { source: Source::Basis(basis), edit: &edit, base, output: &output };
        job.write(&runtime(), &Silent)?;
        std::fs::remove_file(basis.folder.with_file_name("edited.safetensors")).expect("removed");
    }
    Ok(())
}

/// That the folder cannot be used, and why.
#[track_caller]
fn check(folder: &Path, base: &Checkpoint, expected: &str) {
    let found = Basis::open(folder).and_then(|basis| edit(&basis, base));
    let Err(error) = found else { panic!("{expected:?} expected") };
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert!(error.message().contains(expected), "{expected:?} expected in: {error}");
    assert_eq!(error.message().lines().count(), 1, "{error}");
    let left: Vec<_> = std::fs::read_dir(folder.with_file_name(""))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("edited")), "{left:?}");
}

#[test]
fn damage_behind_fitting_checksums_is_refused() {
    let top = tempfile::tempdir().expect("a folder");
    let (basis, base) = basis(top.path());
    let folder = &basis.folder;
    let whole = contents(folder);
    let restore = || whole.iter().for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes).expect("written"));
    let own = codes(folder, 1);
    // As it was, only written again.
    put_codes(folder, 1, &own);
    let again = Basis::open(folder).expect("a basis");
    edit(&again, &base).expect("an edit");
    assert!(verify_files(&again, &runtime(), &Silent).expect("an answer").iter().all(|check| check.damage.is_none()));
    let changed = |at: usize, byte: u8| {
        let mut codes = own.clone();
        codes[at] = byte;
        codes
    };
    let n = own.len();
    let with_more = [&own[..], &[0; 34]].concat();
    let cases: [(&[u8], &str); 6] = [
        (&own[..n - 1], "tensor codes: u8 ["),
        (&[], "tensor codes: u8 ["),
        (&with_more, "tensor codes: u8 ["),
        (&changed(FIRST_WORDS + 1, 0xff), "tensor `a`.codes: finite scales expected, others found from element 0 on"),
        (&changed(7, 243), "tensor `a`.codes: bytes of at most 242 expected, larger ones found from element 0 on"),
        (&changed(0, 255), "bytes of at most 242"),
    ];
    for (codes, expected) in cases {
        restore();
        put_codes(folder, 1, codes);
        check(folder, &base, "atom-01.safetensors");
        check(folder, &base, expected);
        if expected.contains("codes: u8") {
            continue;
        }
        // The same in the column that is shared.
        restore();
        let shared: Vec<u8> = codes.iter().copied().take(self::codes(folder, 3).len()).collect();
        put_codes(folder, 3, &shared);
        check(folder, &base, "atom-03.safetensors");
    }
    // An infinite value of a tensor that is not coded.
    restore();
    let at = 4 * 13 * (64 + 7) + 2 * (64 + 7);
    let mut infinite = own.clone();
    infinite[at..at + 2].copy_from_slice(&[0x80, 0x7f]);
    put_codes(folder, 1, &infinite);
    check(folder, &base, "finite values expected");
}

#[test]
fn manifests_that_do_not_fit_their_codes_are_refused() {
    let top = tempfile::tempdir().expect("a folder");
    let (basis, base) = basis(top.path());
    let folder = &basis.folder;
    let good = manifest(folder);
    type Change<'a> = &'a dyn Fn(&mut Value);
    let cases: [(Change<'_>, &str); 33] = [
        (
            &|m| m["coded"]["bits"] = "7".into(),
            "bits of a code: one of 0.25, 0.5, 1, 1.6, 2, 3, 4, 5, 6, 8 expected, \"7\" found",
        ),
        (&|m| m["coded"]["kept_bits"] = "off".into(), "bits of a code: one of"),
        (&|m| m["coded"]["bits"] = "2".into(), "tensor codes: u8 ["),
        (&|m| m["coded"]["kept_bits"] = "1".into(), "atom-03.safetensors: tensor codes: u8 ["),
        (
            &|m| m["coded"]["code"] = "rotated-512".into(),
            "atoms coded as \"rotated-256\" expected, \"rotated-512\" found",
        ),
        (&|m| m["coded"]["n_kept"] = 4.into(), "at least one atom expected"),
        (&|m| m["coded"]["n_kept"] = u64::MAX.into(), "at least one atom expected"),
        (&|m| m["coded"]["n_kept"] = 2.into(), "shape"),
        (&|m| m["coded"]["n_kept"] = 0.into(), "shape"),
        (&|m| drop(m["coded"].as_object_mut().expect("an object").remove("seed")), "seed"),
        (&|m| m["coded"]["seed"] = (-1).into(), "invalid value"),
        (&|m| m["coded"]["seed"] = 1.5.into(), "invalid type"),
        (&|m| m["coded"]["tensors"][0]["shape"] = json!([30, 300]), "tensor codes: u8 ["),
        (&|m| m["coded"]["tensors"][0]["shape"] = json!([300, 60]), "shape [300, 60] expected"),
        (&|m| m["coded"]["tensors"][0]["shape"] = json!([18_000]), "bf16 expected for shape [18000], codes found"),
        (&|m| m["coded"]["tensors"][1]["coded"] = true.into(), "bf16 expected for shape [50], codes found"),
        (&|m| m["coded"]["tensors"][0]["shape"] = json!([u64::MAX, 2]), "of a size that can be counted"),
        (&|m| m["coded"]["tensors"] = json!([]), "coded tensors: 3 expected, 0 found"),
        (&|m| drop(m.as_object_mut().expect("an object").remove("coded")), "encode.model: shape [3, 4] expected"),
        (&|m| m["atoms"][0]["file"] = "../atom-00.safetensors".into(), "a name inside the basis folder expected"),
        (&|m| m["fit"] = json!({ "twins": [{ "name": "x", "of": "nowhere" }] }), "tied tensors: a second name"),
        (
            &|m| {
                m["fit"]["twins"] =
                    json!([{ "name": m["groups"][0]["tensors"][1], "of": m["groups"][0]["tensors"][0] }])
            },
            "tied tensors",
        ),
        (
            &|m| m["fit"]["twins"] = json!([0, 1].map(|_| json!({ "name": "x", "of": m["groups"][0]["tensors"][0] }))),
            "tied tensors",
        ),
        (
            &|m| m["fit"]["common_rows"] = json!([{ "name": "nowhere", "n_rows": 1 }]),
            "common rows: a tensor of the basis",
        ),
        (&|m| m["fit"]["common_rows"] = json!([{ "name": m["groups"][0]["tensors"][0], "n_rows": 0 }]), "shape"),
        (&|m| m["fit"]["common_rows"] = json!([{ "name": m["groups"][0]["tensors"][0], "n_rows": 7 }]), "shape"),
        (
            &|m| m["fit"]["common_rows"] = json!([{ "name": m["groups"][0]["tensors"][0], "n_rows": -1 }]),
            "invalid value",
        ),
        (&|m| m["coded"]["kept_errors"] = json!([1.0, 2.0]), "errors of 1 shared columns expected, of 2 found"),
        (&|m| m["coded"]["kept_errors"] = json!([-1.0]), "squared lengths expected"),
        (&|m| m["estimates"] = json!({"n_pairs": 7000, "cosine_error": 0.1, "unbiased": true}), "estimates of at most"),
        (
            &|m| m["estimates"] = json!({"n_pairs": 1, "cosine_error": -0.1, "unbiased": true}),
            "numbers from 0 on expected",
        ),
        (
            &|m| m["estimates"] = json!({"n_pairs": 1, "cosine_error": 0.1, "unbiased": true}),
            "tensor gram_error.model expected, none found",
        ),
        (&|m| m["version"] = 5.into(), "\"version\": 1 to 4 expected, 5 found"),
    ];
    for (change, expected) in cases {
        let mut changed = good.clone();
        change(&mut changed);
        put(folder, changed);
        check(folder, &base, expected);
    }
    put(folder, good);
    edit(&Basis::open(folder).expect("a basis"), &base).expect("an edit");
}

#[test]
fn atoms_in_each_other_s_place_are_noticed() {
    let top = tempfile::tempdir().expect("a folder");
    let (basis, base) = basis(top.path());
    let folder = &basis.folder;
    let path = |index: usize| folder.join(format!("atom-{index:02}.safetensors"));
    let swap = |a: usize, b: usize| {
        std::fs::rename(path(a), folder.join("aside")).expect("moved");
        std::fs::rename(path(b), path(a)).expect("moved");
        std::fs::rename(folder.join("aside"), path(b)).expect("moved");
    };
    swap(0, 1);
    check(folder, &base, "its checksum does not match: the atom was damaged");
    let checks = verify_files(&Basis::open(folder).expect("a basis"), &runtime(), &Silent).expect("an answer");
    let damaged: Vec<&str> =
        checks.iter().filter(|check| check.damage.is_some()).map(|check| check.file.as_str()).collect();
    assert_eq!(damaged, ["atom-00.safetensors", "atom-01.safetensors"]);
    swap(0, 1);
    // An own column in the place of a shared one: even sealed it has another length, though the bits are the same.
    swap(2, 3);
    let mut manifest = manifest(folder);
    let (own, shared) = (manifest["atoms"][2].clone(), manifest["atoms"][3].clone());
    manifest["atoms"][2]["checksum"] = shared["checksum"].clone();
    manifest["atoms"][3]["checksum"] = own["checksum"].clone();
    put(folder, manifest);
    check(folder, &base, "atom-02.safetensors: tensor codes: u8 [");
}

#[test]
fn a_flipped_bit_or_a_missing_end_is_noticed_and_named() {
    let top = tempfile::tempdir().expect("a folder");
    let (basis, base) = basis(top.path());
    let folder = &basis.folder;
    let mut random = Random(4);
    for (name, bytes) in &contents(folder) {
        let name = name.to_string_lossy();
        let stem = name.trim_end_matches(".safetensors");
        let mut damages: Vec<Vec<u8>> =
            [0, 1, bytes.len() / 2, bytes.len() - 1].iter().map(|&len| bytes[..len].to_vec()).collect();
        for flip in 0..tvb_tests::number("TVB_FLIPS", 24) {
            let at = random.below(if flip % 4 == 0 { bytes.len().min(64) } else { bytes.len() });
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << random.below(8);
            damages.push(flipped);
        }
        for damaged in damages {
            std::fs::write(folder.join(&*name), damaged).expect("written");
            check(folder, &base, stem);
            if let Ok(basis) = Basis::open(folder) {
                let checks = verify_files(&basis, &runtime(), &Silent).expect("an answer");
                let named: Vec<&str> =
                    checks.iter().filter(|check| check.damage.is_some()).map(|check| check.file.as_str()).collect();
                assert_eq!(named, [&*name]);
            }
        }
        std::fs::remove_file(folder.join(&*name)).expect("removed");
        check_missing(folder, &base, stem);
        std::fs::write(folder.join(&*name), bytes).expect("written");
    }
}

#[track_caller]
fn check_missing(folder: &Path, base: &Checkpoint, stem: &str) {
    let error = Basis::open(folder).and_then(|basis| edit(&basis, base)).expect_err("a missing file");
    assert!(error.message().contains(stem), "{error}");
}
