//! A LoRA adapter over a base: its configuration or its file of factors, the other one whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use tempfile::TempDir;
use tvb::checkpoint::{Budget, OpenOptions};
use tvb::columns::open::{open_base, open_task};
use tvb::columns::tasks::TaskSource;
use tvb_fuzz::{BUDGET_BYTES, put};

const FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

fn fixture() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/lora/llama")
}

thread_local! {
    static FOLDER: TempDir = tempfile::tempdir().expect("a folder");
}

fuzz_target!(|input: &[u8]| {
    let Some((which, bytes)) = input.split_first() else { return };
    let changed = FILES[usize::from(*which) % FILES.len()];
    FOLDER.with(|folder| {
        for name in FILES {
            let whole = || std::fs::read(fixture().join("adapter").join(name)).expect("a fixture");
            put(folder, name, &if name == changed { bytes.to_vec() } else { whole() });
        }
        let options = OpenOptions { budget: Budget::new(BUDGET_BYTES), ..OpenOptions::default() };
        let base = open_base(&fixture().join("base.safetensors"), &options).expect("a base");
        let source = TaskSource { name: "a".into(), path: folder.path().to_owned(), key: None };
        if let Ok(task) = open_task(&source, &base, &options) {
            for tensor in task.checkpoint.tensors().iter().filter(|tensor| tensor.n_bytes() < 1 << 16) {
                // Whatever is accepted can be read.
                task.checkpoint.read(tensor, 0, &mut vec![0; tensor.n_bytes() as usize]).unwrap();
            }
        }
    });
});
