//! The expression language of `tvb apply`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tvb::arithmetic::expression;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let names = ["a", "b c", "mnist", "x.y_2", "my-task"].map(String::from);
    if let Ok(weights) = expression(&names, text) {
        assert_eq!(weights.len(), names.len());
        assert!(weights.iter().all(|weight| weight.is_finite()));
    }
});
