//! The GPU that tests run on: llvmpipe, the software adapter, by name, or what `TVB_TEST_DEVICE` names.
//!
//! One device for the whole test process, one test at a time on it. Where there is none the tests that need it say so and
//! pass, unless `TVB_REQUIRE_GPU=1`, under which they fail.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use tvb_kernels::{Backend, DeviceChoice, Engine, GpuEngine, open};

/// The shared device, held until the guard is dropped; `None` where there is no adapter.
pub(crate) fn gpu() -> Option<(GpuEngine, MutexGuard<'static, ()>)> {
    static DEVICE: OnceLock<Option<GpuEngine>> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let engine = DEVICE.get_or_init(|| {
        let named = std::env::var("TVB_TEST_DEVICE").ok();
        let (name, backend) = match &named {
            Some(name) => (name.as_str(), None),
            None => ("llvmpipe", Some(Backend::Vulkan)),
        };
        match open(&DeviceChoice::Name(name.to_owned()), backend) {
            Ok(opened) => match opened.engine {
                Engine::Gpu(engine) => {
                    engine.poison_results(true);
                    Some(engine)
                }
                Engine::Cpu(_) => None,
            },
            Err(error) => {
                let required = std::env::var("TVB_REQUIRE_GPU").is_ok_and(|value| value == "1");
                assert!(!required, "TVB_REQUIRE_GPU=1, but {error}");
                eprintln!("skipped on the GPU: {error} (install mesa-vulkan-drivers for a software one)");
                None
            }
        }
    });
    // A test that failed while it held the turn is reported by itself.
    engine.clone().map(|engine| (engine, TURN.lock().unwrap_or_else(PoisonError::into_inner)))
}
