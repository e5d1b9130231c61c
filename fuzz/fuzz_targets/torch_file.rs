//! A PyTorch file: zip archive or legacy container, pickle, state dict or module.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tempfile::NamedTempFile;
use tvb_fuzz::{filled, opened, scratch_file};

thread_local! {
    static FILE: NamedTempFile = scratch_file(".pt");
}

fuzz_target!(|input: &[u8]| {
    FILE.with(|file| {
        opened(filled(file, input), |checkpoint| {
            for tensor in checkpoint.tensors().iter().filter(|tensor| tensor.n_bytes() < 1 << 16) {
                // Whatever is accepted can be read.
                checkpoint.read(tensor, 0, &mut vec![0; tensor.n_bytes() as usize]).unwrap();
            }
        });
    });
});
