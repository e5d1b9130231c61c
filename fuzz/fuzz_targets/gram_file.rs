//! A Gram file, as it is and sealed again; what is accepted goes through the solvers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tvb::basis::gram_file;
use tvb_fuzz::resealed;

fuzz_target!(|input: &[u8]| {
    let _ = gram_file::from_bytes(input);
    if let Ok(grams) = gram_file::from_bytes(&resealed(input)) {
        // What is accepted can be written again.
        gram_file::to_bytes(&grams).unwrap();
    }
});
