//! The record of a part, as it is and sealed again; what is accepted is made a plan of.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use tvb::basis::part_file;
use tvb::checkpoint::Budget;
use tvb_fuzz::resealed;

fuzz_target!(|input: &[u8]| {
    let _ = part_file::from_bytes(input);
    if let Ok(record) = part_file::from_bytes(&resealed(input)) {
        if let Ok(plan) = record.plan.plan(Path::new("part"), &Budget::default()) {
            let _ = (plan.n_rows(), plan.n_bytes(), plan.column_name(1));
        }
        // What is accepted can be written again.
        part_file::to_bytes(&record, &[]).unwrap();
    }
});
