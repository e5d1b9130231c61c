//! A decoder written from docs/format.md, in f64 and without the library, against what the library recovers.

use super::models::{ODD, coded, plan, runtime, values_of, words, write_models};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use tvb::digest::Digest;
use tvb::jobs::compress::{CompressOptions, compress};
use tvb::jobs::recover::{RecoverOptions, recover};
use tvb::progress::Silent;
use tvb_kernels::Rate;

/// A safetensors file: its header's bytes (with their length), its tensors' bytes.
pub(super) fn load(path: &Path) -> (Vec<u8>, BTreeMap<String, Vec<u8>>) {
    let bytes = std::fs::read(path).expect("read");
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("a length")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..start]).expect("JSON");
    let entries = header.as_object().expect("an object").iter().filter(|(name, _)| *name != "__metadata__");
    let tensors = entries.map(|(name, entry)| {
        let [from, to] = [0, 1].map(|end| entry["data_offsets"][end].as_u64().expect("a number") as usize);
        (name.clone(), bytes[start + from..start + to].to_vec())
    });
    (bytes[..start].to_vec(), tensors.collect())
}

/// The table of levels as the document has it.
fn levels() -> BTreeMap<String, Vec<f64>> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format.md");
    let text = std::fs::read_to_string(document).expect("docs/format.md");
    let table = text.split("LEVELS = {").nth(1).and_then(|rest| rest.split("}\n").next()).expect("a table");
    let table = table.trim().trim_end_matches(',');
    serde_json::from_str(&format!("{{{table}}}")).expect("levels")
}

#[test]
fn the_document_has_the_levels() {
    let levels = levels();
    assert_eq!(levels.len(), Rate::ALL.len());
    for rate in Rate::ALL {
        let found: Vec<f32> = levels[rate.name()].iter().map(|&level| level as f32).collect();
        assert_eq!(found, rate.levels(), "{} bits", rate.name());
    }
}

fn mix(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

fn word(key: u32, i: usize) -> u32 {
    mix(key.wrapping_add((i as u32).wrapping_mul(0x9e37_79b9)))
}

/// Words of a block at these bits.
pub(super) fn n_words(bits: &str) -> usize {
    match bits {
        "0.25" => 2,
        "0.5" => 4,
        "1.6" => 13,
        bits => 8 * bits.parse::<usize>().expect("a whole number"),
    }
}

fn u32_at(bytes: &[u8], i: usize) -> u32 {
    u32::from_le_bytes(bytes[4 * i..4 * i + 4].try_into().expect("four bytes"))
}

fn f32_of(bits: u32) -> f64 {
    f64::from(f32::from_bits(bits))
}

/// Line `l` of block `j` in units of the scale.
fn value(words: &[u8], bits: &str, levels: &[f64], k: usize, (l, j): (usize, usize), key: u32) -> f64 {
    let bit = |row: usize, l: usize| (u32_at(words, (row + l / 32) * k + j) >> (l % 32)) & 1;
    let signed = |minus: u32, level: f64| if minus == 1 { -level } else { level };
    match bits {
        "0.25" | "0.5" => {
            let n_lines = 32 * n_words(bits);
            let (start, step) = (word(key, 128) & 0xff, (word(key, 128) >> 8) & 0xff | 1);
            let at = (0..n_lines).find(|&at| (start as usize + at * step as usize) % 256 == l);
            at.map_or(0.0, |at| signed(bit(0, at), 1.0))
        }
        "1.6" => {
            let byte = (u32_at(words, l / 20 * k + j) >> (8 * (l % 20 / 5))) & 255;
            match byte / 3u32.pow(l as u32 % 5) % 3 {
                0 => 0.0,
                digit => signed(digit - 1, levels[1]),
            }
        }
        bits => {
            let n_planes: usize = bits.parse().expect("a whole number");
            let number = (1..n_planes).fold(0, |number, plane| 2 * number + bit(8 * plane, l) as usize);
            signed(bit(0, l), levels[number])
        }
    }
}

fn hadamard(y: &mut [f64]) {
    let mut h = 1;
    while h < 256 {
        for start in (0..256).step_by(2 * h) {
            for i in start..start + h {
                (y[i], y[i + h]) = (y[i] + y[i + h], y[i] - y[i + h]);
            }
        }
        h *= 2;
    }
}

/// A column's bytes to one array for each stored tensor.
fn column(codes: &[u8], coded: &Value, bits: &str, is_own: bool, levels: &[f64]) -> Vec<Vec<f64>> {
    let seed = coded["seed"].as_u64().expect("a seed");
    let mut at = 0;
    let mut take = |n: usize| {
        at += n;
        &codes[at - n..at]
    };
    let mut tensors = Vec::new();
    for tensor in coded["tensors"].as_array().expect("a list") {
        let n: usize = tensor["shape"]
            .as_array()
            .expect("sides")
            .iter()
            .map(|side| side.as_u64().expect("a number") as usize)
            .product();
        if tensor["coded"] == false {
            let rows = if is_own { take(2 * n).to_vec() } else { vec![0; 2 * n] };
            tensors.push(
                rows.chunks(2).map(|raw| f32_of(u32::from(u16::from_le_bytes([raw[0], raw[1]])) << 16)).collect(),
            );
            continue;
        }
        let number = tensor["number"].as_u64().expect("a number") as u32;
        let mut values = Vec::new();
        for piece in (0..n).step_by(16_384) {
            let panels: Vec<usize> =
                (piece..n.min(piece + 16_384)).step_by(4096).map(|start| 4096.min(n - start)).collect();
            let words: Vec<&[u8]> = panels.iter().map(|rows| take(4 * n_words(bits) * rows.div_ceil(256))).collect();
            for (panel, (rows, words)) in panels.iter().zip(words).enumerate() {
                let k = rows.div_ceil(256);
                let scales = take(2 * k);
                let tensor_key = mix(mix(mix(seed as u32).wrapping_add((seed >> 32) as u32)).wrapping_add(number));
                let key = mix(tensor_key.wrapping_add((piece / 4096 + panel) as u32));
                let mut out = vec![0.0; 256 * k];
                for j in 0..k {
                    let scale = f32_of(u32::from(u16::from_le_bytes([scales[2 * j], scales[2 * j + 1]])) << 15);
                    let mut y: Vec<f64> =
                        (0..256).map(|l| scale * value(words, bits, levels, k, (l, j), key)).collect();
                    hadamard(&mut y);
                    for (l, y) in y.iter().enumerate() {
                        let minus = (word(key, l / 32 * k + j) >> (l % 32)) & 1;
                        out[l * k + j] = if minus == 1 { -y / 256.0 } else { y / 256.0 };
                    }
                }
                values.extend_from_slice(&out[..*rows]);
            }
        }
        tensors.push(values);
    }
    assert_eq!(at, codes.len(), "the tensors fill the codes");
    tensors
}

pub(super) fn manifest(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("basis.json")).expect("read")).expect("JSON")
}

