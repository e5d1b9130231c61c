//! Damaged adapters: any byte of the configuration or of the file of factors may be another one. They are refused, or read within
//! bounds; nothing panics, and no more memory is charged than there is.

use std::path::{Path, PathBuf};
use tvb::checkpoint::{Budget, OpenOptions};
use tvb::columns::open::{open_base, open_task};
use tvb::columns::plan::{Plan, Selection};
use tvb::columns::tasks::TaskSource;
use tvb::ops::gram::gram;
use tvb::pass::Runtime;
use tvb::progress::Silent;
use tvb_tests::fixture;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z ^ (z >> 27)) % n as u64) as usize
    }
}

/// One of: another byte, a piece cut out, a piece doubled, a digit changed.
fn damaged(bytes: &[u8], within: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = random.below(within.min(bytes.len()).max(1));
    match random.below(4) {
        0 => bytes[at] = random.below(256) as u8,
        1 => drop(bytes.drain(at..(at + 1 + random.below(8)).min(bytes.len()))),
        2 => {
            let piece = bytes[at..(at + 1 + random.below(8)).min(bytes.len())].to_vec();
            bytes.splice(at..at, piece);
        }
        _ => {
            if let Some(digit) = bytes.iter_mut().skip(at).find(|byte| byte.is_ascii_digit()) {
                *digit = b'0' + random.below(10) as u8;
            }
        }
    }
    bytes
}

/// Opens, and where that is possible reads everything. Answers whether it was.
fn is_read(base: &Path, adapter: &Path) -> bool {
    let options = OpenOptions { budget: Budget::new(32 << 20), ..OpenOptions::default() };
    let base = open_base(base, &options).expect("a base");
    let source = TaskSource { name: "a".into(), path: adapter.to_owned(), key: None };
    let plan = open_task(&source, &base, &options).and_then(|task| Plan::new(base, vec![task], &Selection::all()));
    let Ok(plan) = plan else { return false };
    for tensor in plan.tasks[0].checkpoint.tensors() {
        let mut bytes = vec![0; tensor.n_bytes() as usize];
        // Files may end early; that is an error like any other.
        let _ = plan.tasks[0].checkpoint.read(tensor, 0, &mut bytes);
    }
    gram(&plan, &Runtime::on_cpu(1, 32 << 20), &Silent).is_ok()
}

fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("an adapter") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copied");
    }
}

#[test]
fn damaged_adapters_are_refused_or_read_within_bounds() {
    let top = tempfile::tempdir().expect("a folder");
    let mut random = Random(7);
    let (mut n_read, mut n_refused) = (0, 0);
    for case in ["llama", "bert", "convolutions", "biased", "dora-gpt2"] {
        let base = fixture("lora").join(case).join("base.safetensors");
        let to = top.path().join(case);
        copied(&fixture("lora").join(case).join("adapter"), &to);
        assert!(is_read(&base, &to), "{case}");
        for name in ["adapter_config.json", "adapter_model.safetensors"] {
            let path = to.join(name);
            let whole = std::fs::read(&path).expect("a file");
            // Of the factors mostly the header, and the first numbers.
            let within = if name.ends_with(".json") { whole.len() } else { 2_000.min(whole.len()) };
            for _ in 0..60 {
                std::fs::write(&path, damaged(&whole, within, &mut random)).expect("written");
                let counted = if is_read(&base, &to) { &mut n_read } else { &mut n_refused };
                *counted += 1;
            }
            std::fs::write(&path, &whole).expect("written");
        }
    }
    // Most of a configuration does not matter; most of a header does.
    assert!(n_read > 50 && n_refused > 150, "{n_read} read, {n_refused} refused");
}

#[test]
fn damaged_files_of_other_writers_are_refused_or_read_within_bounds() {
    let top = tempfile::tempdir().expect("a folder");
    let mut random = Random(11);
    let folder = fixture("lora").join("diffusion");
    let base = folder.join("base.safetensors");
    for name in ["kohya.safetensors", "old_diffusers.safetensors", "kohya_tucker.pt"] {
        let path: PathBuf = top.path().join(name);
        let whole = std::fs::read(folder.join(name)).expect("a file");
        std::fs::write(&path, &whole).expect("written");
        assert!(is_read(&base, &path), "{name}");
        for _ in 0..80 {
            std::fs::write(&path, damaged(&whole, 3_000, &mut random)).expect("written");
            is_read(&base, &path);
        }
    }
}
