//! Whether the device that the tests are to run on is there: what `cargo xtask drivers` asks first.

use crate::common::device::gpu;

#[test]
fn the_named_device_is_there() {
    let Some((engine, _turn)) = gpu() else { return };
    let wanted = std::env::var("TVB_TEST_DEVICE").unwrap_or_else(|_| "llvmpipe".to_owned()).to_lowercase();
    let facts = engine.facts();
    let names = [&facts.name, &facts.vendor, &facts.driver].map(|name| name.to_lowercase());
    assert!(names.iter().any(|name| name.contains(&wanted)), "{facts} where {wanted} was asked for");
}
