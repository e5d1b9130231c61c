//! `basis.json` of a basis that is otherwise whole, sealed again: opened, verified, and used for an edit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::{Component, Path};
use tempfile::TempDir;
use tvb::basis::Basis;
use tvb::basis::manifest::Manifest;
use tvb::jobs::edit::{Edit, Source};
use tvb::progress::Silent;
use tvb::solve::Rule;
use tvb::jobs::verify::verify_files;
use tvb_fuzz::{cpu, probe, put, resealed};

thread_local! {
    static PROBE: TempDir = probe("basis");
}

fuzz_target!(|input: &[u8]| {
    let sealed = resealed(input);
    let _ = Manifest::from_bytes(input, Path::new("basis.json"));
    PROBE.with(|folder| {
        put(folder, "basis.json", &sealed);
        let Ok(basis) = Basis::open(folder.path()) else { return };
        for atom in &basis.manifest.atoms {
            assert!(Path::new(&atom.file).components().all(|part| matches!(part, Component::Normal(_))));
        }
        let _ = verify_files(&basis, &cpu(), &Silent);
        let edit = Edit { alpha: vec![1.0; basis.n_tasks()], scale: 1.0, rule: Rule::Projected };
        let _ = edit.predict(&basis);
        let _ = edit.edits(Source::Basis(&basis));
    });
});
