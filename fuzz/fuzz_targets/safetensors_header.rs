//! A safetensors header: eight bytes that say how much data follows, then the JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tvb::checkpoint::SafetensorsHeader;

fuzz_target!(|input: &[u8]| {
    let Some((data_bytes, json)) = input.split_first_chunk() else { return };
    let data_bytes = u64::from_le_bytes(*data_bytes);
    if let Ok(header) = SafetensorsHeader::parse(json, data_bytes) {
        // What is accepted covers the data exactly.
        let total: u64 = header.tensors.iter().map(|tensor| tensor.n_bytes()).sum();
        assert_eq!(total, data_bytes);
    }
});