fn f64s(bytes: &[u8]) -> Vec<f64> {
    bytes.as_chunks::<8>().0.iter().map(|raw| f64::from_le_bytes(*raw)).collect()
}

/// Every task of a basis.
fn tasks(folder: &Path) -> Vec<BTreeMap<String, Vec<f64>>> {
    let manifest = manifest(folder);
    let (coded, atoms) = (&manifest["coded"], manifest["atoms"].as_array().expect("a list"));
    let (_, matrices) = load(&folder.join("coefficients.safetensors"));
    let n_kept = coded["n_kept"].as_u64().expect("a number") as usize;
    let (n_atoms, n_tasks) = (atoms.len() - n_kept, manifest["tasks"].as_array().expect("a list").len());
    let decode = f64s(&matrices["decode.model"]);
    let kept = matrices.get("kept.model").map(|bytes| f64s(bytes)).unwrap_or_default();
    let levels = levels();
    let columns: Vec<Vec<Vec<f64>>> = atoms
        .iter()
        .enumerate()
        .map(|(index, atom)| {
            let bits = coded[if index < n_atoms { "bits" } else { "kept_bits" }].as_str().expect("bits");
            let (_, tensors) = load(&folder.join(atom["file"].as_str().expect("a name")));
            assert_eq!(tensors.len(), 1);
            column(&tensors["codes"], coded, bits, index < n_atoms, &levels[bits])
        })
        .collect();
    let names: Vec<&str> = manifest["groups"][0]["tensors"]
        .as_array()
        .expect("names")
        .iter()
        .map(|name| name.as_str().expect("a name"))
        .collect();
    let task = |t: usize| {
        let own: Vec<f64> = (0..n_atoms).map(|m| decode[m * n_tasks + t]).collect();
        let shared = (0..n_kept).map(|k| (0..n_atoms).map(|m| kept[m * n_kept + k] * own[m]).sum::<f64>());
        let weights: Vec<f64> = own.iter().copied().chain(shared).collect();
        let tensor = |index: usize| -> Vec<f64> {
            let n = columns[0][index].len();
            (0..n)
                .map(|row| columns.iter().zip(&weights).map(|(column, weight)| weight * column[index][row]).sum())
                .collect()
        };
        names.iter().enumerate().map(|(index, name)| ((*name).to_owned(), tensor(index))).collect()
    };
    (0..n_tasks).map(task).collect()
}

