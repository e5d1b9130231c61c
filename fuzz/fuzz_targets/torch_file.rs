//! A PyTorch file: zip archive or legacy container, pickle, state dict or module.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::io::{Seek, Write};
use tempfile::NamedTempFile;
use tvb::checkpoint::Checkpoint;

thread_local! {
    // One file for all runs; the reader takes paths only.
    static FILE: RefCell<NamedTempFile> = RefCell::new(NamedTempFile::with_suffix(".pt").unwrap());
}

fuzz_target!(|input: &[u8]| {
    FILE.with_borrow_mut(|file| {
        file.as_file().set_len(0).unwrap();
        file.rewind().unwrap();
        file.write_all(input).unwrap();
        let Ok(checkpoint) = Checkpoint::open(file.path()) else { return };
        for tensor in checkpoint.tensors().iter().filter(|tensor| tensor.n_bytes() < 1 << 16) {
            // Whatever is accepted can be read.
            checkpoint.read(tensor, 0, &mut vec![0; tensor.n_bytes() as usize]).unwrap();
        }
    });
});
