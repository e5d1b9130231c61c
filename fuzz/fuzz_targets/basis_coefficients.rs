//! `coefficients.safetensors` of a basis that is whole otherwise and vouches for it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tvb::basis::Basis;
use tvb::basis::manifest::Manifest;
use tvb::digest::Digest;
use tvb::jobs::edit::{Edit, Source};
use tvb::solve::Rule;
use tvb_fuzz::{probe, put};

struct Whole {
    folder: TempDir,
    manifest: Manifest,
}

thread_local! {
    static WHOLE: Whole = {
        let folder = probe("basis");
        let text = std::fs::read(folder.path().join("basis.json")).unwrap();
        Whole { folder, manifest: serde_json::from_slice(&text).unwrap() }
    };
}

fuzz_target!(|input: &[u8]| {
    WHOLE.with(|whole| {
        put(&whole.folder, "coefficients.safetensors", input);
        let mut manifest = whole.manifest.clone();
        manifest.coefficients.checksum = Digest::of(input);
        put(&whole.folder, "basis.json", &manifest.to_bytes().unwrap());
        let Ok(basis) = Basis::open(whole.folder.path()) else { return };
        let edit = Edit { alpha: vec![1.0; basis.n_tasks()], scale: 1.0, rule: Rule::Projected };
        let _ = edit.predict(&basis);
        let _ = edit.edits(Source::Basis(&basis));
    });
});