/// The checksum of an atom as the document says it.
pub(super) fn checksum(folder: &Path, index: usize) -> Digest {
    let manifest = manifest(folder);
    let coded = &manifest["coded"];
    let atoms = manifest["atoms"].as_array().expect("a list");
    let is_own = index < atoms.len() - coded["n_kept"].as_u64().expect("a number") as usize;
    let bits = coded[if is_own { "bits" } else { "kept_bits" }].as_str().expect("bits");
    let (header, tensors) = load(&folder.join(atoms[index]["file"].as_str().expect("a name")));
    let codes = &tensors["codes"];
    let (mut at, mut parts) = (0, vec![Digest::of(&header)]);
    for tensor in coded["tensors"].as_array().expect("a list") {
        let n: usize = tensor["shape"]
            .as_array()
            .expect("sides")
            .iter()
            .map(|side| side.as_u64().expect("a number") as usize)
            .product();
        let is_coded = tensor["coded"] == true;
        if !is_coded && !is_own {
            continue;
        }
        let blocks = (0..n).step_by(16_384).map(|first| {
            let rows = 16_384.min(n - first);
            let n_bytes = if is_coded { rows.div_ceil(256) * (4 * n_words(bits) + 2) } else { 2 * rows };
            let piece = codes.get(at..at + n_bytes).unwrap_or_default();
            at += n_bytes;
            Digest::of(piece)
        });
        parts.push(Digest::of_digests(blocks.collect::<Vec<_>>()));
    }
    Digest::of_digests(parts)
}

/// Recovers every task and compares.
#[track_caller]
fn check(basis: &tvb::basis::Basis, folder: &Path, case: &str) {
    let n_tasks = basis.n_tasks();
    let options = RecoverOptions::new((0..n_tasks).collect(), folder.join("recovered"));
    let recovered = recover(basis, None, &options, &runtime(), &Silent).expect("task vectors");
    for (path, expected) in recovered.written.iter().zip(tasks(folder)) {
        let found = values_of(path);
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{case}");
        for (name, expected) in expected {
            let most = expected.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
            for (row, (found, expected)) in found[&name].iter().zip(&expected).enumerate() {
                assert!((found - expected).abs() <= 1e-6 * most, "{case}, {name}[{row}]: {found} and {expected}");
            }
        }
    }
    for (index, atom) in basis.manifest.atoms.iter().enumerate() {
        assert_eq!(checksum(folder, index), atom.checksum, "{case}, atom {index}");
    }
}

#[test]
fn what_is_recovered_is_what_the_document_says() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = plan(&write_models(top.path(), ODD, 4, 3));
    for rate in Rate::ALL {
        let folder = top.path().join(format!("at {}", rate.name()));
        // Every rate in both places.
        let kept = Rate::ALL[(rate as usize + 3) % Rate::ALL.len()];
        let basis = coded(&plan, &folder, &words(rate, Some(kept), &["t0 + t1"])).basis;
        let record = basis.manifest.coded.as_ref().expect("codes");
        assert_eq!((basis.manifest.version, record.n_kept, basis.manifest.atoms.len()), (2, 2, 6));
        assert_eq!(basis.manifest.frozen, ["empty", "frozen", "last"]);
        check(&basis, &folder, rate.name());
    }
    let folder = top.path().join("nothing kept");
    let basis = coded(&plan, &folder, &words(Rate::Four, None, &[])).basis;
    assert_eq!(basis.manifest.atoms.len(), 4);
    check(&basis, &folder, "nothing kept");
}

#[test]
fn mixtures_are_coded_just_so() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = plan(&write_models(top.path(), ODD, 4, 4));
    let names: Vec<String> = plan.tasks.iter().map(|task| task.name.clone()).collect();
    let coding = words(Rate::Eight, Some(Rate::Sixteen), &["t0 - t3"]).options(&names, &[], 5).expect("codes");
    let folder = top.path().join("mixed");
    let options = CompressOptions::mixtures(&folder).atoms(3).coding(Some(coding));
    let basis = compress(&plan, &options, &runtime(), &Silent).expect("a basis").basis;
    assert_eq!((basis.n_atoms(), basis.manifest.atoms.len()), (3, 5));
    check(&basis, &folder, "mixtures");
}
