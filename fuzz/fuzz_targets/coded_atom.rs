//! The file of a coded atom, a task's own or the shared one, in a basis that is whole otherwise: verified, and decoded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tvb::basis::Basis;
use tvb::checkpoint::Existing;
use tvb::jobs::edit::{Edit, EditJob, EditOutput, Source};
use tvb::jobs::verify::verify_files;
use tvb::progress::Silent;
use tvb::solve::Rule;
use tvb_fuzz::{cpu, probe, put};

thread_local! {
    static PROBE: TempDir = probe("coded");
    static OUTPUT: TempDir = tempfile::tempdir().expect("a folder");
}

fuzz_target!(|input: &[u8]| {
    let Some((which, bytes)) = input.split_first() else { return };
    let names = ["atom-00.safetensors", "atom-02.safetensors"];
    let name = names[usize::from(*which) % names.len()];
    PROBE.with(|folder| {
        let path = folder.path().join(name);
        let whole = std::fs::read(&path).expect("an atom");
        put(folder, name, bytes);
        if let Ok(basis) = Basis::open(folder.path()) {
            let _ = verify_files(&basis, &cpu(), &Silent);
            let edit = Edit { alpha: vec![1.0; basis.n_tasks()], scale: 1.0, rule: Rule::Projected };
            let target = OUTPUT.with(|folder| folder.path().join("edit.safetensors"));
            let output = EditOutput::new(target).delta(true).existing(Existing::Replace);
            let job = EditJob { source: Source::Basis(&basis), edit: &edit, base: None, output: &output };
            // No bytes but those that were written have its checksum.
            assert!(job.write(&cpu(), &Silent).is_err() || bytes == whole);
        }
        put(folder, name, &whole);
    });
});
