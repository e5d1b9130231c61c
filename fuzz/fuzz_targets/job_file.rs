//! A batch's job file, spelled out as far as no input is opened.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use tvb::jobs::batch::{Batch, JobFile};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match JobFile::parse(text).and_then(|file| Batch::new(&file, Path::new("/nowhere/jobs.toml"))) {
        Ok(batch) => assert!(!batch.units.is_empty() || !batch.unusable.is_empty()),
        Err(error) => assert!(!error.message().contains('\n'), "more than one line: {error}"),
    }
});
